"""Reading text files, with errors that name the line, and writing folders, all or nothing."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO


# What the fields of a line of JSON hold; an optional one may also be null.
STRINGS = ("id", "text", "article", "title", "heading")
LISTS = {"sentences": str, "sentence_ids": str | int}


def find_file(folder: Path, name: str) -> Path:
    """The file `name` of a folder, plain or with `.gz`. Raises `FileNotFoundError`."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has no {name} (plain or .gz)")


def read_bytes(path: Path) -> Iterator[bytes]:
    """Each line of a file, plain or `.gz`. Raises `ValueError` for a damaged `.gz`."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        try:
            yield from file
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a complete gzip file ({error})") from error


def read_lines(path: Path, keep_empty: bool = False) -> Iterator[tuple[str, str]]:
    """
    `(where, line)` for each line of a UTF-8 file, plain or `.gz`; `where` is `file:line`. Empty lines are passed over,
    unless `keep_empty`. Raises `ValueError` for a line in another encoding, and for a damaged `.gz`.
    """
    for number, line in enumerate(read_bytes(path), start=1):
        where = f"{path}:{number}"
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8 ({error}); convert the file") from error
        if keep_empty or text.strip():
            yield where, text


def read_columns(path: Path, number: int, separator: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """`(where, columns)` of each line. Raises `ValueError` for a line with another number of columns."""
    for where, line in read_lines(path):
        columns = line.split(separator, number - 1 if separator else -1)
        if len(columns) != number:
            raise ValueError(f"{where}: expected {number} columns, got {len(columns)}")
        yield where, columns


def read_jsonl(path: Path, required: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """
    `(where, record)` for each line. Raises `ValueError` for a line that is no JSON object, lacks a required key, or
    has something else in one of the fields above than they hold.
    """
    for where, line in read_lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error})") from error
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


def refuse_existing(folder: Path):
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or name another folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """
    A temporary folder to write to, which becomes `folder` in the end, or nothing where the block raises. Raises
    `FileExistsError` where `folder` exists.
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
    A text file to write to, which takes the place of `path` in the end: at any moment that one is the old file, the
    new one, or not there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")
    with open(temporary, "w", encoding="utf-8") as file:
        yield file
    os.replace(temporary, path)


__all__ = [
    "find_file",
    "new_file",
    "new_folder",
    "read_bytes",
    "read_columns",
    "read_jsonl",
    "read_lines",
    "refuse_existing",
]
