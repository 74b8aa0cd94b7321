"""
A collection for cross-lingual retrieval is a folder. Each file may be plain or `.gz`:

    documents.jsonl   a line per document: id, text, optional title
    queries.tsv       query id, tab, text
    qrels.txt         TREC qrels: query id, 0, document id, relevance
    candidates.run    optional; TREC run to rerank: query id, Q0, document id, rank, score, tag
    teacher.run       optional; TREC run with the scores of a teacher, for --rr_loss margin_mse and kl
    folds.json        optional; a list of folds, each a list of query ids
"""

import json
import logging
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..names import missing_path
from .files import (
    check_text,
    find_file,
    find_optional,
    folder_name,
    lookalikes,
    new_folder,
    read_columns,
    read_json,
    read_jsonl,
    refuse_existing,
)
from .runs import Run, check_ids, read_run, write_run


logger = logging.getLogger(__name__)

FILES = ("documents.jsonl", "queries.tsv", "qrels.txt", "candidates.run", "teacher.run", "folds.json")


@dataclass
class Collection:
    """
    Attributes:
        name (`str`): the folder's name, usually query language-document language (`en-de`).
        documents (`dict[str, str]`): id to text, with the title in front.
        queries (`dict[str, str]`): id to text.
        qrels (`dict[str, dict[str, int]]`): query id to document id to relevance; above 0 is relevant.
        candidates (`dict[str, list[str]]`): id of each judged query to the ids of the documents to rank, in the order
            of `candidates.run`. Without a run all documents are candidates.
        first_stage (`dict[str, dict[str, float]]`, *optional*): id of each judged query to the candidates' scores in
            `candidates.run`; `None` without a run.
        folds (`list[list[str]]`, *optional*): query ids.
        teacher (`dict[str, dict[str, float]]`, *optional*): id of each judged query to the teacher's scores of
            documents in `teacher.run`; `None` without a run.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    candidates: dict[str, list[str]]
    folds: list[list[str]] | None = None
    first_stage: Run | None = None
    teacher: Run | None = None

    def split(self, fold: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
        """
        Gives the training, development and test queries if `fold` is the test fold. The next fold is for development,
        the others for training. Without `folds.json`, `seed` makes five folds. Raises `ValueError` for an unknown or
        empty fold.
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


def check_folder(folder: Path):
    """Raises `FileNotFoundError` if there is no such folder; names the nearest one, or how to make a collection."""
    if not folder.is_dir():
        reason = missing_path(folder)
        if "did you mean" not in reason:
            reason += (
                "; to make a collection from an id of ir_datasets, or with --source hub from a data set of the Hub: "
            )
            reason += f"python scripts/prepare_collection.py FOLDER --queries {folder}"
        raise FileNotFoundError(reason)


def check_teacher(folder: Path):
    """Raises `FileNotFoundError` if there is no such folder, or if it has no `teacher.run`."""
    check_folder(folder)
    if find_optional(folder, "teacher.run") is None:
        raise FileNotFoundError(
            f"{folder} has no teacher.run, the scores that --rr_loss margin_mse and kl train on: write them with "
            f"python scripts/first_stage.py {folder} --teacher_model MODEL"
        )


def read_collection(folder: Path, candidates: Path | None = None) -> Collection:
    """
    Reads and checks a collection folder.

    Args:
        folder (`Path`).
        candidates (`Path`, *optional*): a TREC run that replaces the folder's `candidates.run`.

    Raises `FileNotFoundError` for a missing folder or file. Raises `ValueError` with file and line for

    - a file that exists twice (plain and `.gz`), and a line that does not parse;
    - an id that occurs twice or has a space, and an empty text;
    - an id in qrels, candidates or folds that no document or query has;
    - candidates without a document for any judged query.

    Logs as warnings: files that resemble those of a collection but are not read; the number of queries that are not
    judged, or have no relevant document, no candidates or no fold.
    """
    check_folder(folder)
    if unused := lookalikes(folder, FILES):
        logger.warning(f"{folder}: not read: {', '.join(unused)}; a collection has {', '.join(FILES)} (plain or .gz)")
    documents = {}
    for where, record in read_jsonl(find_file(folder, "documents.jsonl"), required=("id", "text")):
        add_text(documents, "document", record["id"], record["text"], where)
        if record.get("title"):
            documents[record["id"]] = f"{record['title']} {record['text']}"
    queries = read_queries(find_file(folder, "queries.tsv"))

    qrels = defaultdict(dict)
    path = find_file(folder, "qrels.txt")
    for where, query, document, relevance in read_qrels(path):
        check_ids(query, document, queries, documents, where)
        qrels[query][document] = relevance
    if not qrels:
        raise ValueError(f"{path} has no judgement")
    if unjudged := len(queries) - len(qrels):
        logger.warning(f"{folder}: {unjudged} of {len(queries)} queries have no judgement and are not ranked")
    if empty := [query for query, judged in qrels.items() if not any(r > 0 for r in judged.values())]:
        logger.warning(
            f"{folder}: {len(empty)} judged queries have no relevant document, {empty[0]!r} the first; they count 0"
        )

    first_stage = None
    path = candidates or find_optional(folder, "candidates.run")
    if path:
        run = read_run(path, (queries, documents))
        first_stage = {query: run.get(query, {}) for query in qrels}
        check_candidates(first_stage, path)
        ranked = {query: list(scores) for query, scores in first_stage.items()}
    else:
        everything = list(documents)
        ranked = dict.fromkeys(qrels, everything)

    teacher = None
    if path := find_optional(folder, "teacher.run"):
        run = read_run(path, (queries, documents))
        teacher = {query: run.get(query, {}) for query in qrels}

    folds = None
    if path := find_optional(folder, "folds.json"):
        folds = read_json(path)
        check_folds(folds, qrels, path)
        if left_out := len(qrels) - sum(map(len, folds)):
            logger.warning(f"{path}: {left_out} of {len(qrels)} judged queries are in no fold")
    return Collection(folder_name(folder), documents, queries, dict(qrels), ranked, folds, first_stage, teacher)


def count_pairs(collections: list[Collection]):
    """Logs as warnings how many pairs are to rank in collections without `candidates.run`."""
    for collection in collections:
        if collection.first_stage is None:
            queries, documents = len(collection.qrels), len(collection.documents)
            logger.warning(
                f"{collection.name} has no candidates.run: {queries} judged queries with all {documents} documents "
                f"each are {queries * documents} pairs to rank"
            )


def make_folds(queries: Iterable[str], seed: int, number: int = 5) -> list[list[str]]:
    """Parts the queries into `number` folds. Depends on `seed`, not on the order of the queries."""
    ids = sorted(queries)
    random.Random(seed).shuffle(ids)
    return [ids[i::number] for i in range(number)]


def assign_folds(collections: list[Collection], seed: int):
    """
    Makes five folds, in place, for the collections without folds. A query id that several collections have (a topic in
    several languages) is in the same fold of each, so no collection trains on what another tests.
    """
    without = [collection for collection in collections if collection.folds is None]
    folds = make_folds({query for collection in without for query in collection.qrels}, seed)
    for collection in without:
        collection.folds = [[query for query in fold if query in collection.qrels] for fold in folds]


def read_queries(path: Path) -> dict[str, str]:
    """
    Reads a file of queries, plain or `.gz`: id to text. Raises `ValueError` with file and line for an id that occurs
    twice, is empty or has a space, and for an empty text.
    """
    queries = {}
    for where, (query, text) in read_columns(path, 2, "\t"):
        add_text(queries, "query", query, text, where)
    return queries


def read_qrels(path: Path) -> Iterator[tuple[str, str, str, int]]:
    """
    Yields `(where, query, document, relevance)` for each line of TREC qrels, plain or `.gz`. Raises `ValueError` with
    file and line for a relevance that is not a whole number, and for a document that is judged twice for a query.
    """
    seen = set()
    for where, (query, _, document, relevance) in read_columns(path, 4):
        if not re.fullmatch("-?[0-9]+", relevance):
            raise ValueError(f"{where}: the relevance must be a whole number, got {relevance!r}")
        if (query, document) in seen:
            raise ValueError(f"{where}: document {document!r} is judged twice for query {query!r}")
        seen.add((query, document))
        yield where, query, document, int(relevance)


def add_text(texts: dict[str, str], kind: str, key: str, text: str, where: str | Path):
    """
    Adds a document or query. Raises `ValueError` if a collection cannot hold it: an id that occurs twice, is empty or
    has a space; an empty text, or one with a NUL character or lone surrogate.
    """
    if key in texts:
        raise ValueError(f"{where}: the {kind} id {key!r} occurs more than once")
    if key.split() != [key]:
        raise ValueError(f"{where}: the {kind} id {key!r} is empty or has a space, which separates columns in qrels")
    if not text.strip():
        raise ValueError(f"{where}: the {kind} {key!r} has no text")
    check_text(key + text, f"{where}: {kind} {key!a}")
    texts[key] = text


def check_candidates(candidates: dict[str, list[str] | dict], where: str | Path):
    """
    Counts judged queries without candidates in the log: they count 0. Raises `ValueError` if no query has any.
    """
    if missing := [query for query, listed in candidates.items() if not listed]:
        if len(missing) == len(candidates):
            raise ValueError(f"{where} has no document for any judged query: do they belong together?")
        logger.warning(
            f"{where}: {len(missing)} of {len(candidates)} judged queries have no candidates, {missing[0]!r} the "
            "first; they count 0"
        )


def check_folds(folds: list[list[str]], qrels: dict[str, dict[str, int]], where: str | Path):
    """
    Raises `ValueError` unless `folds` is a list of lists of judged query ids, none of them twice.
    """
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
    Raises `FileExistsError` if `folder` exists, and `ValueError` for texts and ids that [`read_collection`] would
    refuse. `tables` are qrels and candidates.
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
    Writes a collection folder, all or nothing, with `candidates.run` and `folds.json` if they are given. Line ends and
    tabs in queries become spaces. Judged queries without candidates are counted in the log.

    Raises the errors of [`check_collection`], and `ValueError` for folds with a query that is not judged or occurs
    twice.
    """
    check_collection(folder, documents, queries, qrels, candidates or {})
    if candidates is not None:
        check_candidates({query: candidates.get(query, {}) for query in qrels}, folder)
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
    """Writes `queries.tsv` and `qrels.txt`."""
    with open(folder / "queries.tsv", "w", encoding="utf-8") as file:
        file.writelines(f"{query}\t{' '.join(text.split())}\n" for query, text in queries.items())
    with open(folder / "qrels.txt", "w", encoding="utf-8") as file:
        file.writelines(f"{q} 0 {document} {r}\n" for q, judged in qrels.items() for document, r in judged.items())


__all__ = [
    "Collection",
    "assign_folds",
    "check_collection",
    "check_folder",
    "check_teacher",
    "count_pairs",
    "make_folds",
    "read_collection",
    "read_qrels",
    "read_queries",
    "write_collection",
    "write_queries",
]
