#!/usr/bin/env python
"""
Measures a step of pretraining: forward and backward of query language modelling (QLM) and relevance ranking (RR),
without the optimizer's update.

    python benchmarks/pretraining_step.py

Models of the same size with random weights get the same pairs of a question and a paragraph in another language, with
the same masks:

- BertLong (ours): unsorted pairs, 4 a batch, logits at the masked tokens.
- Longformer: Hugging Face's, used with care: pairs sorted by length, 4 a batch, padded to the longest. It computes
  logits at every position.
- 2021 recipe: Longformer, 2 a batch, each padded to 1024 tokens, logits at every position.

In RR a question makes two pairs: one with its own paragraph, and one with another question's paragraph (the negative).
"""

import argparse
from functools import partial

from measure import (
    LONGFORMER,
    OURS,
    RECIPE,
    Work,
    benchmark_parser,
    bertlong_config,
    longformer_config,
    measure,
    pair_encoder,
    parse,
    plot_bars,
    positive,
    random_model,
    read_texts,
    report,
    train,
    with_compiled,
    with_global_attention,
    work_of,
)
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoModelForSequenceClassification

from modeling_clir.data.collators import PretrainingCollator
from modeling_clir.data.sections import Example
from modeling_clir.losses import ranking_loss


MAX_LENGTH = 1024
GROUP_SIZE = {"qlm": 1, "rr": 2}  # pairs of an example


def examples(task: str, args: argparse.Namespace) -> list[Example]:
    """Makes as many examples as give `args.pairs` pairs."""
    questions, paragraphs = read_texts(args, args.pairs)
    number = args.pairs // GROUP_SIZE[task]
    documents = [paragraphs[i::number] for i in range(number)]
    pair = f"{args.source}-{args.target}"
    return [Example(task, pair, questions[i], documents[i], f"{args.seed}-{i}", False) for i in range(number)]


def batches(task: str, args: argparse.Namespace, batch_size: int, longest_first=False, pad_to=None) -> list[dict]:
    """Returns inputs of the model, `batch_size` pairs each, with `labels` for QLM."""
    encoder = pair_encoder(MAX_LENGTH)
    collator = PretrainingCollator(encoder, pad_to_multiple_of=pad_to)
    chosen = examples(task, args)
    if longest_first:
        chosen.sort(
            key=lambda one: -max(map(len, encoder([one.query] * len(one.documents), one.documents)["input_ids"]))
        )
    size = batch_size // GROUP_SIZE[task]
    names = (*encoder.tokenizer.model_input_names, "labels")
    return [
        {
            name: tensor.to(args.device)
            for name, tensor in collator(chosen[start : start + size]).items()
            if name in names
        }
        for start in range(0, len(chosen), size)
    ]


def ours(args: argparse.Namespace, task: str, compiled: bool = False) -> Work:
    model = random_model(AutoModelForPreTraining, bertlong_config(args), args, training=True, compiled=compiled)
    inputs = batches(task, args, batch_size=4)

    def loss(batch):
        output = model(**batch, task=task)
        return output.loss if task == "qlm" else ranking_loss(output.relevance_logits, GROUP_SIZE[task])

    return work_of(
        [partial(train, partial(loss, batch), model, args) for batch in inputs], inputs, args, training=True
    )


def longformer(args: argparse.Namespace, task: str, recipe: bool = False, compiled: bool = False) -> Work:
    auto_class = AutoModelForMaskedLM if task == "qlm" else AutoModelForSequenceClassification
    model = random_model(auto_class, longformer_config(args), args, training=True, compiled=compiled)
    if recipe:
        inputs = batches(task, args, batch_size=2, pad_to=MAX_LENGTH)
    else:
        inputs = batches(task, args, batch_size=4, longest_first=True)

    def loss(batch):
        output = model(**with_global_attention(batch))
        return output.loss if task == "qlm" else ranking_loss(output.logits, GROUP_SIZE[task])

    return work_of(
        [partial(train, partial(loss, batch), model, args) for batch in inputs], inputs, args, training=True
    )


def main(argv: list[str] | None = None):
    parser = benchmark_parser(__doc__)
    parser.add_argument("--pairs", type=positive, default=8, help="pairs per round, an even number (8)")
    args = parse(parser, argv)
    if args.pairs % 2:
        parser.error(f"--pairs must be even, got {args.pairs}")
    groups = []
    for task in ("qlm", "rr"):
        cases = {OURS: partial(ours, task=task), LONGFORMER: partial(longformer, task=task)}
        cases = with_compiled(cases, args) | {RECIPE: partial(longformer, task=task, recipe=True)}
        groups.append(({"task": task.upper()}, cases))
    rows, peak = measure(groups, args)
    report("pretraining_step", "Pretraining: forward and backward", rows, peak, plot_bars, args)


if __name__ == "__main__":
    main()
