#!/usr/bin/env python
"""
Builds collections for cross-lingual retrieval, a folder OUTPUT/{query language}-{document language} each, from the
files of CLEF's ad-hoc tracks of 2000 to 2003, as ELRA gives them out.

    python scripts/prepare_clef.py OUTPUT --pairs en-de,de-en --topics TOPICS \\
        --documents de=GERMAN_DATA en=ENGLISH_DATA --qrels de=QRELS_DE_2000 de=QRELS_DE_2001 en=QRELS_EN_2000 ...

--documents: SGML files, plain or .gz, or folders of them; title, lead and text are taken, keywords are not.
--topics: files or folders, with the language (nl=FILE) where their tags, as <EN-title>, do not name it.
--qrels: TREC files or folders of them, of all years.

Of the 200 topics these have a relevant document: en 176, fr 185, de 192, es 156. Less says that a file is missing.
"""

import argparse
import re
import sys
from pathlib import Path

from modeling_clir.data.clef import TOPIC_FIELDS, read_clef_topics, write_clef


def split_language(argument: str) -> tuple[str | None, Path]:
    """`("de", path)` of `"de=PATH"`, `(None, path)` of `"PATH"`."""
    language, path = re.fullmatch(r"(?:([a-z]{2})=)?(.+)", argument).groups()
    return language, Path(path)


def by_language(option: str, arguments: list[str]) -> dict[str, list[Path]]:
    paths = {}
    for language, path in map(split_language, arguments):
        if language is None:
            raise ValueError(f"{option} takes LANGUAGE=PATH, as de={path}; got {path}")
        paths.setdefault(language, []).append(path)
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pairs", required=True, help="query language-document language, as en-de,de-en")
    several = {"nargs": "+", "action": "extend", "required": True}
    parser.add_argument("--documents", metavar="LANGUAGE=PATH", **several, help="of all sub-collections")
    parser.add_argument("--topics", metavar="[LANGUAGE=]PATH", **several, help="in all languages of queries")
    parser.add_argument("--qrels", metavar="LANGUAGE=PATH", **several, help="by the language of the documents")
    parser.add_argument("--topic_fields", default="title,description", help="title, description and narrative")
    parser.add_argument("--encoding", choices=("latin-1", "utf-8"), default="latin-1", help="of the documents")
    parser.add_argument("--all_documents", action="store_true", help="also those that are judged for no query")
    parser.add_argument(
        "--skip_missing", action="store_true", help="leave out judged documents and topics that are not there"
    )
    args = parser.parse_args()
    pairs = list(dict.fromkeys(tuple(pair.strip().split("-")) for pair in args.pairs.split(",")))
    fields = tuple(field.strip() for field in args.topic_fields.split(","))

    try:
        if bad := [pair for pair in pairs if len(pair) != 2]:
            raise ValueError(f"a pair is a query and a document language joined by a hyphen, got {'-'.join(bad[0])!r}")
        if bad := [field for field in fields if field not in TOPIC_FIELDS.values()]:
            raise ValueError(f"--topic_fields are of {', '.join(TOPIC_FIELDS.values())}; got {bad[0]!r}")

        # 1. Topics; documents and judgements are read as they are written
        topics = read_clef_topics([split_language(argument) for argument in args.topics], fields)

        # 2. Write
        counts = write_clef(
            args.output,
            pairs,
            by_language("--documents", args.documents),
            topics,
            by_language("--qrels", args.qrels),
            encoding=args.encoding,
            all_documents=args.all_documents,
            skip_missing=args.skip_missing,
        )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")

    # 3. Report
    for pair, number in counts.items():
        mean = number["judgements"] / number["queries"]
        print(
            f"{args.output / pair}: {number['queries']} queries, {number['documents']} documents, "
            f"{mean:.1f} judged for each query"
        )


if __name__ == "__main__":
    main()
