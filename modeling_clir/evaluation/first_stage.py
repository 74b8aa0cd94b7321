"""First stages: the documents to rerank, by BM25 or by the similarity of dense vectors."""

import unicodedata

import bm25s
import numpy as np
import regex
from transformers.utils import logging

from ..data.runs import Run


logger = logging.get_logger(__name__)

# Scripts that are written without spaces between words, or (Hangul) whose words carry endings.
BIGRAM_SCRIPTS = r"\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}"
TOKENS = regex.compile(rf"(?V1)([\w&&[{BIGRAM_SCRIPTS}]--\d]+)|[\w--[[{BIGRAM_SCRIPTS}]--\d]]+")
SCORES_AT_ONCE = 2**26  # of dense search: 256 MiB


def tokenize(text: str) -> list[str]:
    """
    The tokens of a text for BM25, in any language: lower-cased words of Unicode letters, marks and digits after NFKC;
    of Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese, which are not parted into words by spaces, overlapping
    bigrams of characters instead (Lucene's `CJKBigramFilter`), one character where it is alone. There are no stop words
    and no stemming.
    """
    tokens = []
    for match in TOKENS.finditer(unicodedata.normalize("NFKC", text).lower()):
        characters = match[1]
        if characters and len(characters) > 1:
            tokens += [characters[i : i + 2] for i in range(len(characters) - 1)]
        else:
            tokens.append(match[0])
    return tokens


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """The places of the `k` best of `scores`, `(documents,)`, best first; of equal scores the first place first."""
    threshold = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    kept = np.flatnonzero(scores >= threshold)
    return kept[np.argsort(-scores[kept], kind="stable")][:k]


def sorted_ids(documents: dict[str, str]) -> list[str]:
    """The ids in the order in which trec_eval puts documents of equal score: the highest first."""
    return sorted(documents, reverse=True)


def rank_bm25(
    documents: dict[str, str], queries: dict[str, str], k: int = 1000, k1: float = 0.9, b: float = 0.4
) -> Run:
    """
    The best documents of each query by BM25 as Lucene computes it (Kamphuis et al. 2020, "Which BM25 do you mean?"),
    by `bm25s`, on the tokens of [`tokenize`].

    Args:
        documents, queries (`dict[str, str]`): id to text, in one language.
        k (`int`, defaults to 1000): documents of a query.
        k1 (`float`, defaults to 0.9), b (`float`, defaults to 0.4): as Anserini has them.

    Returns:
        Query id to document id to score. A document that has no token of the query is not listed; a query that has no
        token of any document gets `k` documents with the score 0, and such queries are counted in the log. Of equal
        scores the higher id comes first.

    Raises `ValueError` for `k` below 1 and where no document has a token.
    """
    check_sizes(documents, k)
    ids = sorted_ids(documents)
    tokens = [tokenize(documents[document]) for document in ids]
    if not any(tokens):
        raise ValueError("no document has a word")
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(tokens, show_progress=False)
    run, unmatched = {}, 0
    for query, text in queries.items():
        scores = index.get_scores_from_ids(index.get_tokens_ids(tokenize(text)))
        matches = bool(scores.any())
        unmatched += not matches
        run[query] = {ids[i]: float(scores[i]) for i in top(scores, k) if scores[i] > 0 or not matches}
    if unmatched:
        logger.warning(f"{unmatched} of {len(queries)} queries have no word of any document: theirs score 0")
    return run


def rank_dense(documents: dict[str, str], queries: dict[str, str], model_name_or_path: str, k: int = 1000) -> Run:
    """
    The best documents of each query by the cosine of their vectors, by `sentence-transformers`: a model with modules of
    its own as they are, any other with the mean of its last hidden states, in float32. The search is
    exact; the vectors of all documents, four bytes times the model's width each, are kept in memory, so that FAISS is
    not needed up to some millions of documents.

    Args:
        documents, queries (`dict[str, str]`): id to text.
        model_name_or_path (`str`): folder or Hub name.
        k (`int`, defaults to 1000): documents of a query.

    Returns:
        Query id to document id to score; of equal scores the higher id comes first. Raises `ValueError` for `k` below 1.
    """
    from sentence_transformers import SentenceTransformer

    check_sizes(documents, k)
    ids = sorted_ids(documents)
    model = SentenceTransformer(model_name_or_path, model_kwargs={"dtype": "float32"})
    options = {"normalize_embeddings": True, "show_progress_bar": False}
    vectors = model.encode_document([documents[document] for document in ids], **options)  # (documents, width)
    query_vectors = model.encode_query(list(queries.values()), **options)  # (queries, width)
    run, step = {}, max(1, SCORES_AT_ONCE // len(ids))
    names = list(queries)
    for start in range(0, len(names), step):
        for query, scores in zip(names[start : start + step], query_vectors[start : start + step] @ vectors.T):
            run[query] = {ids[i]: float(scores[i]) for i in top(scores, k)}
    return run


def check_sizes(documents: dict[str, str], k: int):
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not documents:
        raise ValueError("there are no documents")


__all__ = ["rank_bm25", "rank_dense", "tokenize"]
