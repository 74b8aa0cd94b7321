"""Ranking a collection."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from modeling_clir.data.collections import Collection
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection, write_run


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
    return BertForSequenceClassification(config).eval(), PairEncoder(tokenizer, 12, 4)


def test_batches_do_not_change_scores(ranker):
    model, encoder = ranker
    run, counts = rank_collection(model, encoder, COLLECTION, batch_size=4, progress=False)
    assert counts == {"pairs": 9, "queries_cut": 0, "documents_cut": 0}
    assert {query: set(scores) for query, scores in run.items()} == {"a": set(DOCUMENTS), "b": {"d0", "d5"}}
    for query, scores in run.items():
        for document, score in scores.items():
            inputs = encoder.tokenizer(QUERIES[query], DOCUMENTS[document], return_tensors="pt")
            with torch.no_grad():
                assert score == pytest.approx(model(**inputs).logits.item(), abs=1e-5)
    assert len({score for scores in run.values() for score in scores.values()}) == 9


def test_queries_that_are_ranked(ranker):
    run, _ = rank_collection(*ranker, COLLECTION, ["b"], progress=False)
    assert list(run) == ["b"]
    run, counts = rank_collection(*ranker, COLLECTION, [], progress=False)
    assert run == {} and counts["pairs"] == 0


def test_a_score_that_is_not_a_number(ranker):
    model, encoder = ranker
    model.get_input_embeddings().weight.data[encoder.tokenizer.convert_tokens_to_ids("d6")] = torch.nan
    with pytest.raises(ValueError, match="en-de: the score of document 'd6' for query 'a' is not a number"):
        rank_collection(model, encoder, COLLECTION, progress=False)


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
