"""Pretraining with QLM and RR in a Trainer."""

import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import SchedulerType, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from ..data.sections import ExampleKey, PretrainingDataset
from ..model_card import write_model_card
from ..losses import RANKING_LOSSES, ranking_loss, relevance_scores
from .samplers import TaskBatchSampler, TokenBudgetSampler, estimate_lengths


logger = logging.get_logger(__name__)

COUNTS = ("queries_cut", "documents_cut", "rows")
SPEED = ("tokens", "batches", "waited", "seconds")


@dataclass
class XLRetrievalTrainingArguments(TrainingArguments):
    """
    `TrainingArguments` with the options of the two tasks. Other defaults than there: `learning_rate` 1e-5, constant
    after a warm-up, `weight_decay` 0 and `max_grad_norm` 5 (Yu, Fei, Li 2021), `per_device_eval_batch_size` 32.

    Args:
        rr_loss (`str`, defaults to `"pairwise"`): `"pairwise"`, `"margin"`, `"listwise"` or `"pointwise"`.
        rr_margin (`float`, defaults to 1.0): of the margin loss.
        qlm_weight, rr_weight (`float`, default to 1.0): factors of the losses of the tasks.
    """

    learning_rate: float = 1e-5
    lr_scheduler_type: str = "constant_with_warmup"
    max_grad_norm: float = 5.0
    per_device_eval_batch_size: int = 32
    rr_loss: str = field(default="pairwise", metadata={"help": "pairwise, margin, listwise or pointwise"})
    rr_margin: float = field(default=1.0, metadata={"help": "margin of the margin loss"})
    qlm_weight: float = field(default=1.0, metadata={"help": "factor of the QLM loss"})
    rr_weight: float = field(default=1.0, metadata={"help": "factor of the RR loss"})

    def __post_init__(self):
        super().__post_init__()
        if self.rr_loss not in RANKING_LOSSES:
            raise ValueError(f"rr_loss must be one of {', '.join(RANKING_LOSSES)}, got {self.rr_loss!r}")
        self.remove_unused_columns = False
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = True  # each task leaves the other's head out


class EpochCallback(TrainerCallback):
    """Tells the sampler the epoch, also where a resumed epoch wraps the data loader anew."""

    def __init__(self, sampler: TaskBatchSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.sampler.set_epoch(int(state.epoch))


class StepTimer(TrainerCallback):
    """Adds up the seconds of the optimizer steps, from asking for data on; not of evaluating, saving and logging."""

    def __init__(self, totals: dict[str, torch.Tensor]):
        self.totals = totals

    def start(self):
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.totals["seconds"] += time.perf_counter() - self.started


class XLRetrievalTrainer(Trainer):
    """
    Trains `BertLongForXLRetrieval` or `BertForXLRetrieval` on a [`PretrainingDataset`]; `evaluate` gives the loss and
    accuracy of QLM and the accuracy and mean reciprocal rank of RR per direction (query language-document language)
    and their means over the directions between two languages (over all where there is none).

    The loss of an optimizer step is the mean over all its masked tokens (QLM) or its examples (RR), of every process
    and accumulated batch. While training it also logs, since the last log:

    - `data_wait`: share of the time that the processes waited for batches, 0 to 1; more of
      `dataloader_num_workers` lower it
    - `tokens_per_second`: of all processes together, padding not counted; time to evaluate and save is not, either
    - `tokens_per_batch`: mean, padding not counted

    Args:
        max_tokens_per_batch (`int`, *optional*): in place of `per_device_train_batch_size`, as many examples of
            similar length as have about so many tokens, the negatives of RR counted ([`TokenBudgetSampler`]).

    The others are those of `Trainer`.
    """

    args: XLRetrievalTrainingArguments
    tasks = ("qlm", "rr")
    counts = {"queries_cut": "queries_cut", "documents_cut": "documents_cut", "rows": "documents_read"}

    def __init__(self, *args, max_tokens_per_batch: int | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.max_tokens_per_batch = max_tokens_per_batch
        if self.args.n_gpu > 1:
            raise ValueError(
                "several GPUs in one process would tear the documents of a query apart: use accelerate launch"
            )
        names = (*self.tasks, *(f"{task}_n" for task in self.tasks), *self.counts, *SPEED)
        self.totals = {name: torch.zeros((), device=self.args.device) for name in names}
        self.timer = StepTimer(self.totals)
        self.add_callback(self.timer)

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
        # Not prepared by accelerate: the sampler itself gives each process its share.
        return self.data_loader(self.train_dataset, sampler, self.args.dataloader_persistent_workers)

    def example_lengths(self) -> dict[tuple[str, str], np.ndarray]:
        return estimate_lengths(self.train_dataset, self.data_collator.encoder)

    def data_loader(self, dataset: PretrainingDataset, batches, persistent_workers: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            prefetch_factor=self.args.dataloader_prefetch_factor,
            persistent_workers=persistent_workers,
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self.timer.start()
        batches = list(islice(epoch_iterator, num_batches))
        self.totals["waited"] += time.perf_counter() - self.timer.started
        self.totals["batches"] += len(batches)
        self.totals["tokens"] += sum(int(batch["attention_mask"].count_nonzero()) for batch in batches)
        _, number = super().get_batch_samples(iter(batches), num_batches, device)
        if number is None and self.max_tokens_per_batch is not None:  # RR, its batches of different sizes
            number = torch.tensor(sum(len(batch["pairs"]) for batch in batches), device=device)
            number = self.accelerator.reduce(number, "sum")
        return batches, number

    def forward_task(self, model, inputs):
        """Takes what is not the model's out of the inputs; returns task, loss, outputs, labels and the rest."""
        rest = {name: inputs.pop(name) for name in ("task", "pairs", "group_size", *COUNTS)}
        labels = inputs.pop("labels", None)
        outputs = model(**inputs, labels=labels, task=rest["task"], sparse_prediction=True)
        loss = outputs.loss
        if rest["task"] == "rr":
            loss = ranking_loss(outputs.relevance_logits, rest["group_size"], self.args.rr_loss, self.args.rr_margin)
        return loss, outputs, labels, rest

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs, labels, rest = self.forward_task(model, dict(inputs))
        task = rest["task"]
        weight = {"qlm": self.args.qlm_weight, "rr": self.args.rr_weight}.get(task, 1.0)
        self.totals[task] += loss.detach()
        self.totals[f"{task}_n"] += 1
        for name in self.counts:
            self.totals[name] += rest[name]
        if num_items_in_batch is not None:
            # The mean over all masked tokens or examples of the optimizer step: of every process and accumulated
            # batch. The Trainer divides by the number of accumulated batches only where items are not counted (RR, its
            # batches of one size), DDP by the processes.
            number = (labels != -100).sum() if task == "qlm" else len(rest["pairs"])
            loss = loss * number / num_items_in_batch * self.args.world_size
        loss = loss * weight
        return (loss, outputs) if return_outputs else loss

    def log(self, logs, start_time=None):
        if "loss" in logs:
            totals = {name: self.accelerator.reduce(value, "sum").item() for name, value in self.totals.items()}
            for task in self.tasks:
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

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        metrics = {}
        for (task, pair), size in tqdm(
            dataset.sizes.items(),
            desc="Evaluation",
            leave=False,
            disable=self.args.disable_tqdm or not self.is_world_process_zero(),
        ):
            source, target = pair.split("-")
            for side, direction in enumerate([f"{source}-{target}", f"{target}-{source}"][: 1 + (source != target)]):
                keys = [ExampleKey(task, pair, index, query_side=side) for index in range(size)]
                for name, value in self.evaluate_examples(model, dataset, task, keys).items():
                    metrics[f"{metric_key_prefix}_{task}_{name}_{direction}"] = value
        for name in ("qlm_loss", "qlm_accuracy", "rr_accuracy", "rr_mrr"):
            found = {key: value for key, value in metrics.items() if key.startswith(f"{metric_key_prefix}_{name}_")}
            across = [value for key, value in found.items() if len(set(key.rsplit("_", 1)[1].split("-"))) == 2]
            if values := across or list(found.values()):
                metrics[f"{metric_key_prefix}_{name}"] = sum(values) / len(values)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_examples(self, model, dataset, task, keys) -> dict[str, float]:
        """Each process takes its share; the sums are gathered, so the numbers do not depend on how many there are."""
        size = self.args.per_device_eval_batch_size
        keys = keys[self.args.process_index :: self.args.world_size]
        batches = [keys[start : start + size] for start in range(0, len(keys), size)]
        sums = torch.zeros(
            3, dtype=torch.float64, device=self.args.device
        )  # QLM: loss, right, tokens; RR: first, 1/rank, n
        for inputs in self.data_loader(dataset, batches):
            with self.compute_loss_context_manager():
                loss, outputs, labels, rest = self.forward_task(model, self._prepare_inputs(inputs))
            if task == "qlm":
                targets = labels[labels != -100]
                right = (outputs.prediction_logits.argmax(-1) == targets).sum()
                sums += torch.stack([loss * len(targets), right, torch.tensor(len(targets), device=loss.device)])
            else:
                scores = relevance_scores(outputs.relevance_logits.float()).view(-1, rest["group_size"])
                rank = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)
                sums += torch.stack([(rank == 1).sum(), (1 / rank).sum(), torch.tensor(len(rank), device=rank.device)])
        first, second, number = self.accelerator.reduce(sums, "sum").tolist()
        names = ("loss", "accuracy") if task == "qlm" else ("accuracy", "mrr")
        return dict(zip(names, (first / number, second / number)))

    def _save(self, *args, **kwargs):
        self.processing_class.backend_tokenizer.no_truncation()  # else the limit of the last batch is saved
        super()._save(*args, **kwargs)

    def create_model_card(self, **kwargs):
        if not self.is_world_process_zero():
            return
        args, dataset = self.args, self.train_dataset
        source = self.model.config._name_or_path
        collator, config = self.data_collator, self.model.config
        batches = args.gradient_accumulation_steps * args.world_size
        batch = {"batch (queries)": args.train_batch_size * batches}
        if self.max_tokens_per_batch is not None:
            batch = {"batch (tokens, about)": self.max_tokens_per_batch * batches}
        tasks = {task for task, _ in dataset.sizes}
        evaluations = [record for record in self.state.log_history if any(key.startswith("eval_") for key in record)]
        write_model_card(
            Path(args.output_dir),
            name=args.hub_model_id or Path(args.output_dir).resolve().name,
            base_model=source or None,
            sizes=dataset.sizes,
            settings={
                "optimizer steps": self.state.global_step,
                **batch,
                "learning rate": f"{args.learning_rate:g}, {SchedulerType(args.lr_scheduler_type).value}",
                **({"RR loss": f"{args.rr_loss}, {dataset.num_negatives} negatives"} if "rr" in tasks else {}),
                **({"QLM masks": f"{collator.mask_mode}, p = {collator.mask_probability}"} if "qlm" in tasks else {}),
                "longest pair": f"{collator.encoder.max_length} tokens",
                "attention window": getattr(config, "attention_window", "none"),
                "precision": "bf16" if args.bf16 else "fp32",
                "seed": args.seed,
            },
            metrics={k: v for k, v in (evaluations[-1] if evaluations else {}).items() if k.startswith("eval_")},
            max_length=config.max_position_embeddings,
            long=hasattr(config, "attention_window"),
        )


__all__ = ["XLRetrievalTrainer", "XLRetrievalTrainingArguments"]
