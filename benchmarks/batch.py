#!/usr/bin/env python
"""
Measures how time and memory of ranking grow with the batch size, on unsorted rows of mixed real lengths.

    python benchmarks/batch.py

BertLong and Hugging Face's Longformer of the same size, with random weights, rank the same pairs of a question and a
paragraph in another language. Pairs have up to 1024 tokens and are not sorted; the batch sizes are measured in turn.
`padding` is the share of a batch's positions that are padding. A model that computes padding slows down with this
share.
"""

import argparse
from functools import partial

from measure import (
    LONGFORMER,
    OURS,
    Work,
    benchmark_parser,
    bertlong_config,
    forward,
    longformer_config,
    measure,
    padded_batches,
    pair_encoder,
    parse,
    plot_lines,
    positive,
    random_model,
    read_texts,
    report,
    with_compiled,
    with_global_attention,
    work_of,
)
from transformers import AutoModelForSequenceClassification


MAX_LENGTH = 1024


def batches(args: argparse.Namespace, batch_size: int) -> list[dict]:
    return list(padded_batches(pair_encoder(MAX_LENGTH), *read_texts(args, args.pairs), batch_size, args.device))


def ours(args: argparse.Namespace, batch_size: int, compiled: bool = False) -> Work:
    model = random_model(AutoModelForSequenceClassification, bertlong_config(args), args, compiled=compiled)
    inputs = batches(args, batch_size)
    return work_of([partial(forward, model, batch) for batch in inputs], inputs, args)


def longformer(args: argparse.Namespace, batch_size: int, compiled: bool = False) -> Work:
    model = random_model(AutoModelForSequenceClassification, longformer_config(args), args, compiled=compiled)
    inputs = batches(args, batch_size)
    return work_of([partial(forward, model, with_global_attention(batch)) for batch in inputs], inputs, args)


def main(argv: list[str] | None = None):
    parser = benchmark_parser(__doc__, repeats=2)
    parser.add_argument("--batch_sizes", type=positive, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--pairs", type=positive, default=32)
    args = parse(parser, argv)
    if max(args.batch_sizes) > args.pairs:
        parser.error(f"--pairs ({args.pairs}) must be at least the largest batch ({max(args.batch_sizes)})")
    groups = []
    for size in sorted(args.batch_sizes):
        cases = {OURS: partial(ours, batch_size=size), LONGFORMER: partial(longformer, batch_size=size)}
        groups.append(({"batch_size": size}, with_compiled(cases, args)))
    rows, peak = measure(groups, args)
    plot = partial(plot_lines, x="batch_size", label="batch size (pairs)")
    report("batch", "Growth with the batch size, pairs of mixed lengths as they come", rows, peak, plot, args)


if __name__ == "__main__":
    main()
