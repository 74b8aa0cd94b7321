"""Examples of QLM and RR from a corpus."""

import math
import multiprocessing
import pickle
import random
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import filter_repo_objects

from modeling_clir.data import sections as module
from modeling_clir.data.languages import card_languages
from modeling_clir.data.sections import (
    ExampleKey,
    PretrainingDataset,
    sample_negatives,
    split_sentences,
)
from modeling_clir.model_card import write_model_card

from ..helpers import write


def raw_corpus(folder: Path, sections: dict[str, dict], pairs: dict[str, list[tuple]], split="train") -> str:
    """Writes a corpus. `sections[language]` maps id to text; `pairs` has source_id, target_id and negatives."""
    (folder / "sections").mkdir(parents=True, exist_ok=True)
    for language, texts in sections.items():
        columns = zip(*(texts.items() if isinstance(texts, dict) else texts))
        table = pa.table([pa.array(column, pa.string()) for column in columns], names=("id", "text"))
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
    """Writes a corpus: sections i of en and de are aligned, and the negatives of i are the next two sections."""
    texts = {
        language: {f"{language}{i}": f"{language}{i} one. {language.upper()}{i} two." for i in range(number)}
        for language in ("en", "de")
    }
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
                assert example.query in (f"{source}{index} one.", f"{source.upper()}{index} two.")
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


def taught_corpus(folder: Path, sections: int = 6) -> str:
    """
    Adds a teacher's scores to the [`numbered_corpus`]: 100 times the section's number, plus 10 times the sentence's,
    plus the document's place; .5 more if the documents are German. Section 1 lists a single German negative.
    """
    corpus = numbered_corpus(folder, sections)
    path = folder / "pairs/en-de/train.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["target_negatives"].pop()
    for i, row in enumerate(rows):
        for side, more in (("source", 0.0), ("target", 0.5)):
            width = 1 + len(row[f"{side}_negatives"])
            row[f"{side}_scores"] = [[100 * i + 10 * s + p + more for p in range(width)] for s in range(2)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return corpus


@pytest.mark.parametrize("pair", ["en-de", "de-en"])
def test_scores_of_a_teacher(pair, tmp_path, caplog):
    corpus = taught_corpus(tmp_path / "c")
    dataset = PretrainingDataset(corpus, both(pair), num_negatives=2, teacher_scores=True)
    assert dataset.sizes == {("qlm", pair): 6, ("rr", pair): 5} and len(dataset) == 11
    assert f"{pair} train: 1 of 6 aligned sections list fewer than 2 negatives" in caplog.text
    seen = set()
    for index in range(5):
        for epoch in range(12):
            example = dataset[ExampleKey("rr", pair, index, epoch)]
            number = index + (index > 0)  # section 1 is left out
            language, german = example.pair[:2], example.pair == "en-de"
            sentence = [f"{language}{number} one.", f"{language.upper()}{number} two."].index(example.query)
            other = example.pair[3:]
            places = [[f"{other}{(number + p) % 6} one" in text for p in range(3)] for text in example.documents]
            places = [row.index(True) for row in places]
            assert places[0] == 0 and sorted(places) == [0, 1, 2]
            assert example.teacher_scores == [100 * number + 10 * sentence + p + 0.5 * german for p in places]
            seen.add((german, sentence, places[1]))
    assert len(seen) == 8
    assert dataset[ExampleKey("qlm", pair, 1)].teacher_scores is None
    plain = PretrainingDataset(corpus, both(pair), num_negatives=2)
    assert plain.sizes["rr", pair] == 6 and plain[ExampleKey("rr", pair, 0)].teacher_scores is None


def test_scores_of_a_teacher_that_are_missing(tmp_path):
    corpus = numbered_corpus(tmp_path / "none", 6)
    with pytest.raises(ValueError, match=r"en-de/train\.parquet has no teacher's scores .*--teacher_model"):
        PretrainingDataset(corpus, both("de-en"), teacher_scores=True)
    assert PretrainingDataset(corpus, {"qlm": ["en-de"]}, teacher_scores=True).sizes == {("qlm", "en-de"): 6}
    corpus = taught_corpus(tmp_path / "few")
    with pytest.raises(ValueError, match="no section lists 3 negatives; lower num_negatives"):
        PretrainingDataset(corpus, both("en-de"), num_negatives=3, teacher_scores=True)
    path = tmp_path / "few/pairs/en-de/train.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["source_scores"].pop()
        row["target_scores"].pop()
    pq.write_table(pa.Table.from_pylist(rows), path)
    dataset = PretrainingDataset(corpus, both("en-de"), teacher_scores=True)
    with pytest.raises(ValueError, match="scores of pair 0 do not fit its 2 sentences and 2 negatives; build"):
        dataset[ExampleKey("rr", "en-de", 0)]


def test_pair_in_the_other_order(tmp_path):
    """The corpus holds en-de; de-en has the same pairs, with sides and negatives swapped."""
    corpus = numbered_corpus(tmp_path, 6)
    one, other = PretrainingDataset(corpus, both("en-de")), PretrainingDataset(corpus, both("de-en"))
    for index in range(6):
        swapped = other[ExampleKey("rr", "de-en", index, 0, 0)]
        assert swapped.pair == "de-en"
        assert swapped.query.lower().startswith(f"de{index}") and swapped.documents[0].startswith(f"en{index}")
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
                assert example.query == text  # the section has only this sentence
            else:
                assert example.query not in document
                assert sorted((example.query + " " + document).split()) == sorted(text.split())
    assert {"One here.", "Two here.", "Three here.", "Alone."} <= seen


@pytest.mark.parametrize("language", ["en", "zh", "xx", "x", ""])
def test_sentences_of_any_language(language):
    text = "\nOne here. Two\tthere.\n\n 你好。世界。 Last"
    sentences = split_sentences(text, language)
    assert len(sentences) > 3 and all(sentence == sentence.strip() != "" for sentence in sentences)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert split_sentences(" One ", language) == ["One"]


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
        chosen.append({int(example.query.lower().split()[0].removeprefix("en")) for example in examples})
        for example in examples:  # a row keeps its negatives
            number = int(example.query.lower().split()[0].removeprefix("en"))
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
            (EN, DE),
            {"en-de": [("a", "c", [], []), ("b", "c", [], [])]},
            ValueError,
            "1 negatives cannot be drawn from 1",
        ),
        ((EN, DE), {"en-de": []}, ValueError, r"en-de/train\.parquet must be .* at least one row"),
        (
            (EN | {"e": " \u00a0\n"}, DE),
            {"en-de": [("a", "c", [], [])]},
            ValueError,
            r"en\.parquet: section 'e' has no",
        ),
        ((EN | {"e": None}, DE), {"en-de": [("a", "c", [], [])]}, ValueError, r"en\.parquet: section 'e' has no text"),
        (([("a", "x"), ("a", "y")], DE), {"en-de": [("a", "c", [], [])]}, ValueError, "the id 'a' occurs"),
    ],
)
def test_corpus_errors(sections, pairs, kind, message, tmp_path):
    present = {language: texts for language, texts in zip(("en", "de"), sections) if texts}
    corpus = raw_corpus(tmp_path / "c", present, pairs)
    with pytest.raises(kind, match=message):
        PretrainingDataset(corpus, both("en-de"))


def test_corpus_errors_of_names(tmp_path):
    corpus = numbered_corpus(tmp_path / "corpus", 3)
    for name in (str(tmp_path / "nothing"), "./nothing", "nothing", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="there is no "):
            PretrainingDataset(name, both("en-de"))
    with pytest.raises(FileNotFoundError, match=r"no pairs/en-de/validation\.parquet"):
        PretrainingDataset(corpus, both("en-de"), split="validation")
    with pytest.raises(ValueError, match="3 negatives cannot be drawn from 3"):
        PretrainingDataset(corpus, both("en-de"), num_negatives=3)
    with pytest.raises(ValueError, match="max_pairs must be at least 1, got 0"):
        PretrainingDataset(corpus, both("en-de"), max_pairs=0)
    assert len(PretrainingDataset(corpus, {"qlm": ["en-de"]}, num_negatives=3)) == 3
    write(tmp_path / "corpus/sections/en.parquet", "not a table")
    with pytest.raises(ValueError, match=r"sections/en\.parquet must be a Parquet file with the columns id, text"):
        PretrainingDataset(corpus, both("en-de"))


def test_corpus_of_the_hub(tmp_path, monkeypatch):
    """Only the list of a repository's files is requested, and then the needed files, by name."""
    corpus = numbered_corpus(tmp_path, 6)
    (tmp_path / "pairs/en-de/train").mkdir()
    (tmp_path / "pairs/en-de/train.parquet").rename(tmp_path / "pairs/en-de/train/[0].parquet")
    listed = ["sections/en.parquet", "sections/de.parquet", "pairs/en-de/train/[0].parquet"]
    downloaded = []

    def download(name, repo_type, allow_patterns):
        assert (name, repo_type) == ("someone/corpus", "dataset")
        downloaded.append(list(filter_repo_objects(repository, allow_patterns=allow_patterns)))
        return corpus

    def list_hub(name, repo_type):
        if (name, repo_type) != ("someone/corpus", "dataset"):
            raise OSError("404") if name != "no/network" else HTTPError("Name or service not known")
        return repository

    repository = ["README.md", "sections/fr.parquet", "pairs/en-de/train/notes.txt", *listed]
    monkeypatch.setattr(module, "list_repo_files", list_hub)
    monkeypatch.setattr(module, "snapshot_download", download)
    for pair in ("en-de", "de-en"):
        example = PretrainingDataset("someone/corpus", both(pair))[ExampleKey("rr", pair, 2, 0, 0)]
        assert example.pair == pair and example.documents[0].startswith(f"{pair[3:]}2 ")
    assert downloaded == [listed, listed]
    with pytest.raises(FileNotFoundError, match="no language pair en-fr; it has en-de"):
        PretrainingDataset("someone/corpus", both("en-fr"))
    with pytest.raises(FileNotFoundError, match="no pairs/en-de/validation"):
        PretrainingDataset("someone/corpus", both("en-de"), split="validation")
    with pytest.raises(FileNotFoundError, match=r"someone/else is not a folder.*404"):
        PretrainingDataset("someone/else", both("en-de"))
    with pytest.raises(FileNotFoundError, match=r"no/network is not a folder.*: Name or service not known"):
        PretrainingDataset("no/network", both("en-de"))

    def fail(*args, **options):
        raise OSError("connection lost")

    monkeypatch.setattr(module, "snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"someone/corpus cannot be downloaded .*: connection lost"):
        PretrainingDataset("someone/corpus", both("en-de"))


def in_shards(corpus: str, table: str, *rows: int) -> list[Path]:
    """Cuts a table of a corpus into shards with these numbers of rows; the last one has the others."""
    path = Path(corpus) / f"{table}.parquet"
    whole, start, shards = pq.read_table(path), 0, []
    path.unlink()
    path.with_suffix("").mkdir()
    for number in (*rows, None):
        part = whole.slice(start, number)
        shards.append(path.with_suffix("") / f"part-{len(shards):05d}.parquet")
        pq.write_table(part, shards[-1])
        start += part.num_rows
    return shards


@pytest.mark.parametrize("max_pairs", [None, 11])
@pytest.mark.parametrize("pair", ["en-de", "de-en"])
def test_shards_give_the_examples_of_one_file(pair, max_pairs, tmp_path):
    options = {"num_negatives": 2, "max_pairs": max_pairs, "teacher_scores": True, "seed": 3}
    whole = PretrainingDataset(taught_corpus(tmp_path / "a", 20), both(pair), **options)
    corpus = taught_corpus(tmp_path / "b", 20)
    in_shards(corpus, "sections/en", 3, 0, 9)
    in_shards(corpus, "pairs/en-de/train", 0, 1, 12)
    dataset = PretrainingDataset(corpus, both(pair), **options)
    assert dataset.sizes == whole.sizes
    for (task, name), size in dataset.sizes.items():
        for index in range(size):
            key = ExampleKey(task, name, index)
            assert dataset[key] == whole[key]
            if task == "rr":  # the scores are those of the pair: section i has 100 * i and more
                number = int(dataset[key].query.lower().split()[0][2:])
                assert all(score // 100 == number for score in dataset[key].teacher_scores)


def test_a_table_in_both_forms_is_refused(tmp_path):
    corpus = numbered_corpus(tmp_path, 6)
    for table in ("sections/de", "pairs/en-de/train"):
        (tmp_path / table).mkdir()
        copy = shutil.copy(tmp_path / f"{table}.parquet", tmp_path / table / "x.parquet")
        with pytest.raises(ValueError, match=rf"has both {table}\.parquet and {table}/x\.parquet; remove one"):
            PretrainingDataset(corpus, both("en-de"))
        Path(copy).unlink()
        Path(copy).parent.rmdir()


def test_errors_name_the_shard(tmp_path):
    corpus = numbered_corpus(tmp_path, 6)
    shards = in_shards(corpus, "sections/de", 2, 2) + in_shards(corpus, "pairs/en-de/train", 2, 2)
    PretrainingDataset(corpus, both("en-de"))

    def refused(shard: Path, table: pa.Table | bytes, message: str):
        before = shard.read_bytes()
        shard.write_bytes(table) if isinstance(table, bytes) else pq.write_table(table, shard)
        with pytest.raises(ValueError, match=re.escape(str(shard.relative_to(tmp_path))) + ".*" + message):
            PretrainingDataset(corpus, both("en-de"))
        shard.write_bytes(before)

    section, aligned = pq.read_table(shards[1]), pq.read_table(shards[4])
    refused(shards[1], section.rename_columns(["key", "text"]), "must be .* columns id, text; it has no id, but key")
    refused(shards[4], aligned.drop_columns("source_negatives"), "it has no source_negatives, but source_id")
    refused(shards[1], section.set_column(1, "text", pa.array(["x", " "])), "section 'de3' has no text")
    refused(shards[1], section.set_column(0, "id", pa.array(["x", None])), "a section has no id")
    refused(shards[4], aligned.set_column(1, "target_id", pa.array(["de2", "zz"])), "no section has the id 'zz'")
    refused(shards[4], aligned.set_column(2, "source_negatives", pa.array([3, 4])), "cannot be read: .*list")
    refused(shards[1], shards[1].read_bytes()[:50], "must be a Parquet file")
    damaged = bytearray(shards[1].read_bytes())
    damaged[10:20] = bytes(10)
    refused(shards[1], bytes(damaged), "cannot be read")
    shards[1].write_bytes(shards[0].read_bytes())
    with pytest.raises(ValueError, match="sections/de: the id 'de0' occurs more than once"):
        PretrainingDataset(corpus, both("en-de"))
    for shard in shards[:3]:
        pq.write_table(section.slice(0, 0), shard)
    with pytest.raises(ValueError, match=r"sections/de must be .* and at least one row"):
        PretrainingDataset(corpus, both("en-de"))


def test_row_numbers_are_computed_once_for_the_same_files(tmp_path, monkeypatch):
    corpus, built = numbered_corpus(tmp_path, 8), []
    for name in ("index_pairs", "check_sections", "select_pairs"):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, f=function, n=name: built.append(n) or f(*args))
    for max_pairs in (None, None, 5, 5):
        PretrainingDataset(corpus, both("en-de"), max_pairs=max_pairs)
    PretrainingDataset(corpus, both("de-en"))  # the same files
    assert built == ["check_sections", "check_sections", "index_pairs", "select_pairs"]
    numbered_corpus(tmp_path, 9)
    dataset = PretrainingDataset(corpus, both("en-de"))
    assert dataset.sizes["rr", "en-de"] == 9 and dataset[ExampleKey("rr", "en-de", 8, 0, 0)].query.endswith(
        ("8 one.", "8 two.")
    )
    assert built[4:] == ["check_sections", "check_sections", "index_pairs"]


def test_row_numbers_are_mapped_and_not_pickled(tmp_path):
    dataset = PretrainingDataset(numbered_corpus(tmp_path, 5000), both("en-de"), max_pairs=4000)
    small = PretrainingDataset(numbered_corpus(tmp_path / "small", 6), both("en-de"))
    aligned = dataset.pairs["en-de"]
    for arrays in (aligned.rows, aligned.negatives, aligned.offsets, aligned.pools):
        assert all(isinstance(array, np.memmap) and array.mode == "r" for array in arrays)
    pickled = pickle.dumps(dataset)
    assert len(pickled) < len(pickle.dumps(small)) + 10_000
    again = pickle.loads(pickled)
    for key in (ExampleKey("rr", "en-de", index) for index in range(0, 4000, 500)):
        assert again[key] == dataset[key]


def build_slowly(folder: str, place: int, built):
    """One of several processes that start together."""

    def build():
        with built.get_lock():
            built.value += 1
        time.sleep(0.5)
        return {"x": np.arange(7)}

    datasets.config.HF_DATASETS_CACHE = folder
    assert np.load(module.cached_arrays(["key"], build) / "x.npy").tolist() == list(range(7))


def test_one_of_several_processes_computes(tmp_path):
    context = multiprocessing.get_context("fork")
    built = context.Value("i", 0)
    processes = [context.Process(target=build_slowly, args=(str(tmp_path), i, built)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4 and built.value == 1


def test_a_failure_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)

    def build():
        raise ValueError("bad rows")

    with pytest.raises(ValueError, match="bad rows"):
        module.cached_arrays(["key"], build)
    assert not [path for path in (tmp_path / "modeling_clir").iterdir() if path.is_dir()]
    assert (module.cached_arrays(["key"], lambda: {"x": np.arange(3)}) / "x.npy").is_file()


def test_corpus_in_a_folder_with_brackets(tmp_path):
    corpus = numbered_corpus(tmp_path / "corpus[1]", 3)
    assert len(PretrainingDataset(corpus, both("en-de"))) == 6


def test_corpus_of_linked_folders(tmp_path):
    numbered_corpus(tmp_path / "real", 3)
    (tmp_path / "corpus").mkdir()
    for name in ("sections", "pairs"):
        (tmp_path / "corpus" / name).symlink_to(tmp_path / "real" / name)
    assert len(PretrainingDataset(str(tmp_path / "corpus"), both("en-de"))) == 6


def test_languages_of_model_cards(tmp_path, caplog):
    """Pairs of Wikipedia's codes can be trained; the card leaves codes out that the Hub refuses (logged)."""
    codes = ["en", "simple", "zh_classical", "lzh", "qq", "EN", "zh-Hant", "multilingual", "code", "english", "haw"]
    assert card_languages(codes) == ["en", "lzh", "multilingual", "code", "haw"]
    numbered_corpus(tmp_path / "corpus", 3)
    for name in ("sections/de.parquet", "pairs/en-de"):
        (tmp_path / "corpus" / name).rename(tmp_path / "corpus" / name.replace("de", "simple"))
    assert len(PretrainingDataset(str(tmp_path / "corpus"), both("en-simple"))) == 6
    assert "no model card with the language simple: the card leaves it out" in caplog.text
    sizes = {("rr", "en-simple"): 3}
    path = write_model_card(tmp_path, "name", None, sizes, {}, {}, max_length=128, model_type="bert")
    assert ModelCard.load(path).data.language == ["en"] and "simple" in path.read_text(encoding="utf-8")


def test_negatives_never_positive_and_never_twice():
    rng = random.Random(0)
    for _ in range(2000):
        pool = list(range(rng.randint(4, 12)))
        positive = rng.choice(pool)
        hard = rng.choices(
            range(14),
            k=rng.randint(0, 6),
            # With repetitions, the positive, and sections outside the pool
        )
        number = rng.randint(1, len(pool) - 1)
        chosen = sample_negatives(positive, hard, pool, number, rng)
        assert len(set(chosen)) == len(chosen) == number
        assert positive not in chosen and set(chosen) <= set(pool) | set(hard)
        if number == len(pool) - 1 and not set(hard) - {positive}:
            assert set(chosen) == set(pool) - {positive}


@pytest.mark.parametrize("number", [0, 1, 2, 5, 10])
def test_share_of_hard_negatives(number):
    """A draw is from the pool with probability (3/4)^h; repetitions and the positive do not count in h."""
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


@pytest.mark.parametrize(
    ("hard", "pool"), [([1, 2], range(6)), ([1, 2, 3, 4, 5], [0]), ([1, 2, 3, 4, 5], []), ([3, 4, 5, 6], [0, 1, 2])]
)
def test_negatives_when_the_pool_or_the_hard_ones_are_used_up(hard, pool):
    """The positive is 0. All others are drawn; then no more can be drawn."""
    everything = (set(hard) | set(pool)) - {0}
    for seed in range(200):
        chosen = sample_negatives(0, hard, pool, len(everything), random.Random(seed))
        assert sorted(chosen) == sorted(everything)
    with pytest.raises(ValueError, match="num_negatives"):
        sample_negatives(0, hard, pool, len(everything) + 1, random.Random(0))
