"""Plain text of sections from wikitext."""

import bz2
import re
import time
from difflib import SequenceMatcher
from pathlib import Path
from xml.etree.ElementTree import iterparse

import pytest

from modeling_clir.wikipedia import wikitext as wikitext_module
from modeling_clir.wikipedia.wikitext import Site, clean_title, cut, language_links, sections

from ..shared import shared_path


SITE = Site("de", {"datei": 6, "file": 6, "image": 6, "kategorie": 14, "category": 14, "wikipedia": 4, "hilfe": 12})


def text(wikitext: str) -> str:
    """Returns the text of the lead."""
    (lead, *_) = sections(wikitext, SITE)
    return lead.text


def test_an_article_is_cut_at_headings_of_levels_2_and_3():
    page = "Lead.\n== A ==\nOne.\n=== B ===\nTwo.\n==== C ====\nThree.\n==D==\n=== E ===\nFive.\n= F =\nSix."
    found = [(section.heading, section.level, section.text) for section in sections(page, SITE)]
    expected = [("", 1, "Lead."), ("A", 2, "One."), ("B", 3, "Two.\nC\nThree."), ("E", 3, "Five."), ("F", 2, "Six.")]
    assert found == expected


def test_an_article_without_a_lead_has_an_empty_one():
    assert [(s.heading, s.level, s.text) for s in sections("== A ==\nOne.", SITE)] == [("", 1, ""), ("A", 2, "One.")]
    assert [(s.level, s.text) for s in sections("", SITE)] == [(1, "")]


def test_a_heading_is_plain_text():
    (_, section) = sections("== ''The'' [[Berlin|city]] &amp; {{unknown|more}}<ref>x</ref> ==<!-- c -->\nText.", SITE)
    assert section.heading == "The city &"


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("a '''b''' ''c'' '''''d''''' e", "a b c d e"),
        ("l'''eau''' L''''Iliade'''", "leau L'Iliade"),
        ("[[Berlin]] [[Berlin|the city]] [[dog]]s [[#Top|here]] [[Berlin|]]", "Berlin the city dogs here Berlin"),
        ("[http://a.b/c the site] [http://a.b] https://x.y", "the site https://x.y"),
        ("a&nbsp;b &lt;c&gt; &amp;amp; &#8212;", "a b <c> &amp; —"),
        ("a<br />b <small>c</small> <span style='x'>d</span> 1 < 2", "a\nb c d 1 < 2"),
        ("Paris ({{IPA-fr|x}}; ) is", "Paris is"),
        ("Rom ({{IPA}}, Roma) liegt", "Rom (Roma) liegt"),
        ("A.<ref>B.</ref> C<ref name=x /> D<ref name='y'>{{cite}}\n\nmore</ref>.", "A. C D."),
        ("__NOTOC__ a __INHALTSVERZEICHNIS__", "a"),
        ("a<!-- b\n\n {{ c -->d", "ad"),
        ("a <nowiki>[[b]] ''c'' {{d}} <ref></nowiki> e", "a [[b]] ''c'' {{d}} <ref> e"),
        ("a <math>x < y</math> b <syntaxhighlight lang='py'>if {{a</syntaxhighlight> c", "a b c"),
        ("a <gallery>\nDatei:X.jpg|[[y]]\n</gallery> b", "a b"),
        ("24{{nbsp}}August {{icon|x}}y z{{t}}. {{a}}1 東京{{ruby}}都", "24 August y z. 1 東京都"),
        ("{{a|{{b|{{{c|d}}}}}|[[e]]}}f{{#if: {{{x}}} | y }}", "f"),
        ("计算机是-{zh-hans:程序; zh-hant:程式;}-的机器，-{A}-。", "计算机是程序的机器，A。"),
        ("ברלין היא '''בירת''' [[גרמניה]] {{עברית}}.", "ברלין היא בירת גרמניה."),
        ("[[برلين]]، عاصمة {{icon|x}} [[ألمانيا]]", "برلين، عاصمة ألمانيا"),
    ],
)
def test_markup_is_removed(wikitext, expected):
    assert text(wikitext) == expected


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("né le {{Date|11|novembre|1866}} à", "né le 11 novembre 1866 à"),
        ("({{lang|grc|''[[ἀναρχία|x]]''}})", "(x)"),
        ("{{convert|1300|mi|km|abbr=on}}, {{unité|12|km|2}}, {{nobr|86 ans}}.", "1300 mi, 12 km, 86 ans."),
        ('{{"|Es liegt am [[Tag|Morgen]]|ref=<ref>x</ref>}}', "Es liegt am Morgen"),
        ("a {{lang|de|{{nobr|b}}}} {{t|{{nobr|c}}}} {{lang}} {{nobr|}}d", "a d"),
    ],
)
def test_templates_of_dates_numbers_and_names_show_their_arguments(wikitext, expected):
    assert text(wikitext) == expected


@pytest.mark.parametrize(
    "wikitext",
    [
        "a[[Datei:X.jpg|mini|A [[b]] and [[c|d]] {{e}}]] f",
        "a[[Bild:X Y.JPG|thumb|[http://a.b site] [[c]]]] f",  # the dump does not tell this name
        "a[[Kategorie:X|y]] f",
        "a f[[en:Berlin]]",
        "a f\n[[Catégorie:X]]\n[[en:Berlin]] [[zh-min-nan:Berlin]]\n",
    ],
)
def test_files_categories_and_language_links_are_no_text(wikitext):
    (section,) = sections(wikitext, SITE)
    assert section.text == "a f" and section.links == []


def test_tables_are_removed_whatever_is_in_them():
    page = "a\n{| class=x\n! h\n|-\n| {{t|\n{|\n| inner\n|}\n}} || [[b]]\n{|\n| inner\n|}\n|}\nc\n:{|\n|d\n|}\ne"
    assert text(page) == "a\nc\ne"
    assert text("a<table><tr><td><table><tr><td>b</table></td></tr></table>c") == "a c"


def test_a_template_may_end_at_the_start_of_a_line():
    assert text("{{Infobox\n| a = {{b\n|c\n}}\n|}}text") == "text"


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("A.<ref>open\n\nB.<ref>c</ref> D.", [("", "A.\nB. D.")]),
        ("A.<ref name=\n\nB.", [("", "A.\nB.")]),
        ("{{Infobox\n| a = b\n| c = {{d}}\n\nText.\n== H ==\nMore.", [("", "Text."), ("H", "More.")]),
        ("A.\n{| class=x\n| b\n\n| c\n== H ==\nMore. }} |}", [("", "A."), ("H", "More. |}")]),
        ("A <!-- b\n== H ==\nc", [("", "A")]),
        ("A [[Datei:x.jpg|mini|b\n\nC", [("", "A\nC")]),
        ("A [[b\n\nC ]] d", [("", "A [[b\nC ]] d")]),
        ("A <nowiki>b [[c]]", [("", "A b c")]),
    ],
)
def test_what_is_not_closed_ends_with_the_paragraph_or_at_the_next_heading(wikitext, expected):
    assert [(section.heading, section.text) for section in sections(wikitext, SITE)] == expected


def test_items_of_lists_are_lines_and_counted():
    (section,) = sections("Intro:\n* one\n** [[two]]\n# three\n; term : meaning\n: indented\n", SITE)
    assert section.text == "Intro:\none\ntwo\nthree\nterm : meaning\nindented"
    assert section.listed == len("one") + len("two") + len("three") + len("term : meaning")


def test_links_are_titles_of_articles_in_order():
    page = (
        "[[berlin#Mitte|x]] [[Foo_bar |y]] [[Hilfe:Z]] [[:Kategorie:K]] [[:en:L]] [[K&ouml;ln]] [[#Top]] "
        "[[Re:Zero]] [[AC/DC]] [[O'Neill]]<ref>[[no]]</ref>{{t|[[no]]}}"
    )
    (section,) = sections(page, SITE)
    assert section.links == ["Berlin", "Foo bar", "Köln", "Re:Zero", "AC/DC", "O'Neill"]


def test_titles_are_written_as_the_dump_writes_them():
    assert [clean_title(t) for t in (" foo_bar  baz#x", "#x", "ǆ", "élan")] == ["Foo bar baz", "", "Ǆ", "Élan"]


def test_language_links_are_the_first_of_each_wanted_language():
    page = "[[de:Berlin]] [[DE: Bonn]] [[:de:No]] [[fr:K&ouml;ln_x#y|z]] [[es:Uno]] [[zh-min-nan:Pek-lîm]]"
    expected = [("de", "Berlin"), ("fr", "Köln x"), ("zh_min_nan", "Pek-lîm")]
    assert language_links(page, ("de", "fr", "zh_min_nan")) == expected


def test_broken_pages_take_linear_time():
    """Of each kind 30,000: a step that looks to the end of the page for each one would take minutes."""
    marks = ["{{", "}}", "[[", "[[a|", "[[Datei:a|", "<ref>", "{|\n", "<!--", "'", " ", "= ", "( ", "* ", "<", "<a "]
    marks += [
        "<table>",
        "[http://a ",
        "{{{",
        "[[<ref>{{",
        "[[x:y.jpg ",
        "-{a",
        "==\n{{a\n",
        "&lt",
        "[[a:b]] ",
        "<ref a",
    ]
    start = time.perf_counter()
    for mark in marks:
        sections(mark * 30_000, SITE)
    assert time.perf_counter() - start < 15


def test_the_words_are_those_of_mwparserfromhell(monkeypatch):
    """
    On real articles, without what some templates show. What differs are headings without text of their own, and markup
    that is broken.
    """
    monkeypatch.setattr(wikitext_module, "SHOWN", {})
    parser = pytest.importorskip("mwparserfromhell")
    with bz2.open(shared_path("data/wikitext/minidump_fr/wiki.xml.bz2")) as file:
        pages = [element.text for _, element in iterparse(file) if element.tag.endswith("}text")]
    for page in pages:
        ours = words("\n".join(f"{s.heading}\n{s.text}" for s in sections(page, SITE)))
        theirs = words(peer_text(parser, page))
        blocks = SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
        assert sum(block.size for block in blocks) > 0.99 * max(len(ours), len(theirs))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)[:2000]


def peer_text(parser, page: str) -> str:
    code = parser.parse(page)
    tags = code.filter_tags(
        matches=lambda tag: str(tag.tag).lower() in ("table", "ref", "gallery", "math", "references")
    )
    files = r"(?:datei|bild|kategorie|fichier|image|catégorie|file|category):"
    links = code.filter_wikilinks(matches=lambda link: re.match(files, str(link.title).strip(), re.IGNORECASE))
    for node in [*tags, *links]:
        if code.contains(node):
            code.remove(node)
    return code.strip_code(normalize=True, collapse=True)


def test_real_articles_leave_no_markup():
    folder = shared_path("data/wikitext")
    left = []
    for file in sorted(Path(folder).glob("minidump_*/*.bz2")):
        with bz2.open(file) as stream:
            for _, element in iterparse(stream):
                if element.tag.endswith("}text") and element.text:
                    for section in sections(element.text, SITE):
                        left += re.findall(r"\[\[|\]\]|\{\{|\}\}|\{\||''|</?\w+>|&\w+;|==|__[A-Z]+__", section.text)
    assert len(left) < 10, left


def test_cut_keeps_what_is_text():
    assert cut("a == b\n== c ==\nd") == "a == b\n== c ==\nd"
