"""Ranking a collection."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from modeling_clir.data.collections import Collection
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection, write_run
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


def test_a_score_that_is_not_a_number(ranker):
    unknown = ranker.encoder.tokenizer.convert_tokens_to_ids("d6")
    ranker.model.get_input_embeddings().weight.data[unknown] = torch.nan
    with pytest.raises(
        ValueError, match=r"en-de: the score of document 'd0 d1 .* d6' for query 'q1 q2' is not a number"
    ):
        rank_collection(ranker, COLLECTION, progress=False)


def test_written_run_has_the_measures_of_the_run(tmp_path):
    run = {"a": {"d1": 0.5, "d3": 0.5, "d2": -1.25e-7}, "b": {"d5": 1 / 3, "d0": 0.1}}
    write_run(run, tmp_path / "x.run", "tag")
    rows = [line.split() for line in (tmp_path / "x.run").read_text(encoding="utf-8").splitlines()]
    # Of equal scores the higher id comes first, as trec_eval has it.
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
