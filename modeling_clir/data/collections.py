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
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers.utils import logging

from .files import find_file, new_folder, read_columns, read_jsonl, refuse_existing
from .runs import Run, check_ids, read_run, write_run


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
            folds = make_folds(self.qrels, seed)
        if not 0 <= fold < len(folds):
            raise ValueError(f"{self.name} has the folds 0 to {len(folds) - 1}, got {fold}")
        if not folds[fold]:
            raise ValueError(f"fold {fold} of {self.name} has no queries: there are too few for {len(folds)} folds")
        development = (fold + 1) % len(folds)
        train = [q for number, ids in enumerate(folds) if number not in (fold, development) for q in ids]
        return train, folds[development], folds[fold]


def read_collection(folder: Path, candidates: Path | None = None) -> Collection:
    """
    Reads and checks a collection folder; `candidates`, a TREC run, takes the place of its `candidates.run`. Raises
    `FileNotFoundError` for a missing folder or file, `ValueError` with file and line for what does not parse, an id
    that occurs twice or has a space, an empty text, an id in qrels, candidates or folds that no document or query has,
    and for a judged query without candidates. Queries without a judgement, and judged ones without a relevant document or in no
    fold, are counted in the log.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; of an id of ir_datasets, or with --source hub of a data set of the Hub, "
            f"one is made by: python scripts/prepare_collection.py FOLDER --queries {folder}"
        )
    documents = {}
    for where, record in read_jsonl(find_file(folder, "documents.jsonl"), required=("id", "text")):
        add_text(documents, "document", record["id"], record["text"], where)
        if record.get("title"):
            documents[record["id"]] = f"{record['title']} {record['text']}"
    queries = read_queries(find_file(folder, "queries.tsv"))

    qrels = defaultdict(dict)
    for where, query, document, relevance in read_qrels(find_file(folder, "qrels.txt")):
        check_ids(query, document, queries, documents, where)
        qrels[query][document] = relevance
    if not qrels:
        raise ValueError(f"{folder}/qrels.txt has no judgement")
    if unjudged := len(queries) - len(qrels):
        logger.warning(f"{folder}: {unjudged} of {len(queries)} queries have no judgement and are not ranked")
    if empty := [query for query, judged in qrels.items() if not any(r > 0 for r in judged.values())]:
        logger.warning(
            f"{folder}: {len(empty)} judged queries have no relevant document, {empty[0]!r} the first; they count 0"
        )

    everything = list(documents)
    ranked = dict.fromkeys(qrels, everything)
    path = candidates or folder / "candidates.run"
    if candidates or path.is_file():
        run = read_run(path, (queries, documents))
        if missing := [query for query in qrels if query not in run]:
            raise ValueError(f"{path} has no document for query {missing[0]!r} ({len(missing)} such)")
        ranked = {query: list(run[query]) for query in qrels}

    folds = read_folds(folder / "folds.json", qrels) if (folder / "folds.json").is_file() else None
    if folds and (left_out := len(qrels) - sum(map(len, folds))):
        logger.warning(f"{folder}/folds.json: {left_out} of {len(qrels)} judged queries are in no fold")
    return Collection(folder.name, documents, queries, dict(qrels), ranked, folds)


def make_folds(queries: Iterable[str], seed: int, number: int = 5) -> list[list[str]]:
    """`number` folds of the queries, in an order that `seed` gives and that theirs does not change."""
    ids = sorted(queries)
    random.Random(seed).shuffle(ids)
    return [ids[i::number] for i in range(number)]


def assign_folds(collections: list[Collection], seed: int):
    """
    Five folds, in place, for the collections that have none. A query id that several of them have, as that of a topic
    in several languages, is in the same fold of each, so none trains on what another tests.
    """
    without = [collection for collection in collections if collection.folds is None]
    folds = make_folds({query for collection in without for query in collection.qrels}, seed)
    for collection in without:
        collection.folds = [[query for query in fold if query in collection.qrels] for fold in folds]


def read_queries(path: Path) -> dict[str, str]:
    """Id to text of a file of queries, checked."""
    queries = {}
    for where, (query, text) in read_columns(path, 2, "\t"):
        add_text(queries, "query", query, text, where)
    return queries


def read_qrels(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """`(where, query, document, relevance)` of each line of TREC qrels, checked."""
    seen = set()
    for where, (query, _, document, relevance) in read_columns(path, 4):
        if not re.fullmatch("-?[0-9]+", relevance):
            raise ValueError(f"{where}: the relevance must be a whole number, got {relevance!r}")
        if (query, document) in seen:
            raise ValueError(f"{where}: document {document!r} is judged twice for query {query!r}")
        seen.add((query, document))
        yield where, query, document, int(relevance)


def read_folds(path: Path, qrels: dict[str, dict[str, int]]) -> list[list[str]]:
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    check_folds(folds, qrels, path)
    return folds


def add_text(texts: dict[str, str], kind: str, key: str, text: str, where: str | Path):
    """Adds a document or query. Raises `ValueError` for one that a collection cannot hold."""
    if key in texts:
        raise ValueError(f"{where}: the {kind} id {key!r} occurs more than once")
    if key.split() != [key]:
        raise ValueError(f"{where}: the {kind} id {key!r} is empty or has a space, which parts the columns of qrels")
    if not text.strip():
        raise ValueError(f"{where}: the {kind} {key!r} has no text")
    texts[key] = text


def check_folds(folds: list[list[str]], qrels: dict[str, dict[str, int]], where: str | Path):
    if not isinstance(folds, list) or not all(isinstance(fold, list) and fold for fold in folds):
        raise ValueError(f"{where}: expected a list of folds, each a list of query ids")
    seen = set()
    for query in (query for fold in folds for query in fold):
        if not isinstance(query, str) or query not in qrels:
            raise ValueError(f"{where}: query {query!r} has no judgement")
        if query in seen:
            raise ValueError(f"{where}: query {query!r} occurs more than once; no query may train and test")
        seen.add(query)


def check_collection(folder: Path, documents: dict[str, str], queries: dict[str, str], *tables: dict[str, dict]):
    """
    Raises `FileExistsError` or `ValueError` for what [`write_collection`] cannot write so that it can be read; `tables`
    are qrels and candidates.
    """
    refuse_existing(folder)
    for kind, texts in (("document", documents), ("query", queries)):
        checked = {}
        for key, text in texts.items():
            add_text(checked, kind, key, text, folder)
    for query, listed in (item for table in tables for item in table.items()):
        for document in listed:
            check_ids(query, document, queries, documents, folder)


def write_collection(
    folder: Path,
    documents: dict[str, str],
    queries: dict[str, str],
    qrels: dict[str, dict[str, int]],
    candidates: Run | None = None,
    folds: list[list[str]] | None = None,
):
    """
    Writes documents, queries and qrels in the format above, and `candidates` and `folds` where they are given, all or
    nothing; the folder must not exist. Raises as [`check_collection`], for a judged query without candidates, and for
    folds with a query that is not judged or that occurs twice.
    """
    check_collection(folder, documents, queries, qrels, candidates or {})
    if candidates is not None and (missing := [query for query in qrels if not candidates.get(query)]):
        raise ValueError(f"{folder}: there are no candidates for query {missing[0]!r} ({len(missing)} such)")
    if folds is not None:
        check_folds(folds, qrels, folder)
    with new_folder(folder) as temporary:
        with open(temporary / "documents.jsonl", "w", encoding="utf-8") as file:
            for document, text in documents.items():
                file.write(json.dumps({"id": document, "text": text}, ensure_ascii=False) + "\n")
        write_queries(temporary, queries, qrels)
        if candidates is not None:
            write_run(candidates, temporary / "candidates.run", tag="candidates")
        if folds is not None:
            (temporary / "folds.json").write_text(json.dumps(folds), encoding="utf-8")


def write_queries(folder: Path, queries: dict[str, str], qrels: dict[str, dict[str, int]]):
    with open(folder / "queries.tsv", "w", encoding="utf-8") as file:
        file.writelines(f"{query}\t{' '.join(text.split())}\n" for query, text in queries.items())
    with open(folder / "qrels.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{q} 0 {document} {r}\n" for q, judged in qrels.items() for document, r in judged.items())


__all__ = [
    "Collection",
    "assign_folds",
    "check_collection",
    "make_folds",
    "read_collection",
    "read_qrels",
    "read_queries",
    "write_collection",
    "write_queries",
]
