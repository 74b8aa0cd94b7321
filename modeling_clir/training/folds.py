"""Folds of queries rotate through training, development and test (Yu, Fei, Li 2021, section 5); the results of each."""

import json
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from ..data.collections import Collection
from ..data.files import new_file
from ..data.runs import Run, read_run, write_run
from ..evaluation.ranking import evaluate_queries, mean_measures, rank_collection
from ..reranker import Reranker
from .resuming import remove_checkpoints


logger = logging.get_logger(__name__)


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


__all__ = ["Fold", "FoldResult", "measure_folds", "plan_folds", "rank_fold", "read_result", "write_result"]
