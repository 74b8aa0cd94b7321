#!/usr/bin/env python
"""
Measures the server on loopback, with clients in the same machine.

    python benchmarks/serving.py
    python benchmarks/serving.py --model output/clir-bertlong
    python benchmarks/serving.py --large --seconds 60 --tiny 0

Clients ask for the ranking of ten documents each, one request after the other, for some seconds. A client that got an
answer asks again at once.

- `pairs/s` of `Reranker` is the speed of `Reranker.score` in this process, before and after the clients, on the same
  pairs; `share` is the server's speed over it. `CPU share` is the same in pairs per second of CPU time: other programs
  on the machine hardly change it.
- `p50`, `p95` and `p99` are quantiles of the time of a request, in milliseconds.
- `exact`: the server runs with `--exact`. `difference` is the largest one between a score of the server and of
  `Reranker`, digits as printed.
- memory: the server's resident memory before and after many requests of one short document.
- a kill: 8 clients that try again; the server is killed by SIGKILL when a third is answered, and started again.

The default model is `base/` with a random head, `--large` a random one of multilingual BERT's size.
"""

import argparse
import csv
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from measure import positive, read_texts

from modeling_clir.program import fix_rounding, share_cores


REPOSITORY = Path(__file__).resolve().parents[1]
LARGE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
MAX_QUERY_LENGTH = 64
PARAGRAPHS = 20  # of the sample
TINY = {"query": "a", "documents": ["b"]}
PATIENCE = 120  # seconds that a client tries again


class Client:
    """A connection that stays open."""

    def __init__(self, url: str):
        self.connection = HTTPConnection(urlsplit(url).netloc, timeout=600)

    def ask(self, body: dict) -> dict:
        """Returns the answer. Raises `OSError` for any status but 200."""
        self.connection.request("POST", "/rerank", json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise OSError(f"{answer.status}: {text.decode()}")
        return json.loads(text)

    def ask_again(self, body: dict) -> dict:
        """Asks until there is an answer."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask(body)
            except (OSError, HTTPException, ValueError):
                if time.monotonic() > end:
                    raise
                self.connection.close()
                time.sleep(0.1)


def start(model: Path, *options: str) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "modeling_clir.serve", str(model), "--max_query_length", str(MAX_QUERY_LENGTH)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the server ended with {process.wait()}")
    return process, line.split()[-1]


@contextmanager
def running(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen, str]]:
    process, url = start(model, "--port", "0", *options)
    try:
        yield process, url
    finally:
        process.terminate()
        process.wait()


def make_model(args: argparse.Namespace, folder: Path):
    """Saves the model to measure."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from modeling_clir.loading import load_tokenizer
    from modeling_clir.reranker import Reranker

    torch.manual_seed(args.seed)
    if args.large:
        config = AutoConfig.from_pretrained(REPOSITORY / "base", **LARGE)
        AutoModelForSequenceClassification.from_config(config).float().save_pretrained(folder)
    else:
        reranker = Reranker.from_pretrained(REPOSITORY / "base", new_head=True, max_query_length=MAX_QUERY_LENGTH)
        reranker.model.save_pretrained(folder)
    load_tokenizer(REPOSITORY / "base").save_pretrained(folder)


def make_requests(args: argparse.Namespace) -> list[dict]:
    """Makes requests of `args.documents` documents each. A document has 1 to 12 sentences, drawn from the sample."""
    texts = argparse.Namespace(data=None, source="de", target="en", seed=args.seed)
    queries, paragraphs = read_texts(texts, PARAGRAPHS)
    sentences, rng = ". ".join(paragraphs).split(". "), np.random.default_rng(args.seed)
    return [
        {
            "query": queries[i % len(queries)],
            "documents": [". ".join(rng.choice(sentences, rng.integers(1, 13))) for _ in range(args.documents)],
        }
        for i in range(args.requests)
    ]


def pairs_of(requests: list[dict]) -> list[tuple[str, str]]:
    return [(request["query"], document) for request in requests for document in request["documents"]]


def speed_alone(reranker, requests: list[dict], seconds: float) -> np.ndarray:
    """Returns pairs per second of `Reranker.score`, and per second of CPU time."""
    start, pairs, passed = np.array([time.perf_counter(), time.process_time()]), 0, np.zeros(2)
    while passed[0] < seconds or not pairs:
        pairs += len(reranker.score(pairs_of(requests), progress=False))
        passed = np.array([time.perf_counter(), time.process_time()]) - start
    return pairs / passed


def load(url: str, requests: list[dict], clients: int, seconds: float) -> tuple[float, list[float], list[tuple]]:
    """
    Lets clients ask at the same time. Returns pairs per second, the seconds of each request, and for each request its
    number and answer.
    """
    numbers, times, answers, lock = itertools.cycle(range(len(requests))), [], [], threading.Lock()
    start = time.perf_counter()

    def work(client: Client):
        while time.perf_counter() - start < seconds:
            with lock:
                i = next(numbers)
            asked = time.perf_counter()
            answer = client.ask(requests[i])
            times.append(time.perf_counter() - asked)
            answers.append((i, answer))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, [Client(url) for _ in range(clients)]))
    passed = time.perf_counter() - start
    return sum(len(requests[i]["documents"]) for i, _ in answers) / passed, times, answers


def cpu_seconds(process: subprocess.Popen) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def largest_difference(answers: list[tuple], expected: list[list[float]]) -> float:
    return max(
        abs(hit["relevance_score"] - expected[i][hit["index"]]) for i, answer in answers for hit in answer["results"]
    )


def measure_load(model: Path, requests: list[dict], args: argparse.Namespace) -> list[dict]:
    from modeling_clir.reranker import Reranker

    reranker, rows = Reranker.from_pretrained(model, max_query_length=MAX_QUERY_LENGTH), []
    expected = [reranker.score(pairs_of([request]), progress=False) for request in requests]
    for options in ((), ("--exact",)):
        with running(model, *options) as (process, url):
            load(url, requests, 2, 1)
            for clients in args.clients:
                before = speed_alone(reranker, requests, args.seconds / 2)
                used = cpu_seconds(process)
                speed, times, answers = load(url, requests, clients, args.seconds)
                used = cpu_seconds(process) - used
                alone = (before + speed_alone(reranker, requests, args.seconds / 2)) / 2
                row = {"server": "exact" if options else "joined", "clients": clients, "requests": len(answers)}
                row |= {"pairs/s": speed, "Reranker pairs/s": alone[0], "share": speed / alone[0]}
                row["CPU share"] = len(answers) * args.documents / used / alone[1]
                row |= {f"p{p} ms": 1000 * np.percentile(times, p) for p in (50, 95, 99)}
                row["difference"] = largest_difference(answers, expected)
                rows.append(row)
                show(row)
    return rows


def measure_memory(model: Path, number: int) -> str:
    """Asks `number` tiny requests from 8 clients. Returns a sentence."""
    with running(model) as (process, url):
        clients, server, seen = [Client(url) for _ in range(8)], psutil.Process(process.pid), []
        with ThreadPoolExecutor(8) as pool:
            for part in (1000, number):
                list(pool.map(lambda client, part=part: [client.ask(TINY) for _ in range(part // 8)], clients))
                seen.append(server.memory_info().rss / 2**20)
    return f"memory: {seen[0]:.1f} MiB after 1000 tiny requests, {seen[1]:.1f} MiB after {number} more"


def measure_kill(model: Path, requests: list[dict], number: int) -> str:
    """Kills the server amid `number` requests of 8 clients. Returns a sentence."""
    from modeling_clir.reranker import Reranker

    reranker = Reranker.from_pretrained(model, max_query_length=MAX_QUERY_LENGTH)
    expected = [reranker.score(pairs_of([request]), progress=False) for request in requests]
    process, url = start(model, "--port", "0", "--exact")
    clients, chosen, answers = threading.local(), [i % len(requests) for i in range(number)], []

    def work(i: int):
        if not hasattr(clients, "own"):
            clients.own = Client(url)
        answers.append((i, clients.own.ask_again(requests[i])))

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work, i) for i in chosen]
        while len(answers) < number // 3:
            time.sleep(0.01)
        process.kill()
        process.wait()
        at = len(answers)
        process, _ = start(model, "--port", str(urlsplit(url).port), "--exact")
        lost = sum(future.exception() is not None for future in futures)
    process.terminate()
    process.wait()
    return (
        f"a kill: SIGKILL after {at} of {number} answers; {lost} lost, largest difference "
        f"{largest_difference(answers, expected):g}"
    )


def show(row: dict):
    values = (value if isinstance(value, (str, int)) else f"{value:.3g}" for value in row.values())
    print("| " + " | ".join(map(str, values)) + " |", flush=True)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a reranker; default: base/ with a random head")
    parser.add_argument("--large", action="store_true", help="a random model of multilingual BERT's size")
    parser.add_argument("--clients", type=positive, nargs="+", default=[1, 8, 64], help="clients at once (1 8 64)")
    parser.add_argument("--seconds", type=float, default=20, help="for each number of clients (20)")
    parser.add_argument("--requests", type=positive, default=20, help="different requests (20)")
    parser.add_argument("--documents", type=positive, default=10, help="documents of a request (10)")
    parser.add_argument("--tiny", type=int, default=10_000, help="requests of the memory's measurement; 0: none")
    parser.add_argument("--killed", type=int, default=240, help="requests around the kill; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results"), help="folder of the CSV (results)")
    args = parser.parse_args(argv)

    share_cores()
    fix_rounding()
    import torch

    requests, sentences = make_requests(args), []
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or Path(folder) / "model"
        if not args.model:
            make_model(args, model)
        rows = measure_load(model, requests, args)
        measured: list[tuple[int, Callable[[], str]]] = [
            (args.tiny, lambda: measure_memory(model, args.tiny)),
            (args.killed, lambda: measure_kill(model, requests, args.killed)),
        ]
        for wanted, sentence in measured:
            sentences += [sentence()] if wanted else []
    args.output.mkdir(parents=True, exist_ok=True)
    name = "serving_large" if args.large else "serving"
    with open(args.output / f"benchmark_{name}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print("\n| " + " | ".join(rows[0]) + " |\n| --- |" + " ---: |" * (len(rows[0]) - 1))
    for row in rows:
        show(row)
    print(*sentences, sep="\n")
    tokens = sum(len(text.split()) for _, text in pairs_of(requests)) / len(pairs_of(requests))
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, seed {args.seed}, "
        f"{args.documents} documents a request, {tokens:.0f} words a document"
    )


if __name__ == "__main__":
    main()
