"""
Reads text files, plain or `.gz`, with errors that name file and line; writes files and folders, all or nothing.

The functions below read every text file. They strip a byte order mark. They refuse NUL characters, lone surrogates,
and other encodings than the wanted one (UTF-8 by default).
"""

import codecs
import difflib
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from ..names import missing_path


# Types of the fields of a JSON line. An optional field may also be null.
STRINGS = ("id", "text", "article", "title", "heading")
LISTS = {"sentences": str, "sentence_ids": str | int}

WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Characters that no text may have: NUL, and lone surrogates.
BAD_CHARACTER = re.compile(r"[\x00\ud800-\udfff]")
# Escapes in JSON. Bad ones stand for NUL or a lone surrogate (half a character of UTF-16). `\\` comes first: `\\ud83d`
# is a backslash and letters.
ESCAPE = re.compile(
    r"\\(?:\\|u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<bad>u(?:0000|[dD][89a-fA-F][0-9a-fA-F]{2}))|.)", re.DOTALL
)
MAYBE_BAD_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")


# ---------------------------------------------------------------------------------------------------------------------
# Files of a folder
# ---------------------------------------------------------------------------------------------------------------------


def find_optional(folder: Path, name: str) -> Path | None:
    """
    Finds the file `name` or `name.gz` of a folder; `None` without either. Raises `ValueError` for both, and for a
    broken link.
    """
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_symlink() or path.is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has both {name} and {name}.gz; remove one")
    if found and not found[0].is_file():
        raise ValueError(f"{found[0]} is a link to a file that does not exist")
    return found[0] if found else None


def find_file(folder: Path, name: str) -> Path:
    """
    Finds the file `name` or `name.gz` of a folder. Raises `FileNotFoundError` without the folder or without either (it
    names similar ones), and `ValueError` for both.
    """
    if not folder.is_dir():
        raise FileNotFoundError(missing_path(folder))
    if (path := find_optional(folder, name)) is None:
        similar = lookalikes(folder, [name])
        raise FileNotFoundError(
            f"{folder} has no {name} (plain or .gz)" + (f"; rename {' or '.join(similar)}?" if similar else "")
        )
    return path


def lookalikes(folder: Path, names: Iterable[str]) -> list[str]:
    """
    Lists the folder's files that resemble one of `names` but are not read. The part of their name before the first
    `.`, `-` or `_` is the same or similar, as in `candidates.trec`, `Queries_old.tsv`, `document.jsonl`. Hidden files
    are not listed.
    """
    stems = {re.split("[._-]", name)[0] for name in names}
    read = {f"{name}{end}" for name in names for end in ("", ".gz")}
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in read
        and not path.name.startswith(".")
        and difflib.get_close_matches(re.split("[._-]", path.name)[0].lower(), stems, 1, cutoff=0.8)
        and path.is_file()
    )


def list_files(path: Path) -> list[Path]:
    """
    Lists the file `path`, or all files below the folder `path` except hidden ones, sorted. Linked folders are
    followed, each real folder once. Raises `FileNotFoundError` for a missing path and a broken link, and `OSError` for
    a folder that cannot be read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_dir():
        return [path]

    def fail(error: OSError):
        raise error

    files, visited = [], set()
    for folder, folders, names in os.walk(path, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        folders[:] = [] if real in visited else sorted(name for name in folders if not name.startswith("."))
        if real not in visited:
            files += [Path(folder, name) for name in names if not name.startswith(".")]
        visited.add(real)
    if broken := [file for file in files if not file.exists()]:
        raise FileNotFoundError(f"{broken[0]} is a link to a file that does not exist")
    return sorted(file for file in files if file.is_file())


def folder_name(folder: Path) -> str:
    """Returns the name of a folder, even of `.` and `x/..`."""
    return folder.resolve().name if folder.name in ("", "..") else folder.name


@contextmanager
def local_dataset(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Gives path and options for `datasets.load_dataset(path, ..., **options)`. A Hub name stays as it is and has no
    options.

    The path of a local folder is a temporary folder of links to its files, because `datasets` takes brackets in a path
    for a pattern. Its options set an empty cache, because `datasets` knows a local folder by its name and would give
    the rows of an older version.
    """
    folder = Path(name)
    if not folder.is_dir():
        yield name, {}
        return
    with TemporaryDirectory() as temporary:
        links = Path(temporary) / "data"
        for file in list_files(folder):
            link = links / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
        yield str(links), {"cache_dir": f"{temporary}/cache", "keep_in_memory": True}


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> Iterator[bytes]:
    """Yields each line of a file, plain or `.gz`. Raises `ValueError` for a damaged `.gz`."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            yield from file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a complete gzip file ({error})") from error


def decode_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """
    Yields `(where, line)` for each line of a text file, plain or `.gz`, with its line end; `where` is `file:line`.
    Strips byte order marks of UTF-8. Raises `ValueError` for a line in another encoding, a NUL character, and a
    damaged `.gz`.
    """
    utf8 = codecs.lookup(encoding).name == "utf-8"
    for number, line in enumerate(read_bytes(path), start=1):
        where = f"{path}:{number}"
        if number == 1 and line.startswith(WIDE_MARKS):
            raise ValueError(f"{where}: UTF-16 or UTF-32 (by its byte order mark); convert the file to UTF-8")
        if not utf8 and line.startswith(codecs.BOM_UTF8):
            raise ValueError(f"{where}: UTF-8 (by its byte order mark), not {encoding}")
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            advice = "; convert the file" if utf8 else ""
            raise ValueError(f"{where}: not {encoding.upper()} ({error}){advice}") from error
        if "\0" in text:
            raise ValueError(f"{where}: has a NUL character; is it text in {encoding.upper()}?")
        yield where, text.removeprefix("\ufeff")


def read_text(path: Path) -> str:
    """Reads the text of a UTF-8 file, plain or `.gz`. Raises `ValueError` in the cases of [`decode_lines`]."""
    return "".join(line for _, line in decode_lines(path))


def read_lines(path: Path, keep_empty: bool = False) -> Iterator[tuple[str, str]]:
    """
    Yields `(where, line)` for each line of a UTF-8 file, plain or `.gz`, without its line end; `where` is `file:line`.
    Skips empty lines unless `keep_empty`. Raises `ValueError` in the cases of [`decode_lines`].
    """
    for where, line in decode_lines(path):
        text = line.rstrip("\r\n")
        if keep_empty or text.strip():
            yield where, text


def read_columns(path: Path, number: int, separator: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yields `(where, columns)` for each line. Raises `ValueError` for a line with another number of columns."""
    for where, line in read_lines(path):
        columns = line.split(separator, number - 1 if separator else -1)
        if len(columns) != number:
            raise ValueError(f"{where}: expected {number} columns, got {len(columns)}")
        yield where, columns


def read_json(path: Path) -> Any:
    """
    Reads the value in a JSON file, plain or `.gz`. Raises `ValueError` with file and line for text that is not JSON,
    for a NUL character or a lone surrogate in a string, and in the cases of [`decode_lines`].
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: str | Path, first_line: int = 1) -> Any:
    """Parses JSON text that starts in line `first_line` of a file. Raises the `ValueError` of [`read_json`]."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{first_line + error.lineno - 1}: not JSON ({error.msg})") from error
    if MAYBE_BAD_ESCAPE.search(text) and (bad := next((m for m in ESCAPE.finditer(text) if m["bad"]), None)):
        line = first_line + text.count("\n", 0, bad.start())
        what = "a NUL character" if bad["bad"] == "u0000" else "a lone surrogate (half an emoji, for instance)"
        raise ValueError(f"{path}:{line}: a string has {what}: {bad[0]}; remove it")
    return value


def check_text(text: str, where: str | Path):
    """Raises `ValueError` for a text with a NUL character or a lone surrogate. `where` names its place."""
    if bad := BAD_CHARACTER.search(text):
        what = "a NUL character" if bad[0] == "\0" else "a lone surrogate (half an emoji, for instance)"
        raise ValueError(f"{where}: the text has {what}: {bad[0]!a}; remove it")


def read_jsonl(path: Path, required: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """
    Yields `(where, record)` for each line. Raises `ValueError` with file and line for a line that is not a JSON
    object, lacks a required key, or has a field of `STRINGS` or `LISTS` with another type, and in the cases of
    [`read_json`].
    """
    for where, line in read_lines(path):
        _, _, number = where.rpartition(":")
        record = parse_json(line, path, int(number))
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
        for key in required:
            if key not in record:
                raise ValueError(f"{where}: the key {key!r} is missing")
        for key, value in record.items():
            if value is None and key not in required:
                continue
            if key in STRINGS and not isinstance(value, str):
                raise ValueError(f"{where}: {key!r} must be a string, got {json.dumps(value)[:60]}")
            if key in LISTS and not (isinstance(value, list) and all(isinstance(item, LISTS[key]) for item in value)):
                raise ValueError(f"{where}: {key!r} must be a list of strings, got {json.dumps(value)[:60]}")
        yield where, record


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def refuse_existing(folder: Path):
    """Raises `FileExistsError` if `folder` exists."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or name another folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    Gives a temporary folder to write to and renames it to `folder` at the end. If the block raises, nothing is left.
    Raises `FileExistsError` if `folder` exists.
    """
    refuse_existing(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as parent:
        temporary = Path(parent) / folder.name
        temporary.mkdir()
        yield temporary
        temporary.rename(folder)


@contextmanager
def new_file(path: Path) -> Iterator[TextIO]:
    """
    Gives a text file to write to, gzipped if its name ends in `.gz`. Atomic: readers of `path` see the old file, the new
    one, or none. Nothing is left of a file that could not be written to its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(temporary, "wt", encoding="utf-8") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


__all__ = [
    "BAD_CHARACTER",
    "check_text",
    "decode_lines",
    "find_file",
    "find_optional",
    "folder_name",
    "list_files",
    "local_dataset",
    "lookalikes",
    "new_file",
    "new_folder",
    "read_bytes",
    "read_columns",
    "read_json",
    "read_jsonl",
    "read_lines",
    "read_text",
    "refuse_existing",
]
