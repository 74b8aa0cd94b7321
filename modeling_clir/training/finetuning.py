"""
Finetuning a reranker on judged queries, after Yu, Fei, Li (2021), section 5: folds of queries that rotate, the best
epoch by the MAP of the development queries, only the last layers trained.
"""

import json
import shutil
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    Trainer,
    TrainerState,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from ..convert import load_with_report, read_config
from ..data.collators import PretrainingCollator
from ..data.collections import Collection
from ..data.files import new_file
from ..data.pairs import drop_token_types, load_tokenizer, max_positions
from ..data.queries import QueryDataset
from ..data.runs import Run, read_run, write_run
from ..evaluation.ranking import evaluate_queries, mean_measures, rank_collection
from ..reranker import Reranker
from ..losses import ranking_loss
from .trainer import COUNTS, XLRetrievalTrainer, XLRetrievalTrainingArguments


logger = logging.get_logger(__name__)

# The training arguments on which results depend.
SETTINGS = ("seed", "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "weight_decay",
            "gradient_accumulation_steps", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "optim", "rr_loss",
            "rr_margin", "bf16", "fp16")  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Folds
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Fold:
    """
    Attributes:
        name (`str`): of its folder.
        train, development, test (`dict[str, list[str]]`): of each collection's name, query ids.
    """

    name: str
    train: dict[str, list[str]]
    development: dict[str, list[str]]
    test: dict[str, list[str]]


def plan_folds(
    collections: list[Collection], train_collections: list[Collection] | None = None, fold: int | None = None
) -> list[Fold]:
    """
    What is trained and tested: each fold of the queries once as the test fold, the next one for development, the
    others for training. One model for all collections, which have their own test queries.

    Args:
        collections (`list[Collection]`): what is tested; with `folds`, see [`assign_folds`].
        train_collections (`list[Collection]`, *optional*): what is trained on, `collections` by default. With others,
            there is one model for all queries of `collections`; the second fold of these is for development.
        fold (`int`, *optional*): this test fold only, with other `train_collections` too.

    Raises `ValueError` for different numbers of folds, a fold that is not there, and training or development queries
    without a relevant document. Test queries with the id of a training query of another collection are counted in the
    log.
    """
    sources = train_collections or collections
    if train_collections and fold is None:
        splits = {c.name: c.split(0) for c in sources}
        train = {name: test + train for name, (train, _, test) in splits.items()}
        development = {name: split[1] for name, split in splits.items()}
        folds = [Fold("transfer", train, development, {c.name: list(c.qrels) for c in collections})]
    else:
        numbers = {c.name: len(c.folds) for c in [*sources, *collections]}
        if len(set(numbers.values())) > 1:
            listed = ", ".join(f"{name} {number}" for name, number in numbers.items())
            raise ValueError(f"the collections must have the same number of folds, got {listed}")
        folds = []
        for k in range(len(sources[0].folds)) if fold is None else [fold]:
            splits = {c.name: c.split(k) for c in sources}
            train = {name: split[0] for name, split in splits.items()}
            development = {name: split[1] for name, split in splits.items()}
            folds.append(Fold(f"fold-{k}", train, development, {c.name: c.split(k)[2] for c in collections}))
    for planned in folds:
        check_fold(planned, {c.name: c for c in sources})
    return folds


def check_fold(fold: Fold, sources: dict[str, Collection]):
    for kind, queries in (("training", fold.train), ("development", fold.development)):
        for name, ids in queries.items():
            if not any(relevance > 0 for query in ids for relevance in sources[name].qrels[query].values()):
                raise ValueError(
                    f"{fold.name} of {name}: none of the {len(ids)} {kind} queries has a relevant document"
                )
    seen = {query: name for name, ids in fold.train.items() for query in ids}
    for name, ids in fold.test.items():
        if shared := [query for query in ids if query in seen]:
            logger.warning(
                f"{fold.name}: {len(shared)} test queries of {name} have the id of a training query, as {shared[0]!r} of "
                f"{seen[shared[0]]}; where they are the same topic, they are not unseen"
            )


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


# ---------------------------------------------------------------------------------------------------------------------
# Model
# ---------------------------------------------------------------------------------------------------------------------


def load_ranker(source: str | Path) -> PreTrainedModel:
    """
    Any encoder with a sequence classification head, in float32; where the checkpoint has none, a new one with one
    label, drawn with a fixed seed. Raises `ValueError` as [`load_with_report`].
    """
    read_config(source)  # says clearly where there is none
    config = AutoConfig.from_pretrained(source)
    model, missing = load_with_report(AutoModelForSequenceClassification, str(source), config)
    if head := missing & {name for name, _ in head_parameters(model)}:
        if config.num_labels != 1:
            config.num_labels = 1
            model, missing = load_with_report(AutoModelForSequenceClassification, str(source), config)
        new = ", ".join(sorted(missing | head))
        logger.warning_once(f"{source} has no relevance head: a new one ranks at random (new: {new})")
    return model


def load_reranker(
    source: str | Path,
    max_length: int | None = None,
    max_query_length: int = 128,
    max_tokens_per_batch: int = 8192,
    long_documents: str = "truncate",
) -> Reranker:
    """
    A [`Reranker`] of any encoder that Transformers has a sequence classification model for, with a fast tokenizer. To
    one without token types none are given, which is said in the log: query and document are then told apart by the
    separators between them. Raises `ValueError` as [`load_ranker`] and for lengths that do not fit.
    """
    model, tokenizer = load_ranker(source), load_tokenizer(str(source))
    limit = max_positions(model.config)
    if (max_length or limit) > limit:
        raise ValueError(f"--max_length {max_length} is more than the model's {limit} positions")
    drop_token_types(tokenizer, model.config)
    if max_length is None and limit < 1024:
        logger.warning_once(f"a {model.config.model_type} of {limit} positions: so many tokens has a pair at most")
    return Reranker(model, tokenizer, max_length or limit, max_query_length, max_tokens_per_batch, long_documents)


def save_reranker(reranker: Reranker, folder: Path):
    """Model and tokenizer, without the truncation that the last batch left in the latter."""
    reranker.encoder.tokenizer.backend_tokenizer.no_truncation()
    reranker.model.save_pretrained(folder)
    reranker.encoder.tokenizer.save_pretrained(folder)


def head_parameters(model: PreTrainedModel) -> list[tuple[str, nn.Parameter]]:
    """What is not the encoder's; a pooler is."""
    encoder = set(model.base_model.parameters())
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter not in encoder]


def encoder_layers(model: PreTrainedModel) -> list[tuple[nn.Module, ...]]:
    """The modules of each layer, first to last. XLM keeps the parts of its layers in several lists."""
    number = model.config.num_hidden_layers
    lists = {}
    for name, module in model.base_model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) == number and not inside:
            lists[name] = module
    return list(zip(*lists.values()))


def last_layers(model: PreTrainedModel, number: int, option: str) -> list[nn.Module]:
    layers = encoder_layers(model)
    if not 0 <= number <= len(layers):
        raise ValueError(f"--{option} must be between 0 and the model's {len(layers)} layers, got {number}")
    return [module for parts in layers[len(layers) - number :] for module in parts]


def finetune_last_layers(model: PreTrainedModel, number: int):
    """Freezes, in place, all but the last `number` layers, the pooler and the head."""
    chosen = last_layers(model, number, "num_finetuned_layers")
    model.base_model.requires_grad_(False)
    for module in chosen:
        module.requires_grad_(True)
    for name, parameter in model.base_model.named_parameters():
        if "pooler" in name:
            parameter.requires_grad_(True)


@torch.no_grad()
def reinitialize_layers(model: PreTrainedModel, number: int, seed: int):
    """Draws the last `number` layers anew, in place (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning")."""
    chosen = last_layers(model, number, "reinit_layers")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in chosen:
            for parameter in layer.parameters():
                parameter._is_hf_initialized = False  # else it would be left as it was loaded
            for module in layer.modules():
                model._init_weights(module)


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


class FinetuningTrainer(XLRetrievalTrainer):
    """
    Trains the model of a [`Reranker`] with RR alone, on a [`QueryDataset`]; `evaluate` gives the MAP of the development
    queries of all collections together.

    Args:
        reranker (`Reranker`).
        collections (`dict[str, Collection]`): by name.
        development (`dict[str, list[str]]`): of each collection's name, query ids.
        head_learning_rate (`float`, *optional*): of what is not the encoder's; `args.learning_rate` by default.

    The others are those of `Trainer`.
    """

    def __init__(
        self, reranker: Reranker, collections, development, head_learning_rate: float | None = None, **kwargs
    ):
        self.reranker, self.collections, self.development = reranker, collections, development
        self.head_learning_rate = head_learning_rate
        super().__init__(
            model=reranker.model,
            eval_dataset=development,
            processing_class=reranker.encoder.tokenizer,
            data_collator=PretrainingCollator(reranker.encoder),
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

    def forward_task(self, model, inputs):
        rest = {name: inputs.pop(name) for name in ("task", "pairs", "group_size", *COUNTS)}
        outputs = model(**inputs)
        loss = ranking_loss(outputs.logits, rest["group_size"], self.args.rr_loss, self.args.rr_margin)
        return loss, outputs, None, rest

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        precisions = []
        for name, queries in self.development.items():
            collection = self.collections[name]
            with self.compute_loss_context_manager():  # in the precision of training
                run, _ = rank_collection(self.reranker, collection, queries, progress=False, distributed=True)
            measured = evaluate_queries(run, {query: collection.qrels[query] for query in queries})
            precisions += [values["MAP"] for values in measured.values()]
        metrics = {f"{metric_key_prefix}_MAP": sum(precisions) / len(precisions)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


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


def finetune(
    reranker: Reranker,
    fold: Fold,
    collections: list[Collection],
    args: XLRetrievalTrainingArguments,
    num_negatives: int = 1,
    head_learning_rate: float | None = None,
) -> tuple[Path, list[float]]:
    """
    Trains on the training queries of a fold, with a checkpoint after each epoch in `args.output_dir/{fold}`; goes on
    from the last one there. Everything random follows from `args.seed`, the epoch and the example, so a run that was
    killed gives what an uninterrupted one gives.

    Args:
        reranker (`Reranker`): its model is trained in place.
        fold (`Fold`): queries for training and development.
        collections (`list[Collection]`): what they are of.
        args (`XLRetrievalTrainingArguments`): its strategies of evaluating and saving are not used.
        num_negatives (`int`, defaults to 1): of a training query.
        head_learning_rate (`float`, *optional*): `args.learning_rate` by default.

    Returns:
        The checkpoint with the best development MAP, the earliest of equals, and this MAP after each epoch.
    """
    folder = Path(args.output_dir) / fold.name
    args = copy(args)
    args.output_dir = str(folder)
    args.eval_strategy, args.save_strategy = IntervalStrategy.EPOCH, SaveStrategy.EPOCH
    args.metric_for_best_model, args.greater_is_better, args.load_best_model_at_end = "MAP", True, False
    args.save_total_limit, args.eval_on_start = 2, False  # the best and the last
    set_seed(args.seed)  # as if this were the only fold
    trainer = FinetuningTrainer(
        reranker,
        {collection.name: collection for collection in collections},
        fold.development,
        head_learning_rate,
        args=args,
        train_dataset=QueryDataset(collections, fold.train, num_negatives, args.seed),
    )
    state = train_to_the_end(trainer, folder)
    history = [record["eval_MAP"] for record in state.log_history if "eval_MAP" in record]
    return folder / f"checkpoint-{state.best_global_step}", history


# ---------------------------------------------------------------------------------------------------------------------
# Results
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class FoldResult:
    """
    Attributes:
        runs (`dict[str, Run]`): of each collection's test queries.
        counts (`dict[str, dict[str, int]]`): of each collection's pairs.
        development (`list[float]`): the MAP after each epoch; empty without training.
    """

    runs: dict[str, Run]
    counts: dict[str, dict[str, int]]
    development: list[float]

    @property
    def best_epoch(self) -> int | None:
        """The first epoch, from 1, with the best development MAP."""
        return 1 + self.development.index(max(self.development)) if self.development else None


def rank_fold(reranker: Reranker, fold: Fold, collections: list[Collection], development: list[float]) -> FoldResult:
    """Ranks the test queries of a fold, on all processes together."""
    runs, counts = {}, {}
    for collection in collections:
        queries = fold.test[collection.name]
        runs[collection.name], counts[collection.name] = rank_collection(
            reranker, collection, queries, distributed=True
        )
    return FoldResult(runs, counts, development)


def write_result(result: FoldResult, folder: Path):
    """Writes `{collection}.run` and at last `result.json`, which says that the fold is finished; removes checkpoints."""
    for name, run in result.runs.items():
        write_run(run, folder / f"{name}.run", tag="modeling_clir")
    with new_file(folder / "result.json") as file:
        json.dump({"counts": result.counts, "development": result.development}, file, indent=1)
    remove_checkpoints(folder)


def remove_checkpoints(folder: Path):
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def read_result(folder: Path, collections: list[Collection]) -> FoldResult | None:
    """What [`write_result`] wrote; `None` where the fold is not finished."""
    if not (folder / "result.json").is_file():
        return None
    remove_checkpoints(folder)  # where their removal was cut off
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return FoldResult({c.name: read_run(folder / f"{c.name}.run") for c in collections}, **result)


def measure_folds(collection: Collection, folds: list[Fold], results: list[FoldResult]) -> tuple[Run, dict, dict]:
    """
    The results of all folds as one run, in which each query is tested once.

    Returns:
        The run; the measures of each query; and their means with the numbers of queries, pairs and cuts, and under
        `"folds"` those of each trained fold. The mean over the queries is that of the folds, weighted by their queries.
    """
    name = collection.name
    scores = {query: ranked for result in results for query, ranked in result.runs[name].items()}
    run = {query: scores[query] for query in collection.qrels if query in scores}
    tested = {query for fold in folds for query in fold.test[name]}
    measured = evaluate_queries(run, {query: judged for query, judged in collection.qrels.items() if query in tested})
    metrics = mean_measures(measured.values()) | {"queries": len(measured)}
    metrics |= {count: sum(result.counts[name][count] for result in results) for count in results[0].counts[name]}
    if results[0].development:
        metrics["folds"] = {
            fold.name: mean_measures(measured[query] for query in fold.test[name])
            | {"queries": len(fold.test[name])}
            | {"best_epoch": result.best_epoch, "development_MAP": result.development}
            for fold, result in zip(folds, results)
        }
    return run, measured, metrics


__all__ = [
    "FinetuningTrainer",
    "Fold",
    "FoldResult",
    "encoder_layers",
    "finetune",
    "finetune_last_layers",
    "keep_settings",
    "load_ranker",
    "load_reranker",
    "measure_folds",
    "plan_folds",
    "prepare_output",
    "rank_fold",
    "read_result",
    "reinitialize_layers",
    "remove_checkpoints",
    "save_reranker",
    "train_to_the_end",
    "write_result",
]
