"""Training: the trajectory of the 2021 code, and runs that must be equivalent."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from modeling_clir import BertForXLRetrieval, BertLongConfig, BertLongForXLRetrieval
from modeling_clir.training.pretraining import PretrainingTrainer
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from ..shared import GOLDEN
from .test_options import train


RENAMED = {"mlm_cls.predictions": "cls.predictions", "seqcls_classifier": "classifier"}


def renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name


class Adam2021(torch.optim.Optimizer):
    """Adam as in the 2021 code: epsilon is added before the correction of the bias, not after."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in (p for p in group["params"] if p.grad is not None):
                state = self.state[parameter] or {"n": 0, "mean": 0.0, "square": 0.0}
                state["n"] += 1
                state["mean"] = 0.9 * state["mean"] + 0.1 * parameter.grad
                state["square"] = 0.999 * state["square"] + 0.001 * parameter.grad**2
                self.state[parameter] = state
                correction = (1 - 0.999 ** state["n"]) ** 0.5 / (1 - 0.9 ** state["n"])
                parameter -= group["lr"] * correction * state["mean"] / (state["square"] ** 0.5 + 1e-8)


class RecordedBatches(PretrainingTrainer):
    """Trains on the batches that the 2021 code drew."""

    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=None)


def recorded_batch(arrays, step: int, task: str) -> dict:
    names = ("input_ids", "attention_mask", "token_type_ids", "labels")
    batch = {name: torch.tensor(arrays[f"step{step}_{task}::{name}"].astype(np.int64)) for name in names}
    number = len(batch["input_ids"])
    if task == "rr":
        batch["relevance"] = batch.pop("labels").view(-1)
    counts = {"queries_cut": 0, "documents_cut": 0, "rows": number}
    return batch | {"task": task, "pairs": ["en-de"] * number, "group_size": 2} | counts


@pytest.mark.parametrize("kind", ["long", "short"])
def test_trajectory_of_2021(kind, tmp_path):
    meta = json.loads((GOLDEN / f"trainer_{kind}.json").read_text(encoding="utf-8"))
    arrays = np.load(GOLDEN / f"trainer_{kind}.npz")
    names = ("vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size")
    settings = {name: meta[name] for name in (*names, "max_position_embeddings")}
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "tie_word_embeddings": False}
    if kind == "long":
        settings |= {"attention_window": meta["attention_window"], "num_labels": 2}
        model = BertLongForXLRetrieval(BertLongConfig(**settings))
    else:
        from transformers import BertConfig

        model = BertForXLRetrieval(BertConfig(**settings, num_labels=2))
        # The 2021 code has one parameter for both biases of the head; untied, our model would have two.
        model.cls.predictions.decoder.bias = model.cls.predictions.bias

    def load(prefix):
        state = {renamed(k[len(prefix) :]): torch.tensor(arrays[k]) for k in arrays.files if k.startswith(prefix)}
        own = model.state_dict()
        return {name: value for name, value in state.items() if name in own}

    initial = load("init::")
    missing = set(dict(model.named_parameters())) - set(initial)
    assert not missing
    model.load_state_dict(initial, strict=False)
    batches = [recorded_batch(arrays, step, task) for step, task in enumerate(meta["steps"])]

    losses = []

    class Recorder(RecordedBatches):
        def compute_loss(self, model, inputs, **kwargs):
            inputs = dict(inputs)
            relevance = inputs.pop("relevance", None)
            if relevance is not None:  # pointwise cross-entropy, with the order of the rows as recorded
                rest = {k: v for k, v in inputs.items() if torch.is_tensor(v)}
                loss = model(**rest, task="rr", labels=relevance).loss
            else:
                loss = super().compute_loss(model, inputs, **kwargs)
            losses.append(loss.item())
            return loss

    arguments = XLRetrievalTrainingArguments(
        output_dir=str(tmp_path),
        lr_scheduler_type="constant",
        max_grad_norm=meta["clip_grad_norm"],
        num_train_epochs=1,
        per_device_train_batch_size=meta["batch_size"],
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    optimizer = Adam2021(model.parameters(), lr=float(meta["optimizer"].split("lr=")[1]))
    Recorder(model=model, args=arguments, train_dataset=batches, optimizers=(optimizer, None)).train()

    expected = arrays["losses_none"].reshape(-1)
    assert np.abs(np.array(losses) - expected).max() < 1e-5
    final = load("final_none::")
    trained = model.state_dict()
    for name, value in final.items():
        assert (trained[name] - value).abs().max() < 2e-5, name
    moved = max((trained[name] - initial[name]).abs().max() for name in final)
    assert moved > 1e-2


def test_saving_without_a_tokenizer(tiny_bert, tmp_path):
    args = XLRetrievalTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    model = BertForXLRetrieval.from_pretrained(tiny_bert)
    PretrainingTrainer(model=model, args=args, train_dataset=[]).save_model()
    saved = BertForXLRetrieval.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), saved.state_dict().values()))
    assert not list(tmp_path.glob("tokenizer*"))


@pytest.mark.parametrize("task", ["qlm", "rr"])
def test_a_model_of_nan_is_not_measured(task, tokenizer, tmp_path):
    """Its scores are neither above nor below each other: the aligned section would be the first."""
    trainer = train(tokenizer, tmp_path, max_steps=1)
    trainer.eval_dataset.sizes = {(task, "en-de"): 4}
    trainer.evaluate()
    head = trainer.model.classifier if task == "rr" else trainer.model.cls.predictions.transform.dense
    head.weight.data[0, 0] = torch.nan
    what = {"qlm": "loss", "rr": "score"}[task]
    with pytest.raises(ValueError, match=f"held-out {task} en-de: a {what} is not finite; the model has NaN weights"):
        trainer.evaluate()
