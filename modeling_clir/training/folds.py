"""Rotates folds of queries through training, development and test (Yu, Fei, Li 2021, section 5), and joins results."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from transformers.utils import logging

from ..data.collections import Collection
from ..data.files import new_file
from ..data.runs import Run, read_run, write_run
from ..evaluation.fusion import add_first_stage
from ..evaluation.ranking import evaluate_queries, evaluate_run, mean_measures, rank_collection
from ..reranker import Reranker
from .resuming import remove_checkpoints


logger = logging.get_logger(__name__)


@dataclass
class Fold:
    """
    Attributes:
        name (`str`): name of its folder: `fold-{number}`, `transfer`, `final` or `zero-shot`.
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


def plan_final(collections: list[Collection]) -> Fold:
    """
    Plans a model of all queries of `collections`, to be used: the second fold is for development, the others are for
    training, none for testing. Raises `ValueError` in the cases of [`plan_folds`].
    """
    splits = {c.name: c.split(0) for c in collections}
    train = {name: test + train for name, (train, _, test) in splits.items()}
    fold = Fold("final", train, {name: split[1] for name, split in splits.items()}, {})
    check_fold(fold, {c.name: c for c in collections})
    return fold


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
        first_stage_weight (`float`, *optional*): factor of the first stage's scores in `runs`.
        reranker_runs (`dict[str, Run]`): with a `first_stage_weight`, `runs` without the first stage's scores.
    """

    runs: dict[str, Run]
    counts: dict[str, dict[str, int]]
    development: list[float]
    first_stage_weight: float | None = None
    reranker_runs: dict[str, Run] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the best development MAP, counted from 1."""
        return 1 + self.development.index(max(self.development)) if self.development else None


def rank_fold(
    reranker: Reranker,
    fold: Fold,
    collections: list[Collection],
    development: list[float],
    first_stage_weight: float | None = None,
) -> FoldResult:
    """
    Ranks the test queries of a fold; all processes share the work. With a `first_stage_weight`, adds the first
    stage's scores times the weight.
    """
    runs, counts = {}, {}
    for collection in collections:
        queries = fold.test[collection.name]
        runs[collection.name], counts[collection.name] = rank_collection(
            reranker, collection, queries, distributed=True
        )
    if first_stage_weight is None:
        return FoldResult(runs, counts, development)
    both = {c.name: add_first_stage(runs[c.name], c.first_stage, first_stage_weight) for c in collections}
    return FoldResult(both, counts, development, first_stage_weight, runs)


def write_result(result: FoldResult, folder: Path):
    """
    Writes `{collection}.run`, with a weight of the first stage `{collection}.reranker.run`, then `result.json`, which
    marks the fold as finished. Removes the checkpoints last.
    """
    for suffix, runs in (("run", result.runs), ("reranker.run", result.reranker_runs)):
        for name, run in runs.items():
            write_run(run, folder / f"{name}.{suffix}", tag="modeling_clir")
    facts = {"counts": result.counts, "development": result.development}
    if result.first_stage_weight is not None:
        facts["first_stage_weight"] = result.first_stage_weight
    with new_file(folder / "result.json") as file:
        json.dump(facts, file, indent=1)
    remove_checkpoints(folder)


def read_result(folder: Path, collections: list[Collection]) -> FoldResult | None:
    """Reads the files of [`write_result`]; `None` if the fold is not finished."""
    if not (folder / "result.json").is_file():
        return None
    if PartialState().is_main_process:
        remove_checkpoints(folder)  # left over if the run was killed while removing them
    facts = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    result = FoldResult({c.name: read_run(folder / f"{c.name}.run") for c in collections}, **facts)
    if result.first_stage_weight is not None:
        result.reranker_runs = {c.name: read_run(folder / f"{c.name}.reranker.run") for c in collections}
    return result


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


def join_runs(collection: Collection, runs: list[Run]) -> Run:
    """Joins the runs of all folds to one, in the order of the judgements."""
    scores = {query: ranked for run in runs for query, ranked in run.items()}
    return {query: scores[query] for query in collection.qrels if query in scores}


def measure_folds(collection: Collection, folds: list[Fold], results: list[FoldResult]) -> tuple[Run, dict, dict]:
    """
    Joins the results of all folds to one run, in which each query is tested once.

    Returns:
        The run; the measures of each query; and a dictionary of the means, the numbers of queries, pairs and cuts, and
        under `"folds"` the means of each trained fold. The mean over all queries equals the mean over the folds,
        weighted by the folds' numbers of queries.

        If the run has the scores of a first stage, the dictionary also has the means of the first stage alone
        (`"first_stage"`) and of the reranker alone (`"reranker"`) over the same queries, and the
        `"first_stage_weight"` of each fold.
    """
    name = collection.name
    run = join_runs(collection, [result.runs[name] for result in results])
    tested = {query for fold in folds for query in fold.test[name]}
    qrels = {query: judged for query, judged in collection.qrels.items() if query in tested}
    measured = evaluate_queries(run, qrels)
    metrics = mean_measures(measured.values()) | {"queries": len(measured)}
    metrics |= {count: sum(result.counts[name][count] for result in results) for count in results[0].counts[name]}
    if results[0].first_stage_weight is not None:
        metrics["first_stage"] = evaluate_run({query: collection.first_stage[query] for query in qrels}, qrels)
        metrics["reranker"] = evaluate_run(
            join_runs(collection, [result.reranker_runs[name] for result in results]), qrels
        )
        metrics["first_stage_weight"] = {fold.name: result.first_stage_weight for fold, result in zip(folds, results)}
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
    "join_runs",
    "measure_folds",
    "plan_final",
    "plan_folds",
    "rank_fold",
    "read_result",
    "with_finished",
    "write_result",
]
