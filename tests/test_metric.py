"""The modules for `evaluate`."""

import math
import random

import evaluate
import numpy as np
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


@pytest.mark.parametrize("kind", [str, int, np.int64])
def test_ids_of_two_types_are_the_same(metric, kind):
    """Files, JSON and data frames give ids of different types."""
    run = {"1": {"7": 0.5, "8": np.float32(0.75)}, "2": {"7": 1}, "3": {"9": 2.0}}
    qrels = {kind(1): {kind(7): np.int32(1), kind(8): False}, kind(2): {kind(7): 2.0}, kind(4): {kind(7): 1}}
    expected = {"MAP": 0.5, "nDCG@20": (1 / np.log2(3) + 1) / 3, "P@10": 0.2 / 3, "R@100": 2 / 3, "MRR": 0.5}
    expected["Judged@20"] = 2 / 3
    assert metric.compute(predictions=run, references=qrels) == pytest.approx(expected)
    for name in metric.inputs_description.split("Returns:")[1].split("Examples")[0], metric.description:
        assert all(measure in name for measure in expected)
    lists = {"predictions": [run[q] for q in "12"] + [{}], "references": list(qrels.values())}
    assert metric.compute(**lists) == pytest.approx(expected)
    turned = {kind(q): {kind(d): score for d, score in scores.items()} for q, scores in run.items()}
    strings = {str(q): {str(d): int(r) for d, r in judged.items()} for q, judged in qrels.items()}
    assert metric.compute(predictions=turned, references=strings) == pytest.approx(expected)
    assert evaluate_run(turned, strings) == pytest.approx(expected)


SHAPE = r"expected a dict \{document id: "


@pytest.mark.parametrize(
    ("run", "qrels", "message"),
    [
        ({"x": {"d": 1.0}}, {"q": {"d": 1}},
         r"the run \(query 'x', ...\) and the judgements \(query 'q', .* in common"),
        ({}, {"q": {"d": 1}}, "no query in common"),
        ({"q": {"d": 1.0}}, {"q": {"d": 0.5}},
         "query 'q': the relevance of document 'd' must be a whole number, got 0.5"),
        ({"q": {"d": 1.0}}, {"q": {"d": 1.9}},
         "query 'q': the relevance of document 'd' must be a whole number, got 1.9"),
        ({"q": {"d": 1.0}}, {"q": {"d": None}}, "the relevance of document 'd' must be a whole number, got None"),
        ({"q": {"d": 1.0}}, {"q": {"d": "1"}}, "the relevance of document 'd' must be a whole number, got '1'"),
        ({"q": {"d": math.nan}}, {"q": {"d": 1}},
         "query 'q': the score of document 'd' must be a finite number, got nan"),
        ({"q": {"d": math.inf}}, {"q": {"d": 1}}, "the score of document 'd' must be a finite number, got inf"),
        ({"q": {"d": "0.5"}}, {"q": {"d": 1}}, "the score of document 'd' must be a finite number, got '0.5'"),
        ({"q": {"d": [1.0]}}, {"q": {"d": 1}}, r"the score of document 'd' must be a finite number, got \[1.0\]"),
        ({1.5: {"d": 1.0}}, {"q": {"d": 1}}, "the run: an id must be a string or a whole number, got 1.5"),
        ({"q": {None: 1.0}}, {"q": {"d": 1}},
         "the run, query 'q': an id must be a string or a whole number, got None"),
        ({"1": {"d": 1.0}, 1: {}}, {1: {"d": 1}}, "the run: the id '1' occurs as a string and as a number"),
        ({"q": ["d"]}, {"q": {"d": 1}}, f"the run, query 'q': {SHAPE}score.*, got list"),
        ({"q": {"d": 1.0}}, {"q": "d"}, f"the judgements, query 'q': {SHAPE}relevance.*, got str"),
        ([{"d": math.nan}], [{"d": 1}], "prediction 0: the score of document 'd' must be a finite number, got nan"),
        ([{"d": 1.0}], [{"d": 0.5}], "reference 0: the relevance of document 'd' must be a whole number, got 0.5"),
        ([{"d": 1.0}], [["d"]], f"reference 0: {SHAPE}relevance.*, got list"),
        ([("q", "d", 1.0)], [{"d": 1}], f"prediction 0: {SHAPE}score.*, got tuple"),
    ],
)  # fmt: skip
def test_metric_refuses_what_cannot_be_measured(run, qrels, message, metric):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=run, references=qrels)
    if isinstance(run, dict):
        with pytest.raises(ValueError, match=message):
            evaluate_run(run, qrels)
    good = {"q": {"d": 1}}
    assert metric.compute(predictions=good, references=good)["MAP"] == 1  # nothing of the refused inputs is left


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


@pytest.mark.parametrize("kind", [str, int, np.int64])
def test_answers_metric_reads_the_shapes_of_squad(answers_metric, kind):
    """It reads references of `evaluate`'s squad and SQuAD's files, whole files, predictions of SQuAD's script."""
    rows = [("the boat", ["boat", "ship"]), ("a red reef", ["reef"]), ("1866", [])]
    texts = [golds for _, golds in rows]
    as_dicts = [[{"text": text, "answer_start": 0} for text in golds] for golds in texts]
    hub = [
        {"id": kind(i), "answers": {"text": golds, "answer_start": [0] * len(golds)}} for i, golds in enumerate(texts)
    ]
    arrays = [{"id": kind(i), "answers": {"text": np.array(golds, dtype=object)}} for i, golds in enumerate(texts)]
    qas = [{"id": kind(i), "question": "?", "answers": golds} for i, golds in enumerate(as_dicts)]
    qas[2] |= {"is_impossible": True}
    paragraphs = [{"context": "", "qas": qas[:2]}, {"context": "", "qas": qas[2:]}]
    file = {"version": "v2.0", "data": [{"title": "x", "paragraphs": [p]} for p in paragraphs]}
    lists = [{"id": str(i), "prediction_text": text} for i, (text, _) in enumerate(rows)]
    dicts = {str(i): text for i, (text, _) in enumerate(rows)}
    part = {"HasAns_F1": 250 / 3, "HasAns_EM": 50.0, "HasAns_questions": 2}
    part |= {"NoAns_F1": 0.0, "NoAns_EM": 0.0, "NoAns_questions": 1}
    expected = {"F1": 500 / 9, "EM": 100 / 3, "questions": 3} | part
    for predictions in (lists, lists[::-1], dicts):
        for references in (hub, arrays, qas, file):
            found = answers_metric.compute(predictions=predictions, references=references)
            assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    "answers", ["boat", ["boat"], {"text": "boat"}, {"text": [1]}, {"answer": ["boat"]}, 7, None, [[]]]
)
def test_answers_metric_says_what_shape_it_expects(answers, answers_metric):
    good = {
        "predictions": [{"id": "q", "prediction_text": "boat"}],
        "references": [{"id": "q", "answers": [{"text": "boat"}]}],
    }
    for rows in ([{"id": "q", "answers": answers}], [{"id": "q"}], [{"answers": {"text": ["boat"]}}], ["boat"]):
        with pytest.raises(ValueError, match=r"a reference must be like \{\"id\": \"q1\", \"answers\": .*, got "):
            answers_metric.compute(**good | {"references": rows})
    for rows in ([{"id": "q", "prediction_text": answers} if answers != "boat" else {"id": "q"}], ["boat"]):
        with pytest.raises(
            ValueError, match=r"a prediction must be like \{\"id\": \"q1\", \"prediction_text\": .*, got "
        ):
            answers_metric.compute(**good | {"predictions": rows})
    with pytest.raises(ValueError, match=r"references must be a list of .*, or the content of a SQuAD file, got"):
        answers_metric.compute(**good | {"references": {"q": answers}})
    with pytest.raises(ValueError, match=r"an id must be a string or a whole number, got 1\.0"):
        answers_metric.compute(**good | {"predictions": [{"id": 1.0, "prediction_text": "boat"}]})
    half = [{"id": "q", "prediction_text": "a \ud83d"}]
    with pytest.raises(ValueError, match="prediction 'q': the text has a lone surrogate"):
        answers_metric.compute(**good | {"predictions": half})
    with pytest.raises(ValueError, match="reference 'q': the text has a lone surrogate"):
        answers_metric.compute(**good | {"references": [{"id": "q", "answers": {"text": ["\ud83d"]}}]})
    assert answers_metric.compute(**good)["F1"] == 100


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
