#!/usr/bin/env python
"""
Compares TREC runs with the first of them.

    python scripts/compare_runs.py QRELS RUN RUN... [--output_dir FOLDER]

QRELS is a file of TREC qrels, or a collection folder; with a folder, unknown queries and documents are errors. Prints
a table in Markdown. It has the means over the judged queries (MAP, nDCG@20, P@10, R@100, MRR, Judged@20). The p-value
of the difference from the first run is in parentheses (two-sided paired randomization test, adjusted by Holm over the
runs).

Writes to --output_dir: comparison.md and comparison.tex (the table), queries.tsv (the values of each query; for one
query MAP is AP and MRR is RR) and differences.png (AP).
"""

from pathlib import Path

from modeling_clir.program import Parser, run_program


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("qrels", type=Path, help="TREC qrels, or a collection folder")
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="TREC runs; the first is the baseline")
    parser.add_argument("--output_dir", type=Path, help="a new folder for tables, plot and the values of each query")
    args = parser.parse_args()

    # Imported here, so that help and mistakes in the arguments are answered at once
    from modeling_clir.data.files import refuse_existing
    from modeling_clir.evaluation.comparison import (
        compare,
        latex_table,
        markdown_table,
        plot_differences,
        read_judged_run,
        read_judgements,
    )

    # 1. Judgements and runs
    if len(args.runs) < 2:
        raise ValueError("there is nothing to compare: name two runs or more")
    if len(set(args.runs)) < len(args.runs):
        raise ValueError("a run is named twice")
    if args.output_dir:
        refuse_existing(args.output_dir)
    qrels, known = read_judgements(args.qrels)
    stems = [path.stem for path in args.runs]
    names = stems if len(set(stems)) == len(stems) else map(str, args.runs)
    runs = {name: read_judged_run(path, qrels, known) for name, path in zip(names, args.runs)}

    # 2. Compare
    results = compare(runs, qrels)
    print(f"{len(qrels)} queries\n\n{markdown_table(results)}", end="")

    # 3. Write
    if args.output_dir:
        args.output_dir.mkdir(parents=True)
        (args.output_dir / "comparison.md").write_text(markdown_table(results), encoding="utf-8")
        (args.output_dir / "comparison.tex").write_text(latex_table(results), encoding="utf-8")
        plot_differences(results, "AP", args.output_dir / "differences.png")
        with open(args.output_dir / "queries.tsv", "w", encoding="utf-8") as file:
            file.write("\t".join(["query", "run", *results]) + "\n")
            for name in runs:
                columns = [results[measure][name]["values"] for measure in results]
                for query, *values in zip(qrels, *columns):
                    file.write("\t".join([query, name, *(f"{value:.6f}" for value in values)]) + "\n")


if __name__ == "__main__":
    run_program(main)
