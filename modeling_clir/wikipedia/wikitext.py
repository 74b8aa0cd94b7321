"""
Plain text of an article's sections from wikitext.

[`sections`] works in three steps, each a few passes over the page. [`cut`] removes what is never text: comments,
templates, tables, references and other tags of extensions. [`cut_files`] removes files and categories. [`plain`] turns
what is left (links, bold and italic, lists, HTML) into lines. The steps know no grammar and cannot fail: on markup that
is broken they remove a little too much or too little. (A full parser, mwparserfromhell, gives the same words at a tenth
of the speed: see results/wikipedia_text.md.)
"""

import html
import re
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple


# Tags whose content is no text of the article. Their content is not wikitext either: it is skipped as it is.
CUT_TAGS = (
    "categorytree|ce|chem|gallery|graph|hiero|imagemap|indicator|inputbox|mapframe|maplink|math|pre|ref|references"
    "|score|section|source|syntaxhighlight|templatedata|templatestyles|timeline"
)
# What opens or closes something that `cut` removes. A table starts and ends at the start of a line.
MARK = re.compile(
    rf"<!--|<(?P<tag>{CUT_TAGS}|nowiki)(?=[\s/>])[^<>]*>?|<table(?=[\s>])[^<>]*>|</table\s*>"
    r"|\{\{\{?|\}\}|^[ \t:*#;]*\{\||^[ \t]*\|\}(?!\})|^==(?!=)",
    re.IGNORECASE | re.MULTILINE,
)
LONE_TAGS = ("nowiki", "references", "section")  # without an end they mean nothing, and what follows is text
CLOSE = {tag: re.compile(rf"</{tag}\s*>", re.IGNORECASE) for tag in (*CUT_TAGS.split("|"), "nowiki")}
OPEN_REFERENCE = re.compile(r"<ref(?:\s[^<>]*)?(?<!/)>", re.IGNORECASE)
NEXT_PARAGRAPH = re.compile(r"\n[ \t]*\n|\n(?==)")
NEXT_HEADING = re.compile(r"\n(?==)")
NOWIKI = {ord(mark): f"&#{ord(mark)};" for mark in "[]{}<>'=*#:;|_-"}

# Templates that show their arguments (which of them, the name not counted). They are dates, numbers and names: what texts
# in two languages share. All other templates are removed.
SHOWN = {
    **dict.fromkeys(("lang", "langue", "transl", "transliteration"), slice(1, 2)),
    **dict.fromkeys(("convert", "cvt", "unité", "nombre", "tmp"), slice(0, 2)),
    **dict.fromkeys(
        ("date", "date-", "date de naissance", "date de décès", "start date", "nobr", "nowrap", "incise", "linktext"),
        slice(0, 3),
    ),
    **dict.fromkeys(("s-", "s", "siècle", '"', "smaller", "small", "flag", "flagu", "nihongo"), slice(0, 1)),
}
BAR = re.compile(r"\|(?![^\[\]]*\]\])")  # not of a link
NAMED = re.compile(r"\s*[\w -]+=")

HEADING = re.compile(r"^(={1,6})(.+?)(={1,6})[ \t]*$", re.MULTILINE)
DEEPEST = 3  # headings below this level do not start a section

# Numbers of the namespaces whose links show no text where they stand.
MEDIA, FILE, CATEGORY = -2, 6, 14
# Files are also known by their ending: a dump does not tell all names of the namespace (German: Datei, and Bild).
FILE_NAME = (
    r"[^\[\]|\n:]+:[^\[\]|\n]+\.(?:jpe?g|png|gif|svg|tiff?|webp|xcf|pdf|djvu|og[gavx]|opus|mp[34]|mpe?g|midi?|wav|flac"
    r"|webm|stl)\s*(?=[|\]])"
)
BRACKETS = re.compile(r"\[\[|\]\]")
# Lines of nothing but links with a prefix: categories and language links, also if the dump does not tell the prefix.
PREFIXED_LINES = re.compile(r"^[ \t]*(?:\[\[[^\[\]|\n:]+:[^\[\]\n]*\]\][ \t]*)+$", re.MULTILINE)
LANGUAGE_LINK = re.compile(r"[a-z]{2,3}(?:-[a-z]{2,})*:\S|simple:\S")  # de:Berlin, zh-min-nan:...; not Re:Zero

EXTERNAL_LINK = re.compile(
    r"\[(?:(?:https?|ftp)://|//|mailto:)[^\s\[\]]+[ \t]*([^\[\]\n]*(?:\[\[[^\[\]\n]*\]\][^\[\]\n]*)*)\]"
)
LINK = re.compile(r"\[\[([^\[\]|\n]*)(?:\|((?:[^\[\]]|\[(?!\[)[^\[\]]*\](?!\]))*))?\]\]")
BLOCK_TAG = re.compile(
    r"<(?:br|p|div|li|ul|ol|dd|dt|dl|tr|h[1-6]|center|blockquote|hr)(?=[\s/>])[^<>]*>|</(?:p|div|li)\s*>",
    re.IGNORECASE,
)
ANY_TAG = re.compile(r"</?[a-z][a-z0-9]*(?:\s[^<>]*)?/?>", re.IGNORECASE)
QUOTES = re.compile(r"''+")
VARIANT = re.compile(r"-\{(?!\{)([^{}]*)\}-")  # Chinese in several scripts: -{zh-hans:计算机; zh-hant:電腦;}-
SWITCH = re.compile(r"__[^\W\d_]+__")  # __NOTOC__
LIST_ITEM = re.compile(r"^[ \t]*[*#;:]*[*#;][*#;:]*[ \t]*", re.MULTILINE)
INDENT = re.compile(r"^[ \t]*(?::+|-{4,})[ \t]*", re.MULTILINE)
CELLS = re.compile(r"^[ \t]*\|.*$", re.MULTILINE)  # rows of broken tables, parameters of broken templates

EMPTY_BRACKETS = re.compile(r"[(（][\s,;:،、；，/–—-]*[)）]|\[\s*\]")
AFTER_BRACKET = re.compile(r"([(（])[\s,;:،、；，]+")
SPACES = re.compile(r"(?: [^\S\n]|[^\S\n ])[^\S\n]*")  # all but a single space
SPACE_BEFORE = re.compile(r" ([,.)،。，、])(?=\s|$)")  # not ; : ! ?, before which French has a space
IDEOGRAPHS = "\u2e80"  # scripts from here on are written without spaces
LIST_MARK = "\ue000"  # stands at the start of an item of a list until the text is clean


@dataclass
class Site:
    """
    What `<siteinfo>` of a dump says.

    Args:
        language (`str`): code of the Wikipedia, such as `"de"`.
        namespaces (`dict[str, int]`): number of each namespace by its name in lower case, in the wiki's language and
            in English. Without the main namespace.
    """

    language: str
    namespaces: dict[str, int] = field(default_factory=dict)

    @cached_property
    def unseen(self) -> re.Pattern:
        """Starts of the links that show no text where they stand: `[[File:`, `[[Category:`, `[[x:y.jpg`."""
        names = "|".join(
            re.escape(name) for name, number in self.namespaces.items() if number in (MEDIA, FILE, CATEGORY)
        )
        return re.compile(rf"\[\[\s*(?:(?:{names or '(?!)'})\s*:|{FILE_NAME})", re.IGNORECASE)


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
    Sections without text of their own are left out; the lead is always there.
    """
    text = cut_files(cut(wikitext), site)
    found = []
    heading, level, start = "", 1, 0
    for head in [*HEADING.finditer(text), None]:
        if head and (depth := min(len(head[1]), len(head[3]))) > DEEPEST:
            continue
        lines, links = plain(text[start : head.start() if head else len(text)], site)
        if lines or level == 1:
            listed = sum(len(line) - 1 for line in lines if line.startswith(LIST_MARK))
            found.append(Section(heading, level, "\n".join(lines).replace(LIST_MARK, ""), links, listed))
        if head:
            heading = " ".join(plain(head[2], site)[0]).replace(LIST_MARK, "")
            level, start = max(2, depth), head.end()
    return found


def cut(wikitext: str) -> str:
    """
    Removes comments, templates, tables and the tags of extensions (`CUT_TAGS`), and escapes the text of `<nowiki>`.

    Takes one pass, whatever is nested in what. What is opened and not closed ends where its author meant to end it: a
    template or a reference at the end of the paragraph, a table at the next heading, a comment at the end of the page.
    Templates and tables do not reach over a heading of level 2.
    """
    gaps: list[tuple[int, int, str]] = []  # (start, end, text in its place), of what is nested in others too
    opened: list[tuple[int, str]] = []  # (start, mark) of the templates and tables that are not closed yet
    unclosed: list[tuple[int, str]] = []
    closes: dict[str, re.Match | None] = {}  # for each tag the next place where one is closed
    position = 0
    while mark := MARK.search(wikitext, position):
        start, position = mark.span()
        text = mark[0].strip()
        if mark["tag"]:
            content, position = end_of_tag(wikitext, mark, closes)
            kept = wikitext[mark.end() : content].translate(NOWIKI) if mark["tag"].lower() == "nowiki" else ""
            gaps.append((start, position, kept))
        elif text == "<!--":
            end = wikitext.find("-->", position)
            position = len(wikitext) if end < 0 else end + 3
            gaps.append((start, position, ""))
        elif text == "==":
            unclosed += opened
            opened.clear()
        elif text.startswith("{{"):
            opened.append((start, text))
        elif text.endswith("{|"):
            opened.append((start, "{|"))
        elif text[:6].lower() == "<table":
            opened.append((start, "<table"))
        else:
            kind = {"|}": "{|", "}}": "{{"}.get(text, "<table")
            level = len(opened) - 1
            while level >= 0 and not opened[level][1].startswith(kind):
                level -= 1
            if level < 0:
                gaps.append((start, position, ""))
                continue
            if opened[level][1] == "{{{" and wikitext.startswith("}", position):
                position += 1
            begin = opened[level][0]
            kept = shown(wikitext[begin + 2 : position - 2]) if level == 0 and kind == "{{" else ""
            # Words that a template parts, as in 24{{nbsp}}August, stay two words; Chinese and Japanese have no spaces.
            sides = wikitext[max(0, begin - 1) : begin] + wikitext[position : position + 1]
            if not kept and len(sides) == 2 and sides.isalnum() and max(sides) < IDEOGRAPHS:
                kept = " "
            gaps.append((begin, position, kept))
            del opened[level:]
    for kinds, following in ((("{{", "{{{"), NEXT_PARAGRAPH), (("{|", "<table"), NEXT_HEADING)):
        end = 0
        for start in (start for start, kind in unclosed + opened if kind in kinds):
            if start >= end:
                found = following.search(wikitext, start)
                end = found.start() if found else len(wikitext)
                gaps.append((start, end, ""))
    parts, position = [], 0
    for start, end, kept in sorted(gaps):
        if start >= position:
            parts += wikitext[position:start], kept
        position = max(position, end)
    return "".join(parts) + wikitext[position:]


def shown(template: str) -> str:
    """Returns the text that a template of `SHOWN` shows, as wikitext; "" for other templates."""
    name, bar, _ = template.partition("|")
    if not bar or "{{" in template or (places := SHOWN.get(name.strip().lower())) is None:
        return ""
    arguments = [part.strip() for part in BAR.split(template)[1:] if not NAMED.match(part)]
    return " ".join(part for part in arguments[places] if part)


def end_of_tag(wikitext: str, mark: re.Match, closes: dict[str, re.Match | None]) -> tuple[int, int]:
    """Returns where the content of a tag ends and where the tag itself ends. Keeps `closes`, see [`cut`]."""
    start, tag = mark.end(), mark["tag"].lower()
    if mark[0].endswith("/>"):
        return start, start
    if tag not in closes or (closes[tag] and closes[tag].start() < start):
        closes[tag] = CLOSE[tag].search(wikitext, start)
    if not mark[0].endswith(">"):  # the start of a tag
        start = mark.start()
    elif (close := closes[tag]) and not (tag == "ref" and OPEN_REFERENCE.search(wikitext, start, close.start())):
        return close.start(), close.end()
    elif tag in LONE_TAGS:
        return start, start
    end = NEXT_PARAGRAPH.search(wikitext, start)
    return (end.start(),) * 2 if end else (len(wikitext),) * 2


def cut_files(wikitext: str, site: Site) -> str:
    """Removes files with their captions, categories, and language links, from wikitext that [`cut`] has cut."""
    parts, position = [], 0
    while start := site.unseen.search(wikitext, position):
        parts.append(wikitext[position : start.start()])
        depth, position = 1, start.end()
        while depth and (bracket := BRACKETS.search(wikitext, position)):
            depth += 1 if bracket[0] == "[[" else -1
            position = bracket.end()
        if depth:  # not closed
            end = NEXT_PARAGRAPH.search(wikitext, start.end())
            position = end.start() if end else len(wikitext)
    return PREFIXED_LINES.sub("", "".join(parts) + wikitext[position:])


def plain(wikitext: str, site: Site) -> tuple[list[str], list[str]]:
    """
    Returns the lines of plain text and the titles of the links, of wikitext that [`cut`] and [`cut_files`] have cut.
    Items of lists start with `LIST_MARK`.
    """
    links: list[str] = []

    def show(link: re.Match) -> str:
        target, text = link[1].strip(), link[2]
        if LANGUAGE_LINK.match(target):
            return ""
        other = target.startswith(":") or target.partition(":")[0].strip().lower() in site.namespaces
        if not other and (title := clean_title(html.unescape(target))):
            links.append(title)
        return text or target.lstrip(":#")

    text = LINK.sub(show, EXTERNAL_LINK.sub(r"\1", CELLS.sub("", wikitext)))
    text = LIST_ITEM.sub(LIST_MARK, INDENT.sub("", ANY_TAG.sub("", BLOCK_TAG.sub("\n", text))))
    text = QUOTES.sub(unquote, SWITCH.sub("", HEADING.sub(r"\2", text)))
    return clean_lines(VARIANT.sub(first_variant, text)), links


def clean_lines(text: str) -> list[str]:
    """Returns the lines of a text: without entities, brackets that have become empty, and surplus spaces."""
    text = html.unescape(text)
    text = SPACES.sub(" ", AFTER_BRACKET.sub(r"\1", EMPTY_BRACKETS.sub("", text)))
    lines = (line.strip() for line in SPACE_BEFORE.sub(r"\1", text).split("\n"))
    return [line for line in lines if line.strip(LIST_MARK)]


def unquote(quotes: re.Match) -> str:
    """Removes the marks of bold and italic: 2, 3 or 5 apostrophes. Any more are text."""
    number = len(quotes[0])
    return "'" * (1 if number == 4 else max(0, number - 5))


def first_variant(variants: re.Match) -> str:
    """Returns the first of the variants of a word. What is there for other places or the title shows no text."""
    flags, bar, text = variants[1].rpartition("|")
    if bar and not set(flags) & set("AR"):
        return ""
    first = text.split(";")[0]
    return first.split(":", 1)[-1].split("=>")[-1].strip() if ":" in first else text


def clean_title(title: str) -> str:
    """
    Returns the title that a link means: without `#fragment`, with spaces for underscores, its first letter in upper
    case. "" for a link within the page.
    """
    title = " ".join(title.split("#", 1)[0].replace("_", " ").split())
    return title[:1].upper() + title[1:]


def language_links(wikitext: str, languages: tuple[str, ...]) -> list[tuple[str, str]]:
    """Returns (language, title) of the links `[[de:Berlin]]` of a page to other languages, the first of each one."""
    found: dict[str, str] = {}
    if languages:
        for link in link_pattern(languages).finditer(wikitext):
            found.setdefault(link[1].lower().replace("-", "_"), clean_title(html.unescape(link[2])))
    return [(language, title) for language, title in found.items() if title]


@cache
def link_pattern(languages: tuple[str, ...]) -> re.Pattern:
    names = "|".join(re.escape(language).replace("_", "[-_]") for language in languages)
    return re.compile(rf"\[\[\s*({names})\s*:([^\[\]|\n]+)(?:\|[^\[\]\n]*)?\]\]", re.IGNORECASE)


__all__ = ["LIST_MARK", "Section", "Site", "clean_lines", "clean_title", "language_links", "sections"]
