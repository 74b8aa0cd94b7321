"""Scores pairs of queries and documents with a teacher: any reranker or dense model."""

from pathlib import Path

import numpy as np
import torch

from .data.first_stage import load_dense
from .loading import read_config
from .reranker import Reranker


# Cosines of a dense model are multiplied by this number, as in sentence-transformers' losses: the softmax of plain
# cosines is nearly uniform.
COSINE_SCALE = 20.0
PAIRS_AT_ONCE = 2**14  # of dense models


class Teacher:
    """
    Opens a teacher on a GPU if there is one, else on the CPU. A checkpoint whose architecture classifies pairs is
    opened as a [`Reranker`] (cross-encoders of sentence-transformers too). Any other model is a dense model, see
    [`load_dense`].

    Args:
        name_or_path (`str`): folder or Hub name.
        prompts (`tuple[str, str]`, *optional*): prompts of a dense model, see [`load_dense`]. Rerankers get none.

    Raises the errors of `Reranker.from_pretrained` and [`load_dense`].
    """

    def __init__(self, name_or_path: str, prompts: tuple[str, str] | None = None):
        self.reranker, self.dense = None, None
        if is_reranker(name_or_path):
            self.reranker = Reranker.from_pretrained(name_or_path)
            self.reranker.model.to("cuda" if torch.cuda.is_available() else "cpu")
        else:
            self.dense = load_dense(name_or_path, prompts)
        self.query_vectors, self.document_vectors = {}, {}

    def score(self, pairs: list[tuple[str, str]], name: str = "teacher") -> list[float]:
        """
        Scores each pair of a query and a document: by the reranker's logit, or by `COSINE_SCALE` times the cosine of
        the dense model's vectors. A dense model encodes each text once, also over several calls, and keeps its vector.
        Shows a bar on stderr; `name` is its name.
        """
        if self.reranker is not None:
            return self.reranker.score(pairs, name=name)
        for vectors, texts, encode in (
            (self.query_vectors, [query for query, _ in pairs], self.dense.encode_query),
            (self.document_vectors, [document for _, document in pairs], self.dense.encode_document),
        ):
            new = [text for text in dict.fromkeys(texts) if text not in vectors]
            vectors |= zip(new, encode(new, normalize_embeddings=True, show_progress_bar=True) if new else ())
        scores = []
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            part = pairs[start : start + PAIRS_AT_ONCE]
            queries = np.stack([self.query_vectors[query] for query, _ in part])  # (pairs, width)
            documents = np.stack([self.document_vectors[document] for _, document in part])
            scores += (COSINE_SCALE * (queries * documents).sum(1)).tolist()
        return scores


def is_reranker(name_or_path: str) -> bool:
    """Tells by its configuration whether a checkpoint scores pairs."""
    if Path(name_or_path).is_dir() and not (Path(name_or_path) / "config.json").is_file():
        return False  # a folder of sentence-transformers may hold its encoder in a subfolder
    architectures = read_config(name_or_path).get("architectures") or []
    return any(name.endswith(("ForSequenceClassification", "ForXLRetrieval")) for name in architectures)


__all__ = ["COSINE_SCALE", "Teacher"]
