"""Reads and writes TREC runs: the ranked documents of each query, with their scores."""

import math
from collections.abc import Container
from pathlib import Path

from .files import new_file, read_columns


Run = dict[str, dict[str, float]]


def ranking(scores: dict[str, float]) -> list[str]:
    """Sorts the documents, best first. Equal scores are ordered by descending id, as in trec_eval."""
    return sorted(scores, key=lambda document: (scores[document], document), reverse=True)


def write_run(run: Run, path: Path, tag: str):
    """Writes a TREC run. Ties are ordered by descending document id, as trec_eval orders them."""
    with new_file(path) as file:
        for query, scores in run.items():
            file.writelines(
                f"{query} Q0 {document} {rank} {scores[document]!r} {tag}\n"
                for rank, document in enumerate(ranking(scores), 1)
            )


def read_run(path: Path, known: tuple[Container[str], Container[str]] | None = None) -> Run:
    """
    Reads a TREC run, plain or `.gz`, in the order of the file. Raises `ValueError` with file and line for another
    number of columns, a document that is listed twice for a query, and a score that is not a finite number. With
    `known`, the ids of `(queries, documents)`, raises it too for an unknown query or document.
    """
    run: Run = {}
    for where, (query, _, document, _, score, _) in read_columns(path, 6):
        if known:
            check_ids(query, document, *known, where)
        listed = run.setdefault(query, {})
        if document in listed:
            raise ValueError(f"{where}: document {document!r} is listed twice for query {query!r}")
        try:
            listed[document] = float(score)
        except ValueError:
            listed[document] = math.nan
        if not math.isfinite(listed[document]):
            raise ValueError(f"{where}: the score must be a finite number, got {score!r}")
    return run


def check_ids(query: str, document: str, queries: Container[str], documents: Container[str], where: str | Path):
    """Raises `ValueError` for an unknown query or document."""
    if query not in queries:
        raise ValueError(f"{where}: no query has the id {query!r}")
    if document not in documents:
        raise ValueError(f"{where}: no document has the id {document!r}")


__all__ = ["Run", "check_ids", "ranking", "read_run", "write_run"]
