#!/usr/bin/env python
"""
Builds collections for cross-lingual retrieval from parallel data. Each collection is a folder
OUTPUT/{query language}-{document language}.

    python scripts/build_collections.py OUTPUT --pairs en-de,de-en --squad FOLDER --squad_articles 24:36
    python scripts/build_collections.py OUTPUT --pairs en-de,de-en --documents FOLDER

--squad: files *.{language}.json with the same paragraphs in the same order. Questions become queries, paragraphs
documents.
--documents: {language}.jsonl aligned by "id", queries.{language}.tsv (id, tab, text) and qrels.txt, with the same ids
in all languages. Any file may be gzipped.
--judged N: also judges the N nearest documents of each query by BM25 as not relevant. Only judged documents are
ranked.
--article_folds: writes folds.json with five folds of whole articles, so that no article is both trained and tested on.
"""

from pathlib import Path

from modeling_clir.program import Parser, run_program


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder of the collections")
    parser.add_argument("--pairs", required=True, help="query language-document language, such as en-de,de-en")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--squad", type=Path, help="a folder of parallel SQuAD files")
    source.add_argument("--documents", type=Path, help="a folder of aligned JSONL documents with queries and qrels")
    parser.add_argument("--squad_articles", default=":", help="only these articles, such as 24:36")
    parser.add_argument("--judged", type=int, help="documents of each query to judge as not relevant")
    parser.add_argument("--article_folds", action="store_true", help="write five folds of whole articles")
    args = parser.parse_args()

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.collections import check_collection, read_qrels, read_queries, write_collection
    from modeling_clir.data.corpus import (
        article_folds,
        judge_nearest,
        parse_articles,
        read_documents,
        read_questions,
        read_squad,
    )
    from modeling_clir.data.files import find_file, folder_name

    pairs = [tuple(pair.strip().split("-")) for pair in args.pairs.split(",")]

    if args.judged is not None and args.judged < 1:
        raise ValueError(f"--judged must be at least 1, got {args.judged}")
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise ValueError(f"a pair is a query and a document language joined by a hyphen, got {'-'.join(bad[0])!r}")
    languages = list(dict.fromkeys(language for pair in pairs for language in pair))

    # 1. Read documents, queries (in every language) and judgements
    if args.squad:
        articles = parse_articles(args.squad_articles)
        sections = read_squad(args.squad, languages, articles)
        queries, qrels = read_questions(args.squad, languages, articles)
    else:
        sections = read_documents(args.documents, languages)
        queries = {
            language: read_queries(find_file(args.documents, f"queries.{language}.tsv")) for language in languages
        }
        name, qrels = folder_name(args.documents), {}
        for _, query, document, relevance in read_qrels(find_file(args.documents, "qrels.txt")):
            qrels.setdefault(query, {})[f"{name}/{document}"] = relevance

    # 2. Check all collections before the first is written
    collections = {}
    for query_language, language in pairs:
        folder = args.output / f"{query_language}-{language}"
        documents = {section.key: section.text[language] for section in sections if language in section.text}
        if not documents or not queries.get(query_language):
            raise ValueError(f"{folder.name}: there are no documents or no queries in these languages")
        check_collection(folder, documents, queries[query_language], qrels)
        judged = qrels
        if args.judged:
            judged = judge_nearest(documents, queries[language], qrels, args.judged)
        collections[folder] = (documents, queries[query_language], judged)

    folds = article_folds(sections, qrels) if args.article_folds else None

    # 3. Write
    for folder, (documents, queries, judged) in collections.items():
        candidates = {query: dict.fromkeys(found, 0.0) for query, found in judged.items()} if args.judged else None
        write_collection(folder, documents, queries, judged, candidates, folds)
        print(f"{folder}: {len(queries)} queries, {len(documents)} documents")


if __name__ == "__main__":
    run_program(main)
