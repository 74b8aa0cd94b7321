#!/usr/bin/env python
"""
Builds collections for cross-lingual retrieval, a folder OUTPUT/{query language}-{document language} each, from
parallel data.

    python scripts/build_collections.py OUTPUT --pairs en-de,de-en --squad FOLDER --squad_articles 24:36
    python scripts/build_collections.py OUTPUT --pairs en-de,de-en --documents FOLDER

--squad: files *.{language}.json with the same paragraphs in the same order; questions are queries, paragraphs documents.
--documents: {language}.jsonl aligned by "id", queries.{language}.tsv (id, tab, text) and qrels.txt, with
the same ids in all languages.
"""

import argparse
import sys
from pathlib import Path

from modeling_clir.data.collections import read_columns, write_collection
from modeling_clir.data.corpus import read_documents, read_questions, read_squad
from modeling_clir.data.jsonl import find_file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pairs", required=True, help="query language-document language, as en-de,de-en")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--squad", type=Path, help="a folder of parallel SQuAD files")
    source.add_argument("--documents", type=Path, help="a folder of aligned JSONL documents with queries and qrels")
    parser.add_argument("--squad_articles", default=":", help="only these articles, as 24:36")
    args = parser.parse_args()
    pairs = [tuple(pair.strip().split("-")) for pair in args.pairs.split(",")]

    try:
        if bad := [pair for pair in pairs if len(pair) != 2]:
            raise ValueError(f"a pair is a query and a document language joined by a hyphen, got {'-'.join(bad[0])!r}")
        languages = list(dict.fromkeys(language for pair in pairs for language in pair))

        # 1. Read documents, queries (in every language) and judgements
        if args.squad:
            articles = slice(*[int(n) if n else None for n in args.squad_articles.split(":")])
            sections = read_squad(args.squad, languages, articles)
            queries, relevant = read_questions(args.squad, languages, articles)
        else:
            sections = read_documents(args.documents, languages)
            queries = {
                language: {
                    query: text
                    for _, (query, text) in read_columns(find_file(args.documents, f"queries.{language}.tsv"), 2, "\t")
                }
                for language in languages
            }
            relevant = {}
            for _, (query, _, document, relevance) in read_columns(find_file(args.documents, "qrels.txt"), 4):
                relevant.setdefault(query, {})[f"{args.documents.name}/{document}"] = int(relevance)

        # 2. Write
        for query_language, language in pairs:
            documents = {section.key: section.text[language] for section in sections if language in section.text}
            if not documents or not queries.get(query_language):
                raise ValueError(
                    f"{query_language}-{language}: there are no documents or no queries in these languages"
                )
            name = f"{query_language}-{language}"
            write_collection(args.output / name, documents, queries[query_language], relevant)
            print(f"{args.output / name}: {len(queries[query_language])} queries, {len(documents)} documents")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
