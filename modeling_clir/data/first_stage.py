"""First stages: BM25 and dense search find the documents to rerank, to judge, or to contrast with a section."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import bm25s
import numpy as np
import regex
from tqdm.auto import tqdm

from .runs import Run


if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)
logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG, and tells of every index

# Invisible characters (Unicode's Default_Ignorable_Code_Point): soft hyphen, zero-width space, joiners, directions.
INVISIBLE = regex.compile(r"\p{DI}+")
# Marks that writers may leave out: accents without a composed letter, Hebrew and Arabic vowels, the Arabic tatweel.
OPTIONAL = regex.compile(r"(?V1)[[\u0300-\u036f\u0591-\u05c7&&\p{M}]\u0640\u064b-\u0652\u0670]+")
# Letters of scripts without spaces between words: Han, kana, Hangul, and South-East Asian scripts (Line_Break=SA).
UNSPACED = r"[\w&&[\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Hang}\p{lb=SA}]--\d--\p{M}]"
TOKENS = regex.compile(rf"(?V1)((?:{UNSPACED}\p{{M}}*)+)|[\w--{UNSPACED}]+")
CLUSTERS = regex.compile(r"\X\p{M}*")
SCORES_AT_ONCE = 2**26  # of dense search: 256 MiB


def tokenize(text: str) -> list[str]:
    """
    Splits a text of any language into the tokens of BM25. There are no stop words and no stemming.

    - Words are runs of Unicode letters, marks and digits, after NFKC_Casefold (Unicode Standard, section 3.13).
      NFKC_Casefold composes accents, folds case, and removes invisible characters: texts with and without soft
      hyphens, zero-width spaces, (non-)joiners and directional marks get the same tokens. Marks that writers may leave
      out are removed.
    - Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese become overlapping bigrams, as in Lucene's
      `CJKBigramFilter`; a single character stays as it is. A character is a base letter with its vowel signs and tone
      marks: bigrams of such syllables beat segmented words in Khmer retrieval (Van and Kameyama 2014, "N-gram of
      Orthographic Syllable Indexing"). Bigrams need no word boundaries, so a zero-width space is not one.
    """
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold())
    tokens = []
    for match in TOKENS.finditer(OPTIONAL.sub("", unicodedata.normalize("NFC", text))):
        clusters = CLUSTERS.findall(match[1]) if match[1] else ()
        tokens += map("".join, pairwise(clusters)) if len(clusters) > 1 else [match[0]]
    return tokens


def score_bm25(documents: Iterable[str], queries: Iterable[str], k1: float, b: float) -> Iterator[np.ndarray]:
    """
    Scores all documents for each query by BM25 as Lucene computes it (Kamphuis et al. 2020, "Which BM25 do you
    mean?"), with `bm25s`, on the tokens of [`tokenize`].

    Args:
        documents, queries (`Iterable[str]`): texts in one language.
        k1 (`float`): saturation; the lower, the less a repeated token counts.
        b (`float`): weight of the document's length, 0 to 1.

    Yields:
        The scores for the next query, `(documents,)`; 0 for a document without a token of the query.
    """
    tokens = [tokenize(text) for text in documents]
    index = bm25s.BM25(k1=k1, b=b, method="lucene") if any(tokens) else None
    if index:
        index.index(tokens, show_progress=False)
    for text in queries:
        known = index.get_tokens_ids(tokenize(text)) if index else []
        yield index.get_scores_from_ids(known) if known else np.zeros(len(tokens), dtype=np.float32)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Returns the places of the `k` best of `scores`, `(documents,)`, best first. Ties are in the order of places."""
    threshold = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    kept = np.flatnonzero(scores >= threshold)
    return kept[np.argsort(-scores[kept], kind="stable")][:k]


def sorted_ids(documents: dict[str, str]) -> list[str]:
    """Sorts the ids as trec_eval sorts documents of equal score: the highest id first."""
    return sorted(documents, reverse=True)


def rank_bm25(
    documents: dict[str, str], queries: dict[str, str], k: int = 1000, k1: float = 0.9, b: float = 0.4
) -> Run:
    """
    Finds the best documents of each query by the BM25 of [`score_bm25`].

    Args:
        documents, queries (`dict[str, str]`): id to text, in one language.
        k (`int`, defaults to 1000): documents per query.
        k1 (`float`, defaults to 0.9), b (`float`, defaults to 0.4): Anserini's values.

    Returns:
        Query id to document id to score. Of equal scores the higher id comes first. A document without a token of the
        query is not listed. A query without a token of any document gets `k` documents with the score 0; the log
        counts such queries.

    Raises `ValueError` if `k` is below 1, if there are no documents, and if no document has a token.
    """
    check_sizes(documents, k)
    ids = sorted_ids(documents)
    if not any(tokenize(text) for text in documents.values()):
        raise ValueError("no document has a word")
    run, unmatched = {}, 0
    texts = tqdm([documents[i] for i in ids], desc="Documents", unit="document")
    questions = tqdm(queries.values(), desc="Queries", unit="query")
    for scores, query in zip(score_bm25(texts, questions, k1, b), queries):  # so that the bars come to their ends
        matches = bool(scores.any())
        unmatched += not matches
        run[query] = {ids[i]: float(scores[i]) for i in top(scores, k) if scores[i] > 0 or not matches}
    if unmatched:
        logger.warning(f"{unmatched} of {len(queries)} queries have no word of any document: their documents score 0")
    return run


def load_dense(model_name_or_path: str, prompts: tuple[str, str] | None = None) -> "SentenceTransformer":
    """
    Opens a model for dense search, in float32. A model with `sentence-transformers` modules uses its modules; other
    models give the mean of their last hidden states.

    Args:
        model_name_or_path (`str`): folder or Hub name.
        prompts (`tuple[str, str]`, *optional*): what the model was trained to read in front of a query and of a
            document, such as `("query: ", "passage: ")` for E5. The default is what the model's configuration for
            `sentence-transformers` says, or nothing.

    Raises `ValueError` for a model whose weights are damaged or that has no tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedTokenizerBase

    from ..loading import check_vocabulary, reading_weights

    named = dict(zip(("query", "document"), prompts)) if prompts else None
    with reading_weights(model_name_or_path):
        model = SentenceTransformer(model_name_or_path, model_kwargs={"dtype": "float32"}, prompts=named)
    if isinstance(model.tokenizer, PreTrainedTokenizerBase):
        check_vocabulary(model.tokenizer, model_name_or_path)
    return model


def rank_dense(
    documents: dict[str, str],
    queries: dict[str, str],
    model_name_or_path: str,
    k: int = 1000,
    prompts: tuple[str, str] | None = None,
) -> Run:
    """
    Finds the best documents of each query by the cosine of their vectors, with the model of [`load_dense`]. The search
    is exact. It keeps the vectors of all documents in memory, four bytes times the model's width each: some millions
    of documents need no FAISS.

    Args:
        documents, queries (`dict[str, str]`): id to text.
        model_name_or_path (`str`): folder or Hub name.
        k (`int`, defaults to 1000): documents per query.
        prompts (`tuple[str, str]`, *optional*): see [`load_dense`].

    Returns:
        Query id to document id to score. Of equal scores the higher id comes first.

    Raises `ValueError` if `k` is below 1, if there are no documents, and in the cases of [`load_dense`].
    """
    check_sizes(documents, k)
    ids = sorted_ids(documents)
    model = load_dense(model_name_or_path, prompts)
    options = {"normalize_embeddings": True, "show_progress_bar": True}
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


__all__ = ["SCORES_AT_ONCE", "load_dense", "rank_bm25", "rank_dense", "score_bm25", "tokenize", "top"]
