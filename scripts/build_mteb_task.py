#!/usr/bin/env python
"""
Builds a task of cross-lingual reranking in MTEB's layout from collections.

    python scripts/build_mteb_task.py OUTPUT --collections data/en-de data/de-en

Each collection is a subset, named as its folder: query language-document language. OUTPUT gets the configs
{pair}-corpus, {pair}-queries, {pair}-qrels and {pair}-top_ranked as Parquet, and a card for datasets, mteb and the Hub.
The documents to rerank are those of candidates.run, or all. `modeling_clir.data.mteb.reranking_task` opens it for mteb.
"""

import logging
import sys
from pathlib import Path

from modeling_clir.data.collections import check_folder
from modeling_clir.licenses import check_license
from modeling_clir.program import Parser, run_program


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="a new folder for the task")
    parser.add_argument("--collections", type=Path, nargs="+", required=True, help="folders such as data/en-de")
    parser.add_argument("--license", help="license of the texts, such as cc-by-sa-4.0")
    args = parser.parse_args()
    check_license(args.license)
    for folder in args.collections:
        check_folder(folder)

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.collections import read_collection
    from modeling_clir.data.files import folder_name, refuse_existing
    from modeling_clir.data.mteb import check_pairs, write_task

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    refuse_existing(args.output)
    check_pairs([folder_name(folder) for folder in args.collections])
    collections = [read_collection(folder) for folder in args.collections]
    for pair, queries, documents, pairs in write_task(args.output, collections, args.license):
        print(f"{args.output} {pair}: {queries} queries, {documents} documents, {pairs} pairs to rank")


if __name__ == "__main__":
    run_program(main)
