#!/usr/bin/env python
"""
Measures what a large corpus costs the processes of a training: memory, and the time to the first batch.

    python benchmarks/corpus.py --sections 1000000 --processes 1 4

Writes a synthetic corpus with half of the sections in each of two languages, and one of 86 sections. Starts N processes
of one group (gloo) that read it as `run_pretraining.py` does, without a model, up to `--batches` batches. The corpus is
read with an empty cache (cold) and again (warm). Memory is that of one process, the mean of N, after the last batch:
USS (what it has alone), PSS (shared pages divided by who shares them), `anonymous` (what the system cannot take back: USS
without mapped files). `extra` columns are the difference to the corpus of 86 sections. With `--workers`, PSS is that of a
process and its workers. Seconds are those of the slowest process.

`--code FOLDER ...` measures other checkouts of the project beside this one. Runs on Linux.
"""

import argparse
import csv
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


REPOSITORY = Path(__file__).resolve().parents[1]
SMALL, BATCH, NEGATIVES = 86, 8, 5
TEXT, SENTENCE, VOCABULARY = 1000, 12, 20_000  # characters of a section; words of a sentence; words


def write_synthetic(folder: Path, sections: int, seed: int = 0):
    """Writes a corpus: section i of `en` and `de` are aligned, and list `NEGATIVES` random sections."""
    from modeling_clir.data.corpus_files import write_pairs, write_sections  # other checkouts may have none

    rng, number = random.Random(seed), sections // 2
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    sentences = [" ".join(rng.choices(words, k=SENTENCE)).capitalize() + "." for _ in range(50_000)]
    stock = " ".join(sentences)

    def text() -> str:
        start = rng.randrange(len(stock) - TEXT)
        return stock[start : start + TEXT]

    for language in ("en", "de"):
        rows = ((f"{language}:{i}", language, f"{i // 5}", f"Title {i}", "", text()) for i in range(number))
        write_sections(folder / f"sections/{language}.parquet", rows)

    def listed(language: str) -> list[str]:
        return [f"{language}:{rng.randrange(number)}" for _ in range(NEGATIVES)]

    rows = ((f"en:{i}", f"de:{i}", listed("en"), listed("de")) for i in range(number))
    write_pairs(folder / "pairs/en-de/train.parquet", rows)


def memory(process: psutil.Process) -> dict[str, float]:
    """Returns USS, PSS and anonymous memory in MB. With workers, PSS is that of all."""
    info = process.memory_full_info()
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    anonymous = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) * 1024
    workers = process.children(recursive=True)
    pss = info.pss + sum(child.memory_full_info().pss for child in workers)
    return {name: value / 1e6 for name, value in (("uss", info.uss), ("pss", pss), ("anonymous", anonymous))}


def read_corpus(corpus: str, batches: int, workers: int) -> dict[str, float]:
    """One process of a training: reads `batches` batches. Returns seconds to the first one, and memory at the end."""
    import torch
    import torch.distributed
    from torch.utils.data import DataLoader

    from modeling_clir.data.sections import PretrainingDataset
    from modeling_clir.training.samplers import TaskBatchSampler

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    processes, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    torch.distributed.barrier()
    start = time.perf_counter()
    dataset = PretrainingDataset(corpus, {"qlm": ["en-de"], "rr": ["en-de"]})
    sampler = TaskBatchSampler(dataset.sizes, BATCH, processes, rank)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=list, num_workers=workers)
    found, seconds = {}, None
    for number, batch in zip(range(batches), loader):
        found[number] = len(batch)
        seconds = seconds or time.perf_counter() - start
        if number == min(batches, len(sampler)) - 1:
            torch.distributed.barrier()
            result = {"seconds": seconds, **memory(psutil.Process())}
            torch.distributed.barrier()
    return result


def run_processes(code: Path, corpus: Path, cache: Path, processes: int, batches: int, workers: int) -> dict:
    """Starts the processes on the code of a checkout. Returns the slowest time and the mean memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = []
    for rank in range(processes):
        environment = os.environ | group | {"RANK": str(rank), "PYTHONPATH": str(code)}
        environment |= {"HF_DATASETS_CACHE": str(cache), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, __file__, "--read", str(corpus), "--batches", str(batches)]
        command += ["--workers", str(workers)]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    results = []
    for process in started:
        output, _ = process.communicate()
        if process.returncode:
            sys.exit(f"error: a process on {code} ended with {process.returncode}")
        results.append(json.loads(output.splitlines()[-1]))
    means = {name: sum(result[name] for result in results) / processes for name in ("uss", "pss", "anonymous")}
    return {"seconds": max(result["seconds"] for result in results), **means}


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=int, default=1_000_000, help="of both languages (1,000,000)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--workers", type=int, default=0, help="of the data loader of each process (0)")
    parser.add_argument(
        "--batches", type=int, default=100, help=f"of {BATCH} examples, read before memory is taken (100)"
    )
    parser.add_argument("--code", type=Path, nargs="*", default=[], help="other checkouts, measured first")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results", help="folder of benchmark_corpus.csv")
    parser.add_argument("--read", metavar="CORPUS", help=argparse.SUPPRESS)  # what a process is started with
    args = parser.parse_args(argv)
    if args.read:
        print(json.dumps(read_corpus(args.read, args.batches, args.workers)))
        return
    from measure import markdown

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for sections in (SMALL, args.sections):
            start = time.perf_counter()
            write_synthetic(Path(temporary, str(sections)), sections)
            print(f"{sections} sections written in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        for code in [*args.code, REPOSITORY]:
            for processes in args.processes:
                small = {}
                for sections in (SMALL, args.sections):
                    with tempfile.TemporaryDirectory() as cache:
                        for state in ("cold", "warm"):
                            corpus = Path(temporary, str(sections))
                            options = (processes, args.batches, args.workers)
                            found = run_processes(code.resolve(), corpus, Path(cache), *options)
                            reference = small.setdefault(state, found)
                            row = {"code": code.resolve().name, "processes": processes, "workers": args.workers}
                            row |= {"sections": sections, "cache": state}
                            for name, value in found.items():
                                unit, form = ("", "{:.1f}") if name == "seconds" else ("_mb", "{:.0f}")
                                row[name + unit] = form.format(value)
                                row[f"extra_{name}{unit}"] = form.format(value - reference[name])
                            rows.append(row)
                            print(row, file=sys.stderr)
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / "benchmark_corpus.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(markdown(rows, "cpu"))


if __name__ == "__main__":
    main()
