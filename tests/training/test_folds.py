"""Folds of queries: training, development and test queries, and the joined results."""

import pytest
from accelerate import PartialState

from modeling_clir.data.collections import assign_folds
from modeling_clir.data.runs import read_run
from modeling_clir.evaluation.fusion import add_first_stage
from modeling_clir.training.folds import (
    Fold,
    FoldResult,
    measure_folds,
    plan_folds,
    read_result,
    with_finished,
    write_result,
)

from .helpers import collection


def test_each_query_is_tested_once_and_never_trained_on_there():
    collections = [collection("en-de", 12), collection("de-en", 7)]
    assign_folds(collections, seed=3)
    folds = plan_folds(collections)
    assert [fold.name for fold in folds] == [f"fold-{k}" for k in range(5)]
    for one in collections:
        assert sorted(q for fold in folds for q in fold.test[one.name]) == sorted(one.qrels)
        assert sorted(q for fold in folds for q in fold.development[one.name]) == sorted(one.qrels)
    for fold, following in zip(folds, folds[1:] + folds[:1]):
        assert fold.development == following.test
        tested = {q for queries in fold.test.values() for q in queries}
        assert not tested & {q for queries in fold.train.values() for q in queries}
        for one in collections:
            parts = (fold.train, fold.development, fold.test)
            assert sorted(q for part in parts for q in part[one.name]) == sorted(one.qrels)
    alone = collection("en-de", 12)  # the folds of one collection are those of `split`
    assert [alone.split(k, 3)[2] for k in range(5)] == [fold.test["en-de"] for fold in folds]
    assert [fold.name for fold in plan_folds(collections, fold=4)] == ["fold-4"]


def test_transfer(caplog):
    source, target = collection("en-de", 10), collection("en-es", 5)
    source.queries, source.qrels, source.candidates = (
        {f"s{query}": value for query, value in part.items()}
        for part in (source.queries, source.qrels, source.candidates)
    )
    assign_folds([source], 0)
    assign_folds([target], 0)
    (fold,) = plan_folds([target], [source])
    assert fold.name == "transfer" and fold.test == {"en-es": list(target.qrels)}
    assert sorted(fold.train["en-de"] + fold.development["en-de"]) == sorted(source.qrels)
    assert len(fold.development["en-de"]) == 2 and not caplog.text
    (fold,) = plan_folds([target], [source], fold=2)
    assert fold.train == {"en-de": source.split(2)[0]} and fold.test == {"en-es": target.folds[2]}
    same = collection("de-en", 10)
    assign_folds([same], 0)
    plan_folds([target], [same])
    assert "test queries of en-es have the id of a training query, as 'q" in caplog.text


def test_bad_folds():
    five, three = collection("en-de", 10), collection("de-en", 9, [["q0", "q1"], ["q2"], ["q3"]])
    assign_folds([five], 0)
    with pytest.raises(ValueError, match="the same number of folds, got en-de 5, de-en 3"):
        plan_folds([five, three])
    with pytest.raises(ValueError, match="en-de has the folds 0 to 4, got 5"):
        plan_folds([five], fold=5)
    three.qrels["q2"] = {"d2": 0}
    with pytest.raises(ValueError, match="fold-0 of de-en: none of the 1 development queries has a relevant document"):
        plan_folds([three])
    with pytest.raises(ValueError, match="fold-1 of de-en: none of the 2 training queries"):
        three.qrels.update({"q0": {"d0": 0}, "q1": {"d0": 0}, "q2": {"d2": 1}})
        plan_folds([three], fold=1)
    two = collection("de-en", 4, [["q0", "q1"], ["q2", "q3"]])
    with pytest.raises(ValueError, match="fold-0 of de-en: none of the 0 training queries has a relevant document"):
        plan_folds([two])


def test_results_of_folds(tmp_path):
    one = collection("en-de", 4)
    folds = [Fold("fold-0", {}, {}, {"en-de": ["q3"]}), Fold("fold-1", {}, {}, {"en-de": ["q0", "q2", "q1"]})]
    scores = {"q0": [2.0, 1.0], "q1": [1.0, 2.0], "q2": [0.1, 1 / 3], "q3": [1.0, 0.0]}
    results = []
    for fold, development in zip(folds, [[0.5, 0.75], [0.3]]):
        run = {q: dict(zip(one.qrels[q], scores[q])) for q in fold.test["en-de"]}
        written = FoldResult({"en-de": run}, {"en-de": {"pairs": 2 * len(run)}}, development)
        assert read_result(tmp_path / fold.name, [one]) is None
        (tmp_path / fold.name / "checkpoint-7").mkdir(parents=True)
        write_result(written, tmp_path / fold.name)
        assert not (tmp_path / fold.name / "checkpoint-7").exists()
        results.append(read_result(tmp_path / fold.name, [one]))
        assert results[-1] == written
    run, measured, metrics = measure_folds(one, folds, results)
    assert list(run) == list(measured) == ["q0", "q1", "q2", "q3"]
    assert metrics["MAP"] == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)
    assert metrics["queries"] == 4 and metrics["pairs"] == 8
    first, second = metrics["folds"].values()
    assert first["MAP"] == 1 and second["MAP"] == pytest.approx(2 / 3)
    assert (first["best_epoch"], second["best_epoch"]) == (2, 1)
    assert metrics["MAP"] == pytest.approx((1 * first["MAP"] + 3 * second["MAP"]) / 4)


def test_one_process_removes_the_checkpoints_that_are_left(tmp_path, monkeypatch):
    one = collection("en-de", 4)
    write_result(FoldResult({"en-de": {"q0": {"d0": 1.0}}}, {"en-de": {"pairs": 1}}, [0.5]), tmp_path)
    (tmp_path / "checkpoint-7").mkdir()
    for main in (False, True):
        monkeypatch.setattr(PartialState, "is_main_process", main)
        assert read_result(tmp_path, [one]) is not None
        assert (tmp_path / "checkpoint-7").is_dir() is not main


def test_results_with_a_first_stage(tmp_path):
    one = collection("en-de", 4)
    one.first_stage = {query: {"d0": 3.0, f"d{i}": 2.0 + (i == 2)} for i, query in enumerate(one.qrels)}
    folds = [Fold("fold-0", {}, {}, {"en-de": ["q3"]}), Fold("fold-1", {}, {}, {"en-de": ["q0", "q2", "q1"]})]
    results = []
    for fold, weight in zip(folds, (0.5, 2.0)):
        alone = {q: {d: float(d == "d0") for d in one.first_stage[q]} for q in fold.test["en-de"]}
        both = {"en-de": add_first_stage(alone, one.first_stage, weight)}
        written = FoldResult(both, {"en-de": {"pairs": 2}}, [0.5], weight, {"en-de": alone})
        (tmp_path / fold.name).mkdir()
        write_result(written, tmp_path / fold.name)
        assert read_run(tmp_path / fold.name / "en-de.reranker.run") == alone
        results.append(read_result(tmp_path / fold.name, [one]))
        assert results[-1] == written
    run, _, metrics = measure_folds(one, folds, results)
    assert run["q3"] == {"d0": 1 + 0.5 * 3, "d3": 0.5 * 2} and run["q1"] == {"d0": 1 + 2 * 3, "d1": 2 * 2}
    assert metrics["first_stage_weight"] == {"fold-0": 0.5, "fold-1": 2.0}
    assert metrics["MAP"] == metrics["reranker"]["MAP"] == pytest.approx((1 + 3 * 0.5) / 4)
    assert metrics["first_stage"]["MAP"] == pytest.approx((2 + 2 * 0.5) / 4)  # of equal scores the higher id is first


def test_one_fold_does_not_replace_the_others(tmp_path, caplog):
    one = collection("en-de", 10)
    assign_folds([one], 0)
    found = {}
    for k in (3, 0):
        run = {query: {"d1": float(k)} for query in one.folds[k]}
        found[k] = FoldResult({"en-de": run}, {"en-de": {"pairs": k}}, [0.5])
    write_result(found[3], tmp_path / "fold-3")
    folds, results = with_finished(plan_folds([one], fold=0), [found[0]], [one], tmp_path)
    assert [fold.name for fold in folds] == ["fold-0", "fold-3"] and results == [found[0], found[3]]
    assert "has the results of fold-0, fold-3; missing: fold-1, fold-2, fold-4" in caplog.text
    run, _, metrics = measure_folds(one, folds, results)
    assert set(run) == {*one.folds[0], *one.folds[3]} and set(metrics["folds"]) == {"fold-0", "fold-3"}
    transfer = plan_folds([one], [collection("de-en", 10, one.folds)])
    assert with_finished(transfer, [found[0]], [one], tmp_path) == (transfer, [found[0]])
