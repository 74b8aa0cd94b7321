"""An article of one Wikipedia, cut into sections: what every source gives, and the aligner takes."""

from dataclasses import dataclass, field


@dataclass
class ArticleSection:
    """
    One section: the lead, or what follows a heading.

    Args:
        heading (`str`): plain text; "" for the lead.
        level (`int`): 1 for the lead, else the level of the heading (2 for `== heading ==`).
        text (`str`): plain text without markup. Paragraphs are parted by a newline.
        links (`list[str]`): keys of the articles that the section links to, in order, so that they can be compared
            across languages. Links to articles without a key are left out. Empty for sources without links.
    """

    heading: str
    level: int
    text: str
    links: list[str] = field(default_factory=list)


@dataclass
class Article:
    """
    One article.

    Args:
        key (`str`): names the topic; it is the same in all languages. A Wikidata id ("Q64"), or without one the title
            in the first language that has the article ("en:Berlin").
        language (`str`).
        page_id (`str`).
        title (`str`).
        sections (`list[ArticleSection]`): the lead first.
    """

    key: str
    language: str
    page_id: str
    title: str
    sections: list[ArticleSection]


__all__ = ["Article", "ArticleSection"]
