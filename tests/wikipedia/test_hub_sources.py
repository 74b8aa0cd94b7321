"""The Hub's cleaned Wikipedias, from local folders in their layout."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_clir.wikipedia.hub_sources import SOURCES, read_hub_articles

from .written import PROSE


LANGUAGES = ["en", "de"]


def read(source: str, folder: Path, language: str = "en", **options):
    counts: Counter = Counter()
    return list(read_hub_articles(source, str(folder), language, LANGUAGES, counts, **options)), counts


def write_parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def finewiki_row(number: int, title: str, text: str = PROSE, identifier: str | None = "Q1", **others) -> dict:
    """A row with all columns of the set."""
    return {
        "text": text, "id": f"enwiki/{number}", "wikiname": "enwiki", "page_id": number, "title": title,
        "url": f"https://en.wikipedia.org/wiki/{title}", "date_modified": "2025-08-01T00:00:00Z", "in_language": "en",
        "wikidata_id": identifier, "bytes_html": 9, "wikitext": "x", "version": 7, "infoboxes": "[]", "has_math": False,
    } | others  # fmt: skip


def megawika_row(title: str, elements: list[dict] | None = None, links: dict | None = None, **others) -> dict:
    elements = elements or [paragraph(PROSE)]
    return {"title": title, "wikicode": "x", "text": "x", "elements": elements, "cross_lingual_links": links} | others


def paragraph(*sentences: str) -> dict:
    return {"type": "paragraph", "sentences": [{"text": text, "citations": []} for text in sentences]}


def heading(text: str, level: int) -> dict:
    return {"type": "heading", "text": text, "level": level}


def structured_row(number: int, name: str, sections: list[dict], identifier: str | None = "Q1", **others) -> dict:
    entity = {"identifier": identifier, "url": "x"} if identifier else None
    row = {"name": name, "identifier": number, "abstract": "An abstract.", "sections": sections, "main_entity": entity}
    return row | {"url": "x", "license": []} | others


def node(kind: str, value: str | None = None, parts: list | None = None, name: str | None = None) -> dict:
    return {"type": kind, "name": name, "value": value, "has_parts": parts or []}


# ---------------------------------------------------------------------------------------------------------------------
# Layouts
# ---------------------------------------------------------------------------------------------------------------------


def test_finewiki_is_cut_at_the_headings_of_its_markdown(tmp_path):
    text = (
        f"# Berlin\n\n**Berlin** is *the* capital of [Germany](https://en.wikipedia.org/wiki/Germany_(x)). {PROSE}\n\n"
        "## History &amp; \\*more\\*\n\nFounded 5 * 3 * 2 snake_case_name.\n\n### Early\n\n- one\n- **two**\n1. three\n\n"
        "#### Deep\n\n| a | b |\n|---|---|\n| c | d |\n\nMore.\n\n```python\n# no heading\nx = 1\n```\n\n## Empty\n\n"
        "## Code\n\n> Quoted ![image](a.png) text.\n\n$$\nx^2\n$$\n"
    )
    write_parquet(tmp_path / "data/enwiki/000_00000.parquet", [finewiki_row(3354, "Berlin", text, "Q64")])
    (article,), counts = read("finewiki", tmp_path)
    assert (article.key, article.language, article.page_id, article.title) == ("Q64", "en", "3354", "Berlin")
    assert [(s.heading, s.level, s.text) for s in article.sections] == [
        ("", 1, f"Berlin is the capital of Germany. {PROSE}".strip()),
        ("History & *more*", 2, "Founded 5 * 3 * 2 snake_case_name."),
        ("Early", 3, "one\ntwo\nthree\nDeep\nMore."),
        ("Code", 2, "Quoted text."),
    ]
    assert all(section.links == [] for section in article.sections) and counts == Counter(articles=1)


def test_megawika2_is_cut_at_its_heading_elements(tmp_path):
    elements = [
        {"type": "infobox", "content": "{{Infobox}}"}, paragraph("First one. ", "Second one.", PROSE), heading("History", 2),
        paragraph("In 1237."), {"type": "table", "content": [["a"]]}, heading("Early", 3), paragraph("Very early."),
        heading("Deep", 4), paragraph("Deeper."), {"type": "math", "content": "x"}, heading("Empty", 2),
    ]  # fmt: skip
    write_lines(tmp_path / "en/en-00000-of-00002.jsonl", [megawika_row("Berlin", elements, {"de": "Berlin (Stadt)"})])
    (article,), _ = read("megawika2", tmp_path)
    assert [(s.heading, s.level, s.text) for s in article.sections] == [
        ("", 1, f"First one. Second one. {PROSE}".strip()), ("History", 2, "In 1237."), ("Early", 3, "Very early.\nDeep\nDeeper."),
    ]  # fmt: skip


def test_articles_of_megawika2_in_two_languages_have_one_key(tmp_path):
    """The title in the first language of the corpus that has the article, of whichever side."""
    write_lines(
        tmp_path / "de/a.jsonl.gz", [megawika_row("Hund", links={"en": "dog"}), megawika_row("Nur", links=None)]
    )
    write_lines(tmp_path / "en/a.jsonl.gz", [megawika_row("Dog", links={"de": "Hund", "fr": "Chien"})])
    assert [article.key for article in read("megawika2", tmp_path, "de")[0]] == ["en:Dog", "de:Nur"]
    assert [article.key for article in read("megawika2", tmp_path, "en")[0]] == ["en:Dog"]


NODES = [
    node("section", name="Abstract", parts=[node("paragraph", PROSE)]),
    node("section", name="History", parts=[
        node("paragraph", "Old."), node("table", "no"),
        node("section", name="Early", parts=[
            node("list", parts=[node("list_item", "one"), node("list_item", "two", [node("list", parts=[node("list_item", "sub")])])]),
            node("section", name="Deep", parts=[node("paragraph", "Deeper.")]),
        ]),
    ]),
    node("section", name="Empty"),
]  # fmt: skip
SECTIONS = [("", 1, PROSE.strip()), ("History", 2, "Old."), ("Early", 3, "one\ntwo\nsub\nDeep\nDeeper.")]


@pytest.mark.parametrize("form", ["nested", "JSON text"])
@pytest.mark.parametrize(
    "file",
    ["enwiki_namespace_0/train-00000.parquet", "enwiki/data/0.parquet", "20240916.en/enwiki_namespace_0_1.jsonl"],
)
def test_structured_sections_are_read_recursively(file, form, tmp_path):
    rows = [structured_row(7, "Berlin", NODES if form == "nested" else json.dumps(NODES), "Q64")]
    (write_parquet if file.endswith("parquet") else write_lines)(tmp_path / file, rows)
    (article,), _ = read("structured", tmp_path)
    assert (article.key, article.page_id, article.title) == ("Q64", "7", "Berlin")
    assert [(s.heading, s.level, s.text) for s in article.sections] == SECTIONS


def test_a_structured_article_without_a_section_for_it_has_the_abstract_as_lead(tmp_path):
    rows = [structured_row(7, "Berlin", [node("section", name="A", parts=[node("paragraph", PROSE)])], None)]
    write_lines(tmp_path / "20240916.en/a.jsonl", rows)
    (article,), counts = read("structured", tmp_path)
    assert [section.text for section in article.sections] == ["An abstract.", PROSE.strip()]
    assert article.key == "en:Berlin" and counts["articles without a Wikidata id"] == 1


# ---------------------------------------------------------------------------------------------------------------------
# All
# ---------------------------------------------------------------------------------------------------------------------


def test_stubs_lists_and_disambiguation_pages_are_left_out_and_counted(tmp_path):
    rows = [
        finewiki_row(1, "Stub", "Short."),
        finewiki_row(2, "List", "- item of a list\n" * 50),
        finewiki_row(3, "Kept"),
    ]
    write_parquet(tmp_path / "data/enwiki/0.parquet", rows)
    articles, counts = read("finewiki", tmp_path)
    assert [article.title for article in articles] == ["Kept"]
    assert counts == {"articles": 1, "stub": 1, "list": 1, "articles without a Wikidata id": 0}
    write_lines(
        tmp_path / "en/0.jsonl", [megawika_row("Mercury", wikicode="{{disambiguation}}"), megawika_row("Kept")]
    )
    assert read("megawika2", tmp_path)[1] == {"articles": 1, "disambiguation page": 1}


def test_tasks_share_the_files(tmp_path):
    for number in range(5):
        write_parquet(tmp_path / f"data/enwiki/{number}.parquet", [finewiki_row(number, f"T{number}")])
    write_parquet(tmp_path / "data/simplewiki/0.parquet", [finewiki_row(9, "No")])
    found = [[article.title for article in read("finewiki", tmp_path, task=task, tasks=7)[0]] for task in range(7)]
    assert found == [["T0"], ["T1"], ["T2"], ["T3"], ["T4"], [], []]
    assert [a.title for a in read("finewiki", tmp_path, task=1, tasks=2)[0]] == ["T1", "T3"]


def test_a_folder_may_have_any_name(tmp_path):
    write_parquet(tmp_path / "new [1]/d*ta/enwiki/0.parquet", [finewiki_row(1, "A")])
    assert len(read("finewiki", tmp_path / "new [1]")[0]) == 1


@pytest.mark.parametrize("source", SOURCES)
def test_other_columns_are_an_error_that_names_those_wanted_and_found(source, tmp_path):
    row = {"id": 1, "title": "A", "text": PROSE}
    files = {"finewiki": "data/enwiki/0.parquet", "megawika2": "en/0.jsonl", "structured": "enwiki/0.parquet"}
    file = tmp_path / files[source]
    (write_parquet if file.suffix == ".parquet" else write_lines)(file, [row])
    with pytest.raises(ValueError) as error:
        read(source, tmp_path)
    message = str(error.value)
    assert message.startswith(f"{file}: lacks ") and message.endswith("found id, text, title")
    assert f"wanted {', '.join(SOURCES[source].columns)}" in message


@pytest.mark.parametrize(
    ("source", "file", "row", "message"),
    [
        ("megawika2", "en/0.jsonl", megawika_row("A", [{"kind": "x"}]), "row 1 is not in the layout of jhu-clsp/megawika-2"),
        ("megawika2", "en/0.jsonl", [1], "row 1 is not a JSON object"),
        ("structured", "20240916.en/0.jsonl", structured_row(1, "A", "not JSON"), "row 1 is not in the layout of wikimedia/"),
        ("structured", "20240916.en/0.jsonl", structured_row(1, "A", 5), "row 1 is not in the layout of wikimedia/"),
    ],
)  # fmt: skip
def test_a_row_in_another_form_is_an_error(source, file, row, message, tmp_path):
    write_lines(tmp_path / file, [row])
    with pytest.raises(ValueError, match=message):
        read(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "file", "data"),
    [
        ("finewiki", "data/enwiki/0.parquet", b"PAR1 no"),
        ("megawika2", "en/0.jsonl", b'{"title": "A", "elem'),
        ("megawika2", "en/0.jsonl", b"\xff\xfe"),
        ("megawika2", "en/0.jsonl.gz", gzip.compress(b'{"title": "A"}\n' * 1000, mtime=0)[:-30]),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(source, file, data, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(data)
    with pytest.raises(ValueError) as error:
        read(source, tmp_path)
    assert str(tmp_path / file) in str(error.value)


def test_a_set_without_the_language_is_an_error(tmp_path):
    write_parquet(tmp_path / "data/enwiki/0.parquet", [finewiki_row(1, "A")])
    with pytest.raises(FileNotFoundError, match="has no files of 'de' in the layout of HuggingFaceFW/finewiki"):
        read("finewiki", tmp_path, "de")
    with pytest.raises(FileNotFoundError, match="there is no"):
        read("finewiki", tmp_path / "nothing")
