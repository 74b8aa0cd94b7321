"""
A collection for cross-lingual retrieval, a folder:

    documents.jsonl[.gz]   id, text, optional title, a line each
    queries.tsv            id, tab, text
    qrels.txt              TREC: query id, 0, document id, relevance
    candidates.run         optional; TREC run: query id, Q0, document id, rank, score, tag; what is to be reranked
    folds.json             optional; a list of folds, each a list of query ids
"""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from .jsonl import find_file, open_text, read_jsonl


logger = logging.get_logger(__name__)


@dataclass
class Collection:
    """
    Attributes:
        name (`str`): the folder's name, by custom query language-document language (`en-de`).
        documents (`dict[str, str]`): id to text; a title stands before it.
        queries (`dict[str, str]`): id to text.
        qrels (`dict[str, dict[str, int]]`): query id to document id to relevance; relevant is > 0.
        candidates (`dict[str, list[str]]`): query id to the documents to rank: of `candidates.run`, else all
        documents.
        folds (`list[list[str]]`, *optional*): query ids.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    candidates: dict[str, list[str]]
    folds: list[list[str]] | None = None

    def split(self, fold: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
        """
        Training, development and test queries where `fold` is the test fold: the next one is for development, the
        others for training. Without `folds.json` five folds are made by `seed`.
        """
        folds = self.folds
        if folds is None:
            ids = sorted(self.qrels)
            random.Random(seed).shuffle(ids)
            folds = [ids[i::5] for i in range(5)]
        if not 0 <= fold < len(folds):
            raise ValueError(f"{self.name} has the folds 0 to {len(folds) - 1}, got {fold}")
        development = (fold + 1) % len(folds)
        train = [q for number, ids in enumerate(folds) if number not in (fold, development) for q in ids]
        return train, folds[development], folds[fold]


def read_collection(folder: Path) -> Collection:
    """
    Reads and checks a collection folder. Raises `FileNotFoundError` for a missing file, `ValueError` with file and
    line for what does not parse, an id that occurs twice, an empty text, and an id in qrels, candidates or folds that
    no document or query has. Queries without a judgement, and judged ones without a relevant document, are counted in
    the log.
    """
    documents = {}
    for where, record in read_jsonl(find_file(folder, "documents.jsonl"), required=("id", "text")):
        if record["id"] in documents:
            raise ValueError(f"{where}: the document id {record['id']!r} occurs more than once")
        if not record["text"].strip():
            raise ValueError(f"{where}: the document {record['id']!r} has no text")
        documents[record["id"]] = " ".join(filter(None, [record.get("title"), record["text"]]))

    queries = {}
    for where, (query, text) in read_columns(find_file(folder, "queries.tsv"), 2, "\t"):
        if query in queries:
            raise ValueError(f"{where}: the query id {query!r} occurs more than once")
        if not text.strip():
            raise ValueError(f"{where}: the query {query!r} has no text")
        queries[query] = text

    def known(where, query, document):
        if query not in queries:
            raise ValueError(f"{where}: no query has the id {query!r}")
        if document not in documents:
            raise ValueError(f"{where}: no document has the id {document!r}")

    qrels = defaultdict(dict)
    for where, (query, _, document, relevance) in read_columns(find_file(folder, "qrels.txt"), 4):
        known(where, query, document)
        if not relevance.lstrip("-").isdigit():
            raise ValueError(f"{where}: the relevance must be a whole number, got {relevance!r}")
        if document in qrels[query]:
            raise ValueError(f"{where}: document {document!r} is judged twice for query {query!r}")
        qrels[query][document] = int(relevance)
    if unjudged := len(queries) - len(qrels):
        logger.warning(f"{folder}: {unjudged} of {len(queries)} queries have no judgement and are not ranked")
    if empty := sum(not any(r > 0 for r in judged.values()) for judged in qrels.values()):
        logger.warning(f"{folder}: {empty} judged queries have no relevant document")

    candidates = {query: list(documents) for query in qrels}
    if (folder / "candidates.run").is_file():
        candidates = {query: [] for query in qrels}
        for where, (query, _, document, _, _, _) in read_columns(folder / "candidates.run", 6):
            known(where, query, document)
            if query in candidates:
                candidates[query].append(document)
        if missing := [query for query in candidates if not candidates[query]]:
            raise ValueError(f"{folder}/candidates.run has no document for query {missing[0]!r} ({len(missing)} such)")

    folds = None
    if (folder / "folds.json").is_file():
        with open(folder / "folds.json", encoding="utf-8") as file:
            folds = json.load(file)
        for query in (query for fold in folds for query in fold):
            if query not in qrels:
                raise ValueError(f"{folder}/folds.json: query {query!r} has no judgement")
    return Collection(folder.name, documents, queries, dict(qrels), candidates, folds)


def read_columns(path: Path, number: int, separator: str | None = None):
    """`(where, columns)` of each line. Raises `ValueError` for a line with another number of columns."""
    with open_text(path) as file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            columns = line.rstrip("\r\n").split(separator, number - 1 if separator else -1)
            if len(columns) != number:
                raise ValueError(f"{path}:{line_number}: expected {number} columns, got {len(columns)}")
            yield f"{path}:{line_number}", columns


def write_collection(
    folder: Path, documents: dict[str, str], queries: dict[str, str], qrels: dict[str, dict[str, int]]
):
    """Writes documents, queries and qrels in the format above; the folder must not exist."""
    folder.mkdir(parents=True)
    with open(folder / "documents.jsonl", "w", encoding="utf-8") as file:
        for document, text in documents.items():
            file.write(json.dumps({"id": document, "text": text}, ensure_ascii=False) + "\n")
    with open(folder / "queries.tsv", "w", encoding="utf-8") as file:
        file.writelines(f"{query}\t{' '.join(text.split())}\n" for query, text in queries.items())
    with open(folder / "qrels.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{q} 0 {document} {r}\n" for q, judged in qrels.items() for document, r in judged.items())


__all__ = ["Collection", "read_collection", "read_columns", "write_collection"]
