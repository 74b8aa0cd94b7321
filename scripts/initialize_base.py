#!/usr/bin/env python
"""
Writes a small multilingual BERT whose only knowledge is which words belong together across languages.

    python scripts/initialize_base.py CORPUS OUTPUT

Trains the WordPiece vocabulary on the corpus, and replaces some of the random weights:

- Word embeddings come from a cross-lingual latent semantic index: words of the same aligned sections are near each
  other, whatever their language. Short sections give better embeddings: build CORPUS with --max_sentences 1.
- In the first layer query and key share one orthogonal matrix, so a token attends to the tokens most like it. One
  dimension holds the sign of the segment, which makes a token attend to the other segment.
- Value and output of the first layer subtract a part of the attended tokens. The remainder shows how well a token is
  matched.

Training (recipes/base.yaml) comes next.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modeling_clir.program import Parser, run_program, share_cores


if TYPE_CHECKING:  # heavy imports are inside the functions, so that help and mistakes are answered at once
    from transformers import BertTokenizerFast

    from modeling_clir import BertForXLRetrieval


def aligned_texts(corpus: Path) -> list[str]:
    """Returns the texts of each group of aligned sections, joined over all languages. Reads training sections only."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    tables = [pq.read_table(path, columns=["id", "text"]) for path in sorted(corpus.glob("sections/*.parquet"))]
    pairs = [
        pq.read_table(path, columns=["source_id", "target_id"])
        for path in sorted(corpus.glob("pairs/*/train.parquet"))
    ]
    if not tables or not pairs:
        raise FileNotFoundError(f"{corpus} is no corpus: it needs sections/*.parquet and pairs/*/train.parquet")
    sections = pa.concat_tables(tables)
    rows = [
        pc.index_in(
            pa.chunked_array([c for pair in pairs for c in pair[name].chunks]), sections["id"].combine_chunks()
        )
        for name in ("source_id", "target_id")
    ]
    source, target = (row.to_numpy() for row in rows)
    graph = coo_matrix((np.ones(len(source)), (source, target)), shape=(len(sections), len(sections)))
    _, group = connected_components(graph, directed=False)
    texts = {}
    aligned = np.unique(np.concatenate([source, target]))
    for row, text in zip(aligned, sections["text"].take(aligned).to_pylist()):
        texts.setdefault(group[row], []).append(text)
    return [" ".join(part) for part in texts.values()]


def train_tokenizer(texts: list[str], vocab_size: int, folder: Path, max_length: int) -> BertTokenizerFast:
    """Trains an uncased WordPiece vocabulary without accents, as uncased multilingual BERT has."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    trainer = BertWordPieceTokenizer(lowercase=True, strip_accents=True)
    trainer.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, limit_alphabet=200, show_progress=False)
    trainer.save_model(str(folder))
    return BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=max_length)


def latent_semantic_index(rows: list[np.ndarray], vocab_size: int, width: int) -> np.ndarray:
    """
    Computes word vectors of unit norm, `(vocab_size, width)`, by a truncated SVD (Littman, Dumais, Landauer 1998,
    cross-language latent semantic indexing). The matrix has a row for each section (in all languages), a column for
    each token, and log counts; its columns are scaled to unit norm. A token that does not occur gets a random vector.
    """
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import svds

    indices = np.concatenate(rows)
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    counts = csr_matrix((np.ones(len(indices)), (row_of, indices)), shape=(len(rows), vocab_size))
    counts.data = np.log1p(counts.data)
    norms = np.sqrt(np.asarray(counts.multiply(counts).sum(0)).ravel())
    generator = np.random.default_rng(0)
    _, strength, right = svds(
        counts @ diags(1 / np.maximum(norms, 1e-9)), k=width, v0=generator.random(min(counts.shape))
    )
    vectors = right.T * strength
    absent = norms == 0
    vectors[absent] = generator.standard_normal((absent.sum(), width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def initialize(
    model: BertForXLRetrieval,
    vectors: np.ndarray,
    counts: np.ndarray,
    sharpness: float,
    crossing: float,
    removal: float,
):
    """
    Sets the weights that the module's docstring names.

    Args:
        vectors: word vectors, `(vocab_size, hidden_size)`. The segment's sign replaces the last dimension.
        counts: occurrences of each token, `(vocab_size,)`. Their logarithm is the bias of the language model.
        sharpness: factor of the similarity of two tokens in the first layer's attention scores.
        crossing: how much a token of one segment prefers the other segment.
        removal: share of the attended token that is subtracted (negative) or added (positive).
    """
    import torch

    size, heads = model.config.hidden_size, model.config.num_attention_heads
    head = size // heads
    embeddings, layer = model.bert.embeddings, model.bert.encoder.layer[0].attention
    words = torch.tensor(vectors, dtype=torch.float32)
    words[:, -1] = 0
    embeddings.word_embeddings.weight.copy_(words / words.norm(dim=1, keepdim=True) * math.sqrt(size))
    embeddings.token_type_embeddings.weight[:, -1] = torch.tensor([1.0, -1.0])
    bias = torch.log(torch.tensor(counts + 1.0) / (counts.sum() + len(counts)))
    model.cls.predictions.bias.copy_(bias - bias.mean())
    torch.nn.init.orthogonal_(model.cls.predictions.transform.dense.weight)
    torch.nn.init.constant_(model.cls.predictions.transform.LayerNorm.weight, 0.1)  # the embeddings have large norms
    rotation = torch.linalg.qr(torch.randn(size - 1, size - 1))[0]
    query, key, value, output = layer.self.query, layer.self.key, layer.self.value, layer.output.dense
    for linear in (query, key, value, output):
        linear.weight.mul_(0.1)
    output.weight[-1] = 0
    for i in range(heads):
        part, sign = slice(i * head, (i + 1) * head - 1), (i + 1) * head - 1
        rows = rotation[i * (head - 1) : (i + 1) * (head - 1)]
        for linear, direction in ((query, 1), (key, -1)):
            linear.weight[part, :-1] = math.sqrt(sharpness) * rows
            linear.weight[sign] = 0
            linear.weight[sign, -1] = direction * math.sqrt(crossing * math.sqrt(head))
        value.weight[part, :-1] = rows
        value.weight[sign] = 0
        output.weight[:-1, part] = removal * rows.T


def main():
    share_cores()
    parser = Parser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder that scripts/build_corpus.py wrote")
    parser.add_argument("output", type=Path, help="folder to write; it must not exist")
    parser.add_argument("--vocab_size", type=int, default=12000)
    parser.add_argument("--hidden_size", type=int, default=192)
    parser.add_argument("--num_hidden_layers", type=int, default=3)
    parser.add_argument("--num_attention_heads", type=int, default=3)
    parser.add_argument("--intermediate_size", type=int, default=384)
    parser.add_argument("--sharpness", type=float, default=1.5)
    parser.add_argument("--crossing", type=float, default=3.0)
    parser.add_argument("--removal", type=float, default=-0.7)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.output.exists():
        raise FileExistsError(f"{args.output} exists; remove it or name another folder")

    import torch
    from transformers import BertConfig, set_seed

    from modeling_clir import BertForXLRetrieval

    # 1. Texts, vocabulary
    texts = aligned_texts(args.corpus)
    args.output.mkdir(parents=True)
    tokenizer = train_tokenizer(texts, args.vocab_size, args.output, max_length=512)
    print(f"{len(texts)} groups of aligned sections, {len(tokenizer)} tokens")

    # 2. Word vectors
    encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    rows = [np.asarray(ids, dtype=np.int64) for ids in encoded]
    vectors = latent_semantic_index(rows, len(tokenizer), args.hidden_size)

    # 3. Model
    set_seed(args.seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        intermediate_size=args.intermediate_size,
        hidden_dropout_prob=0.0,  # a small model that is trained briefly underfits
        attention_probs_dropout_prob=0.0,
        initializer_range=0.04,
        num_labels=1,
    )
    model = BertForXLRetrieval(config)
    torch.nn.init.normal_(model.bert.embeddings.position_embeddings.weight, std=0.02)
    torch.nn.init.normal_(model.bert.embeddings.token_type_embeddings.weight, std=0.02)
    counts = np.bincount(np.concatenate(rows), minlength=len(tokenizer))
    with torch.no_grad():
        initialize(model, vectors, counts, args.sharpness, args.crossing, args.removal)
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    print(f"{args.output}: {model.num_parameters():,} parameters")


if __name__ == "__main__":
    run_program(main)
