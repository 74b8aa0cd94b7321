"""
Writes the Parquet files of a corpus (see `sections.py`), in one piece or in shards.

A file is written aside and renamed, so that a reader sees a whole file or none. The same rows give the same bytes.
Memory holds `ROWS_AT_ONCE` rows.
"""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


ROWS_AT_ONCE = 10_000  # of a row group

SECTION_COLUMNS = ("id", "language", "article", "title", "heading", "text")
PAIR_COLUMNS = ("source_id", "target_id", "source_negatives", "target_negatives")
SCORE_COLUMNS = ("source_scores", "target_scores")

STRINGS = pa.list_(pa.string())
SECTION_SCHEMA = pa.schema([(name, pa.string()) for name in SECTION_COLUMNS])
PAIR_SCHEMA = pa.schema(list(zip(PAIR_COLUMNS, [pa.string(), pa.string(), STRINGS, STRINGS])))
SCORED_PAIR_SCHEMA = pa.schema([*PAIR_SCHEMA, *[(name, pa.list_(pa.list_(pa.float32()))) for name in SCORE_COLUMNS]])


def write_sections(path: Path, rows: Iterable[tuple]) -> int:
    """
    Writes a file of sections, `sections/{language}.parquet` or a shard `sections/{language}/*.parquet`, with its
    folder.

    Args:
        path (`Path`): an existing file is replaced.
        rows (`Iterable[tuple]`): tuples of strings in the order of `SECTION_COLUMNS`: id, language, article, title,
            heading, text. No rows give a file with the columns and without rows, which a shard may be.

    Returns the number of rows. If `rows` raises, nothing is written.
    """
    return write_rows(path, SECTION_SCHEMA, rows)


def write_pairs(path: Path, rows: Iterable[tuple], scores: bool = False) -> int:
    """
    Writes a file of aligned sections, `pairs/{source}-{target}/{split}.parquet` or a shard
    `pairs/{source}-{target}/{split}/*.parquet`, with its folder.

    Args:
        path (`Path`): an existing file is replaced.
        rows (`Iterable[tuple]`): tuples in the order of `PAIR_COLUMNS`: source_id, target_id, and the lists of ids
            source_negatives (in the source language) and target_negatives (in the target language).
        scores (`bool`, defaults to `False`): the tuples go on with `SCORE_COLUMNS`, the scores of a teacher.

    Returns the number of rows. If `rows` raises, nothing is written.
    """
    return write_rows(path, SCORED_PAIR_SCHEMA if scores else PAIR_SCHEMA, rows)


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[tuple]) -> int:
    """Writes a Parquet file of these rows in a streamed way. Returns the number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    rows, number = iter(rows), 0
    try:
        with pq.ParquetWriter(unfinished, schema) as writer:
            while part := list(islice(rows, ROWS_AT_ONCE)):
                arrays = [
                    pa.array(column, kind) for column, kind in zip(zip(*part, strict=True), schema.types, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema))
                number += len(part)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return number


__all__ = [
    "PAIR_COLUMNS",
    "PAIR_SCHEMA",
    "SCORED_PAIR_SCHEMA",
    "SCORE_COLUMNS",
    "SECTION_COLUMNS",
    "SECTION_SCHEMA",
    "write_pairs",
    "write_sections",
]
