"""Ranking the documents of a collection, and how good a ranking is."""

from pathlib import Path

import ir_measures
from ir_measures import AP, RR, P, R, nDCG

from ..data.collections import Collection
from ..reranker import Reranker


MEASURES = {"MAP": AP, "nDCG@20": nDCG @ 20, "P@10": P @ 10, "R@100": R @ 100, "MRR": RR}

Run = dict[str, dict[str, float]]


def rank_collection(
    reranker: Reranker, collection: Collection, queries: list[str] | None = None, progress: bool = True
) -> tuple[Run, dict[str, int]]:
    """
    Scores every candidate document of the queries.

    Args:
        reranker (`Reranker`).
        collection (`Collection`): what is ranked.
        queries (`list[str]`, *optional*): ids; all judged queries by default.
        progress (`bool`, defaults to `True`): show a bar on stderr.

    Returns:
        `{query id: {document id: score}}`, and how many `pairs` were scored, `queries_cut` and `documents_cut`. Raises
        `ValueError` for a score that is NaN.
    """
    pairs = [(q, d) for q in (collection.qrels if queries is None else queries) for d in collection.candidates[q]]
    texts = [(collection.queries[query], collection.documents[document]) for query, document in pairs]
    run: Run = {query: {} for query, _ in pairs}
    for (query, document), score in zip(pairs, reranker.score(texts, progress, collection.name)):
        run[query][document] = score
    return run, reranker.counts


def evaluate_run(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """MAP, nDCG@20, P@10, R@100 and MRR by `ir_measures`; a judged query that the run lacks counts 0."""
    found = ir_measures.calc_aggregate(list(MEASURES.values()), qrels, run)
    return {name: found[measure] for name, measure in MEASURES.items()}


def write_run(run: Run, path: Path, tag: str):
    """Writes a TREC run; ties are ordered by descending document id, as trec_eval reads them."""
    with open(path, "w", encoding="utf-8") as file:
        for query, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)
            file.writelines(
                f"{query} Q0 {document} {rank} {score!r} {tag}\n" for rank, (document, score) in enumerate(ranked, 1)
            )


__all__ = ["MEASURES", "evaluate_run", "rank_collection", "write_run"]
