"""BertLong's attention and base model equal the 2021 code, HF's Longformer, the definition, and each other."""

import json

import numpy as np
import pytest
import torch
from transformers import LongformerConfig, LongformerModel

from modeling_clir import BertLongForXLRetrieval, BertLongModel
from modeling_clir.modeling_bertlong import BertLongConfig, global_tokens
from tests.shared import GOLDEN
from tests.tiny import build, pair_batch, random_batch, reference, use, windows_of


# Eager attention computes its softmax in float32 in every model.
TOLERANCE = {"eager": 2e-5, "sdpa": 1e-9, "gathered": 1e-9, "flex_attention": 1e-9, "varlen": 1e-9}
CASES = [
    ("model_long_w16_L128", "varq"),
    ("model_long_w16_L128", "varq_mixed"),
    ("model_long_w64_L512", "varq"),
    ("model_long_edge_w16_w32", "some_rows_noglobal"),
    ("model_long_edge_w16_w32", "no_global_at_all"),
    ("model_long_edge_w16_w32", "query_fills_row"),
]


def renamed(name: str) -> str:
    return name.replace("mlm_cls.predictions", "cls.predictions").replace("seqcls_classifier", "classifier")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("case, name", CASES)
def test_numbers_of_2021(case, name, implementation):
    meta = json.loads((GOLDEN / f"{case}.json").read_text(encoding="utf-8"))
    weights = np.load(GOLDEN / f"{case}.weights.npz")
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / f"{case}.{name}.npz").items()}
    options = {key: value for key, value in meta["config"].items() if value is not None}
    options |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "tie_word_embeddings": False}
    config = BertLongConfig(**options, attn_implementation=implementation)
    model = BertLongForXLRetrieval(config).eval()
    model.load_state_dict({renamed(key): torch.from_numpy(value) for key, value in weights.items()})

    mask = golden["in::attention_mask"]
    inputs = {"input_ids": golden["in::input_ids"], "token_type_ids": golden["in::token_type_ids"]}
    inputs["attention_mask"] = mask
    if name == "no_global_at_all":  # without a 2 the mask does not name global tokens
        inputs |= {"attention_mask": mask.clamp_max(1), "global_attention_mask": mask == 2}
    real = mask > 0
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        pooled = model.bert(**inputs).pooler_output
    close = {"atol": 2e-5, "rtol": 0}
    torch.testing.assert_close(output.hidden_states[-1][real], golden["out::last_hidden"][real], **close)
    for layer in (key for key in golden if key.startswith("out::hidden_")):
        found = output.hidden_states[int(layer.rsplit("_", 1)[1])]
        torch.testing.assert_close(found[real], golden[layer][real], **close)
    torch.testing.assert_close(pooled, golden["out::pooled"], **close)
    torch.testing.assert_close(output.relevance_logits, golden["out::seqcls_logits"], **close)
    index = golden["out::mlm_logits_flat_index"]
    keep = real.flatten()[index]
    found = output.prediction_logits.flatten(0, 1)[index][keep]
    torch.testing.assert_close(found, golden["out::mlm_logits"][keep], **close)

    for task, prefix, labels in (("qlm", "mlm", "labels"), ("rr", "seqcls", "seqcls_labels")):
        model.zero_grad()
        loss = model(**inputs, task=task, labels=golden[f"in::{labels}"]).loss
        torch.testing.assert_close(loss, golden[f"out::{prefix}_loss"].float(), atol=1e-5, rtol=0)
        loss.backward()
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        for key in (key for key in golden if key.startswith(f"{prefix}_grad::")):
            expected, found = golden[key], gradients[renamed(key.split("::")[1])]
            assert (found - expected).norm() < 1e-4 * expected.norm() + 1e-7, key
        norms = {renamed(key): value for key, value in meta["grad_norms"][name][prefix].items()}
        for key, gradient in gradients.items():
            norm = 0.0 if gradient is None else gradient.norm().item()
            assert norm == pytest.approx(norms[key] or 0.0, rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_longformer(seed):
    windows = [[8, 8], [16, 8], [64, 32], [4, 64], [30, 6], [128, 64]][seed]
    model = build(BertLongModel, seed, attention_window=windows)
    config = model.config.to_dict()
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    options = {name: config[name] for name in (*names, "type_vocab_size", "layer_norm_eps")}
    options |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0}
    other = LongformerModel(LongformerConfig(**options, max_position_embeddings=321, attention_window=windows))
    state = dict(model.state_dict())
    positions = state["embeddings.position_embeddings.weight"]
    state["embeddings.position_embeddings.weight"] = torch.cat([positions[:1], positions])
    missing, unexpected = other.double().eval().load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    for part in range(3):
        inputs = random_batch(100 + 10 * seed + part)
        # Longformer's window counts padding between tokens, BertLong's does not. So the rows have none.
        lengths = inputs["attention_mask"].sum(1, keepdim=True).clamp_min(1)
        place = torch.arange(inputs["attention_mask"].shape[1])[None]
        real = place < lengths
        inputs["attention_mask"] = real.long()
        inputs["global_attention_mask"] = inputs["global_attention_mask"] * real
        with torch.no_grad():
            expected = other(**inputs, position_ids=place.expand_as(real) + 1).last_hidden_state
            for implementation in ("eager", "sdpa"):
                model.set_attn_implementation(implementation)
                found = model(**inputs).last_hidden_state
                torch.testing.assert_close(found[real], expected[real], atol=TOLERANCE["eager"], rtol=0)


@pytest.mark.parametrize("seed", range(18))
def test_equal_to_the_definition(seed):
    model = build(BertLongModel, seed, attention_window=windows_of(seed))
    inputs = random_batch(seed)
    real = inputs["attention_mask"] > 0
    target = torch.randn(*real.shape, 16, dtype=torch.double)

    def gradients():
        found = {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        }
        model.zero_grad()
        return found

    rows = reference(model, inputs)
    sum((states[-1] * target[row][real[row]]).sum() for row, (states, _) in enumerate(rows)).backward()
    expected = gradients()
    for implementation in TOLERANCE:
        trains = implementation != "flex_attention"  # it has no gradients on a CPU
        with torch.set_grad_enabled(trains):
            output = use(model, implementation)(**inputs, output_hidden_states=True)
        for row, (states, _) in enumerate(rows):
            for layer, state in enumerate(states):
                found = output.hidden_states[layer][row][real[row]]
                torch.testing.assert_close(found, state, atol=TOLERANCE[implementation], rtol=0)
        assert torch.equal(output.last_hidden_state[~real], torch.zeros_like(output.last_hidden_state[~real]))
        assert output.pooler_output.isfinite().all()
        if not trains:
            continue
        (output.last_hidden_state * target).sum().backward()
        found = gradients()
        for name in expected.keys() | found.keys():  # no gradient counts as zero
            one, other = (tensors.get(name, torch.zeros(())) for tensors in (expected, found))
            error = (one - other).abs().max().item()
            assert error < 10 * TOLERANCE[implementation] * (1 + one.abs().max().item()), name


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_weights(implementation):
    model = build(BertLongModel, attn_implementation=implementation)
    for seed in (0, 1, 2):
        inputs = random_batch(seed, longest=60)
        output = model(**inputs, output_attentions=True)
        assert len(output.attentions) == 2
        for row, (_, shares) in enumerate(reference(model, inputs)):
            place = inputs["attention_mask"][row].nonzero()[:, 0]
            for layer, share in enumerate(shares):
                found = output.attentions[layer][row]
                expected = torch.zeros_like(found)
                expected[:, place[:, None], place] = share
                torch.testing.assert_close(found, expected, atol=TOLERANCE["eager"], rtol=0)
                assert torch.equal(found == 0, expected == 0)
                sums = found.sum(-1)[:, place]
                torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


def test_outputs_asked_through_the_configuration():
    model, inputs = build(BertLongForXLRetrieval), pair_batch()
    plain = model(**inputs)
    assert plain.hidden_states is None and plain.attentions is None
    asked = model(**inputs, output_hidden_states=True, output_attentions=True)
    model.config.output_hidden_states = True
    model.set_attn_implementation("eager")
    model.config.output_attentions = True
    by_config = model(**inputs)
    for name in ("hidden_states", "attentions"):
        for one, other in zip(asked[name], by_config[name]):
            torch.testing.assert_close(one, other)
    assert model(**inputs, output_hidden_states=False).hidden_states is None


@pytest.mark.parametrize("implementation", TOLERANCE)
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_neither_padding_nor_the_batch_changes_a_row(seed, implementation):
    options = {"attention_window": windows_of(seed), "attn_implementation": implementation}
    model = build(BertLongForXLRetrieval, seed, **options)
    close = {"atol": TOLERANCE[implementation], "rtol": 0}
    inputs = random_batch(3 * seed)  # of two or more rows, one has no tokens
    together = model(**inputs)
    generator = torch.Generator().manual_seed(seed)
    for row, real in enumerate(inputs["attention_mask"] > 0):
        alone = model(**{name: tensor[row : row + 1] for name, tensor in inputs.items()})
        torch.testing.assert_close(together.relevance_logits[row], alone.relevance_logits[0], **close)
        if not real.any():
            continue
        tight = {name: tensor[row][real][None] for name, tensor in inputs.items()}
        place = torch.randperm(350, generator=generator)[: int(real.sum())].sort().values
        wide = {name: torch.full((1, 350), 1) for name in tight}
        wide["attention_mask"] = torch.zeros(1, 350, dtype=torch.long)
        for name, tensor in tight.items():
            wide[name][:, place] = tensor
        for other, found in ((tight, slice(None)), (wide, place)):
            output = model(**other)
            expected = together.prediction_logits[row][real]
            torch.testing.assert_close(output.prediction_logits[0][found], expected, **close)
            torch.testing.assert_close(output.relevance_logits[0], together.relevance_logits[row], **close)


@pytest.mark.parametrize("implementation", TOLERANCE)
@torch.no_grad()
def test_nothing_depends_on_what_stands_in_padding(implementation):
    model = build(BertLongForXLRetrieval, attn_implementation=implementation)
    inputs = pair_batch(lengths=(0, 9, 30))
    inputs = {name: tensor.roll(3, dims=1) for name, tensor in inputs.items()}  # so padding comes first
    real = inputs["attention_mask"] == 1
    place = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    expected = model(**inputs)
    inputs["input_ids"] = inputs["input_ids"].masked_fill(~real, -100)
    inputs["token_type_ids"] = inputs["token_type_ids"].masked_fill(~real, 77)
    inputs["position_ids"] = place.masked_fill(~real, 10_000)
    inputs["global_attention_mask"] = (inputs["token_type_ids"] == 0) | ~real
    found = model(**inputs)
    embeddings = model.bert.embeddings.word_embeddings(inputs.pop("input_ids").clamp_min(0))
    embedded = model(**inputs, inputs_embeds=embeddings.masked_fill(~real[..., None], torch.nan))
    for output in (found, embedded):
        torch.testing.assert_close(output.prediction_logits, expected.prediction_logits)
        torch.testing.assert_close(output.relevance_logits, expected.relevance_logits)


@pytest.mark.parametrize("rows, length", [(1, 1), (3, 1), (1, 2), (2, 65)])
def test_small_batches_without_a_mask(rows, length):
    model = build(BertLongModel)
    ids = torch.randint(1, 50, (rows, length), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    first = torch.zeros_like(ids, dtype=torch.bool)
    first[:, 0] = True
    expected = torch.stack([states[-1] for states, _ in reference(model, inputs, first)])
    torch.testing.assert_close(model(ids).last_hidden_state, expected, atol=1e-9, rtol=0)


def test_a_row_that_is_all_global_and_longer_than_blocks():
    model = build(BertLongModel, attention_window=2)
    inputs = pair_batch(lengths=(300, 20, 150), query=300)
    inputs["global_attention_mask"] = inputs["attention_mask"]
    found = model(**inputs).last_hidden_state
    for row, (states, _) in enumerate(reference(model, inputs)):
        torch.testing.assert_close(found[row, : states.shape[1]], states[-1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("implementation", TOLERANCE)
def test_a_batch_without_any_token(implementation):
    model = build(BertLongForXLRetrieval, attn_implementation=implementation)
    output = model(torch.ones(2, 5, dtype=torch.long), attention_mask=torch.zeros(2, 5, dtype=torch.long))
    assert output.prediction_logits.isfinite().all() and output.relevance_logits.isfinite().all()
    assert torch.equal(output.relevance_logits[0], output.relevance_logits[1])


# Inputs -> the global ones of the 8 tokens. The row is [CLS] q q [SEP] d d [SEP] and one padding.
RULES = {
    "two segments": ({"token_type_ids": [0, 0, 0, 0, 1, 1, 1, 0]}, [1, 1, 1, 1, 0, 0, 0, 0]),
    "one segment": ({"token_type_ids": [0, 0, 0, 0, 0, 0, 0, 0]}, [1, 0, 0, 0, 0, 0, 0, 0]),
    "one segment, the other": ({"token_type_ids": [1, 1, 1, 1, 1, 1, 1, 0]}, [1, 0, 0, 0, 0, 0, 0, 0]),
    "no segments": ({}, [1, 0, 0, 0, 0, 0, 0, 0]),
    "twos": (
        {"attention_mask": [1, 2, 2, 1, 1, 1, 1, 0], "token_type_ids": [0, 0, 0, 0, 1, 1, 1, 0]},
        [0, 1, 1, 0, 0, 0, 0, 0],
    ),
    "explicit": (
        {"global_attention_mask": [0, 0, 0, 0, 0, 1, 0, 1], "attention_mask": [1, 2, 2, 1, 1, 1, 1, 0]},
        [0, 0, 0, 0, 0, 1, 0, 0],
    ),
    "explicit, none": (
        {"global_attention_mask": [0] * 8, "token_type_ids": [0, 0, 0, 0, 1, 1, 1, 0]},
        [0, 0, 0, 0, 0, 0, 0, 0],
    ),
    "padding first": (
        {"attention_mask": [0, 0, 1, 1, 1, 1, 1, 1], "token_type_ids": [0, 0, 0, 0, 0, 1, 1, 1]},
        [0, 0, 1, 1, 1, 0, 0, 0],
    ),
    "padding first, no segments": ({"attention_mask": [0, 0, 1, 1, 1, 1, 1, 1]}, [0, 0, 1, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("rule", RULES)
def test_which_tokens_are_global(rule):
    given, expected = RULES[rule]
    given = {name: torch.tensor([values]) for name, values in given.items()}
    given.setdefault("attention_mask", torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]]))
    assert global_tokens(**given).int().tolist() == [expected]

    model = build(BertLongModel, attention_window=2)
    ids = torch.arange(1, 9)[None]
    found = model(ids, **given).last_hidden_state
    valid = given["attention_mask"].clamp_max(1)
    given["global_attention_mask"] = torch.tensor([expected])
    torch.testing.assert_close(model(ids, **(given | {"attention_mask": valid})).last_hidden_state, found)
    given["global_attention_mask"] = 1 - given["global_attention_mask"]
    assert (model(ids, **given).last_hidden_state - found).abs().max() > 1e-3


def test_rows_with_and_without_twos_follow_one_convention():
    mask = torch.tensor([[2, 2, 1, 1], [1, 1, 1, 1]])
    segments = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    assert global_tokens(mask, segments).int().tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert global_tokens(mask[1:], segments[1:]).int().tolist() == [[1, 1, 0, 0]]


PAIR, SINGLE = [2, 10, 11, 3, 20, 21, 3, 0], [2, 10, 11, 12, 20, 21, 3, 0]  # 2 [CLS], 3 [SEP], 0 padding
SEGMENTS = [0, 0, 0, 0, 1, 1, 1, 0]
TWO_TEXTS = {  # input ids, other inputs, whether the model warns
    "pair": (PAIR, {}, True),
    "pair, two separators between": ([2, 10, 3, 3, 20, 21, 3, 0], {}, True),
    "pair, types that are all 0": (PAIR, {"token_type_ids": [0] * 8}, True),
    "pair, padding first": ([0, *PAIR[:-1]], {"attention_mask": [0, 1, 1, 1, 1, 1, 1, 1]}, True),
    "pair, token types": (PAIR, {"token_type_ids": SEGMENTS}, False),
    "pair, twos": (PAIR, {"attention_mask": [2, 2, 2, 2, 1, 1, 1, 0]}, False),
    "pair, a two at the first token": (PAIR, {"attention_mask": [2, 1, 1, 1, 1, 1, 1, 0]}, False),
    "pair, explicit": (PAIR, {"global_attention_mask": [1, 0, 0, 0, 0, 0, 0, 0]}, False),
    "one text": (SINGLE, {}, False),
    "one text, types that are all 0": (SINGLE, {"token_type_ids": [0] * 8}, False),
    "one text that repeats a word": ([2, 10, 10, 10, 20, 20, 3, 0], {}, False),
    "no token but one": ([2, 0, 0, 0, 0, 0, 0, 0], {"attention_mask": [1, 0, 0, 0, 0, 0, 0, 0]}, False),
}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("case", TWO_TEXTS)
def test_a_query_that_nothing_marks_is_said(case, implementation, monkeypatch):
    ids, given, missed = TWO_TEXTS[case]
    said = []
    monkeypatch.setattr("modeling_clir.modeling_bertlong.logger.warning_once", said.append)
    given = {"attention_mask": [1, 1, 1, 1, 1, 1, 1, 0]} | given
    rows = {name: torch.tensor([values, values]) for name, values in {"input_ids": ids, **given}.items()}
    rows["input_ids"][0] = torch.tensor(SINGLE) if given["attention_mask"][0] else torch.tensor([0, *SINGLE[:-1]])
    for types, message in (
        (2, "Pass token_type_ids (0 for the query, 1 for the document) or global"),
        (1, "Pass global"),
    ):
        if types == 1 and rows.get("token_type_ids", torch.zeros(1)).any():
            continue
        build(BertLongModel, attn_implementation=implementation, type_vocab_size=types)(**rows)
        assert len(said) == missed and all(message in text for text in said)
        said.clear()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.uint8, torch.float32, torch.float16])
def test_masks_of_any_type(dtype):
    model, inputs = build(BertLongModel), pair_batch()
    expected = model(**inputs)
    inputs["global_attention_mask"] = ((inputs["token_type_ids"] == 0) & (inputs["attention_mask"] == 1)).to(dtype)
    inputs["attention_mask"] = inputs["attention_mask"].to(dtype)
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        found = model(**inputs).last_hidden_state
        torch.testing.assert_close(found, expected.last_hidden_state, atol=TOLERANCE[implementation], rtol=0)
