"""Base class of the trainers of all tasks: batches, timing, scale of the loss."""

import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from ..stopping import leave_signals_to_parent
from .checkpoints import remove_old, write_together
from .lora import add_lora, load_adapter, merged, save_adapter
from .samplers import TaskBatchSampler, TokenBudgetSampler
from .step_check import StepCheck
from .training_arguments import XLRetrievalTrainingArguments


SPEED = ("tokens", "batches", "waited", "seconds")


def start_worker(worker: int):
    """
    Makes a worker process of a data loader tokenize in its one thread, and ignore signals. With
    `TOKENIZERS_PARALLELISM=true` it would wait for ever for the threads of the main process, which a fork does not
    copy.
    """
    leave_signals_to_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


class EpochCallback(TrainerCallback):
    """Sets the sampler's epoch, on resume too."""

    def __init__(self, sampler: TaskBatchSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        steps = len(self.sampler) // args.gradient_accumulation_steps
        self.sampler.set_epoch(state.global_step // steps)  # as a `Trainer` counts, after another batch too


class StepTimer(TrainerCallback):
    """Measures the wall time of optimizer steps, data wait included; evaluation, saving and logging excluded."""

    def __init__(self, totals: dict[str, torch.Tensor]):
        self.totals = totals

    def start(self):
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.totals["seconds"] += time.perf_counter() - self.started


@dataclass
class BatchFacts:
    """
    Facts of a batch that a collator gives besides the inputs of the model.

    Attributes:
        task (`str`): `"qlm"`, `"rr"` or `"qa"`.
        pairs (`list[str]`): language pair of each example.
        ids (`list[str]`, *optional*): what a message calls each example.
        group_size (`int`, defaults to 1): documents of an example.
        queries_cut, documents_cut (`int`, default to 0): number of texts that were cut.
        rows (`int`, defaults to 0): documents read.
        teacher_scores (`torch.FloatTensor` of shape `(examples, documents)`, *optional*): for losses that need them.
        grades (`torch.LongTensor` of shape `(examples, documents)`, *optional*): relevance of each document.
        first_stage_scores (`torch.FloatTensor` of shape `(examples, documents)`, *optional*): scores of a first stage.
    """

    task: str
    pairs: list[str]
    ids: list[str] = field(default_factory=list)
    group_size: int = 1
    queries_cut: int = 0
    documents_cut: int = 0
    rows: int = 0
    teacher_scores: torch.Tensor | None = None
    grades: torch.Tensor | None = None
    first_stage_scores: torch.Tensor | None = None

    @classmethod
    def take(cls, batch: dict) -> "BatchFacts":
        """Takes the facts out of a batch, in place."""
        return cls(**{name: batch.pop(name) for name in [f.name for f in fields(cls)] if name in batch})


class XLRetrievalTrainer(Trainer, ABC):
    """
    Base class of the trainers. A batch has one task. The loss of an optimizer step is the mean over all items (masked
    tokens in QLM, else examples) of its accumulated batches on all processes, times the weight of the task.

    Training logs these values, measured since the last log:

    - `{task}_loss`: mean over the batches
    - `queries_cut`, `documents_cut`, `documents_read`: sums, if the trainer counts them
    - `data_wait`: share of the time that the processes waited for batches, 0 to 1; more `dataloader_num_workers`
      lower it
    - `tokens_per_second`: sum over all processes; padding, evaluation and saving excluded
    - `tokens_per_batch`: mean; padding excluded
    - `bad_batches`: optimizer steps so far that were left out, see [`StepCheck`]

    Args:
        weights (`dict[str, float]`): task to the factor of its loss.
        max_tokens_per_batch (`int`, *optional*): fills batches with examples of similar length up to about this many
            tokens, negatives included ([`TokenBudgetSampler`]); replaces `per_device_train_batch_size`.

    The other arguments are `Trainer`'s. Raises `ValueError` for several GPUs in one process.
    """

    args: XLRetrievalTrainingArguments
    counts = {"queries_cut": "queries_cut", "documents_cut": "documents_cut", "rows": "documents_read"}

    def __init__(self, *args, weights: dict[str, float], max_tokens_per_batch: int | None = None, **kwargs):
        if kwargs["args"].lora_rank is not None:
            add_lora(kwargs["model"], kwargs["args"].lora_rank, kwargs["args"].seed)
        super().__init__(*args, **kwargs)
        self.weights, self.max_tokens_per_batch = weights, max_tokens_per_batch
        if self.args.n_gpu > 1:
            raise ValueError("several GPUs in one process would split the documents of a query: use accelerate launch")
        names = (*weights, *(f"{task}_n" for task in weights), *self.counts, *SPEED)
        self.totals = {name: torch.zeros((), device=self.args.device) for name in names}
        self.timer = StepTimer(self.totals)
        self.add_callback(self.timer)
        self.step_check = StepCheck(self)
        self.add_callback(self.step_check)
        if self.args.neftune_noise_alpha is not None:
            self.neftune_noise_alpha = None  # `Trainer`'s hook knows no unpadded layout
            self.model.get_input_embeddings().register_forward_hook(self.add_noise)

    def add_noise(self, module, args, output: torch.Tensor) -> torch.Tensor:
        """Adds NEFTune's noise to the word embeddings, of shape `(..., hidden_size)` (Jain et al. 2023)."""
        if not module.training:
            return output
        bound = self.args.neftune_noise_alpha / (self.padded_length * output.shape[-1]) ** 0.5
        return output + torch.empty_like(output).uniform_(-bound, bound)

    def example_lengths(self) -> dict[tuple[str, str], np.ndarray]:
        """Returns the tokens of each training example of each (task, pair), for batches by tokens."""
        raise ValueError("this trainer makes no batches by tokens: set per_device_train_batch_size")

    @abstractmethod
    def task_loss(self, model, inputs: dict, facts: BatchFacts) -> tuple[torch.Tensor, object, int]:
        """Returns the mean loss of a batch, the model's outputs, and the number of items in the mean."""

    def get_train_dataloader(self) -> DataLoader:
        share = {
            "num_processes": self.args.world_size,
            "process_index": self.args.process_index,
            "accumulation_steps": self.args.gradient_accumulation_steps,
            "seed": self.args.seed,
        }
        if self.max_tokens_per_batch is None:
            size = self.args.per_device_train_batch_size
            sampler = TaskBatchSampler(self.train_dataset.sizes, size, **share)
        else:
            lengths = self.example_lengths()
            sampler = TokenBudgetSampler(lengths, self.max_tokens_per_batch, **share)
        self.add_callback(EpochCallback(sampler))
        # accelerate does not prepare this loader: the sampler gives each process its share.
        return self.data_loader(self.train_dataset, sampler, self.args.dataloader_persistent_workers)

    def data_loader(self, dataset: Dataset, batches, persistent_workers: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # by default a loader draws from the one of dropout
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            prefetch_factor=self.args.dataloader_prefetch_factor,
            persistent_workers=persistent_workers,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
        )

    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):  # torch's default is that less is better
            mode = {"mode": "max" if self.args.greater_is_better else "min"}
            self.args.lr_scheduler_kwargs = mode | (self.args.lr_scheduler_kwargs or {})
        return super().create_scheduler(num_training_steps, optimizer)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self.timer.start()
        batches = list(islice(epoch_iterator, num_batches))
        self.totals["waited"] += time.perf_counter() - self.timer.started
        self.totals["batches"] += len(batches)
        self.totals["tokens"] += sum(int(batch["attention_mask"].count_nonzero()) for batch in batches)
        _, number = super().get_batch_samples(iter(batches), num_batches, device)
        if number is None and self.max_tokens_per_batch is not None:  # RR, batches of different sizes
            number = torch.tensor(sum(len(batch["pairs"]) for batch in batches), device=device)
            number = self.accelerator.reduce(number, "sum")
        return batches, number

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        facts = BatchFacts.take(inputs)
        self.padded_length = inputs["input_ids"].shape[1]
        loss, outputs, items = self.task_loss(model, inputs, facts)
        found = loss.detach()
        self.step_check.losses.append((found, f"{facts.task} {', '.join(map(' '.join, zip(facts.pairs, facts.ids)))}"))
        self.totals[facts.task] += found.nan_to_num(0, 0, 0)
        self.totals[f"{facts.task}_n"] += found.isfinite()
        for name in self.counts:
            self.totals[name] += getattr(facts, name)
        if num_items_in_batch is not None:
            # The Trainer divides by the number of accumulated batches only if it does not count items (RR, batches of
            # one size). DDP divides by the number of processes.
            loss = loss * items / num_items_in_batch * self.args.world_size
        loss = loss * self.weights[facts.task]
        return (loss, outputs) if return_outputs else loss

    def _get_grad_norm(self, model, grad_norm=None):
        self.step_check.gradient_norm = float(super()._get_grad_norm(model, grad_norm))
        return self.step_check.gradient_norm

    def log(self, logs, start_time=None):
        if "loss" in logs:
            totals = {name: self.accelerator.reduce(value, "sum").item() for name, value in self.totals.items()}
            for task in self.weights:
                if totals[f"{task}_n"]:
                    logs[f"{task}_loss"] = totals[task] / totals[f"{task}_n"]
            for name, logged in self.counts.items():
                logs[logged] = int(totals[name])
            logs["data_wait"] = totals["waited"] / totals["seconds"]
            logs["tokens_per_second"] = totals["tokens"] / totals["seconds"] * self.args.world_size
            logs["tokens_per_batch"] = totals["tokens"] / totals["batches"]
            for value in self.totals.values():
                value.zero_()
        super().log(logs, start_time)

    def _save_checkpoint(self, model, trial):
        """Writes what `Trainer` writes, but aside until it is complete. It gives no barrier for a disk that is full."""
        output, state = Path(self.args.output_dir), self.state
        name = f"checkpoint-{state.global_step}"
        self.store_flos()
        best = output / f"checkpoint-{state.best_global_step}"
        if state.best_global_step and (best.name == name or best.is_dir()):
            state.best_model_checkpoint = str(best)
        writers = [lambda folder: self.save_model(str(folder), _internal_call=True)]
        if not self.args.save_only_model:
            savers = (self._save_optimizer_and_scheduler, self._save_scaler, self._save_rng_state)
            writers += [lambda folder, save=save: save(str(folder)) for save in savers]
        folder = write_together(output, name, [*writers, self.save_state_in], self.args.should_save)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder))
        if self.args.should_save:
            remove_old(output, self.args.save_total_limit, {folder, best} if best.is_dir() else {folder})

    def _determine_best_metric(self, metrics, trial):
        is_best = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end:
            self.control.should_save = True  # evaluations may be more frequent than checkpoints
        return is_best

    def _save(self, output_dir=None, state_dict=None):
        kind = type(self.model)
        if issubclass(kind, FSDPModule):  # made by torch; the model's own class is the one whose code is copied
            self.model.__class__ = next(base for base in kind.__bases__ if issubclass(base, PreTrainedModel))
        with merged(self.model):
            super()._save(output_dir, state_dict)
        self.model.__class__ = kind
        self.save_adapter(Path(output_dir or self.args.output_dir))

    def save_adapter(self, folder: Path):
        """Saves the adapters of LoRA beside a saved model: for `--lora_save adapter`, and in a checkpoint."""
        args = self.args
        wanted = args.lora_save == "adapter" or folder.name.startswith("checkpoint-")
        if args.lora_rank is not None and args.should_save and wanted:
            save_adapter(self.model, folder)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        if self.args.lora_rank is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_adapter(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self):
        if self.args.lora_rank is None:
            super()._load_best_model()
        else:
            load_adapter(self.model, Path(self.state.best_model_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint):
        """Keeps the settings of this training, such as the learning rate, if the checkpoint is of another folder."""
        groups = [{**group, "params": None} for group in self.optimizer.param_groups]
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"the optimizer or schedule of {checkpoint} does not fit the model and --optim, --lr_scheduler_type and "
                f"--lora_rank of this training: begin a new one with --model_name_or_path {checkpoint}"
            ) from error
        if checkpoint is None or Path(checkpoint).parent.resolve() == Path(self.args.output_dir).resolve():
            return
        for group, own in zip(self.optimizer.param_groups, groups, strict=True):
            if group.get("initial_lr"):  # the schedule multiplies it
                group["lr"] *= own["initial_lr"] / group["initial_lr"]
            for name in (self.optimizer.defaults.keys() | {"initial_lr"}) & own.keys() - {"lr"}:
                group[name] = own[name]
        if hasattr(self.lr_scheduler, "base_lrs"):
            self.lr_scheduler.base_lrs = [group["initial_lr"] for group in groups]
            self.lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]  # what is logged

    def save_state_in(self, folder: Path):
        """Saves the state of the training, with that of the callbacks."""
        if self.args.should_save:
            states = self.state.stateful_callbacks
            for one in [*self.callback_handler.callbacks, self.control]:
                if isinstance(one, ExportableState):
                    saved, name = one.state(), type(one).__name__
                    if isinstance(states[name], list):
                        states[name].append(saved)
                    else:
                        states[name] = saved
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def report(self, metrics: dict[str, float]) -> dict[str, float]:
        """Logs the metrics of `evaluate` and calls the callbacks."""
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


__all__ = ["BatchFacts", "XLRetrievalTrainer", "XLRetrievalTrainingArguments"]
