"""Rotates folds of queries through training, development and test (Yu, Fei, Li 2021, section 5), and joins results."""

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
        name (`str`): name of its folder: `fold-{number}`, `transfer` or `zero-shot`.
        train, development, test (`dict[str, list[str]]`): collection name to query ids.
    """

    name: str
    train: dict[str, list[str]]
    development: dict[str, list[str]]
    test: dict[str, list[str]]


def plan_folds(
    collections: list[Collection], train_collections: list[Collection] | None = None, fold: int | None = None
) -> list[Fold]:
    """
    Plans the queries to train on and to test. Each fold of the queries is the test fold once; the next fold is for
    development, the others are for training. A fold has one model for all collections.

    Args:
        collections (`list[Collection]`): collections to test, with `folds`; see [`assign_folds`].
        train_collections (`list[Collection]`, *optional*): collections to train on; `collections` by default. If
            given, one model tests all queries of `collections`, and the second fold of `train_collections` is for
            development.
        fold (`int`, *optional*): plans this test fold only, also with `train_collections`.

    Raises `ValueError` for different numbers of folds, for a fold that does not exist, and for training or development
    queries without a relevant document. Counts test queries that share their id with a training query of another
    collection (logged).
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
                f"{fold.name}: {len(shared)} test queries of {name} have the id of a training query, as {shared[0]!r} "
                f"of {seen[shared[0]]}; if both are the same topic, the model has seen it"
            )


@dataclass
class FoldResult:
    """
    Attributes:
        runs (`dict[str, Run]`): collection name to the run of its test queries.
        counts (`dict[str, dict[str, int]]`): collection name to the counts of its pairs, see [`rank_collection`].
        development (`list[float]`): development MAP after each epoch; empty without training.
    """

    runs: dict[str, Run]
    counts: dict[str, dict[str, int]]
    development: list[float]

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the best development MAP, counted from 1."""
        return 1 + self.development.index(max(self.development)) if self.development else None


def rank_fold(reranker: Reranker, fold: Fold, collections: list[Collection], development: list[float]) -> FoldResult:
    """Ranks the test queries of a fold; all processes share the work."""
    runs, counts = {}, {}
    for collection in collections:
        queries = fold.test[collection.name]
        runs[collection.name], counts[collection.name] = rank_collection(
            reranker, collection, queries, distributed=True
        )
    return FoldResult(runs, counts, development)


def write_result(result: FoldResult, folder: Path):
    """
    Writes `{collection}.run`, then `result.json`, which marks the fold as finished. Removes the checkpoints last.
    """
    for name, run in result.runs.items():
        write_run(run, folder / f"{name}.run", tag="modeling_clir")
    with new_file(folder / "result.json") as file:
        json.dump({"counts": result.counts, "development": result.development}, file, indent=1)
    remove_checkpoints(folder)


def read_result(folder: Path, collections: list[Collection]) -> FoldResult | None:
    """Reads the files of [`write_result`]; `None` if the fold is not finished."""
    if not (folder / "result.json").is_file():
        return None
    remove_checkpoints(folder)  # left over if the run was killed while removing them
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return FoldResult({c.name: read_run(folder / f"{c.name}.run") for c in collections}, **result)


def with_finished(
    folds: list[Fold], results: list[FoldResult], collections: list[Collection], output: Path
) -> tuple[list[Fold], list[FoldResult]]:
    """
    Adds the folds that earlier runs have finished in `output`, in the order of their numbers, so that a run of one
    fold does not replace the results of the others. Logs the folds that are not finished.
    """
    results = {fold.name: result for fold, result in zip(folds, results)}
    if folds[0].name == "transfer":
        return folds, list(results.values())
    names = [f"fold-{k}" for k in range(len(collections[0].folds))]
    for name in names:
        if name not in results and (result := read_result(output / name, collections)):
            results[name] = result
    if missing := [name for name in names if name not in results]:
        logger.warning(f"{output} has the results of {', '.join(sorted(results))}; missing: {', '.join(missing)}")
    tests = {name: {c.name: c.folds[k] for c in collections} for k, name in enumerate(names)}
    chosen = [name for name in names if name in results]
    return [Fold(name, {}, {}, tests[name]) for name in chosen], [results[name] for name in chosen]


def measure_folds(collection: Collection, folds: list[Fold], results: list[FoldResult]) -> tuple[Run, dict, dict]:
    """
    Joins the results of all folds to one run, in which each query is tested once.

    Returns:
        The run; the measures of each query; and a dictionary of the means, the numbers of queries, pairs and cuts, and
        under `"folds"` the means of each trained fold. The mean over all queries equals the mean over the folds,
        weighted by the folds' numbers of queries.
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
    "Fold",
    "FoldResult",
    "measure_folds",
    "plan_folds",
    "rank_fold",
    "read_result",
    "with_finished",
    "write_result",
]
