#!/usr/bin/env python
"""
Runs all steps on the sample corpus, each by the command that a user would type.

    python scripts/demo.py [--base base] [--seed 0]

Converts a BERT to BertLong, pretrains it with QLM and RR on 28 topics in four languages, reranks the sections of the
other 12 topics, and prints MAP before and after pretraining for every language pair. Before pretraining the relevance
head is random. Empties the folder output/demo first and writes everything there.
"""

import json
import shlex
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

from modeling_clir.program import Parser, run_program


REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = "output/demo"
LANGUAGES = ("en", "de", "fr", "es")


def run(command: str):
    print(f"\n$ python {command}", flush=True)
    done = subprocess.run([sys.executable, *shlex.split(command)], cwd=REPOSITORY)
    if done.returncode:  # the program has said why
        sys.exit(done.returncode)


def mean_average_precision(name: str) -> dict[str, float]:
    metrics = json.loads((REPOSITORY / OUTPUT / name / "metrics.json").read_text(encoding="utf-8"))
    return {pair: measured["MAP"] for pair, measured in metrics.items()}


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--base", default="base", help="folder or Hub name of a BERT (default: the repository's own)")
    parser.add_argument("--seed", type=int, default=0, help="seed of pretraining (default: 0)")
    args = parser.parse_args()
    shutil.rmtree(REPOSITORY / OUTPUT, ignore_errors=True)
    pairs = [f"{query}-{document}" for query, document in permutations(LANGUAGES, 2)]

    # 1. Data: a pretraining corpus of 28 topics; a collection per language pair of the other 12
    run(
        f"scripts/build_corpus.py {OUTPUT}/corpus --languages {','.join(LANGUAGES)} --documents sample/train "
        "--validation_fraction 0.1"
    )
    run(f"scripts/build_collections.py {OUTPUT}/collections --pairs {','.join(pairs)} --documents sample/test")

    # 2. BERT to BertLong
    run(f"-m modeling_clir.convert {shlex.quote(args.base)} {OUTPUT}/bertlong")

    # 3. Rerank before pretraining
    rerank = (
        f"run_clir.py --collections {' '.join(f'{OUTPUT}/collections/{pair}' for pair in pairs)} --use_cpu "
        f"--seed {args.seed}"
    )
    run(f"{rerank} --model_name_or_path {OUTPUT}/bertlong --output_dir {OUTPUT}/before")

    # 4. Pretrain
    run(f"run_pretraining.py --config recipes/demo.yaml --seed {args.seed}")

    # 5. Rerank after pretraining
    run(f"{rerank} --model_name_or_path {OUTPUT}/clir-bertlong --output_dir {OUTPUT}/after")

    # 6. Report
    before, after = mean_average_precision("before"), mean_average_precision("after")
    print(
        f"\nMAP of reranking the sections of 12 unseen topics (seed {args.seed}); before, the relevance head is random"
    )
    print("query-document  before  after")
    for pair in pairs:
        print(f"{pair:14}  {before[pair]:6.3f}  {after[pair]:5.3f}")
    print(f"{'mean':14}  {sum(before.values()) / len(pairs):6.3f}  {sum(after.values()) / len(pairs):5.3f}")
    print(f"checkpoint, model card (README.md) and learning_curve.png: {OUTPUT}/clir-bertlong")


if __name__ == "__main__":
    run_program(main)
