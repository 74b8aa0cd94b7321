"""
Reads collections of other sources: ids of `ir_datasets`, BEIR's archives, and data sets in the Hub's layouts.

A source has four generators: `documents()` of `(where, document id, text)`, `queries()` of `(where, query id, text)`,
`qrels()` of `(query id, document id, relevance)`, and `candidates()` of `(query id, document id, score)`. `where`
names the place, for errors. [`gather`] makes a collection from sources.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from .collections import add_text
from .files import find_file, read_columns, read_jsonl
from .hub import read_configs, read_split, read_splits


# Names of a column in the data sets of BEIR, MTEB, MIRACL, NeuCLIR and CLIRudit; the first that exists is read.
DOCUMENT = ("_id", "id", "docid", "doc_id")
QUERY = ("_id", "id", "qid", "query_id")
DOCUMENT_TEXT = ("text", "abstract")
QUERY_TEXT = ("query", "text")
JUDGED_QUERY = ("query-id", "query_id", "qid", "id")
JUDGED_DOCUMENT = ("corpus-id", "corpus_id", "docid", "doc_id")
RELEVANCE = ("score", "relevance", "rel")
TITLES = ("title", "subtitle")  # stand before the text of a document


class IrDataset:
    """
    An id of `ir_datasets`, such as `clirmatrix/de/bi139-base/en/test1`. The text of a document or query is its
    `default_text()`. Candidates are the id's `scoreddocs`, else its `docpairs`: the first document of a pair scores 1,
    the second 0.

    Raises `ImportError` if `ir_datasets` is not installed. Raises `ValueError` for an unknown id, and for an id that
    lacks a part.
    """

    def __init__(self, name: str):
        try:
            import ir_datasets
        except ImportError as error:
            raise ImportError("install ir_datasets, or the package's extra `data`") from error
        self.name = name
        try:
            self.dataset = ir_datasets.load(name)
        except KeyError:
            raise ValueError(f"ir_datasets has no id {name!r}; see https://ir-datasets.com") from None

    def require(self, kind: str):
        if not self.dataset.has(kind):
            raise ValueError(f"the id {self.name!r} of ir_datasets has no {kind}; name another one for them")

    def documents(self) -> Iterator[tuple[str, str, str]]:
        self.require("docs")
        return ((self.name, document.doc_id, document.default_text()) for document in self.dataset.docs_iter())

    def queries(self) -> Iterator[tuple[str, str, str]]:
        self.require("queries")
        return ((self.name, query.query_id, query.default_text()) for query in self.dataset.queries_iter())

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        self.require("qrels")
        return ((qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in self.dataset.qrels_iter())

    def candidates(self) -> Iterator[tuple[str, str, float]]:
        if self.dataset.has("scoreddocs"):
            yield from ((scored.query_id, scored.doc_id, scored.score) for scored in self.dataset.scoreddocs_iter())
            return
        self.require("docpairs")
        scores = {}
        for pair in self.dataset.docpairs_iter():
            scores[pair.query_id, pair.doc_id_a] = 1.0
            scores.setdefault((pair.query_id, pair.doc_id_b), 0.0)
        yield from ((query, document, score) for (query, document), score in scores.items())


class BeirFolder:
    """
    A folder like those of BEIR's archives: `corpus.jsonl[.gz]` (`_id`, `text`, optional `title`), `queries.jsonl[.gz]`
    (`_id`, `text`) and `qrels/{split}.tsv[.gz]` (a line of column names; query id, document id, relevance).
    """

    def __init__(self, folder: Path, split: str = "test"):
        self.name, self.folder, self.split = str(folder), folder, split

    def documents(self) -> Iterator[tuple[str, str, str]]:
        for where, record in read_jsonl(find_file(self.folder, "corpus.jsonl"), required=("_id", "text")):
            yield where, str(record["_id"]), join_texts(record.get("title"), record["text"], where=where)

    def queries(self) -> Iterator[tuple[str, str, str]]:
        for where, record in read_jsonl(find_file(self.folder, "queries.jsonl"), required=("_id", "text")):
            yield where, str(record["_id"]), record["text"]

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        path = find_file(self.folder / "qrels", f"{self.split}.tsv")
        for number, (where, (query, document, relevance)) in enumerate(read_columns(path, 3, "\t")):
            if number or whole_number(relevance) is not None:  # the first line may hold the names of the columns
                yield query, document, required_number(relevance, where)

    def candidates(self) -> Iterator[tuple[str, str, float]]:
        raise ValueError(f"{self.name} is in BEIR's layout, which has no candidates")


class HubDataset:
    """
    A data set of the Hub, or a folder in the Hub's layout, with a config for each part:

    | part | config, or `default` | columns |
    |---|---|---|
    | documents | `corpus` or `docs` | id; text or abstract; optional title, subtitle |
    | queries | `queries` | id; query or text |
    | judgements | `qrels` | ids of query and document; relevance |
    | candidates | `top_ranked` | `query-id`, `corpus-ids`; all score 0, as they have no order |

    With a subset the configs are `{subset}-corpus` or `corpus-{subset}`, and `{subset}` in place of `default`. The
    lists above the classes hold the names that columns may have.

    Args:
        name (`str`): Hub name or folder.
        subset (`str`, *optional*): subset, such as `de-en` or `fas`.
        split (`str`, defaults to `"test"`): split to read. If a config has only one split, that split is read.

    Raises `ValueError` for a config, split or column that does not exist.
    """

    def __init__(self, name: str, subset: str | None = None, split: str = "test"):
        self.name, self.subset, self.split = name, subset, split
        self.configs = read_configs(name)

    def load(self, *kinds: str) -> Dataset:
        """Reads the rows of the first of these configs that exists."""
        wanted = list(kinds)
        if self.subset:
            names = ((f"{self.subset}-{kind}", f"{kind}-{self.subset}") for kind in kinds if kind != "default")
            wanted = [name for pair in names for name in pair] + [self.subset] * ("default" in kinds)
        config = next((config for config in wanted if config in self.configs), None)
        if config is None:
            raise ValueError(
                f"{self.name} has no config {' or '.join(wanted)}; it has {', '.join(self.configs)}. Choose with "
                "--subset (de-en: de-en-corpus, corpus-de-en or de-en), or name another source for this part"
            )
        return load_split(self.name, config, self.split)

    def rows(self, dataset: Dataset, *columns: tuple[str, ...]) -> Iterator[tuple]:
        """Yields each row's values in these columns. If a column has several names, the first that exists is read."""
        found = [next((name for name in names if name in dataset.column_names), None) for names in columns]
        if None in found:
            lacking = " or ".join(map(repr, columns[found.index(None)]))
            raise ValueError(
                f"{self.name} has no column {lacking} but {', '.join(dataset.column_names)}. Choose another config "
                "with --subset, or name another source for this part"
            )
        return (tuple(row[column] for column in found) for row in dataset.select_columns(list(dict.fromkeys(found))))

    def documents(self) -> Iterator[tuple[str, str, str]]:
        dataset = self.load("corpus", "docs", "default")
        titles = [(title,) for title in TITLES if title in dataset.column_names]
        for number, (key, *texts) in enumerate(self.rows(dataset, DOCUMENT, *titles, DOCUMENT_TEXT)):
            where = f"{self.name}: row {number} of the documents, {key!r}"
            yield where, str(key), join_texts(*texts, where=where)

    def queries(self) -> Iterator[tuple[str, str, str]]:
        for number, (key, text) in enumerate(self.rows(self.load("queries", "default"), QUERY, QUERY_TEXT)):
            where = f"{self.name}: row {number} of the queries, {key!r}"
            yield where, str(key), join_texts(text, where=where)

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        judged = self.rows(self.load("qrels", "default"), JUDGED_QUERY, JUDGED_DOCUMENT, RELEVANCE)
        for query, document, relevance in judged:
            where = f"{self.name}: judgement of document {document!r} for query {query!r}"
            yield str(query), str(document), required_number(relevance, where)

    def candidates(self) -> Iterator[tuple[str, str, float]]:
        for query, documents in self.rows(self.load("top_ranked"), ("query-id",), ("corpus-ids",)):
            yield from ((str(query), str(document), 0.0) for document in documents)


class RerankingLists:
    """
    A data set in MTEB's first layout for reranking: a row per query, with `query`, `positive` and `negative`, lists of
    texts. The queries' ids are numbers. A document's id is a digest of its text, so ids do not reveal relevance.
    All candidates of a query score 0. A text that is both positive and negative counts as positive.
    """

    def __init__(self, name: str, dataset: Dataset):
        self.name, self.dataset = name, dataset

    def documents(self) -> Iterator[tuple[str, str, str]]:
        seen = set()
        for row in self.dataset:
            for text in [*row["positive"], *row["negative"]]:
                if (key := digest(text)) not in seen:
                    seen.add(key)
                    yield self.name, key, text

    def queries(self) -> Iterator[tuple[str, str, str]]:
        for number, row in enumerate(self.dataset):
            if not isinstance(row["query"], str):
                raise ValueError(f"{self.name}: the query of row {number} is not one text but {row['query']!r}")
            yield f"{self.name}: row {number}", f"q{number}", row["query"]

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        for number, row in enumerate(self.dataset):
            relevances = dict.fromkeys(map(digest, row["negative"]), 0) | dict.fromkeys(
                map(digest, row["positive"]), 1
            )
            yield from ((f"q{number}", document, relevance) for document, relevance in relevances.items())

    def candidates(self) -> Iterator[tuple[str, str, float]]:
        return ((query, document, 0.0) for query, document, _ in self.qrels())


Source = IrDataset | BeirFolder | HubDataset | RerankingLists


def open_hub(name: str, subset: str | None = None, split: str = "test") -> Source:
    """Opens a Hub name or a folder, by its layout, as [`BeirFolder`], [`RerankingLists`] or [`HubDataset`]."""
    if any((Path(name) / "qrels").glob("*.tsv*")):
        return BeirFolder(Path(name), split)
    source = HubDataset(name, subset, split)
    config = subset or "default"
    if config in source.configs:
        dataset = load_split(name, config, split)
        if {"query", "positive", "negative"} <= set(dataset.column_names):
            return RerankingLists(name, dataset)
    return source


def load_split(name: str, config: str, split: str) -> Dataset:
    """Reads a split of a config, or its only split. Raises `ValueError` if there are only others."""
    splits = read_splits(name, config)
    if split not in splits:
        if len(splits) != 1:
            raise ValueError(
                f"{name} has no split {split} of {config}; it has {', '.join(splits)}. Choose with --split, or for "
                "one part with --documents_split, --queries_split or --qrels_split"
            )
        split = splits[0]
    return read_split(name, config, split)


def join_texts(*texts: str | None, where: str) -> str:
    """Joins the texts that are not null or empty, with spaces."""
    if not all(isinstance(text, str | None) for text in texts):
        raise ValueError(f"{where}: title and text must be strings, got {list(texts)!r}")
    return " ".join(text for text in texts if (text or "").strip())


def whole_number(value: str | int | float) -> int | None:
    try:
        return int(float(value)) if float(value).is_integer() else None
    except (TypeError, ValueError):
        return None


def required_number(value: str | int | float, where: str) -> int:
    number = whole_number(value)
    if number is None:
        raise ValueError(f"{where}: the relevance must be a whole number, got {value!r}")
    return number


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def gather(
    documents: Source, queries: Source, qrels: Source, candidates: Source | None = None, judged_only: bool = False
) -> tuple[dict, dict, dict, dict | None, dict[str, int]]:
    """
    Makes a collection from one source or several.

    Args:
        documents, queries, qrels (`Source`): source of each part.
        candidates (`Source`, *optional*): source of the documents to rerank.
        judged_only (`bool`, defaults to `False`): keep only documents that are judged or candidates.

    Returns:
        The arguments of [`write_collection`]: `documents` and `queries` (id to text), `qrels` (query id to document id
        to relevance), `candidates` (query id to document id to score, or `None`). Last, the number of each kind that
        was left out: empty texts, repeated documents and queries (same id and text), repeated judgements, judgements
        and candidates of unknown documents and queries, queries without judgement.

    Raises `ValueError` that names the source and the id for an id with two texts (names both places), an id with a
    space, and two judgements that contradict each other. Raises it too if nothing is left.
    """
    dropped = Counter()
    judged, scored = {}, {}
    for query, document, relevance in qrels.qrels():
        listed = judged.setdefault(query, {})
        if listed.get(document, relevance) != relevance:
            both = f"both {listed[document]} and {relevance}"
            raise ValueError(f"{qrels.name}: document {document!r} is judged {both} for query {query!r}")
        dropped["repeated judgements"] += document in listed
        listed[document] = relevance
    for query, document, score in candidates.candidates() if candidates else ():
        scored.setdefault(query, {})[document] = score

    wanted = {document for table in (judged, scored) for listed in table.values() for document in listed}
    texts = {"queries": {}, "documents": {}}
    for kind, one, source in (("queries", "query", queries), ("documents", "document", documents)):
        for where, key, text in getattr(source, kind)():
            if kind == "documents" and judged_only and key not in wanted:
                dropped["documents that are not judged"] += 1
            elif not (text or "").strip():
                dropped[f"{kind} without text"] += 1
            elif texts[kind].get(key, text) != text:
                rows = getattr(source, kind)()
                first = next(place for place, other, there in rows if other == key and there == texts[kind][key])
                raise ValueError(f"{where}: the {one} {key!r} has another text at {first}; keep one of the two")
            elif key in texts[kind]:
                dropped[f"repeated {kind}"] += 1
            else:
                add_text(texts[kind], one, key, text, source.name)

    def known(table: dict, what: str) -> dict:
        kept = {}
        for query, listed in table.items():
            if query not in texts["queries"]:
                dropped[f"{what} of unknown queries"] += len(listed)
                continue
            here = {document: value for document, value in listed.items() if document in texts["documents"]}
            dropped[f"{what} of unknown documents"] += len(listed) - len(here)
            if here:
                kept[query] = here
        return kept

    judged = known(judged, "judgements")
    if not judged:
        raise ValueError(
            f"no judgement of {qrels.name} is of a query of {queries.name} and a document of {documents.name}: "
            "do the ids belong together?"
        )
    kept = {query: text for query, text in texts["queries"].items() if query in judged}
    dropped["queries without judgement"] = len(texts["queries"]) - len(kept)
    scored = {query: listed for query, listed in known(scored, "candidates").items() if query in kept}
    return texts["documents"], kept, judged, scored if candidates else None, {k: n for k, n in dropped.items() if n}


__all__ = ["BeirFolder", "HubDataset", "IrDataset", "RerankingLists", "gather", "open_hub"]
