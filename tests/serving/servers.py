"""Starts servers for tests, and asks them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from modeling_clir.serve import bind
from modeling_clir.serving.app import make_app
from modeling_clir.serving.batching import Batcher
from modeling_clir.serving.server import Server

from ..conftest import REPOSITORY


def ask(url: str, body=None, path: str = "/rerank", **headers: str) -> tuple[int, dict, dict]:
    """Posts `body` (gets `path` without one). Returns status, answer and headers."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
        connection.request("GET" if body is None else "POST", path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(text) if is_json else text, dict(answer.headers)
    finally:
        connection.close()


def in_background(function, *args, **options) -> Future:
    """Calls a function in a thread of its own."""
    future = Future()

    def call():
        try:
            future.set_result(function(*args, **options))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


def start(model, *options) -> tuple[subprocess.Popen, str]:
    """Starts the program. Returns its process and address as soon as it serves."""
    command = [sys.executable, "-m", "modeling_clir.serve", model, "--port", "0", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, env=environment, stdout=-1, text=True)
    line = process.stdout.readline()
    assert line.startswith("serving "), line
    return process, line.split()[-1]


@contextmanager
def running(model, *options) -> Iterator[str]:
    """Starts the program, gives its address, and stops it."""
    process, url = start(model, *options)
    try:
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()


class Here:
    """A server in this process whose model scores a batch only after a call of `go`."""

    def __init__(self, reranker, max_queue: int = 4096, exact: bool = False, **options):
        self.reranker, self.scored = reranker, []  # rows of each batch
        self.turns = threading.Semaphore(0)
        score = type(reranker).score_batch

        def score_at_turn(inputs):
            self.turns.acquire()
            self.scored.append(len(inputs["input_ids"]))
            return score(reranker, inputs)

        reranker.score_batch = score_at_turn
        self.batcher = Batcher(reranker, max_queue, exact)
        listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.server = Server(make_app(self.batcher, "tiny", **options), self.batcher, "ready")
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()
        wait_for(lambda: self.server.started)

    def go(self, batches: int = 10**6):
        self.turns.release(batches)

    def stop(self):
        self.server.handle_exit(signal.SIGTERM, None)

    def close(self):
        self.go()
        self.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()
        del self.reranker.score_batch


def wait_for(condition, seconds: float = 30):
    """Waits until a condition is true."""
    event = threading.Event()
    for _ in range(int(seconds * 100)):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError(f"not after {seconds} s")


def half_a_request(url: str, body: bytes, missing: int = 0) -> socket.socket:
    """Sends a request, all but the last `missing` bytes of its body; reads no answer."""
    connection = socket.create_connection(("127.0.0.1", urlsplit(url).port))
    head = f"POST /rerank HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) - missing])
    return connection
