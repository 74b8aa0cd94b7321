"""Adapters: what they train, that merged and apart they are the trained model, and that training resumes exactly."""

import json
import sys

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

import run_clir
import run_mlqa
import run_pretraining
from modeling_clir import BertForXLRetrieval, BertLongForXLRetrieval
from modeling_clir.convert import bert_to_bertlong
from modeling_clir.training.lora import add_lora, head_layers, merged
from modeling_clir.training.training_arguments import XLRetrievalTrainingArguments

from ..backbones import save_backbone
from ..conftest import REPOSITORY
from ..helpers import QUIET, SHORT, clir_command
from ..tiny import pair_batch
from .test_options import train


@pytest.fixture
def bertlong(tiny_bert):
    return bert_to_bertlong(BertForXLRetrieval.from_pretrained(tiny_bert), 128, 16)


def test_adapters_begin_with_the_model_itself(bertlong):
    batch = pair_batch()
    before = bertlong.eval()(**batch, task="rr").relevance_logits
    names = {name for name, _ in bertlong.named_parameters()}
    add_lora(bertlong, 4, seed=0)
    torch.testing.assert_close(bertlong(**batch, task="rr").relevance_logits, before, atol=1e-6, rtol=0)
    trained = {name for name, parameter in bertlong.named_parameters() if parameter.requires_grad}
    adapted = {name for name in trained if "lora_" in name}
    assert len(adapted) == 2 * 2 * 9  # A and B, layers, six projections of the attention and three others
    heads = {name.rsplit(".", 1)[0] for name in trained - adapted}
    assert heads == {"classifier", "bert.pooler.dense", "cls.predictions.transform.dense",
                     "cls.predictions.transform.LayerNorm"}  # fmt: skip
    with merged(bertlong):
        assert {name for name, _ in bertlong.named_parameters()} == names
    assert any("lora_A" in name for name, _ in bertlong.named_parameters())


@pytest.mark.parametrize("kind", ["xlm-roberta", "modernbert"])
def test_heads_of_other_encoders(kind, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(save_backbone(kind, tmp_path), num_labels=1)
    heads = head_layers(model)
    add_lora(model, 2, seed=0)
    assert heads and all(name.startswith(("classifier", "head")) for name in heads)
    batch = {name: tensor for name, tensor in pair_batch().items() if name != "token_type_ids"}
    model.eval()(**batch).logits.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("options", [{}, {"gradient_checkpointing": True}], ids=["plain", "checkpointing"])
def test_training_moves_adapters_alone(options, tokenizer, tmp_path):
    start = train(tokenizer, tmp_path / "start", lora_rank=2, learning_rate=0.0).model.state_dict()
    found = train(tokenizer, tmp_path / "found", lora_rank=2, learning_rate=1.0, max_steps=8, **options).model
    moved = {name for name, parameter in found.named_parameters() if not torch.equal(parameter, start[name])}
    assert moved <= {name for name, parameter in found.named_parameters() if parameter.requires_grad}
    assert {"classifier.weight", "bert.pooler.dense.weight", "cls.predictions.transform.dense.weight"} <= moved
    assert len([name for name in moved if "lora_" in name]) > 24  # the last layer has no local queries


def test_a_resumed_training_is_the_same(tokenizer, tmp_path):
    options = {
        "lora_rank": 2,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    whole = train(tokenizer, tmp_path / "whole", **options)
    resumed = train(tokenizer, tmp_path / "again", resume=tmp_path / "whole/out/checkpoint-2", **options)
    expected = whole.model.state_dict()
    assert all(torch.equal(expected[name], tensor) for name, tensor in resumed.model.state_dict().items())


def test_pretraining(call, bertlong, tiny_bert, sample_corpus, tmp_path):
    base, output = tmp_path / "base", tmp_path / "out"
    bertlong.save_pretrained(base)
    for path in tiny_bert.glob("*token*"):
        (base / path.name).write_bytes(path.read_bytes())
    flags = ["--model_name_or_path", base, "--corpus", sample_corpus, "--output_dir", output, *QUIET, "--do_train",
             "--do_eval", "--qlm_pairs", "en-de", "--rr_pairs", "en-de", "--max_length", "100", "--max_steps", "6",
             "--max_query_length", "30", "--learning_rate", "0.05", "--max_eval_pairs", "4",
             "--lora_rank", "4", "--lora_save", "adapter"]  # fmt: skip
    call(run_pretraining, ["run_pretraining.py", *map(str, flags)])
    batch = pair_batch()
    scores = BertLongForXLRetrieval.from_pretrained(output).eval()(**batch, task="rr").relevance_logits
    untrained = BertLongForXLRetrieval.from_pretrained(base).eval()
    assert (untrained(**batch, task="rr").relevance_logits - scores).abs().max() > 1e-3
    adapted = PeftModel.from_pretrained(untrained, output / "adapter").eval()
    torch.testing.assert_close(adapted(**batch, task="rr").relevance_logits, scores, atol=1e-5, rtol=0)


def test_a_finished_training_is_evaluated(call, tiny_bert, sample_corpus, tmp_path):
    """As after a signal in the last evaluation: the saved model is the merged one, and has no adapter beside it."""
    output = tmp_path / "out"
    flags = ["--model_name_or_path", tiny_bert, "--corpus", sample_corpus, "--output_dir", output, *QUIET, *SHORT,
             "--do_train", "--do_eval", "--rr_pairs", "en-de", "--max_steps", "2", "--max_eval_pairs", "4",
             "--max_position_embeddings", "128", "--lora_rank", "2", "--save_strategy", "no"]  # fmt: skip
    command = ["run_pretraining.py", *map(str, flags)]
    call(run_pretraining, command)
    results, model = (output / "eval_results.json", output / "model.safetensors")
    expected, weights = json.loads(results.read_text(encoding="utf-8")), model.read_bytes()
    results.unlink()
    call(run_pretraining, command)
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["eval_rr_mrr"] == pytest.approx(expected["eval_rr_mrr"]) and model.read_bytes() == weights
    assert "lora_rank: 2" in (output / "README.md").read_text(encoding="utf-8")


def test_ranking_and_answering(call, tiny_bert, sample_collection, tmp_path):
    lora = ("--do_train", "--lora_rank", "2", "--lora_save", "adapter", "--num_train_epochs", "1")
    call(run_clir, clir_command(tiny_bert, [sample_collection / "en-de"], tmp_path / "clir", "--fold", "0", *lora))
    assert (tmp_path / "clir/metrics.json").is_file()
    assert (tmp_path / "clir/fold-0/adapter/adapter_model.safetensors").is_file()
    questions = REPOSITORY / "sample/questions"
    flags = (*QUIET, "--model_name_or_path", tiny_bert, "--output_dir", tmp_path / "qa", "--max_length", "100",
             "--train_data", questions / "train.en.json", "--doc_stride", "20", *lora)  # fmt: skip
    call(run_mlqa, ["run_mlqa.py", *map(str, flags)])
    assert (tmp_path / "qa/adapter/adapter_config.json").is_file() and (tmp_path / "qa/model.safetensors").is_file()


def test_mistakes(tmp_path, monkeypatch):
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            XLRetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **options)

    refused("--lora_save adapter needs --lora_rank", lora_save="adapter")
    refused("--lora_rank must be at least 1, got 0", lora_rank=0)
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused(r"--lora_rank needs the package peft: pip install 'modeling-clir\[lora\]'", lora_rank=2)
