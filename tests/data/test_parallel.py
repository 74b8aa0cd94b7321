"""Parallel texts, in the layouts of published data sets."""

import logging

import pytest

from modeling_clir.data.parallel import read_parallel_dataset, read_parallel_files, read_parallel_folder

from ..helpers import write
from ..shared import shared_path


EN, DE = ("One house.", "Two\u2028trees.", "Three dogs."), ("Das Haus.", "Zwei Bäume.", "Drei Hunde.")


def documents(*ids):
    return [{"id": str(i), "sentences": [f"text {i}.", f"More of {i}."]} for i in ids]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_two_files(tmp_path, end, suffix):
    paths = [write(tmp_path / f"x.{name}{suffix}", *lines, end=end) for name, lines in (("en", EN), ("de", DE))]
    parallel = read_parallel_files(*paths)
    assert (parallel.source_texts, parallel.target_texts) == (list(EN), list(DE))
    assert parallel.name == f"x.en{suffix}-x.de{suffix}"


def test_files_of_the_same_name(tmp_path):
    paths = [write(tmp_path / language / "test.txt", *lines) for language, lines in (("en", EN), ("de", DE))]
    parallel = read_parallel_files(*paths)
    assert (parallel.source, parallel.target) == tuple(map(str, paths))


def test_no_line_end_at_the_end_of_a_file(tmp_path):
    source, target = write(tmp_path / "a", *EN), tmp_path / "b"
    target.write_text("\n".join(DE), encoding="utf-8")
    assert read_parallel_files(source, target).target_texts == list(DE)


def test_documents_are_aligned_by_id_and_the_others_counted(tmp_path, caplog):
    source = write(tmp_path / "en.jsonl", *documents(3, 1, 2))
    target = write(tmp_path / "de.jsonl.gz", {"id": "2", "text": "zwei"}, {"id": "9", "text": "neun"}, *documents(3))
    with caplog.at_level(logging.WARNING):
        parallel = read_parallel_folder(tmp_path, "en-de")
    assert parallel == read_parallel_files(source, target, ("en", "de"))
    assert parallel.source_texts == ["text 3. More of 3.", "text 2. More of 2."]
    assert parallel.target_texts == ["text 3. More of 3.", "zwei"]
    assert "2 documents are in only one of the files" in caplog.text


def test_lines_of_a_document_are_joined(tmp_path):
    """The layout of NTREX: a file per language, and one of document ids."""
    ids = write(tmp_path / "DOCUMENT_IDS.tsv", "bbc.1", "bbc.1", "cnn.2", "rt.3")
    write(tmp_path / "ntrex/newstest2019-src.eng.txt", "A.", "B.", "C.", "D.")
    write(tmp_path / "ntrex/newstest2019-ref.eng-GB.txt", "A.", "B.", "C.", "D.")
    write(tmp_path / "ntrex/newstest2019-ref.deu.txt", "a.", "", "c.", "d.")
    parallel = read_parallel_folder(tmp_path / "ntrex", "eng-deu", ids)
    assert (parallel.source_texts, parallel.target_texts) == (["A. B.", "C.", "D."], ["a.", "c.", "d."])


@pytest.mark.parametrize("pair", ["deu-eng", "eng-deu"])
def test_files_of_a_pair(tmp_path, pair):
    """The layout of Tatoeba in LASER, and of OPUS: English has another file in each pair."""
    for language, lines in (("eng", EN), ("deu", DE)):
        write(tmp_path / f"tatoeba.deu-eng.{language}", *lines)
    write(tmp_path / "tatoeba.fra-eng.eng", "Other.", "Lines.")
    parallel = read_parallel_folder(tmp_path, pair)
    sides = {parallel.source: parallel.source_texts, parallel.target: parallel.target_texts}
    assert sides == {"eng": list(EN), "deu": list(DE)} and parallel.name == pair


def test_dataset_of_a_folder(tmp_path):
    write(tmp_path / "nested/test.jsonl", *({"translation": {"en": e, "de": d}, "id": 0} for e, d in zip(EN, DE)))
    nested = read_parallel_dataset(str(tmp_path / "nested"), ("translation.en", "translation.de"))
    rows = ["\t".join(row) for row in (("en", "ar", "de"), *zip(EN, EN, DE))]  # XNLI-15way is such a table
    write(tmp_path / "table/xnli.15way.orig.tsv", *(row.replace("\u2028", " ") for row in rows))
    table = read_parallel_dataset(str(tmp_path / "table"), ("en", "de"), split="train")
    assert nested.source_texts == list(EN) and nested.target_texts == table.target_texts == list(DE)
    assert table.source_texts == [text.replace("\u2028", " ") for text in EN] and table.name == "en-de"


def test_configs_and_splits_of_a_dataset(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: en-de\n  data_files: a.jsonl\n"
        "- config_name: en-fr\n  data_files: b.jsonl\n---\n",
        encoding="utf-8",
    )
    write(tmp_path / "a.jsonl", {"en": "a", "de": "b"}, {"en": "c", "de": "d"})
    write(tmp_path / "b.jsonl", {"en": "e", "fr": "f"}, {"en": "g", "fr": "h"}, {"en": "", "fr": "i"})
    name, de = str(tmp_path), ("en", "de")
    assert read_parallel_dataset(name, de, "en-de", "train").target_texts == ["b", "d"]
    assert read_parallel_dataset(name, ("en", "fr"), "en-fr", "train[:2]").source_texts == ["e", "g"]
    for arguments, message in (
        ((de, "en-it", "train"), r"config en-it, split train: .*en-it"),
        ((de, "en-de", "test"), r"split test: .*train"),
        ((de, "en-fr", "train"), r"there is no column 'de'; there are en, fr"),
        ((("en", "fr"), "en-fr", "train"), r"split train, row 2: 'en' must be a text that is not empty, got ''"),
    ):
        with pytest.raises(ValueError, match=message):
            read_parallel_dataset(name, *arguments)
    with pytest.raises(ValueError, match="dataset nobody/nothing, config default, split test: "):
        read_parallel_dataset("nobody/nothing", de)


ERRORS = {
    "lines": (("x", "y"), ("x", "y", "z"), r"a has 2 lines, \S*b 3: they are not parallel"),
    "empty line": (("x", "y"), ("x", " "), r"b:2: the text is empty"),
    "empty line at the end": (("x", "y", ""), ("x", "y"), r"a:3: the text is empty"),
    "one line": (("x",), ("x",), r"a-b: 1 texts"),
    "one kind": (documents(1, 2), ("x", "y"), r"a.jsonl and \S*b: give two .jsonl files, or two text files"),
    "id": (documents(1, 2), documents(2, 1, 2), r"b.jsonl:3: the id '2' occurs more than once"),
    "no common id": (documents(1, 2), documents(3), r"have no id in common"),
    "no id": (documents(1), ({"text": "x"},), r"b.jsonl:1: the key 'id' is missing"),
    "no text": (documents(1), ({"id": "1"},), r"b.jsonl:1: neither 'sentences' nor 'text'"),
    "empty document": (documents(1, 2), ({"id": "1", "sentences": ["", " "]},), r"b.jsonl:1: the text is empty"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_file_and_line(name, tmp_path):
    *sides, message = ERRORS[name]
    paths = [
        write(tmp_path / (side + ".jsonl" * isinstance(lines[0], dict)), *lines) for side, lines in zip("ab", sides)
    ]
    with pytest.raises(ValueError, match=message):
        read_parallel_files(*paths)


def test_byte_order_marks(tmp_path):
    source, target = write(tmp_path / "a", "\ufeffx", "y"), write(tmp_path / "b.gz", "\ufeff1", "2")
    ids = write(tmp_path / "ids", "\ufeffd", "e")
    assert read_parallel_files(source, target).source_texts == ["x", "y"]
    assert read_parallel_files(source, target, document_ids=ids).target_texts == ["1", "2"]


def test_characters_that_no_text_may_have(tmp_path):
    write(tmp_path / "a/train.jsonl", {"en": "x", "de": "y"}, '{"en": "x\\u0000", "de": "y"}')
    with pytest.raises(ValueError, match="split train, row 1: the text has a NUL character"):
        read_parallel_dataset(str(tmp_path / "a"), ("en", "de"), split="train")


def test_errors_of_document_ids(tmp_path):
    a, b = write(tmp_path / "a", "A", "B"), write(tmp_path / "b", "a", "")
    with pytest.raises(ValueError, match=r"a has 2 lines, \S*ids 3: each line needs a document id"):
        read_parallel_files(a, b, document_ids=write(tmp_path / "ids", "1", "1", "2"))
    with pytest.raises(ValueError, match=r"ids:2: the text is empty"):
        read_parallel_files(a, b, document_ids=write(tmp_path / "ids", "1", ""))
    with pytest.raises(ValueError, match=r"b:2: document '2': the text is empty"):
        read_parallel_files(a, b, document_ids=write(tmp_path / "ids", "1", "2"))
    jsonl = write(tmp_path / "en.jsonl", *documents(1, 2))
    with pytest.raises(ValueError, match=r"document ids \(\S*b\) are for text files"):
        read_parallel_files(jsonl, jsonl, document_ids=b)


def test_errors_of_folders(tmp_path):
    write(tmp_path / "en.jsonl", *documents(1, 2))
    with pytest.raises(
        FileNotFoundError, match=r"has no file of the language 'xx' in en-xx: none of xx.jsonl, xx.txt"
    ):
        read_parallel_folder(tmp_path, "en-xx")
    write(tmp_path / "news.en.txt", *EN)
    with pytest.raises(ValueError, match=r"more than one file of the language 'en' in en-xx: en.jsonl, news.en.txt"):
        read_parallel_folder(tmp_path, "en-xx")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_parallel_folder(tmp_path / "nowhere", "en-de")


def test_real_files():
    tatoeba = read_parallel_folder(shared_path("data/tatoeba"), "eng-deu")
    assert len(tatoeba.source_texts) == 1000 and tatoeba.source_texts[0] == "Mary said she didn't know where Tom was."
    assert tatoeba.target_texts[0].startswith("Maria sagte, ")
    ntrex = read_parallel_folder(shared_path("data/ntrex"), "en-fr")
    assert len(ntrex.source_texts) == 93 and ntrex.source_texts[0].startswith("Welsh AMs worried about")


def test_a_dataset_in_a_folder_with_brackets_is_read_anew(tmp_path):
    folder = tmp_path / "data[v2]"
    for target in ("eins", "zwei"):
        write(folder / "test.jsonl", {"en": "a", "de": target}, {"en": "b", "de": "drei"})
        texts = read_parallel_dataset(str(folder), ("en", "de"))
        assert texts.source_texts == ["a", "b"] and texts.target_texts == [target, "drei"]
    write(folder / "test.jsonl", {"en": "a", "de": "b"}, '{"en": "a')
    with pytest.raises(ValueError, match=r"data\[v2\]/test\.jsonl:2"):
        read_parallel_dataset(str(folder), ("en", "de"))
