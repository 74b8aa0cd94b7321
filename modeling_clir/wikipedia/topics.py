"""Index of the articles' topics: (language, title) -> a key that is the same in all languages. On disk, in SQLite."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .dumps import Dump


def build_topics(path: Path, dumps: list["Dump"], workers: int = 1) -> Counter:
    """
    Builds the index of the dumps of several Wikipedias. The order of `dumps` is that of the languages: without a
    Wikidata id, an article's key is its title in the first of them that has the article.

    Args:
        path (`Path`): file of the index. Atomic: a run that fails or is killed leaves none.
        dumps (`list[Dump]`): see [`find_dumps`](dumps.find_dumps).
        workers (`int`, defaults to 1): processes that read the XML files.

    Returns what was found, by `(language, reason)`, such as `("de", "redirect loops")`.

    Raises `ValueError` for a dump that cannot be read, for duplicate ids, and for a language without any link to the
    others (the message says which files to fetch).
    """
    raise NotImplementedError


class Topics:
    """An index that [`build_topics`] has built, for reading. Any number of processes may read one file."""

    def __init__(self, path: Path):
        self.database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)

    def key(self, language: str, title: str) -> str | None:
        """Returns the key of an article, also by the title of a redirect to it; `None` if there is no such article."""
        raise NotImplementedError

    def keys(self, language: str, titles: Iterable[str]) -> list[str]:
        """Returns the keys of the titles that have one, in order."""
        return [key for title in titles if (key := self.key(language, title)) is not None]

    def is_disambiguation(self, language: str, title: str) -> bool:
        """Tells whether `page_props` marks the page as a disambiguation page."""
        raise NotImplementedError


__all__ = ["Topics", "build_topics"]
