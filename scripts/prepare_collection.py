#!/usr/bin/env python
"""
Makes a collection, the folder OUTPUT, from a published data set.

    python scripts/prepare_collection.py OUTPUT --queries clirmatrix/de/bi139-base/en/test1
    python scripts/prepare_collection.py OUTPUT --queries mmarco/v2/de/dev/small --documents mmarco/v2/fr
    python scripts/prepare_collection.py OUTPUT --source hub --queries mteb/scifact --judged_only
    python scripts/prepare_collection.py OUTPUT --source hub --queries FOLDER --subset de-en --candidates FOLDER
    python scripts/prepare_collection.py OUTPUT --source hub --queries neuclir/bench --queries_split eng \\
        --documents neuclir/neuclir1 --split fas

Documents and judgements come from the source of the queries, unless --documents and --qrels name other sources. The
documents to rerank come only from --candidates.

With --source hub a name is a Hub name or a local folder. Its layout may be BEIR's (also as its archives unpack),
MTEB's, or one with a config per part, such as MIRACL, NeuCLIR and CLIRudit. If a config has only one split, that split
is read.
"""

from pathlib import Path

from modeling_clir.names import check_name
from modeling_clir.program import Parser, run_program


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument(
        "--source",
        choices=("ir_datasets", "hub"),
        default="ir_datasets",
        help="what the names refer to (default: ir_datasets)",
    )
    parser.add_argument("--queries", required=True, help="source of the queries")
    parser.add_argument("--documents", help="source of the documents (default: --queries)")
    parser.add_argument("--qrels", help="source of the judgements (default: --queries)")
    parser.add_argument("--candidates", help="source of candidates.run (default: none; all documents are ranked)")
    parser.add_argument("--subset", help="hub: subset of the data set, such as de-en or fas")
    parser.add_argument("--split", default="test", help="hub: split of each part (default: test)")
    parser.add_argument("--documents_split", help="hub: split of the documents (default: --split)")
    parser.add_argument("--queries_split", help="hub: split of the queries (default: --split)")
    parser.add_argument("--qrels_split", help="hub: split of the judgements (default: --split)")
    parser.add_argument("--judged_only", action="store_true", help="keep only documents that are judged or candidates")
    args = parser.parse_args()

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.collections import write_collection
    from modeling_clir.data.files import refuse_existing
    from modeling_clir.data.sources import IrDataset, gather, open_hub

    refuse_existing(args.output)
    parts = [
        (args.documents or args.queries, args.documents_split or args.split),
        (args.queries, args.queries_split or args.split),
        (args.qrels or args.queries, args.qrels_split or args.split),
    ]
    if args.candidates:
        parts.append((args.candidates, args.split))
    if args.source == "hub":
        for name in {name for name, _ in parts}:
            check_name(name, "data set")
        sources = {part: open_hub(part[0], args.subset, part[1]) for part in set(parts)}
    else:
        sources = {part: IrDataset(part[0]) for part in set(parts)}
    try:
        *texts, candidates, dropped = gather(*(sources[part] for part in parts), judged_only=args.judged_only)
    except RuntimeError as error:  # ir_datasets cannot download
        raise OSError(error) from error
    write_collection(args.output, *texts, candidates=candidates)
    documents, queries, qrels = texts
    judgements = sum(map(len, qrels.values()))
    print(f"{args.output}: {len(queries)} queries, {len(documents)} documents, {judgements} judgements")
    for reason, number in dropped.items():
        print(f"left out: {number} {reason}")


if __name__ == "__main__":
    run_program(main)
