"""
Checks and resumes the output folders of the runners. A folder belongs to one command. The same command continues where
it was cut off, and does nothing if it is finished. Another command is refused.
"""

import json
import math
import os
import shutil
from pathlib import Path

from transformers import Trainer, TrainerCallback, TrainerState
from transformers.utils import logging

from ..data.collections import Collection
from ..data.files import new_file
from ..stopping import signals
from .checkpoints import damage, list_checkpoints, read_state, remove
from .trainer import XLRetrievalTrainingArguments


logger = logging.get_logger(__name__)

# Training arguments that change no result, not even its rounding. All others are compared, those of later versions of
# Transformers too.
WITHOUT_EFFECT = {
    # task and folder
    "output_dir", "do_train", "do_eval", "do_predict", "resume_from_checkpoint", "allow_other_world_size",
    "max_bad_batches",
    # logs
    "logging_strategy", "logging_steps", "logging_first_step", "logging_nan_inf_filter", "log_on_each_node",
    "log_level", "log_level_replica", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id",
    "trackio_bucket_id", "trackio_static_space_id", "include_num_input_tokens_seen", "skip_memory_metrics", "debug",
    # evaluating and saving on the way
    "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "eval_accumulation_steps", "eval_do_concat_batches",
    "eval_use_gather_object", "per_device_eval_batch_size", "batch_eval_metrics", "include_for_metrics",
    "prediction_loss_only", "save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node",
    "enable_jit_checkpoint",
    # the Hub
    "license", "push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_strategy", "hub_always_push", "hub_revision",
    # loading data: a batch follows from seed, epoch and index
    "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context", "dataloader_in_order", "remove_unused_columns",
    # memory, and communication of processes; the number of processes is compared
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
    "activation_checkpointing_kwargs", "torch_empty_cache_steps", "ddp_timeout", "ddp_broadcast_buffers",
    "ddp_find_unused_parameters", "ddp_static_graph", "local_rank",
}  # fmt: skip

# Of these, what has an effect on a pretraining in which evaluations choose the learning rate or the model.
ON_THE_WAY = {"eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "save_strategy", "save_steps"}

# A pretraining that is resumed may become longer.
LENGTH = {"max_steps", "num_train_epochs"}

# The batch of a step. With --allow_other_world_size a training goes on with another one.
BATCH = {"num_processes", "per_device_train_batch_size", "gradient_accumulation_steps", "max_tokens_per_batch"}

# How accelerate hands its own options to a program; the precision is an attribute of the training arguments.
LAUNCHER = ("ACCELERATE_DYNAMO_", "ACCELERATE_USE_FSDP", "FSDP_")

# Files that another command must not overwrite: a checkpoint, a finished fold or training, measures.
BEGUN = (
    "checkpoint-*",
    "metrics.json",
    "trainer_state.json",
    "eval_results.json",
    *(f"{fold}/{name}" for fold in ("fold-*", "transfer", "final") for name in ("checkpoint-*", "result.json")),
)


def check_output(
    output: Path, runner: str, options: dict, args: XLRetrievalTrainingArguments, collections: list[Collection] = ()
) -> dict[str, dict | list]:
    """
    Checks that a folder is new or belongs to this command.

    Args:
        output (`Path`): the folder; it need not exist.
        runner (`str`): file name of the runner. A runner with `--do_train` and without are two commands.
        options (`dict`): the runner's own options, as JSON values.
        args (`XLRetrievalTrainingArguments`): training arguments. With `--do_train` all but `WITHOUT_EFFECT` are
            compared, the number of processes, and what `accelerate launch` sets. Otherwise only the seed is compared.
        collections (`list[Collection]`, *optional*): collections with folds.

    Returns:
        Name to content of the JSON files that [`claim_output`] writes: `settings.json`, with all settings that change
        the results, and `{collection}.folds.json`.

    Raises `ValueError` if `output` holds results of another command; it names each setting that differs, with both
    values. Settings that an older `settings.json` lacks are not compared (logged). With `--allow_other_world_size` the
    number of processes and the batch may differ (logged). A pretraining that goes on from a checkpoint of another
    folder may have other settings (logged), but another number of processes or batch only with that option.
    """
    resumed = args.resume_from_checkpoint if runner == "run_pretraining.py" else None
    used = training_settings(args, runner) if args.do_train else {"seed": args.seed}
    settings = {"command": f"{runner} {'--do_train' if args.do_train else 'without training'}"}
    settings = json.loads(json.dumps(settings | options | used))
    folds = {f"{collection.name}.folds.json": collection.folds for collection in collections}
    batch = names_of_batch(settings["command"])
    may_differ = batch if args.allow_other_world_size else set()
    if has_begun(output):
        compare_settings(output, settings, may_differ | (LENGTH if resumed else set()))
        for name, content in folds.items():
            if (output / name).is_file() and read_json(output / name) != content:
                raise ValueError(f"{output} holds results of other folds, {name}: pass another --output_dir")
    elif resumed and resumed.lower() != "true" and (Path(resumed).parent / "settings.json").is_file():
        compare_settings(Path(resumed).parent, settings, may_differ | (settings.keys() - batch))
    return folds | {"settings.json": settings}


def has_begun(output: Path) -> bool:
    """Tells whether an output folder holds a checkpoint or results."""
    return any(path for pattern in BEGUN for path in output.glob(pattern))


def claim_output(output: Path, files: dict[str, dict | list], args: XLRetrievalTrainingArguments):
    """Writes the files of [`check_output`] on the first process; the others wait."""
    with args.main_process_first():
        for name, content in files.items() if args.process_index == 0 else ():
            if not (output / name).is_file() or read_json(output / name) != content:
                with new_file(output / name) as file:
                    json.dump(content, file, indent=1)


def training_settings(args: XLRetrievalTrainingArguments, runner: str) -> dict:
    without_effect = WITHOUT_EFFECT
    chooses = args.load_best_model_at_end or args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy")
    if runner == "run_pretraining.py" and chooses:
        without_effect = WITHOUT_EFFECT - ON_THE_WAY
    used = {name: value for name, value in args.to_dict().items() if name not in without_effect}
    switched_off = ("", "no", "false", "default")
    launched = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(LAUNCHER) and value.lower() not in switched_off
    }
    return used | {"num_processes": args.world_size, "mixed_precision": args.mixed_precision, "launcher": launched}


def compare_settings(output: Path, settings: dict, may_differ: set[str]):
    """Raises `ValueError` if the run in `output` has other settings; only logs a difference in `may_differ`."""
    command = settings["command"]
    if (output / "settings.json").is_file():
        found, older = read_json(output / "settings.json"), "--do_train"
    else:
        found, older = {}, "run_pretraining.py --do_train" if is_pretraining(output) else "without training"
    if "command" not in found:  # older versions wrote no command, and settings.json only for finetuning
        found["command"] = command if command.endswith(older) else f"a command of an older version, {older}"
    if found["command"] != command:
        raise ValueError(f"{output} holds results of {found['command']}: pass another --output_dir for {command}")
    if unknown := [name for name in settings if name not in found]:
        lacking = f"/settings.json lacks {', '.join(unknown)}" if len(found) > 1 else " has no settings.json"
        logger.warning(f"{output}{lacking} (an older version, or removed): not compared")
    differing = [name for name in settings if found.get(name, settings[name]) != settings[name]]
    if not differing:
        return
    listed = ", ".join(f"--{name} {found[name]} (now {settings[name]})" for name in differing)
    batch = names_of_batch(command)
    if batch & {*differing}:
        listed += f"; a step had {batch_of_step(settings | found)}, now {batch_of_step(settings)}"
    if refused := {*differing} - may_differ:
        other = "--allow_other_world_size" if refused <= batch else "another --output_dir"
        raise ValueError(f"{output} holds results of {listed}: pass the same options to go on, or {other}")
    notes = ""
    if LENGTH & {*differing}:
        notes += ". A learning rate that falls towards the end has so far fallen towards the old end"
    if batch & {*differing}:
        notes += ". Steps and epochs are counted on, so the result is not that of an uninterrupted run"
    logger.warning(f"{output} was trained with {listed}: goes on with the new options{notes}")


def names_of_batch(command: str) -> set[str]:
    if "--do_train" not in command:
        return set()
    return BATCH - {"max_tokens_per_batch"} if command.startswith("run_clir.py") else BATCH  # there it is of ranking


def batch_of_step(settings: dict) -> str:
    batches = settings["num_processes"] * settings["gradient_accumulation_steps"]
    tokens = {name: settings.get(name) for name in names_of_batch(settings["command"])}.get("max_tokens_per_batch")
    size, unit = (settings["per_device_train_batch_size"], "examples") if tokens is None else (tokens, "tokens")
    return f"{batches} batches of {size} {unit}"


def is_pretraining(output: Path) -> bool:
    return (output / "trainer_state.json").is_file() or bool(list_checkpoints(output))


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def is_at_end(state: TrainerState, args: XLRetrievalTrainingArguments) -> bool:
    if args.max_steps > 0:
        return state.global_step >= args.max_steps
    if not state.epoch:
        return False
    steps_per_epoch = round(state.global_step / state.epoch)
    return state.global_step >= math.ceil(args.num_train_epochs * steps_per_epoch)  # rounded as by a `Trainer`


def is_finished(args: XLRetrievalTrainingArguments) -> bool:
    """Tells whether the output folder holds the finished model. The runner saves the state after the model."""
    state = read_state(Path(args.output_dir))
    return state is not None and is_at_end(state, args)


def last_complete_checkpoint(folder: Path, args: XLRetrievalTrainingArguments, with_best: bool = False) -> Path | None:
    """
    Returns the last checkpoint that is whole. Damaged ones after it get the name `checkpoint-N.damaged` (logged). With
    `with_best`, passes over those whose best checkpoint so far is damaged or missing (logged).
    """
    with args.main_process_first(local=False):
        for checkpoint in list_checkpoints(folder):
            if (reason := damage(checkpoint)) is None:
                best = folder / f"checkpoint-{read_state(checkpoint).best_global_step}"
                if not with_best or best.name == "checkpoint-None" or damage(best) is None:
                    return checkpoint
                if args.process_index == 0:
                    logger.warning(f"{checkpoint} is passed over: {best.name}, the best so far, is not whole")
            elif args.process_index == 0:
                aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
                logger.warning(f"{checkpoint} is passed over and renamed to {aside.name}: {reason}")
                shutil.rmtree(aside, ignore_errors=True)
                checkpoint.rename(aside)
    return None


def checkpoint_to_resume(args: XLRetrievalTrainingArguments) -> Path | None:
    """
    Returns the checkpoint that `--resume_from_checkpoint` names, or the output folder itself if its training is
    finished. If it names a checkpoint of another folder, the last complete one in the output folder comes first, so
    that the same command goes on. `true` names the last complete checkpoint in the output folder; without one the training starts anew
    (logged), so that a job has one command however often it is started. Raises `ValueError` for a folder that is no
    complete checkpoint. Raises it too if the option is missing and the output folder has checkpoints.
    """
    output, wanted = Path(args.output_dir), args.resume_from_checkpoint
    if is_finished(args):
        return output
    if wanted is None:
        if list_checkpoints(output):
            raise ValueError(
                f"{output} holds checkpoints of an earlier run: pass --resume_from_checkpoint true, or another "
                "--output_dir"
            )
        return None
    if wanted.lower() != "true":
        if not Path(wanted).is_dir():
            raise ValueError(f"--resume_from_checkpoint: there is no folder {wanted}")
        if (reason := damage(Path(wanted))) is not None:
            raise ValueError(f"--resume_from_checkpoint: {wanted} is damaged: {reason}")
        if Path(wanted).parent.resolve() != output.resolve() and (own := last_complete_checkpoint(output, args)):
            logger.warning(f"goes on from {own}, not from {wanted}, from which {output} began")
            return with_optimizer(own)
        return with_optimizer(Path(wanted))
    if (checkpoint := last_complete_checkpoint(output, args)) is None:
        logger.warning(f"{output} holds no complete checkpoint: the training starts from the beginning")
    return checkpoint and with_optimizer(checkpoint)


def with_optimizer(checkpoint: Path) -> Path:
    """Raises `ValueError` for a checkpoint of the model alone: a `Trainer` would go on with a new optimizer."""
    if any(checkpoint.glob("model*.safetensors")) and not any(checkpoint.glob("optimizer*")):
        raise ValueError(
            f"{checkpoint} has the model alone (--save_only_model), so its training cannot go on: begin another one "
            f"with --model_name_or_path {checkpoint}"
        )
    return checkpoint


def train_to_the_end(trainer: Trainer, checkpoint: Path | None) -> TrainerState:
    """
    Trains from a checkpoint on, and returns the state at the end. If the checkpoint is the end of the training, it
    only loads weights and state, because a Trainer would train one more step.
    """
    state = checkpoint and read_state(checkpoint)
    if state is not None and is_at_end(state, trainer.args):
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = state
        if trainer.args.load_best_model_at_end and checkpoint != Path(trainer.args.output_dir):
            find_best(state, checkpoint, trainer.args)
            if state.best_model_checkpoint:
                trainer._load_best_model()
    else:
        if state is not None:
            trainer.add_callback(Resume(checkpoint))
        signals.training = True
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        signals.training = False
        trainer.accelerator.wait_for_everyone()
    return trainer.state


def find_best(state: TrainerState, checkpoint: Path, args: XLRetrievalTrainingArguments):
    """
    Sets the place of the best checkpoint so far in a state that was read from `checkpoint`: the output folder may have
    been moved. If the best one is to be loaded at the end, but is damaged or missing, it is forgotten (logged).
    """
    name = f"checkpoint-{state.best_global_step}"
    places = [Path(args.output_dir) / name, checkpoint.parent / name]
    places += [Path(state.best_model_checkpoint)] if state.best_model_checkpoint else []
    whole = next((str(place) for place in places if place.is_dir() and damage(place) is None), None)
    if whole is not None or not args.load_best_model_at_end:
        state.best_model_checkpoint = whole
    elif state.best_global_step is not None:
        logger.warning(
            f"{name}, the best so far ({args.metric_for_best_model} {state.best_metric:.4g}), is damaged or missing: "
            "the best one will be the best of those from now on"
        )
        state.best_metric = state.best_global_step = state.best_model_checkpoint = None


class Resume(TrainerCallback):
    """Fits the state of a checkpoint to this run: where the best one is, and after how many steps to log and save."""

    def __init__(self, checkpoint: Path):
        self.checkpoint = checkpoint

    def on_train_begin(self, args, state, control, **kwargs):
        find_best(state, self.checkpoint, args)
        state.compute_steps(args, state.max_steps)


def remove_checkpoints(folder: Path):
    remove(folder, list(folder.glob("checkpoint-*")))


__all__ = [
    "check_output",
    "checkpoint_to_resume",
    "claim_output",
    "has_begun",
    "is_finished",
    "last_complete_checkpoint",
    "remove_checkpoints",
    "train_to_the_end",
]
