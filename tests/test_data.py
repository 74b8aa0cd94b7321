"""Data: corpora, examples, batches, collections, losses, and the scripts that write corpora and collections."""

import gzip
import json
import math
import random
from collections import Counter
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import BertTokenizerFast

from modeling_clir.data.collators import MASK_MODES, PretrainingCollator, mask_tokens, ordinary_words
from modeling_clir.data.collections import Collection, read_collection, read_columns, write_collection
from modeling_clir.data.corpus import (
    Section,
    parallel_squad,
    read_documents,
    read_questions,
    read_squad,
    write_corpus,
)
from modeling_clir.data.pairs import PairEncoder, load_tokenizer
from modeling_clir.data.queries import QueryDataset
from modeling_clir.data.sections import Example, ExampleKey, PretrainingDataset, parse_pairs, sample_negatives
from modeling_clir.training.losses import RANKING_LOSSES, ranking_loss, relevance_scores
from modeling_clir.training.samplers import TaskBatchSampler

from .conftest import REPOSITORY, run


LANGUAGES = ["en", "de", "fr", "es"]
# What the package promises but does not do yet; the mark comes off with the fix.
bug = partial(pytest.mark.xfail, strict=True)


@pytest.fixture(autouse=True)
def cache_of_datasets(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


def write(path: Path, *lines: str | dict, end: str = "\n") -> Path:
    """Strings as they are, anything else as JSON, a line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)) + end for line in lines)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# Documents


def documents(folder: Path, **languages) -> Path:
    for language, lines in languages.items():
        write(folder / f"{language}.jsonl", *lines)
    return folder


def test_documents_in_pieces(tmp_path):
    sentences = {language: [f"{language} {i}." for i in range(7)] for language in ("en", "de")}
    for language, lines in sentences.items():
        write(
            tmp_path / f"{language}.jsonl",
            {"id": "a", "sentences": lines, "title": f"T {language}", "heading": f"H {language}"},
            {"id": "b", "text": f"whole {language}", "article": "x"},
        )
    for most in range(1, 9):
        sections = read_documents(tmp_path, ["en", "de"], most)
        parts = [s for s in sections if s.key.startswith(f"{tmp_path.name}/a")]
        assert len(parts) == math.ceil(7 / most)
        assert {s.article for s in parts} == {f"{tmp_path.name}/T en"}
        for language, lines in sentences.items():
            assert " ".join(s.text[language] for s in parts) == " ".join(lines)
            lengths = [s.text[language].count(".") for s in parts]
            assert max(lengths) <= most and max(lengths) - min(lengths) <= 1
            assert all(s.title[language] == f"T {language}" and s.heading[language] == f"H {language}" for s in parts)
        assert len({s.key for s in sections}) == len(sections)
        assert sections[-1].text == {"en": "whole en", "de": "whole de"}
        assert sections[-1].article == f"{tmp_path.name}/x"
    assert [s.key for s in read_documents(tmp_path, ["de", "en"])] == [f"{tmp_path.name}/a", f"{tmp_path.name}/b"]


@pytest.mark.parametrize(
    "german",
    [
        {"sentences": ["eins", "zwei", "drei"]},
        {"sentences": ["eins", "zwei"], "sentence_ids": [1, 3]},
        {"text": "eins zwei"},
    ],
)
def test_documents_not_parallel_stay_whole(german, tmp_path):
    english = {"id": "a", "sentences": ["one", "two"], "sentence_ids": [1, 2]}
    documents(tmp_path, en=[english], de=[{"id": "a"} | german])
    (section,) = read_documents(tmp_path, ["en", "de"], 1)
    assert section.text == {"en": "one two", "de": " ".join(german.get("sentences", [german.get("text")]))}
    documents(tmp_path, de=[{"id": "a", "sentences": ["eins", "zwei"], "sentence_ids": ["1", "2"]}])
    assert [s.text["de"] for s in read_documents(tmp_path, ["en", "de"], 1)] == ["eins", "zwei"]


def test_documents_of_some_languages(tmp_path):
    documents(tmp_path, en=[{"id": "a", "text": "A"}, {"id": "b", "text": "B"}], de=[{"id": "b", "text": "B"}])
    assert [set(s.text) for s in read_documents(tmp_path, ["en", "de"])] == [{"en"}, {"en", "de"}]
    with pytest.raises(FileNotFoundError, match=r"fr\.jsonl"):
        read_documents(tmp_path, ["en", "fr"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n \r\n"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_documents_line_ends(end, suffix, tmp_path):
    text = "One\u2028two\x85three\x0cfour\tfive\r\nsix \u00e9\U0001f984"
    lines = [{"id": f"document {i}", "text": f"{i} {text}"} for i in range(3)]
    write(tmp_path / f"en.jsonl{suffix}", *lines, end=end)
    assert [s.text["en"] for s in read_documents(tmp_path, ["en"])] == [line["text"] for line in lines]


GOOD = {"id": "a", "text": "A"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ('{"id": "b", "text": "B"} {}', "not JSON"),
        ("\ufeff" + json.dumps({"id": "b", "text": "B"}), "not JSON"),
        ([1], "expected a JSON object, got list"),
        ({"text": "B"}, "the key 'id' is missing"),
        ({"id": "b"}, "neither 'sentences' nor 'text'"),
        (GOOD, "the id 'a' occurs more than once"),
        ({"id": "b", "text": " \u00a0\t"}, "the text of 'b' is empty"),
        ({"id": "b", "sentences": []}, "the text of 'b' is empty"),
        ({"id": "b", "sentences": ["", " "]}, "the text of 'b' is empty"),
        pytest.param({"id": "b", "text": 5}, "text", marks=bug(raises=TypeError)),
        pytest.param({"id": "b", "sentences": ["B", None]}, "sentences", marks=bug(raises=TypeError)),
        pytest.param({"id": ["b"], "text": "B"}, "id", marks=bug(raises=TypeError)),
    ],
)
def test_documents_errors(line, message, tmp_path):
    write(tmp_path / "en.jsonl", GOOD, "", line)
    with pytest.raises(ValueError, match=message) as error:
        read_documents(tmp_path, ["en"])
    assert str(error.value).startswith(f"{tmp_path / 'en.jsonl'}:3: ")


@bug(reason="the message of a file that is not UTF-8 does not name the file")
def test_documents_not_utf8(tmp_path):
    (tmp_path / "en.jsonl").write_bytes('{"id": "a", "text": "é"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"en\.jsonl"):
        read_documents(tmp_path, ["en"])


@pytest.mark.parametrize("most", [pytest.param(0, marks=bug(raises=ZeroDivisionError)), pytest.param(-1, marks=bug())])
def test_documents_max_sentences(most, tmp_path):
    write(tmp_path / "en.jsonl", GOOD)
    with pytest.raises(ValueError, match="max_sentences"):
        read_documents(tmp_path, ["en"], most)


# SQuAD


def squad(language: str, layout=((2, 1), (1,)), **changes) -> dict:
    """`layout`: for each article the number of questions of each paragraph."""
    data = []
    for a, paragraphs in enumerate(layout):
        rows = [
            {
                "context": changes.get("context", f"{language} {a}.{p}"),
                "qas": [{"id": f"{a}.{p}.{q}", "question": f"{language} {a}.{p}.{q}?"} for q in range(number)],
            }
            for p, number in enumerate(paragraphs)
        ]
        data.append({"title": f"{language} {a}", "paragraphs": rows})
    return {"data": data}


def test_squad(tmp_path):
    for language in ("en", "de"):
        write(tmp_path / f"x.{language}.json", squad(language))
    name = tmp_path.name
    sections = read_squad(tmp_path, ["en", "de", "fr"])
    assert [(s.key, s.article) for s in sections] == [
        (f"{name}/0.0", f"{name}/0"),
        (f"{name}/0.1", f"{name}/0"),
        (f"{name}/1.0", f"{name}/1"),
    ]
    assert sections[1].text == {"en": "en 0.1", "de": "de 0.1"}
    assert sections[2].title == {"en": "en 1", "de": "de 1"}
    # The number of an article does not depend on which are read.
    assert [s.key for s in read_squad(tmp_path, ["en"], slice(1, None))] == [f"{name}/1.0"]
    questions, relevant = read_questions(tmp_path, ["de", "en", "fr"], slice(0, 1))
    assert questions["de"] == {"0.0.0": "de 0.0.0?", "0.0.1": "de 0.0.1?", "0.1.0": "de 0.1.0?"}
    assert questions["en"].keys() == questions["de"].keys() == relevant.keys() and "fr" not in questions
    assert relevant["0.0.1"] == {f"{name}/0.0": 1} and relevant["0.1.0"] == {f"{name}/0.1": 1}


@pytest.mark.parametrize(
    ("german", "message"),
    [
        ([], "not in SQuAD's layout"),
        ({}, "not in SQuAD's layout"),
        ({"data": [{"paragraphs": None}]}, "not in SQuAD's layout"),
        ({"data": [{"paragraphs": [{"qas": []}]}]}, "not in SQuAD's layout"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": [{}]}]}]}, "not in SQuAD's layout"),
        ("{", "not in SQuAD's layout"),
        (squad("de", ((2, 1), (2,))), "not parallel to .*article 1 "),
        (squad("de", ((2, 1),)), "not parallel to .*article 1 "),
        (squad("de", ((2, 1), (1,), (1,))), "not parallel to .*article 2 "),
        (squad("de", ((1, 2), (1,))), "not parallel to .*article 0 "),
        (squad("de", context=" \n"), "article 0 has an empty paragraph"),
        pytest.param(squad("de", context=None), "layout", marks=bug(raises=AttributeError)),
    ],
)
def test_squad_errors(german, message, tmp_path):
    write(tmp_path / "x.en.json", squad("en"))
    write(tmp_path / "x.de.json", german)
    for read in (parallel_squad, read_squad, read_questions):
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path, ["en", "de"])
        assert str(error.value).startswith(str(tmp_path / "x.de.json"))


def test_squad_without_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="en, de"):
        read_squad(tmp_path, ["en", "de"])


@bug(raises=KeyError)
def test_squad_without_question(tmp_path):
    write(tmp_path / "x.en.json", {"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "1"}]}]}]})
    with pytest.raises(ValueError, match="layout"):
        read_questions(tmp_path, ["en"])


# Corpus


def section(key: str, article: str, **text) -> Section:
    empty = dict.fromkeys(text, "")
    return Section(f"s/{key}", f"s/{article}", empty, dict(empty), text)


def some_sections(articles: int, parts: int, languages=("en", "de")) -> list[Section]:
    return [
        section(
            f"{a}.{p}", str(a), **{language: f"{language} text{a} part{p}. More {a}{p}." for language in languages}
        )
        for a in range(articles)
        for p in range(parts)
    ]


def read_table(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize(("articles", "parts", "number"), [(6, 4, 2), (6, 4, 9), (9, 1, 3), (3, 1, 5)])
def test_corpus_negatives(articles, parts, number, tmp_path):
    everything = some_sections(articles, parts)
    everything.append(section("only-en", "0", en="An English section."))
    counts = write_corpus(tmp_path / "corpus", everything, ["en", "de"], 0.2, number, same_language=True)
    assert set(counts) == {"en-de", "en-en", "de-de"}
    sections = {
        row["id"]: row
        for language in ("en", "de")
        for row in read_table(tmp_path / f"corpus/sections/{language}.parquet")
    }
    assert len(sections) == 2 * articles * parts + 1
    held_out = {}
    for pair, splits in counts.items():
        source, target = pair.split("-")
        for split in ("train", "validation"):
            rows = read_table(tmp_path / f"corpus/pairs/{pair}/{split}.parquet")
            assert len(rows) == splits[split] > 0
            here = {row["source_id"] for row in rows}
            for row in rows:
                key = row["source_id"].removeprefix(f"{source}:")
                assert row["target_id"] == f"{target}:{key}"
                for side, language in (("source", source), ("target", target)):
                    negatives, own = row[f"{side}_negatives"], row[f"{side}_id"]
                    assert own not in negatives and len(set(negatives)) == len(negatives)
                    assert {sections[n]["language"] for n in negatives} <= {language}
                    if parts > 1:
                        assert {sections[n]["article"] for n in negatives} == {sections[own]["article"]}
                        siblings = sum(s["article"] == sections[own]["article"] for s in sections.values())
                        assert len(negatives) >= min(number, siblings // 2 - 1)
                    else:
                        available = len([s for s in here if s.startswith(source)]) - 1
                        assert len(negatives) >= min(number, available)
            held_out[pair, split] = {sections[i]["article"] for i in here}
            assert here.isdisjoint(n for p, s in held_out if s != split for n in ())
        assert held_out[pair, "train"].isdisjoint(held_out[pair, "validation"])
        assert splits["validation"] >= 0.2 * articles * parts
    # Nothing of an article that is held out is a negative in training either.
    for row in read_table(tmp_path / "corpus/pairs/en-de/train.parquet"):
        used = {sections[n]["article"] for n in row["source_negatives"] + row["target_negatives"]}
        assert used <= held_out["en-de", "train"] | {"s/0"} - held_out["en-de", "validation"]


def test_corpus_bm25_negatives_are_near(tmp_path):
    texts = {
        "a": "the lighthouse stands on a granite reef",
        "b": "a lighthouse keeper counted granite blocks of the reef",
        "c": "bread is baked with flour and yeast",
        "d": "yeast and flour make the bread rise",
    }
    write_corpus(tmp_path / "c", [section(key, key, en=t, de=t) for key, t in texts.items()], ["en", "de"], 0.0, 1)
    near = {r["source_id"]: r["source_negatives"] for r in read_table(tmp_path / "c/pairs/en-de/train.parquet")}
    assert near == {"en:s/a": ["en:s/b"], "en:s/b": ["en:s/a"], "en:s/c": ["en:s/d"], "en:s/d": ["en:s/c"]}


def test_corpus_same_seed_same_corpus(tmp_path):
    tables = []
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_corpus(tmp_path / name, some_sections(8, 4), ["en", "de"], 0.3, 2, seed=seed)
        tables.append(
            [read_table(tmp_path / name / f"pairs/en-de/{split}.parquet") for split in ("train", "validation")]
        )
    assert tables[0] == tables[1] != tables[2]


def test_corpus_refuses_an_existing_folder(tmp_path):
    write(tmp_path / "corpus/mine", "mine")
    with pytest.raises(FileExistsError, match="corpus"):
        write_corpus(tmp_path / "corpus", some_sections(2, 2), ["en", "de"])
    assert [path.name for path in tmp_path.rglob("*")] == ["corpus", "mine"]


@bug(reason="the .part folder stays")
def test_corpus_failure_leaves_nothing(tmp_path):
    with pytest.raises(ValueError):
        write_corpus(tmp_path / "corpus", some_sections(2, 2), ["en", "de"], num_negatives=-1)
    assert list(tmp_path.iterdir()) == []


@bug(raises=ValueError, reason="bm25s: max() arg is an empty sequence, where no text has a word of two letters")
def test_corpus_of_short_words(tmp_path):
    texts = ["长 城", "是", "a b", "?"]
    sections = [section(str(i), str(i), zh=text, en="a word") for i, text in enumerate(texts)]
    write_corpus(tmp_path / "corpus", sections, ["zh", "en"], 0.0)
    assert (tmp_path / "corpus").is_dir()


@bug(reason="two folders of the same name: written without a word, and refused when it is read")
def test_corpus_refuses_a_key_that_occurs_twice(tmp_path):
    with pytest.raises(ValueError, match="s/0.0"):
        write_corpus(tmp_path / "corpus", some_sections(2, 2) + some_sections(2, 2), ["en", "de"])
    assert list(tmp_path.iterdir()) == []


# Pretraining examples


def raw_corpus(folder: Path, sections: dict[str, dict], pairs: dict[str, list[tuple]], split="train") -> str:
    """`sections[language][id]` is a text; a pair is (source_id, target_id, source_negatives, target_negatives)."""
    (folder / "sections").mkdir(parents=True, exist_ok=True)
    for language, texts in sections.items():
        columns = {"id": list(texts), "text": list(texts.values())} if isinstance(texts, dict) else texts
        table = pa.table({name: pa.array(column, pa.string()) for name, column in columns.items()})
        pq.write_table(table, folder / f"sections/{language}.parquet")
    names = ("source_id", "target_id", "source_negatives", "target_negatives")
    types = [pa.string(), pa.string(), pa.list_(pa.string()), pa.list_(pa.string())]
    for pair, rows in pairs.items():
        (folder / f"pairs/{pair}").mkdir(parents=True, exist_ok=True)
        columns = zip(*rows) if rows else [()] * 4
        table = pa.table([pa.array(column, kind) for column, kind in zip(columns, types)], names=names)
        pq.write_table(table, folder / f"pairs/{pair}/{split}.parquet")
    return str(folder)


def numbered_corpus(folder: Path, number: int) -> str:
    """Section i of en and of de are aligned; the negatives of i are the two that follow."""
    texts = {lang: {f"{lang}{i}": f"{lang}{i} one. {lang}{i} two." for i in range(number)} for lang in ("en", "de")}
    after = [[f"en{(i + 1) % number}", f"en{(i + 2) % number}"] for i in range(number)]
    rows = [(f"en{i}", f"de{i}", after[i], [n.replace("en", "de") for n in after[i]]) for i in range(number)]
    return raw_corpus(folder, texts, {"en-de": rows})


def both(pair: str) -> dict[str, list[str]]:
    return {"qlm": [pair], "rr": [pair]}


def test_examples(tmp_path):
    corpus = numbered_corpus(tmp_path, 8)
    dataset, again = (PretrainingDataset(corpus, both("en-de"), num_negatives=3, seed=5) for _ in range(2))
    assert dataset.sizes == {("qlm", "en-de"): 8, ("rr", "en-de"): 8} and len(dataset) == 16
    directions, sentences, different = Counter(), set(), 0
    other = PretrainingDataset(corpus, both("en-de"), num_negatives=3, seed=6)
    for task in ("qlm", "rr"):
        for index in range(8):
            for epoch in range(12):
                key = ExampleKey(task, "en-de", index, epoch)
                example = dataset[key]
                assert example == dataset[key] == again[key]
                different += example != other[key]
                source, target = example.pair.split("-")
                directions[example.pair] += 1
                sentences.add(example.query)
                assert example.query in (f"{source}{index} one.", f"{source}{index} two.")
                own = [text.split()[0] for text in example.documents]
                assert own[0] == f"{target}{index}" and example.documents[0].endswith("two.")
                assert len(set(own)) == len(own) == (4 if task == "rr" else 1)
                assert all(name.startswith(target) for name in own) and not example.query_cut
    assert set(directions) == {"en-de", "de-en"} and min(directions.values()) > 60
    assert len(sentences) == 32 and different > 150
    assert len({dataset[ExampleKey("qlm", "en-de", 0, epoch)].seed for epoch in range(9)}) == 9


def test_examples_of_a_given_side(tmp_path):
    dataset = PretrainingDataset(numbered_corpus(tmp_path, 4), both("en-de"))
    for side, direction in enumerate(("en-de", "de-en")):
        assert {dataset[ExampleKey("rr", "en-de", i, 0, side)].pair for i in range(4)} == {direction}


def test_pair_in_the_other_order(tmp_path):
    """The corpus holds en-de; de-en is the same pairs, with the sides and their negatives swapped."""
    corpus = numbered_corpus(tmp_path, 6)
    one, other = PretrainingDataset(corpus, both("en-de")), PretrainingDataset(corpus, both("de-en"))
    for index in range(6):
        swapped = other[ExampleKey("rr", "de-en", index, 0, 0)]
        assert swapped.pair == "de-en"
        assert swapped.query.startswith(f"de{index}") and swapped.documents[0].startswith(f"en{index}")
        for side in (0, 1):
            rows = one.pairs["en-de"].hard_negatives(side, index)
            assert rows.tolist() == other.pairs["de-en"].hard_negatives(1 - side, index).tolist()
            names = [one.pairs["en-de"].sections[side][int(row)]["id"] for row in rows]
            assert names == [f"{('en', 'de')[side]}{(index + i) % 6}" for i in (1, 2)]


def test_same_language_takes_the_sentence_out(tmp_path):
    texts = {"a": "One here. Two here. Three here.", "b": "Alone.", "c": "Die 1. Fassung. Und noch eine."}
    corpus = raw_corpus(tmp_path, {"en": texts}, {"en-en": [(key, key, [], []) for key in texts]})
    dataset = PretrainingDataset(corpus, {"qlm": ["en-en"]})
    seen = set()
    for index, text in enumerate(texts.values()):
        for epoch in range(20):
            example = dataset[ExampleKey("qlm", "en-en", index, epoch)]
            (document,) = example.documents
            seen.add(example.query)
            assert example.query in text and document
            if document == text:
                assert example.query == text  # the sentence is all there is
            else:
                assert example.query not in document
                assert sorted((example.query + " " + document).split()) == sorted(text.split())
    assert {"One here.", "Two here.", "Three here.", "Alone."} <= seen


@bug(reason="only the first of two equal sentences is taken out")
def test_same_language_takes_a_repeated_sentence_out(tmp_path):
    corpus = raw_corpus(tmp_path, {"en": {"a": "Same here. Other one. Same here."}}, {"en-en": [("a", "a", [], [])]})
    dataset = PretrainingDataset(corpus, {"qlm": ["en-en"]})
    examples = [dataset[ExampleKey("qlm", "en-en", 0, epoch)] for epoch in range(20)]
    assert not any(example.query in example.documents[0] for example in examples)


def test_long_sentence_is_cut_and_counted(tmp_path):
    words = [f"w{i}" for i in range(65)]
    texts = {"a": " ".join(words), "b": " ".join(words[:64]), "c": "w\u2028x\ty\r\nz"}
    corpus = raw_corpus(tmp_path, {"en": texts}, {"en-en": [(key, key, [], []) for key in texts]})
    dataset = PretrainingDataset(corpus, {"qlm": ["en-en"]})
    examples = [dataset[ExampleKey("qlm", "en-en", i)] for i in range(3)]
    assert [example.query_cut for example in examples] == [True, False, False]
    assert examples[0].query == examples[1].query == " ".join(words[:64])
    assert set(examples[2].query) <= set("wxyz ")


def test_max_pairs(tmp_path):
    corpus = numbered_corpus(tmp_path, 20)
    chosen = []
    for seed in (0, 0, 1):
        dataset = PretrainingDataset(corpus, both("en-de"), max_pairs=5, seed=seed)
        assert dataset.sizes == {("qlm", "en-de"): 5, ("rr", "en-de"): 5}
        examples = [dataset[ExampleKey("rr", "en-de", i, epoch, 0)] for i in range(5) for epoch in range(5)]
        chosen.append({int(example.query.split()[0].removeprefix("en")) for example in examples})
        for example in examples:  # a row's negatives go with it
            number = int(example.query.split()[0].removeprefix("en"))
            assert example.documents[0].startswith(f"de{number} ")
            negative = int(example.documents[1].split()[0].removeprefix("de"))
            assert negative in chosen[-1] | {(number + 1) % 20, (number + 2) % 20} and negative != number
    assert chosen[0] == chosen[1] != chosen[2] and len(chosen[0]) == 5
    assert PretrainingDataset(corpus, both("en-de"), max_pairs=99).sizes["qlm", "en-de"] == 20


EN, DE = {"a": "A one.", "b": "B two."}, {"c": "C.", "d": "D."}


@pytest.mark.parametrize(
    ("sections", "pairs", "kind", "message"),
    [
        ((EN, DE), {"en-fr": []}, FileNotFoundError, "no language pair en-de; it has en-fr"),
        ((EN, DE), {}, FileNotFoundError, "no language pair en-de; it has none"),
        ((EN, None), {"en-de": [("a", "c", [], [])]}, FileNotFoundError, r"has no sections/de\.parquet"),
        ((EN, DE), {"en-de": [("a", "zz", [], [])]}, ValueError, r"en-de/train\.parquet: no section has the id 'zz'"),
        ((EN, DE), {"en-de": [("c", "a", [], [])]}, ValueError, "no section has the id 'c'"),
        ((EN, DE), {"en-de": [("a", "c", ["a", "zz"], [])]}, ValueError, "no section has the id 'zz'"),
        ((EN, DE), {"en-de": [("a", "c", [], ["a"])]}, ValueError, "no section has the id 'a'"),
        (
            (EN | {"e": " \u00a0\n"}, DE),
            {"en-de": [("a", "c", [], [])]},
            ValueError,
            r"en\.parquet: section 'e' has no",
        ),
        (
            ({"id": ["a", "a"], "text": ["x", "y"]}, DE),
            {"en-de": [("a", "c", [], [])]},
            ValueError,
            "the id 'a' occurs",
        ),
        (
            (EN, DE),
            {"en-de": [("a", "c", [], []), ("b", "c", [], [])]},
            ValueError,
            "1 negatives cannot be drawn from 1",
        ),
        pytest.param(
            (EN, DE),
            {"en-de": []},
            ValueError,
            "no aligned sections",
            marks=bug(reason="datasets cannot read a parquet file without rows"),
        ),
        pytest.param(
            (EN | {"e": None}, DE),
            {"en-de": [("a", "c", [], []), ("e", "d", [], [])]},
            ValueError,
            "section 'e' has no text",
            marks=bug(reason="null is not found; the error comes when the example is drawn"),
        ),
    ],
)
def test_corpus_errors(sections, pairs, kind, message, tmp_path):
    present = {
        language: texts if texts is None or "id" in texts else {"id": list(texts), "text": list(texts.values())}
        for language, texts in zip(("en", "de"), sections)
    }
    corpus = raw_corpus(tmp_path / "c", {k: v for k, v in present.items() if v}, pairs)
    with pytest.raises(kind, match=message):
        PretrainingDataset(corpus, both("en-de"))


def test_corpus_errors_of_names(tmp_path):
    corpus = numbered_corpus(tmp_path / "corpus", 3)
    for name in (str(tmp_path / "nothing"), "./nothing", "nothing", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="neither a folder nor"):
            PretrainingDataset(name, both("en-de"))
    with pytest.raises(FileNotFoundError, match=r"no pairs/en-de/validation\.parquet"):
        PretrainingDataset(corpus, both("en-de"), split="validation")
    with pytest.raises(ValueError, match="3 negatives cannot be drawn from 3"):
        PretrainingDataset(corpus, both("en-de"), num_negatives=3)
    assert len(PretrainingDataset(corpus, {"qlm": ["en-de"]}, num_negatives=3)) == 3


@bug(raises=FileNotFoundError, reason="datasets takes the name of the folder for a pattern")
def test_corpus_in_a_folder_with_brackets(tmp_path):
    corpus = numbered_corpus(tmp_path / "corpus[1]", 3)
    assert len(PretrainingDataset(corpus, both("en-de"))) == 6


def test_parse_pairs():
    assert parse_pairs("en-de, de-fr ,") == ["en-de", "de-fr"]
    assert parse_pairs("en-en") == ["en-en"] and parse_pairs("") == []
    for bad in ("ende", "en-", "-de", "en-de-fr", "en-de,de-en", "en-de,en-de", "en-en,en-en"):
        with pytest.raises(ValueError, match="pair"):
            parse_pairs(bad)


def test_negatives_never_positive_and_never_twice():
    rng = random.Random(0)
    for _ in range(2000):
        pool = list(range(rng.randint(4, 12)))
        positive = rng.choice(pool)
        hard = rng.choices(range(14), k=rng.randint(0, 6))  # with repetition, the positive, and ones outside the pool
        number = rng.randint(1, len(pool) - 1)
        chosen = sample_negatives(positive, hard, pool, number, rng)
        assert len(set(chosen)) == len(chosen) == number
        assert positive not in chosen and set(chosen) <= set(pool) | set(hard)
        if number == len(pool) - 1 and not set(hard) - {positive}:
            assert set(chosen) == set(pool) - {positive}


@pytest.mark.parametrize("number", [0, 1, 2, 5, 10])
def test_share_of_hard_negatives(number):
    """From the pool with probability (3/4)^h; repetitions and the positive do not count in h."""
    hard = [f"hard{i}" for i in range(number)]
    rng, draws = random.Random(1), 6000
    counts = Counter(sample_negatives("p", [*hard, *hard, "p"], ["x", "y", "p"], 1, rng)[0] for _ in range(draws))
    share = 0.75**number
    deviation = math.sqrt(share * (1 - share) / draws)
    assert abs((counts["x"] + counts["y"]) / draws - share) <= 4 * deviation
    assert abs(counts["x"] - counts["y"]) <= 4 * math.sqrt(draws * share)
    for name in hard:
        expected = draws * (1 - share) / number
        assert abs(counts[name] - expected) <= 4.5 * math.sqrt(expected)


def test_negatives_when_hard_ones_are_used_up():
    for seed in range(200):
        chosen = sample_negatives(0, [1, 2], list(range(6)), 5, random.Random(seed))
        assert sorted(chosen) == [1, 2, 3, 4, 5]


# Pairs


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"[unused{i}]" for i in range(30))]
WORDS += ["[", "]", "sep", "mask", "cls", ".", "##s", "##ing", "##ä", *"长城是的。"]
WORDS += [f"{letter}{i}" for letter in "qd" for i in range(60)] + [f"##{i}" for i in range(10)]
HANGUL = [chr(0x1100), *(f"##{chr(c)}" for c in (0x1100, 0x1161, 0x11A8))]  # one syllable is three of these


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> BertTokenizerFast:
    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(WORDS + HANGUL) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(path), do_lower_case=True)


def tokens(tokenizer, ids) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(ids))


def test_encoder_lets_fit_what_fits(tokenizer):
    encoded = PairEncoder(tokenizer, 12, 4)(["q1 q2 q3 q4", "q1s"], ["d1 d2 d3 d4 d5", "d1"])
    assert tokens(tokenizer, encoded["input_ids"][0]) == "[CLS] q1 q2 q3 q4 [SEP] d1 d2 d3 d4 d5 [SEP]"
    assert tokens(tokenizer, encoded["input_ids"][1]) == "[CLS] q1 ##s [SEP] d1 [SEP]"  # not padded
    assert encoded["token_type_ids"][0] == [0] * 6 + [1] * 6
    assert encoded["query_cut"] == encoded["document_cut"] == [False, False]


@pytest.mark.parametrize(
    ("query", "kept", "cut"),
    [
        ("q1 q2 q3 q4 q5", "q1 q2 q3 q4", True),
        ("q1 q2 q3sings", "q1 q2", True),  # a word is not split
        ("q1 q2 q3s q4", "q1 q2 q3 ##s", True),
        ("q1 q2 q3sing", "q1 q2", True),
        ("q1s q2s", "q1 ##s q2 ##s", False),
        ("q1sssss", "q1 ##s ##s ##s", True),  # but for one that fills the query
        ("q1 q2sssss", "q1", True),
        ("  q1 \t q2\u2028q3.. q5", "q1 q2 q3 .", True),
        ("长城是的。长城", "长 城 是 的", True),
        ("Q1ä Q2Ä", "q1 [UNK]", None),
        ("", "", False),
        ("\u200b", "", False),
    ],
)
def test_encoder_cuts_queries(query, kept, cut, tokenizer):
    encoded = PairEncoder(tokenizer, 9, 4)([query], ["d1"])
    if cut is None:  # accents are taken off: "Q1ä" is q1a, which the vocabulary lacks
        kept, cut = "[UNK] [UNK]", False
    assert tokens(tokenizer, encoded["input_ids"][0]) == " ".join(f"[CLS] {kept} [SEP] d1 [SEP]".split())
    assert encoded["query_cut"] == [cut] and encoded["document_cut"] == [False]


def test_encoder_cuts_documents(tokenizer):
    document = " ".join(f"d{i}" for i in range(30))
    for length in (9, 10, 20, 33, 34, 35):
        encoded = PairEncoder(tokenizer, length, 4)(["q1", "q1 q2 q3 q4 q5"], [document, document])
        for row, query in enumerate((1, 4)):
            room = length - query - 3
            ids = encoded["input_ids"][row]
            assert len(ids) == min(length, query + 33)
            assert tokens(tokenizer, ids).endswith(" ".join(f"d{i}" for i in range(min(room, 30))) + " [SEP]")
            assert encoded["document_cut"][row] == (room < 30)


def test_encoder_properties(tokenizer):
    rng = random.Random(0)
    alphabet = [
        "q1",
        "d2",
        "s",
        "ing",
        " ",
        " ",
        "长",
        "。",
        "[SEP]",
        "[MASK]",
        "[PAD]",
        "ä",
        "\u2028",
        "\u0301",
        "\t",
    ]
    queries, texts = (["".join(rng.choices(alphabet, k=rng.randint(0, 40))) for _ in range(300)] for _ in range(2))
    encoder = PairEncoder(tokenizer, 30, 10)
    encoded = encoder(queries, texts)
    for row, query in enumerate(queries):
        ids, sides = encoded["input_ids"][row], encoded.sequence_ids(row)
        assert len(ids) <= 30 and sides.count(0) <= 10
        special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        assert sum(i in special for i in ids) == 3  # [CLS] and two [SEP], whatever the texts say
        whole = tokenizer(query, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert encoded["query_cut"][row] == (len(whole) > 10)
        assert whole[: sides.count(0)] == ids[1 : 1 + sides.count(0)]
        document = tokenizer(texts[row], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert encoded["document_cut"][row] == (len(document) > 30 - 3 - sides.count(0))
        # A row does not depend on what else is encoded.
        assert encoder([query], [texts[row]])["input_ids"] == [ids]


def test_text_is_text(tokenizer):
    encoded = PairEncoder(tokenizer, 30, 10)(["q1 [SEP] [mask]"], ["[MASK] d1 [CLS]"])
    words = "[CLS] q1 [ sep ] [ mask ] [SEP] [ mask ] d1 [ cls ] [SEP]"
    assert tokens(tokenizer, encoded["input_ids"][0]) == words
    # What the tokenizer does by itself stays as it was.
    assert tokenizer("[SEP]", add_special_tokens=False)["input_ids"] == [tokenizer.sep_token_id]


def test_encoder_refuses(tokenizer, tmp_path):
    PairEncoder(tokenizer, 14, 10)
    with pytest.raises(ValueError, match=r"max_length \(13\) leaves no room"):
        PairEncoder(tokenizer, 13, 10)
    with pytest.raises(ValueError, match="has no tokenizer"):
        load_tokenizer(str(tmp_path))
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).get_vocab() == tokenizer.get_vocab()


@bug(raises=Exception, reason="a letter that is several tokens: the cut query has more than max_query_length tokens")
def test_encoder_cuts_inside_a_syllable(tokenizer):
    encoded = PairEncoder(tokenizer, 8, 4)(["각각각"], ["d1 d2"])
    assert encoded.sequence_ids(0).count(0) <= 4


# Batches


def example(task: str, query: str, *texts: str, seed="0", cut=False) -> Example:
    return Example(task, "en-de", query, list(texts), seed, cut)


def collator(tokenizer, **options) -> PretrainingCollator:
    return PretrainingCollator(PairEncoder(tokenizer, 40, 12), **options)


def test_ordinary_words(tokenizer):
    words = tokenizer.convert_ids_to_tokens(ordinary_words(tokenizer))
    assert sorted(words) == sorted(set(WORDS + HANGUL) - set(WORDS[:35]))
    assert WORDS[34] == "[unused29]"


def random_examples(number: int, seed: int = 0, longest: int = 15) -> list[Example]:
    rng = random.Random(seed)
    return [
        example(
            "qlm",
            " ".join(f"q{rng.randrange(60)}" for _ in range(rng.randint(1, longest))),
            " ".join(f"d{rng.randrange(60)}" for _ in range(rng.randint(1, 40))),
            seed=f"{seed}-{i}",
        )
        for i in range(number)
    ]


@pytest.mark.parametrize("mode", MASK_MODES)
@pytest.mark.parametrize("multiple", [None, 16])
def test_qlm_batch(mode, multiple, tokenizer):
    examples = random_examples(64)
    batch = collator(tokenizer, mask_mode=mode, pad_to_multiple_of=multiple)(examples)
    encoded = PairEncoder(tokenizer, 40, 12)([e.query for e in examples], [e.documents[0] for e in examples])
    length = max(map(len, encoded["input_ids"]))
    length = length if multiple is None else -(-length // multiple) * multiple
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        assert batch[name].shape == (64, length) and batch[name].dtype == torch.long
    special = set(tokenizer.all_special_ids)
    for row in range(64):
        ids, sides = encoded["input_ids"][row], [*encoded.sequence_ids(row)]
        sides += [None] * (length - len(sides))
        labels, output = batch["labels"][row].tolist(), batch["input_ids"][row].tolist()
        chosen = [place for place, label in enumerate(labels) if label != -100]
        assert chosen
        assert {sides[place] for place in chosen} <= {"query": {0}, "document": {1}, "mixed": {0, 1}}[mode]
        assert batch["attention_mask"][row].tolist() == [1] * len(ids) + [0] * (length - len(ids))
        padded = ids + [tokenizer.pad_token_id] * (length - len(ids))
        for place, original in enumerate(padded):
            if place in chosen:
                assert labels[place] == original and original not in special
                assert output[place] == tokenizer.mask_token_id or output[place] not in special
                assert "unused" not in tokenizer.convert_ids_to_tokens(output[place])
            else:
                assert output[place] == original
    assert batch["task"] == "qlm" and batch["group_size"] == 1 and batch["rows"] == 64
    assert batch["pairs"] == ["en-de"] * 64
    assert batch["queries_cut"] == sum(len(e.query.split()) > 12 for e in examples) > 0
    assert batch["documents_cut"] == sum(encoded["document_cut"]) > 0


@pytest.mark.parametrize("mode", MASK_MODES)
def test_every_row_has_a_masked_token(mode, tokenizer):
    examples = [example("qlm", "q1", "d1", seed=str(i)) for i in range(200)]
    batch = collator(tokenizer, mask_mode=mode, mask_probability=0.01)(examples)
    places = (batch["labels"] != -100).nonzero()
    assert places[:, 0].tolist() == list(range(200))
    assert set(places[:, 1].tolist()) == {"query": {1}, "document": {3}, "mixed": {1, 3}}[mode]


def test_masks_do_not_depend_on_the_batch(tokenizer):
    collate, examples = collator(tokenizer), random_examples(16)

    def rows(batch):
        lengths = batch["attention_mask"].sum(1).tolist()
        return [(i[:n].tolist(), o[:n].tolist()) for i, o, n in zip(batch["input_ids"], batch["labels"], lengths)]

    together = rows(collate(examples))
    torch.manual_seed(1)
    random.seed(1)
    assert together == [rows(collate([one]))[0] for one in examples]
    assert together[::-1] == rows(collate(examples[::-1]))
    same = [example("qlm", examples[0].query, *examples[0].documents, seed=str(i)) for i in range(40)]
    assert len({str(row) for row in rows(collate(same))}) > 20
    generator = torch.get_rng_state()
    collate(examples)
    assert torch.equal(generator, torch.get_rng_state())


def test_shares_of_masking(tokenizer):
    """Chosen: 30%; of these [MASK] 80%, another word 10%, the same 10% (and by chance a random word is the same)."""
    words = ordinary_words(tokenizer)
    ids = words[torch.randint(len(words), (400, 100), generator=torch.Generator().manual_seed(0))]
    candidates = torch.ones_like(ids, dtype=torch.bool)
    candidates[:, ::2] = False
    generator = torch.Generator().manual_seed(1)
    output, labels = mask_tokens(ids, candidates, 0.3, tokenizer.mask_token_id, words, generator)
    chosen = labels != -100
    assert not chosen[~candidates].any() and torch.equal(output[~chosen], ids[~chosen])
    assert torch.equal(labels[chosen], ids[chosen])
    number = chosen.sum().item()

    def close(count, total, share):
        assert abs(count / total - share) < 4 * math.sqrt(share * (1 - share) / total), (count, total, share)

    close(number, candidates.sum().item(), 0.3)
    masked, same = output[chosen] == tokenizer.mask_token_id, output[chosen] == ids[chosen]
    close(masked.sum().item(), number, 0.8)
    close(same.sum().item(), number, 0.1 + 0.1 / len(words))
    swapped = output[chosen][~masked & ~same]
    assert set(swapped.tolist()) <= set(words.tolist()) and len(set(swapped.tolist())) > 0.9 * len(words)


def test_rr_batch(tokenizer):
    examples = [example("rr", f"q{i}", f"d{i} d1", f"d{i + 10}", f"d{i + 20} d1 d2", cut=i == 1) for i in range(3)]
    examples.append(example("rr", " ".join(["q5"] * 13), "d1", "d2", " ".join(["d3"] * 40)))
    batch = collator(tokenizer)(examples)
    assert "labels" not in batch and batch["group_size"] == 3 and batch["rows"] == 12 and batch["task"] == "rr"
    assert batch["pairs"] == ["en-de"] * 4
    assert batch["queries_cut"] == 2 and batch["documents_cut"] == 1  # of queries, not of rows
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["token_type_ids"].shape == (12, 40)
    for row in range(9):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        expected = f"[CLS] {examples[row // 3].query} [SEP] {examples[row // 3].documents[row % 3]} [SEP]"
        assert tokens(tokenizer, ids) == expected
        assert batch["token_type_ids"][row].sum() == len(expected.split()) - 3


def test_padding_on_the_left(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    left = BertTokenizerFast.from_pretrained(tmp_path, padding_side="left")
    batch, other = collator(left)(random_examples(8)), collator(tokenizer)(random_examples(8))
    for name in ("input_ids", "labels", "token_type_ids"):
        for row in range(8):
            one, two = (b[name][row][b["attention_mask"][row].bool()] for b in (batch, other))
            assert torch.equal(one, two)
    assert not (batch["labels"][~batch["attention_mask"].bool()] != -100).any()


@pytest.mark.parametrize("option", [{"mask_mode": "Query"}, {"mask_probability": 0}, {"mask_probability": 1.0}])
def test_collator_refuses(option, tokenizer):
    with pytest.raises(ValueError, match=next(iter(option))):
        collator(tokenizer, **option)


def test_sample_corpus(sample_corpus, tiny_bert):
    """Every example of the sample: a batch of it has all it should have."""
    languages = ["en-de", "fr-en", "es-es"]
    dataset = PretrainingDataset(str(sample_corpus), {"qlm": languages, "rr": languages[:2]}, num_negatives=2)
    collate = PretrainingCollator(PairEncoder(load_tokenizer(str(tiny_bert)), 64, 24))
    for (task, pair), size in dataset.sizes.items():
        examples = [dataset[ExampleKey(task, pair, index)] for index in range(size)]
        batch = collate(examples)
        assert batch["rows"] == len(batch["input_ids"]) == size * (3 if task == "rr" else 1)
        assert all(len(set(e.documents)) == len(e.documents) == batch["group_size"] for e in examples)
        assert task == "rr" or (batch["labels"] != -100).any(1).all()
        assert {frozenset(direction.split("-")) for direction in batch["pairs"]} == {frozenset(pair.split("-"))}
    validation = PretrainingDataset(str(sample_corpus), {"qlm": ["en-de"]}, split="validation")
    texts = {validation[ExampleKey("qlm", "en-de", i, 0, 0)].documents[0] for i in range(len(validation))}
    train = {dataset[ExampleKey("qlm", "en-de", i, 0, 0)].documents[0] for i in range(dataset.sizes["qlm", "en-de"])}
    assert texts and train and texts.isdisjoint(train)


# Sampler


SIZES = {("qlm", "en-de"): 37, ("qlm", "fr-es"): 8, ("rr", "en-de"): 37, ("rr", "de-fr"): 1}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (1, 2), (3, 2), (4, 4)])
def test_sampler(batch_size, processes, accumulation):
    samplers = [TaskBatchSampler(SIZES, batch_size, processes, i, accumulation, seed=3) for i in range(processes)]
    epochs = []
    for epoch in (0, 1):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        batches = [list(sampler) for sampler in samplers]
        assert batches == [list(sampler) for sampler in samplers]  # deterministic
        assert {len(b) for b in batches} == {len(sampler) for sampler in samplers}
        seen = Counter()
        for at, together in enumerate(zip(*batches)):
            kinds = {(key.task, key.pair) for batch in together for key in batch}
            assert len(kinds) == 1 and all(len(batch) == batch_size for batch in together)
            if at % accumulation:
                assert kinds == before  # one optimizer step, one task and pair
            before = kinds
            seen.update((key.task, key.pair, key.index) for batch in together for key in batch)
            assert all(key.epoch == epoch and key.query_side is None for batch in together for key in batch)
        assert set(seen) == {(*name, i) for name, size in SIZES.items() for i in range(size)}
        for name, size in SIZES.items():
            counts = [seen[(*name, i)] for i in range(size)]
            step = batch_size * processes * accumulation
            assert sum(counts) == -(-size // step) * step and max(counts) - min(counts) <= 1
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    assert [key[:3] for batch in epochs[0][0] for key in batch] != [key[:3] for batch in epochs[1][0] for key in batch]


def steps_of(batch_size: int, processes: int, accumulation: int) -> list[list[ExampleKey]]:
    """The examples of each optimizer step, over processes and accumulated batches."""
    batches = [list(TaskBatchSampler(SIZES, batch_size, processes, i, accumulation)) for i in range(processes)]
    together = [[key for batch in row for key in batch] for row in zip(*batches)]
    return [sum(together[i : i + accumulation], []) for i in range(0, len(together), accumulation)]  # noqa: RUF017


def test_sampler_splits_the_same_step():
    expected = steps_of(8, 1, 1)
    for split in ((4, 2, 1), (4, 1, 2), (2, 2, 2), (1, 4, 2), (1, 8, 1), (1, 1, 8)):
        assert steps_of(*split) == expected


def test_sampler_rounds():
    """A round has a QLM step of each pair that is left, then an RR step of each."""
    sizes = {("qlm", "a-b"): 6, ("rr", "a-b"): 6, ("qlm", "a-c"): 4, ("rr", "a-c"): 4}
    sampler = TaskBatchSampler(sizes, 2)
    orders = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        names = [(batch[0].task, batch[0].pair) for batch in sampler]
        assert [task for task, _ in names] == ["qlm", "qlm", "rr", "rr"] * 2 + ["qlm", "rr"]
        assert names[8:] == [("qlm", "a-b"), ("rr", "a-b")]
        assert all(set(names[i : i + 4]) == set(sizes) for i in (0, 4))
        orders.add(tuple(names))
    assert len(orders) > 5


# Losses


def test_losses_by_hand():
    one = torch.tensor([[2.0], [1.0], [-1.0], [0.0], [3.0], [0.0]])  # two queries: a positive, two negatives
    softplus = lambda x: math.log(1 + math.exp(x))  # noqa: E731
    pairwise = (softplus(-1) + softplus(-3) + softplus(3) + softplus(0)) / 4
    assert ranking_loss(one, 3).item() == pytest.approx(pairwise, abs=1e-6)
    assert ranking_loss(one, 3, "margin").item() == pytest.approx((0 + 0 + 4 + 1) / 4)
    assert ranking_loss(one, 3, "margin", margin=2.0).item() == pytest.approx((1 + 0 + 5 + 2) / 4)
    exp = math.exp
    listwise = -(math.log(exp(2) / (exp(2) + exp(1) + exp(-1))) + math.log(1 / (1 + exp(3) + 1))) / 2
    assert ranking_loss(one, 3, "listwise").item() == pytest.approx(listwise, abs=1e-6)
    pointwise = (softplus(-2) + softplus(1) + softplus(-1) + softplus(0) + softplus(3) + softplus(0)) / 6
    assert ranking_loss(one, 3, "pointwise").item() == pytest.approx(pointwise, abs=1e-6)

    two = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.0, 0.0], [2.0, 2.5]])
    expected = (softplus(-1) + softplus(-1.5) + softplus(0) + softplus(0.5)) / 4
    assert ranking_loss(two, 2, "pointwise").item() == pytest.approx(expected, abs=1e-6)
    assert relevance_scores(two).tolist() == [2.0, -1.0, 0.0, 2.5]
    assert ranking_loss(two, 2).item() == pytest.approx((softplus(-3) + softplus(2.5)) / 2, abs=1e-6)


@pytest.mark.parametrize("kind", RANKING_LOSSES)
def test_losses_properties(kind):
    logits = torch.randn(12, 1, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ranking_loss(logits, 4, kind, margin=10.0).backward()
    gradient = logits.grad.view(3, 4)
    assert (gradient[:, 0] < 0).all() and (gradient[:, 1:] > 0).all()  # the positive up, the negatives down
    if kind != "pointwise":
        shift = torch.tensor([5.0, -3.0, 0.5]).repeat_interleave(4)[:, None]
        assert torch.allclose(ranking_loss(logits, 4, kind), ranking_loss(logits + shift, 4, kind), atol=1e-5)
        with pytest.raises(ValueError, match="num_negatives"):
            ranking_loss(logits, 1, kind)
    else:
        assert ranking_loss(logits, 1, kind).isfinite()
    assert ranking_loss(logits.detach().half() * 1000, 4, kind).isfinite()
    with pytest.raises(ValueError, match="pairwise"):
        ranking_loss(logits, 4, kind.upper())


# Collections


def collection(folder: Path, **files) -> Path:
    texts = {
        "documents": [{"id": "d1", "text": "one"}, {"id": "d2", "text": "two", "title": "T"}],
        "queries": ["q1\tfirst", "q2\tsecond"],
        "qrels": ["q1 0 d1 1", "q2 0 d1 0", "q2 0 d2 2"],
    }
    names = {
        "documents": "documents.jsonl",
        "queries": "queries.tsv",
        "qrels": "qrels.txt",
        "run": "candidates.run",
        "folds": "folds.json",
    }
    for kind, lines in (texts | files).items():
        if lines is not None:
            write(folder / names[kind], *lines)
    return folder


def test_read_collection(tmp_path):
    folder = collection(tmp_path / "en-de")
    expected = Collection(
        "en-de",
        {"d1": "one", "d2": "T two"},
        {"q1": "first", "q2": "second"},
        {"q1": {"d1": 1}, "q2": {"d1": 0, "d2": 2}},
        {"q1": ["d1", "d2"], "q2": ["d1", "d2"]},
    )
    assert read_collection(folder) == expected
    collection(folder, run=["q2 Q0 d2 1 9.5 tag", "q1 Q0 d1 1 3 tag", "q2 Q0 d1 2 1 tag"], folds=[[["q1"], ["q2"]]])
    read = read_collection(folder)
    assert read.candidates == {"q1": ["d1"], "q2": ["d2", "d1"]} and read.folds == [["q1"], ["q2"]]


@pytest.mark.parametrize("end", ["\r\n", "\n \n", "\n\n"])
def test_read_collection_line_ends(end, tmp_path):
    write(tmp_path / "documents.jsonl.gz", {"id": "a b", "text": "x\u2028y\r\nz"}, {"id": "d2", "text": "t"}, end=end)
    write(tmp_path / "queries.tsv", "q1\ta\tb\u2028c\x85d ", "q2\te", end=end)
    write(tmp_path / "qrels.txt.gz", "q1\t0\td2\t-1", "q2   0 d2 1 ", end=end)
    read = read_collection(tmp_path)
    assert read.documents == {"a b": "x\u2028y\r\nz", "d2": "t"}
    assert read.queries == {"q1": "a\tb\u2028c\x85d ", "q2": "e"}
    assert read.qrels == {"q1": {"d2": -1}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"documents": ["", {"id": "d1", "text": "x"}, {"id": "d1", "text": "y"}]},
            "documents.jsonl:3: the document id",
        ),
        ({"documents": [{"id": "d1", "text": " \u00a0"}]}, "documents.jsonl:1: the document 'd1' has no text"),
        ({"documents": [{"id": "d1"}]}, "documents.jsonl:1: the key 'text' is missing"),
        ({"documents": ["nonsense"]}, "documents.jsonl:1: not JSON"),
        ({"queries": ["q1\tx", "", "q2"]}, "queries.tsv:3: expected 2 columns, got 1"),
        ({"queries": ["q1 x"]}, "queries.tsv:1: expected 2 columns, got 1"),
        ({"queries": ["q1\tx", "q1\ty"]}, "queries.tsv:2: the query id 'q1' occurs more than once"),
        ({"queries": ["q1\t "]}, "queries.tsv:1: the query 'q1' has no text"),
        ({"qrels": ["q1 0 d1"]}, "qrels.txt:1: expected 4 columns, got 3"),
        ({"qrels": ["q1 0 d1 1 x"]}, "qrels.txt:1: expected 4 columns, got 5"),
        ({"qrels": ["q1 0 d1 1", "q3 0 d1 1"]}, "qrels.txt:2: no query has the id 'q3'"),
        ({"qrels": ["q1 0 d3 1"]}, "qrels.txt:1: no document has the id 'd3'"),
        ({"qrels": ["q1 0 d1 1.0"]}, "qrels.txt:1: the relevance must be a whole number"),
        ({"qrels": ["q1 0 d1 -"]}, "qrels.txt:1: the relevance must be a whole number"),
        ({"qrels": ["q1 0 d1 1", "q2 0 d1 1", "q1 0 d1 0"]}, "qrels.txt:3: document 'd1' is judged twice"),
        ({"run": ["q1 Q0 d1 1 1"]}, "candidates.run:1: expected 6 columns, got 5"),
        ({"run": ["q1 Q0 d3 1 1 x"]}, "candidates.run:1: no document has the id 'd3'"),
        ({"run": ["q3 Q0 d1 1 1 x"]}, "candidates.run:1: no query has the id 'q3'"),
        ({"run": ["q1 Q0 d1 1 1 x"]}, "candidates.run has no document for query 'q2'"),
        ({"folds": [[["q1"], ["q9"]]]}, "folds.json: query 'q9' has no judgement"),
        pytest.param({"qrels": ["q1 0 d1 --1"]}, "qrels.txt:1: the relevance", marks=bug()),
        pytest.param({"qrels": ["q1 0 d1 ²"]}, "qrels.txt:1: the relevance", marks=bug()),
        pytest.param({"folds": ["{"]}, "folds.json", marks=bug()),
        pytest.param({"folds": ["[1]"]}, "folds.json", marks=bug(raises=TypeError)),
        pytest.param({"folds": [[["q1"], ["q1", "q2"]]]}, "folds.json.*q1", marks=bug(reason="training = test")),
        pytest.param({"run": ["q1 Q0 d1 1 1 x"] * 2 + ["q2 Q0 d1 1 1 x"]}, "candidates.run:2", marks=bug()),
        pytest.param(
            {"documents": [{"id": "d1", "text": None}]}, "documents.jsonl:1", marks=bug(raises=AttributeError)
        ),
    ],
)
def test_read_collection_errors(files, message, tmp_path):
    collection(tmp_path / "c", **files)
    with pytest.raises(ValueError, match=message) as error:
        read_collection(tmp_path / "c")
    assert str(error.value).startswith(str(tmp_path / "c"))


@pytest.mark.parametrize("missing", ["documents", "queries", "qrels"])
def test_read_collection_without_a_file(missing, tmp_path):
    with pytest.raises(FileNotFoundError, match=missing):
        read_collection(collection(tmp_path / "c", **{missing: None}))


def test_write_collection(tmp_path):
    texts = {"f/1": "one\u2028two\ttwo\r\n\x85", "2#1": "长城 \U0001f984", "3": '"{\\'}
    queries = {"q": "a\tb\nc\u2028d", "r#1": "长城"}
    qrels = {"q": {"3": 1, "f/1": 0}, "r#1": {"2#1": 3}}
    write_collection(tmp_path / "a/b", texts, queries, qrels)
    read = read_collection(tmp_path / "a/b")
    assert read.documents == texts and read.qrels == qrels
    assert read.queries == {"q": "a b c d", "r#1": "长城"}
    with pytest.raises(FileExistsError):
        write_collection(tmp_path / "a/b", texts, queries, qrels)


@bug(reason="TREC files have columns between spaces: what is written cannot be read")
@pytest.mark.parametrize(("query", "document"), [("q 1", "d"), ("q", "my folder/d")])
def test_ids_with_spaces(query, document, tmp_path):
    try:
        write_collection(tmp_path / "c", {document: "x"}, {query: "y"}, {query: {document: 1}})
    except ValueError:
        assert not (tmp_path / "c").exists()
    else:
        assert read_collection(tmp_path / "c").qrels == {query: {document: 1}}


def test_read_columns(tmp_path):
    path = write(tmp_path / "x.txt", "a  b", "", "c\td")
    assert list(read_columns(path, 2)) == [(f"{path}:1", ["a", "b"]), (f"{path}:3", ["c", "d"])]


@pytest.mark.parametrize("number", [5, 6, 23])
def test_split(number):
    ids = [f"q{i}" for i in range(number)]
    one = Collection("x", {}, dict.fromkeys(ids, "t"), {q: {"d": 1} for q in ids}, {})
    other = Collection("x", {}, one.queries, dict(reversed(one.qrels.items())), {})
    tested = []
    for fold in range(5):
        train, development, test = one.split(fold)
        assert sorted(train + development + test) == sorted(ids)
        assert test and development and train
        assert development == one.split((fold + 1) % 5)[2]
        assert (train, development, test) == other.split(fold)  # whatever the order of the files
        tested += test
    assert sorted(tested) == sorted(ids)
    assert number < 23 or one.split(0, seed=1) != one.split(0)
    for bad in (-1, 5):
        with pytest.raises(ValueError, match="folds 0 to 4"):
            one.split(bad)
    one.folds = [ids[:2], ids[2:3], ids[3:]]
    assert one.split(2) == (ids[2:3], ids[:2], ids[3:])
    with pytest.raises(ValueError, match="folds 0 to 2"):
        one.split(3)


def test_query_dataset(tmp_path):
    texts = {f"d{i}": f"text {i}" for i in range(8)}
    qrels = {"q1": {"d0": 1, "d1": 2, "d2": 0, "d3": -1, "d4": 0}, "q2": {"d5": 1, "d6": 0}, "q3": {"d7": 1}}
    one = Collection("en-de", texts, {q: f"query {q}" for q in qrels}, qrels, {})
    dataset = QueryDataset([one], {"en-de": ["q1", "q2"]}, num_negatives=2, seed=0)
    assert dataset.sizes == {("rr", "en-de"): 3} and len(dataset) == 3
    drawn = {"query q1": set(), "query q2": set()}
    for epoch in range(60):
        examples = [dataset[ExampleKey("rr", "en-de", index, epoch)] for index in range(3)]
        assert examples == [dataset[ExampleKey("rr", "en-de", index, epoch)] for index in range(3)]
        assert [example.documents[0] for example in examples] == ["text 0", "text 1", "text 5"]
        for example in examples:
            assert len(set(example.documents)) == 3
            drawn[example.query].update(example.documents[1:])
    assert drawn["query q1"] == {"text 2", "text 3", "text 4"}  # judged not relevant, as there are enough
    assert drawn["query q2"] == {f"text {i}" for i in (0, 1, 2, 3, 4, 6, 7)}  # never what is relevant
    with pytest.raises(ValueError, match="no training query has a relevant document"):
        QueryDataset([one], {"en-de": []}, 1, 0)
    with pytest.raises(ValueError, match="'q1' has fewer than 7 documents"):
        QueryDataset([one], {"en-de": ["q1"]}, 7, 0)
    assert len(QueryDataset([one], {"en-de": ["q1"]}, 6, 0)[ExampleKey("rr", "en-de", 0)].documents) == 7


# Scripts


def test_build_corpus(sample_corpus):
    names = {str(path.relative_to(sample_corpus)) for path in sample_corpus.rglob("*.parquet")}
    pairs = ["en-de", "en-fr", "en-es", "de-fr", "de-es", "fr-es", *(f"{lang}-{lang}" for lang in LANGUAGES)]
    assert names == {f"sections/{lang}.parquet" for lang in LANGUAGES} | {
        f"pairs/{pair}/{split}.parquet" for pair in pairs for split in ("train", "validation")
    }
    english = read_table(sample_corpus / "sections/en.parquet")
    assert set(english[0]) == {"id", "language", "article", "title", "heading", "text"}
    lines = (REPOSITORY / "sample/train/en.jsonl").read_text(encoding="utf-8").splitlines()
    assert [row["text"] for row in english] == [" ".join(json.loads(line)["sentences"]) for line in lines]


def test_build_corpus_of_squad(tmp_path):
    for language in ("en", "de"):
        write(tmp_path / f"squad/x.{language}.json", squad(language, ((1, 1), (1, 1), (1, 1), (1, 1))))
        write(tmp_path / f"docs/{language}.jsonl.gz", {"id": "a", "sentences": ["One two.", "Three four."]})
    command = ("scripts/build_corpus.py", tmp_path / "c", "--languages", "en, de", "--validation_fraction", "0")
    options = ("--squad", tmp_path / "squad", "--squad_articles", "1:", "--max_sentences", "1", "--num_negatives", "1")
    done = run(*command, *options, "--documents", tmp_path / "docs")
    assert "en-de: 8 aligned sections for training, 0 held out" in done.stdout
    ids = [row["id"] for row in read_table(tmp_path / "c/sections/de.parquet")]
    assert ids == ["de:docs/a#1", "de:docs/a#2", *(f"de:squad/{a}.{p}" for a in (1, 2, 3) for p in (0, 1))]


def test_build_collections(sample_collection):
    for name in ("en-de", "de-en"):
        query_language, language = name.split("-")
        read = read_collection(sample_collection / name)
        lines = [
            json.loads(line)
            for line in (REPOSITORY / f"sample/test/{language}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert read.documents == {f"test/{line['id']}": " ".join(line["sentences"]) for line in lines}
        source = (REPOSITORY / f"sample/test/queries.{query_language}.tsv").read_text(encoding="utf-8")
        assert read.queries == dict(line.split("\t") for line in source.splitlines())
        assert set(read.qrels) == set(read.queries) and read.name == name
        for fold in range(5):
            assert all(read.split(fold))


def test_build_collections_of_squad(tmp_path):
    for language in ("en", "de"):
        write(tmp_path / f"squad/x.{language}.json", squad(language))
    options = ("--squad", tmp_path / "squad", "--squad_articles", ":1")
    run("scripts/build_collections.py", tmp_path / "out", "--pairs", "de-en", *options)
    read = read_collection(tmp_path / "out/de-en")
    assert read.documents == {"squad/0.0": "en 0.0", "squad/0.1": "en 0.1"}
    assert read.queries["0.1.0"] == "de 0.1.0?" and read.qrels["0.1.0"] == {"squad/0.1": 1}


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("build_corpus", ("--languages", "en,xx", "--documents", "sample/train"), "xx.jsonl"),
        ("build_corpus", ("--languages", "en,de"), "nothing to read"),
        ("build_collections", ("--pairs", "en-xx", "--documents", "sample/test"), "xx.jsonl"),
        ("build_collections", ("--pairs", "ende", "--documents", "sample/test"), "'ende'"),
    ],
)
def test_scripts_refuse(script, options, message, tmp_path):
    done = run(f"scripts/{script}.py", tmp_path / "out", *options, check=False)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr and done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@bug(reason="qrels are not checked against the documents of the language: what is written cannot be read")
def test_build_collections_of_documents_that_are_not_in_all_languages(tmp_path):
    for language, ids in (("en", "ab"), ("de", "a")):
        documents(tmp_path / "docs", **{language: [{"id": i, "text": f"{language} {i}"} for i in ids]})
        write(tmp_path / f"docs/queries.{language}.tsv", "q1\tx", "q2\ty")
    write(tmp_path / "docs/qrels.txt", "q1 0 a 1", "q2 0 b 1")
    options = ("--pairs", "en-de", "--documents", tmp_path / "docs")
    done = run("scripts/build_collections.py", tmp_path / "out", *options, check=False)
    if done.returncode == 0:
        read_collection(tmp_path / "out/en-de")
    else:
        assert not (tmp_path / "out/en-de").exists() and done.stderr.startswith("error: ")
