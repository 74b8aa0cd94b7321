"""
Index of the articles' topics: (language, title) -> a key that is the same in all languages.

The index is a file of SQLite, so that its size does not matter and any number of processes can read it. The key of an
article is the one in a table of topics, or its Wikidata id if `page_props` is there. Else articles that are joined by language links have one key: the
title in the first of the languages that has the article, such as `"en:Berlin"`.
"""

import logging
import pickle
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from ..data.files import read_columns
from ..names import check_path
from .dumps import DISAMBIGUATION, TEMPLATE, Dump, read_pages
from .sql import read_table
from .wikitext import clean_title, language_links


logger = logging.getLogger(__name__)

# `number` counts the pages in the order of the languages. `label` is the number of the page that gives the key; less
# `WIKIDATA` if that page has a Wikidata id or a row in the table of topics, so that it comes first.
TABLES = """
CREATE TABLE page (
    number INTEGER PRIMARY KEY, language INTEGER, id INTEGER, title TEXT, redirect TEXT, disambiguation INTEGER,
    label INTEGER, key TEXT);
CREATE UNIQUE INDEX by_title ON page (language, title);
CREATE UNIQUE INDEX by_id ON page (language, id);
CREATE TABLE template (language INTEGER, title TEXT, redirect TEXT, disambiguation INTEGER);
CREATE TABLE link (language INTEGER, title TEXT, other INTEGER, other_title TEXT);
CREATE TABLE edge (a INTEGER, b INTEGER);
CREATE TABLE wiki (number INTEGER PRIMARY KEY, language TEXT);
"""
WIKIDATA = 1 << 40
CACHE = 256 << 20  # bytes of the index in memory while it is built
BATCH = 10_000  # rows
TITLES = 64  # that are looked up together


class Scanned(NamedTuple):
    """What the index keeps of a page: see [`Page`](dumps.Page). `links` are language links, (language, title)."""

    page_id: int
    namespace: int
    title: str
    redirect: str | None
    disambiguation: bool
    links: list[tuple[str, str]]


def scan(file: Path, language: str, languages: list[str], part: int = 0, parts: int = 1) -> Iterator[Scanned]:
    """
    Reads what the index needs of a file of pages: articles, redirects, and the templates that make a page a
    disambiguation page, with the language links in the text to the other `languages`. Raises the errors of
    [`read_pages`](dumps.read_pages).
    """
    others = tuple(other for other in languages if other != language)
    for _, page in read_pages(file, language, part, parts):
        text = page.text or ""
        disambiguation = DISAMBIGUATION in text
        if page.namespace == 0:
            links = [] if page.redirect else language_links(text, others)
            yield Scanned(page.page_id, 0, page.title, page.redirect, disambiguation, links)
        elif page.namespace == TEMPLATE and (page.redirect or disambiguation) and "/" not in page.title:
            redirect = page.redirect.partition(":")[2] if page.redirect else None
            yield Scanned(page.page_id, TEMPLATE, page.title, redirect, disambiguation, [])


def build_topics(path: Path, dumps: list[Dump], workers: int = 1, table: Path | None = None) -> Counter:
    """
    Builds the index of the dumps of several Wikipedias. The order of `dumps` is that of the languages.

    Args:
        path (`Path`): file of the index. Atomic: a run that fails or is killed leaves none.
        dumps (`list[Dump]`): see [`find_dumps`](dumps.find_dumps).
        workers (`int`, defaults to 1): processes that read the XML files, or parts of them if there are fewer files.
        table (`Path`, *optional*): lines of key, language and title, parted by tabs, that join articles by hand.

    Returns what was found, by `(language, what)`, such as `("de", "redirect loops")`.

    Raises `ValueError` for a dump that cannot be read, for duplicate ids, and for a language without any link to the
    others (the message says which files to fetch). Raises `OSError` if the index cannot be written.
    """
    counts: Counter = Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        try:
            with closing(sqlite3.connect(unfinished)) as database:
                database.executescript(f"PRAGMA journal_mode = OFF; PRAGMA cache_size = -{CACHE >> 10}; {TABLES}")
                add_pages(database, dumps, workers, Path(folder), counts)
                for language, dump in enumerate(dumps):
                    add_tables(database, language, dump, dumps, counts)
                resolve_redirects(database, dumps, counts)
                if table is not None:
                    add_table(database, table, dumps, counts)
                add_keys(database, dumps, counts)
                mark_templates(database)
                database.executescript("DROP TABLE link; DROP TABLE edge; DROP INDEX by_id;")
                database.commit()
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from error
        unfinished.replace(path)
    return counts


# ---------------------------------------------------------------------------------------------------------------------
# What the dumps say
# ---------------------------------------------------------------------------------------------------------------------


def add_pages(database: sqlite3.Connection, dumps: list[Dump], workers: int, folder: Path, counts: Counter):
    """Adds the pages of all XML files. Raises `ValueError` for a page whose id or title is there already."""
    languages = [dump.language for dump in dumps]
    database.executemany("INSERT INTO wiki VALUES (?, ?)", enumerate(languages))
    parts = workers if sum(len(dump.files) for dump in dumps) < workers else 1
    jobs = []
    for dump in dumps:
        # Language links in the text are read where no SQL dump has them.
        others = languages if dump.page_props is None and dump.langlinks is None else []
        jobs += [(file, dump.language, others, part, parts) for file in dump.files for part in range(parts)]
    for (file, language, *_), rows in zip(jobs, scan_all(jobs, workers, folder)):
        logger.info(f"index of topics: {file}")
        add_file(database, languages.index(language), languages, file, rows, counts)


def add_file(
    database: sqlite3.Connection,
    language: int,
    languages: list[str],
    file: Path,
    rows: Iterable[Scanned],
    counts: Counter,
):
    """Adds the pages of one file. Raises `ValueError` for a page whose id or title is there already."""
    name = languages[language]
    row = None

    def pages() -> Iterator[tuple]:
        nonlocal row
        for row in rows:
            if row.namespace == TEMPLATE:
                template = (language, row.title, row.redirect, row.disambiguation)
                database.execute("INSERT INTO template VALUES (?, ?, ?, ?)", template)
                continue
            counts[name, "redirects" if row.redirect else "pages"] += 1
            if row.links:
                links = [(language, row.title, languages.index(other), title) for other, title in row.links]
                database.executemany("INSERT INTO link VALUES (?, ?, ?, ?)", links)
            yield language, row.page_id, row.title, row.redirect, row.disambiguation

    try:
        add = "INSERT INTO page (language, id, title, redirect, disambiguation) VALUES (?, ?, ?, ?, ?)"
        database.executemany(add, pages())
    except sqlite3.IntegrityError:  # at the last row that was asked for
        query = "SELECT id, title FROM page WHERE language = ? AND (id = ? OR title = ?)"
        number, title = database.execute(query, (language, row.page_id, row.title)).fetchone()
        raise ValueError(
            f"{file}: page {row.page_id} ({row.title!r}) is a duplicate of page {number} ({title!r}) in the dumps of "
            f"{name!r}; is a file there twice, or are the parts of several dates?"
        ) from None


def scan_all(jobs: list[tuple], workers: int, folder: Path) -> Iterator[Iterator[Scanned]]:
    """
    Yields what [`scan`] gives for each of `jobs`, its arguments, in order. With several workers it passes through
    files in `folder`.
    """
    if workers == 1:
        for job in jobs:
            yield scan(*job)
        return
    with ProcessPoolExecutor(workers) as pool:
        try:
            for scanned in [pool.submit(scan_into, folder / f"{n}.scan", *job) for n, job in enumerate(jobs)]:
                yield read_scan(scanned.result())
        finally:
            pool.shutdown(cancel_futures=True)


def scan_into(output: Path, *job) -> Path:
    with open(output, "wb") as stream:
        for row in scan(*job):
            pickle.dump(tuple(row), stream)
    return output


def read_scan(path: Path) -> Iterator[Scanned]:
    with open(path, "rb") as stream:
        while stream.peek(1):
            yield Scanned(*pickle.load(stream))
    path.unlink()


def add_tables(database: sqlite3.Connection, language: int, dump: Dump, dumps: list[Dump], counts: Counter):
    """Adds what the SQL dumps of a language say: further pages, Wikidata ids, disambiguation pages, language links."""
    name = dump.language
    if dump.page:  # titles of pages that the XML files lack, so that links to them have a key
        rows = read_table(dump.page, "page", ("page_id", "page_namespace", "page_title", "page_is_redirect"))
        counts[name, "pages without text"] += database.executemany(
            "INSERT OR IGNORE INTO page (language, id, title, disambiguation) VALUES (?, ?, ?, 0)",
            (
                (language, number, str(title).replace("_", " "))
                for number, space, title, redirect in rows
                if not space and not redirect
            ),
        ).rowcount
    if dump.page_props:
        rows = read_table(dump.page_props, "page_props", ("pp_page", "pp_propname", "pp_value"))
        while batch := list(islice(rows, BATCH)):
            counts[name, "Wikidata ids"] += database.executemany(
                "UPDATE page SET key = ?, label = number - ? WHERE language = ? AND id = ? AND redirect IS NULL",
                ((value, WIKIDATA, language, number) for number, prop, value in batch if prop == "wikibase_item"),
            ).rowcount
            counts[name, "disambiguation pages"] += database.executemany(
                "UPDATE page SET disambiguation = 1 WHERE language = ? AND id = ?",
                ((language, number) for number, prop, _ in batch if prop == "disambiguation"),
            ).rowcount
    if dump.langlinks and not dump.page_props:
        numbers = {other.language: number for number, other in enumerate(dumps) if number != language}
        rows = read_table(dump.langlinks, "langlinks", ("ll_from", "ll_lang", "ll_title"))
        database.executemany(
            "INSERT INTO link SELECT language, title, ?, ? FROM page WHERE language = ? AND id = ?",
            (
                (numbers[code], clean_title(str(title)), language, page_id)
                for page_id, other, title in rows
                if title and (code := str(other).replace("-", "_")) in numbers
            ),
        )


# ---------------------------------------------------------------------------------------------------------------------
# What follows from it
# ---------------------------------------------------------------------------------------------------------------------


def resolve_redirects(database: sqlite3.Connection, dumps: list[Dump], counts: Counter):
    """
    Makes each redirect name the article at the end of its chain. A redirect of a loop names itself from then on; one to
    a missing page stays.
    """
    look = "SELECT redirect FROM page WHERE language = ? AND title = ?"
    for numbers in batches(database, "redirect IS NOT NULL"):
        for number, language, title, target in numbers:
            seen = {title}
            while target not in seen:
                seen.add(target)
                if (row := database.execute(look, (language, target)).fetchone()) is None:
                    counts[dumps[language].language, "redirects to missing pages"] += 1
                    break
                if row[0] is None:
                    database.execute("UPDATE page SET redirect = ? WHERE number = ?", (target, number))
                    break
                target = row[0]
            else:
                counts[dumps[language].language, "redirect loops"] += 1
                database.execute("UPDATE page SET redirect = title WHERE number = ?", (number,))


def add_table(database: sqlite3.Connection, table: Path, dumps: list[Dump], counts: Counter):
    """
    Gives the articles in a table their keys. The title may be that of a redirect. Rows of languages that are not built
    are passed over; `counts` gets those without an article. Raises `ValueError` with file and line for a bad row.
    """
    numbers = {dump.language: number for number, dump in enumerate(dumps)}
    look = "SELECT coalesce(redirect, title) FROM page WHERE language = ? AND title = ?"
    name = "UPDATE page SET key = ?, label = number - ? WHERE language = ? AND title = ? AND redirect IS NULL"
    for where, columns in read_columns(table, 3, "\t"):
        key, language, title = (column.strip() for column in columns)
        if not key or not title:
            raise ValueError(f"{where}: expected key, language and title, parted by tabs; one of them is empty")
        if (code := language.replace("-", "_")) in numbers:
            article = database.execute(look, (numbers[code], clean_title(title))).fetchone() or (None,)
            found = database.execute(name, (key, WIKIDATA, numbers[code], article[0])).rowcount
            counts[code, "rows of the table of topics without an article"] += not found


def batches(database: sqlite3.Connection, condition: str) -> Iterator[list[tuple]]:
    """Yields (number, language, title, redirect) of pages, some thousand at a time, so that they may be changed."""
    last = 0
    query = (
        f"SELECT number, language, title, redirect FROM page WHERE number > ? AND {condition} ORDER BY number LIMIT ?"
    )
    while rows := database.execute(query, (last, BATCH)).fetchall():
        yield rows
        last = rows[-1][0]


def add_keys(database: sqlite3.Connection, dumps: list[Dump], counts: Counter):
    """
    Gives each article its key. Articles without a Wikidata id take the key of the first article that language links
    join them with, in whatever direction and over whatever other languages.

    Raises `ValueError` for a language without Wikidata ids and language links.
    """
    add_edges(database, dumps, counts)
    database.execute("UPDATE page SET label = number WHERE label IS NULL")
    nearest = "(SELECT min(other.label) FROM edge JOIN page AS other ON other.number = b WHERE a = page.number)"
    spread = (
        f"UPDATE page SET label = {nearest} WHERE key IS NULL AND number IN (SELECT a FROM edge) AND label > {nearest}"
    )
    while database.execute(spread).rowcount:
        pass
    database.execute(
        f"""
        UPDATE page SET key = (
            SELECT coalesce(first.key, wiki.language || ':' || first.title)
            FROM page AS first JOIN wiki ON wiki.number = first.language
            WHERE first.number = CASE WHEN page.label < 0 THEN page.label + {WIKIDATA} ELSE page.label END)
        WHERE key IS NULL AND redirect IS NULL
        """
    )
    part_topics(database, dumps, counts)
    database.execute(
        """
        UPDATE page SET key = (
            SELECT target.key FROM page AS target
            WHERE target.language = page.language AND target.title = page.redirect AND target.redirect IS NULL)
        WHERE redirect IS NOT NULL
        """
    )


def add_edges(database: sqlite3.Connection, dumps: list[Dump], counts: Counter):
    """Makes edges, in both directions, of the language links."""
    for number, dump in enumerate(dumps):
        query = "SELECT 1 FROM link WHERE language = ? OR other = ? LIMIT 1"
        keyed = "SELECT 1 FROM page WHERE language = ? AND key IS NOT NULL LIMIT 1"
        if (
            len(dumps) > 1
            and not dump.page_props
            and not database.execute(query, (number, number)).fetchone()
            and not database.execute(keyed, (number,)).fetchone()
        ):
            wiki, date = dump.language.replace("-", "_"), dump.date or "DATE"
            raise ValueError(
                f"{dump.files[0]}: nothing joins the articles in {dump.language!r} with those in other languages; fetch "
                f"{wiki}wiki-{date}-page_props.sql.gz (Wikidata ids) or {wiki}wiki-{date}-langlinks.sql.gz, or "
                "name a table with --topics"
            )
    database.execute(
        """
        INSERT INTO edge
        SELECT source.number, CASE WHEN target.redirect IS NULL THEN target.number ELSE final.number END
        FROM link
        JOIN page AS source ON source.language = link.language AND source.title = link.title
        LEFT JOIN page AS target ON target.language = other AND target.title = other_title
        LEFT JOIN page AS final
            ON final.language = other AND final.title = target.redirect AND final.redirect IS NULL
        WHERE source.redirect IS NULL
        """
    )
    missing = "SELECT language, count(*) FROM edge JOIN page ON number = a WHERE b IS NULL GROUP BY language"
    for language, count in database.execute(missing):
        counts[dumps[language].language, "language links to missing pages"] += count
    database.executescript(
        """
        DELETE FROM edge WHERE b IS NULL;
        INSERT INTO edge SELECT b, a FROM edge;
        CREATE INDEX by_a ON edge (a);
        """
    )


def part_topics(database: sqlite3.Connection, dumps: list[Dump], counts: Counter):
    """
    Leaves each key to one article of a language, where language links contradict each other. It is the one with the
    Wikidata id, or that gives the key, or that has a direct link with the one that gives it, or the first.
    """
    several = "SELECT language, key FROM page WHERE redirect IS NULL GROUP BY language, key HAVING count(*) > 1"
    first = "CASE WHEN label < 0 THEN label + ? ELSE label END"
    for language, key in database.execute(several).fetchall():
        rows = database.execute(
            f"""
            SELECT number FROM page WHERE language = ? AND key = ? AND redirect IS NULL
            ORDER BY {first} = number DESC, EXISTS (SELECT 1 FROM edge WHERE a = number AND b = {first}) DESC, number
            """,
            (language, key, WIKIDATA, WIKIDATA),
        ).fetchall()
        name = dumps[language].language
        counts[name, "pages with contradicting language links"] += len(rows) - 1
        alone = "UPDATE page SET key = ? || ':' || title WHERE number = ?"
        database.executemany(alone, [(name, number) for (number,) in rows[1:]])


def mark_templates(database: sqlite3.Connection):
    """Marks redirects to templates of disambiguation pages too, and removes the other templates."""
    while database.execute(
        """
        UPDATE template SET disambiguation = 1 WHERE NOT disambiguation AND EXISTS (
            SELECT 1 FROM template AS target WHERE target.language = template.language
            AND target.title = template.redirect AND target.disambiguation)
        """
    ).rowcount:
        pass
    database.execute("DELETE FROM template WHERE NOT disambiguation")


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


class Topics:
    """
    An index that [`build_topics`] has built, for reading. Any number of processes may read one file, each with its own
    `Topics`. Raises `FileNotFoundError` without the file.
    """

    def __init__(self, path: Path):
        check_path(path)
        self.path = path
        self.database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        self.numbers = {language: number for number, language in self.database.execute("SELECT * FROM wiki")}

    @property
    def languages(self) -> list[str]:
        return list(self.numbers)

    def key(self, language: str, title: str) -> str | None:
        """Returns the key of an article, also by the title of a redirect to it; `None` if there is no such article."""
        query = "SELECT key FROM page WHERE language = ? AND title = ?"
        row = self.database.execute(query, (self.numbers[language], title)).fetchone()
        return row[0] if row else None

    def keys(self, language: str, titles: Iterable[str]) -> dict[str, str | None]:
        """Returns the keys of many titles, as [`Topics.key`] does, but some times faster."""
        found: dict[str, str | None] = dict.fromkeys(titles)
        unique = iter(list(found))
        query = f"SELECT title, key FROM page WHERE language = ? AND title IN ({', '.join('?' * TITLES)})"
        while some := list(islice(unique, TITLES)):
            padded = some + [None] * (TITLES - len(some))
            found.update(self.database.execute(query, (self.numbers[language], *padded)))
        return found

    def is_disambiguation(self, language: str, title: str) -> bool:
        """Tells whether `page_props` or the page itself marks a page as a disambiguation page."""
        query = "SELECT disambiguation FROM page WHERE language = ? AND title = ?"
        row = self.database.execute(query, (self.numbers[language], title)).fetchone()
        return bool(row and row[0])

    def disambiguation_templates(self, language: str) -> frozenset[str]:
        """Returns the titles of the templates in the dump that make a page a disambiguation page."""
        query = "SELECT title FROM template WHERE language = ?"
        return frozenset(title for (title,) in self.database.execute(query, (self.numbers[language],)))


__all__ = ["Scanned", "Topics", "build_topics", "scan"]
