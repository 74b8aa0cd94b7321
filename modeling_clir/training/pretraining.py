"""Pretrains with query language modelling (QLM) and relevance ranking (RR)."""

import math
from pathlib import Path

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule
from tqdm.auto import tqdm
from transformers import SchedulerType

from ..data.sections import ExampleKey
from ..losses import ranking_loss, relevance_scores
from ..model_card import ranking_example, write_model_card
from ..reranker import Reranker
from ..spans_bertlong import max_positions
from ..stopping import signals
from .samplers import estimate_lengths
from .trainer import BatchFacts, XLRetrievalTrainer


class PretrainingTrainer(XLRetrievalTrainer):
    """
    Trains a model of [`retrieval_class`], `BertLongForXLRetrieval` or `BertForXLRetrieval` on a [`PretrainingDataset`]
    with QLM and RR (Yu, Fei, Li 2021, section 3). `evaluate` gives the loss and accuracy of QLM and the accuracy and mean reciprocal rank of RR. It
    gives each measure for each direction (query language-document language), and its mean over the directions between
    two languages (over all directions if each is within one language). Raises `ValueError` for a loss or score that is
    not finite.

    The arguments are [`XLRetrievalTrainer`]'s, without `weights`: the weights are `args.qlm_weight` and
    `args.rr_weight`.
    """

    def __init__(self, *, args, **kwargs):
        super().__init__(args=args, weights={"qlm": args.qlm_weight, "rr": args.rr_weight}, **kwargs)

    def example_lengths(self) -> dict[tuple[str, str], np.ndarray]:
        return estimate_lengths(self.train_dataset, self.data_collator.encoder)

    def task_loss(self, model, inputs, facts: BatchFacts):
        outputs = model(**inputs, task=facts.task, sparse_prediction=True)
        if facts.task == "qlm":
            return outputs.loss, outputs, (inputs["labels"] != -100).sum()
        options = {"margin": self.args.rr_margin, "teacher_scores": facts.teacher_scores}
        loss = ranking_loss(outputs.relevance_logits, facts.group_size, self.args.rr_loss, **options)
        return loss, outputs, len(facts.pairs)

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        model = self.accelerator.unwrap_model(self.model)
        model.eval()
        if not isinstance(model, FSDPModule):
            model.to(self.args.device)  # with FSDP a `Trainer` leaves it where it is until it is sharded
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
        return self.report(metrics)

    def evaluate_examples(self, model, dataset, task, keys) -> dict[str, float]:
        """Evaluates a share on each process and gathers sums: the number of processes does not change the result."""
        size = self.args.per_device_eval_batch_size
        own = keys[self.args.process_index :: self.args.world_size]
        batches = [own[start : start + size] for start in range(0, len(own), size)]
        number = len(batches)
        if isinstance(model, FSDPModule):  # all processes must call a sharded model equally often
            most = -(-len(keys[:: self.args.world_size]) // size)
            batches += [keys[:1]] * (most - number)
        # QLM: sum of the loss, rightly predicted tokens, tokens. RR: positives at rank 1, sum of 1/rank, queries.
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        for place, batch in enumerate(self.data_loader(dataset, batches)):
            if signals.wanted() and not isinstance(model, FSDPModule):
                break
            inputs = self._prepare_inputs(batch)
            facts = BatchFacts.take(inputs)
            with self.compute_loss_context_manager():
                outputs = model(**inputs, task=task, sparse_prediction=True)
            if place >= number:
                continue
            if task == "qlm":
                targets = inputs["labels"][inputs["labels"] != -100]
                right = (outputs.prediction_logits.argmax(-1) == targets).sum()
                items = torch.tensor(len(targets), device=right.device)
                sums += torch.stack([outputs.loss * items, right, items])
            else:
                scores = relevance_scores(outputs.relevance_logits.float()).view(-1, facts.group_size)
                rank = 1 + (scores[:, 1:] >= scores[:, :1]).sum(1)
                rank = torch.where(scores.isfinite().all(1), rank, torch.nan)  # not the first rank
                sums += torch.stack([(rank == 1).sum(), (1 / rank).sum(), torch.tensor(len(rank), device=rank.device)])
        signals.stop_together()
        first, second, items = self.accelerator.reduce(sums, "sum").tolist()
        if not math.isfinite(first + second):
            what, pair = "loss" if task == "qlm" else "score", keys[0].pair
            raise ValueError(
                f"held-out {task} {pair}: a {what} is not finite; the model has NaN weights, or its numbers overflow"
            )
        names = ("loss", "accuracy") if task == "qlm" else ("accuracy", "mrr")
        return dict(zip(names, (first / items, second / items)))

    def create_model_card(self, facts=None, base: str | None = None, corpus: str | None = None, **kwargs):
        """
        Writes the card of the model that was saved in `args.output_dir`, with the output of its example.

        Args:
            facts (`RunFacts`, *optional*): facts of the run.
            base (`str`, *optional*): folder or Hub name of the model that training started from; defaults to what the
                configuration says.
            corpus (`str`, *optional*): folder or Hub name of the corpus.
            kwargs: what a Trainer passes; not used.
        """
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
        printed = None
        if "rr" in tasks and facts is not None:  # not for a card in mid-training
            lengths = (collator.encoder.max_length, collator.encoder.max_query_length)
            printed = ranking_example(Reranker.from_pretrained(args.output_dir, *lengths))
        evaluations = [record for record in self.state.log_history if any(key.startswith("eval_") for key in record)]
        write_model_card(
            Path(args.output_dir),
            name=Path(args.output_dir).resolve().name,
            base_model=base or source or None,
            sizes=dataset.sizes,
            settings={
                "optimizer steps": self.state.global_step,
                **batch,
                "learning rate": f"{args.learning_rate:g}, {SchedulerType(args.lr_scheduler_type).value}",
                **({"RR loss": f"{args.rr_loss}, {dataset.num_negatives} negatives"} if "rr" in tasks else {}),
                **({"QLM masks": f"{collator.mask_mode}, p = {collator.mask_probability}"} if "qlm" in tasks else {}),
                "longest pair": f"{collator.encoder.max_length} tokens",
                "attention window": getattr(config, "attention_window", "none"),
                "precision": args.precision,
                "seed": args.seed,
            },
            metrics={k: v for k, v in (evaluations[-1] if evaluations else {}).items() if k.startswith("eval_")},
            max_length=max_positions(self.model),
            model_type=config.model_type,
            num_labels=config.num_labels,
            corpus=corpus,
            held_out=self.eval_dataset.sizes if self.eval_dataset is not None else None,
            printed=printed,
            facts=facts,
        )


__all__ = ["PretrainingTrainer"]
