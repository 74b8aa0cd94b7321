"""Index of the articles' topics across languages."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from modeling_clir.wikipedia import topics as topics_module
from modeling_clir.wikipedia.dumps import Dump
from modeling_clir.wikipedia.topics import Topics, build_topics

from ..helpers import write
from .written import page, write_dump, write_sql


def make_dump(folder: Path, language: str, pages: list[str], **tables: list[tuple]) -> Dump:
    """Writes a dump with the SQL tables whose rows are given."""
    file = write_dump(folder / f"{language}.xml", pages, language)
    paths = {table: write_sql(folder / f"{language}-{table}.sql.gz", table, rows) for table, rows in tables.items()}
    return Dump(language, [file], **paths)


def build(folder: Path, *dumps: Dump, workers: int = 1) -> tuple[Topics, Counter]:
    path = folder / "topics.sqlite"
    path.unlink(missing_ok=True)
    counts = build_topics(path, list(dumps), workers)
    return Topics(path), counts


def articles(*titles: str, first: int = 1, text: str = "x") -> list[str]:
    return [page(number, title, text) for number, title in enumerate(titles, start=first)]


def item(page_id: int, identifier: str) -> tuple:
    return page_id, "wikibase_item", identifier, None


def test_keys_are_wikidata_ids(tmp_path):
    """A language link is not asked then, and other properties are passed over."""
    props = [item(1, "Q64"), (1, "page_image_free", "x'y),(.jpg", None), item(2, "Q2"), item(99, "Q99")]
    english = make_dump(tmp_path, "en", articles("Berlin", "Other", "No id"), page_props=props)
    german = make_dump(
        tmp_path, "de", articles("Andere", "Berlin"), page_props=[item(2, "Q64")], langlinks=[(1, "en", "Other")]
    )
    index, counts = build(tmp_path, english, german)
    assert [index.key("en", title) for title in ("Berlin", "Other", "No id", "Nothing")] == [
        "Q64",
        "Q2",
        "en:No id",
        None,
    ]
    assert [index.key("de", title) for title in ("Berlin", "Andere")] == ["Q64", "de:Andere"]
    assert counts["en", "Wikidata ids"] == 2 and counts["de", "Wikidata ids"] == 1
    assert index.languages == ["en", "de"]


@pytest.mark.parametrize("side", ["en", "de", "both"])
def test_one_side_carries_the_language_link(side, tmp_path):
    links = {"en": [(2, "de", "Zwei")], "de": [(7, "en", "Two")]}
    english = make_dump(tmp_path, "en", articles("One", "Two"), langlinks=links["en"] if side != "de" else [])
    german = make_dump(
        tmp_path, "de", articles("Zwei", "Drei", first=7), langlinks=links["de"] if side != "en" else []
    )
    index, _ = build(tmp_path, english, german)
    assert [index.key("de", title) for title in ("Zwei", "Drei")] == ["en:Two", "de:Drei"]
    assert [index.key("en", title) for title in ("One", "Two")] == ["en:One", "en:Two"]


def test_links_join_over_other_languages_and_redirects(tmp_path):
    """en - fr - de - es, where German names a redirect in French: all have the English title, in any order."""
    dumps = {
        "en": make_dump(tmp_path, "en", articles("E", "Other"), langlinks=[]),
        "de": make_dump(
            tmp_path, "de", articles("D"), langlinks=[(1, "fr", "Ancien_nom"), (1, "pl", "P"), (1, "es", "S")]
        ),
        "fr": make_dump(
            tmp_path, "fr", [*articles("F"), page(2, "Ancien nom", "", redirect="F")], langlinks=[(1, "en", "e")]
        ),
        "es": make_dump(tmp_path, "es", articles("S"), langlinks=[]),
    }
    for order in (["en", "de", "fr", "es"], ["es", "fr", "de", "en"]):
        index, counts = build(tmp_path, *(dumps[language] for language in order))
        expected = f"{order[0]}:{'E' if order[0] == 'en' else 'S'}"
        assert {
            language: index.key(language, language[0].upper()) for language in ("en", "de", "fr")
        } == dict.fromkeys(("en", "de", "fr"), expected)
        assert (index.key("es", "S"), index.key("fr", "Ancien nom"), index.key("en", "Other")) == (
            expected,
            expected,
            "en:Other",
        )
        assert not any("missing" in what for _, what in counts)


def test_an_article_without_wikidata_id_takes_that_of_its_link(tmp_path):
    english = make_dump(tmp_path, "en", articles("Berlin", "Bonn"), page_props=[item(1, "Q64"), item(2, "Q586")])
    german = make_dump(tmp_path, "de", articles("Berlin (Stadt)"), langlinks=[(1, "en", "Berlin")])
    french = make_dump(tmp_path, "fr", articles("Berlin"), langlinks=[(1, "de", "Berlin (Stadt)")])
    index, _ = build(tmp_path, german, english, french)
    keys = [
        index.key("de", "Berlin (Stadt)"),
        index.key("en", "Berlin"),
        index.key("fr", "Berlin"),
        index.key("en", "Bonn"),
    ]
    assert keys == ["Q64", "Q64", "Q64", "Q586"]


def test_language_links_in_the_text(tmp_path):
    """As in dumps before 2013. They are read only where no SQL dump has them."""
    english = make_dump(
        tmp_path, "en", [page(1, "Dog", "x\n[[de:Hund]]\n[[fr:Chien]]"), page(2, "Cat", "x [[:de:Katze]]")]
    )
    german = make_dump(tmp_path, "de", articles("Hund", "Katze"))
    index, _ = build(tmp_path, english, german)
    assert [index.key("de", title) for title in ("Hund", "Katze")] == ["en:Dog", "de:Katze"]
    with_table = Dump("en", english.files, langlinks=write_sql(tmp_path / "l.sql", "langlinks", [(2, "de", "Katze")]))
    index, _ = build(tmp_path, with_table, german)
    assert [index.key("de", title) for title in ("Hund", "Katze")] == ["de:Hund", "en:Cat"]


def test_contradicting_links_leave_a_key_to_one_article_of_a_language(tmp_path):
    """Two English articles link to one German article; the one that it links to keeps it."""
    english = make_dump(tmp_path, "en", articles("A", "B", "C"), langlinks=[(1, "de", "X"), (2, "de", "X")])
    german = make_dump(tmp_path, "de", articles("X", "Y"), langlinks=[(1, "en", "B"), (2, "en", "C")])
    index, counts = build(tmp_path, english, german)
    keys = [index.key("en", title) for title in "ABC"] + [index.key("de", title) for title in "XY"]
    assert len(set(keys[:3])) == 3 and keys[3] in keys[:2] and keys[4] == keys[2] == "en:C"
    assert counts["en", "pages with contradicting language links"] == 1


def test_links_to_missing_pages_are_counted(tmp_path):
    links = [
        (1, "de", "Fehlt"),
        (1, "de", "Schleife"),
        (2, "de", "Da"),
        (9, "de", "Da"),
        (1, "pl", "x"),
        (2, "de", ""),
    ]
    english = make_dump(tmp_path, "en", articles("A", "B"), langlinks=links)
    german = make_dump(tmp_path, "de", [*articles("Da"), page(2, "Schleife", "", redirect="Schleife")], langlinks=[])
    index, counts = build(tmp_path, english, german)
    assert counts["en", "language links to missing pages"] == 2
    assert index.key("de", "Da") == "en:B"


def test_redirects_are_followed_and_loops_counted(tmp_path):
    def redirect(number: int, title: str, target: str) -> str:
        return page(number, title, "", redirect=target)

    pages = [
        redirect(1, "A1", "A2"), redirect(2, "A2", "A3"), redirect(3, "A3", "a#part"), *articles("A", first=4),
        redirect(5, "Self", "Self"), redirect(6, "L1", "L2"), redirect(7, "L2", "L3"), redirect(8, "L3", "L1"),
        redirect(9, "Into", "L2"), redirect(10, "Gone", "Nothing"), redirect(11, "Far", "Gone"),
    ]  # fmt: skip
    index, counts = build(tmp_path, make_dump(tmp_path, "en", pages))
    assert [index.key("en", title) for title in ("A1", "A2", "A3", "A")] == ["en:A"] * 4
    assert [index.key("en", t) for t in ("Self", "L1", "L2", "L3", "Into", "Gone", "Far")] == [None] * 7
    assert counts == {
        ("en", "pages"): 1, ("en", "redirects"): 10, ("en", "redirect loops"): 5, ("en", "redirects to missing pages"): 2,
    }  # fmt: skip
    assert index.keys("en", ["A2", "L1", "x", "A", "A2"]) == {"A2": "en:A", "L1": None, "x": None, "A": "en:A"}
    many = [f"x{n}" for n in range(500)]
    assert index.keys("en", [*many, "A"]) == dict.fromkeys(many) | {"A": "en:A"}


def test_disambiguation_pages_are_marked(tmp_path):
    pages = [
        *articles("Plain", "By table"),
        page(3, "By word", "a __DISAMBIG__"),
        page(4, "Template:T", "__DISAMBIG__", ns=10),
    ]
    pages += [
        page(5, "Template:Tt", "", redirect="Template:Ttt", ns=10),
        page(6, "Template:Ttt", "", redirect="Template:T", ns=10),
    ]
    index, _ = build(tmp_path, make_dump(tmp_path, "en", pages, page_props=[(2, "disambiguation", "", None)]))
    marks = [index.is_disambiguation("en", title) for title in ("Plain", "By table", "By word", "Nothing")]
    assert marks == [False, True, True, False]
    assert index.disambiguation_templates("en") == {"T", "Tt", "Ttt"}


def test_pages_of_other_parts_are_known_by_the_table(tmp_path):
    """So that links to them have a key."""
    rows = [(1, 0, "Here", 0, 0), (2, 0, "Far_away", 0, 0), (3, 0, "Redirect", 1, 0), (4, 14, "Category", 0, 0)]
    dump = make_dump(tmp_path, "en", articles("Here"), page=rows, page_props=[item(2, "Q2")])
    index, counts = build(tmp_path, dump)
    assert [index.key("en", t) for t in ("Here", "Far away", "Redirect", "Category")] == ["en:Here", "Q2", None, None]
    assert counts["en", "pages without text"] == 1


def test_several_workers_build_the_same_index(tmp_path):
    """They share files, or parts of files of several streams."""
    pages = [[page(n * 10 + k, f"T{n}{k}", f"[[de:D{n}{k}]]" * 9) for k in range(5)] for n in range(4)]
    files = [write_dump(tmp_path / f"en{n}.xml.bz2", some, streams=True) for n, some in enumerate(pages)]
    german = make_dump(tmp_path, "de", articles(*(f"D{n}{k}" for n in range(4) for k in range(5))))
    index, counts = build(tmp_path, Dump("en", files), german)
    rows = list(index.database.execute("SELECT * FROM page ORDER BY number"))
    assert index.key("de", "D34") == "en:T34" and len(rows) == 40
    for workers in (3, 9):
        index, again = build(tmp_path, Dump("en", files), german, workers=workers)
        assert list(index.database.execute("SELECT * FROM page ORDER BY number")) == rows and counts == again


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("second", [page(1, "B"), page(2, "A")])
def test_duplicates_are_an_error_that_names_file_and_page(second, workers, tmp_path):
    files = [write_dump(tmp_path / f"{n}.xml", [text]) for n, text in enumerate((page(1, "A"), second))]
    with pytest.raises(
        ValueError, match=r"1\.xml: page \d \('.'\) is a duplicate of page 1 \('A'\) in the dumps of 'en'"
    ):
        build_topics(tmp_path / "topics.sqlite", [Dump("en", files)], workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.xml", "1.xml"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_damaged_file_leaves_no_index(workers, tmp_path):
    dumps = [make_dump(tmp_path, language, articles("A")) for language in ("en", "de")]
    dumps[1].files[0].write_text("<mediawiki><page>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"de\.xml: cut off"):
        build_topics(tmp_path / "topics.sqlite", dumps, workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["de.xml", "en.xml"]


def test_a_table_of_topics_joins_what_nothing_else_does(tmp_path):
    """By titles, of redirects too, in dumps without Wikidata ids; where there are some, the table comes first."""
    english = make_dump(tmp_path, "en", [*articles("Berlin", "Rome"), page(9, "City", redirect="Berlin")])
    german = make_dump(tmp_path, "de", articles("Berlin (Stadt)", "Rom"), page_props=[item(1, "Q1"), item(2, "Q220")])
    table = write(tmp_path / "topics.tsv", "B\ten\tCity", "B\tde\tBerlin_(Stadt)", "Q220\ten\tRome")
    with open(table, "a", encoding="utf-8") as file:
        file.write("B\tfr\tBerlin\nX\ten\tMissing\n")
    counts = build_topics(tmp_path / "index", [english, german], table=table)
    index = Topics(tmp_path / "index")
    assert [index.key("en", title) for title in ("Berlin", "City", "Rome")] == ["B", "B", "Q220"]
    assert [index.key("de", title) for title in ("Berlin (Stadt)", "Rom")] == ["B", "Q220"]
    reason = "rows of the table of topics without an article"
    assert counts["en", reason] == 1 and counts["de", reason] == 0


@pytest.mark.parametrize(
    ("row", "said"), [("B en Berlin", "expected 3 columns"), ("B\ten\t ", "one of them is empty")]
)
def test_a_bad_row_of_a_table_of_topics_is_named(row, said, tmp_path):
    dump = make_dump(tmp_path, "en", articles("Berlin"))
    table = write(tmp_path / "topics.tsv", "Q64\ten\tBerlin", row)
    with pytest.raises(ValueError, match=f"topics.tsv:2: .*{said}"):
        build_topics(tmp_path / "index", [dump], table=table)
    assert not (tmp_path / "index").exists()


def test_a_language_that_nothing_joins_is_an_error_that_says_what_to_fetch(tmp_path):
    english = make_dump(tmp_path, "en", articles("A"), langlinks=[(1, "fr", "A")])
    french = make_dump(tmp_path, "fr", articles("A"))
    german = make_dump(tmp_path, "de", articles("A"))
    build(tmp_path, english, french)
    message = (
        r"de\.xml: nothing joins the articles in 'de' .* fetch dewiki-DATE-page_props\.sql\.gz .* or dewiki-DATE-langl"
    )
    with pytest.raises(ValueError, match=message):
        build_topics(tmp_path / "other.sqlite", [english, french, german])


def test_a_table_with_the_wrong_name_is_an_error(tmp_path):
    dump = make_dump(tmp_path, "en", articles("A"), langlinks=[(1, "de", "A")])
    dump.page_props, dump.langlinks = dump.langlinks, None
    with pytest.raises(ValueError, match=r"langlinks\.sql\.gz: a dump of the table 'langlinks', not 'page_props'"):
        build_topics(tmp_path / "topics.sqlite", [dump])


def test_a_full_disk_is_an_error_that_names_the_index(tmp_path, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(topics_module, "resolve_redirects", full)
    with pytest.raises(OSError, match=r"topics\.sqlite: database or disk is full"):
        build_topics(tmp_path / "topics.sqlite", [make_dump(tmp_path, "en", articles("A"))])
    assert [path.name for path in tmp_path.iterdir()] == ["en.xml"]


def test_a_missing_index_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        Topics(tmp_path / "topics.sqlite")
