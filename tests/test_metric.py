"""The module for `evaluate`."""

import random

import evaluate
import pytest

from modeling_clir.evaluation.ranking import evaluate_run

from .conftest import REPOSITORY


@pytest.fixture
def metric(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    return evaluate.load(str(REPOSITORY / "metrics/clir"), cache_dir=str(tmp_path / "cache"))


def test_metric_has_the_measures_of_evaluate_run(metric):
    rng = random.Random(0)
    documents = [f"d{i}" for i in range(150)]
    qrels = {f"q{i}": {d: rng.choice((-1, 0, 0, 1, 2)) for d in rng.sample(documents, 20)} for i in range(12)}
    run = {q: {d: rng.choice((0.5, rng.random())) for d in rng.sample(documents, 120)} for q in [*qrels, "unjudged"]}
    expected = evaluate_run(run, qrels)
    assert 0 < expected["MAP"] < expected["MRR"] < 1
    assert metric.compute(predictions=run, references=qrels) == pytest.approx(expected)
    lists = {"predictions": [run[query] for query in qrels], "references": list(qrels.values())}
    assert metric.compute(**lists) == pytest.approx(expected)
    for query in qrels:
        metric.add(prediction=run[query], reference=qrels[query])
    assert metric.compute() == pytest.approx(expected)
    del run["q3"]
    qrels["q4"] = dict.fromkeys(qrels["q4"], 0)
    expected = evaluate_run(run, qrels)
    assert metric.compute(predictions=run, references=qrels) == pytest.approx(expected)


def test_metric_refuses(metric):
    with pytest.raises(ValueError, match="both be dicts by query id, or both lists"):
        metric.compute(predictions={"q": {"d": 1.0}}, references=[{"d": 1}])
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        metric.compute(predictions=[{"d": 1.0}] * 2, references=[{"d": 1}])
    with pytest.raises(ValueError, match="no judgements"):
        metric.compute(predictions={"q": {"d": 1.0}}, references={})
