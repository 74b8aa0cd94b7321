#!/usr/bin/env python
"""
Measures reranking: pairs per second, tokenization included.

    python benchmarks/ranking.py
    python benchmarks/ranking.py --model output/clir-bertlong
    python benchmarks/ranking.py --model intfloat/multilingual-e5-small --train

Models of the same size with random weights score four questions (by default) with eight paragraphs each, in another
language:

- BertLong (ours): `modeling_clir.reranker.Reranker`, pairs of up to 1024 tokens.
- Longformer: Hugging Face's, pairs of up to 1024 tokens sorted by length, 8 a batch, padded to the longest.
- 2021 recipe: Longformer, unsorted pairs, 8 a batch, each padded to 1024 tokens.
- CrossEncoder: sentence-transformers' on a plain BERT, which sees the first 512 tokens of a pair.

`tokens` counts the tokens that the model sees, `tokens cut` the tokens that it does not see.

With --model one model (folder or Hub name; a model without a relevance head gets a random one) is measured in two
programs: our Reranker, and sentence-transformers' CrossEncoder with 8 pairs a batch and with its own 32. Both sort the
pairs by length, and cut to the same number of tokens. `MAP` is over the questions; the first paragraph of a question
is the relevant one. With --train it is finetuned on the questions, forward and backward: as `run_clir.py` reads a
batch, and padded to the longest pair.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import torch
from measure import (
    LONGFORMER,
    OURS,
    RECIPE,
    RERANKER,
    Work,
    benchmark_parser,
    bertlong_config,
    count_flops,
    forward,
    longformer_config,
    measure,
    model_size,
    padded_batches,
    pair_encoder,
    parse,
    plot_bars,
    positive,
    random_model,
    read_texts,
    report,
    with_compiled,
    with_global_attention,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

from modeling_clir.evaluation.ranking import evaluate_run
from modeling_clir.losses import ranking_loss
from modeling_clir.reranker import EncodedPairs, Reranker
from modeling_clir.training.ranking import pair_logits, save_reranker


CANDIDATES = 8  # paragraphs of a question
BATCH_SIZE = 8
MAX_LENGTH = 1024
MAX_QUERY_LENGTH = 64  # of --model, which may have few positions


def candidates(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Returns the pairs. Each question is repeated for `CANDIDATES` paragraphs in a row."""
    questions, paragraphs = read_texts(args, args.pairs)
    return [questions[i - i % CANDIDATES] for i in range(args.pairs)], paragraphs


def ranking_work(rank, encode, max_length: int, args: argparse.Namespace, full: bool = False) -> Work:
    """Makes the [`Work`] of a ranker. `rank` scores all pairs; `encode` gives the rows that the model sees."""
    texts = candidates(args)
    seen = [(len(types), types.index(1)) for types in encode(*texts)["token_type_ids"]]
    tokens = [length for length, _ in seen]
    whole = sum(len(row) for row in pair_encoder(10**6)(*texts)["input_ids"])
    flops = sum(count_flops(args, *row, full=full) for row in seen)
    return Work([rank], tokens, flops, {"max_length": max_length, "tokens_cut": whole - sum(tokens)})


def ours(args: argparse.Namespace, compiled: bool = False) -> Work:
    model = random_model(AutoModelForSequenceClassification, bertlong_config(args), args, compiled=compiled)
    reranker = Reranker(model, pair_encoder(MAX_LENGTH).tokenizer, MAX_LENGTH)
    pairs = list(zip(*candidates(args)))
    return ranking_work(lambda: reranker.score(pairs, progress=False), reranker.encoder, MAX_LENGTH, args)


def longformer(args: argparse.Namespace, recipe: bool = False, compiled: bool = False) -> Work:
    model = random_model(AutoModelForSequenceClassification, longformer_config(args), args, compiled=compiled)
    encoder, texts = pair_encoder(MAX_LENGTH), candidates(args)
    padding = {"pad_to": MAX_LENGTH} if recipe else {"longest_first": True}

    def rank():
        batches = padded_batches(encoder, *texts, BATCH_SIZE, args.device, **padding)
        return [forward(model, with_global_attention(batch)).logits.tolist() for batch in batches]

    return ranking_work(rank, encoder, MAX_LENGTH, args)


def cross_encoder(args: argparse.Namespace, compiled: bool = False) -> Work:
    from sentence_transformers import CrossEncoder  # in the "evaluation" extra

    tokenizer, limit = pair_encoder(MAX_LENGTH).tokenizer, 512
    with tempfile.TemporaryDirectory() as folder:
        config = BertConfig(max_position_embeddings=limit, **model_size(args))
        random_model(AutoModelForSequenceClassification, config, args).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        dtype = getattr(torch, args.dtype)
        model = CrossEncoder(folder, max_length=limit, device=args.device, model_kwargs={"dtype": dtype})
    if compiled:
        model.model.base_model.compile()  # `CrossEncoder` calls `forward` of the outer model, which would not compile
    pairs = list(zip(*candidates(args)))
    return ranking_work(
        lambda: model.predict(pairs, batch_size=BATCH_SIZE, show_progress_bar=False),
        partial(tokenizer, truncation=True, max_length=limit),
        limit,
        args,
        full=True,
    )


# ---------------------------------------------------------------------------------------------------------------------
# One model in two programs
# ---------------------------------------------------------------------------------------------------------------------


def measured_work(rank, tokens: list[int], max_length: int, args: argparse.Namespace) -> Work:
    """Makes the [`Work`] of a ranker that returns the scores of all pairs."""
    run, qrels = {}, {}
    for i, score in enumerate(rank()):
        query = str(i - i % CANDIDATES)
        run.setdefault(query, {})[str(i)] = float(score)
        qrels.setdefault(query, {str(i): 1})
    columns = {"max_length": max_length, "tokens_cut": whole_tokens(args) - sum(tokens)}
    return Work([rank], tokens, None, columns | {"MAP": evaluate_run(run, qrels)["MAP"]})


def whole_tokens(args: argparse.Namespace) -> int:
    tokenizer = AutoTokenizer.from_pretrained(args.model, model_max_length=10**6)
    return sum(len(row) for row in tokenizer(*candidates(args))["input_ids"])


def model_in_reranker(args: argparse.Namespace) -> Work:
    reranker = Reranker.from_pretrained(args.model, None, MAX_QUERY_LENGTH, dtype=getattr(torch, args.dtype))
    reranker.model.to(args.device)
    pairs = list(zip(*candidates(args)))
    lengths = EncodedPairs(reranker.encoder, pairs).lengths.tolist()
    return measured_work(lambda: reranker.score(pairs, progress=False), lengths, reranker.encoder.max_length, args)


def model_in_cross_encoder(args: argparse.Namespace, batch_size: int) -> Work:
    from sentence_transformers import CrossEncoder  # in the "evaluation" extra

    limit = Reranker.from_pretrained(args.model, None, MAX_QUERY_LENGTH).encoder.max_length
    options = {"max_length": limit, "device": args.device, "activation_fn": torch.nn.Identity()}
    model = CrossEncoder(args.model, model_kwargs={"dtype": getattr(torch, args.dtype)}, **options)
    questions, paragraphs = candidates(args)
    rows = model.tokenizer(questions, paragraphs, truncation=True, max_length=limit)["input_ids"]
    pairs = list(zip(questions, paragraphs))
    return measured_work(
        lambda: model.predict(pairs, batch_size=batch_size, show_progress_bar=False),
        [len(row) for row in rows],
        limit,
        args,
    )


def padded_logits(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs).logits


def model_in_training(args: argparse.Namespace, score) -> Work:
    reranker = Reranker.from_pretrained(args.model, None, MAX_QUERY_LENGTH, dtype=getattr(torch, args.dtype))
    model = reranker.model.to(args.device).train()
    inputs = list(padded_batches(reranker.encoder, *candidates(args), CANDIDATES, args.device))

    def step(batch):
        ranking_loss(score(model, batch), CANDIDATES, "listwise").backward()
        model.zero_grad()

    masks = [batch["attention_mask"] for batch in inputs]
    tokens = [length for mask in masks for length in mask.sum(1).tolist()]
    padding = 1 - sum(tokens) / sum(mask.numel() for mask in masks)
    return Work([partial(step, batch) for batch in inputs], tokens, None, {"padding": padding})


def measure_model(args: argparse.Namespace):
    torch.manual_seed(args.seed)
    reranker = Reranker.from_pretrained(args.model, None, MAX_QUERY_LENGTH, new_head=True, dtype=torch.float32)
    config, name = reranker.model.config, args.model
    args.layers, args.hidden_size, args.vocab_size = config.num_hidden_layers, config.hidden_size, config.vocab_size
    with tempfile.TemporaryDirectory() as folder:  # both programs open the same weights, a new head included
        save_reranker(reranker, Path(folder))
        args.model = folder
        del reranker
        if args.train:
            scores = {RERANKER: pair_logits, "padded": padded_logits}
            cases = {name: partial(model_in_training, score=score) for name, score in scores.items()}
        else:
            others = {f"CrossEncoder, {n} a batch": n for n in (BATCH_SIZE, 32)}
            cases = {name: partial(model_in_cross_encoder, batch_size=n) for name, n in others.items()}
            cases = {RERANKER: model_in_reranker} | cases
        rows, peak = measure([({}, cases)], args)
    args.model = name
    kind, work = ("ranking_model_training", "Finetuning on") if args.train else ("ranking_model", "Reranking")
    report(kind, f"{work} {args.pairs} pairs with {name}", rows, peak, plot_bars, args)


def main(argv: list[str] | None = None):
    parser = benchmark_parser(__doc__)
    parser.add_argument("--pairs", type=positive, default=32)
    parser.add_argument("--model", help="measure this model in our Reranker and in CrossEncoder")
    parser.add_argument("--train", action="store_true", help="with --model: measure finetuning")
    args = parse(parser, argv)
    if args.train and not (args.model and args.pairs % CANDIDATES == 0):
        parser.error(f"--train needs --model, and --pairs that are a multiple of {CANDIDATES}")
    if args.model:
        return measure_model(args)
    cases = {OURS: ours, LONGFORMER: longformer, "CrossEncoder (512)": cross_encoder}
    cases = with_compiled(cases, args) | {RECIPE: partial(longformer, recipe=True)}
    rows, peak = measure([({}, cases)], args)
    report("ranking", f"Reranking {args.pairs} pairs", rows, peak, plot_bars, args)


if __name__ == "__main__":
    main()
