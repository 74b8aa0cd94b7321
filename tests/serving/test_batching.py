"""Requests of many clients share batches and get their own scores."""

import random
import threading
from concurrent.futures import CancelledError

import pytest

from modeling_clir.reranker import Reranker
from modeling_clir.serving.batching import Batcher, QueueFullError, StoppingError

from ..helpers import texts
from .servers import wait_for


class Turns:
    """A reranker whose batches wait for `go`; it notes the rows and tokens of each batch."""

    def __init__(self, reranker: Reranker):
        self.__dict__.update(vars(reranker))
        self.reranker, self.turns, self.shapes = reranker, threading.Semaphore(0), []

    def score_batch(self, inputs):
        self.turns.acquire()
        self.shapes.append(tuple(inputs["input_ids"].shape))
        return self.reranker.score_batch(inputs)

    def go(self, batches: int = 10**6):
        self.turns.release(batches)


@pytest.fixture
def turns(reranker):
    return Turns(reranker)


@pytest.fixture
def batcher(turns, request):
    batcher = Batcher(turns, **getattr(request, "param", {}))
    yield batcher
    turns.go()
    batcher.close()


def requests(number: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Draws queries with one to twelve documents each."""
    rng = random.Random(seed)
    return [(query, texts(i + 10, rng.randint(1, 12), 40)) for i, query in enumerate(texts(seed, number, 6))]


def queue_up(batcher, asked):
    """Submits requests; the first one is in the model, the others wait, all tokenized."""
    futures = [batcher.submit(*request) for request in asked]
    wait_for(lambda: len(batcher.jobs) == len(futures))
    return futures


def test_clients_share_batches(batcher, turns):
    asked = requests(30)
    futures = queue_up(batcher, asked)
    turns.go()
    for (query, documents), future in zip(asked, futures):
        expected = turns.reranker.score([(query, document) for document in documents], progress=False)
        scored = future.result(60)
        assert scored.scores == pytest.approx(expected, abs=1e-4)
        assert scored.counts == turns.reranker.counts
    pairs = sum(len(documents) for _, documents in asked)
    assert sum(rows for rows, _ in turns.shapes) == pairs
    assert all(rows == 1 or rows * tokens <= 400 for rows, tokens in turns.shapes)
    alone = sum(-(-len(documents) * 128 // 400) for _, documents in asked)
    assert len(turns.shapes) < alone and batcher.waiting == 0
    assert batcher.metrics.registry.get_sample_value("clir_pairs_total") == pairs
    in_batches = batcher.metrics.registry.get_sample_value("clir_batch_requests_sum")
    assert in_batches > batcher.metrics.registry.get_sample_value("clir_batch_requests_count")


@pytest.mark.parametrize("batcher", [{"exact": True}], indirect=True)
def test_exact_scores_are_those_of_the_reranker_to_the_last_bit(batcher, turns):
    asked = requests(30)
    expected = [turns.reranker.score([(query, text) for text in documents], False) for query, documents in asked]
    turns.go()
    for order in range(3):
        shuffled = random.Random(order).sample(range(30), 30)
        futures = {i: batcher.submit(*asked[i]) for i in shuffled}
        assert [futures[i].result(60).scores for i in range(30)] == expected


def test_the_oldest_request_is_in_every_batch(batcher, turns):
    """A long request and a short one neither wait for all the others."""
    futures = queue_up(batcher, [("a", ["b"]), ("a", ["b " * 90] * 12), *[("a", ["b " * 9])] * 40])
    turns.go(2)
    wait_for(futures[0].done)
    finished = 0
    while not futures[1].done() and finished < 20:
        turns.go(1)
        finished += 1
        wait_for(lambda: len(turns.shapes) == 2 + finished)  # noqa: B023
    assert futures[1].done() and finished <= 12


def test_a_cancelled_request_loses_its_rows(batcher, turns):
    futures = queue_up(batcher, [("a", ["b " * 90] * 12), ("c", ["d " * 90] * 12), ("e", ["f " * 90] * 12)])
    assert batcher.waiting == 36
    assert futures[1].cancel() and batcher.waiting == 24
    turns.go()
    assert len(futures[0].result(60).scores) == len(futures[2].result(60).scores) == 12
    wait_for(lambda: batcher.waiting == 0)
    assert sum(rows for rows, _ in turns.shapes) <= 24 + 3  # the first batch may have had some
    with pytest.raises(CancelledError):
        futures[1].result(0)


@pytest.mark.parametrize("batcher", [{"max_queue": 10}], indirect=True)
def test_the_queue_is_bounded(batcher, turns):
    first = batcher.submit("a", ["b"] * 20)  # larger than the queue, but alone
    with pytest.raises(QueueFullError, match="try again in 1 s") as full:
        batcher.submit("a", ["b"])
    assert full.value.seconds == 1
    batcher.seconds_per_pair = 0.2
    with pytest.raises(QueueFullError, match="try again in 4 s"):
        batcher.submit("a", ["b"])
    turns.go()
    first.result(60)
    wait_for(lambda: batcher.waiting == 0)
    assert len(batcher.submit("a", ["b"] * 10).result(60).scores) == 10


def test_a_fault_fails_its_own_requests_only(batcher, turns):
    turns.go()
    fault = MemoryError("none left")

    def fail(inputs):
        raise fault

    turns.reranker.score_batch = fail
    assert batcher.submit("a", ["b"]).exception(60) is fault
    del turns.reranker.score_batch
    bias = turns.reranker.model.classifier.bias.data
    before = bias.clone()
    bias[:] = float("nan")
    with pytest.raises(ValueError, match="a score is not finite"):
        batcher.submit("a", ["b"]).result(60)
    bias[:] = before
    assert isinstance(batcher.submit("a \ud83d", ["b"]).exception(60), ValueError)
    assert len(batcher.submit("a", ["b"]).result(60).scores) == 1 and batcher.waiting == 0
    assert batcher.submit("a", []).result(60).scores == []


def test_passages_and_document_lengths(tiny_reranker):
    reranker = Reranker.from_pretrained(tiny_reranker, max_length=30, max_query_length=10, long_documents="maxp")
    batcher = Batcher(reranker, exact=True)
    documents = texts(3, 9, 60)
    expected = reranker.score([("Turm", text) for text in documents], progress=False)
    scored = batcher.submit("Turm", documents).result(60)
    assert scored.scores == expected and scored.counts["passages"] > 9
    assert batcher.submit("Turm", documents, 15).result(60).counts["passages"] == 9
    batcher.close()


def test_closing_answers_what_is_there(reranker):
    batcher = Batcher(reranker)
    futures = [batcher.submit(*request) for request in requests(9)]
    batcher.close()
    assert all(future.done() for future in futures) and not batcher.thread.is_alive()
    with pytest.raises(StoppingError):
        batcher.submit("a", ["b"])
