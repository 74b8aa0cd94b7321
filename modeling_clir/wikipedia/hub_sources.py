"""
Reads the cleaned Wikipedias of the Hub, or local folders in their layout.

    finewiki     HuggingFaceFW/finewiki: `data/{language}wiki/*.parquet`, one article a row, `text` in Markdown.
    megawika2    jhu-clsp/megawika-2: JSON lines in a folder for each language, the article as a list of `elements`.
    structured   wikimedia/structured-wikipedia (English and French): Parquet or JSON lines, `sections` in each other.

No source has links that can be compared across languages.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..data.files import list_files, local_dataset
from ..names import check_name
from .articles import Article, ArticleSection
from .dumps import is_disambiguation_text, too_little
from .wikitext import DEEPEST, LIST_MARK, clean_lines, clean_title


class Layout(NamedTuple):
    """
    Where a source has its files, and what is in them.

    Args:
        name (`str`): name on the Hub.
        files (`str`): pattern of the files of a language, `{language}`, relative to the folder.
        columns (`tuple[str, ...]`): what is read.
    """

    name: str
    files: str
    columns: tuple[str, ...]


SOURCES = {
    "finewiki": Layout(
        "HuggingFaceFW/finewiki",
        r"(?:.*/)?{language}wiki/[^/]+\.parquet",
        ("page_id", "title", "text", "wikidata_id"),
    ),
    "megawika2": Layout(
        "jhu-clsp/megawika-2",
        r"(?:.*/)?{language}[/.-](?:.*/)?[^/]*jsonl(?:\.gz|\.zst)?",
        ("title", "elements", "cross_lingual_links"),
    ),
    "structured": Layout(
        "wikimedia/structured-wikipedia",
        r"(?:.*/)?(?:{language}wiki(?:_namespace_0)?|\d{{8}}\.{language})/(?:.*/)?[^/]+\.(?:parquet|jsonl)(?:\.gz)?",
        ("identifier", "name", "abstract", "sections", "main_entity"),
    ),
}

MARKDOWN_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*")
MARKDOWN_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+")
MARKDOWN_FENCE = re.compile(
    r"^\s*(?:```|~~~).*?^\s*(?:```|~~~)\s*$|\$\$.*?\$\$", re.DOTALL | re.MULTILINE
)  # code, math
MARKDOWN_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*\)")
MARKDOWN_EMPHASIS = re.compile(r"(?<![\w*\\])(\*{1,3})(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])")
MARKDOWN_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|>~-])")

Parts = list[tuple[str, int, list[str]]]  # of an article: (heading, level, lines); the lead first


def read_hub_articles(
    source: str, name: str, language: str, languages: list[str], counts: Counter, task: int = 0, tasks: int = 1
) -> Iterator[Article]:
    """
    Streams the articles of one language.

    Args:
        source (`str`): a key of `SOURCES`; it tells the layout.
        name (`str`): name on the Hub, or a local folder in that layout.
        language (`str`).
        languages (`list[str]`): all languages of the corpus. An article of megawika2, which has no Wikidata ids, has
            the title in the first of them as its key.
        counts (`Counter`): gets the number of `"articles"`, of those that are left out by reason (`"stub"`, `"list"`,
            `"disambiguation page"`), and of `"articles without a Wikidata id"`.
        task, tasks (`int`, default to 0 and 1): reads the files with number `task` modulo `tasks` alone. If there are
            fewer files than tasks, the later tasks give nothing.

    Raises `FileNotFoundError` for a set without files of the language. Raises `ValueError` for a file with other
    columns, naming those wanted and found, and for one that cannot be read.
    """
    wanted = SOURCES[source].columns
    with local_dataset(name) as (path, _):
        for file in find_files(source, name, language)[task::tasks]:
            where = f"{name}/{file}"
            address = f"{path}/{file}" if Path(name).is_dir() else f"hf://datasets/{name}/{file}"
            for number, row in enumerate(read_rows(address, where, wanted), start=1):
                try:
                    article = ARTICLES[source](row, language, languages, counts)
                except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
                    kind = type(error).__name__
                    raise ValueError(
                        f"{where}: row {number} is not in the layout of {SOURCES[source].name} ({kind}: {error})"
                    ) from error
                if article is not None:
                    counts["articles"] += 1
                    yield article


def find_files(source: str, name: str, language: str) -> list[str]:
    """Lists the files of a language, relative to the set. Raises `FileNotFoundError` if there are none."""
    check_name(name, "data set")
    if (folder := Path(name)).is_dir():
        files = [file.relative_to(folder).as_posix() for file in list_files(folder)]
    else:
        from huggingface_hub import HfApi

        files = HfApi().list_repo_files(name, repo_type="dataset")
    pattern = re.compile(SOURCES[source].files.format(language=re.escape(language)))
    if not (found := sorted(file for file in files if pattern.fullmatch(file))):
        raise FileNotFoundError(f"{name} has no files of {language!r} in the layout of {SOURCES[source].name}")
    return found


def read_rows(address: str, where: str, wanted: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Streams the columns `wanted` of a file. Raises `ValueError` if it lacks one, and if it cannot be read."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    def load(kind: str, **options):
        return load_dataset(kind, data_files=[address], split="train", streaming=True, **options)

    def check(found: list[str]):
        if missing := [column for column in wanted if column not in found]:
            raise ValueError(
                f"{where}: lacks {', '.join(missing)}; wanted {', '.join(wanted)}; found {', '.join(sorted(found))}"
            )

    try:
        if ".parquet" in address:
            check(load("parquet").column_names or [])
            yield from load("parquet", columns=list(wanted))
            return
        # JSON lines are read as text: the elements of an article differ in their fields, which Arrow cannot hold.
        for number, line in enumerate(load("text"), start=1):
            row = json.loads(line["text"])
            if not isinstance(row, dict):
                raise ValueError(f"{where}: row {number} is not a JSON object")
            check(list(row))
            yield row
    except (DatasetGenerationError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{where}: cannot be read ({error.__cause__ or error})") from error
    except ValueError as error:  # Arrow's errors too
        raise error if where in str(error) else ValueError(f"{where}: cannot be read ({error})") from error


def make_article(key: str, language: str, page_id: str, title: str, parts: Parts, counts: Counter) -> Article | None:
    """Makes an article of its parts, or counts why it is left out."""
    kept = [(heading, level, lines) for heading, level, lines in parts if lines or level == 1]
    texts = [(heading, level, "\n".join(lines).replace(LIST_MARK, "")) for heading, level, lines in kept]
    listed = [sum(len(line) - 1 for line in lines if line.startswith(LIST_MARK)) for _, _, lines in kept]
    if reason := too_little([(text, number) for (_, _, text), number in zip(texts, listed)]):
        counts[reason] += 1
        return None
    return Article(key, language, page_id, title, [ArticleSection(*text) for text in texts])


def wikidata_key(identifier: str | None, language: str, title: str, counts: Counter) -> str:
    counts["articles without a Wikidata id"] += not identifier
    return identifier or f"{language}:{title}"


# ---------------------------------------------------------------------------------------------------------------------
# Layouts
# ---------------------------------------------------------------------------------------------------------------------


def finewiki_article(row: dict, language: str, languages: list[str], counts: Counter) -> Article | None:
    parts: Parts = [("", 1, [])]
    for line in MARKDOWN_FENCE.sub("", row["text"]).split("\n"):
        heading = MARKDOWN_HEADING.fullmatch(line.strip())
        if heading and len(heading[1]) == 1:  # the title
            continue
        if heading and len(heading[1]) <= DEEPEST:
            parts.append((" ".join(plain_markdown(heading[2])), len(heading[1]), []))
        elif heading:
            parts[-1][2].extend(plain_markdown(heading[2]))
        elif not line.lstrip().startswith("|"):  # a table
            item = MARKDOWN_ITEM.match(line)
            parts[-1][2].extend(plain_markdown(LIST_MARK + line[item.end() :] if item else line))
    key = wikidata_key(row["wikidata_id"], language, row["title"], counts)
    return make_article(key, language, str(row["page_id"]), row["title"], parts, counts)


def plain_markdown(line: str) -> list[str]:
    text = MARKDOWN_LINK.sub(lambda link: "" if link[1] else link[2], line.removeprefix("> "))
    return clean_lines(MARKDOWN_ESCAPE.sub(r"\1", MARKDOWN_EMPHASIS.sub(r"\2", text)))


def megawika2_article(row: dict, language: str, languages: list[str], counts: Counter) -> Article | None:
    if is_disambiguation_text(row.get("wikicode") or ""):
        counts["disambiguation page"] += 1
        return None
    parts: Parts = [("", 1, [])]
    for element in row["elements"]:
        if element["type"] == "heading":
            level = max(2, element["level"])
            lines = clean_lines(element["text"])
            if level <= DEEPEST:
                parts.append((" ".join(lines), level, []))
            else:
                parts[-1][2].extend(lines)
        elif element["type"] == "paragraph":
            parts[-1][2].extend(clean_lines(" ".join(sentence["text"].strip() for sentence in element["sentences"])))
    titles = {**(row["cross_lingual_links"] or {}), language: row["title"]}
    first = next(code for code in (*languages, language) if titles.get(code))
    title = clean_title(row["title"])
    return make_article(f"{first}:{clean_title(titles[first])}", language, title, title, parts, counts)


def structured_article(row: dict, language: str, languages: list[str], counts: Counter) -> Article | None:
    sections = json.loads(row["sections"]) if isinstance(row["sections"], str) else row["sections"] or []
    parts: Parts = [("", 1, [])]
    if sections and sections[0].get("name") == "Abstract":
        add_parts(sections[0].get("has_parts"), 2, parts)
        sections = sections[1:]
    else:
        parts[0][2].extend(clean_lines(row["abstract"] or ""))
    add_parts(sections, 2, parts)
    identifier = (row["main_entity"] or {}).get("identifier")
    key = wikidata_key(identifier, language, row["name"], counts)
    return make_article(key, language, str(row["identifier"]), row["name"], parts, counts)


def add_parts(nodes: list[dict] | None, level: int, parts: Parts):
    """Adds the sections, paragraphs and lists in `nodes`; other kinds of nodes (tables, images) are no text."""
    for node in nodes or []:
        if node["type"] == "section":
            heading = clean_lines(node.get("name") or "")
            if level <= DEEPEST:
                parts.append((" ".join(heading), level, []))
            else:
                parts[-1][2].extend(heading)
            add_parts(node.get("has_parts"), level + 1, parts)
        elif node["type"] == "paragraph":
            parts[-1][2].extend(clean_lines(node.get("value") or ""))
        elif node["type"] in ("list", "list_item"):
            parts[-1][2].extend(clean_lines(LIST_MARK + node["value"]) if node.get("value") else [])
            add_parts(node.get("has_parts"), level, parts)


ARTICLES = {"finewiki": finewiki_article, "megawika2": megawika2_article, "structured": structured_article}

__all__ = ["SOURCES", "read_hub_articles"]
