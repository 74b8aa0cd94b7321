#!/usr/bin/env python
"""
Ranks the documents of a collection with BM25 or the vectors of a model, and writes the best as a TREC run. Or writes a
teacher's scores of the candidates.

    python scripts/first_stage.py COLLECTION --queries translated.tsv
    python scripts/first_stage.py COLLECTION --model MODEL --prompts "query: " "passage: " --k 100 --output dense.run
    python scripts/first_stage.py COLLECTION --teacher_model MODEL

BM25 needs queries in the documents' language. --queries names a file of such queries (query id, tab, text), for
instance machine translations. --model takes a folder or Hub name; its queries may be in any language that the model
knows. Without --output the run becomes the collection's candidates.run, which run_clir.py reranks.

--teacher_model scores the documents of candidates.run and the judged ones, by any reranker or dense model. The
collection's teacher.run gets the scores, on which run_clir.py --rr_loss margin_mse and kl train.
"""

from pathlib import Path

from modeling_clir.names import check_name
from modeling_clir.program import Parser, run_program, share_cores


def main():
    share_cores()
    parser = Parser(description=__doc__)
    parser.add_argument("collection", type=Path, help="folder with documents.jsonl, queries.tsv, qrels.txt")
    parser.add_argument("--queries", type=Path, help="queries in the documents' language (default: the collection's)")
    parser.add_argument("--model", help="rank with the vectors of this model (default: BM25)")
    parser.add_argument("--teacher_model", metavar="MODEL", help="write this model's scores of the candidates")
    parser.add_argument(
        "--prompts",
        nargs=2,
        metavar=("QUERY", "DOCUMENT"),
        help="what a dense model reads in front of queries and documents, such as 'query: ' 'passage: ' for E5",
    )
    parser.add_argument("--k", type=int, default=1000, help="documents per query (default: 1000)")
    parser.add_argument(
        "--output", type=Path, help="file for the run (default: COLLECTION/candidates.run or teacher.run)"
    )
    args = parser.parse_args()
    if args.teacher_model and (args.model or args.queries):
        raise ValueError("--teacher_model takes neither --model nor --queries: it scores the collection's own queries")
    if name := args.model or args.teacher_model:
        check_name(name, "model")
    elif args.prompts:
        raise ValueError("--prompts needs --model or --teacher_model")

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.collections import count_pairs, read_collection, read_queries
    from modeling_clir.data.files import find_optional
    from modeling_clir.data.first_stage import rank_bm25, rank_dense
    from modeling_clir.data.runs import write_run
    from modeling_clir.evaluation.ranking import evaluate_run

    # 1. Read the collection and its judged queries
    file = "teacher.run" if args.teacher_model else "candidates.run"
    output = args.output or find_optional(args.collection, file) or args.collection / file
    if output.exists():
        raise FileExistsError(f"{output} exists; remove it or name another file with --output")
    collection = read_collection(args.collection)
    texts = read_queries(args.queries) if args.queries else collection.queries
    if missing := [query for query in collection.qrels if query not in texts]:
        raise ValueError(f"{args.queries} lacks the judged query {missing[0]!r} ({len(missing)} such)")
    queries = {query: texts[query] for query in collection.qrels}

    # 2. Rank
    if args.teacher_model:
        from modeling_clir.teacher import Teacher

        count_pairs([collection])
        listed = {
            query: list(dict.fromkeys([*collection.candidates[query], *collection.qrels[query]])) for query in queries
        }
        pairs = [(queries[q], collection.documents[d]) for q, documents in listed.items() for d in documents]
        scores = iter(Teacher(args.teacher_model, args.prompts).score(pairs))
        run = {query: dict(zip(documents, scores)) for query, documents in listed.items()}
    elif args.model:
        run = rank_dense(collection.documents, queries, args.model, args.k, args.prompts)
    else:
        run = rank_bm25(collection.documents, queries, args.k)

    # 3. Write and measure
    write_run(run, output, tag="teacher" if args.teacher_model else "dense" if args.model else "bm25")
    measured = evaluate_run(run, collection.qrels)
    print(output, *(f"{name} {value:.4f}" for name, value in measured.items()), f"({len(run)} queries)")


if __name__ == "__main__":
    run_program(main)
