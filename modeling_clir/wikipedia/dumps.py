"""Reads the dumps of a Wikipedia: XML files of pages, and the SQL files beside them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .articles import Article
from .topics import Topics


@dataclass
class Dump:
    """
    The files of one Wikipedia.

    Args:
        language (`str`).
        files (`list[Path]`): XML files `pages-articles`, plain, `.bz2` or `.gz`. One task reads one file.
        page_props, langlinks, page (`Path`, *optional*): SQL dumps, plain or `.gz`.
        date (`str`, *optional*): date in the files' names, such as `"20240501"`.
    """

    language: str
    files: list[Path]
    page_props: Path | None = None
    langlinks: Path | None = None
    page: Path | None = None
    date: str | None = None


def find_dumps(folder: Path, languages: list[str]) -> list[Dump]:
    """
    Finds the dumps of the languages in a folder and its subfolders, in the order of `languages`.

    A file of pages is named `{language}wiki-*-pages-articles*.xml`, or is the file `wiki.xml` in a folder whose name
    ends in `_{language}` or is the language; each may end in `.bz2` or `.gz`. Raises `FileNotFoundError` for a language
    without one (the message says what to fetch), and `ValueError` for dumps of several dates, and for parts beside the
    whole.
    """
    raise NotImplementedError


def read_articles(file: Path, language: str, topics: Topics, counts: Counter) -> Iterator[Article]:
    """
    Reads the articles of one XML file, in the order of the file; one page is in memory at a time.

    Args:
        counts (`Counter`): gets `"articles"`, and the number of pages that were left out, by reason: one of `REASONS`.
            Also `"links"` and `"links to missing pages"`.

    Raises `ValueError` with file and place for a file that is damaged, and for duplicate page ids.
    """
    raise NotImplementedError


__all__ = ["Dump", "find_dumps", "read_articles"]
