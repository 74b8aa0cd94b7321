"""
Collections (`collections.py` says what they hold) from the files of CLEF's ad-hoc tracks of 2000 to 2003.

    documents   SGML, many <DOC> in a file, Latin-1
    topics      <top> with <num> C041 </num>, <EN-title>, <EN-desc>, <EN-narr>; or <topic lang="en"> with <identifier>
                41-AH, <title>, <description>, <narrative>, as DIRECT gives them out
    qrels       TREC, a file of each year and language of documents; query ids 41, 041, C041, 41-AH
"""

import html
import json
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from contextlib import ExitStack
from html.entities import html5
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm
from transformers.utils import logging

from .collections import write_queries
from .files import new_folder, read_bytes, read_columns


logger = logging.get_logger(__name__)

# What becomes the text of a document, in this order: the fields that CLEF let automatic runs index. A name means the
# same in all the sub-collections that have it, so one table serves all of them.
TEXT_FIELDS = (
    "TITLE",  # Frankfurter Rundschau, Spiegel, Le Monde, La Stampa, EFE
    "HEADLINE",  # Los Angeles Times, Glasgow Herald; in <P> in the former
    "TI",  # SDA in German, French (ATS), Italian (AGZ); Algemeen Dagblad, NRC Handelsblad (in <BODYY>, and in <P>)
    "LEAD",  # Spiegel
    "LEAD1",  # Le Monde
    "LD",  # SDA
    "LE",  # Algemeen Dagblad, NRC Handelsblad
    "ST",  # SDA
    "TEXT",  # those with TITLE or HEADLINE
    "TX",  # SDA, often several
    "TE",  # Algemeen Dagblad, NRC Handelsblad
    "OS",  # captions, of the same
)
# Fields that are not text even inside one that is: ids, and words of a controlled vocabulary, given by hand, which
# CLEF did not let runs index. Outside, any field that is not in the table is left out, and counted in the log.
OTHER_FIELDS = frozenset(
    ("DOCNO", "DOCID", "KW", "KEYWORD", "KEYWORDS", "SUBJECT", "SUBJECTS", "CATEGORY", "CLASSIFICATION", "SECTION")
)
# Not fields, and often without an end tag.
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
# How fields of topics name languages, where not by the code: the year 2000 took the letters of its file names.
LANGUAGES = {"d": "nl", "du": "nl", "e": "en", "f": "fr", "g": "de", "i": "it", "sp": "es", "sw": "sv"}

# What the log says was left out or is in doubt: name and number of each, by the kind.
Notes = dict[str, Counter]


def list_files(path: Path) -> list[Path]:
    """A file, or all files below a folder but hidden ones. Raises `FileNotFoundError`."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    return sorted(file for file in path.rglob("[!.]*") if file.is_file()) if path.is_dir() else [path]


def unescape(text: str, notes: Notes) -> str:
    """Replaces entities; ones that HTML does not know are counted, and stay."""

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
    `(where, markup)` of each `<DOC>` of a file, plain or `.gz`; one without `</DOC>` ends where the next begins, and
    is counted. Raises `ValueError` for a line in another encoding, and for a damaged `.gz`.
    """
    start, parts = None, []
    for number, line in enumerate(read_bytes(path), start=1):
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not {encoding} ({error}); see --encoding") from error
        position = 0
        for tag in BOUNDARY.finditer(text):
            if start:
                if not tag["end"]:
                    notes["documents without </DOC>"][start] += 1
                yield start, "".join([*parts, text[position : tag.start()]])
            start, parts, position = None if tag["end"] else f"{path}:{number}", [], tag.end()
        if start:
            parts.append(text[position:])
    if start:
        notes["documents without </DOC>"][start] += 1
        yield start, "".join(parts)


def document_text(markup: str, notes: Notes) -> str:
    """
    The text of a `<DOC>`: what is in `TEXT_FIELDS`, one after the other. The innermost field that the tables above
    name decides; one without an end tag goes to the next start of a field.
    """
    tags = [tag for tag in TAG.finditer(markup) if (tag["name"] or "").upper() not in MARKUP]
    last_end = {tag["name"].upper(): tag.start() for tag in tags if tag["end"]}
    texts = defaultdict(list)
    inside, position = [], 0  # the fields that are open, each with its start
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
    paths: list[Path], encoding: str, notes: Notes, wanted: Container[str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """
    `(where, id, text)` of each document, in the order of the files; the text may be empty.

    Args:
        paths (`list[Path]`): files, or folders of them, plain or `.gz`. Files without a `<DOC>` (of notes, DTDs) are
            passed over and named in the log.
        encoding (`str`).
        notes (`Notes`): where to count what is left out or in doubt.
        wanted (`Container[str]`, *optional*): ids; others are passed over. Defaults to all.

    Raises `FileNotFoundError` for a path that does not exist, `ValueError` with file and line for a document without
    id or with the id of another, for a path without any document, and as [`split_documents`].
    """
    seen = set()
    for path in paths:
        before = len(seen)
        for file in tqdm(list_files(path), desc=f"Documents of {path}", unit="file"):
            here = len(seen)
            if file.name.endswith(ARCHIVES):
                notes["files that cannot be read (unpack them)"][str(file)] += 1
                continue
            for where, markup in split_documents(file, encoding, notes):
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
                    if re.search("[\x80-\x9f]", markup):
                        notes[f"documents with control characters (is it {encoding}? see --encoding)"][key] += 1
                    yield where, key, document_text(markup, notes)
            if len(seen) == here:
                notes["files without a <DOC>, passed over"][str(file)] += 1
        if len(seen) == before:
            advice = "unpack archives first" if notes["files that cannot be read (unpack them)"] else "is it SGML?"
            raise ValueError(f"{path}: no document, which would start with <DOC>; {advice}")


def topic_id(text: str, where: str) -> str:
    """`C041` for `41`, `041`, `C041`, `41-AH`. Raises `ValueError` for anything else."""
    match = TOPIC_ID.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{where}: expected the number of a topic, as C041, 41 or 41-AH; got {text.strip()!r}")
    return f"C{int(match[1]):03d}"


def parse_topics(
    path: Path, fields: tuple[str, ...], language: str | None = None
) -> Iterator[tuple[str, str, str, str]]:
    """
    `(where, language, id, text)` of each topic of a file, UTF-8 or else Latin-1, plain or `.gz`, in each language that
    it is in; the text is that of `fields` (of `"title"`, `"description"`, `"narrative"`), one after the other.
    `language` stands for what the file names. Raises `ValueError` with file and line for a topic without number or
    language, and one that has a field twice, or not one of `fields`.
    """
    data = b"".join(read_bytes(path))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
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
    paths: list[tuple[str | None, Path]], fields: tuple[str, ...] = ("title", "description")
) -> dict[str, dict[str, str]]:
    """
    Language to topic to text, of files and folders of files, each with the language where its tags name none. Files
    without a topic are passed over and named in the log. Raises `FileNotFoundError`, and `ValueError` as
    [`parse_topics`], for a path without any topic, and one that occurs with two texts in a language.
    """
    topics = defaultdict(dict)
    for language, path in paths:
        empty, files = [], list_files(path)
        for file in files:
            found = list(parse_topics(file, fields, language))
            if not found:
                empty.append(str(file))
            for where, code, topic, text in found:
                if topics[code].setdefault(topic, text) != text:
                    raise ValueError(f"{where}: the topic {topic} occurs more than once in {code!r}")
        if len(empty) == len(files):
            raise ValueError(f"{path}: no topic, which would start with <top>; are these CLEF's topics?")
        if empty:
            logger.warning(f"files without a topic, passed over: {listed(empty)}")
    return dict(topics)


def read_clef_qrels(paths: list[Path]) -> dict[str, dict[str, tuple[int, str]]]:
    """
    Topic to document to relevance and `file:line`, of the files of several years, of documents in one language. A
    judgement may occur twice. Raises `FileNotFoundError`, and `ValueError` with file and line for what does not parse,
    and a document that is judged relevant in one line and not relevant in another.
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
    """The topics that have a relevant document; CLEF does not evaluate others. Raises `ValueError` for none."""
    kept = {topic: judged for topic, judged in judgements.items() if any(r for r, _ in judged.values())}
    if without := [topic for topic in judgements if topic not in kept]:
        logger.warning(f"{language}: topics without a relevant document, left out: {listed(without)}")
    if not kept:
        raise ValueError(f"no topic has a relevant document in {language!r} (--qrels)")
    return kept


def listed(names: list[str] | Counter) -> str:
    """The number of names and the first of them, as `"3 (a, b, c)"`; of a counter the most frequent, as `"a x 2"`."""
    number = sum(names.values()) if isinstance(names, Counter) else len(names)
    some = [f"{name} x {n}" if n > 1 else name for name, n in Counter(names).most_common(10)]
    return f"{number} ({', '.join(some)}{', ...' if len(names) > 10 else ''})"


def write_documents(
    files: list[IO[str]],
    paths: list[Path],
    judged: dict[str, str],
    language: str,
    encoding: str,
    all_documents: bool,
    skip_missing: bool,
) -> set[str]:
    """
    Writes the documents of a language to each of `files`, and returns their ids; `judged` has the judged ones and the
    `file:line` of their judgement. The other arguments and errors are those of [`write_clef`].
    """
    notes, written = defaultdict(Counter), set()
    for where, key, text in read_clef_documents(paths, encoding, notes, None if all_documents else judged.keys()):
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
                f"add their files (--documents {language}=PATH), or leave them out (--skip_missing)"
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
    encoding: str = "latin-1",
    all_documents: bool = False,
    skip_missing: bool = False,
) -> dict[str, dict[str, int]]:
    """
    Writes a collection `output/{query language}-{document language}` for each of `pairs`, all or none. Its queries are
    the topics that have a relevant document; `candidates.run` has the judged documents of each, by id.

    Args:
        documents, qrels (`dict[str, list[Path]]`): of each language of documents, files or folders of them.
        topics (`dict[str, dict[str, str]]`): of [`read_clef_topics`].
        encoding (`str`, defaults to `"latin-1"`): of the documents.
        all_documents (`bool`, defaults to `False`): also write the documents that are judged for no query.
        skip_missing (`bool`, defaults to `False`): leave out, and count, judged documents that are in no file or have
            no text, and judged topics that are not there in the language of the queries, rather than raise.

    Raises `FileExistsError` where one of the folders exists, `FileNotFoundError`, and `ValueError` as the functions
    above, for what is not there in a language, and for what `skip_missing` speaks of.

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
            message = f"judged topics that are not there in {query_language!r}: {listed(missing)}"
            if not skip_missing:
                _, where = next(iter(judgements[language][missing[0]].values()))
                raise ValueError(f"{where}: {message}; add their file (--topics), or leave them out (--skip_missing)")
            logger.warning(f"{pair}: {message}, left out")
        if others := [topic for topic in topics[query_language] if topic not in everything[language]]:
            logger.warning(f"{pair}: topics without a judgement, left out: {listed(others)}")

    counts = {}
    with ExitStack() as stack:
        folders = {pair: stack.enter_context(new_folder(output / "-".join(pair))) for pair in pairs}
        for language, judged in judgements.items():
            pairs_here = [pair for pair in folders if pair[1] == language]
            lines = {}  # of each judged document, the first file:line
            for of_topic in judged.values():
                for document, (_, where) in of_topic.items():
                    lines.setdefault(document, where)
            with ExitStack() as opened:
                files = [
                    opened.enter_context(open(folders[pair] / "documents.jsonl", "w", encoding="utf-8"))
                    for pair in pairs_here
                ]
                written = write_documents(
                    files, documents[language], lines, language, encoding, all_documents, skip_missing
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


__all__ = ["TEXT_FIELDS", "TOPIC_FIELDS", "read_clef_qrels", "read_clef_topics", "write_clef"]
