"""BertLong's attention implementations: dropout, gradients, blocks, training, precision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_mask

from modeling_clir import BertLongForSequenceClassification, BertLongForXLRetrieval, BertLongModel
from modeling_clir.attention_bertlong import BertLongSelfAttention, LocalAttention, keep_mask
from modeling_clir.layout_bertlong import FLEX_BLOCK_SIZE, PackedLayout
from tests.tiny import build, pair_batch, random_batch, use


def layout_of(seed: int, windows=(4, 16), longest: int = 300) -> PackedLayout:
    inputs = random_batch(seed, longest)
    valid, is_global = inputs["attention_mask"] > 0, inputs["global_attention_mask"] > 0
    return PackedLayout(valid, is_global, list(windows))


# --- dropout


@pytest.mark.parametrize("dropout", [1e-9, 0.1, 0.5, 0.9, 1.0])
def test_share_that_dropout_keeps(dropout):
    torch.manual_seed(0)
    kept, factor = keep_mask(torch.Size([101, 9_001]), dropout)
    assert kept.shape == (101, 9_001) and kept.dtype == torch.bool
    expected = 1 - max(dropout, 2**-16)
    spread = (expected * (1 - expected) / kept.numel()) ** 0.5
    assert abs(kept.double().mean().item() - expected) <= 4 * spread + 2**-17
    if dropout < 1:
        assert factor * expected == pytest.approx(1, rel=1e-4)
    four = kept.flatten()[: kept.numel() // 4 * 4].view(-1, 4).double()  # four elements from one random number
    for place in range(4):
        assert four[:, place].mean().item() == pytest.approx(expected, abs=8 * spread + 2**-17)
    if 0.05 < dropout < 0.95:
        assert (torch.corrcoef(four.T) - torch.eye(4)).abs().max() < 0.01


def test_dropout_follows_the_seed():
    torch.manual_seed(3)
    one, _ = keep_mask(torch.Size([50]), 0.5)
    other, _ = keep_mask(torch.Size([50]), 0.5)
    torch.manual_seed(3)
    again, _ = keep_mask(torch.Size([50]), 0.5)
    assert torch.equal(one, again) and not torch.equal(one, other)


# --- local attention on a CPU


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_of_local_attention(dropout, monkeypatch):
    monkeypatch.setattr("modeling_clir.layout_bertlong.BLOCK_SIZE", 8)
    monkeypatch.setattr("modeling_clir.layout_bertlong.WEIGHTS_AT_ONCE", 300)
    layout = layout_of(2, windows=[6], longest=18)
    assert len(layout.local_parts[6]) > 1

    def attend(*states):
        torch.manual_seed(7)
        return LocalAttention.apply(*states, layout.local_parts[6], 2, 0.7, dropout)

    states = [torch.randn(layout.num_tokens, 4, dtype=torch.double, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(attend, states)


def test_parts_hold_few_weights():
    layout = layout_of(2, windows=[4, 64], longest=2_000)
    for window, parts in layout.local_parts.items():
        assert sum(part.end - part.start for part in parts) == layout.num_tokens
        for part in parts:
            assert len(part.bias) == 1 or part.bias.numel() <= 2**16, window


@pytest.mark.parametrize("seed", range(6))
def test_blocks_of_whole_rows_attend_to_the_same_tokens(seed, monkeypatch):
    model, inputs = build(BertLongModel, initializer_range=0.2, attention_window=[4, 16]), random_batch(seed, 70)
    valid = inputs["attention_mask"] > 0
    found = []
    for whole in (True, False):
        monkeypatch.setattr(PackedLayout, "whole_rows", whole)
        model.zero_grad()
        states = model(**inputs).last_hidden_state[valid]
        states.sin().sum().backward()
        found.append([states, *(p.grad for p in model.parameters() if p.grad is not None)])
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-6)


def test_short_rows_are_blocks_of_their_own():
    def layout(*lengths):
        valid = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        return PackedLayout(valid, (torch.arange(max(lengths)) < 20) & valid, [64])

    for lengths in ([80, 75, 0, 70], [128], [30, 31]):
        assert layout(*lengths).whole_rows and layout(*lengths).block_size == max(lengths)
    for lengths in ([500], [130] + 20 * [3]):
        assert not layout(*lengths).whole_rows and layout(*lengths).block_size == 64


# --- global attention on a CPU


@pytest.mark.parametrize("query", [1, 6, 35])
def test_global_rows_by_the_cheaper_way(query, monkeypatch):
    """With few global tokens it reads the rows, with many it computes keys and values. Numbers and gradients agree."""
    model, inputs = build(BertLongForXLRetrieval, initializer_range=0.2), pair_batch(query=query)
    attention, used = model.bert.encoder.layer[0].attention.self, []
    attention.key_global.register_forward_hook(lambda *arguments: used.append(1))
    found = []
    for rows in (None, True, False):
        if rows is not None:
            monkeypatch.setattr(BertLongSelfAttention, "rows_are_cheaper", lambda self, layout, rows=rows: rows)
        model.zero_grad()
        output = model(**inputs)
        (output.prediction_logits.sin().sum() + output.relevance_logits.sum()).backward()
        found.append([output.prediction_logits, *(p.grad for p in model.parameters())])
    assert len(used) == (1 if query < 35 else 2)
    torch.testing.assert_close(found[0], found[1], atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(found[0], found[2], atol=1e-9, rtol=1e-6)


def test_a_layer_in_the_place_of_a_linear_one_is_used():
    """It may be quantized or have an adapter, so that its `weight` is not all of the layer."""

    class Wrapped(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear, self.weight, self.bias = linear, linear.weight, linear.bias

        def forward(self, x):
            return 2 * self.linear(x)

    model, inputs = build(BertLongModel), pair_batch(query=2)
    wrapped = copy.deepcopy(model)
    for before, after in zip(model.encoder.layer, wrapped.encoder.layer):
        after.attention.self.value_global = Wrapped(after.attention.self.value_global)
        with torch.no_grad():
            before.attention.self.value_global.weight.mul_(2)
            before.attention.self.value_global.bias.mul_(2)
    torch.testing.assert_close(wrapped(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


# --- flex_attention


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_flex_attention_hold_what_is_attended(seed):
    layout = layout_of(seed, windows=[4, 260], longest=900)
    masks = [layout.flex_local[4], layout.flex_local[260]]
    if len(layout.global_index):
        masks.append(layout.flex_global)
    for mask in masks:
        queries, keys = mask.seq_lengths
        attended = create_mask(mask.mask_mod, None, None, queries, keys, device="cpu")[0, 0]
        assert attended.any(1).all()
        blocks = mask.to_dense()[0, 0].repeat_interleave(FLEX_BLOCK_SIZE, 0).repeat_interleave(FLEX_BLOCK_SIZE, 1)
        assert not (attended & ~blocks.bool()[:queries, :keys]).any()


def test_blocks_of_flex_attention_grow_with_the_tokens():
    def blocks(length):
        valid = torch.ones(1, length, dtype=torch.bool)
        layout = PackedLayout(valid, torch.arange(length)[None] < 20, [64])
        return int(layout.flex_local[64].to_dense().sum())

    assert blocks(8192) < 2.1 * blocks(4096)


@pytest.mark.parametrize("implementation", ["flex_attention", "varlen"])
def test_dropout_is_refused(implementation):
    model = build(BertLongModel, attention_probs_dropout_prob=0.1, attn_implementation=implementation)
    with torch.no_grad():
        model(**pair_batch())
        with pytest.raises(ValueError, match="set attention_probs_dropout_prob to 0"):
            model.train()(**pair_batch())


# --- whole models


@pytest.mark.parametrize("implementation", ["gathered", "sdpa", "varlen"])
def test_fifty_steps_of_training(implementation):
    """The losses equal those of eager attention up to rounding."""

    def losses(implementation):
        options = {"attention_window": 8, "initializer_range": 0.2, "attn_implementation": implementation}
        model = build(BertLongForSequenceClassification, num_labels=1, **options).float().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        found = []
        for step in range(50):
            inputs = pair_batch(lengths=(90, 23, 9, 64), query=3 + step % 7, seed=step % 5)
            labels = inputs["input_ids"][:, 5] / 25 - 1
            loss = model(**inputs, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    found, expected = losses(implementation), losses("eager")
    assert found == pytest.approx(expected, rel=1e-4)
    assert sum(found[-5:]) < 0.5 * sum(found[:5])


@pytest.mark.parametrize("implementation", ["gathered", "sdpa", "flex_attention", "varlen"])
def test_autocast(implementation):
    model = build(BertLongModel, initializer_range=0.1).float()
    inputs = pair_batch(lengths=(150, 23, 9))
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = use(model, implementation)(**inputs).last_hidden_state
    assert (found - expected).abs().max() < 0.1 and (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("implementation", ["gathered", "sdpa", "flex_attention", "varlen"])
def test_half_precision(implementation, dtype):
    """The last layer computes the global tokens only."""
    inputs = pair_batch(lengths=(150, 23, 9))
    model = build(BertLongForSequenceClassification, initializer_range=0.1, attention_window=8).float()
    with torch.no_grad():
        expected = model(**inputs).logits
        found = use(model, implementation).to(dtype)(**inputs).logits
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.05
    if implementation != "flex_attention":
        model(**inputs).logits.sum().backward()
        assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
