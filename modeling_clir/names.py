"""Checks names of models, corpora, data sets and files: which exist here, and which may be on the Hub."""

import os
from collections.abc import Iterable
from difflib import get_close_matches
from os import PathLike
from pathlib import Path


FILES = (
    ".csv",
    ".gz",
    ".json",
    ".jsonl",
    ".parquet",
    ".tsv",
    ".txt",
    ".yaml",
)  # suffixes of files; a name on the Hub has none of them
CLOSE = 0.7  # least similarity, as `difflib` measures it


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns a hint such as `"; did you mean --corpus?"`, or an empty text if no name is similar."""
    close = get_close_matches(name, list(names), 1, CLOSE)
    return f"; did you mean {close[0]}?" if close else ""


def missing_path(path: str | PathLike) -> str:
    """Returns a message that `path` does not exist or is not a folder, with the nearest name that exists."""
    path = Path(path)
    if path.is_file():
        return f"{path} is a file, not a folder"
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        return f"there is no {path}: {there} is a file"
    missing = path.absolute().relative_to(there).parts
    start = path.parts[: len(path.parts) - len(missing)]
    if close := get_close_matches(missing[0], [one.name for one in there.iterdir()], 1, CLOSE):
        return f"there is no {path}; did you mean {Path(*start, close[0], *missing[1:])}?"
    return f"there is no {path}" + (f": no folder {Path(*start, missing[0])}" if len(missing) > 1 else "")


def may_be_on_hub(name: str) -> bool:
    """
    Tells whether a name that does not exist here may be a Hub name: `namespace/name`, or an old name without a
    namespace. A name inside an existing folder cannot be one.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return Path(name).suffix not in FILES and not ("/" in name and Path(name).parent.exists())


def check_name(name: str | PathLike, kind: str, file: bool = False):
    """
    Checks, without asking the Hub, that a name is an existing folder or file, or may be a Hub name.

    Args:
        name (`str` or `PathLike`): name that the user gave.
        kind (`str`): kind of thing that it names, such as `"model"`; the message says it.
        file (`bool`, defaults to `False`): accept a file.

    Raises `FileNotFoundError` that says what is missing and which name is near, and `NotADirectoryError` for a file in
    place of a folder.
    """
    if Path(name).is_file() and not file:
        raise NotADirectoryError(f"{name} is a file: name the folder of a {kind}")
    if Path(name).exists() or may_be_on_hub(str(name)):
        return
    hint = ""
    if "/" in str(name) and not Path(name).is_absolute():
        hint = f" (for a {kind} of the Hub start where there is no folder {Path(name).parts[0]!r})"
    raise FileNotFoundError(f"{missing_path(name)}{hint}")


def check_path(path: str | PathLike):
    """Raises `FileNotFoundError`, which names the nearest name, if there is no such file or folder."""
    if not Path(path).exists():
        raise FileNotFoundError(missing_path(path))


def check_output_dir(path: str | PathLike):
    """Raises `OSError` if `--output_dir` cannot be a folder to write to."""
    there = next(folder for folder in (Path(path).absolute(), *Path(path).absolute().parents) if folder.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"--output_dir {path} must be a folder, but {there} is a file")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"--output_dir {path}: {there} is not writable")


def parse_pairs(text: str) -> list[str]:
    """
    Turns `"en-de,de-fr"` into `["en-de", "de-fr"]`. Raises `ValueError` for anything but two languages joined by a
    hyphen, and for a pair that is given twice (in either order).
    """
    pairs = [pair.strip() for pair in text.split(",") if pair.strip()]
    seen = set()
    for pair in pairs:
        languages = pair.split("-")
        if len(languages) != 2 or not all(languages):
            raise ValueError(
                f"a language pair is two languages joined by a hyphen, as en-de; got {pair!r} (a language itself has "
                "no hyphen: zh_hant, or zh)"
            )
        if frozenset(languages) in seen:
            raise ValueError(f"the language pair {pair!r} is given twice (a pair stands for both directions)")
        seen.add(frozenset(languages))
    return pairs


__all__ = ["check_name", "check_output_dir", "check_path", "may_be_on_hub", "missing_path", "nearest", "parse_pairs"]
