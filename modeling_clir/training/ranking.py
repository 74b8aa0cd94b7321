"""
Finetunes a reranker on judged queries (Yu, Fei, Li 2021, section 5). Keeps the epoch with the best MAP on the
development queries.
"""

from copy import copy
from pathlib import Path
from shutil import copytree

import torch
from transformers import PreTrainedModel, SchedulerType, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..configuration_bertlong import CUSTOM_PIPELINES, BertLongConfig
from ..data.collators import PretrainingCollator
from ..data.collections import Collection
from ..data.languages import card_languages
from ..data.queries import QueryDataset
from ..evaluation.fusion import add_first_stage, choose_weight
from ..evaluation.ranking import evaluate_queries, rank_collection
from ..losses import ranking_loss, relevance_scores
from ..model_card import describe_data, ranking_example, write_ranking_card
from ..reranker import Reranker
from .folds import Fold, FoldResult
from .layers import head_parameters
from .resuming import last_complete_checkpoint, train_to_the_end
from .trainer import BatchFacts, XLRetrievalTrainer, XLRetrievalTrainingArguments


def save_reranker(reranker: Reranker, folder: Path, adapted: Path | None = None):
    """
    Saves model and tokenizer, and the adapters that are in the folder `adapted`. A BertLong's pipeline is the one for
    ranking, even if training began from a reader.
    """
    if reranker.model.config.model_type == BertLongConfig.model_type:
        reranker.model.config.custom_pipelines = dict(CUSTOM_PIPELINES)
    reranker.model.save_pretrained(folder)
    reranker.encoder.tokenizer.save_pretrained(folder)
    if adapted is not None:
        copytree(adapted / "adapter", folder / "adapter", dirs_exist_ok=True)


def pair_logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """
    Returns the logits of a batch of pairs, `(pairs, labels)`, which are padded at their ends. A model that computes
    padding reads a batch pair by pair on a CPU if more than a tenth of it is padding; 1.4 times as fast for questions
    and paragraphs, in half the memory (results/benchmarks.md). Elsewhere, and with several processes, it reads all
    pairs at once.
    """
    lengths = inputs["attention_mask"].sum(1)
    computes_padding = isinstance(model, PreTrainedModel) and model.config.model_type != BertLongConfig.model_type
    if not computes_padding or not lengths.is_cpu or lengths.sum() >= 0.9 * inputs["attention_mask"].numel():
        return model(**inputs).logits
    pairs = ({name: rows[i : i + 1, :length] for name, rows in inputs.items()} for i, length in enumerate(lengths))
    return torch.cat([model(**pair).logits for pair in pairs])


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
        tune_first_stage (`bool`, defaults to `False`): also choose the weight of the first stage for ranking
            ([`choose_weight`]) whenever the development queries are ranked.

    The other arguments are [`XLRetrievalTrainer`]'s, without `weights`: RR has `args.rr_weight`.
    """

    def __init__(
        self,
        reranker: Reranker,
        collections,
        development,
        head_learning_rate: float | None = None,
        first_stage_weight: float | None = None,
        tune_first_stage: bool = False,
        *,
        args,
        **kwargs,
    ):
        self.reranker, self.collections, self.development = reranker, collections, development
        self.head_learning_rate, self.first_stage_weight = head_learning_rate, first_stage_weight
        self.tune_first_stage = tune_first_stage
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
        logits = pair_logits(model, inputs)
        outputs = {"logits": logits}
        if self.first_stage_weight is not None:
            scores = relevance_scores(logits.float()) + self.first_stage_weight * facts.first_stage_scores.flatten()
            logits = scores[:, None]
        options = {"margin": self.args.rr_margin, "teacher_scores": facts.teacher_scores, "grades": facts.grades}
        loss = ranking_loss(logits, facts.group_size, self.args.rr_loss, **options)
        return loss, outputs, len(facts.pairs)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        precisions, alone = [], []
        for name, queries in self.development.items():
            collection = self.collections[name]
            with self.compute_loss_context_manager():  # in the precision of training
                run, _ = rank_collection(self.reranker, collection, queries, progress=False, distributed=True)
            qrels = {query: collection.qrels[query] for query in queries}
            alone.append((run, collection.first_stage, qrels))
            if self.first_stage_weight is not None:
                run = add_first_stage(run, collection.first_stage, self.first_stage_weight)
            precisions += [values["MAP"] for values in evaluate_queries(run, qrels).values()]
        metrics = {f"{metric_key_prefix}_MAP": sum(precisions) / len(precisions)}
        if self.tune_first_stage:
            weight, precision = choose_weight(alone)
            metrics |= {
                f"{metric_key_prefix}_first_stage_weight": weight,
                f"{metric_key_prefix}_MAP_with_first_stage": precision,
            }
        return self.report(metrics)


def finetune(
    reranker: Reranker,
    fold: Fold,
    collections: list[Collection],
    args: XLRetrievalTrainingArguments,
    num_negatives: int = 1,
    head_learning_rate: float | None = None,
    first_stage_weight: float | None = None,
    tune_first_stage: bool = False,
) -> tuple[Path, list[float], float | None]:
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
        tune_first_stage (`bool`, defaults to `False`): see [`RankingTrainer`].

    Returns:
        The checkpoint with the best development MAP (the earliest if several are equal), the MAP after each epoch, and
        with `tune_first_stage` the weight of the first stage that is best with this checkpoint, else `None`.
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
        tune_first_stage,
        args=args,
        train_dataset=QueryDataset(collections, fold.train, num_negatives, args.seed, args.rr_loss),
    )
    state = train_to_the_end(trainer, last_complete_checkpoint(folder, args, with_best=True))
    records = [record for record in state.log_history if "eval_MAP" in record]
    weights = {record["step"]: record.get("eval_first_stage_weight") for record in records}
    best = state.best_global_step
    return folder / f"checkpoint-{best}", [record["eval_MAP"] for record in records], weights[best]


def write_card(
    folder: Path,
    reranker: Reranker,
    collections: list[Collection],
    sources: list[Collection],
    metrics: dict[str, dict],
    options: object,
    args: XLRetrievalTrainingArguments,
    facts,
    final: tuple[Fold, FoldResult] | None = None,
):
    """
    Writes `README.md` for the results in `folder` and, if there is one, for the model of all queries in it.

    Args:
        folder (`Path`): output folder.
        reranker (`Reranker`): the model of all queries, or of the last fold.
        collections (`list[Collection]`): collections of the test.
        sources (`list[Collection]`): collections of the training; may be the same.
        metrics (`dict[str, dict]`): collection to its measures, see [`measure_folds`].
        options (`Arguments`): options of `run_clir.py`.
        args (`XLRetrievalTrainingArguments`): training arguments.
        facts (`RunFacts`): facts of the run.
        final (`tuple[Fold, FoldResult]`, *optional*): queries and development MAP of the model of all queries.
    """
    of_final = None
    if final is not None:
        fold, result = final
        of_final = {
            "training": sum(map(len, fold.train.values())),
            "development": sum(map(len, fold.development.values())),
            "epoch": result.best_epoch,
            "precision": max(result.development),
        }
    transfer = bool(options.train_collections)
    protocol = "Trained on other collections, the model was tested on all queries."
    if not transfer:
        number = len(collections[0].folds)
        protocol = (
            f"{number} folds of the queries: each query was ranked by a model that was trained on other folds, with "
            "the epoch that was best on a third part. " + ("These are models like this one. " if final else "")
        ).strip()
    layers = options.num_finetuned_layers
    weights = [found.get("first_stage_weight") for found in metrics.values()]
    write_ranking_card(
        folder,
        name=folder.resolve().name,
        base_model=options.model_name_or_path,
        languages=collection_languages([*collections, *sources]),
        metrics=metrics,
        measures=["MAP", "nDCG@20", "P@10", "R@100", "MRR"],
        data=[
            f"{kind} {describe_data(path)}: {len(one.qrels)} queries, {len(one.documents)} documents"
            for kind, paths, of_kind in (
                ("training:", options.train_collections or [], sources),
                ("test:" if transfer else "training and test:", options.collections, collections),
            )
            for path, one in zip(paths, of_kind)
        ],
        settings={
            "epochs": f"{args.num_train_epochs:g}" if args.max_steps < 0 else f"{args.max_steps} steps",
            "batch (queries)": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "learning rate": f"{args.learning_rate:g}, {SchedulerType(args.lr_scheduler_type).value}",
            "loss": f"{args.rr_loss}, {options.num_negatives} negatives",
            "layers": "all" if layers is None else f"the last {layers}",
            "longest pair": f"{reranker.encoder.max_length} tokens",
            **({"weight of the first stage": describe_weights(weights)} if any(weights) else {}),
            "precision": args.precision,
            "seed": args.seed,
        },
        protocol=f"{protocol} One run, seed {args.seed}.",
        max_length=reranker.encoder.max_length,
        long_documents="A longer document is cut."
        if options.long_documents == "truncate"
        else "In the test the best passage of a longer document counted.",
        model_type=reranker.model.config.model_type,
        num_labels=reranker.model.config.num_labels,
        final=of_final,
        printed=ranking_example(reranker) if final else None,
        facts=facts,
    )


def describe_weights(weights: list[dict[str, float]]) -> str:
    """Such as `"0.5"`, or `"0.5 to 2 (tuned for each fold)"`."""
    values = {weight for of_folds in weights for weight in of_folds.values()}
    if len(values) == 1:
        return f"{values.pop():.4g}"
    return f"{min(values):.4g} to {max(values):.4g} (tuned for each fold)"


def collection_languages(collections: list[Collection]) -> list[str]:
    """Lists the languages in the names of collections, `en-de`; a name of another form has none."""
    parts = [collection.name.split("-") for collection in collections]
    return sorted({code for two in parts if len(two) == 2 and card_languages(two) == two for code in two})


__all__ = ["RankingTrainer", "collection_languages", "finetune", "save_reranker", "write_card"]
