#!/usr/bin/env python
"""
Makes a collection, a folder OUTPUT, of a published data set.

    python scripts/prepare_collection.py OUTPUT --queries clirmatrix/de/bi139-base/en/test1
    python scripts/prepare_collection.py OUTPUT --queries mmarco/v2/de/dev/small --documents mmarco/v2/fr
    python scripts/prepare_collection.py OUTPUT --source hub --queries mteb/scifact --judged_only
    python scripts/prepare_collection.py OUTPUT --source hub --queries FOLDER --subset de-en --candidates FOLDER

--documents and --qrels come from where the queries come from, unless they are named; --candidates, the documents to
rerank, only where they are named. With --source hub a name is one of the Hub or a local folder, in the layout of BEIR
(also as unpacked from its archives) or of MTEB's reranking tasks.
"""

import argparse
import sys
from pathlib import Path

from modeling_clir.data.collections import write_collection
from modeling_clir.data.files import refuse_existing
from modeling_clir.data.sources import IrDataset, gather, open_hub


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--source", choices=("ir_datasets", "hub"), default="ir_datasets", help="what the names are of"
    )
    parser.add_argument("--queries", required=True, help="where the queries are from")
    parser.add_argument("--documents", help="where the documents are from (default: --queries)")
    parser.add_argument("--qrels", help="where the judgements are from (default: --queries)")
    parser.add_argument("--candidates", help="where candidates.run is from (default: none; all documents are ranked)")
    parser.add_argument("--subset", help="hub: the data set's subset, as de-en")
    parser.add_argument("--split", default="test", help="hub: the split (default: test)")
    parser.add_argument("--judged_only", action="store_true", help="only documents that are judged or candidates")
    args = parser.parse_args()

    try:
        refuse_existing(args.output)
        names = [args.documents or args.queries, args.queries, args.qrels or args.queries]
        names += [args.candidates] if args.candidates else []
        if args.source == "hub":
            sources = {name: open_hub(name, args.subset, args.split) for name in set(names)}
        else:
            sources = {name: IrDataset(name) for name in set(names)}
        *texts, candidates, dropped = gather(*(sources[name] for name in names), judged_only=args.judged_only)
        write_collection(args.output, *texts, candidates=candidates)
    except (ImportError, OSError, RuntimeError, ValueError) as error:  # RuntimeError: ir_datasets cannot download
        sys.exit(f"error: {error}")
    documents, queries, qrels = texts
    judgements = sum(map(len, qrels.values()))
    print(f"{args.output}: {len(queries)} queries, {len(documents)} documents, {judgements} judgements")
    for reason, number in dropped.items():
        print(f"left out: {number} {reason}")


if __name__ == "__main__":
    main()
