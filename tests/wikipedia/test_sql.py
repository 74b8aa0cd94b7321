"""Rows of MediaWiki's SQL dumps."""

import gzip

import pytest

from modeling_clir.wikipedia.sql import read_table

from ..shared import shared_path
from .written import write_sql


COLUMNS = ("ll_from", "ll_lang", "ll_title")


@pytest.mark.parametrize("name", ["a.sql", "a.sql.gz"])
def test_values_are_read_as_they_were_written(name, tmp_path):
    """Among them what cuts rows or changes values in other readers: `),(`, NULL in a title, escapes, quotes."""
    titles = ["a),(b", "NULL,", 'it\'s "x"', "back\\slash\\'", "two\nlines\ttab", "東京; ),", "", "(1,'de','x'),"]
    rows = [(number, "de", title) for number, title in enumerate(titles)]
    assert list(read_table(write_sql(tmp_path / name, "langlinks", rows), "langlinks", COLUMNS)) == rows


def test_escapes_and_null(tmp_path):
    file = tmp_path / "x.sql"
    file.write_bytes(
        b"CREATE TABLE `t` (\n  `a` int(8),\n  `b` blob,\n  `c` float DEFAULT NULL\n) ENGINE=InnoDB;\n"
        b"INSERT INTO `t` VALUES (-1,'\\0\\n\\r\\t\\Z\\b\\\\\\\"\\'%',NULL),(2,_binary 'x',1.5e3);\nINSERT INTO `t` VALUES\n(3,'y',0),\n(4,'z',-2);\n-- Dump completed\n"
    )
    expected = [(-1, "\0\n\r\t\x1a\b\\\"'%", None), (2, "x", 1500.0), (3, "y", 0), (4, "z", -2)]
    assert list(read_table(file, "t", ("a", "b", "c"))) == expected
    assert list(read_table(file, "t", ("a", "c"))) == [(a, c) for a, _, c in expected]


def test_columns_are_found_by_name_in_any_schema(tmp_path):
    """`page` has lost columns over the years."""
    old = write_sql(tmp_path / "old.sql", "page", [(1, 0, "A", "", 5, 0)], ("page_id", "page_namespace", "page_title", "page_restrictions", "page_counter", "page_is_redirect"))  # fmt: skip
    new = write_sql(tmp_path / "new.sql", "page", [(1, 0, "A", 0, 1)])
    for file in (old, new):
        columns = ("page_id", "page_namespace", "page_title", "page_is_redirect")
        assert list(read_table(file, "page", columns)) == [(1, 0, "A", 0)]


def test_an_empty_table_has_no_rows(tmp_path):
    assert list(read_table(write_sql(tmp_path / "a.sql", "langlinks", []), "langlinks", COLUMNS)) == []


def test_a_real_dump_is_read_whole():
    rows = list(read_table(shared_path("data/wikitext/sql/wikidatawiki-langlinks.sql.gz"), "langlinks", COLUMNS))
    assert len(rows) == 90_551 and rows[0] == (14928, "aa", "Category:User aa")
    assert all(isinstance(number, int) and language and "\\" not in title for number, language, title in rows)


def change(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: change(data, b"`langlinks`", b"`page_props`"), "a.sql: a dump of the table 'page_props', not 'langlinks'"),
        (lambda data: change(data, b"`ll_title`", b"`ll_name`"), "a.sql:10: the table 'langlinks' has no column 'll_title'"),
        (lambda data: data[: data.index(b",'B')")], "a.sql:10: expected a row of 3 values at byte"),
        (lambda data: change(data, b"'de','B'", b"'de'"), "a.sql:10: expected a row of 3 values at byte"),
        (lambda data: change(data, b"'B');\n", b"'B'),\n"), "a.sql: ends inside an INSERT statement"),
        (lambda data: change(data, b"'B'", b"'\xff'"), "a.sql:10: not UTF-8"),
        (lambda data: data[: data.index(b"INSERT")], "a.sql: cut off; its last line is not '-- Dump completed'"),
        (lambda data: data[: data.index(b"  KEY")], "a.sql: cut off"),
        (lambda data: b"", "a.sql: not a SQL dump"),
        (lambda data: b"<mediawiki>", "a.sql: not a SQL dump"),
    ],
)  # fmt: skip
def test_a_damaged_dump_is_an_error_with_its_place(damage, message, tmp_path):
    file = write_sql(tmp_path / "a.sql", "langlinks", [(1, "de", "A"), (2, "de", "B")])
    file.write_bytes(damage(file.read_bytes()).replace(b"-- Dump completed\n", b""))
    with pytest.raises(ValueError) as error:
        list(read_table(file, "langlinks", COLUMNS))
    assert message in str(error.value)


def test_a_cut_gzip_file_is_an_error(tmp_path):
    file = tmp_path / "a.sql.gz"
    file.write_bytes(gzip.compress(b"CREATE TABLE `langlinks` (\n" * 99)[:-9])
    with pytest.raises(ValueError, match=r"a\.sql\.gz: not a complete gzip file"):
        list(read_table(file, "langlinks", COLUMNS))
