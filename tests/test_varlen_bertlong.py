"""Attention with variable lengths: gradients, the merge by log-sum-exp, equality with sdpa, what a GPU is asked."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import varlen as torch_varlen

from modeling_clir import BertLongForSequenceClassification, BertLongForXLRetrieval, BertLongModel, varlen_bertlong
from modeling_clir.layout_bertlong import PackedLayout, Sequences
from modeling_clir.varlen_bertlong import MergedAttention
from tests.tiny import build, pair_batch, use


def layout_of(lengths, queries, windows=(4,)) -> PackedLayout:
    place = torch.arange(max(lengths))[None]
    valid, is_global = (place < torch.tensor(counts)[:, None] for counts in (lengths, queries))
    return PackedLayout(valid, is_global, list(windows))


def states(number: int, heads: int = 2, size: int = 3, count: int = 1) -> list[torch.Tensor]:
    return [torch.randn(number, heads, size, dtype=torch.double, requires_grad=True) for _ in range(count)]


@pytest.mark.parametrize("window", [0, 2, 4, 40])
def test_gradients(window):
    """Against differences: rows of one token, a row that its query fills, a row without tokens."""
    torch.manual_seed(window)
    layout = layout_of([9, 1, 5, 0, 12], [3, 1, 5, 0, 1], [window])
    local, far = len(layout.local_index), len(layout.attended_index)
    assert (local, far, layout.query_first) == (17, 4, True)
    arguments = states(local), states(local, count=2), states(far, count=2)

    def attend(query, *keys_and_values):
        return MergedAttention.apply(query, 0.7, layout.varlen_local[window], *keys_and_values)

    assert torch.autograd.gradcheck(attend, [tensor for part in arguments for tensor in part])


def test_gradients_of_global_attention():
    layout = layout_of([6, 1, 4], [2, 1, 4])

    def attend(query, key, value):
        return MergedAttention.apply(query, 0.7, [layout.varlen_global], key, value)

    assert torch.autograd.gradcheck(attend, [*states(7), *states(11, count=2)])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_the_merge_with_torchs_own_flash_kernel(dtype, tolerance):
    """
    That kernel's backward, given the merged output and log-sum-exp, computes the gradients of one softmax over both
    sets. The expected numbers are autograd's of the plain formula.
    """
    generator = torch.Generator().manual_seed(0)
    queries, far, window, scaling = 40, 7, 8, 0.3
    place = torch.arange(queries)
    near = ((place[:, None] - place).abs() <= window // 2)[None, None]
    bias = torch.zeros(near.shape, dtype=dtype).masked_fill(~near, -torch.inf)

    def draw(number):
        return torch.randn(1, 2, number, 8, dtype=dtype, generator=generator).requires_grad_()

    query, keys, values = draw(queries), [draw(queries), draw(far)], [draw(queries), draw(far)]
    gradient = draw(queries).detach()
    mask = F.pad(near, (0, far), value=True)
    scores = (query @ torch.cat(keys, 2).transpose(2, 3) * scaling).masked_fill(~mask, -torch.inf)
    expected = scores.softmax(-1) @ torch.cat(values, 2)
    inputs = [query, *keys, *values]
    expected_gradients = torch.autograd.grad(expected, inputs, gradient)

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    with torch.no_grad():
        parts = [flash(query, k, v, attn_mask=m, scale=scaling) for k, v, m in zip(keys, values, (bias, None))]
        sums = torch.stack([part[1].reshape(1, 2, queries) for part in parts])
        total = sums.logsumexp(0)
        output = sum((one - total).exp()[..., None] * part[0] for one, part in zip(sums, parts))
        shares = [
            backward(
                gradient, query, k, v, output, total.to(parts[0][1].dtype), 0.0, False, attn_mask=m, scale=scaling
            )
            for k, v, m in zip(keys, values, (bias, None))
        ]
    close = {"atol": tolerance, "rtol": tolerance}
    torch.testing.assert_close(output, expected, **close)
    found = [shares[0][0] + shares[1][0], *(share[1] for share in shares), *(share[2] for share in shares)]
    for one, other in zip(found, expected_gradients):
        torch.testing.assert_close(one, other, **close)


# --- whole models


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_sdpa_in_single_precision(seed):
    """Random windows, lengths and query lengths; rows of one token, and rows that the query fills."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high, shape=()):
        return torch.randint(low, high + 1, shape, generator=generator)

    windows = (2 * draw(1, 40, (2,))).tolist()
    lengths = draw(1, 200, (4,))
    lengths[draw(0, 3)] = 1
    place = torch.arange(int(lengths.max()))[None]
    query = torch.minimum(draw(1, 30, (4,)), lengths)
    query[draw(0, 3)] = lengths.max()  # fills its row
    mask = (place < lengths[:, None]).long()
    inputs = {"input_ids": draw(1, 49, mask.shape), "attention_mask": mask}
    inputs["global_attention_mask"] = (place < query[:, None]).long()
    model = build(BertLongForXLRetrieval, seed, attention_window=windows, initializer_range=0.1).float()
    found = []
    for implementation in ("gathered", "varlen"):
        model.zero_grad()
        output = use(model, implementation)(**inputs)
        (output.prediction_logits[mask > 0].sin().mean() + output.relevance_logits.sum()).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        found.append([output.prediction_logits[mask > 0], output.relevance_logits, gradients])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_every_parameter_has_a_gradient():
    """DDP waits for those that have none, so that a batch of queries alone has zeros."""
    model = build(BertLongForXLRetrieval, attn_implementation="varlen")
    model(
        **pair_batch(lengths=(6, 3), query=6), global_attention_mask=torch.ones(2, 6)
    ).prediction_logits.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if ".attention." in name)


@pytest.mark.parametrize("place", [[3], [0, 5], []])
def test_other_global_tokens_take_sdpa_and_that_is_said(place, monkeypatch):
    said = []
    monkeypatch.setattr("modeling_clir.modeling_bertlong.logger.warning_once", said.append)
    model, inputs = build(BertLongModel), pair_batch()
    use(model, "varlen")(**inputs)
    assert not said
    inputs["global_attention_mask"] = torch.zeros_like(inputs["input_ids"])
    inputs["global_attention_mask"][:, place] = 1
    found = model(**inputs).last_hidden_state
    assert len(said) == 1 and "start with their global tokens" in said[0]
    torch.testing.assert_close(found, use(model, "gathered")(**inputs).last_hidden_state)


def test_from_pretrained_and_the_configuration(tmp_path):
    build(BertLongForSequenceClassification).save_pretrained(tmp_path)
    model = BertLongForSequenceClassification.from_pretrained(tmp_path, attn_implementation="varlen")
    assert model.config._attn_implementation == "varlen"
    with pytest.raises(ValueError, match="varlan"):
        model.set_attn_implementation("varlan")


# --- on a GPU


def test_what_a_gpu_is_asked():
    """Without numbers: on the meta device torch checks the names, types and shapes of the calls."""
    layout = layout_of([9, 1, 5, 12], [3, 1, 5, 2])
    local, far = len(layout.local_index), len(layout.attended_index)
    arguments = [
        torch.empty(number, 2, 8, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for number in (local, local, local, far, far)
    ]
    sets = [
        Sequences(s.queries.to("meta"), s.keys.to("meta"), *(s.most_queries, s.most_keys, s.reach))
        for s in layout.varlen_local[4]
    ]
    output = MergedAttention.apply(arguments[0], 0.7, sets, *arguments[1:])
    assert output.shape == arguments[0].shape and output.dtype == torch.bfloat16
    output.sum().backward()
    for tensor in arguments:
        assert tensor.grad.shape == tensor.shape and tensor.grad.dtype == torch.bfloat16
    _, total = varlen_bertlong.varlen_forward(*arguments[:3], sets[0], 0.7)
    assert total.shape == (2, local) and total.dtype == torch.float32


def test_single_precision_is_refused_on_a_gpu():
    with pytest.raises(ValueError, match=r"load the model with dtype=torch\.bfloat16"):
        varlen_bertlong.kernels(torch.empty(1, 2, 8, device="meta"))


def test_older_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch_varlen, "varlen_attn", lambda query, key, value: None)  # without a window
    varlen_bertlong.varlen.cache_clear()
    with pytest.raises(ValueError, match=r"needs torch 2\.11 or newer on a GPU"):
        varlen_bertlong.varlen()
