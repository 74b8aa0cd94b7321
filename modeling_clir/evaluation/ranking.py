"""
Ranks the documents of a collection, and measures rankings.

`MAP` and `MRR` are means over queries of average precision (AP) and reciprocal rank (RR). The dicts and files of this
module use the name of the mean for the value of one query too, so that a column of the CSV of queries and its mean
have the same name.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import ir_measures
from ir_measures import AP, RR, Judged, P, R, nDCG

from ..data.collections import Collection
from ..data.files import new_file
from ..data.runs import Run, ranking


if TYPE_CHECKING:
    from ..reranker import Reranker

# Name of the mean to the measure of a query.
MEASURES = {"MAP": AP, "nDCG@20": nDCG @ 20, "P@10": P @ 10, "R@100": R @ 100, "MRR": RR, "Judged@20": Judged @ 20}


def rank_collection(
    reranker: Reranker,
    collection: Collection,
    queries: list[str] | None = None,
    progress: bool = True,
    distributed: bool = False,
) -> tuple[Run, dict[str, int]]:
    """
    Scores every candidate document of the queries.

    Args:
        reranker (`Reranker`).
        collection (`Collection`): queries and documents to rank.
        queries (`list[str]`, *optional*): ids; all judged queries by default.
        progress (`bool`, defaults to `True`): show a bar on stderr.
        distributed (`bool`, defaults to `False`): share the work with the other processes, see [`Reranker.score`].

    Returns:
        `{query id: {document id: score}}`, with an empty dict for a query without candidates, and the `counts` of the
        reranker. Raises `ValueError` for a score that is not finite.
    """
    run: Run = {query: {} for query in (collection.qrels if queries is None else queries)}
    pairs = [(query, document) for query in run for document in collection.candidates[query]]
    texts = [(collection.queries[query], collection.documents[document]) for query, document in pairs]
    for (query, document), score in zip(pairs, reranker.score(texts, progress, collection.name, distributed)):
        run[query][document] = score
    return run, reranker.counts


def evaluate_queries(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """
    Computes the measures of each judged query with `ir_measures`. A document is relevant if its relevance is above 0.
    Equal scores are ordered by descending document id, as in trec_eval.

    Args:
        run (`dict[str, dict[str, float]]`): query id to document id to score.
        qrels (`dict[str, dict[str, int]]`): query id to document id to relevance.

    Ids may be strings or whole numbers: `1` and `"1"` are the same id.

    Returns:
        Query id (a string), in the order of `qrels`, to the value of each of `MEASURES`:

        - `MAP`: average precision (AP)
        - `nDCG@20`, `P@10`, `R@100`
        - `MRR`: reciprocal rank of the first relevant document (RR)
        - `Judged@20`: share of the first 20 documents that are judged, relevant or not

        A judged query counts 0 in every measure if the run lacks it, or has no document for it (it had no candidates).
        A query without relevant documents counts 0 in every measure but `Judged@20`. Queries without judgements do not
        count.

    Raises `ValueError` for a score that is not a finite number, a relevance that is not a whole number, an id of
    another type, and an id that occurs as a string and as a number. Raises it too if run and qrels have no query in
    common.
    """
    run, qrels = check_run(run), check_qrels(qrels)
    check_queries(run, qrels)
    names = {measure: name for name, measure in MEASURES.items()}
    found = {query: dict.fromkeys(MEASURES, 0.0) for query in qrels}
    # Judged@20 of ir_measures orders equal scores in another way, and fails without a document: it gets ranks as
    # scores.
    ranks = {
        query: {document: -rank for rank, document in enumerate(ranking(scores))}
        for query, scores in run.items()
        if scores
    }
    *others, judged = MEASURES.values()
    for measures, scores in ((others, run), ([judged], ranks)):
        for metric in ir_measures.iter_calc(measures, qrels, scores):
            found[metric.query_id][names[metric.measure]] = metric.value
    return found


def check_run(run: Run) -> Run:
    """Turns ids into strings and scores into Python's floats. Raises the `ValueError` of [`evaluate_queries`]."""
    checked = string_ids(run, "the run", "{query id: {document id: score}}")
    return {query: check_scores(scores, f"the run, query {query!r}") for query, scores in checked.items()}


def check_qrels(qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Turns ids into strings and relevance into Python's ints. Raises the `ValueError` of [`evaluate_queries`]."""
    checked = string_ids(qrels, "the judgements", "{query id: {document id: relevance}}")
    return {query: check_relevance(judged, f"the judgements, query {query!r}") for query, judged in checked.items()}


def check_scores(scores: dict[str, float], where: str) -> dict[str, float]:
    """Does the same as [`check_run`] for one query."""
    checked = string_ids(scores, where, "{document id: score}")
    for document, score in checked.items():
        checked[document] = as_float(score)
        if not math.isfinite(checked[document]):
            raise ValueError(f"{where}: the score of document {document!r} must be a finite number, got {score!r}")
    return checked


def check_relevance(judged: dict[str, int], where: str) -> dict[str, int]:
    """Does the same as [`check_qrels`] for one query."""
    checked = string_ids(judged, where, "{document id: relevance}")
    for document, relevance in checked.items():
        if not as_float(relevance).is_integer():
            raise ValueError(
                f"{where}: the relevance of document {document!r} must be a whole number, got {relevance!r}"
            )
        checked[document] = int(relevance)
    return checked


def as_float(value: object) -> float:
    """Converts a number. Returns NaN for anything else, and for a number that is written as text."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        return math.nan


def string_ids(table: dict, where: str, shape: str) -> dict[str, object]:
    """Copies a dict with its keys as strings. Raises `ValueError` for anything but a dict of the `shape`."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: expected a dict {shape}, got {type(table).__name__}")
    found = {}
    for key, value in table.items():
        if not isinstance(key, (str, Integral)):
            raise ValueError(f"{where}: an id must be a string or a whole number, got {key!r}")
        if str(key) in found:
            raise ValueError(f"{where}: the id {str(key)!r} occurs as a string and as a number")
        found[str(key)] = value
    return found


def check_queries(run: Run, qrels: dict[str, dict[str, int]]):
    """Raises `ValueError` if run and qrels have no query in common."""
    if not run.keys() & qrels.keys():
        raise ValueError(
            f"the run (query {next(iter(run), None)!r}, ...) and the judgements (query {next(iter(qrels), None)!r}, "
            "...) have no query in common"
        )


def mean_measures(measured: Iterable[dict[str, float]]) -> dict[str, float]:
    """Averages each measure over queries, from the values of [`evaluate_queries`]."""
    measured = list(measured)
    return {name: sum(values[name] for values in measured) / len(measured) for name in MEASURES}


def evaluate_run(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """Averages [`evaluate_queries`] over all judged queries. Raises the same errors."""
    return mean_measures(evaluate_queries(run, qrels).values())


def write_queries(measured: dict[str, dict[str, float]], path: Path):
    """Writes a CSV with a line for each query, from [`evaluate_queries`]. The columns are `query` and `MEASURES`."""
    with new_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["query", *MEASURES])
        writer.writerows([query, *values.values()] for query, values in measured.items())


__all__ = [
    "MEASURES",
    "check_qrels",
    "check_queries",
    "check_relevance",
    "check_run",
    "check_scores",
    "evaluate_queries",
    "evaluate_run",
    "mean_measures",
    "rank_collection",
    "write_queries",
]
