"""Ranking losses."""

import math

import pytest
import torch

from modeling_clir.losses import RANKING_LOSSES, ranking_loss, relevance_scores


def test_losses_by_hand():
    one = torch.tensor(
        [[2.0], [1.0], [-1.0], [0.0], [3.0], [0.0]]
    )  # two queries, each with a positive and two negatives
    softplus = lambda x: math.log(1 + math.exp(x))  # noqa: E731
    pairwise = (softplus(-1) + softplus(-3) + softplus(3) + softplus(0)) / 4
    assert ranking_loss(one, 3).item() == pytest.approx(pairwise, abs=1e-6)
    assert ranking_loss(one, 3, "margin").item() == pytest.approx((0 + 0 + 4 + 1) / 4)
    assert ranking_loss(one, 3, "margin", margin=2.0).item() == pytest.approx((1 + 0 + 5 + 2) / 4)
    exp = math.exp
    listwise = -(math.log(exp(2) / (exp(2) + exp(1) + exp(-1))) + math.log(1 / (1 + exp(3) + 1))) / 2
    assert ranking_loss(one, 3, "listwise").item() == pytest.approx(listwise, abs=1e-6)
    pointwise = (softplus(-2) + softplus(1) + softplus(-1) + softplus(0) + softplus(3) + softplus(0)) / 6
    assert ranking_loss(one, 3, "pointwise").item() == pytest.approx(pointwise, abs=1e-6)

    two = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.0, 0.0], [2.0, 2.5]])
    expected = (softplus(-1) + softplus(-1.5) + softplus(0) + softplus(0.5)) / 4
    assert ranking_loss(two, 2, "pointwise").item() == pytest.approx(expected, abs=1e-6)
    assert relevance_scores(two).tolist() == [2.0, -1.0, 0.0, 2.5]
    assert ranking_loss(two, 2).item() == pytest.approx((softplus(-3) + softplus(2.5)) / 2, abs=1e-6)


@pytest.mark.parametrize("kind", RANKING_LOSSES)
def test_losses_properties(kind):
    logits = torch.randn(12, 1, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ranking_loss(logits, 4, kind, margin=10.0).backward()
    gradient = logits.grad.view(3, 4)
    assert (gradient[:, 0] < 0).all() and (
        gradient[:, 1:] > 0
    ).all()  # the positive's score rises, the negatives' fall
    if kind != "pointwise":
        shift = torch.tensor([5.0, -3.0, 0.5]).repeat_interleave(4)[:, None]
        assert torch.allclose(ranking_loss(logits, 4, kind), ranking_loss(logits + shift, 4, kind), atol=1e-5)
        with pytest.raises(ValueError, match="num_negatives"):
            ranking_loss(logits, 1, kind)
    else:
        assert ranking_loss(logits, 1, kind).isfinite()
    assert ranking_loss(logits.detach().half() * 1000, 4, kind).isfinite()
    with pytest.raises(ValueError, match="pairwise"):
        ranking_loss(logits, 4, kind.upper())
