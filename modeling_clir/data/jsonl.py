"""Lines of JSON from a file, plain or compressed, with errors that name the line."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path


def open_text(path: Path):
    """Opens a UTF-8 text file; `.gz` is decompressed."""
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")


def find_file(folder: Path, *names: str) -> Path:
    """The first of `names` that the folder has, plain or with `.gz`. Raises `FileNotFoundError` that lists them."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(f"{folder} has no {' or '.join(names)} (plain or .gz)")


def read_jsonl(path: Path, required: tuple[str, ...] = ()) -> Iterator[tuple[str, dict]]:
    """
    `(where, record)` for each line; `where` is `file:line`. Empty lines are passed over. Raises `ValueError` for a
    line that is no JSON object or lacks a required key.
    """
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error})") from error
            if not isinstance(record, dict):
                raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
            for key in required:
                if key not in record:
                    raise ValueError(f"{where}: the key {key!r} is missing")
            yield where, record


__all__ = ["find_file", "open_text", "read_jsonl"]
