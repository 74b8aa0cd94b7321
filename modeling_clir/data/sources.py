"""
Collections of other sources: ids of `ir_datasets`, datasets in the layouts of BEIR and of MTEB's reranking tasks.

A source has `documents()`, `queries()`, `qrels()` and `candidates()`, generators of `(document, text)`,
`(query, text)`, `(query, document, relevance)` and `(query, document, score)`; [`gather`] puts them together.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, get_dataset_config_names, get_dataset_split_names, load_dataset

from .collections import add_text
from .files import find_file, read_columns, read_jsonl


class IrDataset:
    """
    An id of `ir_datasets`, as `clirmatrix/de/bi139-base/en/test1`. A document or query is its `default_text()`;
    candidates are its `scoreddocs`, else its `docpairs`, where the first of a pair scores 1, the second 0. Raises
    `ImportError` where `ir_datasets` is not installed, `ValueError` for an unknown id and for one without what is asked
    for.
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

    def documents(self) -> Iterator[tuple[str, str]]:
        self.require("docs")
        return ((document.doc_id, document.default_text()) for document in self.dataset.docs_iter())

    def queries(self) -> Iterator[tuple[str, str]]:
        self.require("queries")
        return ((query.query_id, query.default_text()) for query in self.dataset.queries_iter())

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
    A folder as BEIR's archives unpack to: `corpus.jsonl[.gz]` (`_id`, `text`, optional `title`), `queries.jsonl[.gz]`
    (`_id`, `text`) and `qrels/{split}.tsv[.gz]` (a line of column names; query id, document id, relevance).
    """

    def __init__(self, folder: Path, split: str = "test"):
        self.name, self.folder, self.split = str(folder), folder, split

    def documents(self) -> Iterator[tuple[str, str]]:
        for where, record in read_jsonl(find_file(self.folder, "corpus.jsonl"), required=("_id", "text")):
            yield str(record["_id"]), titled(record, where)

    def queries(self) -> Iterator[tuple[str, str]]:
        for _, record in read_jsonl(find_file(self.folder, "queries.jsonl"), required=("_id", "text")):
            yield str(record["_id"]), record["text"]

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        path = find_file(self.folder / "qrels", f"{self.split}.tsv")
        for number, (where, (query, document, relevance)) in enumerate(read_columns(path, 3, "\t")):
            if number or whole_number(relevance) is not None:  # the first line may hold the names of the columns
                yield query, document, required_number(relevance, where)

    def candidates(self) -> Iterator[tuple[str, str, float]]:
        raise ValueError(f"{self.name} is in BEIR's layout, which has no candidates")


class HubDataset:
    """
    A dataset of the Hub, or a folder that `datasets` reads in the same way, in the layout of BEIR and MTEB: the configs
    `corpus` (`_id` or `id`, `text`, optional `title`), `queries` (`_id` or `id`, `text`), `qrels` or `default`
    (`query-id`, `corpus-id`, `score`) and, in reranking, `top_ranked` (`query-id`, `corpus-ids`), each after
    `{subset}-` where there are several. What is listed in `top_ranked` scores 0: it has no order.

    Args:
        name (`str`): Hub name or folder.
        subset (`str`, *optional*): as `de-en`.
        split (`str`, defaults to `"test"`): where a config has one split only, that one is taken.

    Raises `ValueError` for a config, split or column that is not there.
    """

    def __init__(self, name: str, subset: str | None = None, split: str = "test"):
        self.name, self.subset, self.split = name, subset, split
        self.configs = get_dataset_config_names(name)

    def load(self, *kinds: str) -> Dataset:
        """The rows of the first of these configs that is there."""
        wanted = [f"{self.subset}-{kind}" if self.subset else kind for kind in kinds]
        config = next((config for config in wanted if config in self.configs), None)
        if config is None:
            raise ValueError(f"{self.name} has no config {' or '.join(wanted)}; it has {', '.join(self.configs)}")
        return load_split(self.name, config, self.split)

    def rows(self, dataset: Dataset, *columns: str) -> Iterator[tuple]:
        for column in columns:
            if column not in dataset.column_names:
                raise ValueError(f"{self.name} has no column {column!r} but {', '.join(dataset.column_names)}")
        return (tuple(row[column] for column in columns) for row in dataset.select_columns(list(columns)))

    def texts(self, kind: str) -> Iterator[tuple[str, str]]:
        dataset = self.load(kind)
        key = "_id" if "_id" in dataset.column_names else "id"
        columns = ["title", "text"] if kind == "corpus" and "title" in dataset.column_names else ["text"]
        for name, *texts in self.rows(dataset, key, *columns):
            yield str(name), titled(dict(zip(columns, texts)), f"{self.name}: {kind} {name!r}")

    def documents(self) -> Iterator[tuple[str, str]]:
        return self.texts("corpus")

    def queries(self) -> Iterator[tuple[str, str]]:
        return self.texts("queries")

    def qrels(self) -> Iterator[tuple[str, str, int]]:
        for query, document, score in self.rows(self.load("qrels", "default"), "query-id", "corpus-id", "score"):
            where = f"{self.name}: judgement of document {document!r} for query {query!r}"
            yield str(query), str(document), required_number(score, where)

    def candidates(self) -> Iterator[tuple[str, str, float]]:
        for query, documents in self.rows(self.load("top_ranked"), "query-id", "corpus-ids"):
            yield from ((str(query), str(document), 0.0) for document in documents)


class RerankingLists:
    """
    A dataset in MTEB's first layout of reranking: a row for each query, with `query`, `positive` and `negative`, lists
    of texts. Queries are numbered; a document has a digest of its text for an id, which tells nothing of its relevance,
    and all candidates of a query score 0. A text that is both positive and negative counts as positive.
    """

    def __init__(self, name: str, dataset: Dataset):
        self.name, self.dataset = name, dataset

    def documents(self) -> Iterator[tuple[str, str]]:
        seen = set()
        for row in self.dataset:
            for text in [*row["positive"], *row["negative"]]:
                if (key := digest(text)) not in seen:
                    seen.add(key)
                    yield key, text

    def queries(self) -> Iterator[tuple[str, str]]:
        for number, row in enumerate(self.dataset):
            if not isinstance(row["query"], str):
                raise ValueError(f"{self.name}: the query of row {number} is not one text but {row['query']!r}")
            yield f"q{number}", row["query"]

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
    """
    The source that a Hub name or a folder is, by its layout: [`BeirFolder`], [`RerankingLists`] or [`HubDataset`].
    """
    if (Path(name) / "qrels").is_dir():
        return BeirFolder(Path(name), split)
    source = HubDataset(name, subset, split)
    config = subset or "default"
    if config in source.configs:
        dataset = load_split(name, config, split)
        if {"query", "positive", "negative"} <= set(dataset.column_names):
            return RerankingLists(name, dataset)
    return source


def load_split(name: str, config: str, split: str) -> Dataset:
    """A split of a config, or the only one. Raises `ValueError` where there are others."""
    splits = get_dataset_split_names(name, config)
    if split not in splits:
        if len(splits) != 1:
            raise ValueError(f"{name} has no split {split} of {config}; it has {', '.join(splits)}")
        split = splits[0]
    return load_dataset(name, config, split=split)


def titled(record: dict, where: str) -> str:
    """The text of a record, after its title; nothing for a null."""
    texts = [record.get("title") or "", record["text"] or ""]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: title and text must be strings, got {texts!r}")
    return " ".join(text for text in texts if text.strip())


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
    Puts together a collection, of one source or several.

    Args:
        documents, queries, qrels (`Source`): where each is from.
        candidates (`Source`, *optional*): where the documents to rerank are from.
        judged_only (`bool`, defaults to `False`): keep only documents that are judged or candidates.

    Returns:
        What [`write_collection`] takes: `documents` and `queries` (id to text), `qrels` (query id to document id to
        relevance), `candidates` (query id to document id to score, or `None`); and how many were left out, by reason:
        texts that are empty, what is said of documents and queries that are not there, repeated judgements, queries
        without judgement.

    Raises `ValueError`, naming the source and the id, for an id that occurs twice or has a space, for two judgements
    that contradict each other, and where nothing is left.
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
    for kind, source in (("queries", queries), ("documents", documents)):
        for key, text in getattr(source, kind)():
            if kind == "documents" and judged_only and key not in wanted:
                dropped["documents that are not judged"] += 1
            elif not (text or "").strip():
                dropped[f"{kind} without text"] += 1
            else:
                add_text(texts[kind], "document" if kind == "documents" else "query", key, text, source.name)

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
