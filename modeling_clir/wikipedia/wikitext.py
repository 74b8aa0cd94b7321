"""Plain text of an article's sections from wikitext."""

from typing import NamedTuple


class Site(NamedTuple):
    """
    What `<siteinfo>` of a dump says.

    Args:
        language (`str`): code of the Wikipedia, such as `"de"`.
        namespaces (`dict[str, int]`): number of each namespace by its name in lower case, in the wiki's language and
            in English. Without the main namespace.
    """

    language: str
    namespaces: dict[str, int]


class Section(NamedTuple):
    """
    A section of a page.

    Args:
        heading (`str`): plain text; "" for the lead.
        level (`int`): 1 for the lead, else 2 or 3.
        text (`str`): plain text. Paragraphs and the items of a list are lines.
        links (`list[str]`): titles of the articles that the section links to, as [`clean_title`] writes them, in order.
        listed (`int`): characters of `text` that are items of lists.
    """

    heading: str
    level: int
    text: str
    links: list[str]
    listed: int = 0


def sections(wikitext: str, site: Site) -> list[Section]:
    """
    Cuts the wikitext of an article into the lead and the sections of levels 2 and 3; deeper ones are part of theirs.
    Sections without text are left out, the lead is always there. Raises `ValueError` for wikitext that cannot be parsed.
    """
    raise NotImplementedError


def clean_title(title: str) -> str:
    """
    Returns the title that a link means: without `#fragment`, with spaces for underscores, its first letter in upper
    case. "" for a link within the page.
    """
    title = " ".join(title.split("#", 1)[0].replace("_", " ").split())
    return title[:1].upper() + title[1:]


__all__ = ["Section", "Site", "clean_title", "sections"]
