#!/usr/bin/env python
"""
Compares the precisions of ranking on a CPU: speed, size, scores and MAP in float32, bfloat16 and int8.

    python benchmarks/precision.py CHECKPOINT COLLECTIONS...

- `pairs/s` are pairs per second of CPU time, tokenization included. Other programs on the machine do not change CPU
  time if this one runs on one thread (`OMP_NUM_THREADS=1`).
- `768 x 12` is the speed of a model of multilingual BERT's size with random weights, on the first pairs.
- `MiB` is the size of the weights.
- `drift` is the difference from the score in float32, in standard deviations of the float32 scores.
- `tau` is Kendall's tau between the ranking and the float32 ranking, mean over the queries.
"""

import argparse
import csv
import io
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from transformers import AutoConfig, AutoModelForSequenceClassification

from modeling_clir.data.collections import read_collection
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection
from modeling_clir.quantization import quantize_int8
from modeling_clir.reranker import Reranker


PRECISIONS = ("float32", "bfloat16", "int8")
LARGE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def mebibytes(model) -> float:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 2**20


def large_model(checkpoint: str, precision: str):
    """Builds a model of multilingual BERT's size with random weights, of the checkpoint's family and vocabulary."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(checkpoint, **LARGE)).eval()
    return quantize_int8(model.float()) if precision == "int8" else model.to(getattr(torch, precision))


def pairs_per_second(reranker: Reranker, pairs: list[tuple[str, str]]) -> float:
    reranker.score(pairs[:2], progress=False)
    start = time.process_time()
    reranker.score(pairs, progress=False)
    return len(pairs) / (time.process_time() - start)


def plot(rows: list[dict], scores: dict[str, np.ndarray], path: Path):
    """Plots the speed of both models and the drift of the scores."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    speed, large, drift = figure.subplots(1, 3)
    for axes, name, title in ((speed, "pairs/s", "the checkpoint"), (large, "768 x 12", "768 x 12, random weights")):
        bars = axes.bar([row["precision"] for row in rows], [row[name] for row in rows])
        axes.bar_label(bars, fmt="%.3g")
        axes.set(title=title, ylabel="pairs per second of CPU time")
    for precision in reversed(PRECISIONS[1:]):
        drift.plot(scores["float32"], scores[precision] - scores["float32"], ".", markersize=1, label=precision)
    drift.set(title="drift", xlabel="score in float32 (standard deviations)", ylabel="difference to float32")
    drift.legend(markerscale=8)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a reranker")
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, help="use this many first queries of each collection; all by default")
    parser.add_argument("--large_pairs", type=int, default=32, help="pairs that the large model ranks (32)")
    parser.add_argument(
        "--output", type=Path, default=Path("results"), help="folder of the CSV and the plot (results)"
    )
    args = parser.parse_args(argv)
    collections = [read_collection(folder) for folder in args.collections]
    queries = {c.name: list(c.qrels)[: args.queries] for c in collections}
    pairs = [
        (c.queries[query], c.documents[document])
        for c in collections
        for query in queries[c.name]
        for document in c.candidates[query]
    ]

    rows, scores, scale, exact = [], {}, 1.0, []
    for precision in PRECISIONS:
        reranker = Reranker.from_pretrained(args.checkpoint, dtype=precision)
        reranker.score(pairs[:32], progress=False)
        start = time.process_time()
        runs = [rank_collection(reranker, c, queries[c.name])[0] for c in collections]
        seconds = time.process_time() - start
        ranked = [list(scores.values()) for run in runs for scores in run.values()]  # of each query
        found = np.concatenate(ranked)
        if precision == "float32":
            scale, exact = found.std(), ranked
        scores[precision] = found / scale
        drift = np.abs(scores[precision] - scores["float32"])
        measured = {
            c.name: evaluate_run(run, {query: c.qrels[query] for query in queries[c.name]})["MAP"]
            for c, run in zip(collections, runs)
        }
        row = {"precision": precision, "pairs/s": len(pairs) / seconds}
        large = Reranker(large_model(args.checkpoint, precision), reranker.encoder.tokenizer)
        row |= {"768 x 12": pairs_per_second(large, pairs[: args.large_pairs]), "MiB": mebibytes(reranker.model)}
        row |= {"768 x 12 MiB": mebibytes(large.model), "mean drift": drift.mean(), "max drift": drift.max()}
        row["tau"] = np.mean([kendalltau(*both).statistic for both in zip(exact, ranked)])
        row |= {f"MAP {name}": value for name, value in measured.items()}
        row["mean MAP"] = np.mean(list(measured.values()))
        row["MAP drift"] = row["mean MAP"] - rows[0]["mean MAP"] if rows else 0.0
        rows.append(row)

    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / "benchmark_precision.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, scores, args.output / "benchmark_precision.png")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(pairs)} pairs")
    print("| " + " | ".join(rows[0]) + " |\n| --- |" + " ---: |" * (len(rows[0]) - 1))
    for row in rows:
        values = (
            value if isinstance(value, str) else f"{value:.4f}" if "drift" in name or "MAP" in name else f"{value:.3g}"
            for name, value in row.items()
        )
        print("| " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
