#!/usr/bin/env python
"""
Measures on one GPU what it does for pretraining and ranking, in one table. `benchmarks/gpu.sh` calls this.

    benchmarks/gpu.sh
    benchmarks/gpu.sh --lengths 512 4096 --tokens 32768

Steps are forward and backward of query language modelling (QLM) and relevance ranking (RR), and ranking without
gradients. Models with random weights get rows of random tokens, of which the first 32 are the query:

- BertLong (ours): by sdpa, the default; and by eager, flex_attention and varlen, and compiled.
- Longformer: Hugging Face's, of the same size. It computes logits at every position.
- ModernBERT: of the base size (22 layers), by flash_attention_2 where it is installed, else by its sdpa.
- CrossEncoder: sentence-transformers' on a plain BERT of the same size as BertLong and as many positions as the row
  has tokens. It ranks texts, so tokenization is included.

No model drops attention weights, because flex_attention and varlen cannot. Predicted are 10 tokens of each query. A
case that runs out of memory is left out, and the log says so. MFU is the rate of floating-point operations that the
tokens need over the rate of a large matrix product in the same run; ModernBERT's are not counted. On a CPU the compiled
case is left out, and flex_attention where it would need gradients.
"""

import argparse
import tempfile
from functools import partial

import torch
from length import QUERY
from matplotlib.figure import Figure
from measure import (
    LONGFORMER,
    OURS,
    REPOSITORY,
    Work,
    benchmark_parser,
    bertlong_config,
    count_flops,
    forward,
    longformer_config,
    measure,
    model_size,
    parse,
    positive,
    random_model,
    report,
    train,
    with_global_attention,
    work_of,
)
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    BertConfig,
    ModernBertConfig,
)
from transformers.utils import is_flash_attn_2_available

from modeling_clir.loading import load_tokenizer
from modeling_clir.losses import ranking_loss


GROUP_SIZE = 2  # pairs of an example of RR


def rows(args: argparse.Namespace, length: int) -> int:
    """An even number of rows, of `args.tokens` tokens together as far as that goes."""
    return max(1, args.tokens // length // 2) * 2


def batch(args: argparse.Namespace, task: str, length: int, vocab_size: int) -> dict[str, torch.Tensor]:
    """Draws rows of random tokens, `(rows, length)`; for QLM with labels at a third of the query's tokens."""
    shape = rows(args, length), length
    place = torch.arange(length).expand(shape)
    inputs = {"input_ids": torch.randint(5, vocab_size, shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
    inputs["token_type_ids"] = (place >= QUERY).long()
    if task == "QLM":
        predicted = (place < QUERY) & (place % 3 == 1) & (place < QUERY - 2)
        inputs["labels"] = torch.where(predicted, inputs["input_ids"], -100)
    return {name: tensor.to(args.device) for name, tensor in inputs.items()}


def step_work(args: argparse.Namespace, task: str, model, inputs: dict, call) -> Work:
    """Makes the [`Work`] of one step. `call` gives the output of the model."""
    if task == "rank":
        return work_of([partial(forward, call, {})], [inputs], args)

    def loss():
        output = call()
        if task == "QLM":
            return output.loss
        return ranking_loss(output.relevance_logits if "relevance_logits" in output else output.logits, GROUP_SIZE)

    return work_of([partial(train, loss, model, args)], [inputs], args, training=True)


def ours(
    args: argparse.Namespace, task: str, length: int, implementation: str = "sdpa", compiled: bool = False
) -> Work:
    config = bertlong_config(args, positions=max(args.lengths))
    config._attn_implementation, config.attention_probs_dropout_prob = implementation, 0.0
    training = task != "rank"
    auto_class = AutoModelForPreTraining if training else AutoModelForSequenceClassification
    model = random_model(auto_class, config, args, training, compiled)
    inputs = batch(args, task, length, args.vocab_size)
    options = {"task": task.lower(), "sparse_prediction": True} if training else {}
    return step_work(args, task, model, inputs, partial(model, **inputs, **options))


def auto_class_of(task: str):
    return AutoModelForMaskedLM if task == "QLM" else AutoModelForSequenceClassification


def longformer(args: argparse.Namespace, task: str, length: int) -> Work:
    config = longformer_config(args, positions=max(args.lengths))
    config.attention_probs_dropout_prob = 0.0
    model = random_model(auto_class_of(task), config, args, training=task != "rank")
    inputs = batch(args, task, length, args.vocab_size)
    return step_work(args, task, model, inputs, partial(model, **with_global_attention(inputs)))


def modernbert(args: argparse.Namespace, task: str, length: int) -> Work:
    config = ModernBertConfig(
        hidden_size=args.hidden_size,
        intermediate_size=args.hidden_size * 3 // 2,
        num_attention_heads=args.hidden_size // 64,
        num_hidden_layers=args.modernbert_layers,
        max_position_embeddings=max(args.lengths),
        num_labels=1,
        sparse_prediction=True,
    )
    flash = args.device == "cuda" and is_flash_attn_2_available()
    config._attn_implementation = "flash_attention_2" if flash else "sdpa"
    model = random_model(auto_class_of(task), config, args, training=task != "rank")
    inputs = batch(args, task, length, config.vocab_size)
    seen = {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}
    work = step_work(args, task, model, inputs, partial(model, **seen))
    work.flops = None
    return work


def cross_encoder(args: argparse.Namespace, length: int) -> Work:
    from sentence_transformers import CrossEncoder  # in the "evaluation" extra

    tokenizer, number = load_tokenizer(str(REPOSITORY / "base")), rows(args, length)
    with tempfile.TemporaryDirectory() as folder:
        config = BertConfig(max_position_embeddings=length, **model_size(args))
        random_model(AutoModelForSequenceClassification, config, args).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        options = {"max_length": length, "device": args.device, "model_kwargs": {"dtype": getattr(torch, args.dtype)}}
        model = CrossEncoder(folder, **options)
    pairs = [("wer entdeckte radium ?", "marie curie . " * length)] * number  # cut to `length` tokens
    cut = [len(ids) for ids in tokenizer(*zip(*pairs), truncation=True, max_length=length)["input_ids"]]
    flops = count_flops(args, length, QUERY, full=True) * number
    return Work(
        [partial(model.predict, pairs, batch_size=number, show_progress_bar=False)], cut, flops, {"padding": 0.0}
    )


def plot_tasks(figure: Figure, found: list[dict]):
    """Plots tokens per second by the length of a row, a panel for each step."""
    names = list(dict.fromkeys(row["case"] for row in found))
    tasks = list(dict.fromkeys(row["step"] for row in found))
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks):
        for number, name in enumerate(names):
            points = [
                (row["length"], row["tokens_per_second"])
                for row in found
                if (row["step"], row["case"]) == (task, name)
            ]
            axes.plot(*zip(*points) if points else ([], []), marker="o", color=f"C{number}", label=name)
        axes.set(xlabel="length of the row (tokens)", ylabel=f"{task} (tokens/s)")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)


def cases_of(args: argparse.Namespace) -> list[tuple[dict, dict]]:
    """The groups of [`measure`]: for each step and length the cases."""
    groups = []
    for task in ("QLM", "RR", "rank"):
        for length in sorted(args.lengths):
            cases = {OURS: ours}
            for name in ("eager", "flex_attention", "varlen"):
                if name != "flex_attention" or args.device == "cuda" or task == "rank":
                    cases[f"BertLong, {name}"] = partial(ours, implementation=name)
            if args.device == "cuda":
                cases["BertLong, compiled"] = partial(ours, compiled=True)
            cases |= {LONGFORMER: longformer, "ModernBERT": modernbert}
            cases = {name: partial(case, task=task, length=length) for name, case in cases.items()}
            if task == "rank":
                cases["CrossEncoder"] = partial(cross_encoder, length=length)
            groups.append(({"step": task, "length": length}, cases))
    return groups


def options() -> argparse.ArgumentParser:
    parser = benchmark_parser(__doc__, texts=False)
    parser.add_argument("--lengths", type=positive, nargs="+", default=[512, 4096, 8192])
    parser.add_argument("--tokens", type=positive, default=16384, help="tokens of a step, over all rows (16384)")
    parser.add_argument("--modernbert_layers", type=positive, default=22)
    return parser


def main(argv: list[str] | None = None):
    parser = options()
    args = parse(parser, argv)
    if min(args.lengths) <= QUERY:
        parser.error(f"--lengths must be more than the {QUERY} tokens of the query, got {min(args.lengths)}")
    found, peak = measure(cases_of(args), args)
    report("gpu", "Pretraining and ranking on one GPU", found, peak, plot_tasks, args)


if __name__ == "__main__":
    main()
