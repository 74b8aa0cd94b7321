"""
Checks and resumes the output folders of the runners. A folder belongs to one command. The same command continues where
it was cut off, and does nothing if it is finished. Another command is refused.
"""

import json
import shutil
from pathlib import Path

from transformers import Trainer, TrainerState
from transformers.utils import logging

from ..data.collections import Collection
from ..data.files import new_file
from .checkpoints import PARTIAL, damage, list_checkpoints, read_state
from .trainer import XLRetrievalTrainingArguments


logger = logging.get_logger(__name__)

# Training arguments that change no result. All others are compared, those of later versions of Transformers too.
WITHOUT_EFFECT = {
    # task and folder
    "output_dir", "do_train", "do_eval", "do_predict", "resume_from_checkpoint",
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
    "dataloader_multiprocessing_context", "dataloader_in_order", "accelerator_config", "remove_unused_columns",
    # memory, and communication of processes; the number of processes is compared
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "activation_checkpointing",
    "activation_checkpointing_kwargs", "torch_empty_cache_steps", "ddp_backend", "ddp_timeout", "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers", "ddp_find_unused_parameters", "ddp_static_graph", "local_rank",
}  # fmt: skip

# A pretraining that is resumed may become longer.
LENGTH = ("max_steps", "num_train_epochs")

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
            compared, and the number of processes. Otherwise only the seed is compared.
        collections (`list[Collection]`, *optional*): collections with folds.

    Returns:
        Name to content of the JSON files that [`claim_output`] writes: `settings.json`, with all settings that change
        the results, and `{collection}.folds.json`.

    Raises `ValueError` if `output` holds results of another command; it names each setting that differs, with both
    values. Settings that an older `settings.json` lacks are not compared (logged).
    """
    used = {"seed": args.seed}
    if args.do_train:
        used = {name: value for name, value in args.to_dict().items() if name not in WITHOUT_EFFECT}
        used["num_processes"] = args.world_size
    settings = {"command": f"{runner} {'--do_train' if args.do_train else 'without training'}"}
    settings = json.loads(json.dumps(settings | options | used))
    folds = {f"{collection.name}.folds.json": collection.folds for collection in collections}
    if has_begun(output):
        compare_settings(
            output, settings, LENGTH if runner == "run_pretraining.py" and args.resume_from_checkpoint else ()
        )
        for name, content in folds.items():
            if (output / name).is_file() and read_json(output / name) != content:
                raise ValueError(f"{output} holds results of other folds, {name}: pass another --output_dir")
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


def compare_settings(output: Path, settings: dict, may_differ: tuple[str, ...] = ()):
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
        logger.warning(f"{output}/settings.json lacks {', '.join(unknown)} (an older version): not compared")
    if differing := [name for name in settings if found.get(name, settings[name]) != settings[name]]:
        listed = ", ".join(f"--{name} {found[name]} (now {settings[name]})" for name in differing)
        if set(differing) <= set(may_differ):
            logger.warning(
                f"{output} was trained with {listed}: goes on to the new end. A learning rate that falls towards the "
                "end has so far fallen towards the old end"
            )
            return
        raise ValueError(
            f"{output} holds results of {listed}: pass the same options to go on, or another --output_dir"
        )


def is_pretraining(output: Path) -> bool:
    return (output / "trainer_state.json").is_file() or bool(list_checkpoints(output))


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def is_at_end(state: TrainerState, args: XLRetrievalTrainingArguments) -> bool:
    if args.max_steps > 0:
        return state.global_step >= args.max_steps
    return (state.epoch or 0) >= args.num_train_epochs - 1e-6


def is_finished(args: XLRetrievalTrainingArguments) -> bool:
    """Tells whether the output folder holds the finished model. The runner saves the state after the model."""
    state = read_state(Path(args.output_dir))
    return state is not None and is_at_end(state, args)


def last_complete_checkpoint(folder: Path, args: XLRetrievalTrainingArguments) -> Path | None:
    """Returns the last checkpoint that is whole. Damaged ones after it get the name `checkpoint-N.damaged` (logged)."""
    with args.main_process_first(local=False):
        for checkpoint in list_checkpoints(folder):
            if (reason := damage(checkpoint)) is None:
                return checkpoint
            if args.process_index == 0:
                aside = checkpoint.with_name(f"{checkpoint.name}.damaged")
                logger.warning(f"{checkpoint} is passed over and renamed to {aside.name}: {reason}")
                shutil.rmtree(aside, ignore_errors=True)
                checkpoint.rename(aside)
    return None


def checkpoint_to_resume(args: XLRetrievalTrainingArguments) -> Path | None:
    """
    Returns the checkpoint that `--resume_from_checkpoint` names, or the output folder itself if its training is
    finished. `true` names the last complete checkpoint in the output folder; without one the training starts anew
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
        return Path(wanted)
    if (checkpoint := last_complete_checkpoint(output, args)) is None:
        logger.warning(f"{output} holds no complete checkpoint: the training starts from the beginning")
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
    else:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.accelerator.wait_for_everyone()
    return trainer.state


def remove_checkpoints(folder: Path):
    for checkpoint in [*folder.glob("checkpoint-*"), folder / PARTIAL]:
        shutil.rmtree(checkpoint, ignore_errors=True)


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
