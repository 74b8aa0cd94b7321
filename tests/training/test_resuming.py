"""Output folders: the command they belong to, the settings that are compared, and the checkpoint to resume."""

import json
from contextlib import nullcontext
from dataclasses import fields

import pytest
import torch
from transformers import TrainerState

from modeling_clir.data.collections import assign_folds
from modeling_clir.training.ranking import finetune
from modeling_clir.training.resuming import (
    WITHOUT_EFFECT,
    check_output,
    checkpoint_to_resume,
    claim_output,
    is_at_end,
    last_complete_checkpoint,
    read_state,
)
from modeling_clir.training.trainer import XLRetrievalTrainingArguments

from ..helpers import write
from .helpers import arguments, collection, fold_of, tiny_reranker
from .test_exact import assert_equal
from .test_options import train as pretrain


def claim(folder, runner="run_clir.py", collections=(), options=None, **training):
    args = arguments(folder, **({"do_train": True} | training))
    claim_output(folder, check_output(folder, runner, options or {"num_negatives": 2}, args, collections), args)


def test_another_command_does_not_go_on(tmp_path):
    one = collection("en-de", 10)
    assign_folds([one], 0)
    claim(tmp_path, collections=[one], options={"num_negatives": 1})
    assert json.loads((tmp_path / "en-de.folds.json").read_text(encoding="utf-8")) == one.folds
    claim(tmp_path, collections=[one])  # nothing was begun yet
    (tmp_path / "fold-0/checkpoint-3").mkdir(parents=True)
    claim(tmp_path, collections=[one], logging_steps=7, dataloader_num_workers=1)  # of no effect
    with pytest.raises(ValueError, match=r"holds results of --num_negatives 2 \(now 1\): pass the same options"):
        claim(tmp_path, collections=[one], options={"num_negatives": 1})
    with pytest.raises(ValueError, match=r"holds results of --seed 42 \(now 1\): pass"):
        claim(tmp_path, collections=[one], seed=1)
    with pytest.raises(
        ValueError, match=r"holds results of run_clir.py --do_train: .* for run_clir.py without training"
    ):
        claim(tmp_path, do_train=False)
    with pytest.raises(ValueError, match=r"holds results of run_clir.py --do_train: .* for run_mlqa.py --do_train"):
        claim(tmp_path, "run_mlqa.py")
    one.folds = one.folds[::-1]
    with pytest.raises(ValueError, match=r"holds results of other folds, en-de.folds.json"):
        claim(tmp_path, collections=[one])


BASE = {"optim": "sgd", "lr_scheduler_type": "cosine"}
CHANGED = {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "optim_args": "momentum=0.9", "rr_weight": 2.0}
CHANGED |= {"qlm_weight": 0.5, "lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}}
CHANGED |= {"neftune_noise_alpha": 5.0, "full_determinism": True}
CHANGED |= {"ddp_bucket_cap_mb": 3, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}


@pytest.mark.parametrize("name", [*CHANGED, "num_processes"])
def test_every_setting_that_changes_a_result_is_compared(name, tmp_path, monkeypatch):
    claim(tmp_path, **BASE)
    (tmp_path / "checkpoint-3").mkdir()
    found = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    changed = {name: CHANGED.get(name)}
    if name == "num_processes":
        monkeypatch.setattr(XLRetrievalTrainingArguments, "world_size", 2)
        changed = {}
    with pytest.raises(ValueError, match=f"holds results of --{name} {found[name]} ") as error:
        claim(tmp_path, **BASE | changed)
    assert f"(now {CHANGED.get(name, 2)})" in str(error.value) and str(error.value).count("(now ") == 1


def test_all_settings_that_differ_are_named(tmp_path):
    claim(tmp_path, options={"num_negatives": 2, "max_length": 100}, **BASE)
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(ValueError) as error:
        claim(tmp_path, options={"num_negatives": 1, "max_length": 90}, **BASE | CHANGED)
    assert all(f"--{name} " in str(error.value) for name in (*CHANGED, "num_negatives", "max_length"))


def test_what_the_launcher_sets_is_compared(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")  # as by python alone
    claim(tmp_path)
    monkeypatch.delenv("ACCELERATE_DYNAMO_BACKEND")
    (tmp_path / "checkpoint-3").mkdir()
    claim(tmp_path)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("FSDP_VERSION", "2")
    with pytest.raises(
        ValueError, match=r"--mixed_precision no \(now bf16\), --launcher {} \(now {'FSDP_VERSION': '2'}"
    ):
        claim(tmp_path)


def test_evaluations_that_choose_are_compared(tmp_path):
    chosen = {"load_best_model_at_end": True, "metric_for_best_model": "rr_mrr", "eval_strategy": "steps"}
    for name, options in {"plain": {"eval_strategy": "steps"}, "best": chosen}.items():
        runs = [options | {"save_strategy": "steps", "save_steps": 20, "eval_steps": steps} for steps in (10, 20)]
        claim(tmp_path / name, "run_pretraining.py", **runs[0])
        (tmp_path / name / "checkpoint-20").mkdir()
        if name == "plain":
            claim(tmp_path / name, "run_pretraining.py", **runs[1])
            continue
        with pytest.raises(ValueError, match=r"holds results of --eval_steps 10 \(now 20\)"):
            claim(tmp_path / name, "run_pretraining.py", **runs[1])


@pytest.mark.parametrize("runner", ["run_pretraining.py", "run_clir.py", "run_mlqa.py"])
def test_another_batch_goes_on_only_if_allowed(runner, tmp_path, monkeypatch, caplog):
    claim(tmp_path, runner)
    (tmp_path / "checkpoint-3").mkdir()
    monkeypatch.setattr(XLRetrievalTrainingArguments, "world_size", 4)
    monkeypatch.setattr(XLRetrievalTrainingArguments, "main_process_first", lambda self: nullcontext())
    numbers = r"--num_processes 1 \(now 4\); a step had 1 batches of 4 examples, now 4 batches of 4 examples"
    with pytest.raises(ValueError, match=f"{numbers}: pass the same options to go on, or --allow_other_world_size"):
        claim(tmp_path, runner)
    with pytest.raises(ValueError, match=r"--seed 42 \(now 1\), --num_processes .* or another --output_dir"):
        claim(tmp_path, runner, allow_other_world_size=True, seed=1)
    assert not caplog.text
    claim(tmp_path, runner, allow_other_world_size=True, gradient_accumulation_steps=2)
    assert "a step had 1 batches of 4 examples, now 8 batches of 4 examples: goes on" in caplog.text
    assert "not that of an uninterrupted run" in caplog.text
    caplog.clear()
    claim(tmp_path, runner, gradient_accumulation_steps=2)  # from now on its own
    assert not caplog.text


def test_the_batch_of_a_checkpoint_of_another_folder(tmp_path, caplog):
    claim(tmp_path / "first", "run_pretraining.py", options={"max_tokens_per_batch": 100})
    resumed = {"resume_from_checkpoint": str(checkpoint(tmp_path / "first/checkpoint-2"))}
    second = tmp_path / "second"
    with pytest.raises(ValueError, match=r"1 batches of 100 tokens, now 1 batches of 200 tokens: .* or --allow_other"):
        claim(second, "run_pretraining.py", options={"max_tokens_per_batch": 200}, **resumed)
    claim(second, "run_pretraining.py", options={"max_tokens_per_batch": 100}, rr_weight=2.0, **resumed)
    assert "was trained with --rr_weight 1.0 (now 2.0): goes on with the new options" in caplog.text
    options = resumed | {"allow_other_world_size": True}
    claim(second, "run_pretraining.py", options={"max_tokens_per_batch": 200}, **options)
    assert "1 batches of 200 tokens" in caplog.text
    args = arguments(second, max_steps=4, **resumed)
    assert checkpoint_to_resume(args) == tmp_path / "first/checkpoint-2"
    own = checkpoint(second / "checkpoint-3", step=3)
    assert checkpoint_to_resume(args) == own  # a job that is started again has the same command


def test_arguments_without_effect_are_arguments():
    newer = {"activation_checkpointing", "activation_checkpointing_kwargs"}  # than transformers 5.17
    assert not WITHOUT_EFFECT - newer - {field.name for field in fields(XLRetrievalTrainingArguments)}


def test_folders_of_older_versions(tmp_path, caplog):
    finetuned = tmp_path / "finetuned"
    write(finetuned / "settings.json", {"num_negatives": 2, "seed": 42})
    (finetuned / "fold-1/checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds results of a command of an older version, --do_train: pass"):
        claim(finetuned, do_train=False)
    with pytest.raises(ValueError, match=r"--num_negatives 2 \(now 1\)"):
        claim(finetuned, options={"num_negatives": 1})
    caplog.clear()
    claim(finetuned)
    assert "settings.json lacks" in caplog.text and "adam_beta1" in caplog.text and " seed" not in caplog.text
    with pytest.raises(ValueError, match="--adam_beta1"):  # from now on compared
        claim(finetuned, adam_beta1=0.5)
    measured = tmp_path / "measured"
    write(measured / "metrics.json", {})
    with pytest.raises(ValueError, match="holds results of a command of an older version, without training"):
        claim(measured)
    claim(measured, do_train=False)
    pretrained = tmp_path / "pretrained"
    (pretrained / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"an older version, run_pretraining.py --do_train"):
        claim(pretrained)
    caplog.clear()
    claim(pretrained, "run_pretraining.py")
    assert f"{pretrained} has no settings.json (" in caplog.text and "seed" not in caplog.text


def checkpoint(folder, text: str | None = None, step: int = 2):
    """Writes a checkpoint with a complete or incomplete state."""
    folder.mkdir(parents=True)
    state = json.dumps({"global_step": step, "max_steps": 4, "epoch": step / 4})
    (folder / "trainer_state.json").write_text(state if text is None else text, encoding="utf-8")
    return folder


def test_checkpoint_to_resume(tmp_path, caplog):
    output = tmp_path / "out"

    def resume(wanted=None, **options):
        return checkpoint_to_resume(arguments(output, resume_from_checkpoint=wanted, **({"max_steps": 4} | options)))

    assert resume() is None
    assert resume("true") is None and "holds no complete checkpoint: the training starts" in caplog.text
    checkpoint(output / "checkpoint-4", '{"epoch": 3.0, ')
    assert resume("true") is None
    assert "checkpoint-4.damaged: it has no complete trainer_state.json" in caplog.text
    assert [path.name for path in output.glob("*")] == ["checkpoint-4.damaged"]
    (output / "checkpoint-best").mkdir()  # not one of the Trainer's
    two = checkpoint(output / "checkpoint-2")
    checkpoint(output / "checkpoint-10", "")
    with pytest.raises(ValueError, match="holds checkpoints of an earlier run: pass --resume_from_checkpoint true"):
        resume()
    assert (output / "checkpoint-10").is_dir()  # nothing is renamed unless it is resumed
    assert resume("true") == two and not (output / "checkpoint-10").exists()
    assert resume(str(two)) == two
    with pytest.raises(ValueError, match=r"there is no folder .*checkpoint-3"):
        resume(str(output / "checkpoint-3"))
    with pytest.raises(ValueError, match=r"checkpoint-best is damaged: it has no complete trainer_state.json"):
        resume(str(output / "checkpoint-best"))
    checkpoint(output / "checkpoint-9", step=4).joinpath("trainer_state.json").rename(output / "trainer_state.json")
    assert resume() == resume("true") == output  # finished
    assert last_complete_checkpoint(output, arguments(output)) == two


@pytest.mark.parametrize(
    ("options", "end"),
    [({"max_steps": 2}, True), ({"max_steps": 3}, False), ({"num_train_epochs": 1}, False),
     ({"num_train_epochs": 0.5}, True), ({"num_train_epochs": 0.5, "max_steps": 3}, False)],
)  # fmt: skip
def test_end_of_a_training(options, end, tmp_path):
    """The training ends after 2 steps, which are half an epoch."""
    state = read_state(checkpoint(tmp_path / "checkpoint-2"))
    assert is_at_end(state, arguments(tmp_path, **options)) is end


def test_the_end_of_a_part_of_an_epoch_is_rounded_as_by_a_trainer(tmp_path):
    """0.07 epochs of 100 steps are 7.000000000000001 steps, so 8."""
    args = arguments(tmp_path, num_train_epochs=0.07)
    ends = [is_at_end(TrainerState(global_step=n, epoch=n / 100), args) for n in (0, 6, 7, 8)]
    assert ends == [False, False, False, True]


def test_a_training_that_is_at_its_end_is_not_gone_on_with(tokenizer, tmp_path):
    one = collection("en-de", 10)
    assign_folds([one], 0)
    found = []
    for _ in range(2):
        args = arguments(tmp_path, max_steps=3)  # ends inside an epoch, of two steps
        found.append(finetune(tiny_reranker(tokenizer), fold_of(one), [one], args))
    assert found[0] == found[1] and len(found[0][1]) == 2
    assert sorted(path.name for path in tmp_path.glob("*/checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]


def test_other_options_of_another_folder_have_an_effect(tokenizer, tmp_path, caplog):
    """A learning rate of another training is the one of its schedule from then on; without a change nothing changes."""
    schedule = {"lr_scheduler_type": "linear", "max_steps": 8, "save_strategy": "steps", "save_steps": 4}
    options = schedule | {"optim": "adamw_torch", "learning_rate": 1e-2, "weight_decay": 0.1}
    whole = pretrain(tokenizer, tmp_path, **options)
    checkpoint = tmp_path / "out/checkpoint-4"
    same = pretrain(tokenizer, tmp_path, resume=checkpoint, output_dir=str(tmp_path / "same"), **options)
    assert all(map(torch.equal, whole.model.parameters(), same.model.parameters()))
    assert_equal(whole.optimizer.state_dict(), same.optimizer.state_dict())
    assert "missing keys" not in caplog.text  # tied weights
    changed = {"learning_rate": 1e-3, "weight_decay": 0.3, "adam_beta1": 0.5, "logging_steps": 1}
    other = pretrain(tokenizer, tmp_path, resume=checkpoint, output_dir=str(tmp_path / "other"), **(options | changed))
    rates = [record["learning_rate"] for record in other.state.log_history if record["step"] > 4 and "loss" in record]
    assert rates == pytest.approx([1e-3 * (8 - step) / 8 for step in (4, 5, 6, 7)])
    groups = other.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0] and groups[0]["betas"] == (0.5, 0.999)


def test_the_state_of_another_kind_of_schedule(tokenizer, tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1}
    pretrain(tokenizer, tmp_path, **options, **plateau)
    options |= {"max_steps": 4, "output_dir": str(tmp_path / "other"), "lr_scheduler_type": "linear"}
    with pytest.raises(ValueError, match=r"checkpoint-2 does not fit the model and --optim, .* --model_name_or_path"):
        pretrain(tokenizer, tmp_path, resume=tmp_path / "out/checkpoint-2", **options)
