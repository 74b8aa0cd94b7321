#!/usr/bin/env python
"""
Compares a reranker in torch with its exports to ONNX and OpenVINO on a CPU: size, speed, scores, MAP.

    OMP_NUM_THREADS=1 python benchmarks/export.py CHECKPOINT COLLECTIONS...

- `pairs/s` are pairs per second of CPU time, tokenization included.
- `768 x 4` is the speed of 4 layers of multilingual BERT's size with random weights, on the first pairs.
- `MiB` is the size of the weights, or of the export's files.
- `drift` is the difference from the score in float32, in standard deviations of the float32 scores.
- `tau` is Kendall's tau between the ranking and the float32 ranking, mean over the queries.
- `gate`: a way in int8 passes if tau is at least 0.95 and the mean MAP is within 0.005 of float32's.
- The second table is the CPU time of a row for 1000 of its tokens, at several lengths, of the 768 x 4 model: constant
  if the cost is linear in the length. With `--large_pairs 0` it is the checkpoint's.

Exits with code 1 if no int8 export passes the gate.
"""

import csv
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir
import torch
from precision import mebibytes, pairs_per_second
from scipy.stats import kendalltau
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from modeling_clir.data.collections import Collection, read_collection
from modeling_clir.evaluation.ranking import evaluate_run, rank_collection
from modeling_clir.export import export, quantize, random_inputs, save, save_openvino
from modeling_clir.exported import ONNX
from modeling_clir.program import Parser
from modeling_clir.reranker import Reranker


LEAST_TAU, MOST_MAP_DRIFT = 0.95, 0.005
LENGTHS = (128, 256, 512, 1024, 2048)
LARGE = {"hidden_size": 768, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 3072}
# Name to how Reranker.from_pretrained opens it: the folder of the weights or of an export, and options.
WAYS = {
    "torch float32": ("checkpoint", {}),
    "torch bfloat16": ("checkpoint", {"dtype": "bfloat16"}),
    "torch int8": ("checkpoint", {"dtype": "int8"}),
    "ONNX float32": ("float32", {}),
    "ONNX int8": ("int8", {}),
    "OpenVINO float32": ("float32", {"backend": "openvino"}),
    "OpenVINO int8": ("int8", {"backend": "openvino"}),
}


def export_all(checkpoint: str, folder: Path) -> dict[str, Path]:
    """Exports a checkpoint, quantizes the export (as `--int8` does), and returns the folders of `WAYS`."""
    exact, int8 = folder / "float32", folder / "int8"
    export(checkpoint, exact, openvino=True)
    shutil.copytree(exact, int8)
    save(quantize(onnx_ir.load(exact / ONNX)), int8 / ONNX)
    save_openvino(int8)
    return {"checkpoint": Path(checkpoint), "float32": exact, "int8": int8}


def large_checkpoint(checkpoint: str, folder: Path) -> Path:
    """Writes 4 layers of multilingual BERT's size with random weights, of the checkpoint's family and vocabulary."""
    config = AutoConfig.from_pretrained(checkpoint, **LARGE)
    config.max_position_embeddings = max(config.max_position_embeddings, LENGTHS[-1])
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint, model_max_length=LENGTHS[-1]).save_pretrained(folder)
    return folder


def size(way: str, folder: Path, reranker: Reranker) -> float:
    if way.startswith("torch"):
        return mebibytes(reranker.model)
    files = folder.glob("openvino_model.*" if way.startswith("OpenVINO") else "model.onnx*")
    return sum(path.stat().st_size for path in files) / 2**20


def growth(reranker: Reranker) -> dict[str, float]:
    """Seconds of CPU time per 1000 tokens of rows of `LENGTHS` with a query of 20 tokens."""
    found = {}
    for length in (length for length in LENGTHS if length <= reranker.encoder.max_length):
        shape, vocabulary = (1, length), reranker.model.config.vocab_size
        inputs = random_inputs(reranker.encoder.tokenizer.model_input_names, shape, vocabulary)
        if "token_type_ids" in inputs:
            inputs["token_type_ids"] = (torch.arange(length) >= 20).long()[None]
        seconds = []
        with torch.inference_mode():
            for _ in range(3):
                start = time.process_time()
                reranker.model(**inputs)
                seconds.append(time.process_time() - start)
        found[str(length)] = min(seconds) / length * 1000
    return found


def compare(args, collections: list[Collection], folder: Path) -> tuple[list[dict], list[dict]]:
    """Measures every way. Returns the rows of both tables."""
    pairs = [
        (c.queries[query], c.documents[document])
        for c in collections
        for query in list(c.qrels)[: args.queries]
        for document in c.candidates[query]
    ]
    folders = export_all(args.checkpoint, folder)
    large = folders
    if args.large_pairs:
        large = export_all(str(large_checkpoint(args.checkpoint, folder / "large")), folder / "exports")
    rows, lengths, exact = [], [], []
    for way, (where, options) in WAYS.items():
        reranker = Reranker.from_pretrained(folders[where], **options)
        reranker.score(pairs[:32], progress=False)
        start = time.process_time()
        runs = [rank_collection(reranker, c, list(c.qrels)[: args.queries])[0] for c in collections]
        seconds = time.process_time() - start
        ranked = [np.array(list(scores.values())) for run in runs for scores in run.values()]  # of each query
        exact = exact or ranked
        drift = np.abs(np.concatenate(ranked) - np.concatenate(exact)) / np.concatenate(exact).std()
        measured = [
            evaluate_run(run, {query: c.qrels[query] for query in run})["MAP"] for c, run in zip(collections, runs)
        ]
        row = {"way": way, "pairs/s": len(pairs) / seconds, "MiB": size(way, folders[where], reranker)}
        of_large = Reranker.from_pretrained(large[where], **options)
        if args.large_pairs:
            row["768 x 4"] = pairs_per_second(of_large, pairs[: args.large_pairs])
            row["768 x 4 MiB"] = size(way, large[where], of_large)
        row |= {"mean drift": drift.mean(), "max drift": drift.max()}
        row["tau"] = np.mean([kendalltau(*both).statistic for both in zip(exact, ranked)])
        row["MAP"] = np.mean(measured)
        row["gate"] = ""
        if "int8" in way:
            passes = row["tau"] >= LEAST_TAU and abs(row["MAP"] - rows[0]["MAP"]) <= MOST_MAP_DRIFT
            row["gate"] = "pass" if passes else "fail"
        rows.append(row)
        if way in ("torch float32", "ONNX float32", "ONNX int8"):
            lengths.append({"way": way} | growth(of_large))
    return rows, lengths


def show(rows: list[dict]):
    print("| " + " | ".join(rows[0]) + " |\n| --- |" + " ---: |" * (len(rows[0]) - 1))
    for row in rows:
        values = (f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values())
        print("| " + " | ".join(values) + " |")


def main(argv: list[str] | None = None):
    parser = Parser(description=__doc__)
    parser.add_argument("checkpoint", help="a reranker")
    parser.add_argument("collections", type=Path, nargs="+")
    parser.add_argument("--queries", type=int, help="use this many first queries of each collection; all by default")
    parser.add_argument(
        "--large_pairs", type=int, default=16, help="pairs that the large model ranks (16; 0 leaves it out)"
    )
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the CSV (results)")
    args = parser.parse_args(argv)
    collections = [read_collection(folder) for folder in args.collections]
    with TemporaryDirectory() as folder:
        rows, lengths = compare(args, collections, Path(folder))
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / "benchmark_export.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(collections)} collections\n")
    show(rows)
    print("\nseconds per 1000 tokens of a row, by its length\n")
    show(lengths)
    passed = [row["way"] for row in rows if row["gate"] == "pass" and not row["way"].startswith("torch")]
    print(f"\nint8 gate (tau >= {LEAST_TAU}, MAP within {MOST_MAP_DRIFT}): {', '.join(passed) or 'no export'} passes")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
