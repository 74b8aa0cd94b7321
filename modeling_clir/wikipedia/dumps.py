"""
Reads the dumps of a Wikipedia: the XML files of its pages, and which SQL files lie beside them.

The package mwxml is not used: it keeps an empty element of each page that it has read, 85 bytes a page, which are 2 GB
after the pages of the English Wikipedia.
"""

import bz2
import codecs
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple
from xml.etree.ElementTree import Element, ParseError, fromstring

from ..data.files import list_files
from ..names import missing_path
from .articles import Article, ArticleSection
from .wikitext import CATEGORY, FILE, MEDIA, Site, clean_title, sections


if TYPE_CHECKING:
    from .topics import Topics


TEMPLATE = 10  # number of the namespace
# English names of the namespaces; they work in all languages, besides the wiki's own.
ENGLISH = {
    "media": MEDIA,
    "special": -1,
    "talk": 1,
    "user": 2,
    "user talk": 3,
    "project": 4,
    "project talk": 5,
    "file": FILE,
    "file talk": 7,
    "image": FILE,
    "mediawiki": 8,
    "mediawiki talk": 9,
    "template": TEMPLATE,
    "template talk": 11,
    "help": 12,
    "help talk": 13,
    "category": CATEGORY,
    "category talk": 15,
}

# Why a page is not read as an article. `counts` of `read_articles` has them as keys.
REASONS = ("other namespace", "no revision", "not wikitext", "redirect", "disambiguation page", "list", "stub")
# Articles with less plain text are stubs. Half of them have a lead alone, so that there is no section to align, and
# many are made by programs from one table.
SHORTEST = 300  # characters
# Articles with a larger part of their text in items of lists are lists. Of 106 articles of the English Wikipedia the two
# lists have .69 and .95, the others at most .58 (bibliographies, discographies, taxonomies).
LARGEST_LISTED = 0.65

REDIRECT = re.compile(r"\s*#[^\W\d_]+\s*:?\s*\[\[:?([^\[\]|\n]+)")
DISAMBIGUATION = "__DISAMBIG__"
# Templates of disambiguation pages in some large wikis. Those of a whole dump are learned from its own templates.
DISAMBIGUATION_TEMPLATES = frozenset(
    ("Disambiguation", "Disambig", "Hndis", "Geodis", "Begriffsklärung", "Homonymie", "Desambiguación", "Disambigua")
    + ("Desambiguação", "Doorverwijspagina", "Неоднозначность", "消歧义", "消歧義", "Aimai", "曖昧さ回避", "توضيح")
    + ("ابهام‌زدایی", "פירושונים", "동음이의")
)
CHUNK = 1 << 18  # bytes
CONTINUATION = bytes(range(0x80, 0xC0))  # bytes of a character of UTF-8 after its first
STREAM_START = re.compile(rb"BZh[1-9]1AY&SY")
PAGE_START, PAGE_END = b"<page>", b"</page>"  # stand nowhere else: in a text they are escaped
SITE_INFO = re.compile(rb"<siteinfo>.*?</siteinfo>", re.DOTALL)

NAME = re.compile(
    r"(?P<wiki>\w+)wiki-(?P<date>\d{8}|latest)-pages-articles(?P<stream>-multistream)?(?P<part>\d*)"
    r"(?:-sample)?\.xml(?:-p\d+p\d+)?[\w-]*(?:\.bz2|\.gz)?"
)
WIKI_NAME = re.compile(r"wiki\.xml(?:\.bz2|\.gz)?")
SQL_TABLES = ("page_props", "langlinks", "page")


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Dump:
    """
    The files of one Wikipedia.

    Args:
        language (`str`).
        files (`list[Path]`): XML files `pages-articles`, plain, `.bz2` or `.gz`. One task reads one file.
        page_props, langlinks, page (`Path`, *optional*): SQL dumps, plain or `.gz`.
        date (`str`, *optional*): date in the files' names, such as `"20240501"` or `"latest"`.
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

    A file of pages has the name that it has at the source, `{language}wiki-{date}-pages-articles...xml...`, or is the
    file `wiki.xml` in a folder whose name ends in the language (`minidump_de`, `de`); each may end in `.bz2` or `.gz`.
    SQL dumps are named `{language}wiki-{date}-page_props.sql`, or `page_props.sql` in the folder of the `wiki.xml`.

    Raises `FileNotFoundError` for a language without pages (the message says what to fetch), and `ValueError` for
    dumps of several dates, and for several forms of the same pages, such as parts beside the whole.
    """
    if not folder.is_dir():
        raise FileNotFoundError(missing_path(folder))
    files = list_files(folder)
    return [find_dump(folder, files, language) for language in languages]


def find_dump(folder: Path, files: list[Path], language: str) -> Dump:
    wiki = language.replace("-", "_")
    named = {file: name for file in files if (name := NAME.fullmatch(file.name)) and name["wiki"] == wiki}
    kept = re.compile(rf"(?:.*[_-])?{re.escape(language)}")
    found = list(named) or [f for f in files if WIKI_NAME.fullmatch(f.name) and kept.fullmatch(f.parent.name)]
    if not found:
        raise FileNotFoundError(
            f"{folder} has no dump of {language!r}; fetch {wiki}wiki-DATE-pages-articles.xml.bz2 and "
            f"{wiki}wiki-DATE-page_props.sql.gz"
        )
    if len(dates := sorted({name["date"] for name in named.values()})) > 1:
        raise ValueError(f"{folder} has dumps of {language!r} of several dates ({', '.join(dates)}); keep one")
    forms = {(name["stream"], bool(name["part"])): file.name for file, name in named.items()}
    if len(forms) > 1 or (not named and len(found) > 1):
        first, second = list(forms.values() or map(str, found))[:2]
        raise ValueError(f"{folder} has the pages of {language!r} in several forms, {first} and {second}; keep one")
    dump = Dump(language, sorted(found, key=part_number), date=dates[0] if dates else None)
    for table in SQL_TABLES:
        own = [f for f in files if f.parent == found[0].parent and re.fullmatch(rf"{table}\.sql(?:\.gz)?", f.name)]
        sql = [f for f in files if re.fullmatch(rf"{wiki}wiki-(?:\d{{8}}|latest)-{table}\.sql(?:\.gz)?", f.name)]
        if not named:
            sql += own
        if len(sql) > 1:
            raise ValueError(f"{folder} has several dumps of the table {table!r} for {language!r}; keep one")
        setattr(dump, table, sql[0] if sql else None)
    return dump


def part_number(file: Path) -> tuple[int, str]:
    name = NAME.fullmatch(file.name)
    return int(name["part"] or 0) if name else 0, file.name


class Stream:
    """
    The bytes of a file, plain, `.bz2` (also of several streams) or `.gz`, unpacked. Counts them, and checks that they
    are UTF-8.

    Args:
        file (`Path`).
        part, parts (`int`, default to 0 and 1): gives about one of `parts` equal parts of the file. Only a `.bz2` of
            several streams can be parted; the first part of any other file is the whole file. A part starts at the
            start of a stream. What follows after its end is given too, with `over` set, for who needs it to finish a
            page.

    Raises `ValueError` for a damaged file and for bytes that are not UTF-8, with the file and the number of the byte
    (of the unpacked file or part).
    """

    def __init__(self, file: Path, part: int = 0, parts: int = 1):
        self.file = file
        self.part, self.parts = part, parts
        self.position = 0
        self.over = False
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def text(self) -> str:
        """Names what the number of a byte counts from."""
        return "its text" if self.parts == 1 else f"the text of its part {self.part} of {self.parts}"

    def chunks(self) -> Iterator[bytes]:
        if not self.file.stat().st_size:
            return
        if self.file.suffix != ".bz2" and self.part:
            return
        try:
            for chunk in self.unpack() if self.file.suffix == ".bz2" else self.read():
                if self.position == 0 and self.part:
                    chunk = chunk.lstrip(CONTINUATION)
                self.check(chunk)
                self.position += len(chunk)
                yield chunk
        except (EOFError, zlib.error, OSError) as error:
            if getattr(error, "errno", None):
                raise
            raise ValueError(
                f"{self.file}: damaged or cut off after byte {self.position} of {self.text} ({error}); fetch it again"
            ) from error
        self.check(b"", final=True)

    def read(self) -> Iterator[bytes]:
        with gzip.open(self.file) if self.file.suffix == ".gz" else open(self.file, "rb") as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def unpack(self) -> Iterator[bytes]:
        size = self.file.stat().st_size
        with open(self.file, "rb") as packed:
            start, end = (next_stream(packed, size * part // self.parts, size) for part in (self.part, self.part + 1))
            packed.seek(start)
            decompressor, data = None, b""
            while data := data or packed.read(CHUNK):
                if decompressor is None:
                    self.over = packed.tell() - len(data) >= end
                    decompressor = bz2.BZ2Decompressor()
                yield decompressor.decompress(data, CHUNK)
                while not decompressor.needs_input and not decompressor.eof:
                    yield decompressor.decompress(b"", CHUNK)
                data = decompressor.unused_data if decompressor.eof else b""
                decompressor = None if decompressor.eof else decompressor
            if decompressor is not None:
                raise EOFError("the last bz2 stream has no end")

    def check(self, chunk: bytes, final: bool = False):
        kept = len(self.decoder.getstate()[0])
        try:
            self.decoder.decode(chunk, final)
        except UnicodeDecodeError as error:
            place = self.position - kept + error.start
            raise ValueError(f"{self.file}: not UTF-8 at byte {place} of {self.text} ({error.reason})") from error


def next_stream(packed: IO[bytes], start: int, size: int) -> int:
    """Finds the first stream of a bz2 file that starts at byte `start` or later; `size`, its size, without one."""
    if start == 0:
        return 0
    packed.seek(start)
    kept = b""
    while block := packed.read(CHUNK):
        if found := STREAM_START.search(kept + block):
            return packed.tell() - len(kept) - len(block) + found.start()
        kept = (kept + block)[-9:]
    return size


# ---------------------------------------------------------------------------------------------------------------------
# Pages
# ---------------------------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """
    A page of a dump.

    Args:
        page_id (`int`).
        namespace (`int`): 0 for articles.
        title (`str`): without the name of the namespace.
        redirect (`str`, *optional*): title of the page that this one redirects to.
        text (`str`, *optional*): wikitext of the last revision; `None` without a revision.
        model (`str`): `"wikitext"`, or another format of the text.
    """

    page_id: int
    namespace: int
    title: str
    redirect: str | None
    text: str | None
    model: str


def read_pages(file: Path, language: str, part: int = 0, parts: int = 1) -> Iterator[tuple[Site, Page]]:
    """
    Reads the pages of a dump in the order of the file, each with the site of the dump; one page is in memory at a
    time.

    Args:
        part, parts (`int`, default to 0 and 1): reads one of `parts` parts of the file, so that tasks can share it; see
            [`Stream`]. Each page is in one part.

    Raises `ValueError` with file and place for a file that is damaged, cut off, empty or not a dump.
    """
    stream = Stream(file, part, parts)
    site, last = None, "the start"
    if part:
        _, head = next(split_pages(Stream(file)))
        site = read_site(file, head.partition(PAGE_START)[0], language)
    for position, data in split_pages(stream):
        start = data.find(PAGE_START)
        if site is None:
            site = read_site(file, data if start < 0 else data[:start], language)
        elif data[: max(start, 0)].strip() and not (part and last == "the start"):
            raise ValueError(f"{file}: broken XML at byte {position} of {stream.text}, after {last}; fetch it again")
        if not data.endswith(PAGE_END):
            if start >= 0 or not data.rstrip().endswith(b"</mediawiki>"):
                place = f"byte {position + len(data)} of {stream.text}, after {last}"
                raise ValueError(f"{file}: cut off at {place}; fetch it again")
            return
        if start < 0 and part and last == "the start":  # the end of a page of the part before
            continue
        try:
            page = read_page(file, fromstring(data[start:]), site)
        except ParseError as error:
            place = f"in the page at byte {position} of {stream.text}, after {last}"
            raise ValueError(f"{file}: broken XML {place} ({error}); fetch it again") from error
        last = f"page {page.page_id} ({page.title!r})"
        yield site, page


def split_pages(stream: Stream) -> Iterator[tuple[int, bytes]]:
    """
    Yields (number of the first byte, bytes) of each page, with what is before it. A page belongs to the part of a file
    in which it starts, and may end in the next one. At the end of the file yields what is after all pages.
    """
    rest, position = b"", 0
    own = None  # bytes of `rest` that are in the part, at its end
    for chunk in stream.chunks():
        if stream.over and own is None:
            own = len(rest)
        rest += chunk
        if own is not None and len(rest) >= own + len(PAGE_START) and not 0 <= rest.find(PAGE_START) < own:
            return
        start = 0
        while (end := rest.find(PAGE_END, start)) >= 0:
            end += len(PAGE_END)
            yield position + start, rest[start:end]
            if own is not None:
                return
            start = end
        rest, position = rest[start:], position + start
    if position or rest or not stream.part:
        yield position, rest


def read_site(file: Path, head: bytes, language: str) -> Site:
    """Reads what is before the first page. Raises `ValueError` with the file if it is no dump of a wiki."""
    if not head.strip():
        raise ValueError(f"{file}: empty")
    if b"<mediawiki" not in head:
        raise ValueError(f"{file}: not a dump of a wiki; it starts with {head[:60].decode(errors='replace')!r}")
    site = Site(language, dict(ENGLISH))
    if found := SITE_INFO.search(head):
        try:
            for space in fromstring(found[0]).iter("namespace"):
                if space.text:
                    site.namespaces[space.text.lower()] = int(space.get("key", 0))
        except ParseError as error:
            raise ValueError(f"{file}: broken XML in <siteinfo> ({error})") from error
    return site


def read_page(file: Path, element: Element, site: Site) -> Page:
    """Raises `ValueError` with the file for a page without title or number."""
    parts = {child.tag: child for child in element}
    title = (parts["title"].text or "") if "title" in parts else ""
    number = (parts["id"].text or "") if "id" in parts else ""
    if not title or not number.isascii() or not number.isdigit():
        raise ValueError(f"{file}: a page has the title {title!r} and the id {number!r}; is it a dump of a wiki?")
    prefix, colon, rest = title.partition(":")
    named = site.namespaces.get(prefix.lower()) if colon else None
    space = int(parts["ns"].text or 0) if "ns" in parts else named or 0
    if space and named == space:
        title = rest
    revision = {child.tag: child for child in parts["revision"]} if "revision" in parts else {}  # the last one
    text = (revision["text"].text or "") if "text" in revision else None
    model = (revision["model"].text or "") if "model" in revision else "wikitext"
    redirect = parts["redirect"].get("title") if "redirect" in parts else None
    # Dumps of 2011 mark redirects without a title, those before do not mark them.
    old = "redirect" in parts or "ns" not in parts
    if redirect is None and old and text and (target := REDIRECT.match(text)):
        redirect = target[1]
    redirect = clean_title(redirect) if redirect else None
    return Page(int(number), space, " ".join(title.replace("_", " ").split()), redirect, text, model)


# ---------------------------------------------------------------------------------------------------------------------
# Articles
# ---------------------------------------------------------------------------------------------------------------------


def read_articles(
    file: Path, language: str, topics: "Topics", counts: Counter, part: int = 0, parts: int = 1
) -> Iterator[Article]:
    """
    Reads the articles of one XML file, in the order of the file; one page is in memory at a time.

    Args:
        file (`Path`).
        language (`str`).
        topics (`Topics`): index that has been built from this file and the others.
        counts (`Counter`): gets the number of `"articles"`, of pages that are left out by reason (one of `REASONS`),
            of `"links"` to articles, and of `"links without an article"` (which have no key).
        part, parts (`int`, default to 0 and 1): as in [`read_pages`].

    Raises `ValueError` with file and place for a file that is damaged, or is not one of the index's.
    """
    templates = DISAMBIGUATION_TEMPLATES | topics.disambiguation_templates(language)
    for site, page in read_pages(file, language, part, parts):
        found: list = []
        reason = why_not(page, topics, language, templates)
        if reason is None:
            found = sections(page.text or "", site)
            reason = too_little([(section.text, section.listed) for section in found])
        if reason is not None:
            counts[reason] += 1
            continue
        if (key := topics.key(language, page.title)) is None:
            raise ValueError(f"{file}: the index {topics.path} lacks the page {page.title!r}; build it anew")
        keys = topics.keys(language, [title for section in found for title in section.links])
        kept = []
        for section in found:
            links = [keys[title] for title in section.links if keys[title] is not None]
            counts["links"] += len(links)
            counts["links without an article"] += len(section.links) - len(links)
            kept.append(ArticleSection(section.heading, section.level, section.text, links))
        counts["articles"] += 1
        yield Article(key, language, str(page.page_id), page.title, kept)


def why_not(page: Page, topics: "Topics", language: str, templates: frozenset[str]) -> str | None:
    """Returns why a page is no article, as far as that shows before its text is cleaned; see `REASONS`."""
    if page.namespace:
        return "other namespace"
    if page.redirect:
        return "redirect"
    if page.text is None:
        return "no revision"
    if page.model != "wikitext":
        return "not wikitext"
    if topics.is_disambiguation(language, page.title) or is_disambiguation_text(page.text, templates):
        return "disambiguation page"
    return None


def is_disambiguation_text(wikitext: str, templates: frozenset[str] = DISAMBIGUATION_TEMPLATES) -> bool:
    """Tells whether a page says of itself, by a word or one of the `templates`, that it is a disambiguation page."""
    return DISAMBIGUATION in wikitext or template_pattern(templates).search(wikitext) is not None


@cache
def template_pattern(templates: frozenset[str]) -> re.Pattern:
    """Finds one of the templates. In a page the first letter may be small, and spaces may be underscores."""
    names = (f"[{re.escape(name[0] + name[0].lower())}]{re.escape(name[1:])}" for name in sorted(templates))
    return re.compile(r"\{\{\s*(?:" + "|".join(names).replace(r"\ ", "[ _]") + r")\s*[|}\n]")


def too_little(texts: list[tuple[str, int]]) -> str | None:
    """
    Returns `"stub"` or `"list"` for an article that has too little text, else `None`.

    Args:
        texts (`list[tuple[str, int]]`): for each section its text, and the number of characters in items of lists.
    """
    length = sum(len(text) for text, _ in texts)
    if length < SHORTEST:
        return "stub"
    return "list" if sum(listed for _, listed in texts) > LARGEST_LISTED * length else None


__all__ = [
    "REASONS",
    "Dump",
    "Page",
    "find_dumps",
    "is_disambiguation_text",
    "read_articles",
    "read_pages",
    "too_little",
]
