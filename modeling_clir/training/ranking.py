"""
Finetunes a reranker on judged queries (Yu, Fei, Li 2021, section 5). Keeps the epoch with the best MAP on the
development queries.
"""

from copy import copy
from pathlib import Path

import torch
from transformers import set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..configuration_bertlong import CUSTOM_PIPELINES, BertLongConfig
from ..data.collators import PretrainingCollator
from ..data.collections import Collection
from ..data.queries import QueryDataset
from ..evaluation.fusion import add_first_stage
from ..evaluation.ranking import evaluate_queries, rank_collection
from ..losses import ranking_loss, relevance_scores
from ..reranker import Reranker
from .folds import Fold
from .layers import head_parameters
from .resuming import last_complete_checkpoint, train_to_the_end
from .trainer import BatchFacts, XLRetrievalTrainer, XLRetrievalTrainingArguments


def save_reranker(reranker: Reranker, folder: Path):
    """Saves model and tokenizer. A BertLong's pipeline is the one for ranking, even if training began from a reader."""
    if reranker.model.config.model_type == BertLongConfig.model_type:
        reranker.model.config.custom_pipelines = dict(CUSTOM_PIPELINES)
    reranker.model.save_pretrained(folder)
    reranker.encoder.tokenizer.save_pretrained(folder)


class RankingTrainer(XLRetrievalTrainer):
    """
    Trains the model of a [`Reranker`] with RR only, on a [`QueryDataset`]. `evaluate` gives the MAP over the
    development queries of all collections together.

    Args:
        reranker (`Reranker`): its model is trained in place.
        collections (`dict[str, Collection]`): collections by name.
        development (`dict[str, list[str]]`): collection name to query ids.
        head_learning_rate (`float`, *optional*): learning rate of the parameters outside the base model;
            `args.learning_rate` by default.
        first_stage_weight (`float`, *optional*): train as a correction of the first stage. The loss and the MAP are of
            the sum of the reranker's score and this number times the first stage's score. All collections need a
            `first_stage`. Not for the pointwise loss, to which the scale of the sum matters.

    The other arguments are [`XLRetrievalTrainer`]'s, without `weights`: RR has `args.rr_weight`.
    """

    def __init__(
        self,
        reranker: Reranker,
        collections,
        development,
        head_learning_rate: float | None = None,
        first_stage_weight: float | None = None,
        *,
        args,
        **kwargs,
    ):
        self.reranker, self.collections, self.development = reranker, collections, development
        self.head_learning_rate, self.first_stage_weight = head_learning_rate, first_stage_weight
        super().__init__(
            model=reranker.model,
            eval_dataset=development,
            processing_class=reranker.encoder.tokenizer,
            data_collator=PretrainingCollator(reranker.encoder, mask_mode=None),
            args=args,
            weights={"rr": args.rr_weight},
            **kwargs,
        )

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if new and self.head_learning_rate is not None:
            head = {parameter for _, parameter in head_parameters(self.model)}
            for group in list(optimizer.param_groups):
                parameters = group["params"]
                group["params"] = [parameter for parameter in parameters if parameter not in head]
                of_head = [parameter for parameter in parameters if parameter in head]
                optimizer.add_param_group(group | {"params": of_head, "lr": self.head_learning_rate})
        return optimizer

    def task_loss(self, model, inputs, facts: BatchFacts):
        outputs = model(**inputs)
        logits = outputs.logits
        if self.first_stage_weight is not None:
            scores = relevance_scores(logits.float()) + self.first_stage_weight * facts.first_stage_scores.flatten()
            logits = scores[:, None]
        options = {"margin": self.args.rr_margin, "teacher_scores": facts.teacher_scores, "grades": facts.grades}
        loss = ranking_loss(logits, facts.group_size, self.args.rr_loss, **options)
        return loss, outputs, len(facts.pairs)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        precisions = []
        for name, queries in self.development.items():
            collection = self.collections[name]
            with self.compute_loss_context_manager():  # in the precision of training
                run, _ = rank_collection(self.reranker, collection, queries, progress=False, distributed=True)
            if self.first_stage_weight is not None:
                run = add_first_stage(run, collection.first_stage, self.first_stage_weight)
            measured = evaluate_queries(run, {query: collection.qrels[query] for query in queries})
            precisions += [values["MAP"] for values in measured.values()]
        return self.report({f"{metric_key_prefix}_MAP": sum(precisions) / len(precisions)})


def finetune(
    reranker: Reranker,
    fold: Fold,
    collections: list[Collection],
    args: XLRetrievalTrainingArguments,
    num_negatives: int = 1,
    head_learning_rate: float | None = None,
    first_stage_weight: float | None = None,
) -> tuple[Path, list[float]]:
    """
    Trains on the training queries of a fold. Saves a checkpoint in `args.output_dir/{fold}` after each epoch, and
    resumes at the last checkpoint there. Everything random follows from `args.seed`, the epoch and the example, so a
    killed and resumed run gives the same results as an uninterrupted run.

    Args:
        reranker (`Reranker`): its model is trained in place.
        fold (`Fold`): queries for training and development.
        collections (`list[Collection]`): the collections of these queries.
        args (`XLRetrievalTrainingArguments`): training arguments; the strategies of evaluating and saving are not
            used.
        num_negatives (`int`, defaults to 1): negatives of a training query.
        head_learning_rate, first_stage_weight (`float`, *optional*): see [`RankingTrainer`].

    Returns:
        The checkpoint with the best development MAP (the earliest if several are equal), and the MAP after each epoch.
    """
    folder = Path(args.output_dir) / fold.name
    args = copy(args)
    args.output_dir = str(folder)
    args.eval_strategy, args.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    args.metric_for_best_model, args.greater_is_better, args.load_best_model_at_end = "MAP", True, False
    args.save_total_limit, args.eval_on_start = 2, False  # the best and the last
    set_seed(args.seed)  # as if this were the only fold
    trainer = RankingTrainer(
        reranker,
        {collection.name: collection for collection in collections},
        fold.development,
        head_learning_rate,
        first_stage_weight,
        args=args,
        train_dataset=QueryDataset(collections, fold.train, num_negatives, args.seed, args.rr_loss),
    )
    state = train_to_the_end(trainer, last_complete_checkpoint(folder, args))
    history = [record["eval_MAP"] for record in state.log_history if "eval_MAP" in record]
    return folder / f"checkpoint-{state.best_global_step}", history


__all__ = ["RankingTrainer", "finetune", "save_reranker"]
