"""Ranking the documents of a collection, and how good a ranking is."""

import csv
from collections.abc import Iterable
from pathlib import Path

import ir_measures
from ir_measures import AP, RR, Judged, P, R, nDCG

from ..data.collections import Collection
from ..data.files import new_file
from ..data.runs import Run, ranking
from ..reranker import Reranker


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
        collection (`Collection`): what is ranked.
        queries (`list[str]`, *optional*): ids; all judged queries by default.
        progress (`bool`, defaults to `True`): show a bar on stderr.
        distributed (`bool`, defaults to `False`): share the work with the other processes, see [`Reranker.score`].

    Returns:
        `{query id: {document id: score}}`, and the `counts` of the reranker. Raises `ValueError` for a score that is
        NaN.
    """
    pairs = [(q, d) for q in (collection.qrels if queries is None else queries) for d in collection.candidates[q]]
    texts = [(collection.queries[query], collection.documents[document]) for query, document in pairs]
    run: Run = {query: {} for query, _ in pairs}
    for (query, document), score in zip(pairs, reranker.score(texts, progress, collection.name, distributed)):
        run[query][document] = score
    return run, reranker.counts


def evaluate_queries(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, dict[str, float]]:
    """
    The `MEASURES` of each judged query by `ir_measures`, in the order of `qrels`: AP (under the name of its mean, MAP),
    nDCG@20, P@10, R@100, the reciprocal rank (MRR), and the share of the first 20 documents that are judged. Equal
    scores are ordered by descending document id, as in trec_eval. A query without relevant documents counts 0 (but for
    the last one), and so does one that the run lacks.

    Raises `ValueError` where run and qrels have no query in common.
    """
    if not run.keys() & qrels.keys():
        raise ValueError(
            f"the run (query {next(iter(run), None)!r}, ...) and the judgements (query {next(iter(qrels), None)!r}, "
            "...) have no query in common"
        )
    names = {measure: name for name, measure in MEASURES.items()}
    found = {query: dict.fromkeys(MEASURES, 0.0) for query in qrels}
    # Judged@20 of ir_measures orders equal scores in another way, and needs a document: it is given ranks for scores.
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


def mean_measures(measured: Iterable[dict[str, float]]) -> dict[str, float]:
    """The mean of each measure over queries."""
    measured = list(measured)
    return {name: sum(values[name] for values in measured) / len(measured) for name in MEASURES}


def evaluate_run(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """The means of [`evaluate_queries`] over all judged queries."""
    return mean_measures(evaluate_queries(run, qrels).values())


def write_queries(measured: dict[str, dict[str, float]], path: Path):
    """Writes a CSV with a line for each query, from [`evaluate_queries`]."""
    with new_file(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["query", *MEASURES])
        writer.writerows([query, *values.values()] for query, values in measured.items())


__all__ = [
    "MEASURES",
    "evaluate_queries",
    "evaluate_run",
    "mean_measures",
    "rank_collection",
    "write_queries",
]
