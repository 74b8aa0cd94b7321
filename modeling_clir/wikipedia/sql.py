"""
Reads the rows of a table from MediaWiki's SQL dumps, one `INSERT` statement at a time.

The package mwsql is not used: it cuts rows at `),(` even inside a title, takes `NULL` in a title for a missing value,
and reads the escapes `\\n` and `\\0` as letters.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ..data.files import read_bytes


CREATE = re.compile(rb"CREATE TABLE `(\w+)`")
COLUMN = re.compile(rb"\s+`(\w+)` ")
INSERT = re.compile(rb"INSERT INTO `(\w+)`(?: \([^)]*\))? VALUES\s*")
VALUE = rb"(?:_binary )?'[^'\\]*(?:\\.[^'\\]*)*'|NULL|[-+.\w]+"
QUOTE = ord("'")
END = b"-- Dump completed"  # in the last line of a whole dump
ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
ESCAPED = {b"0": b"\0", b"b": b"\b", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"Z": b"\x1a"}

Value = int | float | str | None


def read_table(file: Path, table: str, columns: tuple[str, ...]) -> Iterator[tuple[Value, ...]]:
    """
    Yields the values of some columns for each row of a SQL dump, plain or `.gz`. Columns are found by name, because
    MediaWiki has changed their number and order.

    Raises `ValueError` with file and line for a dump of another table, a table without one of the columns, rows that
    are cut off or have another number of values, text that is not UTF-8, and a damaged `.gz`.
    """
    found: list[str] = []  # columns of the table, in order
    created = None
    row = None
    inside = False  # an INSERT statement
    line = b""
    for number, line in enumerate(read_bytes(file), start=1):
        where = f"{file}:{number}"
        if create := CREATE.match(line):
            created = create[1].decode()
            if created != table:
                raise ValueError(f"{file}: a dump of the table {created!r}, not {table!r}; is the file misnamed?")
        elif created and row is None and (column := COLUMN.match(line)):
            found.append(column[1].decode())
        start = 0
        if insert := INSERT.match(line):
            if row is None:
                row = row_pattern(where, table, found, columns)
            inside, start = True, insert.end()
        if inside and row is not None:
            for part in row.finditer(line, start):
                if part.start() != start:
                    break
                yield tuple([parse(value, where) for value in part.groups()])
                start = part.end()
            rest = line[start:].strip()
            if rest == b";":
                inside = False
            elif rest:
                text = rest[:60].decode(errors="replace")
                raise ValueError(f"{where}: expected a row of {len(found)} values at byte {start}, got {text!r}")
    if created is None:
        raise ValueError(f"{file}: not a SQL dump (it has no CREATE TABLE)")
    if inside:
        raise ValueError(f"{file}: ends inside an INSERT statement; fetch it again")
    if not line.startswith(END):
        raise ValueError(f"{file}: cut off; its last line is not {END.decode()!r}; fetch it again")


def row_pattern(where: str, table: str, found: list[str], columns: tuple[str, ...]) -> re.Pattern[bytes]:
    """Returns a pattern of one row, with a group for each of `columns`; these must be in the order of the table."""
    if missing := [column for column in columns if column not in found]:
        raise ValueError(
            f"{where}: the table {table!r} has no column {missing[0]!r}, only {', '.join(found) or 'none'}"
        )
    values = [rb"(" + VALUE + rb")" if column in columns else rb"(?:" + VALUE + rb")" for column in found]
    return re.compile(rb"\s*\(" + rb",".join(values) + rb"\)(?:,|(?=;))", re.DOTALL)


def parse(value: bytes, where: str) -> Value:
    if value[-1] != QUOTE:
        return None if value == b"NULL" else float(value) if b"." in value or b"e" in value else int(value)
    raw = value[value.index(QUOTE) + 1 : -1]
    if b"\\" in raw:
        raw = ESCAPE.sub(lambda escape: ESCAPED.get(escape[1], escape[1]), raw)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8: {raw[:60]!r}") from error


__all__ = ["read_table"]
