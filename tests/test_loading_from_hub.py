"""Where a model is read from: every option reaches configuration, weights and tokenizer, without a server too."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

import run_alignment
import run_clir
import run_mlqa
import run_pretraining
from modeling_clir.data.questions import Question
from modeling_clir.reader import Reader
from modeling_clir.reranker import Reranker

from .conftest import REPOSITORY
from .helpers import QUIET, SHORT, clir_command, squad, write
from .hub_server import Repository


NAME, DOCUMENTS = "someone/models", ["Marie Curie entdeckte Radium.", "Berlin", "Radium"]
QUESTIONS = [Question("a", "wer?", "Marie Curie entdeckte Radium in Paris.", [])]


def add_folder(repository: Repository, folder, branch: str, prefix: str = ""):
    files = {f"{prefix}{path.name}": (path.read_bytes(), path.suffix == ".safetensors") for path in folder.iterdir()}
    repository.commit(files, branch)


@pytest.fixture(scope="module")
def reader_folder(tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader") / "bert"
    torch.manual_seed(1)
    AutoModelForQuestionAnswering.from_pretrained(tiny_bert, num_labels=2).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.fixture
def private(at_hub, monkeypatch):
    """
    A private repository whose main branch is no model: the models are in a folder of a branch. Its token is in no
    environment variable, the cache in no usual place.
    """
    monkeypatch.delenv("HF_TOKEN")
    repository = at_hub.repositories["model", NAME] = Repository(private=True)
    repository.commit({"config.json": (b"{}", False), "tokenizer.json": (b"no tokenizer", False)}, "main")
    return repository


def where(tmp_path) -> dict:
    return {"revision": "next", "subfolder": "inner", "token": "hf_ours", "cache_dir": str(tmp_path / "own_cache")}


@pytest.mark.parametrize("kind", ["reranker", "reader"])
def test_every_option_reaches_model_and_tokenizer(
    kind, tiny_bert, reader_folder, private, at_hub, tmp_path, monkeypatch
):
    folder = tiny_bert if kind == "reranker" else reader_folder
    add_folder(private, folder, "next", "inner/")

    def results(source, **options):
        if kind == "reranker":
            return Reranker.from_pretrained(source, max_query_length=30, **options).rank("Wer?", DOCUMENTS)
        lengths = {"doc_stride": 8, "max_question_length": 16}
        return Reader.from_pretrained(source, **lengths, **options).answer(QUESTIONS, progress=False)["a"]

    expected, options = results(folder), where(tmp_path)
    assert results(NAME, **options) == expected
    assert not list((tmp_path / "hub_cache").rglob("snapshots"))  # everything went to the other cache
    calls = len(at_hub.calls)
    assert results(NAME, **options, local_files_only=True) == expected
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    del options["token"]
    assert results(NAME, **options) == expected
    assert len(at_hub.calls) == calls  # no server was asked


@pytest.mark.parametrize("missing", ["revision", "subfolder", "token", "cache_dir"])
def test_without_one_of_them_nothing_is_found(missing, tiny_bert, private, tmp_path):
    add_folder(private, tiny_bert, "next", "inner/")
    options = where(tmp_path)
    del options[missing]
    if missing == "cache_dir":
        Reranker.from_pretrained(NAME, max_query_length=30, **options)
        options = where(tmp_path) | {"local_files_only": True}  # of an empty cache
    with pytest.raises((OSError, ValueError), match=NAME):
        Reranker.from_pretrained(NAME, max_query_length=30, **options)


def test_a_name_that_nobody_has(at_hub):
    with pytest.raises(ValueError, match="someone/nothing is neither a folder nor found on the Hub"):
        Reranker.from_pretrained("someone/nothing")
    with pytest.raises(ValueError, match=r"there is no tests/backbone; did you mean tests/backbones\.py"):
        Reranker.from_pretrained("tests/backbone")


def flags(tmp_path) -> list[str]:
    return [part for name, value in where(tmp_path).items() for part in (f"--{name}", value)]


def test_pretraining(tiny_bert, sample_corpus, private, call, tmp_path):
    add_folder(private, tiny_bert, "next", "inner/")
    command = ["run_pretraining.py", "--model_name_or_path", NAME, *flags(tmp_path), "--corpus", sample_corpus]
    command += [
        "--output_dir",
        tmp_path / "out",
        *QUIET,
        *SHORT,
        "--do_train",
        "--qlm_pairs",
        "en-de",
        "--max_steps",
        "1",
    ]
    call(run_pretraining, [str(part) for part in command])
    assert (tmp_path / "out/model.safetensors").is_file()
    settings = (tmp_path / "out/settings.json").read_text(encoding="utf-8")
    assert json.loads(settings)["revision"] == "next" and "hf_ours" not in settings
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert f"Started from {NAME}." in card and "subfolder: inner" in card and "hf_ours" not in card


def test_ranking(tiny_bert, sample_collection, private, call, tmp_path):
    add_folder(private, tiny_bert, "next", "inner/")
    collections = [sample_collection / "en-de"]
    for model, output, options in ((tiny_bert, "a", ()), (NAME, "b", flags(tmp_path))):
        call(run_clir, clir_command(model, collections, tmp_path / output, *options))
    assert (tmp_path / "a/en-de.run").read_bytes() == (tmp_path / "b/en-de.run").read_bytes()
    train = ("--do_train", "--num_train_epochs", "1", "--fold", "0")
    call(run_clir, clir_command(NAME, collections, tmp_path / "c", *train, *flags(tmp_path)))
    assert (tmp_path / "c/fold-0/model.safetensors").is_file()  # the trained checkpoints are read from the disk


def test_questions(reader_folder, private, call, tmp_path):
    add_folder(private, reader_folder, "next", "inner/")
    data = squad("en")
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["answers"] = [{"text": paragraph["context"], "answer_start": 0}]
    write(tmp_path / "sets/test.en.json", data)
    common = [
        "--test_data",
        str(tmp_path / "sets"),
        "--max_length",
        "64",
        "--doc_stride",
        "16",
        "--max_question_length",
        "16",
    ]
    for model, output, options in ((reader_folder, "a", ()), (NAME, "b", flags(tmp_path))):
        command = ["run_mlqa.py", "--model_name_or_path", model, *options, *common, "--output_dir", tmp_path / output]
        call(run_mlqa, [str(part) for part in (*command, *QUIET)])
    answers = "test/context-en.question-en.nbest.json"
    assert (tmp_path / "a" / answers).read_bytes() == (tmp_path / "b" / answers).read_bytes()


def test_alignment(tiny_bert, private, call, capsys, tmp_path):
    add_folder(private, tiny_bert, "next", "inner/")
    source = shutil.copy(REPOSITORY / "sample/test/en.jsonl", tmp_path / "en.jsonl")
    printed = []
    for model, output, options in ((tiny_bert, "a", ()), (NAME, "b", flags(tmp_path))):
        command = ["run_alignment.py", "--model_name_or_path", model, *options, "--source", source, "--target", source]
        call(run_alignment, [str(part) for part in (*command, "--output_dir", tmp_path / output, "--use_cpu")])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
