"""The first stage's scores are added, and its weight is chosen whatever the scale of the scores."""

import random

import pytest

from modeling_clir.evaluation.fusion import add_first_stage, choose_weight, covered_depth, rerank_to_depth
from modeling_clir.evaluation.ranking import evaluate_run


DOCUMENTS = [f"d{i}" for i in range(12)]
QRELS = {f"q{i}": {f"d{i % 12}": 1, f"d{(i + 5) % 12}": 1} for i in range(30)}


def noisy(seed: int, noise: float, scale: float = 1.0, shift: float = 0.0):
    """Makes scores of relevance plus noise; each query has an offset of its own, which changes no ranking."""
    rng = random.Random(seed)
    offsets = {query: rng.uniform(-50, 50) for query in QRELS}
    return {
        query: {d: scale * ((d in judged) + rng.gauss(0, noise) + offsets[query]) + shift for d in DOCUMENTS}
        for query, judged in QRELS.items()
    }


def reversed_scores(run):
    return {query: {d: -score for d, score in scores.items()} for query, scores in run.items()}


def test_sum():
    run, first = (
        {"q": {"a": 1.0, "b": 2.0}, "empty": {}},
        {"q": {"b": 0.5, "a": 3.0}, "empty": {}, "other": {"a": 9.0}},
    )
    assert add_first_stage(run, first, 2.0) == {"q": {"a": 7.0, "b": 3.0}, "empty": {}}
    assert add_first_stage(run, first, 0.0) == run


def test_the_weight_that_is_chosen():
    one, other = noisy(0, 0.7), noisy(1, 0.7)
    alone = [evaluate_run(run, QRELS)["MAP"] for run in (one, other)]
    weight, precision = choose_weight([(one, other, QRELS)])
    assert 0 < weight < 100 and precision > max(alone) + 0.03  # two independent judges are better than each
    assert precision == evaluate_run(add_first_stage(one, other, weight), QRELS)["MAP"]
    weight, precision = choose_weight([(one, reversed_scores(other), QRELS)])
    assert weight == 0 and precision == alone[0]
    weight, precision = choose_weight([(reversed_scores(one), other, QRELS)])
    assert weight > 1e5 and precision == alone[1]  # the first stage alone


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (0.001, 0.9), (1.0, -30.0)])
def test_the_scale_does_not_matter(scale, shift):
    one, other = noisy(0, 0.7), noisy(1, 0.7)
    weight, precision = choose_weight([(one, other, QRELS)])
    scaled, same = choose_weight([(one, noisy(1, 0.7, scale, shift), QRELS)])
    assert scaled * scale == pytest.approx(weight) and same == pytest.approx(precision)


def test_queries_of_all_collections_count_together():
    one, other = noisy(0, 0.7), noisy(1, 0.7)
    halves = [{q: run[q] for q in run if int(q[1:]) % 2 == part} for part in (0, 1) for run in (one, other, QRELS)]
    found = choose_weight([tuple(halves[:3]), tuple(halves[3:])])
    assert found == pytest.approx(choose_weight([(one, other, QRELS)]))


def test_equally_good_weights():
    """Any weight ranks one document first; equal spreads are taken. A first stage of one score has no weight."""
    run, qrels = {"q": {"a": 3.0, "b": 1.0}, "r": {}}, {"q": {"a": 1}, "r": {"a": 1}}
    assert choose_weight([(run, {"q": {"a": 0.2, "b": 0.1}, "r": {}}, qrels)]) == (pytest.approx(20.0), 0.5)
    assert choose_weight([(run, {"q": {"a": 0.5, "b": 0.5}, "r": {}}, qrels)]) == (0.0, 0.5)
    equal = {"q": {"a": 3.0, "b": 3.0}, "r": {}}
    weight, precision = choose_weight([(equal, {"q": {"a": 0.2, "b": 0.1}, "r": {}}, qrels)])
    assert weight > 0 and precision == 0.5  # a reranker of one score leaves the first stage's order


def test_depth():
    first = {"q": {"a": 3, "b": 2, "c": 1, "d": 1}, "r": {"a": 1}}  # of equal scores the higher id comes first
    run = {"q": {"b": 9, "a": 8, "d": 10}, "r": {"a": 0}}
    assert covered_depth(run, first) == 3 and covered_depth(first, first) == 4 and covered_depth({"q": {}}, first) == 0
    assert [[*rerank_to_depth(run, first, depth)["q"]] for depth in (1, 2, 3)] == [
        ["a", "b", "d", "c"],
        ["b", "a", "d", "c"],
        ["d", "b", "a", "c"],
    ]
    assert rerank_to_depth(run, first, 3)["r"] == {"a": -1}


@pytest.mark.parametrize("seed", range(3))
def test_all_depths_are_between_both_runs(seed):
    first, run = noisy(seed, 0.5), noisy(seed + 10, 0.5)
    values = [evaluate_run(rerank_to_depth(run, first, depth), QRELS) for depth in (0, 1, len(DOCUMENTS))]
    assert values == [evaluate_run(first, QRELS)] * 2 + [evaluate_run(run, QRELS)]
