"""Parquet files of a corpus."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_clir.data import corpus_files
from modeling_clir.data.corpus_files import PAIR_COLUMNS, SECTION_COLUMNS, write_pairs, write_sections


def section_rows(number: int) -> list[tuple]:
    return [(f"en:{i}", "en", f"a{i // 2}", f"T {i}", "", f"text\n{i} é") for i in range(number)]


@pytest.mark.parametrize("number", [0, 1, 7, 8, 25])
def test_rows_are_streamed_in_groups(number, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus_files, "ROWS_AT_ONCE", 8)
    path, rows = tmp_path / "sections/en/part-0.parquet", section_rows(number)
    assert write_sections(path, iter(rows)) == number
    table = pq.read_table(path)
    assert tuple(table.column_names) == SECTION_COLUMNS and set(table.schema.types) == {pa.string()}
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
    assert pq.read_metadata(path).num_row_groups == -(-number // 8)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_pairs_with_and_without_scores(tmp_path):
    rows = [("en:1", "de:1", ["en:2"], []), ("en:2", "de:2", [], ["de:1", "de:3"])]
    scores = [([[0.5, -1.0]], [[2.0]]), ([[1.0]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])]
    assert write_pairs(tmp_path / "a.parquet", rows) == 2
    assert write_pairs(tmp_path / "b.parquet", [row + more for row, more in zip(rows, scores)], scores=True) == 2
    plain, scored = pq.read_table(tmp_path / "a.parquet"), pq.read_table(tmp_path / "b.parquet")
    assert tuple(plain.column_names) == PAIR_COLUMNS and scored.select(PAIR_COLUMNS) == plain
    assert [tuple(row.values()) for row in plain.to_pylist()] == rows
    assert [(row["source_scores"], row["target_scores"]) for row in scored.to_pylist()] == scores


def test_same_rows_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_sections(tmp_path / name, section_rows(30_000))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("bad", [("en:1", "en"), ("en:1", "en", "a", "t", "h", 7), ValueError("the source ends")])
def test_a_failure_leaves_the_old_file(bad, tmp_path):
    path = tmp_path / "en.parquet"
    write_sections(path, section_rows(3))
    before = path.read_bytes()

    def rows():
        yield from section_rows(20_000)
        if isinstance(bad, Exception):
            raise bad
        yield bad

    with pytest.raises((ValueError, pa.ArrowException)):
        write_sections(path, rows())
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == [path.name]
