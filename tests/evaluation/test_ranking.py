"""Ranking a collection."""

import random
from dataclasses import replace

import pytest
import pytrec_eval
import torch
from transformers import BertConfig, BertForSequenceClassification

from modeling_clir.data.collections import Collection
from modeling_clir.data.runs import read_run, write_run
from modeling_clir.evaluation.ranking import MEASURES, evaluate_queries, evaluate_run, rank_collection
from modeling_clir.reranker import Reranker


DOCUMENTS = {f"d{i}": " ".join(f"d{j}" for j in range(i + 1)) for i in range(7)}
QUERIES = {"a": "q1 q2", "b": "q3", "unjudged": "q4"}
COLLECTION = Collection(
    "en-de", DOCUMENTS, QUERIES, {"a": {"d3": 1}, "b": {"d0": 1}}, {"a": list(DOCUMENTS), "b": ["d0", "d5"]}
)


@pytest.fixture
def ranker(tokenizer):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, num_labels=1, **sizes)
    return Reranker(BertForSequenceClassification(config), tokenizer, 12, 4, max_tokens_per_batch=40)


def test_scores_of_a_collection(ranker, capsys):
    run, counts = rank_collection(ranker, COLLECTION)
    assert counts == {"pairs": 9, "queries_cut": 0, "documents_cut": 0}
    assert {query: list(scores) for query, scores in run.items()} == COLLECTION.candidates
    for query, scores in run.items():
        for document, score in scores.items():
            inputs = ranker.encoder.tokenizer(QUERIES[query], DOCUMENTS[document], return_tensors="pt")
            with torch.no_grad():
                assert score == pytest.approx(ranker.model(**inputs).logits.item(), abs=1e-5)
    assert len({score for scores in run.values() for score in scores.values()}) == 9
    output = capsys.readouterr()
    assert output.out == "" and "en-de: 100%" in output.err and "9/9" in output.err


def test_queries_that_are_ranked(ranker):
    run, _ = rank_collection(ranker, COLLECTION, ["b"], progress=False)
    assert list(run) == ["b"]
    run, counts = rank_collection(ranker, COLLECTION, [], progress=False)
    assert run == {} and counts["pairs"] == 0


def test_a_judged_query_without_candidates_counts_0(ranker):
    collection = replace(COLLECTION, candidates={"a": ["d3"], "b": []})
    run, counts = rank_collection(ranker, collection, progress=False)
    assert list(run["a"]) == ["d3"] and run["b"] == {} and counts["pairs"] == 1
    measured = evaluate_queries(run, COLLECTION.qrels)
    assert measured["a"]["MAP"] == 1 and measured["b"] == dict.fromkeys(MEASURES, 0.0)
    assert evaluate_run(run, COLLECTION.qrels)["MAP"] == 0.5
    run, _ = rank_collection(ranker, collection, ["b"], progress=False)
    assert evaluate_run(run, {"b": {"d0": 1}}) == dict.fromkeys(MEASURES, 0.0)


def test_a_score_that_is_not_a_number(ranker):
    unknown = ranker.encoder.tokenizer.convert_tokens_to_ids("d6")
    ranker.model.get_input_embeddings().weight.data[unknown] = torch.nan
    with pytest.raises(ValueError, match=r"en-de: the score of document 'd0 d1 .* d6' for query 'q1 q2' is nan;"):
        rank_collection(ranker, COLLECTION, progress=False)


def test_written_run_has_the_measures_of_the_run(tmp_path):
    run = {"a": {"d1": 0.5, "d3": 0.5, "d2": -1.25e-7}, "b": {"d5": 1 / 3, "d0": 0.1}}
    write_run(run, tmp_path / "x.run", "tag")
    rows = [line.split() for line in (tmp_path / "x.run").read_text(encoding="utf-8").splitlines()]
    # Of equal scores the higher id comes first, as in trec_eval.
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("a", "d3", "1"),
        ("a", "d1", "2"),
        ("a", "d2", "3"),
        ("b", "d5", "1"),
        ("b", "d0", "2"),
    ]
    written = {}
    for query, _, document, _, score, _ in rows:
        written.setdefault(query, {})[document] = float(score)
    assert written == run
    measures = evaluate_run(run, COLLECTION.qrels)
    assert measures["MAP"] == measures["MRR"] == pytest.approx((1 + 1 / 2) / 2)
    assert evaluate_run({"a": run["a"]}, COLLECTION.qrels)["MAP"] == pytest.approx(1 / 2)  # a missing query counts
    assert read_run(tmp_path / "x.run") == run


def test_measures_are_those_of_trec_eval(tmp_path):
    """Covers graded judgements, unjudged documents, equal scores, and queries without relevant or ranked documents."""
    rng = random.Random(0)
    documents = [f"d{i}" for i in range(150)]
    qrels = {f"q{i}": {d: rng.choice([-1, 0, 0, 1, 2]) for d in rng.sample(documents, 60)} for i in range(20)}
    qrels["q3"] = dict.fromkeys(documents[:9], 0)
    run = {
        query: {d: float(rng.randrange(12)) for d in rng.sample(documents, 120)} for query in qrels if query != "q4"
    }
    write_run(run, tmp_path / "x.run", "tag")
    with open(tmp_path / "x.run", encoding="utf-8") as file:
        written = pytrec_eval.parse_run(file)
    names = {"MAP": "map", "nDCG@20": "ndcg_cut_20", "P@10": "P_10", "R@100": "recall_100", "MRR": "recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"map", "ndcg_cut.20", "P.10", "recall.100", "recip_rank"})
    expected = evaluator.evaluate(written)
    found = evaluate_queries(run, qrels)
    assert list(found) == list(qrels) and set(found["q4"].values()) == {0.0}
    for query, values in expected.items():
        for name, theirs in names.items():
            assert found[query][name] == pytest.approx(values[theirs], abs=1e-12), (query, name)
    assert found["q3"]["MAP"] == 0
    assert evaluate_run(run, qrels)["MAP"] == pytest.approx(sum(values["map"] for values in expected.values()) / 20)
    for query, scores in run.items():  # no judgement is at the edge
        first = sorted(scores, key=lambda document: (scores[document], document), reverse=True)[:20]
        assert found[query]["Judged@20"] == sum(document in qrels[query] for document in first) / 20


def test_a_run_of_other_queries():
    with pytest.raises(ValueError, match=r"the run \(query 'x', ...\) and the judgements .* have no query in common"):
        evaluate_run({"x": {"d1": 1.0}}, COLLECTION.qrels)


@pytest.mark.parametrize(
    ("line", "message"),
    [("a Q0 d1 2 1 t", "listed twice"), ("a Q0 d2 2 x t", "a finite number, got 'x'"), ("a d2", "6 col")],
)
def test_bad_run(line, message, tmp_path):
    (tmp_path / "x.run").write_text(f"a Q0 d1 1 2 t\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"x.run:2: .*{message}"):
        read_run(tmp_path / "x.run")
