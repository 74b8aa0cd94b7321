"""Documents of one query have different scores in every precision and architecture."""

import copy

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForQuestionAnswering,
    XLMRobertaForSequenceClassification,
)

from modeling_clir import BertForXLRetrieval, BertLongForQuestionAnswering, BertLongForSequenceClassification
from modeling_clir.modeling_bertlong import BertLongForXLRetrieval, ScoreLinear
from modeling_clir.precision import scores_in_float32
from tests.tiny import tiny_config


SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 1}
SIZES |= {"intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0}
DISTILBERT = {"vocab_size": 60, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "num_labels": 1}
OURS = [
    (BertLongForSequenceClassification, tiny_config(num_labels=1, hidden_size=32, initializer_range=0.05)),
    (BertLongForXLRetrieval, tiny_config(num_labels=2, hidden_size=32, initializer_range=0.05)),
    (BertForXLRetrieval, BertConfig(**SIZES)),
]
FOREIGN = [
    (BertForSequenceClassification, BertConfig(**SIZES)),
    (XLMRobertaForSequenceClassification, XLMRobertaConfig(**(SIZES | {"num_labels": 3}))),
    (ModernBertForSequenceClassification, ModernBertConfig(**SIZES, global_attn_every_n_layers=1)),
    (DistilBertForSequenceClassification, DistilBertConfig(**DISTILBERT)),
]
READERS = [
    (BertLongForQuestionAnswering, tiny_config(hidden_size=32, initializer_range=0.05)),
    (BertForQuestionAnswering, BertConfig(**SIZES | {"num_labels": 2})),
    (XLMRobertaForQuestionAnswering, XLMRobertaConfig(**SIZES | {"num_labels": 2})),
]
PRECISIONS = ["bfloat16", "float16", "autocast"]


def build(model_class, config):
    torch.manual_seed(0)
    return model_class(copy.deepcopy(config)).eval()


def documents(model, number=300):
    """Makes the model's inputs for `number` documents of one query."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 50, (number, 30), generator=generator)
    ids[:, :7] = ids[0, :7]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = (torch.arange(30) >= 7).long().expand(number, -1)
    return inputs


@torch.inference_mode()
def scores(model, precision: str) -> torch.Tensor:
    """Scores of shape `(300,)`, or start logits of shape `(300, tokens)`, in the type that the model returns."""
    if precision not in ("float32", "autocast"):
        model = copy.deepcopy(model).to(getattr(torch, precision))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
        output = model(**documents(model))
    if "start_logits" in output:
        return output.start_logits
    return (output["logits"] if "logits" in output else output["relevance_logits"])[:, -1]


def distinct(scores: torch.Tensor) -> int:
    return len(set(scores.flatten().tolist()))


def check_scores(model, precision: str):
    expected, found = scores(model, "float32"), scores(model, precision)
    assert found.dtype == torch.float32
    assert distinct(expected) > 0.98 * expected.numel() and distinct(found) > 0.98 * found.numel()
    assert (found - expected).abs().max() < 0.2 * expected.std() + 0.02


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_class, config", OURS, ids=lambda value: getattr(value, "__name__", ""))
def test_our_models_score_in_float32(model_class, config, precision):
    check_scores(build(model_class, config), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_class, config", FOREIGN, ids=lambda value: getattr(value, "__name__", ""))
def test_other_models_score_in_float32(model_class, config, precision):
    model = build(model_class, config)
    before = distinct(scores(model, precision))
    assert before < 290  # many documents tie
    assert scores_in_float32(model) is model
    check_scores(model, precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model_class, config", READERS, ids=lambda value: getattr(value, "__name__", ""))
def test_start_and_end_logits_in_float32(model_class, config, precision):
    check_scores(scores_in_float32(build(model_class, config)), precision)


@pytest.mark.parametrize("model_class, config", FOREIGN, ids=lambda value: getattr(value, "__name__", ""))
def test_float32_scores_stay_as_they_are(model_class, config):
    model = build(model_class, config)
    expected = scores(model, "float32")
    assert torch.equal(scores(scores_in_float32(model), "float32"), expected)


def test_one_layer_is_changed_once_and_its_weights_stay(tmp_path):
    model = build(XLMRobertaForSequenceClassification, FOREIGN[1][1]).bfloat16()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        scores_in_float32(model)
        assert [name for name, module in model.named_modules() if isinstance(module, ScoreLinear)] == [
            "classifier.out_proj"
        ]
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == state.keys()
    for name, tensor in state.items():
        assert saved[name].dtype == torch.bfloat16 and torch.equal(saved[name], tensor)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded.classifier.out_proj) is nn.Linear and loaded.dtype == torch.bfloat16


def test_gradients_reach_the_weights_in_their_own_type():
    model = scores_in_float32(build(*FOREIGN[0])).bfloat16()
    model(**documents(model, 8)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.bfloat16 and parameter.grad.isfinite().all(), name
    assert model.classifier.weight.grad.abs().max() > 0


def test_a_model_that_accelerate_has_spread_over_devices():
    model = build(*FOREIGN[0]).bfloat16()
    add_hook_to_module(model.classifier, ModelHook())
    scores_in_float32(model)
    with torch.inference_mode():
        logits = model(**documents(model)).logits
    assert logits.dtype == torch.float32 and distinct(logits) > 290
    remove_hook_from_module(model.classifier)
    with torch.inference_mode():
        assert torch.equal(model(**documents(model)).logits, logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_exported_in_half_precision(dtype):
    model = build(*OURS[0]).to(dtype)
    inputs = documents(model)
    with torch.no_grad():
        exported = torch.export.export(model, (), inputs).module()
        found, expected = exported(**inputs).logits, model(**inputs).logits
    assert found.dtype == torch.float32 and distinct(found) > 290
    assert (found - expected).abs().max() < 0.05


def test_compiled_under_autocast():
    torch.compiler.reset()
    model = build(*OURS[0])
    inputs = documents(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = compiled(**inputs).logits, model(**inputs).logits
    assert found.dtype == torch.float32 and distinct(found) > 290
    assert (found - expected).abs().max() < 0.05


def test_a_model_without_scores_is_said(monkeypatch):
    said = []
    monkeypatch.setattr("modeling_clir.precision.logger.warning_once", said.append)
    model = build(BertModel, BertConfig(**SIZES))
    assert scores_in_float32(model) is model
    assert len(said) == 1 and "BertModel has no linear layer that gives its scores" in said[0]
    assert not any(isinstance(module, ScoreLinear) for module in model.modules())
