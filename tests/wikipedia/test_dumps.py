"""Finds and reads dumps of Wikipedia."""

import bz2
import re
from collections import Counter
from pathlib import Path

import pytest

from modeling_clir.wikipedia.dumps import CHUNK, SHORTEST, Dump, find_dumps, read_articles, read_pages
from modeling_clir.wikipedia.topics import Topics, build_topics

from ..shared import shared_path
from .written import NAMESPACES, PROSE, head, page, write_dump, write_sql


def read(pages: list[str], tmp_path: Path, language: str = "en", sql: dict[str, list[tuple]] | None = None):
    """Writes a dump, builds its index, and returns its articles and counts."""
    file = write_dump(tmp_path / f"{language}wiki-20240501-pages-articles.xml", pages, language)
    tables = {table: write_sql(tmp_path / f"{table}.sql", table, rows) for table, rows in (sql or {}).items()}
    build_topics(tmp_path / "topics.sqlite", [Dump(language, [file], **tables)])
    counts: Counter = Counter()
    return list(read_articles(file, language, Topics(tmp_path / "topics.sqlite"), counts)), counts


# ---------------------------------------------------------------------------------------------------------------------
# Finding
# ---------------------------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_dumps_are_found_by_their_names_in_the_order_of_the_languages(tmp_path):
    parts = [f"enwiki-20240501-pages-articles{n}.xml-p{n}p{n}9.bz2" for n in (1, 2, 10)]
    others = ["enwiki-20240501-page_props.sql.gz", "enwiki-20240501-langlinks.sql.gz", "de/dewiki-20240501-page.sql"]
    touch(tmp_path, *parts, *others, "de/dewiki-20240501-pages-articles-multistream.xml.bz2")
    touch(tmp_path, "de/dewiki-20240501-pages-articles-multistream-index.txt.bz2", "simplewiki-1-pages-articles.xml")
    touch(tmp_path, "zh_yuewiki-latest-pages-articles.xml.gz", "enwiki-20240501-pages-articles.xml.md5")
    german, english, cantonese = find_dumps(tmp_path, ["de", "en", "zh_yue"])
    assert [file.name for file in english.files] == parts
    assert (english.language, english.date) == ("en", "20240501")
    assert (english.page_props.name, english.langlinks.name, english.page) == (others[0], others[1], None)
    assert german.files[0].name == "dewiki-20240501-pages-articles-multistream.xml.bz2"
    assert (german.page.name, german.page_props) == ("dewiki-20240501-page.sql", None)
    assert (cantonese.files[0].suffix, cantonese.date) == (".gz", "latest")


def test_a_folder_for_each_language_with_wiki_xml(tmp_path):
    touch(tmp_path, "minidump_de/wiki.xml.bz2", "minidump_de/langlinks.sql", "fr/wiki.xml", "minidump_nds/wiki.xml")
    touch(tmp_path, "wade/wiki.xml")
    german, french = find_dumps(tmp_path, ["de", "fr"])
    assert german == Dump(
        "de", [tmp_path / "minidump_de/wiki.xml.bz2"], langlinks=tmp_path / "minidump_de/langlinks.sql"
    )
    assert french == Dump("fr", [tmp_path / "fr/wiki.xml"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"has no dump of 'en'; fetch enwiki-DATE-pages-articles\.xml\.bz2 and enwiki-DATE-page_props\.sql\.gz"),
        (["enwiki-20240501-pages-articles.xml", "enwiki-latest-pages-articles.xml"], r"several dates \(20240501, latest\)"),
        (["enwiki-1-pages-articles.xml"], "has no dump of 'en'"),
        (
            ["enwiki-20240501-pages-articles.xml", "enwiki-20240501-pages-articles1.xml-p1p2.bz2"],
            "the pages of 'en' in several forms, enwiki-20240501-pages-articles.xml and enwiki-20240501-pages-articles1",
        ),
        (["a_en/wiki.xml", "b_en/wiki.xml.bz2"], "the pages of 'en' in several forms"),
        (
            ["enwiki-20240501-pages-articles.xml", "enwiki-20240501-page.sql", "x/enwiki-20240401-page.sql.gz"],
            "several dumps of the table 'page' for 'en'",
        ),
    ],
)  # fmt: skip
def test_no_dump_or_several_are_errors(names, message, tmp_path):
    touch(tmp_path, *names)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        find_dumps(tmp_path, ["en"])


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        find_dumps(tmp_path / "dumps", ["en"])


# ---------------------------------------------------------------------------------------------------------------------
# Pages
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gz", "a.xml.bz2", "streams.xml.bz2"])
def test_pages_are_the_same_however_they_are_packed(name, tmp_path):
    pages = [page(n, f"Title {n}", f"text {n} & <b> ü 東京 " * 3000) for n in range(1, 12)]
    file = write_dump(tmp_path / name, pages, streams=name.startswith("streams"))
    found = [(p.page_id, p.title, p.text) for _, p in read_pages(file, "en")]
    assert found == [(n, f"Title {n}", f"text {n} & <b> ü 東京 " * 3000) for n in range(1, 12)]


def test_a_title_with_a_slash_and_an_apostrophe_and_a_colon(tmp_path):
    file = write_dump(tmp_path / "a.xml", [page(1, 'AC/DC\'s "Re:Zero" & <more>')])
    assert [p.title for _, p in read_pages(file, "en")] == ['AC/DC\'s "Re:Zero" & <more>']


def test_namespaces_come_from_the_dump(tmp_path):
    pages = [page(1, "Vorlage:X", ns=10), page(2, "Foo: Bar"), page(3, "Kategorie:Y", ns=14), page(4, "Neu:Z", ns=120)]
    found = list(read_pages(write_dump(tmp_path / "a.xml", pages, "de"), "de"))
    expected = [(10, "X"), (0, "Foo: Bar"), (14, "Y"), (120, "Neu:Z")]
    assert [(p.namespace, p.title) for _, p in found] == expected
    assert all(found[0][0].namespaces[name.lower()] == key for key, name in NAMESPACES["de"].items())
    assert found[0][0].namespaces["file"] == 6


def test_old_dumps_name_neither_namespace_nor_redirect(tmp_path):
    """Their titles and texts tell."""
    texts = [
        ("A", "#REDIRECT [[b c#d]]"),
        ("Datei:X", "x"),
        ("B", "#weiterleitung: [[:C]]"),
        ("D", "# [[C]] is first"),
    ]
    pages = [re.sub("<ns>.*?</ns>", "", page(n, *pair)) for n, pair in enumerate(texts, start=1)]
    found = [p for _, p in read_pages(write_dump(tmp_path / "a.xml", pages, "de"), "de")]
    assert [(p.title, p.namespace, p.redirect) for p in found] == [
        ("A", 0, "B c"), ("X", 6, None), ("B", 0, "C"), ("D", 0, None),
    ]  # fmt: skip


def test_a_new_dump_marks_its_redirects(tmp_path):
    """A text that only looks like one is an article."""
    pages = [page(1, "A", "#REDIRECT [[B]]", redirect="B (x)"), page(2, "C", "#one [[two]]")]
    found = [p for _, p in read_pages(write_dump(tmp_path / "a.xml", pages), "en")]
    assert [p.redirect for p in found] == ["B (x)", None]


def test_of_several_revisions_the_last_is_read(tmp_path):
    old = "<revision><id>1</id><text>old</text></revision>"
    pages = [page(1, "A", "new").replace("<revision>", old + "<revision>", 1)]
    assert [p.text for _, p in read_pages(write_dump(tmp_path / "a.xml", pages), "en")] == ["new"]


def sizes(number: int) -> list[str]:
    return [page(n, f"T{n}", "".join(map(chr, range(0x4E00, 0x4E00 + n * 97 % 500)))) for n in range(1, number)]


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 150])
@pytest.mark.parametrize("cut", ["pages", "anywhere", "one stream", "plain"])
def test_parts_of_a_file_have_each_page_once(cut, parts, tmp_path):
    """Streams that end at pages, as in `multistream` dumps, and anywhere, as parallel programs write them."""
    pages = sizes(120)
    if cut == "anywhere":
        data = (head() + "".join(pages) + "</mediawiki>\n").encode()
        file = tmp_path / "a.xml.bz2"
        file.write_bytes(b"".join(bz2.compress(data[start : start + 997]) for start in range(0, len(data), 997)))
    else:
        file = write_dump(tmp_path / ("a.xml" if cut == "plain" else "a.xml.bz2"), pages, streams=cut == "pages")
    found = [[p.page_id for _, p in read_pages(file, "en", part, parts)] for part in range(parts)]
    assert [page_id for part in found for page_id in part] == list(range(1, 120))
    if cut in ("pages", "anywhere") and parts < 10:
        assert max(map(len, found)) < 2 * 120 / parts + 10
    sites = {site.namespaces["category"] for part in range(parts) for site, _ in read_pages(file, "en", part, parts)}
    assert sites == {14}


def test_a_damaged_part_is_an_error_with_its_place(tmp_path):
    file = write_dump(tmp_path / "a.xml.bz2", sizes(40), streams=True)
    whole = file.read_bytes()
    file.write_bytes(whole[:-50])
    with pytest.raises(
        ValueError, match=r"a\.xml\.bz2: damaged or cut off after byte \d+ of the text of its part 2 of 3"
    ):
        list(read_pages(file, "en", 2, 3))
    assert len(list(read_pages(file, "en", 0, 3))) > 5
    file.write_bytes(whole[: -len(bz2.compress(b"</mediawiki>\n"))])
    with pytest.raises(
        ValueError, match=r"cut off at byte \d+ of the text of its part 2 of 3, after page 39 \('T39'\)"
    ):
        list(read_pages(file, "en", 2, 3))


LONG = [page(n, f"T{n}", "ü\n" * (CHUNK // 2)) for n in range(3)]


def cut_bz2(file: Path):
    file.write_bytes(file.read_bytes()[:-20])


def cut_xml(file: Path):
    text = bz2.decompress(file.read_bytes())
    file.write_bytes(bz2.compress(text[: text.index(b"<title>T1<") + 60]))


def cut_between(file: Path):
    text = bz2.decompress(file.read_bytes())
    file.write_bytes(bz2.compress(text[: text.index(b"  <page><title>T2<")]))


def spoil_between(file: Path):
    text = bz2.decompress(file.read_bytes())
    file.write_bytes(bz2.compress(text.replace(b"  <page><title>T1<", b"  x<page><title>T1<")))


def spoil_bz2(file: Path):
    data = file.read_bytes()
    file.write_bytes(data[:60] + b"\0" * 9 + data[69:])


def spoil_text(file: Path):
    text = bz2.decompress(file.read_bytes())
    at = text.index(b"<title>T1<") + 1000
    file.write_bytes(bz2.compress(text[:at] + b"\xff" + text[at + 1 :]))


def spoil_xml(file: Path):
    file.write_bytes(bz2.compress(bz2.decompress(file.read_bytes()).replace(b"<id>1</id>", b"<id>1</ix>")))


def no_number(file: Path):
    file.write_bytes(bz2.compress(bz2.decompress(file.read_bytes()).replace(b"<id>1</id>", b"<id>one</id>")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_bz2, r"a\.xml\.bz2: damaged or cut off after byte \d+ of its text"),
        (spoil_bz2, r"a\.xml\.bz2: damaged or cut off after byte \d+ of its text"),
        (cut_xml, r"a\.xml\.bz2: cut off at byte \d+ of its text, after page 0 \('T0'\)"),
        (cut_between, r"a\.xml\.bz2: cut off at byte \d+ of its text, after page 1 \('T1'\)"),
        (spoil_between, r"a\.xml\.bz2: broken XML at byte \d+ of its text, after page 0 \('T0'\)"),
        (spoil_text, r"a\.xml\.bz2: not UTF-8 at byte \d+ of its text"),
        (spoil_xml, r"a\.xml\.bz2: broken XML in the page at byte \d+ of its text, after page 0 \('T0'\)"),
        (no_number, r"a\.xml\.bz2: a page has the title 'T1' and the id 'one'"),
        (lambda file: file.write_bytes(b""), r"a\.xml\.bz2: empty"),
        (lambda file: file.write_bytes(bz2.compress(b"")), r"a\.xml\.bz2: empty"),
        (
            lambda file: file.write_bytes(bz2.compress(b"<html></html>")),
            r"not a dump of a wiki; it starts with '<html></html>'",
        ),
        (
            lambda file: file.write_bytes(bz2.compress(b"CREATE TABLE")),
            r"a\.xml\.bz2: not a dump of a wiki; it starts with 'CREATE TABLE'",
        ),
    ],
)
def test_a_damaged_dump_is_an_error_with_its_place(damage, message, tmp_path):
    file = write_dump(tmp_path / "a.xml.bz2", LONG)
    damage(file)
    with pytest.raises(ValueError, match=message) as error:
        list(read_pages(file, "en"))
    assert "\n" not in str(error.value)


def test_the_place_of_a_bad_byte_is_exact(tmp_path):
    file = tmp_path / "a.xml"
    text = (head() + page(1, "A", "ü" * CHUNK)).encode()
    for at in (text.index(b"\xc3") + 1, CHUNK - 1, CHUNK, len(text) - 30):
        file.write_bytes(text[:at] + b"\xff" + text[at + 1 :])
        with pytest.raises(ValueError, match="not UTF-8 at byte") as error:
            list(read_pages(file, "en"))
        assert abs(int(re.search(r"byte (\d+)", str(error.value))[1]) - at) <= 1


def test_a_dump_without_pages_has_none(tmp_path):
    assert list(read_pages(write_dump(tmp_path / "a.xml", []), "en")) == []


# ---------------------------------------------------------------------------------------------------------------------
# Articles
# ---------------------------------------------------------------------------------------------------------------------


def test_what_is_no_article_is_left_out_and_counted(tmp_path):
    pages = [
        page(1, "Kept"),
        page(2, "Talk:Kept", ns=1),
        page(3, "Bare", None),
        page(4, "Code", "{}" * SHORTEST, model="json"),
        page(5, "Other name", "#REDIRECT [[Kept]]", redirect="Kept"),
        page(6, "By word", PROSE + "__DISAMBIG__"),
        page(7, "By name", PROSE + "{{disambiguation|geo}}"),
        page(8, "By its dump", PROSE + "{{ our_sign }}{{Signs}}"),
        page(9, "By the table"),
        page(10, "Many", f"{PROSE[:200]}\n" + "* [[item]] of a list\n" * 50),
        page(11, "Short", PROSE[: SHORTEST - 5]),
        page(12, "Template:Sign", "<includeonly>__DISAMBIG__</includeonly>", ns=10),
        page(13, "Template:Our sign", "#REDIRECT [[Template:Sign]]", redirect="Template:Sign", ns=10),
        page(14, "Template:Sign/doc", "<code>__DISAMBIG__</code>", ns=10),
    ]
    props = [(9, "disambiguation", "", None), (1, "wikibase_item", "Q1", None)]
    articles, counts = read(pages, tmp_path, sql={"page_props": props})
    assert [(article.key, article.title, article.page_id) for article in articles] == [("Q1", "Kept", "1")]
    assert counts == {
        "articles": 1, "other namespace": 4, "no revision": 1, "not wikitext": 1, "redirect": 1,
        "disambiguation page": 4, "list": 1, "stub": 1, "links": 0, "links without an article": 0,
    }  # fmt: skip


def test_links_are_keys_of_articles(tmp_path):
    text = f"[[b]] {PROSE} [[Old name|x]] [[missing]]\n== H ==\n[[AC/DC's]] {{{{t|[[b]]}}}} [[Loop 1]]"
    pages = [
        page(1, "A", text),
        page(2, "B"),
        page(3, "Old name", "", redirect="Older name"),
        page(4, "Older name", "", redirect="B"),
        page(5, "AC/DC's"),
        page(6, "Loop 1", "", redirect="Loop 2"),
        page(7, "Loop 2", "", redirect="Loop 1"),
    ]
    (article, *_), counts = read(pages, tmp_path)
    assert [section.links for section in article.sections] == [["en:B", "en:B"], ["en:AC/DC's"]]
    assert (counts["links"], counts["links without an article"]) == (3, 2)


def test_an_index_of_other_files_is_an_error(tmp_path):
    read([page(1, "A")], tmp_path)
    file = write_dump(tmp_path / "enwiki-20240501-pages-articles.xml", [page(2, "B")])
    with pytest.raises(ValueError, match=r"topics\.sqlite lacks the page 'B'; build it anew"):
        list(read_articles(file, "en", Topics(tmp_path / "topics.sqlite"), Counter()))


def test_real_dumps_are_read(tmp_path):
    """Two old samples name neither namespace nor redirect; one of them has language links in its text."""
    for name, articles in (("gensim", 96), ("samples", 2)):
        (dump,) = find_dumps(shared_path(f"data/wikitext/{name}"), ["en"])
        build_topics(tmp_path / name, [dump])
        counts: Counter = Counter()
        found = list(read_articles(dump.files[0], "en", Topics(tmp_path / name), counts))
        assert len(found) == counts["articles"] >= articles and counts["redirect"] >= 2
        assert all(article.sections[0].level == 1 for article in found)
