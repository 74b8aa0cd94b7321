"""Training with sentence-transformers, and its evaluator, on a collection."""

import json
import os
import subprocess
import sys

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

from modeling_clir import BertLongForSequenceClassification, Reranker
from modeling_clir.convert import main as convert
from modeling_clir.data.collections import read_collection
from modeling_clir.data.first_stage import load_dense
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection
from modeling_clir.training.cross_encoder import mine_lists, reranking_samples
from tests.conftest import run
from tests.helpers import clir_command, run_here


PROGRAM = "scripts/train_cross_encoder.py"
WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_clir"] = None
import json
from transformers import AutoModel, pipeline
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules")
rank = pipeline("text-ranking", model=sys.argv[1], trust_remote_code=True, device="cpu")
print(json.dumps(rank("Turm", ["A tower.", "A harbour."])))
"""


@pytest.fixture(scope="module")
def bertlong(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross_encoder") / "bertlong"
    assert convert([str(tiny_bert), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def collection(sample_collection):
    return read_collection(sample_collection / "en-de")


def test_evaluator_measures_what_we_measure(bertlong, collection):
    reranker = Reranker.from_pretrained(bertlong)
    model = CrossEncoder(str(bertlong), device="cpu", activation_fn=torch.nn.Identity())
    queries = list(collection.qrels)[:10]
    samples = reranking_samples(collection, queries)
    evaluator = CrossEncoderRerankingEvaluator(samples, always_rerank_positives=False, write_csv=False)
    found, _ = rank_collection(reranker, collection, queries, progress=False)
    expected = evaluate_run(found, {query: collection.qrels[query] for query in queries})
    assert evaluator(model)["map"] == pytest.approx(expected["MAP"], abs=1e-6)
    assert 0.02 < expected["MAP"] < 0.9


def test_mined_negatives_are_the_nearest_documents_that_are_not_relevant(tiny_bert, collection, caplog):
    caplog.set_level("INFO", "modeling_clir")
    dense, queries = load_dense(str(tiny_bert)), list(collection.qrels)[:8]
    lists = mine_lists(collection, queries, dense, num_negatives=2, margin=1.0)
    texts = list(collection.documents.values())
    vectors = dense.encode(texts, normalize_embeddings=True, convert_to_tensor=True)
    kept = 0
    for query in queries:
        (relevant,) = (collection.documents[d] for d, grade in collection.qrels[query].items() if grade)
        cosines = vectors @ dense.encode(collection.queries[query], normalize_embeddings=True, convert_to_tensor=True)
        below = [i for i in cosines.argsort(descending=True).tolist() if cosines[i] < cosines[texts.index(relevant)]]
        if below:
            assert lists[kept]["query"] == collection.queries[query]
            assert lists[kept]["documents"] == [relevant, *(texts[i] for i in below[:2])]
            assert lists[kept]["labels"] == [1] + [0] * len(below[:2])
            kept += 1
    assert len(lists) == kept > 3
    assert f"{kept} of 8 relevant documents have a negative" in caplog.text
    with pytest.raises(ValueError, match="raise --negatives_margin"):
        mine_lists(collection, queries, dense, margin=0.0)


def test_candidates_without_a_relevant_document_are_counted(collection, caplog):
    query, other = list(collection.qrels)[:2]
    (relevant,) = collection.qrels[query]
    collection.candidates[query] = [d for d in collection.documents if d != relevant]  # of this query alone
    samples = reranking_samples(collection, [query, other])
    assert len(samples[0]["documents"]) == len(collection.documents) - 1
    assert "candidates of 1 of 2 queries lack a relevant document" in caplog.text
    collection.candidates[query] = list(collection.documents)


@pytest.mark.slow
def test_training_runs_to_its_end_and_saves_a_checkpoint_of_ours(
    bertlong, tiny_bert, sample_collection, tmp_path, monkeypatch, capsys
):
    output, source = tmp_path / "trained", sample_collection / "en-de"
    options = ("--negatives_from", tiny_bert, "--negatives_margin", 1, "--num_train_epochs", 2)
    options += ("--learning_rate", 1e-2, "--batch_size", 3, "--max_length", 500)
    run_here(monkeypatch, PROGRAM, bertlong, source, output, *options)
    printed = capsys.readouterr().out.splitlines()[-1].split()
    assert printed[:2] == ["en-de:", "MAP"] and printed[2] != printed[4]
    assert not list(tmp_path.glob(".*")) and not (output / "checkpoints").exists()

    # Reranker, CrossEncoder and run_clir.py open it; the MAP is the one that was printed
    reranker = Reranker.from_pretrained(output)
    assert type(reranker.model) is BertLongForSequenceClassification and reranker.encoder.max_length == 500
    pairs = [("tower", "Der Turm steht am Meer."), ("bridge", "Die Schule wurde im Winter geschlossen.")]
    scores = torch.tensor(reranker.score(pairs, progress=False))
    found = CrossEncoder(str(output), device="cpu").predict(pairs, convert_to_tensor=True)
    torch.testing.assert_close(found, scores.float(), atol=1e-5, rtol=0)  # it was saved without a sigmoid
    before = torch.tensor(Reranker.from_pretrained(bertlong).score(pairs, progress=False))
    assert (scores - before).abs().max() > 1e-3
    lengths = ("--max_length", "500", "--max_query_length", "128")
    run(*clir_command(output, [source], tmp_path / "ranked", "--fold", "0", *lengths))
    measured = json.loads((tmp_path / "ranked/metrics.json").read_text(encoding="utf-8"))["en-de"]
    assert f"{measured['MAP']:.4f}" == printed[4]

    # The code comes with it
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(output)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    hits = sorted(json.loads(done.stdout), key=lambda hit: hit["corpus_id"])
    expected = reranker.score([("Turm", "A tower."), ("Turm", "A harbour.")], progress=False)
    assert [hit["score"] for hit in hits] == pytest.approx(expected, abs=1e-5)
    assert "trust_remote_code=True" in (output / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--num_negatives", 0), "--num_negatives must be at least 1, got 0"),
        (("--negatives_from", "nowhere/at/all"), "nowhere/at/all"),
        (("--fold", 7), "en-de has the folds 0 to 4, got 7"),
        (("--output",), "--output"),
    ],
)
def test_mistakes(options, message, bertlong, tiny_bert, sample_collection, tmp_path, mistake):
    command = (bertlong, sample_collection / "en-de", tmp_path / "o", "--negatives_from", tiny_bert, *options)
    assert message in mistake(PROGRAM, *command)
    assert not list(tmp_path.iterdir())
