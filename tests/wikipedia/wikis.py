"""Writes the dumps of three small Wikipedias on the same topics, whose sections are known to match."""

import random
from pathlib import Path

from .written import page, write_dump, write_sql


HEADINGS = {  # of the sections after the lead
    "en": ("History", "Geography", "Culture", "Economy"),
    "de": ("Geschichte", "Geografie", "Kultur", "Wirtschaft"),
    "fr": ("Histoire", "Géographie", "Culture", "Économie"),
}
LANGUAGES = tuple(HEADINGS)


def write_wikis(folder: Path, topics: int = 12, streams: bool = True) -> Path:
    """
    Writes `{language}wiki-20240501-pages-articles-multistream.xml.bz2` and `page_props` in `folder`.

    Page `i` of each language has the Wikidata id `Q{i}`. Section `j` of all languages has the same numbers and names.
    French lacks every third topic. Each language has a page of its own, a redirect and a stub.
    """
    for place, language in enumerate(LANGUAGES):
        pages, props = [], []
        for topic in range(1, topics + 1):
            if language == "fr" and topic % 3 == 0:
                continue
            parts = [prose(language, topic, 0)]
            parts += [
                f"== {heading} ==\n{prose(language, topic, j)}" for j, heading in enumerate(HEADINGS[language], 1)
            ]
            pages.append(page(topic, f"{language.upper()} topic {topic}", "\n".join(parts)))
            props.append((topic, "wikibase_item", f"Q{topic}", None))
        pages.append(page(900, "Alone", prose(language, 900 + place, 0) * 2))
        pages.append(page(901, "Other name", "#REDIRECT [[Alone]]", redirect="Alone"))
        pages.append(page(902, "Short", "Short."))
        name = f"{language}wiki-20240501"
        write_dump(folder / f"{name}-pages-articles-multistream.xml.bz2", pages, language, streams)
        write_sql(folder / f"{name}-page_props.sql.gz", "page_props", props)
    return folder


def prose(language: str, topic: int, section: int) -> str:
    """Returns sentences of a section: words of the language, names and numbers of topic and section."""
    shared = random.Random(f"{topic} {section}")
    names = [f"Name{shared.randrange(10**6)}" for _ in range(4)]
    numbers = [str(shared.randrange(1000, 10**5)) for _ in range(4)]
    own = random.Random(f"{language} {topic} {section}")
    words = [f"{language}{own.randrange(300)}" for _ in range(40)]
    for name, number in zip(names, numbers):
        words.insert(own.randrange(len(words)), f"{name} {number}")
    return f"{' '.join(words[:20])}. {' '.join(words[20:])}.\n"


__all__ = ["HEADINGS", "LANGUAGES", "write_wikis"]
