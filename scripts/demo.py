#!/usr/bin/env python
"""
The whole path on the sample corpus, each step by the command that a user would type:

    python scripts/demo.py [--base base] [--seed 0] [--output output/demo]

Converts a BERT to BertLong, pretrains it with QLM and RR on 28 topics in four languages, reranks the sections of the other 12
topics, and prints MAP before and after for every language pair.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path


REPOSITORY = Path(__file__).resolve().parents[1]
LANGUAGES = ("en", "de", "fr", "es")


def run(*command: str | Path):
    command = [str(part) for part in command]
    print("\n$ python " + " ".join(command), flush=True)
    subprocess.run([sys.executable, *command], check=True, cwd=REPOSITORY)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", default="base", help="a BERT: folder or Hub name (default: the base in the repository)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("output/demo"))
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    output = (REPOSITORY / args.output).resolve()
    shutil.rmtree(output, ignore_errors=True)
    pairs = [f"{query}-{document}" for query, document in permutations(LANGUAGES, 2)]
    collections = [output / "collections" / pair for pair in pairs]
    model, seed = output / "clir-bertlong", ("--seed", str(args.seed))

    # 1. Data: a pretraining corpus of 28 topics, one collection per language pair of the other 12
    languages = ("--languages", ",".join(LANGUAGES))
    run(
        "scripts/build_corpus.py",
        output / "corpus",
        *languages,
        "--documents",
        "sample/train",
        "--validation_fraction",
        "0.1",
    )
    run(
        "scripts/build_collections.py",
        output / "collections",
        "--pairs",
        ",".join(pairs),
        "--documents",
        "sample/test",
    )

    # 2. BERT to BertLong
    run("-m", "modeling_clir.convert", args.base, output / "bertlong")

    # 3. Rerank before pretraining
    rerank = ("run_clir.py", "--collections", *collections, "--max_length", "256", "--use_cpu", *seed)
    run(*rerank, "--model_name_or_path", output / "bertlong", "--output_dir", output / "before")

    # 4. Pretrain
    where = ("--corpus", output / "corpus", "--model_name_or_path", output / "bertlong", "--output_dir", model)
    run("run_pretraining.py", "--config", "recipes/demo.yaml", *where, *seed)

    # 5. Rerank after it
    run(*rerank, "--model_name_or_path", model, "--output_dir", output / "after")

    # 6. Report
    before, after = (
        json.loads((output / name / "metrics.json").read_text(encoding="utf-8")) for name in ("before", "after")
    )
    print(
        f"\nMAP, {after[pairs[0]]['queries']} queries, 37 documents each (seed {args.seed})\nquery-document  before  after"
    )
    for pair in pairs:
        print(f"{pair:14}  {before[pair]['MAP']:6.3f}  {after[pair]['MAP']:5.3f}")
    means = [sum(metrics[pair]["MAP"] for pair in pairs) / len(pairs) for metrics in (before, after)]
    print(f"{'mean':14}  {means[0]:6.3f}  {means[1]:5.3f}")
    print(f"checkpoint and model card: {model}\nlearning curve: {model / 'learning_curve.png'}")


if __name__ == "__main__":
    main()
