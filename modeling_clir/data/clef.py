"""
Makes collections (see `collections.py`) from the files of CLEF's ad-hoc tracks of 2000 to 2003.

    documents   SGML, many <DOC> in a file
    topics      <top> with <num> C041 </num>, <EN-title>, <EN-desc>, <EN-narr>; or, from DIRECT, <topic lang="en"> with
                <identifier> 41-AH, <title>, <description>, <narrative>
    qrels       TREC, a file for each year and language of documents; query ids 41, 041, C041, 41-AH

The encoding of a file of documents or topics is the first of these that applies:

1. UTF-8, if the file starts with a byte order mark;
2. the encoding that is given for its language;
3. the encoding in its XML declaration;
4. UTF-8, if the whole file is UTF-8;
5. Latin-1, if Latin-1 has the letters of its language.

Other files are refused. Control characters are a sign of another encoding: topics with them are refused, documents
with them are counted in the log.
"""

import codecs
import html
import json
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack
from html.entities import html5
from itertools import chain
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from .collections import write_queries
from .files import decode_lines, list_files, new_folder, read_bytes, read_columns


logger = logging.getLogger(__name__)

# Fields of the text of a document, in this order. CLEF let automatic runs index these fields. A name means the same in
# all sub-collections, so they share one table.
TEXT_FIELDS = (
    "TITLE",  # Frankfurter Rundschau, Spiegel, Le Monde, La Stampa, EFE
    "HEADLINE",  # Los Angeles Times (in <P>), Glasgow Herald
    "TI",  # SDA in German, French (ATS), Italian (AGZ); Algemeen Dagblad, NRC Handelsblad (in <BODYY> and <P>)
    "LEAD",  # Spiegel
    "LEAD1",  # Le Monde
    "LD",  # SDA
    "LE",  # Algemeen Dagblad, NRC Handelsblad
    "ST",  # SDA
    "TEXT",  # sub-collections with TITLE or HEADLINE
    "TX",  # SDA, often several
    "TE",  # Algemeen Dagblad, NRC Handelsblad
    "OS",  # captions in Algemeen Dagblad, NRC Handelsblad
)
# Fields that are left out even inside a field of text: ids, and keywords given by hand, which CLEF did not let runs
# index. Outside a field of text, any field that is not in the table is left out and counted in the log.
OTHER_FIELDS = frozenset(
    ("DOCNO", "DOCID", "KW", "KEYWORD", "KEYWORDS", "SUBJECT", "SUBJECTS", "CATEGORY", "CLASSIFICATION", "SECTION")
)
# Tags that are not fields, often without an end tag.
MARKUP = frozenset(("P", "BR", "B", "I", "EM", "STRONG", "U", "Q", "HR", "LI"))

TAG = re.compile(r"<!--.*?-->|<(?P<end>/?)(?P<name>[a-z][\w.:-]*)(?:\s[^<>]*)?/?>", re.IGNORECASE | re.DOTALL)
BOUNDARY = re.compile(r"<(?P<end>/?)DOC(?:\s[^<>]*)?>", re.IGNORECASE)
DOCNO = re.compile(r"<DOCNO(?:\s[^<>]*)?>([^<]*)", re.IGNORECASE)
ENTITY = re.compile(r"&(#[0-9]+|#x[0-9a-f]+|[a-z][a-z0-9]*)(;?)", re.IGNORECASE)
ARCHIVES = (".Z", ".bz2", ".tar", ".tar.gz", ".tgz", ".zip")

TOPIC = re.compile(r"<top(?:ic)?(?P<attributes>\s[^<>]*)?>", re.IGNORECASE)
TOPIC_FIELD = re.compile(r"(?:(?P<language>[a-z]{1,2})-)?(?P<field>title|desc|narr)\w*", re.IGNORECASE)
TOPIC_FIELDS = {"title": "title", "desc": "description", "narr": "narrative"}
TOPIC_ID = re.compile(r"(?:10\.2452/)?C?0*([0-9]{1,3})(?:-AH)?", re.IGNORECASE)
TOPIC_LANGUAGE = re.compile(rb"<(?:([a-z]{1,2})-(?:title|desc|narr)|topic\s[^<>]*?lang\W+(\w+))", re.IGNORECASE)
# Names of languages in the fields of topics that are not the language's code (2000 used the letters of file names).
LANGUAGES = {"d": "nl", "du": "nl", "e": "en", "f": "fr", "g": "de", "i": "it", "sp": "es", "sw": "sv"}

# Languages that are written in Latin-1.
LATIN_1 = frozenset(
    ("af", "ca", "da", "de", "en", "es", "eu", "fi", "fo", "fr", "ga", "gl", "id", "is", "it", "ms", "nb", "nl", "nn")
    + ("no", "pt", "sq", "sv", "sw")
)
# Signs of another encoding: C1 controls (CP1252, UTF-8, Macintosh) and escapes (ISO 2022).
CONTROL = re.compile("[\x1b\x80-\x9f]")
DECLARATION = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)""")
# The start of a document or topic, also in UTF-16.
DOCUMENT_START = re.compile(rb"<\0?D\0?O\0?C", re.IGNORECASE)
TOPIC_START = re.compile(rb"<\0?t\0?o\0?p", re.IGNORECASE)

# Things that are left out or in doubt, for the log: kind to name to number.
Notes = dict[str, Counter]


def holds(path: Path, start: re.Pattern) -> bool:
    """Tells whether a file has a document or topic, rather than notes, a DTD or a picture."""
    return any(start.search(line) for line in read_bytes(path))


def check_encoding(name: str, where: str) -> str:
    """Raises `ValueError` unless Python knows the encoding and ASCII is a part of the encoding."""
    try:
        if "<DOC>".encode(name) == b"<DOC>":
            return name
    except LookupError:
        pass
    raise ValueError(f"{where}: expected an encoding as utf-8, latin-1, cp1252, koi8-r, gb18030; got {name!r}")


def find_encoding(path: Path, languages: Iterable[str], encodings: dict[str | None, str], option: str) -> str:
    """
    Finds the encoding of a file of documents or topics, by the rule at the top.

    Args:
        path (`Path`): file, plain or `.gz`.
        languages (`Iterable[str]`): the languages in the file.
        encodings (`dict[str | None, str]`): language to encoding. The key None stands for all other languages.
        option (`str`): the option that gives `encodings`, for errors.

    Raises `ValueError` if nothing tells the encoding (with file and line), if the languages of a file have different
    encodings, and if the file's declaration names an unknown encoding.
    """
    lines = read_bytes(path)
    first = next(lines, b"")
    if first.startswith(codecs.BOM_UTF8):
        return "utf-8"
    given = {code: encodings.get(code, encodings.get(None)) for code in sorted(languages)}
    if len(set(given.values())) > 1:
        raise ValueError(f"{path} has topics in {', '.join(given)}, which have different encodings in {option}")
    if encoding := next(iter(given.values()), encodings.get(None)):
        return encoding
    if declared := DECLARATION.match(first):
        return check_encoding(declared[1].decode("ascii"), f"{path}:1")
    for number, line in enumerate(chain([first], lines), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            if other := [code for code in given if code not in LATIN_1]:
                raise ValueError(
                    f"{path}:{number}: not UTF-8, and {other[0]!r} is not written in Latin-1; name the encoding, "
                    f"as {option} {other[0]}=ENCODING"
                ) from None
            return "latin-1"
    return "utf-8"


def unescape(text: str, notes: Notes) -> str:
    """Replaces entities. Entities that HTML does not know stay, and are counted."""

    def replace(match: re.Match) -> str:
        name = match[1] + match[2]
        if name.startswith("#") or name in html5:
            return html.unescape(match[0])
        if match[2]:
            notes["entities that are not known and stay as they are"][match[0]] += 1
        return match[0]

    return ENTITY.sub(replace, text)


def split_documents(path: Path, encoding: str, notes: Notes) -> Iterator[tuple[str, str]]:
    """
    Yields `(where, markup)` for each `<DOC>` of a file, plain or `.gz`. A document without `</DOC>` ends at the start
    of the next document, and is counted. Raises `ValueError` in the cases of [`decode_lines`].
    """
    start, parts = None, []
    for where, text in decode_lines(path, encoding):
        position = 0
        for tag in BOUNDARY.finditer(text):
            if start:
                if not tag["end"]:
                    notes["documents without </DOC>"][start] += 1
                yield start, "".join([*parts, text[position : tag.start()]])
            start, parts, position = None if tag["end"] else where, [], tag.end()
        if start:
            parts.append(text[position:])
    if start:
        notes["documents without </DOC>"][start] += 1
        yield start, "".join(parts)


def document_text(markup: str, notes: Notes) -> str:
    """
    Joins the text of a `<DOC>` from its `TEXT_FIELDS`, in their order. For nested fields, the innermost field that the
    tables above name decides. A field without an end tag ends at the start of the next field.
    """
    tags = [tag for tag in TAG.finditer(markup) if (tag["name"] or "").upper() not in MARKUP]
    last_end = {tag["name"].upper(): tag.start() for tag in tags if tag["end"]}
    texts = defaultdict(list)
    inside, position = [], 0  # the open fields, each with its start
    for tag in [*tags, None]:
        text = TAG.sub(" ", markup[position : tag.start() if tag else None])
        names = [name for name, _ in inside]
        field = next((name for name in reversed(names) if name in TEXT_FIELDS or name in OTHER_FIELDS), None)
        if field in TEXT_FIELDS:
            texts[field].append(text)
        elif text.strip() and field not in ("DOCNO", "DOCID"):
            notes["fields that are not indexed"][field or (names[-1] if names else "outside of any")] += 1
        if tag is None:
            break
        position = tag.end()
        if tag["name"] is None or tag[0].endswith("/>"):  # a comment, an empty field
            continue
        name = tag["name"].upper()
        if not tag["end"]:
            while inside and last_end.get(inside[-1][0], -1) < inside[-1][1]:
                notes["fields without an end tag"][inside.pop()[0]] += 1
            inside.append((name, tag.start()))
        elif name in names:
            del inside[len(names) - 1 - names[::-1].index(name) :]
    return " ".join(unescape(" ".join(text for name in TEXT_FIELDS for text in texts[name]), notes).split())


def read_clef_documents(
    paths: list[Path],
    language: str,
    encodings: dict[str | None, str],
    notes: Notes,
    wanted: Container[str] | None = None,
) -> Iterator[tuple[str, str, str]]:
    """
    Yields `(where, id, text)` for each document, in the order of the files. The text may be empty.

    Args:
        paths (`list[Path]`): files, or folders of files, plain or `.gz`. Files without a `<DOC>` (notes, DTDs) are
            skipped and named in the log.
        language (`str`): language of the documents.
        encodings (`dict[str | None, str]`): see [`find_encoding`].
        notes (`Notes`): counts things that are left out or in doubt, in place.
        wanted (`Container[str]`, *optional*): the ids to read. Defaults to all.

    Raises `FileNotFoundError` for a path that does not exist. Raises `ValueError` with file and line for a document
    without id or with the id of another document, for a path without any document, and in the cases of
    [`find_encoding`] and [`split_documents`].
    """
    seen = set()
    for path in paths:
        before = len(seen)
        for file in tqdm(list_files(path), desc=f"Documents of {path}", unit="file"):
            if file.name.endswith(ARCHIVES):
                notes["files that cannot be read (unpack them)"][str(file)] += 1
                continue
            here = len(seen)
            documents = iter(())
            if holds(file, DOCUMENT_START):
                encoding = find_encoding(file, [language], encodings, "--encoding")
                documents = split_documents(file, encoding, notes)
            for where, markup in documents:
                found = DOCNO.search(markup)
                key = found[1].strip() if found else ""
                if key.split() != [key]:
                    raise ValueError(
                        f"{where}: expected a document with an id in <DOCNO>, without spaces; got {key!r}"
                    )
                if key in seen:
                    raise ValueError(f"{where}: the document {key!r} occurs more than once; is a file given twice?")
                seen.add(key)
                if wanted is None or key in wanted:
                    if CONTROL.search(markup):
                        notes[f"documents with control characters (is it {encoding}? see --encoding)"][key] += 1
                    yield where, key, document_text(markup, notes)
            if len(seen) == here:
                notes["files without a <DOC>, skipped"][str(file)] += 1
        if len(seen) == before:
            advice = "unpack archives first" if notes["files that cannot be read (unpack them)"] else "is it SGML?"
            raise ValueError(f"{path}: found no document (documents start with <DOC>); {advice}")


def topic_id(text: str, where: str) -> str:
    """Maps `41`, `041`, `C041` and `41-AH` to `C041`. Raises `ValueError` for anything else."""
    match = TOPIC_ID.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{where}: expected the number of a topic, as C041, 41 or 41-AH; got {text.strip()!r}")
    return f"C{int(match[1]):03d}"


def read_topic_file(path: Path, language: str | None, encodings: dict[str | None, str]) -> str:
    """
    Reads the text of a file of topics. Raises `ValueError` with file and line for control characters, and in the cases
    of [`find_encoding`] and [`decode_lines`].
    """
    tags = TOPIC_LANGUAGE.finditer(b"".join(read_bytes(path)))
    codes = {(tag[1] or tag[2]).decode("latin-1").lower() for tag in tags}
    languages = {language} if language else {LANGUAGES.get(code, code) for code in codes}
    encoding = find_encoding(path, languages, encodings, "--topic_encoding")
    lines = []
    for where, line in decode_lines(path, encoding):
        if CONTROL.search(line):
            raise ValueError(
                f"{where}: control characters, so the encoding is not {encoding}; name it, as "
                f"--topic_encoding {next(iter(languages), 'en')}=cp1252"
            )
        lines.append(line)
    return "".join(lines)


def parse_topics(
    path: Path, fields: tuple[str, ...], language: str | None = None, encodings: dict[str | None, str] | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """
    Yields `(where, language, id, text)` for each topic of a file, plain or `.gz`, in each of its languages.

    Args:
        path (`Path`).
        fields (`tuple[str, ...]`): fields to join to the text, from `"title"`, `"description"`, `"narrative"`.
        language (`str`, *optional*): replaces the languages that the file names.
        encodings (`dict[str | None, str]`, *optional*): see [`find_encoding`].

    Raises `ValueError` with file and line for a topic without number or language, for a topic that has a field twice
    or lacks one of `fields`, and in the cases of [`read_topic_file`].
    """
    text = read_topic_file(path, language, encodings or {})
    starts = list(TOPIC.finditer(text))
    for start, following in zip(starts, [*starts[1:], None]):
        where = f"{path}:{text.count(chr(10), 0, start.start()) + 1}"
        block = text[start.end() : following.start() if following else None]
        block = re.split(r"</top(?:ic)?\s*>", block, maxsplit=1, flags=re.IGNORECASE)[0]
        attribute = re.search(r"lang\W+(\w+)", start["attributes"] or "")
        number, versions = None, defaultdict(dict)  # language -> field -> text
        tags = [tag for tag in TAG.finditer(block) if (tag["name"] or "").upper() not in MARKUP]
        for tag, following_tag in zip(tags, [*tags[1:], None]):
            content = TAG.sub(" ", block[tag.end() : following_tag.start() if following_tag else None])
            content = " ".join(html.unescape(content).split())
            name = (tag["name"] or "").lower()
            field = TOPIC_FIELD.fullmatch(name)
            if tag["end"]:
                continue
            if name in ("num", "identifier"):
                number = topic_id(content, where)
            elif field:
                code = (field["language"] or (attribute[1] if attribute else "")).lower()
                code = language or LANGUAGES.get(code, code)
                if not code:
                    raise ValueError(f"{where}: <{name}> names no language; give the file as LANGUAGE={path}")
                if TOPIC_FIELDS[field["field"]] in versions[code]:
                    raise ValueError(f"{where}: the topic has more than one <{name}>")
                versions[code][TOPIC_FIELDS[field["field"]]] = content
        if not number:
            raise ValueError(f"{where}: the topic has no number, as <num> C041 </num>")
        if not versions:
            raise ValueError(f"{where}: the topic {number} has no title, as <EN-title> in English")
        for code, content in versions.items():
            if missing := [field for field in fields if not content.get(field)]:
                raise ValueError(f"{where}: the topic {number} has no {missing[0]} in {code!r}")
            yield where, code, number, " ".join(content[field] for field in fields)


def read_clef_topics(
    paths: list[tuple[str | None, Path]],
    fields: tuple[str, ...] = ("title", "description"),
    encodings: dict[str | None, str] | None = None,
) -> dict[str, dict[str, str]]:
    """
    Reads files and folders of topics: language to topic to text. Files without a topic are skipped and named in the
    log.

    Args:
        paths (`list[tuple[str | None, Path]]`): each with its language, or None if its tags name the language.
        fields (`tuple[str, ...]`): see [`parse_topics`].
        encodings (`dict[str | None, str]`, *optional*): language to encoding. The key None stands for all other
            languages. For languages that are not given, see the top of this file.

    Raises `FileNotFoundError` for a path that does not exist. Raises `ValueError` for a path without any topic, for a
    topic that occurs with two texts in a language, and in the cases of [`parse_topics`].
    """
    topics = defaultdict(dict)
    for language, path in paths:
        empty, files = [], list_files(path)
        for file in files:
            found = list(parse_topics(file, fields, language, encodings)) if holds(file, TOPIC_START) else []
            if not found:
                empty.append(str(file))
            for where, code, topic, text in found:
                if topics[code].setdefault(topic, text) != text:
                    raise ValueError(f"{where}: the topic {topic} occurs more than once in {code!r}")
        if len(empty) == len(files):
            raise ValueError(f"{path}: found no topic (topics start with <top>); are these CLEF's topics?")
        if empty:
            logger.warning(f"files without a topic, skipped: {listed(empty)}")
    return dict(topics)


def read_clef_qrels(paths: list[Path]) -> dict[str, dict[str, tuple[int, str]]]:
    """
    Reads the qrels of several years for documents in one language: topic to document to relevance and `file:line`. A
    judgement may occur twice. Raises `FileNotFoundError` for a path that does not exist. Raises `ValueError` with file
    and line for a line that does not parse, and for a document that is relevant in one line and not in another.
    """
    judgements = defaultdict(dict)
    for file in (file for path in paths for file in list_files(path)):
        for where, (query, _, document, relevance) in read_columns(file, 4):
            if relevance not in ("0", "1"):
                raise ValueError(f"{where}: the relevance must be 0 or 1, got {relevance!r}")
            judged = judgements[topic_id(query, where)]
            first, there = judged.setdefault(document, (int(relevance), where))
            if first != int(relevance):
                raise ValueError(f"{where}: document {document!r} is judged {relevance}, but {first} in {there}")
    return {topic: judgements[topic] for topic in sorted(judgements)}


def with_relevant(judgements: dict[str, dict[str, tuple[int, str]]], language: str) -> dict:
    """Keeps topics with a relevant document: CLEF does not evaluate others. Raises `ValueError` if none is left."""
    kept = {topic: judged for topic, judged in judgements.items() if any(r for r, _ in judged.values())}
    if without := [topic for topic in judgements if topic not in kept]:
        logger.warning(f"{language}: topics without a relevant document, left out: {listed(without)}")
    if not kept:
        raise ValueError(f"no topic has a relevant document in {language!r} (--qrels)")
    return kept


def listed(names: list[str] | Counter) -> str:
    """
    Lists the number of names and the first ten, as `"3 (a, b, c)"`. A counter gives its most frequent names, as
    `"a x 2"`.
    """
    number = sum(names.values()) if isinstance(names, Counter) else len(names)
    some = [f"{name} x {n}" if n > 1 else name for name, n in Counter(names).most_common(10)]
    return f"{number} ({', '.join(some)}{', ...' if len(names) > 10 else ''})"


def write_documents(
    files: list[IO[str]],
    paths: list[Path],
    judged: dict[str, str],
    language: str,
    encodings: dict[str | None, str],
    all_documents: bool,
    skip_missing: bool,
) -> set[str]:
    """
    Writes the documents of a language to each of `files`, and returns their ids. `judged` maps the id of each judged
    document to the `file:line` of its judgement. See [`write_clef`] for the other arguments and for errors.
    """
    notes, written = defaultdict(Counter), set()
    wanted = None if all_documents else judged.keys()
    for where, key, text in read_clef_documents(paths, language, encodings, notes, wanted):
        if text:
            written.add(key)
            for file in files:
                file.write(json.dumps({"id": key, "text": text}, ensure_ascii=False) + "\n")
        elif key in judged and not skip_missing:
            raise ValueError(
                f"{where}: the document {key!r} has no text, but is judged in {judged[key]}; "
                "leave such documents out with --skip_missing"
            )
        else:
            notes["documents without text, left out"][key] += 1
    if missing := [document for document in judged if document not in written]:
        if not skip_missing:
            raise ValueError(
                f"{judged[missing[0]]}: judged documents that are in no file: {listed(missing)}; "
                f"add their files (--documents {language}=PATH), or leave the documents out (--skip_missing)"
            )
        notes["judged documents that are in no file or have no text, left out"].update(missing)
    for kind, names in notes.items():
        logger.warning(f"{language}: {kind}: {listed(names)}")
    return written


def write_clef(
    output: Path,
    pairs: list[tuple[str, str]],
    documents: dict[str, list[Path]],
    topics: dict[str, dict[str, str]],
    qrels: dict[str, list[Path]],
    encodings: dict[str | None, str] | None = None,
    all_documents: bool = False,
    skip_missing: bool = False,
) -> dict[str, dict[str, int]]:
    """
    Writes a collection `output/{query language}-{document language}` for each of `pairs`, all or none. The queries are
    the topics with a relevant document. `candidates.run` has the judged documents of each query, by id.

    Args:
        output (`Path`).
        pairs (`list[tuple[str, str]]`): query language and document language.
        documents, qrels (`dict[str, list[Path]]`): language of the documents to files or folders.
        topics (`dict[str, dict[str, str]]`): from [`read_clef_topics`].
        encodings (`dict[str | None, str]`, *optional*): language of the documents to encoding. The key None stands for
            all other languages. For languages that are not given, see the top of this file.
        all_documents (`bool`, defaults to `False`): also write documents that are judged for no query.
        skip_missing (`bool`, defaults to `False`): leave out and count, instead of raising, judged documents that are
            in no file or have no text, and judged topics that are missing in the language of the queries.

    Raises `FileExistsError` if one of the folders exists, and `FileNotFoundError` for a path that does not exist.
    Raises `ValueError` in the cases of the functions above, for a language without topics, documents or qrels, and for
    documents and topics that `skip_missing` would leave out.

    Returns:
        `{pair: {"queries": number, "documents": number, "judgements": number}}`.
    """
    # Judgements and topics, checked before the first document is read
    everything, judgements = {}, {}
    for query_language, language in pairs:
        pair = f"{query_language}-{language}"
        if query_language not in topics:
            raise ValueError(f"no topic is in {query_language!r}, only in {', '.join(sorted(topics))} (--topics)")
        for option, given in (("--documents", documents), ("--qrels", qrels)):
            if language not in given:
                raise ValueError(f"{option} has nothing in {language!r}: add {language}=PATH")
        if language not in judgements:
            everything[language] = read_clef_qrels(qrels[language])
            judgements[language] = with_relevant(everything[language], language)
        if missing := [topic for topic in judgements[language] if topic not in topics[query_language]]:
            message = f"judged topics that are missing in {query_language!r}: {listed(missing)}"
            if not skip_missing:
                _, where = next(iter(judgements[language][missing[0]].values()))
                raise ValueError(
                    f"{where}: {message}; add their file (--topics), or leave the topics out (--skip_missing)"
                )
            logger.warning(f"{pair}: {message}, left out")
        if others := [topic for topic in topics[query_language] if topic not in everything[language]]:
            logger.warning(f"{pair}: topics without a judgement, left out: {listed(others)}")

    counts = {}
    with ExitStack() as stack:
        folders = {pair: stack.enter_context(new_folder(output / "-".join(pair))) for pair in pairs}
        for language, judged in judgements.items():
            pairs_here = [pair for pair in folders if pair[1] == language]
            lines = {}  # the first file:line of each judged document
            for of_topic in judged.values():
                for document, (_, where) in of_topic.items():
                    lines.setdefault(document, where)
            with ExitStack() as opened:
                files = [
                    opened.enter_context(open(folders[pair] / "documents.jsonl", "w", encoding="utf-8"))
                    for pair in pairs_here
                ]
                written = write_documents(
                    files, documents[language], lines, language, encodings or {}, all_documents, skip_missing
                )
            if not written.issuperset(lines):
                there = {t: {d: j for d, j in of_topic.items() if d in written} for t, of_topic in judged.items()}
                judged = with_relevant(there, language)
            for pair in pairs_here:
                queries = {topic: topics[pair[0]][topic] for topic in judged if topic in topics[pair[0]]}
                if not queries:
                    raise ValueError(f"{'-'.join(pair)}: no topic is left")
                own = {topic: {document: r for document, (r, _) in judged[topic].items()} for topic in queries}
                write_queries(folders[pair], queries, own)
                with open(folders[pair] / "candidates.run", "w", encoding="utf-8") as file:
                    for topic, of_topic in own.items():
                        for rank, document in enumerate(sorted(of_topic), start=1):
                            file.write(f"{topic} Q0 {document} {rank} 0 judged\n")
                number = sum(map(len, own.values()))
                counts["-".join(pair)] = {"queries": len(own), "documents": len(written), "judgements": number}
    return counts


__all__ = ["TEXT_FIELDS", "TOPIC_FIELDS", "check_encoding", "read_clef_qrels", "read_clef_topics", "write_clef"]
