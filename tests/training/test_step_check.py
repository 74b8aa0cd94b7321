"""Each optimizer step: a signal stops a training with a checkpoint, and steps without a finite loss are left out."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from modeling_clir.stopping import STOPPED, signals
from modeling_clir.training.checkpoints import damage, list_checkpoints
from modeling_clir.training.ranking import RankingTrainer
from modeling_clir.training.step_check import NOT_FINITE

from .test_checkpoints import train


@pytest.fixture(scope="module")
def whole(tokenizer, tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), tokenizer)


def measured(folder):
    state = json.loads((folder / "checkpoint-6/trainer_state.json").read_text(encoding="utf-8"))
    return [record["eval_MAP"] for record in state["log_history"] if "eval_MAP" in record], state["best_global_step"]


def assert_same_weights(one, other):
    found, expected = (load_file(folder / "checkpoint-6/model.safetensors") for folder in (one, other))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.fixture
def on_batch(monkeypatch):
    """Calls a function with the loss at a batch, counted from 1, of the next trainings. It returns the loss to use."""

    def set_function(number, function):
        task_loss, seen = RankingTrainer.task_loss, []

        def changed(self, model, inputs, facts):
            loss, outputs, items = task_loss(self, model, inputs, facts)
            seen.append(facts.ids)
            return function(loss) if len(seen) == number else loss, outputs, items

        monkeypatch.setattr(RankingTrainer, "task_loss", changed)
        return seen

    return set_function


@pytest.mark.parametrize("workers", [{}, {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}])
@pytest.mark.parametrize(
    ("number", "step"),
    [(signal.SIGTERM, 1), (signal.SIGUSR1, 2), (signal.SIGTERM, 3)],
    ids=["first step", "end of an epoch", "inside an epoch"],
)
def test_a_signal_stops_and_the_same_command_goes_on_bitwise(
    number, step, workers, whole, tokenizer, tmp_path, on_batch, monkeypatch, capsys
):
    def send(loss):
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # at the same moment: one signal
        return loss

    seen = on_batch(step, send)
    signals.listen()
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, tokenizer, **workers)
    assert stopped.value.code == STOPPED == 75 and len(seen) == step
    assert f"stopped by a signal after step {step}; the same command goes on" in capsys.readouterr().err
    last = list_checkpoints(tmp_path / "fold-0")[0]
    assert last.name == f"checkpoint-{step}" and damage(last) is None
    monkeypatch.undo()
    signals.listen()
    found = train(tmp_path, tokenizer, **workers)
    assert_same_weights(found, whole)
    assert measured(found) == measured(whole)


def test_a_signal_at_the_last_step_lets_the_training_end(whole, tokenizer, tmp_path, on_batch):
    on_batch(6, lambda loss: os.kill(os.getpid(), signal.SIGTERM) or loss)
    signals.listen()
    assert_same_weights(train(tmp_path, tokenizer), whole)
    with pytest.raises(SystemExit) as stopped:
        signals.stop_together()
    assert stopped.value.code == STOPPED


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_ends_the_training_with_its_last_checkpoint(
    value, tokenizer, tmp_path, on_batch, capsys
):
    seen = on_batch(3, lambda loss: loss * value)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, tokenizer)
    assert stopped.value.code == NOT_FINITE == 70 and len(seen) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: step 3 has no finite loss or gradient: rr en-de q") and f"loss {value}" in error
    assert all(name in error for name in seen[2]) and "more than --max_bad_batches 0" in error
    assert [path.name for path in list_checkpoints(tmp_path / "fold-0")] == ["checkpoint-2"]


def test_bad_batches_are_left_out_up_to_a_number(tokenizer, tmp_path, on_batch, caplog, monkeypatch):
    weights = {}

    def train_with(folder, function, **options):
        with monkeypatch.context() as patch:
            task_loss, batches = RankingTrainer.task_loss, iter(range(1, 9))

            def changed(self, *args):
                loss, *rest = task_loss(self, *args)
                number = next(batches)
                weights[number] = self.model.classifier.weight.detach().clone()
                return function(number, loss), *rest

            patch.setattr(RankingTrainer, "task_loss", changed)
            return train(folder, tokenizer, max_bad_batches=2, weight_decay=0.1, **options)

    def bad(number, loss):
        return loss * torch.nan if number in (1, 3) else loss

    whole = train_with(tmp_path / "whole", bad)
    assert torch.equal(weights[1], weights[2]) and torch.equal(weights[3], weights[4])  # neither momentum nor decay
    assert not torch.equal(weights[2], weights[3]) and not torch.equal(weights[4], weights[5])
    assert "It is left out, 1 of --max_bad_batches 2" in caplog.text and "left out, 2 of" in caplog.text
    state = json.loads((whole / "checkpoint-6/trainer_state.json").read_text(encoding="utf-8"))
    assert [record["bad_batches"] for record in state["log_history"] if "bad_batches" in record] == [1, 2]

    train_with(tmp_path / "resumed", bad, max_steps=2)
    resumed = train_with(tmp_path / "resumed", lambda number, loss: bad(number + 2, loss))
    assert_same_weights(resumed, whole)

    train_with(tmp_path / "third", bad, max_steps=4)  # steps left out before a kill count
    with pytest.raises(SystemExit) as stopped:
        train_with(tmp_path / "third", lambda number, loss: loss * torch.nan)
    assert stopped.value.code == NOT_FINITE


def test_a_gradient_that_is_not_finite_counts(tokenizer, tmp_path, on_batch, capsys):
    def infinite_gradient(loss):
        loss.register_hook(lambda gradient: gradient * torch.inf)
        return loss * 1

    on_batch(2, infinite_gradient)
    with pytest.raises(SystemExit) as stopped:
        train(tmp_path, tokenizer)
    assert stopped.value.code == NOT_FINITE
    assert "step 2 has no finite loss or gradient: rr en-de q" in capsys.readouterr().err
