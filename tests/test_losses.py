"""Ranking losses."""

import math

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

from modeling_clir.losses import RANKING_LOSSES, TEACHER_LOSSES, ranking_loss, relevance_scores


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
    teacher = {"teacher_scores": torch.tensor([[10.0, 0, 0, 0]] * 3)}
    ranking_loss(logits, 4, kind, margin=10.0, **teacher).backward()
    gradient = logits.grad.view(3, 4)
    assert (gradient[:, 0] < 0).all() and (
        gradient[:, 1:] > 0
    ).all()  # the positive's score rises, the negatives' fall
    if kind != "pointwise":
        shift = torch.tensor([5.0, -3.0, 0.5]).repeat_interleave(4)[:, None]
        shifted = ranking_loss(logits + shift, 4, kind, **teacher)
        assert torch.allclose(ranking_loss(logits, 4, kind, **teacher), shifted, atol=1e-5)
        with pytest.raises(ValueError, match="num_negatives"):
            ranking_loss(logits, 1, kind)
    else:
        assert ranking_loss(logits, 1, kind).isfinite()
    assert ranking_loss(logits.detach().half() * 1000, 4, kind, **teacher).isfinite()
    with pytest.raises(ValueError, match="pairwise"):
        ranking_loss(logits, 4, kind.upper())


def test_losses_of_a_teacher():
    """By hand, and as sentence-transformers computes them from vectors of width 1: the products are the scores."""
    scores = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 0.0]])
    teacher = torch.tensor([[1.0, 0.5, 1.5], [4.0, 0.0, 1.0]])
    by_hand = ((1 - 0.5) ** 2 + (3 + 0.5) ** 2 + (-3 - 4) ** 2 + (0 - 3) ** 2) / 4
    found = {kind: ranking_loss(scores.view(-1, 1), 3, kind, teacher_scores=teacher) for kind in TEACHER_LOSSES}
    assert found["margin_mse"].item() == pytest.approx(by_hand)
    shares, of_teacher = scores.softmax(1), teacher.softmax(1)
    by_hand = (of_teacher * (of_teacher / shares).log()).sum() / 2
    assert found["kl"].item() == pytest.approx(by_hand.item(), abs=1e-6)
    vectors = [torch.ones(2, 1), *scores.T[:, :, None]]
    for kind, peer in {"margin_mse": MarginMSELoss(None), "kl": DistillKLDivLoss(None)}.items():
        expected = peer.compute_loss_from_embeddings(vectors, teacher)
        assert found[kind].item() == pytest.approx(expected.item(), abs=1e-6)
        equal = ranking_loss(scores.view(-1, 1), 3, kind, teacher_scores=scores + torch.tensor([[5.0], [-2.0]]))
        assert equal.item() == pytest.approx(0, abs=1e-6)  # a teacher's scores may be shifted in each query
        with pytest.raises(ValueError, match=f"the {kind} loss needs the scores of a teacher"):
            ranking_loss(scores.view(-1, 1), 3, kind)


def test_listwise_loss_of_grades():
    scores = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 0.0]])
    logs = scores.log_softmax(1)
    grades = torch.tensor([[3, 1, 0], [2, -1, 1]])  # gains 7, 1, 0 and 3, 0, 1
    by_hand = -((7 * logs[0, 0] + logs[0, 1]) / 8 + (3 * logs[1, 0] + logs[1, 2]) / 4) / 2
    loss = ranking_loss(scores.view(-1, 1), 3, "listwise", grades=grades)
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-6)
    many = torch.randn(60, 1, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for grade in (1, 4):  # one relevant document: its grade does not matter
        binary = torch.tensor([[grade, 0, 0, -2, 0]] * 12)
        one, other = ranking_loss(many, 5, "listwise"), ranking_loss(many, 5, "listwise", grades=binary)
        assert one.item() == pytest.approx(other.item(), abs=1e-6)
        gradients = [torch.autograd.grad(loss, many)[0] for loss in (one, other)]
        assert torch.allclose(*gradients, atol=1e-7)
    percent = torch.tensor([[1000, 999, 0, 0, 0]] * 12)  # 2^1000 is no float
    logs = many.view(12, 5).log_softmax(1)
    by_hand = -(2 * logs[:, 0] + logs[:, 1]).mean() / 3
    assert ranking_loss(many, 5, "listwise", grades=percent).item() == pytest.approx(by_hand.item(), abs=1e-5)
