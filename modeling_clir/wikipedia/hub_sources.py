"""Reads the cleaned Wikipedias of the Hub, or local folders in their layout."""

from collections import Counter
from collections.abc import Iterator

from .articles import Article


# Names on the Hub.
SOURCES = {
    "finewiki": "HuggingFaceFW/finewiki",
    "megawika2": "jhu-clsp/megawika-2",
    "structured": "wikimedia/structured-wikipedia",
}


def read_hub_articles(
    source: str, name: str, language: str, languages: list[str], counts: Counter, task: int = 0, tasks: int = 1
) -> Iterator[Article]:
    """
    Streams the articles of one language.

    Args:
        source (`str`): a key of `SOURCES`; it tells the layout.
        name (`str`): name on the Hub (`SOURCES[source]`), or a local folder in that layout.
        language (`str`).
        languages (`list[str]`): all languages of the corpus. Sets without Wikidata ids take the title in the first
            of them as the key.
        counts (`Counter`): as in [`read_articles`](dumps.read_articles).
        task, tasks (`int`, default to 0 and 1): gives the files with number `task` modulo `tasks` alone. If there
            are fewer files than tasks, the later tasks give nothing.

    Raises `ValueError` for a set with other columns, naming set, columns wanted and columns found.
    """
    raise NotImplementedError


__all__ = ["SOURCES", "read_hub_articles"]
