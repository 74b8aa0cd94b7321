"""Finding and reading text files, and writing folders."""

import codecs
import gzip
import json
import os

import pytest

from modeling_clir.data.files import (
    check_text,
    find_file,
    find_optional,
    folder_name,
    list_files,
    lookalikes,
    new_file,
    new_folder,
    read_columns,
    read_json,
    read_jsonl,
    read_lines,
    read_text,
)

from ..helpers import write


def test_lines_that_are_not_utf8(tmp_path):
    (tmp_path / "x.txt").write_bytes("fine\n\né\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"x\.txt:3: not UTF-8"):
        list(read_lines(tmp_path / "x.txt"))


def test_damaged_gzip(tmp_path):
    path = write(tmp_path / "x.txt.gz", *map(str, range(1000)))
    for data in (path.read_bytes()[:-20], b"plain text", gzip.compress(b"one")[:-8] + bytes(8)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"x\.txt\.gz: not a complete gzip file"):
            list(read_lines(path))


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
def test_byte_order_marks_are_stripped(name, tmp_path):
    """Concatenated files have marks inside, which are stripped too."""
    data = codecs.BOM_UTF8 + "q1\tä\n".encode() + codecs.BOM_UTF8 + b"q2\tb\r\n"
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    assert [columns for _, columns in read_columns(path, 2, "\t")] == [["q1", "ä"], ["q2", "b"]]
    assert read_text(path) == "q1\tä\nq2\tb\r\n"
    path = tmp_path / f"{name}.json"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a":\n 1}')
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_wide_encodings_are_refused(encoding, tmp_path):
    (tmp_path / "x.txt").write_bytes("q1\ttext\n".encode(encoding))
    found = "has a NUL character; is it text in UTF-8" if encoding == "utf-16-le" else "UTF-16 or UTF-32"
    for reader in (read_lines, read_text, read_json):
        with pytest.raises(ValueError, match=rf"x\.txt:1: {found}"):
            list(reader(tmp_path / "x.txt"))


BAD_JSON = [
    (r'"a \ud83d b"', "a lone surrogate"),
    (r'"\uDE00\uD83D"', "a lone surrogate"),
    (r'"\\\\\uD83D\ud83d\ude00"', "a lone surrogate"),
    (r'"x\u0000"', "a NUL character"),
    ('"x\0"', "has a NUL character"),
    ('"x', "not JSON"),
]


@pytest.mark.parametrize(("value", "message"), BAD_JSON)
def test_strings_that_no_file_can_hold(value, message, tmp_path):
    """The error names file and line for strings in a line, in a key and in a file of several lines."""
    lines = write(tmp_path / "x.jsonl", "{}", f'{{"id": [{value}]}}')
    with pytest.raises(ValueError, match=rf"x\.jsonl:2: .*{message}"):
        list(read_jsonl(lines, ()))
    whole = write(tmp_path / "x.json.gz", "[", '"fine",', value, "]")
    with pytest.raises(ValueError, match=rf"x\.json\.gz:3: .*{message}"):
        read_json(whole)


def test_escapes_that_are_characters(tmp_path):
    texts = ["\U0001f600", r"\ud83d", r"\\ud83d \u0000", "é", '"\\']
    path = write(tmp_path / "x.json", json.dumps(texts))
    assert "\\ud83d\\ude00" in path.read_text(encoding="utf-8") and read_json(path) == texts


@pytest.mark.parametrize("text", ["a\0", "\ud83d b"])
def test_texts_of_other_sources(text):
    check_text("fine \U0001f600", "row 3")
    with pytest.raises(ValueError, match="row 3: the text has a"):
        check_text(text, "row 3")


def test_files_of_a_folder(tmp_path):
    """A file is plain or gzipped, not both. An error names a similar file, which is never read."""
    for name in ("candidates.run.gz", "Queries.TSV", "folds.json", "folds.json.gz", "notes.txt", ".folds.json"):
        write(tmp_path / name, "x")
    (tmp_path / "document.jsonl").mkdir()
    assert find_file(tmp_path, "candidates.run") == tmp_path / "candidates.run.gz"
    assert find_optional(tmp_path, "qrels.txt") is None
    with pytest.raises(ValueError, match=r"has both folds\.json and folds\.json\.gz; remove one"):
        find_optional(tmp_path, "folds.json")
    with pytest.raises(FileNotFoundError, match=r"has no queries.tsv \(plain or .gz\); rename Queries.TSV\?"):
        find_file(tmp_path, "queries.tsv")
    with pytest.raises(FileNotFoundError, match=r"has no documents.jsonl \(plain or .gz\)$"):
        find_file(tmp_path, "documents.jsonl")
    assert lookalikes(tmp_path, ["candidates.run", "folds.json", "queries.tsv"]) == ["Queries.TSV"]
    assert lookalikes(tmp_path, ["candidate.run", "fold.json"]) == [
        "candidates.run.gz",
        "folds.json",
        "folds.json.gz",
    ]


def test_a_broken_link_is_not_a_missing_file(tmp_path):
    """Without the run all documents would be ranked."""
    (tmp_path / "candidates.run").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"candidates\.run is a link to a file that does not exist"):
        find_optional(tmp_path, "candidates.run")


def test_files_are_written_as_they_are_named(tmp_path):
    for name in ("x.run", "x.run.gz"):
        with new_file(tmp_path / name) as file:
            file.write("ä\n")
        assert read_text(tmp_path / name) == "ä\n"
    assert (tmp_path / "x.run.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_linked_folders_are_followed_once(tmp_path):
    write(tmp_path / "other/b/c.txt", "x")
    write(tmp_path / "data/a.txt", "x")
    (tmp_path / "data/linked").symlink_to(tmp_path / "other")
    (tmp_path / "data/same").symlink_to(tmp_path / "other")
    (tmp_path / "other/b/loop").symlink_to(tmp_path / "data")
    write(tmp_path / "data/.hidden/d.txt", "x")
    assert [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path / "data")] == [
        "data/a.txt",
        "data/linked/b/c.txt",
    ]
    (tmp_path / "data/gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="data/gone is a link to a file that does not exist"):
        list_files(tmp_path / "data")


def test_names_of_folders(tmp_path, monkeypatch):
    (tmp_path / "en-de/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "en-de")
    monkeypatch.chdir(tmp_path / "en-de")
    names = {".": "en-de", "sub/..": "en-de", "../en-de/": "en-de", "sub": "sub", "../link": "link", "sub/.": "sub"}
    for path, name in names.items():
        assert folder_name(type(tmp_path)(path)) == name
    assert os.getcwd() == str(tmp_path / "en-de")


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_new_file_is_all_or_nothing(name, tmp_path):
    def fill(text: str, error: BaseException | None = None):
        with new_file(tmp_path / name) as file:
            file.write(text)
            if error:
                raise error

    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fill("half", error)
        assert list(tmp_path.iterdir()) == []
    fill("whole")
    with pytest.raises(KeyboardInterrupt):
        fill("half", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == [tmp_path / name] and read_text(tmp_path / name) == "whole"


def test_new_folder_is_all_or_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with new_folder(tmp_path / "new") as folder:
            write(folder / "a/b", "text")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "new") as folder:
        write(folder / "a/b", "text")
        assert not (tmp_path / "new").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "a", "b"]
    with pytest.raises(FileExistsError, match="new exists"):
        with new_folder(tmp_path / "new"):
            pass
