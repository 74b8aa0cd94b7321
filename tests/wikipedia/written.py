"""Writes dumps of small Wikipedias: XML files of pages and SQL tables."""

import bz2
import gzip
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr


NAMESPACES = {"de": {6: "Datei", 14: "Kategorie", 10: "Vorlage"}, "en": {6: "File", 14: "Category", 10: "Template"}}
PROSE = "The quick brown fox jumps over the lazy dog near the old mill of the town. " * 6  # no stub
TABLES = {
    "page_props": ("pp_page", "pp_propname", "pp_value", "pp_sortkey"),
    "langlinks": ("ll_from", "ll_lang", "ll_title"),
    "page": ("page_id", "page_namespace", "page_title", "page_is_redirect", "page_is_new"),
}


def page(page_id: int, title: str, text: str | None = PROSE, redirect: str = "", ns: int = 0, model: str = "wikitext"):
    """Returns a `<page>`; with `text` `None` it has no revision."""
    parts = [f"<title>{escape(title)}</title><ns>{ns}</ns><id>{page_id}</id>"]
    if redirect:
        parts.append(f"<redirect title={quoteattr(redirect)} />")
    if text is not None:
        parts.append(f"<revision><id>1{page_id}</id><contributor><username>A</username><id>7</id></contributor>")
        parts.append(f'<model>{model}</model><text xml:space="preserve">{escape(text)}</text></revision>')
    return f"  <page>{''.join(parts)}</page>\n"


def head(language: str = "en", version: str = "0.11") -> str:
    spaces = NAMESPACES.get(language, NAMESPACES["en"])
    names = "".join(f'<namespace key="{key}">{name}</namespace>' for key, name in spaces.items())
    return (
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-{version}/" xml:lang="{language}">\n'
        f"  <siteinfo><sitename>Wikipedia</sitename><dbname>{language}wiki</dbname>"
        f'<namespaces><namespace key="0" />{names}</namespaces></siteinfo>\n'
    )


def write_dump(path: Path, pages: Iterable[str], language: str = "en", streams: bool = False) -> Path:
    """Writes an XML file, packed as its suffix says; with `streams` as one `.bz2` stream for head, page and end each."""
    parts = [head(language), *pages, "</mediawiki>\n"]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [part.encode() for part in parts] if streams else ["".join(parts).encode()]
    pack = {".bz2": bz2.compress, ".gz": gzip.compress}.get(path.suffix, bytes)
    path.write_bytes(b"".join(pack(part) for part in data))
    return path


def write_sql(path: Path, table: str, rows: Iterable[tuple], columns: tuple[str, ...] | None = None) -> Path:
    """Writes a SQL dump as mysqldump does, packed if the suffix is `.gz`."""
    columns = columns or TABLES[table]
    created = ",\n".join(f"  `{column}` varbinary(255) NOT NULL" for column in columns)
    values = ",".join("(" + ",".join(map(sql_value, row)) + ")" for row in rows)
    text = f"-- MySQL dump\n\nDROP TABLE IF EXISTS `{table}`;\nCREATE TABLE `{table}` (\n{created},\n  KEY `a` (`b`)\n);\n"
    if values:
        text += f"INSERT INTO `{table}` VALUES {values};\n"
    data = (text + "-- Dump completed\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def sql_value(value: str | float | None) -> str:
    if value is None:
        return "NULL"
    if not isinstance(value, str):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace('"', '\\"').replace("\n", "\\n") + "'"
