#!/usr/bin/env python
"""
Measures how time and memory grow with the length of one row, from 1024 tokens on.

    python benchmarks/length.py
    python benchmarks/length.py --train --lengths 1024 2048 4096

BertLong and Hugging Face's Longformer of the same size, with random weights and as many positions as the longest row
has tokens, rank a row of random tokens. The first 32 tokens are the query. `--train` also measures forward and
backward. `--peer modernbert` adds a ModernBERT with random weights (ModernBERT-base's own sizes, 22 layers); another
name is looked up on the Hub. A peer is measured up to its own longest row. On a GPU BertLong also runs with
flex_attention.
"""

import argparse
from functools import partial

import torch
from measure import (
    LONGFORMER,
    OURS,
    Work,
    benchmark_parser,
    bertlong_config,
    flops_of,
    forward,
    longformer_config,
    measure,
    parse,
    plot_lines,
    positive,
    random_model,
    report,
    train,
    with_compiled,
    with_global_attention,
)
from transformers import AutoConfig, AutoModelForSequenceClassification, ModernBertConfig, PreTrainedConfig


QUERY = 32


def row(length: int, vocab_size: int, args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Draws a row of random tokens, `(1, length)`. The first `QUERY` tokens are the query."""
    inputs = {"input_ids": torch.randint(1, vocab_size, (1, length))}  # 0 is padding
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["token_type_ids"] = (torch.arange(length) >= QUERY).long()[None]
    return {name: tensor.to(args.device) for name, tensor in inputs.items()}


def work(model, inputs: dict[str, torch.Tensor], flops: int | None, training: bool, args: argparse.Namespace) -> Work:
    def loss():
        return model(**inputs).logits.float().square().mean()

    step = partial(train, loss, model, args) if training else partial(forward, model, inputs)
    return Work([step], [inputs["input_ids"].shape[1]], flops)


def ours(args: argparse.Namespace, length: int, training: bool, compiled: bool = False, flex: bool = False) -> Work:
    config = bertlong_config(args, positions=max(args.lengths))
    if flex:
        config._attn_implementation = "flex_attention"
        config.attention_probs_dropout_prob = 0.0  # flex_attention has no dropout
    model = random_model(AutoModelForSequenceClassification, config, args, training, compiled)
    inputs = row(length, args.vocab_size, args)
    return work(model, inputs, flops_of(args, [inputs], training), training, args)


def longformer(args: argparse.Namespace, length: int, training: bool, compiled: bool = False) -> Work:
    config = longformer_config(args, positions=max(args.lengths))
    model = random_model(AutoModelForSequenceClassification, config, args, training, compiled)
    inputs = row(length, args.vocab_size, args)
    return work(model, with_global_attention(inputs), flops_of(args, [inputs], training), training, args)


def peer_config(name: str) -> PreTrainedConfig:
    return ModernBertConfig() if name == "modernbert" else AutoConfig.from_pretrained(name)


def peer(args: argparse.Namespace, length: int, training: bool, compiled: bool = False) -> Work:
    config = peer_config(args.peer)
    model = random_model(AutoModelForSequenceClassification, config, args, training, compiled)
    inputs = row(length, config.vocab_size, args)
    del inputs["token_type_ids"]
    return work(model, inputs, None, training, args)


def main(argv: list[str] | None = None):
    parser = benchmark_parser(__doc__, texts=False)
    parser.add_argument("--lengths", type=positive, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--train", action="store_true", help="also measure forward and backward")
    parser.add_argument("--peer", help="modernbert, or a Hub name whose configuration is read")
    args = parse(parser, argv)
    if min(args.lengths) <= QUERY:
        parser.error(f"--lengths must be more than the {QUERY} tokens of the query, got {min(args.lengths)}")
    longest = 0
    if args.peer:
        try:
            longest = peer_config(args.peer).max_position_embeddings
        except (OSError, ValueError) as error:
            parser.error(f"--peer {args.peer}: {error}")
    groups = []
    for training in (False, True) if args.train else (False,):
        for length in sorted(args.lengths):
            builders = {OURS: ours, LONGFORMER: longformer} | ({args.peer: peer} if length <= longest else {})
            cases = {name: partial(build, length=length, training=training) for name, build in builders.items()}
            cases = with_compiled(cases, args)
            if args.device == "cuda":
                cases["BertLong, flex_attention"] = partial(ours, length=length, training=training, flex=True)
            groups.append(({"step": "training" if training else "inference", "length": length}, cases))
    rows, peak = measure(groups, args)
    plot = partial(plot_lines, x="length", label="length of the row (tokens)")
    report("length", "Growth with the length of one row", rows, peak, plot, args)
    print("\nCost of a token, longest row over shortest:")
    for step, case in dict.fromkeys((row["step"], row["case"]) for row in rows):
        same = [row for row in rows if (row["step"], row["case"]) == (step, case)]
        ratio = same[0]["tokens_per_second"] / same[-1]["tokens_per_second"]
        print(f"- {step}, {case}: {ratio:.2f} ({same[-1]['length']} over {same[0]['length']} tokens)")


if __name__ == "__main__":
    main()
