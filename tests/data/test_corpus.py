"""Pretraining corpora from documents and SQuAD files."""

import json
import math
import zlib
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from modeling_clir.data.corpus import (
    Section,
    article_folds,
    mine_negatives,
    parallel_squad,
    parse_articles,
    read_documents,
    read_questions,
    read_squad,
    write_corpus,
)

from ..conftest import REPOSITORY, run
from ..helpers import squad, write


LANGUAGES = ["en", "de", "fr", "es"]


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
        ('{"id": "b", "text": "a \\ud83d b"}', "a string has a lone surrogate"),
        ([1], "expected a JSON object, got list"),
        ({"text": "B"}, "the key 'id' is missing"),
        ({"id": "b"}, "neither 'sentences' nor 'text'"),
        (GOOD, "the id 'a' occurs more than once"),
        ({"id": "b", "text": 5}, "'text' must be a string, got 5"),
        ({"id": "b", "text": "B", "title": ["T"]}, "'title' must be a string"),
        ({"id": "b", "sentences": ["B", None]}, "'sentences' must be a list of strings"),
        ({"id": "b", "sentences": "B"}, "'sentences' must be a list of strings"),
        ({"id": "b", "text": "B", "sentence_ids": 5}, "'sentence_ids' must be a list"),
        ({"id": ["b"], "text": "B"}, "'id' must be a string"),
        ({"id": None, "text": "B"}, "'id' must be a string"),
    ],
)
def test_documents_errors(line, message, tmp_path):
    write(tmp_path / "en.jsonl", GOOD, "", line)
    with pytest.raises(ValueError, match=message) as error:
        read_documents(tmp_path, ["en"])
    assert str(error.value).startswith(f"{tmp_path / 'en.jsonl'}:3: ")


def test_documents_without_text_are_counted(tmp_path, caplog):
    """They are left out in the language that has no text; the others are built."""
    lines = [{"id": str(i), "sentences": [f"{i}.", "x"]} for i in range(8)]
    documents(tmp_path / "d", en=lines, de=lines)
    empty = [{"sentences": []}, {"sentences": ["", " "]}, {"text": " \u00a0\t", "sentences": None}]
    documents(tmp_path / "d", de=[line | dict(enumerate(empty)).get(i, {}) for i, line in enumerate(lines)])
    sections = read_documents(tmp_path / "d", ["en", "de"], 1)
    assert {len(section.text) for section in sections if section.key[2] in "012"} == {1}
    assert {len(section.text) for section in sections if section.key[2] not in "012"} == {2}
    assert caplog.messages == [f"{tmp_path}/d: 3 documents have no text, {tmp_path}/d/de.jsonl:1 the first; left out"]
    done = run("scripts/build_corpus.py", tmp_path / "c", "--languages", "en,de", "--documents", tmp_path / "d")
    assert (
        "3 documents have no text" in done.stderr and pq.read_table(tmp_path / "c/sections/de.parquet").num_rows == 5
    )


def test_parts_without_text_are_counted(tmp_path, caplog):
    lines = [{"id": str(i), "sentences": ["a", " ", "b", " "]} for i in range(3)]
    assert len(read_documents(documents(tmp_path / "d", en=lines), ["en"], 1)) == 6
    assert caplog.messages == [f"{tmp_path}/d: 6 parts have no text in some language, 'd/0#2' the first; left out"]


@pytest.mark.parametrize("name", [".", "sub/.."])
def test_names_of_folders(name, tmp_path, monkeypatch):
    (tmp_path / "source/sub").mkdir(parents=True)
    documents(tmp_path / "source", en=[GOOD])
    write(tmp_path / "source/x.en.json", squad("en"))
    monkeypatch.chdir(tmp_path / "source")
    (section,) = read_documents(Path(name), ["en"])
    assert (section.key, section.article) == ("source/a", "source/a")
    assert read_squad(Path(name), ["en"])[0].key == "source/0.0"
    assert read_questions(Path(name), ["en"])[1]["0.0.0"] == {"source/0.0": 1}


def test_documents_with_null_for_what_is_optional(tmp_path):
    write(tmp_path / "en.jsonl", GOOD | {"sentences": None, "title": None, "heading": None, "article": None})
    (section,) = read_documents(tmp_path, ["en"])
    assert section.text == {"en": "A"} and section.title == section.heading == {"en": ""}


@pytest.mark.parametrize("most", [0, -1])
def test_documents_max_sentences(most, tmp_path):
    write(tmp_path / "en.jsonl", GOOD)
    with pytest.raises(ValueError, match="max_sentences"):
        read_documents(tmp_path, ["en"], most)


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
    # The number of an article does not depend on the articles that are read.
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
        ("{", "not JSON"),
        ({"data": [{"title": "\\ud83d", "paragraphs": []}]}, "not parallel"),
        ('{"data": [], "x": "\\ud83d"}', "a string has a lone surrogate"),
        (squad("de", ((2, 1), (2,))), "not parallel to .*article 1 "),
        (squad("de", ((2, 1),)), "not parallel to .*article 1 "),
        (squad("de", ((2, 1), (1,), (1,))), "not parallel to .*article 2 "),
        (squad("de", ((1, 2), (1,))), "not parallel to .*article 0 "),
        (squad("de", context=None), "not in SQuAD's layout"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "1"}]}]}]}, "not in SQuAD's layout"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "1", "question": "y"}] * 2}]}]}, "id '1' occurs"),
    ],
)
def test_squad_errors(german, message, tmp_path):
    write(tmp_path / "x.en.json", squad("en"))
    write(tmp_path / "x.de.json", german)
    for read in (parallel_squad, read_squad, read_questions):
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path, ["en", "de"])
        assert str(error.value).startswith(str(tmp_path / "x.de.json"))


def test_squad_with_empty_texts(tmp_path, caplog):
    """Empty texts are left out in all languages, so that the files stay parallel, and counted."""
    english, german = squad("en"), squad("de")
    english["data"][0]["paragraphs"][1]["context"] = " \n"
    german["data"][0]["paragraphs"][0]["qas"][1]["question"] = ""
    write(tmp_path / "x.en.json.gz", english)
    write(tmp_path / "x.de.json", german)
    sections = read_squad(tmp_path, ["en", "de"])
    questions, relevant = read_questions(tmp_path, ["en", "de"])
    name = tmp_path.name
    assert [section.key for section in sections] == [f"{name}/0.0", f"{name}/1.0"]
    assert all(section.text.keys() == {"en", "de"} for section in sections)
    assert list(questions["en"]) == list(questions["de"]) == list(relevant) == ["0.0.0", "1.0.0"]
    assert set(caplog.messages) == {f"{tmp_path}: 1 paragraphs and 1 questions are empty in some language; left out"}


@pytest.mark.parametrize("kind", ["documents", "parts", "squad"])
def test_strict_refuses_empty_texts(kind, tmp_path):
    folder, german = tmp_path / "d", squad("de")
    if kind == "squad":
        german["data"][0]["paragraphs"][1]["context"] = " "
        write(folder / "x.en.json", squad("en"))
        write(folder / "x.de.json", german)
    else:
        lines = [{"id": "a", "sentences": ["One.", "Two."]}, {"id": "b", "sentences": ["One.", "Two."]}]
        empty = lines[1] | {"sentences": ["One.", " "] if kind == "parts" else []}
        documents(folder, en=lines, de=[lines[0], empty])
    options = ("--squad" if kind == "squad" else "--documents", folder, "--max_sentences", "1", "--strict")
    done = run("scripts/build_corpus.py", tmp_path / "c", "--languages", "en,de", *options, check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {folder}") and "--strict" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_squad_without_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="en, de"):
        read_squad(tmp_path, ["en", "de"])


def test_squad_with_two_files_of_a_language(tmp_path):
    for name in ("dev", "train"):
        write(tmp_path / f"{name}.en.json", squad("en"))
    with pytest.raises(ValueError, match=r"more than one file \*\.en\.json: dev\.en\.json, train\.en\.json"):
        read_squad(tmp_path, ["en"])


def test_parse_articles():
    for text, expected in (("24:36", (24, 36)), (":3", (None, 3)), ("3:", (3, None)), (":", (None, None))):
        assert parse_articles(text) == slice(*expected)
    for bad in ("24", "a:b", "1:2:3", "-1:", ""):
        with pytest.raises(ValueError, match="squad_articles"):
            parse_articles(bad)


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
    everything.append(section("only-en", "0" if parts > 1 else "alone", en="An English section."))
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
        assert held_out[pair, "train"].isdisjoint(held_out[pair, "validation"])
        assert splits["validation"] >= 0.2 * articles * parts
    # No section of a held-out article is a negative in training.
    for row in read_table(tmp_path / "corpus/pairs/en-de/train.parquet"):
        used = {sections[n]["article"] for n in row["source_negatives"] + row["target_negatives"]}
        assert used.isdisjoint(held_out["en-de", "validation"])


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


def test_corpus_failure_leaves_nothing(tmp_path):
    sections = some_sections(2, 2)
    sections[-1].heading["de"] = 5  # this error comes after English is written
    with pytest.raises(TypeError):
        write_corpus(tmp_path / "corpus", sections, ["en", "de"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "languages"),
    [({"num_negatives": -1}, "en"), ({"validation_fraction": 1.0}, "en"), ({}, "zh-Hans")],
    ids=["num_negatives", "validation_fraction", "hyphen"],
)
def test_corpus_arguments(option, languages, tmp_path):
    with pytest.raises(ValueError, match=next(iter(option), "hyphen")):
        write_corpus(tmp_path / "corpus", some_sections(2, 2, (languages,)), [languages], **option)
    assert list(tmp_path.iterdir()) == []


def test_corpus_of_short_words(tmp_path):
    texts = ["长 城", "是", "a b", "?"]
    sections = [section(str(i), str(i), zh=text, en="a word") for i, text in enumerate(texts)]
    write_corpus(tmp_path / "corpus", sections, ["zh", "en"], 0.0, 1)
    near = {r["source_id"]: r["source_negatives"] for r in read_table(tmp_path / "corpus/pairs/zh-en/train.parquet")}
    assert near.keys() == {f"zh:s/{i}" for i in range(4)} and all(len(negatives) == 1 for negatives in near.values())


def test_corpus_refuses_a_key_that_occurs_twice(tmp_path):
    with pytest.raises(ValueError, match=r"section 's/0\.0'"):
        write_corpus(tmp_path / "corpus", some_sections(2, 2) + some_sections(2, 2), ["en", "de"])
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--languages", "en,xx", "--documents", "sample/train"), "xx.jsonl"),
        (("--languages", "en,de"), "nothing to read"),
        (("--languages", "en,de", "--squad", "sample/train", "--squad_articles", "24"), "24:36"),
    ],
)
def test_build_corpus_refuses(options, message, tmp_path):
    done = run("scripts/build_corpus.py", tmp_path / "out", *options, check=False)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr and done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_corpus_refuses_sections_that_nothing_is_aligned_with(tmp_path):
    sections = [section("a", "a", en="one"), section("b", "b", de="zwei")]
    with pytest.raises(ValueError, match="no section exists in two of the languages en, de"):
        write_corpus(tmp_path / "corpus", sections, ["en", "de"])
    assert list(tmp_path.iterdir()) == []


def test_folds_of_whole_articles():
    sections = [Section(f"s/{article}.{part}", f"s/{article}") for article in range(6) for part in range(2)]
    qrels = {f"q{article}.{part}": {"s/0.0": 0, f"s/{article}.{part}": 1} for article in range(6) for part in range(2)}
    folds = article_folds(sections, qrels)
    assert folds == [["q0.0", "q0.1", "q5.0", "q5.1"], *([f"q{i}.0", f"q{i}.1"] for i in range(1, 5))]
    with pytest.raises(ValueError, match="7 folds of whole articles need 7 articles with queries, got 6"):
        article_folds(sections, qrels, 7)
    with pytest.raises(ValueError, match="query 'lost' has no relevant section"):
        article_folds(sections, qrels | {"lost": {"s/0.0": 0}})


def between(values: np.ndarray, share: float) -> float:
    """Returns a number that about this share of the values is below, in the widest gap there, so no rounding moves one."""
    values = np.sort(values[values < 1 - 1e-4], axis=None)
    near = slice(max(0, int(share * len(values)) - 50), int(share * len(values)) + 50)
    place = near.start + int(np.diff(values[near]).argmax())
    return float((values[place] + values[place + 1]) / 2)


@pytest.mark.parametrize("kept", [0.05, 0.5, 1.0])
def test_mined_negatives_are_those_of_sentence_transformers(kept, tiny_bert):
    sections = read_documents(REPOSITORY / "sample/test", ["en", "de"])
    model, vectors = SentenceTransformer(str(tiny_bert)), {}
    for language in ("en", "de"):
        found = model.encode([s.text[language] for s in sections], normalize_embeddings=True)
        vectors[language] = dict(zip([s.key for s in sections], found))
    queries, documents = np.stack(list(vectors["en"].values())), np.stack(list(vectors["de"].values()))
    scores = queries @ documents.T
    margin = between(scores / scores.diagonal()[:, None], kept)
    negatives, left_out = mine_negatives(vectors["en"], vectors["de"], 4, margin)
    pairs = Dataset.from_list([{"query": s.text["en"], "answer": s.text["de"]} for s in sections])
    options = {"num_negatives": 4, "range_max": len(sections) - 1, "output_format": "labeled-pair", "verbose": False}
    peer = mine_hard_negatives(pairs, model, relative_margin=1 - margin, **options)
    rows = {s.text["de"]: row for row, s in enumerate(sections)}
    keys = {s.key: row for row, s in enumerate(sections)}
    for s, own in zip(sections, scores):
        theirs = [own[rows[row["answer"]]] for row in peer if row["query"] == s.text["en"] and not row["label"]]
        # By their scores: the order of equal ones is the rounding's.
        assert [own[keys[key]] for key in negatives[s.key]] == pytest.approx(theirs, abs=1e-5)
    assert left_out == (scores > margin * scores.diagonal()[:, None]).sum() - (margin < 1) * len(scores) > 0
    assert any(negatives.values()) and (kept == 1 or any(len(listed) < 4 for listed in negatives.values()))


def test_mined_negatives_below_a_negative_score():
    """A translation of another direction: what is left out still scores above a share of it, not above all."""
    queries = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    vectors = {"a": np.array([-0.5, 1.0]), "b": np.array([-0.52, 0.0]), "c": np.array([-0.6, 0.0])}
    assert mine_negatives(queries, vectors, 5, 0.9) == ({"a": ["c"], "b": ["c"]}, 2)


@pytest.fixture
def exact_vectors(monkeypatch):
    """A vector follows from the text and its prompt alone, not from the batch. No two products are nearly equal."""

    def encode(self, inputs, prompt_name=None, prompt=None, **options):
        prompt = prompt or self.prompts.get(prompt_name) or ""
        one = isinstance(inputs, str)
        vectors = np.stack(
            [
                np.random.default_rng(zlib.crc32((prompt + text).encode())).uniform(0, 1, 16)
                for text in ([inputs] if one else inputs)
            ]
        ).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors[0] if one else vectors

    monkeypatch.setattr(SentenceTransformer, "encode", encode)


def test_corpus_of_mined_negatives(exact_vectors, tiny_bert, tmp_path, caplog):
    sections = read_documents(REPOSITORY / "sample/train", ["en", "de"])
    sections.append(section("twin", "twin", **sections[0].text))
    sections.append(section("only-en", "only-en", en="An English section."))
    options = {"negatives_from": str(tiny_bert), "negatives_margin": 0.97, "prompts": ("query: ", "passage: ")}
    write_corpus(tmp_path / "c", sections, ["en", "de"], 0.2, 3, same_language=True, **options)
    model, left_out, short, lists = SentenceTransformer(str(tiny_bert)), 0, 0, 0
    by_key = {s.key: s for s in sections}
    held_out = {row["source_id"][3:] for row in read_table(tmp_path / "c/pairs/en-en/validation.parquet")}
    assert 0 < len(held_out) < len(sections) / 2
    for split in ("train", "validation"):
        vectors = {"en": {}, "de": {}}
        for row in read_table(tmp_path / f"c/pairs/en-en/{split}.parquet"):  # equal scores are in this order
            key = row["source_id"][3:]
            for language, text in by_key[key].text.items():
                vectors[language][key] = model.encode("passage: " + text, normalize_embeddings=True)
        for query, language in permutations(("en", "de"), 2):
            expected, likely = mine_negatives(vectors[query], vectors[language], 3, 0.97)
            rows = read_table(tmp_path / f"c/pairs/en-de/{split}.parquet")
            side = "source" if language == "en" else "target"
            found = {row["source_id"][3:]: row[f"{side}_negatives"] for row in rows}
            assert found == {key: [f"{language}:{one}" for one in listed] for key, listed in expected.items()}
            same, more = mine_negatives(vectors[language], vectors[language], 3, 0.97)
            rows = read_table(tmp_path / f"c/pairs/{language}-{language}/{split}.parquet")
            for row in rows:
                key = row["source_id"][3:]
                assert row["source_negatives"] == row["target_negatives"] == [f"{language}:{one}" for one in same[key]]
            left_out, lists = left_out + likely + more, lists + len(expected) + len(same)
            short += sum(len(listed) < 3 for listed in [*expected.values(), *same.values()])
    assert f"hard negatives of {lists} sections and directions: {left_out} candidates score above 0.97" in caplog.text
    assert f"{short} lists have fewer than 3" in caplog.text
    rows = {row["source_id"]: row for row in read_table(tmp_path / "c/pairs/en-en/train.parquet")}
    twin = f"en:{sections[0].key}"  # the same text
    assert "en:s/twin" not in rows.get(twin, {"source_negatives": []})["source_negatives"] and left_out
