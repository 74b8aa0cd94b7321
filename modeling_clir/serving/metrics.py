"""The numbers that `/metrics` shows."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts requests, pairs, tokens and batches of a server. Threads may share it."""

    def __init__(self):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "clir_requests",
            "Answered requests. Status 499: the client went away.",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "clir_request_seconds", "Time of a request.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.pairs = Counter("clir_pairs", "Scored pairs.", registry=self.registry)
        self.tokens = Counter("clir_tokens", "Tokens of scored rows, padding not counted.", registry=self.registry)
        self.batch_rows = Histogram("clir_batch_rows", "Rows of a batch.", buckets=ROWS, registry=self.registry)
        self.batch_requests = Histogram(
            "clir_batch_requests", "Requests that share a batch.", buckets=ROWS, registry=self.registry
        )
        self.model_seconds = Counter("clir_model_seconds", "Time that the model took.", registry=self.registry)
        self.queue = Gauge(
            "clir_queue_pairs", "Pairs that were accepted and are not answered.", registry=self.registry
        )

    def text(self) -> bytes:
        """Returns all numbers in Prometheus' text format."""
        return generate_latest(self.registry)


__all__ = ["Metrics"]
