"""Training with a budget of tokens, what it logs about its speed, and the precisions and optimizers of a CPU."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertTokenizerFast

from modeling_clir import BertForXLRetrieval
from modeling_clir.convert import bert_to_bertlong
from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.data.sections import PretrainingDataset
from modeling_clir.losses import ranking_loss
from modeling_clir.training.pretraining import PretrainingTrainer
from modeling_clir.training.samplers import TokenBudgetSampler, estimate_lengths
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from ..conftest import run
from ..helpers import QUIET


PAIRS = {"qlm": ["en-de"], "rr": ["en-de", "fr-es"]}
BUDGET = (*QUIET, "--qlm_pairs", "en-de", "--rr_pairs", "en-de,fr-es", "--max_length", "320", "--max_query_length",
          "60", "--do_train", "--do_eval", "--max_pairs", "40",
          "--max_eval_pairs", "6", "--learning_rate", "1e-3", "--num_train_epochs", "2", "--save_strategy", "no",
          "--max_position_embeddings", "320", "--attention_window", "16", "--num_negatives", "2",
          "--logging_steps", "5")  # fmt: skip


@pytest.fixture
def data(tiny_bert, sample_corpus):
    tokenizer = BertTokenizerFast.from_pretrained(tiny_bert)
    dataset = PretrainingDataset(sample_corpus, PAIRS, num_negatives=2)
    return dataset, PretrainingCollator(PairEncoder(tokenizer, 320, 60))


def long_model(tiny_bert):
    return bert_to_bertlong(BertForXLRetrieval.from_pretrained(tiny_bert), 320, 16)


def trainer(tiny_bert, data, folder, kind=PretrainingTrainer, max_tokens_per_batch=None, **settings):
    defaults = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "seed": 5}
    defaults |= {"learning_rate": 1e-3, "num_train_epochs": 1, "logging_steps": 1, "lr_scheduler_type": "constant"}
    arguments = XLRetrievalTrainingArguments(output_dir=str(folder), **(defaults | settings))
    return kind(
        model=long_model(tiny_bert),
        args=arguments,
        train_dataset=data[0],
        data_collator=data[1],
        max_tokens_per_batch=max_tokens_per_batch,
    )


def pretrain(model, corpus, output, *flags, processes=1):
    where = ("--model_name_or_path", model, "--corpus", corpus, "--output_dir", output)
    return run("run_pretraining.py", *where, *BUDGET, *flags, processes=processes)


def evaluation(folder) -> dict:
    metrics = json.loads((folder / "eval_results.json").read_text(encoding="utf-8"))
    return {name: value for name, value in metrics.items() if "qlm" in name or "rr" in name}


def assert_same_weights(one: dict, other: dict, tolerance: float):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor - other[name]).abs().max() < tolerance, name


@pytest.mark.parametrize("task", ["qlm", "rr"])
def test_estimated_lengths(task, data):
    """Over all examples and in batches, the mean is near the tokens that the collator counts."""
    dataset, collator = data
    lengths = {name: tokens for name, tokens in estimate_lengths(dataset, collator.encoder).items() if name[0] == task}
    assert {name: len(tokens) for name, tokens in lengths.items()} == {
        name: size for name, size in dataset.sizes.items() if name[0] == task
    }
    batches = list(TokenBudgetSampler(lengths, 3000))
    real = np.array([int(collator([dataset[k] for k in keys])["attention_mask"].sum()) for keys in batches])
    estimated = np.array([sum(lengths[key[:2]][key.index] for key in keys) for keys in batches])
    assert estimated.max() <= 3000
    assert real.sum() == pytest.approx(estimated.sum(), rel=0.03)
    assert np.abs(real / estimated - 1).max() < 0.15


class Recorder(PretrainingTrainer):
    """Keeps the examples, losses and gradients of each optimizer step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.batches, self.losses, self.gradients = [], [], []

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.batches.append(inputs)
        self.losses.append(super().training_step(model, inputs, num_items_in_batch))
        return self.losses[-1]

    def _clip_grad_norm(self, model):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        return super()._clip_grad_norm(model)


def test_accumulated_equals_large_batch(tiny_bert, data, tmp_path):
    """The accumulated batches may have different sizes."""
    settings = {"max_steps": 9, "optim": "sgd", "learning_rate": 0.1}
    one = trainer(tiny_bert, data, tmp_path, Recorder, max_tokens_per_batch=6000, **settings)
    other = trainer(
        tiny_bert, data, tmp_path, Recorder, max_tokens_per_batch=2000, gradient_accumulation_steps=3, **settings
    )
    one.train()
    other.train()
    parts = [other.batches[i : i + 3] for i in range(0, len(other.batches), 3)]
    assert len(parts) == 9 and {batch["task"] for batch in one.batches} == {"qlm", "rr"}
    for step, (large, small) in enumerate(zip(one.batches, parts)):
        assert sum(len(part["pairs"]) for part in small) == len(large["pairs"])
        assert sum(other.losses[3 * step :][:3]).item() == pytest.approx(one.losses[step].item(), abs=1e-4)
        for name, gradient in one.gradients[step].items():
            assert (gradient - other.gradients[step][name]).abs().max() < 1e-4, (step, name)
    for task in ("qlm", "rr"):
        assert any(len({len(part["pairs"]) for part in small}) > 1 for small in parts if small[0]["task"] == task)
    assert_same_weights(one.model.state_dict(), other.model.state_dict(), 1e-4)


def test_ranking_loss_is_the_mean_over_the_examples_of_a_step(tiny_bert, data, sample_corpus, tmp_path):
    dataset = PretrainingDataset(sample_corpus, {"rr": ["en-de"]}, num_negatives=2)
    recorder = trainer(
        tiny_bert, (dataset, data[1]), tmp_path, Recorder, max_steps=1, max_tokens_per_batch=2000,
        gradient_accumulation_steps=3,
    )  # fmt: skip
    recorder.train()
    assert len({len(batch["pairs"]) for batch in recorder.batches}) > 1
    model = long_model(tiny_bert).eval()
    losses = []
    for batch in recorder.batches:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        logits = model(**inputs, task="rr").relevance_logits.detach()
        losses += [ranking_loss(logits[i : i + 3], 3).item() for i in range(0, len(logits), 3)]
    assert sum(recorder.losses).item() == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.slow
def test_resumed_and_distributed_equal_plain(tiny_bert, sample_corpus, tmp_path):
    """The plain run has one process and the whole budget. The resumed run stops in an epoch, with kept workers."""
    pretrain(tiny_bert, sample_corpus, tmp_path / "plain", "--max_tokens_per_batch", "4000")
    expected = load_file(tmp_path / "plain/model.safetensors")
    state = json.loads((tmp_path / "plain/trainer_state.json").read_text(encoding="utf-8"))
    assert state["epoch"] == 2
    half = state["max_steps"] // 2 + 3
    flags = ("--max_tokens_per_batch", "4000", "--save_strategy", "steps", "--save_steps", str(half))
    flags += ("--dataloader_num_workers", "1", "--dataloader_persistent_workers", "true")
    pretrain(tiny_bert, sample_corpus, tmp_path / "half", *flags, "--max_steps", str(half))
    checkpoint = tmp_path / f"half/checkpoint-{half}"
    pretrain(tiny_bert, sample_corpus, tmp_path / "resumed", *flags, "--resume_from_checkpoint", checkpoint)
    assert_same_weights(expected, load_file(tmp_path / "resumed/model.safetensors"), 1e-6)
    pretrain(tiny_bert, sample_corpus, tmp_path / "two", "--max_tokens_per_batch", "2000", processes=2)
    assert evaluation(tmp_path / "two") == pytest.approx(evaluation(tmp_path / "plain"), abs=1e-4)
    for folder, processes in (("plain", 1), ("two", 2)):
        history = json.loads((tmp_path / folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        for record in (record for record in history if "loss" in record):
            assert 0 < record["data_wait"] < 1 and record["tokens_per_second"] > 0
            assert 200 < record["tokens_per_batch"] < 1.2 * 4000 / processes
    assert "| batch (tokens, about) | 4000 |" in (tmp_path / "two/README.md").read_text(encoding="utf-8")


def test_logged_speed(tiny_bert, data, tmp_path, monkeypatch):
    """Data loader, steps and saving move a fake clock by known amounts."""
    now = [0.0]
    monkeypatch.setattr("modeling_clir.training.trainer.time.perf_counter", lambda: now[0])

    class Slow(Recorder):
        def training_step(self, *args):
            now[0] += 3
            return super().training_step(*args)

        def log(self, *args):
            now[0] += 100
            super().log(*args)

    def collate(examples):
        now[0] += 1
        return data[1](examples)

    collate.encoder = data[1].encoder
    slow = trainer(
        tiny_bert, (data[0], collate), tmp_path, Slow, max_tokens_per_batch=2000, gradient_accumulation_steps=2,
        logging_steps=3, max_steps=6,
    )  # fmt: skip
    slow.train()
    records = [record for record in slow.state.log_history if "loss" in record]
    assert len(records) == 2
    for record, batches in zip(records, (slow.batches[:6], slow.batches[6:])):
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        assert record["data_wait"] == pytest.approx(0.25)
        assert record["tokens_per_second"] == pytest.approx(tokens / (6 * 4))
        assert record["tokens_per_batch"] == pytest.approx(tokens / 6)


def test_bf16_on_cpu(tiny_bert, data, tmp_path):
    losses = []
    for bf16 in (False, True):
        recorder = trainer(tiny_bert, data, tmp_path, Recorder, bf16=bf16, max_steps=2, per_device_train_batch_size=16)
        recorder.train()
        assert {batch["task"] for batch in recorder.batches} == {"qlm", "rr"}
        assert all(parameter.dtype == torch.float32 for parameter in recorder.model.parameters())
        losses.append([loss.item() for loss in recorder.losses])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_fused_optimizer_on_cpu(tiny_bert, data, tmp_path):
    """The fused optimizer is the default, and makes the same steps as the plain one."""
    assert XLRetrievalTrainingArguments(str(tmp_path), use_cpu=True).optim == "adamw_torch_fused"
    losses, weights = [], []
    for optim in ("adamw_torch", "adamw_torch_fused"):
        recorder = trainer(tiny_bert, data, tmp_path, Recorder, optim=optim, max_steps=6, max_tokens_per_batch=2000)
        recorder.train()
        assert bool(recorder.optimizer.optimizer.param_groups[0]["fused"]) == (optim == "adamw_torch_fused")
        losses.append([loss.item() for loss in recorder.losses])
        weights.append(recorder.model.bert.embeddings.word_embeddings.weight.detach())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    start = long_model(tiny_bert).bert.embeddings.word_embeddings.weight
    assert (weights[0] - weights[1]).abs().max() < 1e-4 < 1e-3 < (weights[0] - start).abs().max()


def test_a_budget_that_is_too_small(tiny_bert, data, tmp_path):
    with pytest.raises(ValueError, match="less than the longest rr example of en-de, about"):
        trainer(tiny_bert, data, tmp_path, max_tokens_per_batch=300).train()
