"""Going on with a run that was cut off: the settings it began with, its checkpoints, its end."""

import json
import shutil
from pathlib import Path

from transformers import Trainer, TrainerState
from transformers.utils import logging

from ..data.collections import Collection
from ..data.files import new_file
from .trainer import XLRetrievalTrainingArguments


logger = logging.get_logger(__name__)

# The training arguments on which results depend.
SETTINGS = ("seed", "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "weight_decay",
            "gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "optim", "rr_loss",
            "rr_margin", "bf16", "fp16")  # fmt: skip


def prepare_output(output: Path, options: dict, args: XLRetrievalTrainingArguments, collections: list[Collection]):
    """
    Writes `settings.json`, on which the results depend, and the folds of each collection, `{collection}.folds.json`.

    Args:
        output (`Path`): a folder.
        options (`dict`): the runner's own; JSON.
        args (`XLRetrievalTrainingArguments`).
        collections (`list[Collection]`): with folds.

    Raises `ValueError` that names an option or file in which a fold that was begun in `output` differs.
    """
    begun = any(output.glob("*/checkpoint-*")) or any(output.glob("*/result.json"))
    files = {f"{collection.name}.folds.json": collection.folds for collection in collections}
    settings = options | {name: getattr(args, name) for name in SETTINGS}
    keep_settings(output, {**files, "settings.json": settings}, begun)


def keep_settings(output: Path, files: dict[str, dict | list], begun: bool):
    """
    Writes JSON files of a name and content. Raises `ValueError` that names an option or file in which what was `begun` in
    `output` differs.
    """
    for name, content in files.items():
        found = json.loads((output / name).read_text(encoding="utf-8")) if (output / name).is_file() else content
        if begun and found != content:
            what = f"other folds in {name}"
            if name == "settings.json":
                differing = [f"--{key} {found.get(key)}" for key in content if found.get(key) != content[key]]
                what = f"results of {', '.join(differing)}"
            raise ValueError(f"{output} holds {what}: pass the same options to go on, or another --output_dir")
        with new_file(output / name) as file:
            json.dump(content, file, indent=1)


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint whose state, which the Trainer writes after all else, is complete; later ones are removed."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return checkpoint
        except (OSError, ValueError):
            logger.warning(f"{checkpoint} is incomplete and removed")
            shutil.rmtree(checkpoint)
    return None


def train_to_the_end(trainer: Trainer, folder: Path) -> TrainerState:
    """
    Trains from the last complete checkpoint in `folder`, where there is one, and not at all where that is the end of the
    training: a Trainer would go on to the end of the epoch. Returns the state at the end.
    """
    with trainer.args.main_process_first():
        checkpoint = last_complete_checkpoint(folder)
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")) if checkpoint else None
    if state is None or state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        trainer.accelerator.wait_for_everyone()
        state = trainer.state
    return state


def remove_checkpoints(folder: Path):
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


__all__ = ["SETTINGS", "keep_settings", "prepare_output", "remove_checkpoints", "train_to_the_end"]
