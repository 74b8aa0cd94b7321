#!/usr/bin/env python
"""
Writes a small multilingual BERT that has learned nothing yet but which words belong together across languages: a WordPiece
vocabulary, word embeddings from a cross-lingual latent semantic index, and a first layer that attends to related words.

    python scripts/initialize_base.py CORPUS OUTPUT

From random weights matching across languages does not emerge in hours of CPU time; from here it does in minutes.
"""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast


def train_tokenizer(texts: list[str], vocab_size: int, max_length: int) -> BertTokenizerFast:
    """An uncased WordPiece vocabulary; accents are kept apart from letters in none of the languages, as in mBERT uncased."""
    trainer = BertWordPieceTokenizer(lowercase=True, strip_accents=True)
    trainer.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, limit_alphabet=400, show_progress=True)
    vocabulary = [word for word, _ in sorted(trainer.get_vocab().items(), key=lambda item: item[1])]
    return vocabulary


def latent_semantic_index(rows: list[list[int]], vocab_size: int, width: int, seed: int) -> np.ndarray:
    """
    Word vectors in which words that occur in the same aligned sections, of whatever language, are near: truncated SVD of the
    idf-weighted matrix of sections by tokens (Littman, Dumais, Landauer 1998).

    Args:
        rows (`list[list[int]]`): token ids of each section in all its languages.

    Returns:
        `(vocab_size, width)`, rows of unit norm; 0 for tokens that do not occur.
    """
    ids, places, counts = [], [0], []
    for row in rows:
        words, numbers = np.unique(row, return_counts=True)
        ids.append(words)
        counts.append(1 + np.log(numbers))
        places.append(places[-1] + len(words))
    matrix = csr_matrix((np.concatenate(counts), np.concatenate(ids), places), shape=(len(rows), vocab_size))
    document_frequency = np.bincount(matrix.indices, minlength=vocab_size)
    idf = np.log((1 + len(rows)) / (1 + document_frequency))
    matrix = matrix.multiply(idf[None]).tocsr()
    matrix = matrix.multiply(1 / np.maximum(np.sqrt(matrix.multiply(matrix).sum(1)), 1e-9)).tocsr()
    _, _, right = svds(matrix, k=width, rng=np.random.default_rng(seed))
    vectors = right.T
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
