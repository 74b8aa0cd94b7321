"""A training that is stopped and goes on is the uninterrupted one to the last bit, in each part of its checkpoint."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from modeling_clir.stopping import STOPPED, signals
from modeling_clir.training.checkpoints import list_checkpoints
from modeling_clir.training.resuming import train_to_the_end

from .test_workers import make_trainer


class StopAt(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def train(kind, tokenizer, folder, batches: list, stop_at: int = 0, **options):
    """Trains to the end, or until step `stop_at`, from the last checkpoint on. Appends the batches to `batches`."""
    signals.listen()
    torch.manual_seed(0)
    trainer = make_trainer(kind, tokenizer, folder, **options)
    if kind == "answering":
        trainer.args.eval_strategy = "no"
    trainer.add_callback(StopAt(stop_at))
    step = trainer.training_step

    def training_step(model, inputs, *rest):
        batches.append({name: value.tolist() if torch.is_tensor(value) else value for name, value in inputs.items()})
        return step(model, inputs, *rest)

    trainer.training_step = training_step
    checkpoint = next(iter(list_checkpoints(folder)), None)
    if stop_at:
        with pytest.raises(SystemExit) as stopped:
            train_to_the_end(trainer, checkpoint)
        assert stopped.value.code == STOPPED
        assert (folder / f"checkpoint-{stop_at}").is_dir()
        signals.training = False
    else:
        train_to_the_end(trainer, checkpoint)


def assert_equal(one, other, where=""):
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name, value in one.items():
            assert_equal(value, other[name], f"{where} {name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for value, second in zip(one, other):
            assert_equal(value, second, where)
    elif hasattr(one, "tolist"):
        assert one.tolist() == other.tolist(), where
    else:
        assert one == other, where


OPTIONS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 6, "learning_rate": 1e-3, "warmup_steps": 3}
OPTIONS |= {"lr_scheduler_type": "cosine", "per_device_train_batch_size": 3, "weight_decay": 0.01}
WORKERS = {"dataloader_num_workers": 2}
PERSISTENT = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
ACCUMULATED = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
FP16 = pytest.param("pretraining", [2], {"fp16": True, "use_cpu": False}, marks=pytest.mark.gpu)


@pytest.mark.parametrize(
    ("kind", "stops", "options"),
    [
        ("pretraining", [1, 4, 5], {}),
        ("ranking", [2, 3, 5], {}),
        ("answering", [2, 4], {}),
        ("pretraining", [4], PERSISTENT),
        pytest.param("answering", [3], PERSISTENT, marks=pytest.mark.slow),
        pytest.param("pretraining", [2], WORKERS, marks=pytest.mark.slow),
        pytest.param("pretraining", [2, 3], ACCUMULATED, marks=pytest.mark.slow),
        FP16,
    ],
)
def test_all_parts_of_a_checkpoint_are_equal(kind, stops, options, tokenizer, tmp_path):
    options = OPTIONS | options
    expected, found = [], []
    train(kind, tokenizer, tmp_path / "whole", expected, **options)
    for stop in [*stops, 0]:
        train(kind, tokenizer, tmp_path / "parts", found, stop, **options)
    assert_equal(found, expected)
    whole, parts = (tmp_path / name / "checkpoint-6" for name in ("whole", "parts"))
    for name in ["optimizer.pt", "scheduler.pt", "rng_state.pth", *["scaler.pt"][: "fp16" in options]]:
        assert_equal(*(torch.load(folder / name, weights_only=False) for folder in (whole, parts)), name)
    assert_equal(*(load_file(folder / "model.safetensors") for folder in (whole, parts)))
