"""Joins the requests of many clients into batches of one model."""

import math
import threading
import time
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from transformers.utils import logging

from ..data.pairs import pad_rows, tokens_at_once
from ..reranker import EncodedPairs, Reranker
from .metrics import Metrics


logger = logging.get_logger(__name__)

SAME_LENGTH = 1.25  # rows whose lengths differ by less than this factor share a batch in the order they came
SHARE_OF_NEW = 0.1  # of the last batch, in the mean time of a pair
LONGEST_RETRY = 60  # seconds


class QueueFullError(Exception):
    """Says after how many seconds a client may try again."""

    def __init__(self, seconds: int):
        super().__init__(f"the queue is full: try again in {seconds} s")
        self.seconds = seconds


class StoppingError(Exception):
    pass


@dataclass
class Scored:
    """
    What a request gets: `scores` of its documents in their order, the number of `tokens` of its rows, and `counts` of
    what was cut, see [`EncodedPairs`].
    """

    scores: list[float]
    tokens: int
    counts: dict[str, int]


class Job:
    """The rows of a request, those that are `left` to score longest first, and the scores that are `found`."""

    def __init__(self, encoded: EncodedPairs, future: Future):
        self.encoded, self.future = encoded, future
        self.left = np.argsort(-encoded.lengths, kind="stable")
        self.found = np.zeros(len(encoded.lengths))

    def finish(self):
        """Gives the future the score of each pair, which is the best one of its rows."""
        if not np.isfinite(self.found).all():
            settle(self.future, ValueError("a score is not finite; the checkpoint has NaN weights, or it overflows"))
            return
        scores = np.full(self.encoded.counts["pairs"], -np.inf)
        np.maximum.at(scores, self.encoded.pair_of, self.found)
        settle(self.future, Scored(scores.tolist(), int(self.encoded.lengths.sum()), self.encoded.counts))


def settle(future: Future, result: Scored | Exception):
    """Sets the result or exception of a future that may have been cancelled."""
    with suppress(InvalidStateError):
        (future.set_exception if isinstance(result, Exception) else future.set_result)(result)


class Batcher:
    """
    Scores requests in a thread of its own. A batch has rows of any requests, of similar length, at most
    `reranker.max_tokens_per_batch` tokens. The oldest request has rows in every batch, so none waits forever. A
    request whose future is cancelled loses the rows that are not scored yet.

    Args:
        reranker (`Reranker`): model, tokenizer and lengths.
        max_queue (`int`, defaults to 4096): most pairs that are accepted and not answered. A larger request is
            accepted if there is no other.
        exact (`bool`, defaults to `False`): a batch has rows of one request only. Then the batches are those of
            `Reranker.score`, and the scores equal its scores to the last bit, whatever other clients send. Otherwise
            the other rows of a batch change the rounding.
        metrics (`Metrics`, *optional*): counts pairs and batches.

    Attributes:
        waiting (`int`): pairs that are accepted and not answered.
        stopping (`bool`): refuse new requests.
    """

    def __init__(self, reranker: Reranker, max_queue: int = 4096, exact: bool = False, metrics: Metrics | None = None):
        self.reranker, self.max_queue, self.exact = reranker, max_queue, exact
        self.metrics = metrics or Metrics()
        self.waiting, self.stopping, self.seconds_per_pair = 0, False, 0.0
        self.jobs, self.closed = [], False
        self.changed = threading.Condition()  # guards `waiting`, `jobs` and `closed`
        self.tokenizing = ThreadPoolExecutor(1, "tokenizing")
        self.thread = threading.Thread(target=self.run, name="scoring", daemon=True)
        self.thread.start()

    def submit(self, query: str, documents: list[str], max_document_length: int | None = None) -> Future:
        """
        Puts a request into the queue. Returns a future with a [`Scored`], which may be cancelled.

        Args:
            query (`str`).
            documents (`list[str]`).
            max_document_length (`int`, *optional*): cut longer documents to so many tokens.

        Raises `QueueFullError` and `StoppingError`.
        """
        future, pairs = Future(), [(query, document) for document in documents]
        with self.changed:
            if self.stopping:
                raise StoppingError("the server is stopping")
            if self.waiting and self.waiting + len(pairs) > self.max_queue:
                seconds = math.ceil(self.waiting * self.seconds_per_pair)
                raise QueueFullError(min(max(1, seconds), LONGEST_RETRY))
            self.count_waiting(len(pairs))
        future.add_done_callback(lambda _: self.release(len(pairs)))
        self.tokenizing.submit(self.encode, pairs, max_document_length, future)
        return future

    def count_waiting(self, pairs: int):
        self.waiting += pairs
        self.metrics.queue.set(self.waiting)

    def release(self, pairs: int):
        with self.changed:
            self.count_waiting(-pairs)

    def encode(self, pairs: list[tuple[str, str]], max_document_length: int | None, future: Future):
        if future.done():
            return
        try:
            passages = self.reranker.long_documents == "maxp"
            job = Job(EncodedPairs(self.reranker.encoder, pairs, passages, max_document_length), future)
        except Exception as error:
            settle(future, error)
            return
        if not len(job.left):
            job.finish()
            return
        with self.changed:
            self.jobs.append(job)
            self.changed.notify()

    def next_batch(self) -> list[tuple[Job, np.ndarray]]:
        """Waits for requests. Returns jobs, oldest first, with the places of rows to score; none if it is closed."""
        with self.changed:
            while True:
                self.jobs = [job for job in self.jobs if len(job.left) and not job.future.done()]
                if self.jobs or self.closed:
                    break
                self.changed.wait()
            jobs = self.jobs[:1] if self.exact else list(self.jobs)
        if not jobs:
            return []
        lengths = np.concatenate([job.encoded.lengths[job.left] for job in jobs])
        job_of = np.repeat(np.arange(len(jobs)), [len(job.left) for job in jobs])
        longest = max(1, int(lengths[0]))  # of the oldest job
        shorter = np.log(longest / np.maximum(lengths, 1)) / math.log(SAME_LENGTH)
        shorter[lengths > longest] = np.inf  # their turn comes when their job is the oldest
        order = np.arange(len(lengths)) if self.exact else np.argsort(np.floor(shorter), kind="stable")
        limit = tokens_at_once(self.reranker.model, self.reranker.max_tokens_per_batch)
        rows = order[: max(1, limit // longest)]
        taken = np.zeros(len(lengths), dtype=bool)
        taken[rows[lengths[rows] <= longest]] = True
        batch = []
        for i in np.unique(job_of[taken]):
            job, of_job = jobs[i], taken[job_of == i]
            batch.append((job, job.left[of_job]))
            job.left = job.left[~of_job]
        return batch

    def score(self, batch: list[tuple[Job, np.ndarray]]):
        """Scores a batch, and finishes the jobs that are complete."""
        rows = [row for job, places in batch for row in job.encoded.rows(places)]
        start = time.perf_counter()
        scores = self.reranker.score_batch(pad_rows(self.reranker.encoder.tokenizer, *zip(*rows)))
        seconds = time.perf_counter() - start
        per_pair = seconds / len(rows)
        self.seconds_per_pair += (per_pair - self.seconds_per_pair) * (SHARE_OF_NEW if self.seconds_per_pair else 1)
        self.metrics.model_seconds.inc(seconds)
        self.metrics.batch_rows.observe(len(rows))
        self.metrics.batch_requests.observe(len(batch))
        self.metrics.tokens.inc(sum(len(ids) for ids, _ in rows))
        for (job, places), found in zip(batch, np.split(scores, np.cumsum([len(places) for _, places in batch])[:-1])):
            job.found[places] = found
            if not len(job.left):
                self.metrics.pairs.inc(job.encoded.counts["pairs"])
                job.finish()

    def run(self):
        self.reranker.model.eval()
        while batch := self.next_batch():
            try:
                self.score(batch)
            except Exception as error:  # such as memory that is exhausted: the next batch may fit
                logger.exception("a batch failed")
                for job, _ in batch:
                    settle(job.future, error)

    def close(self):
        """Scores what is left, and ends the threads."""
        self.stopping = True
        self.tokenizing.shutdown()
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()


__all__ = ["Batcher", "QueueFullError", "Scored", "StoppingError"]
