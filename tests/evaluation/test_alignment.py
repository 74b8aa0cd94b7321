"""Vectors of layers, P@1, and the runner that measures it."""

import csv
import json
import logging
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import TranslationEvaluator
from sentence_transformers.models import Pooling, Transformer
from sentence_transformers.util import semantic_search
from transformers import (
    AutoModel,
    AutoTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    XLMRobertaConfig,
    XLMRobertaModel,
)

import run_alignment
from modeling_clir.convert import bert_to_bertlong, load_bert
from modeling_clir.data.parallel import ParallelTexts
from modeling_clir.evaluation.alignment import encode_layers, measure_alignment, nearest_is_own
from modeling_clir.loading import load_pretrained, longest_input

from ..conftest import REPOSITORY
from ..helpers import write
from ..shared import shared_path


def sentences(language: str) -> list[str]:
    lines = (REPOSITORY / f"sample/test/{language}.jsonl").read_text(encoding="utf-8").splitlines()
    return [sentence for line in lines for sentence in json.loads(line)["sentences"]]


@pytest.fixture(scope="module")
def models(tiny_bert, tmp_path_factory):
    """Saves a BERT, a BertLong and an XLM-R with the same tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    bert_to_bertlong(load_bert(tiny_bert), 256, 16).save_pretrained(folder / "bertlong")
    torch.manual_seed(0)
    sizes = {"vocab_size": 800, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 66, "pad_token_id": 0}
    XLMRobertaModel(XLMRobertaConfig(**sizes, initializer_range=0.2)).save_pretrained(folder / "xlm-roberta")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    for name in ("bertlong", "xlm-roberta"):
        tokenizer.save_pretrained(folder / name)
    return {"bert": tiny_bert} | {name: folder / name for name in ("bertlong", "xlm-roberta")}


def load(folder):
    return load_pretrained(AutoModel, folder)


@pytest.mark.parametrize("name", ["bert", "bertlong", "xlm-roberta"])
def test_vectors_are_those_of_a_text_alone(name, models):
    model, tokenizer = load(models[name])
    limit = longest_input(model, tokenizer)
    assert limit == {"bert": 128, "bertlong": 128, "xlm-roberta": 65}[name]
    texts = [*sentences("en")[:12], " ".join(sentences("de")), *sentences("de")[:9], "[SEP]", sentences("en")[0]]
    encoded = encode_layers(model, tokenizer, texts, max_tokens_per_batch=200, progress=False)
    assert encoded.cut.tolist() == [i == 12 for i in range(len(texts))] and encoded.poolings == ("mean", "[CLS]")
    assert encoded.rows[-1] == encoded.rows[0] and encoded.vectors.shape[2] == len(texts) - 1
    for text, row in zip(texts, encoded.rows):
        ids = tokenizer(text, truncation=True, max_length=limit, split_special_tokens=True, return_tensors="pt")
        with torch.no_grad():
            states = model(input_ids=ids["input_ids"], output_hidden_states=True).hidden_states
        assert len(states) == encoded.vectors.shape[1]
        for layer, state in enumerate(states):
            expected = torch.stack([state[0].mean(0), state[0, 0]]).numpy()
            np.testing.assert_allclose(encoded.vectors[:, layer, row], expected, atol=2e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentence_transformers(pooling, models):
    """It gives the same vectors of the last layer, and the same accuracies of translation."""
    model, tokenizer = load(models["bert"])
    module = Transformer(str(models["bert"]))
    theirs = SentenceTransformer(modules=[module, Pooling(32, pooling)], device="cpu")
    source, target = sentences("en"), sentences("de")
    assert len(set(source)) == len(set(target)) == len(source) == 123
    encoded = encode_layers(model, tokenizer, source, progress=False)
    p = ["mean", "cls"].index(pooling)
    expected = theirs.encode(source, show_progress_bar=False)
    np.testing.assert_allclose(encoded.vectors[p, -1][encoded.rows], expected, atol=2e-5)

    metrics = TranslationEvaluator(source, target, write_csv=False)(theirs)
    accuracies = {name: value for name, value in metrics.items() if name.endswith("accuracy")}
    (alignment,) = measure_alignment(model, tokenizer, [ParallelTexts("en", "de", source, target)], progress=False)
    last = [one for one in alignment.results if one["pooling"] == ("mean", "[CLS]")[p]][-1]
    found = {"src2trg_accuracy": last["source_target"], "trg2src_accuracy": last["target_source"]}
    found["mean_accuracy"] = last["mean"]
    assert {name: value / 100 for name, value in found.items()} == pytest.approx(accuracies)
    assert 0 < last["mean"] < 100


@pytest.mark.parametrize("chunk", [4096, 64, 7])
def test_nearest(chunk):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(200, 16)).astype(np.float32)
    target = (source + rng.normal(size=source.shape)).astype(np.float32) * rng.uniform(0.1, 9, size=(200, 1))
    target[7] = -target[7]
    found = nearest_is_own(source, target.astype(np.float32), chunk=chunk)
    for own, one, other in zip(found, (source, target), (target, source)):
        hits = semantic_search(torch.tensor(one).float(), torch.tensor(other).float(), top_k=1)
        expected = [hit[0]["corpus_id"] == row for row, hit in enumerate(hits)]
        assert own.tolist() == expected and 0.3 < own.mean() < 0.95


@pytest.mark.parametrize("chunk", [4096, 2])
def test_ties_are_misses(chunk):
    source = np.eye(5, dtype=np.float32)
    target = np.eye(5, dtype=np.float32)
    target[3] = 7 * target[1]
    source_target, target_source = nearest_is_own(source, target, chunk=chunk)
    assert source_target.tolist() == [True, False, True, False, True]
    assert target_source.tolist() == [True, True, True, False, True]
    assert not np.any(nearest_is_own(*[np.full((5, 8), 0.1, dtype=np.float32)] * 2, chunk=chunk))


def test_nearly_parallel_vectors():
    """Many layers of real models have such vectors: nearly all cosines are equal in single precision."""
    rng = np.random.default_rng(0)
    base, own, noise = rng.normal(size=16), *rng.normal(size=(2, 50, 16))
    source = (base + 3e-4 * own).astype(np.float32)
    target = (base + 3e-4 * own + 3e-5 * noise).astype(np.float32)
    assert all(one.all() for one in nearest_is_own(source, target))
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (source, target)]
    assert len(np.unique(unit[0] @ unit[1].T)) < 20


def test_copies_and_cut_texts_are_counted(models, caplog):
    model, tokenizer = load(models["bert"])
    source, target = sentences("en")[:10], sentences("en")[:10]
    target[4] = target[2].upper()  # the same tokens
    source[9] = target[9] = " ".join(sentences("en"))
    pair = ParallelTexts("en", "en2", source, target)
    with caplog.at_level(logging.WARNING):
        (alignment,) = measure_alignment(model, tokenizer, [pair], progress=False)
    counts = {"texts": 10, "source_cut": 1, "source_copies": 0, "target_cut": 1, "target_copies": 2}
    assert alignment.counts == counts
    assert "en-en2: of 10 texts of each side, 1 (en) and 1 (en2) are longer" in caplog.text
    assert "of 10 texts of each side, 0 (en) and 2 (en2) have the same tokens" in caplog.text
    for one in alignment.results:
        cls_of_embeddings = one["pooling"] == "[CLS]" and one["layer"] == 0  # the same of every text
        expected = (0, 0) if cls_of_embeddings else (80, 90)
        assert (one["source_target"], one["target_source"]) == pytest.approx(expected), one
    assert alignment.best("[CLS]") == 1 and alignment.best("mean") == 0


def test_languages_of_several_pairs_do_not_mix(models):
    model, tokenizer = load(models["bertlong"])
    pairs = [ParallelTexts(*names, *map(sentences, names)) for names in (("en", "de"), ("fr", "en"), ("de", "es"))]
    together = measure_alignment(model, tokenizer, pairs, max_tokens_per_batch=300, progress=False)
    for pair, one in zip(pairs, together):
        (alone,) = measure_alignment(model, tokenizer, [pair], progress=False)
        assert alone.results == one.results and alone.name == one.name == pair.name


def test_errors(models, tmp_path, monkeypatch):
    model, tokenizer = load(models["bert"])
    for max_length, message in (
        (129, r"\(129\) is more than the model's 128"),
        (2, r"\(2\) leaves no room for a text"),
    ):
        with pytest.raises(ValueError, match=message):
            encode_layers(model, tokenizer, ["a"], max_length=max_length)
    with pytest.raises(ValueError, match="max_tokens_per_batch must be at least 1, got 0"):
        encode_layers(model, tokenizer, ["a"], max_tokens_per_batch=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=r"the vectors take 0 MiB, \S* has 0 MiB"):
        encode_layers(model, tokenizer, ["a"], folder=tmp_path, progress=False)
    monkeypatch.undo()
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[0] = torch.nan
    with pytest.raises(ValueError, match="the vectors of layer 2 are not numbers"):
        encode_layers(model, tokenizer, ["a"], progress=False)
    sizes = {"vocab_size": 9, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    T5ForConditionalGeneration(T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="is an encoder-decoder"):
        load(tmp_path / "t5")
    config = json.loads((models["bert"] / "config.json").read_text(encoding="utf-8")) | {"num_hidden_layers": 3}
    shutil.copytree(models["bert"], tmp_path / "bert")
    (tmp_path / "bert/config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"16 tensors of BertModel are missing, such as encoder\.layer\.2"):
        load(tmp_path / "bert")


def start(monkeypatch, *argv):
    """Calls the runner in this process, to save time."""
    monkeypatch.setattr(sys, "argv", ["run_alignment.py", *map(str, argv), "--use_cpu"])
    run_alignment.main()


def test_runner_on_a_folder(models, tmp_path, monkeypatch, capsys):
    where = ("--folder", REPOSITORY / "sample/test", "--pairs", "en-de,en-fr", "--output_dir", tmp_path)
    start(monkeypatch, "--model_name_or_path", models["bertlong"], *where, "--max_length", "100")
    printed = capsys.readouterr()
    assert printed.out == (tmp_path / "alignment.md").read_text(encoding="utf-8") and "encoding" in printed.err
    assert (tmp_path / "alignment.png").read_bytes().startswith(b"\x89PNG")
    measured = json.loads((tmp_path / "alignment.json").read_text(encoding="utf-8"))
    assert [one["texts"] for one in measured["pairs"]] == [37, 37] and measured["max_length"] == 100
    with open(tmp_path / "alignment.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3 and rows[0].keys() >= {"source", "target", "pooling", "layer", "mean"}
    for pair in measured["pairs"]:
        mine = [row for row in rows if row["target"] == pair["target"]]
        assert [float(row["mean"]) for row in mine] == [one["mean"] for one in pair["results"]]
    first = [row for row in printed.out.splitlines() if row.startswith("| 0 |")]
    assert len(first) == 3 and "mean of 2 pairs" in printed.out and printed.out.count("[CLS], en → fr") == 1
    means = [float(row["source_target"]) for row in rows if row["layer"] == "0" and row["pooling"] == "mean"]
    assert first[2].split("|")[2].strip(" *") == f"{sum(means) / 2:.1f}"
    assert {path.name for path in tmp_path.iterdir()} == {f"alignment.{end}" for end in ("md", "csv", "json", "png")}


def test_runner_on_files_and_on_a_dataset(models, tmp_path, monkeypatch, capsys):
    source, target = (write(tmp_path / f"x.{name}", *sentences(name)) for name in ("en", "de"))
    model = ("--model_name_or_path", models["xlm-roberta"])
    start(monkeypatch, *model, "--source", source, "--target", target, "--output_dir", tmp_path / "files")
    rows = [{"en": one, "de": other} for one, other in zip(sentences("en"), sentences("de"))]
    write(tmp_path / "data/test.jsonl", *rows)
    where = ("--dataset", tmp_path / "data", "--columns", "en", "de", "--dtype", "bfloat16")
    start(monkeypatch, *model, *where, "--output_dir", tmp_path / "dataset")
    capsys.readouterr()
    one, other = (json.loads((tmp_path / name / "alignment.json").read_text()) for name in ("files", "dataset"))
    assert one["pairs"][0]["source"] == "x.en" and other["pairs"][0]["source"] == "en"
    means = [[row["mean"] for row in run["pairs"][0]["results"]] for run in (one, other)]
    assert (one["dtype"], other["dtype"]) == ("float32", "bfloat16")
    assert means[0] == pytest.approx(means[1], abs=8)  # percent, of 123 sentences


BAD_ARGUMENTS = {
    "nothing": ((), "pass either --source and --target, or --folder and --pairs, or --dataset and --columns"),
    "two": (("--source", "a", "--target", "b", "--dataset", "c"), "pass either --source"),
    "one side": (("--source", "a"), "--source and --target go together"),
    "no pairs": (("--folder", "a"), "--folder and --pairs go together"),
    "one column": (("--dataset", "a", "--columns", "en"), "two --columns go together, got 1"),
    "document ids": (("--dataset", "a", "--columns", "x", "y", "--document_ids", "z"), "--document_ids is for text"),
    "pair": (("--folder", "sample/test", "--pairs", "enfr"), "two languages joined by a hyphen"),
    "language": (("--folder", "sample/test", "--pairs", "en-zh"), "has no file of the language 'zh'"),
    "model": (
        ("--folder", "sample/test", "--pairs", "en-de", "--model_name_or_path", "/nowhere"),
        "there is no /nowhere",
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments(name, tmp_path, monkeypatch):
    argv, message = BAD_ARGUMENTS[name]
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises((ValueError, OSError), match=message):
        start(monkeypatch, "--model_name_or_path", "base", "--output_dir", tmp_path / "out", *argv)
    assert not (tmp_path / "out").exists()


def test_help(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        start(monkeypatch, "--help")
    text = capsys.readouterr().out
    assert "--document_ids" in text and len(text.splitlines()) < 80


def test_base_aligns_real_sentences():
    folder = shared_path("data/tatoeba")
    lines = [
        (folder / f"tatoeba.deu-eng.{name}").read_text(encoding="utf-8").split("\n")[:200] for name in ("eng", "deu")
    ]
    model, tokenizer = load(REPOSITORY / "base")
    (alignment,) = measure_alignment(model, tokenizer, [ParallelTexts("eng", "deu", *lines)], progress=False)
    assert max(one["mean"] for one in alignment.results) > 10 * 100 / 200  # ten times as often as by chance
