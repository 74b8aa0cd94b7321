#!/usr/bin/env python
"""
Builds collections for cross-lingual retrieval from the files of CLEF's ad-hoc tracks of 2000 to 2003, as ELRA gives
them out. Each collection is a folder OUTPUT/{query language}-{document language}.

    python scripts/prepare_clef.py OUTPUT --pairs en-de,de-en --topics TOPICS \\
        --documents de=GERMAN_DATA en=ENGLISH_DATA --qrels de=QRELS_DE_2000 de=QRELS_DE_2001 en=QRELS_EN_2000 ...

--documents: SGML files, plain or .gz, or folders of them. Title, lead and text are taken, keywords are not.
--topics: files or folders, with the language (nl=FILE) if their tags, as <EN-title>, do not name it.
--qrels: TREC files or folders, of all years.
--encoding and --topic_encoding: needed only for a file that is not UTF-8, does not name its encoding in an XML
declaration, and is not Latin-1 in a language that Latin-1 can write. For instance: --topic_encoding zh=gb18030
ru=koi8-r cs=iso8859-2 en=cp1252.

Of the 200 topics, 176 have a relevant document in English, 185 in French, 192 in German, 156 in Spanish. If there are
fewer, a file is missing.
"""

import re
from pathlib import Path

from modeling_clir.program import Parser, run_program


def split_language(argument: str) -> tuple[str | None, Path]:
    """Maps `"de=PATH"` to `("de", path)` and `"PATH"` to `(None, path)`."""
    language, path = re.fullmatch(r"(?:([a-z]{2})=)?(.*)", argument).groups()
    if not path:
        raise ValueError(f"a path or an encoding is missing in {argument!r}")
    return language, Path(path)


def by_language(option: str, arguments: list[str]) -> dict[str, list[Path]]:
    paths = {}
    for language, path in map(split_language, arguments):
        if language is None:
            raise ValueError(f"{option} takes LANGUAGE=PATH, as de={path}; got {path}")
        paths.setdefault(language, []).append(path)
    return paths


def encodings(option: str, arguments: list[str]) -> dict[str | None, str]:
    """Maps `["ru=koi8-r", "utf-8"]` to `{"ru": "koi8-r", None: "utf-8"}`."""
    from modeling_clir.data.clef import check_encoding

    return {language: check_encoding(str(name), option) for language, name in map(split_language, arguments)}


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder of the collections")
    parser.add_argument("--pairs", required=True, help="query language-document language, such as en-de,de-en")
    several = {"nargs": "+", "action": "extend", "required": True}
    parser.add_argument("--documents", metavar="LANGUAGE=PATH", **several, help="all sub-collections")
    parser.add_argument("--topics", metavar="[LANGUAGE=]PATH", **several, help="all languages of queries")
    parser.add_argument("--qrels", metavar="LANGUAGE=PATH", **several, help="judgements by document language")
    parser.add_argument(
        "--topic_fields",
        default="title,description",
        help="fields of a query: title, description, narrative (default: title,description)",
    )
    several = {"nargs": "+", "action": "extend", "default": [], "metavar": "[LANGUAGE=]ENCODING"}
    parser.add_argument("--encoding", **several, help="encoding of documents (default: detected, see above)")
    parser.add_argument("--topic_encoding", **several, help="encoding of topics (default: detected, see above)")
    parser.add_argument("--all_documents", action="store_true", help="also documents that are judged for no query")
    parser.add_argument("--skip_missing", action="store_true", help="leave out missing judged documents and topics")
    args = parser.parse_args()

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.clef import TOPIC_FIELDS, read_clef_topics, write_clef

    pairs = list(dict.fromkeys(tuple(pair.strip().split("-")) for pair in args.pairs.split(",")))
    fields = tuple(field.strip() for field in args.topic_fields.split(","))

    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"a pair is a query and a document language joined by a hyphen, got {'-'.join(bad[0])!r}")
    if bad := [field for field in fields if field not in TOPIC_FIELDS.values()]:
        raise ValueError(f"--topic_fields must be from {', '.join(TOPIC_FIELDS.values())}; got {bad[0]!r}")

    documents, qrels = by_language("--documents", args.documents), by_language("--qrels", args.qrels)

    # 1. Read topics; `write_clef` reads documents and judgements
    of_documents = encodings("--encoding", args.encoding)
    of_topics = encodings("--topic_encoding", args.topic_encoding)
    topics = read_clef_topics([split_language(argument) for argument in args.topics], fields, of_topics)

    # 2. Write
    counts = write_clef(
        args.output,
        pairs,
        documents,
        topics,
        qrels,
        encodings=of_documents,
        all_documents=args.all_documents,
        skip_missing=args.skip_missing,
    )

    # 3. Report
    for pair, number in counts.items():
        mean = number["judgements"] / number["queries"]
        print(
            f"{args.output / pair}: {number['queries']} queries, {number['documents']} documents, "
            f"{mean:.1f} judged for each query"
        )


if __name__ == "__main__":
    run_program(main)
