#!/usr/bin/env python
"""
Shows how deep to rerank: the measures if only the first documents of a first stage are put into a reranker's order,
and the others follow in the first stage's order.

    python scripts/compare_depths.py QRELS FIRST_STAGE RUN

QRELS is a file of TREC qrels, or a collection folder; with a folder, unknown queries and documents are errors.
FIRST_STAGE and RUN are TREC runs. RUN has scores of the first documents of FIRST_STAGE, to any depth. Prints the table
of compare_runs.py, with a row for the first stage and for each depth; p-values are adjusted by Holm over the depths.
Choose a depth on queries that are not those of the test, and test it alone with --depths.
"""

from pathlib import Path

from modeling_clir.program import Parser, run_program


DEPTHS = (2, 3, 4, 5, 7, 10, 20, 30, 50, 70, 100, 200, 300, 500, 700, 1000)


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("qrels", type=Path, help="TREC qrels, or a collection folder")
    parser.add_argument("first_stage", type=Path, help="TREC run of the first stage")
    parser.add_argument("run", type=Path, help="TREC run of the reranker")
    parser.add_argument("--depths", type=int, nargs="+", help="depths to compare (default: 2, 3, 4, 5, 7, 10, 20 ...)")
    args = parser.parse_args()
    if args.depths and min(args.depths) < 1:
        raise ValueError(f"a depth must be at least 1, got {min(args.depths)}")

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.evaluation.comparison import compare, markdown_table, read_judged_run, read_judgements
    from modeling_clir.evaluation.fusion import covered_depth, rerank_to_depth

    # 1. Judgements and runs
    qrels, known = read_judgements(args.qrels)
    first_stage, run = (read_judged_run(path, qrels, known) for path in (args.first_stage, args.run))
    deepest = covered_depth(run, first_stage)
    if deepest < (wanted := max(args.depths or [2])):
        raise ValueError(
            f"{args.run} has the first {deepest} documents of every query in {args.first_stage}, not the first {wanted}: "
            "name the run of the first stage that was reranked, or smaller --depths"
        )

    # 2. Compare
    depths = args.depths or [depth for depth in DEPTHS if depth < deepest] + [deepest]
    runs = {f"first {depth} reranked": rerank_to_depth(run, first_stage, depth) for depth in depths}
    print(f"{len(qrels)} queries\n\n{markdown_table(compare({'first stage': first_stage} | runs, qrels))}", end="")


if __name__ == "__main__":
    run_program(main)
