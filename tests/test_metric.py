"""The modules for `evaluate`."""

import random

import evaluate
import pytest

from modeling_clir.evaluation.answer_measures import evaluate_answers, mean_answers
from modeling_clir.evaluation.ranking import evaluate_run

from .conftest import REPOSITORY
from .evaluation.test_answer_measures import ANSWERS, ANSWERS_V2, OFFICIAL, OFFICIAL_V2, equal


@pytest.fixture
def load(tmp_path, tmp_path_factory, monkeypatch):
    # One folder for all tests: modules are imported from the first one.
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path_factory.getbasetemp() / "modules")
    return lambda name: evaluate.load(str(REPOSITORY / "metrics" / name), cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def metric(load):
    return load("clir")


@pytest.fixture
def answers_metric(load):
    return load("clqa")


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


def layout_of_squad(rows):
    """Predictions, and references in another order."""
    predictions = [{"id": f"q{i}", "prediction_text": row[0]} for i, row in enumerate(rows)]
    references = [
        {"id": f"q{i}", "answers": {"text": golds, "answer_start": [0] * len(golds)}}
        for i, (_, golds, *_) in enumerate(rows)
    ]
    return predictions, references[::-1]


@pytest.mark.parametrize("language", ANSWERS)
def test_answers_metric_by_the_rules_of_mlqa_and_squad(answers_metric, language):
    predictions, references = layout_of_squad(ANSWERS[language])
    for code, (f1, em) in zip((language, None), OFFICIAL[language]):
        expected = {"F1": pytest.approx(f1), "EM": equal(em), "questions": 5}
        assert answers_metric.compute(predictions=predictions, references=references, language=code) == expected
    for prediction, reference in zip(predictions, references):
        answers_metric.add(prediction=prediction, reference=reference)
    assert answers_metric.compute() == expected


def test_answers_metric_with_unanswerable_questions(answers_metric):
    predictions, references = layout_of_squad(ANSWERS_V2)
    plain = answers_metric.compute(predictions=predictions, references=references)
    assert plain == pytest.approx({name: value for name, value in OFFICIAL_V2.items() if "best" not in name})
    for prediction, (_, _, probability) in zip(predictions, ANSWERS_V2):
        prediction["no_answer_probability"] = probability
    assert answers_metric.compute(predictions=predictions, references=references) == pytest.approx(OFFICIAL_V2)
    found = answers_metric.compute(predictions=predictions, references=references, no_answer_threshold=0.5)
    texts = {str(i): "" if probability > 0.5 else text for i, (text, _, probability) in enumerate(ANSWERS_V2)}
    measured = evaluate_answers(texts, {str(i): golds for i, (_, golds, _) in enumerate(ANSWERS_V2)})
    best = {name: value for name, value in OFFICIAL_V2.items() if "best" in name}
    assert found == pytest.approx(mean_answers(measured) | best)


def test_answers_metric_refuses(answers_metric):
    predictions, references = layout_of_squad(ANSWERS["en"])
    with pytest.raises(ValueError, match="'fr'"):
        answers_metric.compute(predictions=predictions, references=references, language="fr")
    with pytest.raises(ValueError, match="references have the id 'q1' twice"):
        answers_metric.compute(predictions=predictions[:2], references=[references[-2]] * 2)
    with pytest.raises(ValueError, match="question 'q2' has no prediction"):
        answers_metric.compute(predictions=predictions[:1], references=references[2:3])
    with pytest.raises(ValueError, match="Mismatch in the number of predictions"):
        answers_metric.compute(predictions=predictions, references=references[1:])
    predictions[0]["no_answer_probability"] = 0.5
    with pytest.raises(ValueError, match="some predictions have a no_answer_probability and some have none"):
        answers_metric.compute(predictions=predictions, references=references)
