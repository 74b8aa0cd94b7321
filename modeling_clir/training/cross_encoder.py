"""Prepares a collection for the cross-encoders of sentence-transformers: their evaluator and their trainer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..data.collections import Collection


if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

NEAREST = 1000  # documents of a query among which negatives are looked for


def relevant_texts(collection: Collection, query: str) -> list[str]:
    return [collection.documents[document] for document, grade in collection.qrels[query].items() if grade > 0]


def reranking_samples(collection: Collection, queries: list[str]) -> list[dict[str, str | list[str]]]:
    """
    Makes the samples of sentence-transformers' `CrossEncoderRerankingEvaluator`. With `always_rerank_positives=False`
    its `map` is the MAP of `run_clir.py`, unless candidates lack a relevant document: that document then counts
    against the query in MAP and not in `map`. The log counts such queries.

    Args:
        collection (`Collection`).
        queries (`list[str]`): ids of judged queries.

    Returns a dictionary for each query: `query` (a text), `positive` (the relevant texts) and `documents` (the texts of
    the candidates, in their order).
    """
    samples = [
        {
            "query": collection.queries[query],
            "positive": relevant_texts(collection, query),
            "documents": [collection.documents[document] for document in collection.candidates[query]],
        }
        for query in queries
    ]
    if incomplete := sum(not set(sample["positive"]) <= set(sample["documents"]) for sample in samples):
        logger.warning(
            f"{collection.name}: the candidates of {incomplete} of {len(samples)} queries lack a relevant document; "
            "the evaluator's map does not count that, MAP does"
        )
    return samples


def mine_lists(
    collection: Collection,
    queries: list[str],
    model: SentenceTransformer,
    num_negatives: int = 3,
    margin: float = 0.95,
) -> Dataset:
    """
    Makes lists of documents to train on with the listwise losses of sentence-transformers, such as `LambdaLoss`. There
    is a list for each relevant document. Its negatives are the documents of the collection whose vectors are nearest to
    the query's, by `mine_hard_negatives`.

    Args:
        collection (`Collection`).
        queries (`list[str]`): ids of judged queries.
        model (`SentenceTransformer`): a dense model that knows both languages.
        num_negatives (`int`, defaults to 3): negatives of a list, at most.
        margin (`float`, defaults to 0.95): a document that scores above this share of the relevant document's score is
            likely relevant and left out.

    Returns a `Dataset` with the columns `query`, `documents` (the relevant document first) and `labels` (1, then 0s).
    Relevant documents without any negative are left out, which is logged. Raises `ValueError` if none is left.
    """
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs = [(collection.queries[query], text) for query in queries for text in relevant_texts(collection, query)]
    if not pairs:
        raise ValueError(f"{collection.name}: none of the {len(queries)} training queries has a relevant document")
    lists = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "documents": [text for _, text in pairs]}),
        model,
        corpus=list(collection.documents.values()),
        num_negatives=num_negatives,
        range_max=NEAREST,
        relative_margin=1 - margin,
        output_format="labeled-list",
        verbose=False,
    )
    if not len(lists):
        raise ValueError(
            f"{collection.name}: no document scores below {margin:g} times a relevant document's score; raise "
            "--negatives_margin, or mine with a model that was trained for retrieval"
        )
    negatives = sum(map(len, lists["labels"])) - len(lists)
    logger.info(
        f"{collection.name}: {len(lists)} of {len(pairs)} relevant documents have a negative, {negatives} negatives "
        "in all; the others are left out"
    )
    return lists


__all__ = ["mine_lists", "reranking_samples"]
