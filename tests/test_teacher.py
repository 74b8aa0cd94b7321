"""Teachers: rerankers and dense models that score pairs, and trainings on their scores from the command line."""

import shutil

import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

import run_clir
import run_pretraining
from modeling_clir.data.collections import read_collection
from modeling_clir.data.corpus import read_documents, write_corpus
from modeling_clir.data.runs import read_run
from modeling_clir.data.sections import ExampleKey, PretrainingDataset
from modeling_clir.teacher import Teacher

from .conftest import REPOSITORY
from .helpers import QUIET, SHORT, clir_command, run_here


PAIRS = [(query, f"{word} stone") for query in ("who built it", "what is it") for word in ("a tower", "a reef", "who")]


@pytest.fixture(scope="module")
def dense(tiny_bert, tmp_path_factory):
    """Saves the encoder of the tiny BERT alone."""
    folder = tmp_path_factory.mktemp("dense") / "bert"
    BertModel.from_pretrained(tiny_bert).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_bert / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def reranker(tiny_bert, tmp_path_factory):
    """Saves a reranker with room for a document beside the longest query."""
    folder = tmp_path_factory.mktemp("reranker") / "bert"
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig.from_pretrained(tiny_bert, max_position_embeddings=256)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(tiny_bert, model_max_length=256).save_pretrained(folder)
    return folder


def test_a_reranker_as_teacher(reranker):
    teacher = Teacher(str(reranker), ("query: ", "passage: "))  # a reranker gets no prompts
    expected = CrossEncoder(str(reranker), activation_fn=torch.nn.Identity()).predict(PAIRS)
    assert teacher.dense is None and teacher.score(PAIRS) == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("saved", ["plain", "modules", "subfolder"])
def test_a_dense_model_as_teacher(saved, dense, tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_clir.teacher.PAIRS_AT_ONCE", 4)
    peer, name = SentenceTransformer(str(dense)), str(dense)
    if saved != "plain":
        name = str(tmp_path / "saved")
        peer.save_pretrained(name)
    if saved == "subfolder":  # as older versions save
        (tmp_path / "saved/0_Transformer").mkdir()
        for path in list((tmp_path / "saved").iterdir()):
            if path.is_file() and ("token" in path.name or path.name in ("config.json", "model.safetensors")):
                path.rename(tmp_path / "saved/0_Transformer" / path.name)
        modules = tmp_path / "saved/modules.json"
        modules.write_text(
            modules.read_text(encoding="utf-8").replace('"path": ""', '"path": "0_Transformer"'), "utf-8"
        )
    teacher = Teacher(name, ("query: ", "passage: "))
    queries, documents = (peer.encode([prompt + pair[i] for pair in PAIRS], normalize_embeddings=True)
                          for i, prompt in enumerate(("query: ", "passage: ")))  # fmt: skip
    expected = 20 * (queries * documents).sum(1)
    assert teacher.reranker is None and teacher.score(PAIRS) == pytest.approx(expected.tolist(), abs=1e-4)
    monkeypatch.setattr(teacher.dense, "encode", None)  # each text is encoded once
    assert teacher.score(PAIRS[::-1]) == pytest.approx(expected.tolist()[::-1], abs=1e-4)
    assert teacher.score([]) == []


@pytest.fixture(scope="module")
def taught_collection(sample_collection, dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "en-de"
    shutil.copytree(sample_collection / "en-de", folder)
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch, "scripts/first_stage.py", folder, "--model", dense, "--k", "12")
        run_here(patch, "scripts/first_stage.py", folder, "--teacher_model", dense, "--prompts", "q: ", "p: ")
    return folder


def test_scores_of_a_collection(taught_collection, dense, mistake):
    one = read_collection(taught_collection)
    listed = {query: {*one.candidates[query], *judged} for query, judged in one.qrels.items()}
    assert {query: set(scores) for query, scores in one.teacher.items()} == listed
    assert any(len(documents) > 12 for documents in listed.values())  # judged ones that are no candidates
    pairs = [(query, document) for query, documents in listed.items() for document in documents]
    expected = Teacher(str(dense), ("q: ", "p: ")).score([(one.queries[q], one.documents[d]) for q, d in pairs])
    assert [one.teacher[q][d] for q, d in pairs] == pytest.approx(expected, abs=1e-4)
    command = ("scripts/first_stage.py", taught_collection, "--teacher_model", dense)
    assert "teacher.run exists; remove it or name another file" in mistake(*command)
    assert "takes neither --model nor --queries" in mistake(*command, "--model", dense)
    assert "there is no /nowhere" in mistake(*command[:3], "/nowhere")


@pytest.mark.parametrize("loss", ["margin_mse", "kl", "listwise"])
def test_finetuning_on_scores(loss, call, mistake, taught_collection, sample_collection, tiny_bert, tmp_path):
    flags = ("--do_train", "--fold", "0", "--num_train_epochs", "1", "--num_negatives", "1", "--rr_loss", loss)
    command = clir_command(tiny_bert, [taught_collection], tmp_path / "out", *flags, "--learning_rate", "1e-3")
    call(run_clir, command)
    assert read_run(tmp_path / "out/en-de.run")
    if loss == "listwise":
        return
    command = clir_command(tiny_bert, [sample_collection / "de-en"], tmp_path / "none", *flags)
    assert f"{sample_collection}/de-en has no teacher.run" in mistake(*command)
    assert not (tmp_path / "none").exists()
    command = clir_command(tiny_bert, [sample_collection / "de-en"], tmp_path / "transfer", *flags)
    call(run_clir, [*command, "--train_collections", str(taught_collection)])  # the tested collection needs none


@pytest.fixture(scope="module")
def taught_corpus(reranker, dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "corpus"
    with pytest.MonkeyPatch.context() as patch:
        options = ("--negatives_from", dense, "--negatives_margin", "1", "--teacher_model", reranker)
        options += ("--languages", "en,de", "--num_negatives", "2", "--documents", REPOSITORY / "sample/train")
        run_here(patch, "scripts/build_corpus.py", folder, *options, "--same_language")
    return folder


def test_scores_of_a_corpus(taught_corpus, reranker):
    """The teacher scores the very texts that the trained model reads."""
    pairs = ["en-de", "de-de"]
    dataset = PretrainingDataset(str(taught_corpus), {"rr": pairs}, num_negatives=2, teacher_scores=True)
    examples = [dataset[ExampleKey("rr", pair, i, 0, side)] for pair in pairs for i in range(6) for side in (0, 1)]
    pairs = [(example.query, document) for example in examples for document in example.documents]
    expected = Teacher(str(reranker)).score(pairs)
    assert [score for example in examples for score in example.teacher_scores] == pytest.approx(expected, abs=1e-4)
    assert len({example.pair for example in examples}) == 3


@pytest.mark.parametrize("loss", ["margin_mse", "kl"])
def test_pretraining_on_scores(loss, call, mistake, taught_corpus, sample_corpus, tiny_bert, tmp_path):
    flags = (*QUIET, *SHORT, "--do_train", "--do_eval", "--rr_pairs", "en-de", "--max_steps", "2", "--rr_loss", loss,
             "--max_tokens_per_batch", "800", "--num_eval_negatives", "1", "--num_negatives", "2",
             "--keep_bert", "true")  # fmt: skip
    where = ("--model_name_or_path", tiny_bert, "--output_dir", tmp_path / "out")
    call(run_pretraining, ["run_pretraining.py", *map(str, (*where, "--corpus", taught_corpus, *flags))])
    assert (tmp_path / "out/model.safetensors").is_file() and (tmp_path / "out/eval_results.json").is_file()
    where = ("--model_name_or_path", tiny_bert, "--output_dir", tmp_path / "none")
    message = mistake("run_pretraining.py", *where, "--corpus", sample_corpus, *flags)
    assert "en-de/train.parquet has no teacher's scores" in message and not (tmp_path / "none").exists()


def test_a_corpus_whose_sections_have_no_negatives(reranker, tmp_path):
    sections = read_documents(REPOSITORY / "sample/train", ["en", "de"])[:1]
    write_corpus(tmp_path / "c", sections, ["en", "de"], 0.0, 2, teacher_model=str(reranker))
    (row,) = pq.read_table(tmp_path / "c/pairs/en-de/train.parquet").to_pylist()
    assert row["source_negatives"] == [] and {len(scores) for scores in row["target_scores"]} == {1}
