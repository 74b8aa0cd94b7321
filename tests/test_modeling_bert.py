"""BERT with both heads: equals the 2021 code, and opens as a plain BERT."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

from modeling_clir import BertForXLRetrieval
from tests.shared import GOLDEN
from tests.tiny import pair_batch


def build(model_class=BertForXLRetrieval, **options):
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 64, "initializer_range": 0.4, "num_labels": 1}
    torch.manual_seed(0)
    model = model_class(BertConfig(**(sizes | options))).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def renamed(name: str) -> str:
    return name.replace("mlm_cls.predictions", "cls.predictions").replace("seqcls_classifier", "classifier")


@pytest.mark.parametrize("name", ["pads", "nopads_mixed"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_numbers_of_2021(name, implementation):
    meta = json.loads((GOLDEN / "model_short.json").read_text(encoding="utf-8"))
    weights = np.load(GOLDEN / "model_short.weights.npz")
    file = GOLDEN / f"model_short.{name}.npz"
    golden = {key: torch.from_numpy(value) for key, value in np.load(file).items()}
    options = {key: value for key, value in meta["config"].items() if value is not None}
    options |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "tie_word_embeddings": False}
    model = BertForXLRetrieval(BertConfig(**options, attn_implementation=implementation)).eval()
    state = {renamed(key): torch.from_numpy(value) for key, value in weights.items()}
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected

    inputs = {key: golden[f"in::{key}"] for key in ("input_ids", "attention_mask", "token_type_ids")}
    real = inputs["attention_mask"] > 0
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        pooled = model.bert(**inputs).pooler_output
    close = {"atol": 2e-5, "rtol": 0}
    torch.testing.assert_close(output.hidden_states[-1][real], golden["out::last_hidden"][real], **close)
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
        gradients["cls.predictions.bias"] = gradients["cls.predictions.decoder.bias"]  # BERT uses this one
        for key in (key for key in golden if key.startswith(f"{prefix}_grad::")):
            expected, found = golden[key], gradients[renamed(key.split("::")[1])]
            assert (found - expected).norm() < 1e-4 * expected.norm() + 1e-7, key
        for key, value in meta["grad_norms"][name][prefix].items():
            gradient = gradients[renamed(key)]
            norm = 0.0 if gradient is None else gradient.norm().item()
            assert norm == pytest.approx(value or 0.0, rel=1e-3, abs=1e-5), key


@pytest.mark.parametrize("tied", [True, False])
def test_opens_as_berts_own_classes(tied, tmp_path):
    model, inputs = build(tie_word_embeddings=tied), pair_batch()
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "bert" and "auto_map" not in config
    expected = model(**inputs, output_hidden_states=True)
    for auto_class, model_class, name, tensor in (
        (AutoModel, BertModel, "last_hidden_state", expected.hidden_states[-1]),
        (AutoModelForMaskedLM, BertForMaskedLM, "logits", expected.prediction_logits),
        (AutoModelForSequenceClassification, BertForSequenceClassification, "logits", expected.relevance_logits),
        (BertForXLRetrieval, BertForXLRetrieval, "relevance_logits", expected.relevance_logits),
    ):
        loaded, report = auto_class.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is model_class and not report["missing_keys"] and not report["mismatched_keys"]
        torch.testing.assert_close(loaded(**inputs)[name], tensor)


@pytest.mark.parametrize("tied", [True, False])
def test_takes_the_heads_of_a_pretrained_bert(tied, tmp_path):
    bert, inputs = build(BertForPreTraining, tie_word_embeddings=tied), pair_batch()
    bert.save_pretrained(tmp_path)
    model, report = BertForXLRetrieval.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"} and not report["unexpected_keys"]
    torch.testing.assert_close(model(**inputs).prediction_logits, bert(**inputs).prediction_logits)
    assert torch.equal(model.bert.embeddings.position_ids, torch.arange(64)[None])  # buffers, not on disk
    assert model.bert.embeddings.token_type_ids.abs().max() == 0
    assert model.classifier.bias.abs().max() == 0 and 0.1 < model.classifier.weight.std() < 1


def test_a_mask_with_twos_is_refused():
    model, inputs = build(), pair_batch()
    expected = model(**inputs).relevance_logits
    for dtype in (torch.bool, torch.float32):
        found = model(**(inputs | {"attention_mask": inputs["attention_mask"].to(dtype)})).relevance_logits
        torch.testing.assert_close(found, expected)
    query = (inputs["token_type_ids"] == 0) & (inputs["attention_mask"] == 1)
    inputs["attention_mask"] = inputs["attention_mask"] + query
    with pytest.raises(ValueError, match="mask of 0 and 1, or use BertLongForXLRetrieval"):
        model(**inputs)


def test_one_head_at_a_time():
    inputs = pair_batch()
    labels = inputs["input_ids"].masked_fill(inputs["token_type_ids"] == 1, -100)
    labels = labels.masked_fill(inputs["attention_mask"] == 0, -100)
    for task, given, other in (("qlm", labels, ("classifier.", "bert.pooler.")), ("rr", torch.ones(3), ("cls.",))):
        model = build(tie_word_embeddings=False)
        model(**inputs, task=task, labels=given).loss.backward()
        for name, parameter in model.named_parameters():
            if name != "cls.predictions.bias":  # if untied, BERT uses the decoder's bias
                assert (parameter.grad is None) == name.startswith(other), name
    dense = model(**inputs, task="qlm", labels=labels)
    sparse = model(**inputs, task="qlm", labels=labels, sparse_prediction=True)
    torch.testing.assert_close(sparse.prediction_logits, dense.prediction_logits[labels != -100])
    torch.testing.assert_close(sparse.loss, dense.loss)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [37, 61])
def test_resized_vocabulary(size, tied, tmp_path):
    model, inputs = build(tie_word_embeddings=tied), pair_batch(vocab_size=37)
    with torch.no_grad():
        expected = model(**inputs).prediction_logits
    model.resize_token_embeddings(size)
    model.save_pretrained(tmp_path)
    common = min(size, 50)
    for one in (model, BertForXLRetrieval.from_pretrained(tmp_path), BertForMaskedLM.from_pretrained(tmp_path)):
        found = one(**inputs, return_dict=False)[0]
        assert found.shape[-1] == size
        torch.testing.assert_close(found[..., :common], expected[..., :common])
