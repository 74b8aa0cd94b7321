"""A reranker behind a first stage: adds the first stage's scores, chooses their weight, reranks to a depth."""

import math

import numpy as np

from ..data.runs import Run, ranking
from .ranking import evaluate_queries


# Share of the first stage's spread in the sum, over the reranker's: 0 is the reranker alone. 1e6 is the first stage
# alone: the reranker only orders what the first stage ties.
RATIOS = (0.0, *(2.0 ** (step / 2) for step in range(-8, 9)), 1e6)


def add_first_stage(run: Run, first_stage: Run, weight: float) -> Run:
    """Adds `weight` times the first stage's score to each score of a run. The first stage has all its documents."""
    return {
        query: {document: score + weight * first_stage[query][document] for document, score in scores.items()}
        for query, scores in run.items()
    }


def spread(runs: list[Run]) -> float:
    """Returns the standard deviation of the scores around the means of their queries."""
    deviations = [
        np.array([*scores.values()]) - np.mean([*scores.values()]) for run in runs for scores in run.values() if scores
    ]
    return float(np.concatenate(deviations).std()) if deviations else 0.0


def choose_weight(runs: list[tuple[Run, Run, dict[str, dict[str, int]]]]) -> tuple[float, float]:
    """
    Chooses the weight of the first stage with the best mean of AP over the queries of several collections. The
    weights that are compared are `RATIOS` times the ratio of both spreads ([`spread`]), so the scale of the scores
    does not matter. Of equally good weights it takes the one that is nearest to equal spreads.

    Args:
        runs (`list[tuple]`): for each collection, the reranker's run, the first stage's scores of its documents, and
            the judgements of its queries.

    Returns:
        The weight and its MAP. The weight is 0 if the first stage does not tell the documents of any query apart.
    """
    first = spread([{query: first_stage[query] for query in run} for run, first_stage, _ in runs])
    scale = (spread([run for run, _, _ in runs]) or 1.0) / first if first else 0.0
    found = {}
    for ratio in RATIOS:
        precisions = []
        for run, first_stage, qrels in runs:
            measured = evaluate_queries(add_first_stage(run, first_stage, ratio * scale), qrels)
            precisions += [values["MAP"] for values in measured.values()]
        found[ratio] = sum(precisions) / len(precisions)
    best = max(found, key=lambda ratio: (found[ratio], -abs(math.log(ratio)) if ratio else -math.inf))
    return best * scale, found[best]


def covered_depth(run: Run, first_stage: Run) -> int:
    """Returns how many of the first stage's first documents a run has, of the query for which it is the fewest."""
    orders = {query: ranking(scores) for query, scores in first_stage.items()}
    missing = [
        next((place for place, document in enumerate(order) if document not in run.get(query, ())), None)
        for query, order in orders.items()
    ]
    longest = max(map(len, orders.values()), default=0)
    return min((place for place in missing if place is not None), default=longest)


def rerank_to_depth(run: Run, first_stage: Run, depth: int) -> Run:
    """
    Puts the first `depth` documents of a first stage into the order of a run, which has them all. The others follow in
    the first stage's order. A document's score is minus its rank.
    """
    reranked = {}
    for query, scores in first_stage.items():
        order = ranking(scores)
        first = ranking({document: run[query][document] for document in order[:depth]})
        reranked[query] = {document: -rank for rank, document in enumerate([*first, *order[depth:]], 1)}
    return reranked


__all__ = ["add_first_stage", "choose_weight", "covered_depth", "rerank_to_depth"]
