"""
Code that the benchmarks share: options, texts, models of one size, the count of floating-point operations, measuring
with a process per case, and the table, CSV and plot of the results.
"""

import argparse
import csv
import math
import multiprocessing
import random
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import transformers
from matplotlib.figure import Figure
from transformers import LongformerConfig

from modeling_clir import BertLongConfig
from modeling_clir.data.collections import read_qrels, read_queries
from modeling_clir.data.corpus import read_documents, read_questions, read_squad
from modeling_clir.data.pairs import PairEncoder
from modeling_clir.loading import load_tokenizer


REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"  # as in tests/shared.py
WINDOW = 64
OURS, LONGFORMER, RECIPE = "BertLong (ours)", "Longformer", "2021 recipe"
RERANKER = "Reranker (ours)"  # of any model
MATMUL_SIZE, MATMULS = {"cpu": 2048, "cuda": 8192}, {"cpu": 1, "cuda": 20}


# ---------------------------------------------------------------------------------------------------------------------
# Options
# ---------------------------------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text}")
    return int(text)


def benchmark_parser(description: str, texts: bool = True, repeats: int = 3) -> argparse.ArgumentParser:
    """Makes a parser with the options of every benchmark, and with `texts` the options of [`read_texts`]."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=positive, default=12)
    parser.add_argument(
        "--hidden_size", type=positive, default=768, help="a head has 64, the feed-forward layer 4 times it (768)"
    )
    parser.add_argument("--vocab_size", type=positive, default=105879, help="multilingual BERT's by default")
    parser.add_argument("--repeats", type=positive, default=repeats, help=f"rounds that are timed ({repeats})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda also measures compiled models")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="precision of all cases (default: float32 on a CPU, bfloat16 on a GPU)",
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "results", help="folder of the CSV and the plot")
    if texts:
        parser.add_argument(
            "--data", type=Path, help="folder of parallel SQuAD files *.LANGUAGE.json (default: the project's sample)"
        )
        parser.add_argument("--source", default="en", help="language of the questions (en)")
        parser.add_argument("--target", default="de", help="language of the paragraphs (de)")
    return parser


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parses and checks the options. A wrong option ends the program with a line that names it."""
    args = parser.parse_args(argv)
    if args.hidden_size % 64:
        parser.error(f"--hidden_size must be a multiple of 64, got {args.hidden_size}")
    words = len(load_tokenizer(str(REPOSITORY / "base")))
    if args.vocab_size < words:
        parser.error(
            f"--vocab_size must be at least {words}, the words of the tokenizer of base/; got {args.vocab_size}"
        )
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU")
    args.dtype = args.dtype or ("bfloat16" if args.device == "cuda" else "float32")
    if "data" in args:
        if args.data is None and (SHARED / "data/xquad").is_dir():
            args.data = SHARED / "data/xquad"
        try:
            read_texts(args, args.pairs)
        except (OSError, ValueError) as error:
            parser.error(str(error))
    return args


# ---------------------------------------------------------------------------------------------------------------------
# Texts, inputs and models
# ---------------------------------------------------------------------------------------------------------------------


def read_texts(args: argparse.Namespace, number: int) -> tuple[list[str], list[str]]:
    """
    Draws paragraphs in `args.target` by the seed, and a question about each in `args.source`. Reads the SQuAD files in
    `args.data`, or the project's sample.

    Returns:
        The questions and the paragraphs, `number` of each.

    Raises `FileNotFoundError` if a file is missing, and `ValueError` if there are fewer than `number` paragraphs.
    """
    languages = [args.source, args.target]
    if args.data:
        sections = read_squad(args.data, languages)
        questions, qrels = read_questions(args.data, languages)
        if missing := [language for language in languages if language not in questions]:
            raise FileNotFoundError(f"{args.data} has no file *.{missing[0]}.json")
        questions = questions[args.source]
        judged = [(question, section) for question, relevant in qrels.items() for section in relevant]
    else:
        sections, questions, judged = [], {}, []
        for part in ("train", "test"):
            folder = REPOSITORY / "sample" / part
            sections += read_documents(folder, languages)
            questions |= read_queries(folder / f"queries.{args.source}.tsv")
            judged += [(query, f"{part}/{document}") for _, query, document, _ in read_qrels(folder / "qrels.txt")]
    paragraphs = {section.key: section.text[args.target] for section in sections}
    asked = {}
    for question, section in judged:
        asked.setdefault(section, []).append(questions[question])
    if len(asked) < number:
        raise ValueError(f"there are only {len(asked)} paragraphs with a question, not {number}")
    rng = random.Random(args.seed)
    chosen = rng.sample(sorted(asked), number)
    return [rng.choice(asked[section]) for section in chosen], [paragraphs[section] for section in chosen]


def pair_encoder(max_length: int) -> PairEncoder:
    return PairEncoder(load_tokenizer(str(REPOSITORY / "base")), max_length)


def padded_batches(
    encoder: PairEncoder,
    questions: list[str],
    paragraphs: list[str],
    batch_size: int,
    device: str,
    longest_first: bool = False,
    pad_to: int | None = None,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yields batches of the pairs, unsorted or longest first, padded to their longest row or to `pad_to` tokens."""
    encoded = encoder(questions, paragraphs)
    names = encoder.tokenizer.model_input_names
    rows = [{name: encoded[name][i] for name in names} for i in range(len(questions))]
    if longest_first:
        rows.sort(key=lambda row: -len(row["input_ids"]))
    for start in range(0, len(rows), batch_size):
        batch = encoder.tokenizer.pad(
            rows[start : start + batch_size],
            padding="max_length" if pad_to else "longest",
            max_length=pad_to,
            return_tensors="pt",
        )
        yield {name: batch[name].to(device) for name in names}


def with_global_attention(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Marks the query's tokens for Longformer, which does not find them itself."""
    query = (inputs["token_type_ids"] == 0) & (inputs["attention_mask"] == 1)
    return inputs | {"global_attention_mask": query.long()}


def model_size(args: argparse.Namespace) -> dict:
    """Returns the options of a configuration. By default they are the sizes of multilingual BERT."""
    return {
        "vocab_size": args.vocab_size,
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.hidden_size // 64,
        "intermediate_size": 4 * args.hidden_size,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "num_labels": 1,
    }


def bertlong_config(args: argparse.Namespace, positions: int = 1024) -> BertLongConfig:
    return BertLongConfig(attention_window=WINDOW, max_position_embeddings=positions, **model_size(args))


def longformer_config(args: argparse.Namespace, positions: int = 1024) -> LongformerConfig:
    """Adds a position, because Longformer numbers its positions from `pad_token_id + 1`."""
    return LongformerConfig(
        attention_window=[WINDOW] * args.layers, max_position_embeddings=positions + 1, **model_size(args)
    )


def random_model(auto_class, config, args: argparse.Namespace, training: bool = False, compiled: bool = False):
    """
    Builds a model with random weights. It trains with float32 weights, under autocast if `args.dtype` is bfloat16. It
    ranks with weights in `args.dtype`.
    """
    dtype = torch.float32 if training else getattr(torch, args.dtype)
    model = auto_class.from_config(config, dtype=dtype).to(args.device).train(training)
    if compiled:
        model.compile()
    return model


def forward(model, inputs: dict[str, torch.Tensor]):
    with torch.inference_mode():
        return model(**inputs)


def train(loss: Callable[[], torch.Tensor], model, args: argparse.Namespace):
    """Runs forward and backward, without the optimizer's update."""
    with torch.autocast(args.device, dtype=torch.bfloat16, enabled=args.dtype == "bfloat16"):
        value = loss()
    value.backward()
    model.zero_grad()


def with_compiled(cases: dict[str, Callable], args: argparse.Namespace) -> dict[str, Callable]:
    """On a GPU adds each case a second time, compiled. Each of `cases` takes the argument `compiled`."""
    if args.device == "cpu":
        return cases
    return cases | {f"{name}, compiled": partial(build, compiled=True) for name, build in cases.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Floating-point operations
# ---------------------------------------------------------------------------------------------------------------------


def count_flops(
    args: argparse.Namespace, tokens: int, query: int, labelled: int | None = None, full: bool = False
) -> int:
    """
    Counts the floating-point operations that the forward pass of one row needs. A multiplication and an addition are
    two operations. The count depends on the row's real tokens and is the same for every implementation: padding,
    masked keys of a block and unread logits are not counted, so they lower the share of the peak. Backward counts as
    twice forward.

    With n tokens, q of them global (`[CLS] query [SEP]`), hidden size D, intermediate size I:

    - linear layers, per layer: `query` of n - q and `query_global` of q tokens, `key`, `value`, `key_global`,
      `value_global` and the output projection of n, 2 D^2 each: 12 n D^2; the two of the feed-forward network: 4 n D
      I;
    - attention, per layer: 4 D (scores, weighted sum) for each pair of a token and a token that it attends to. Global
      tokens make q n pairs; each local token makes a pair with the q global tokens and with the local tokens up to
      half a window away;
    - the last layer: keys and values of all tokens, the rest only of the r tokens that are read (`[CLS]`, or the
      labelled tokens): 2 D^2 (2 n + 2 r) + 4 r D I + 4 D r n;
    - head: 2 D^2 + 2 D vocab_size at each labelled position; without labels pooler and classifier, 2 D^2 + 2 D.

    `full` is a plain BERT, in which every token attends to every token: per layer 8 n D^2 + 4 n D I + 4 D n^2.

    Embeddings, layer norms, softmax, activations and dropout are not counted.

    Args:
        tokens (`int`), query (`int`): n and q.
        labelled (`int`, *optional*): number of predicted tokens. Without it the row is ranked.
        full (`bool`, defaults to `False`): count full attention.
    """
    width, inner = args.hidden_size, 4 * args.hidden_size
    read = 1 if labelled is None else labelled
    local = tokens - query
    near = local + 2 * sum(min(place, WINDOW // 2) for place in range(local))
    attended = tokens**2 if full else query * tokens + local * query + near
    layer = (8 if full else 12) * tokens * width**2 + 4 * tokens * width * inner + 4 * width * attended
    last = 2 * width**2 * (2 * tokens + 2 * read) + 4 * read * width * inner + 4 * width * read * tokens
    if labelled is None:
        head = 2 * width**2 + 2 * width
    else:
        head = labelled * (2 * width**2 + 2 * width * args.vocab_size)
    return (args.layers - 1) * layer + last + head


def flops_of(args: argparse.Namespace, batches: list[dict[str, torch.Tensor]], training: bool = False) -> int:
    """Sums [`count_flops`] over all rows of the batches; adds backward for training."""
    total = 0
    for batch in batches:
        mask = batch["attention_mask"] == 1
        query = ((batch["token_type_ids"] == 0) & mask).sum(1).tolist()
        labelled = (batch["labels"] != -100).sum(1).tolist() if "labels" in batch else [None] * len(mask)
        total += sum(count_flops(args, *row) for row in zip(mask.sum(1).tolist(), query, labelled))
    return total * (3 if training else 1)


# ---------------------------------------------------------------------------------------------------------------------
# Measuring
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Work:
    """
    The work of a case in a round.

    Attributes:
        steps (`list[Callable]`): steps that run in order and are timed together. On a CPU the first step is the
            warm-up, so it should be the largest; on a GPU all steps are.
        tokens (`list[int]`): tokens of each pair as the model sees it, padding excluded.
        flops (`float`, *optional*): see [`count_flops`]. Without it the table has no share of the peak.
        columns (`dict`): more columns of the table.
    """

    steps: list[Callable[[], object]]
    tokens: list[int]
    flops: float | None
    columns: dict = field(default_factory=dict)


def work_of(
    steps: list[Callable[[], object]],
    batches: list[dict[str, torch.Tensor]],
    args: argparse.Namespace,
    training: bool = False,
    **columns,
) -> Work:
    """Makes the work on batches, with the share of their positions that are padding."""
    tokens = [tokens for batch in batches for tokens in batch["attention_mask"].sum(1).tolist()]
    padding = 1 - sum(tokens) / sum(batch["attention_mask"].numel() for batch in batches)
    return Work(steps, tokens, flops_of(args, batches, training), {"padding": padding, **columns})


def multiply(args: argparse.Namespace) -> Work:
    """Makes the work of multiplying square matrices, which shows the device's highest rate."""
    size, times = MATMUL_SIZE[args.device], MATMULS[args.device]
    matrices = torch.randn(2, size, size, dtype=getattr(torch, args.dtype), device=args.device)
    return Work([lambda: torch.matmul(*matrices)] * times, [size] * times, 2 * size**3 * times)


def forget_peak(args: argparse.Namespace):
    """Resets the peak of memory before the rounds, because building a model may hold two copies for a moment."""
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif (counter := Path("/proc/self/clear_refs")).exists():  # Linux
        counter.write_text("5", encoding="utf-8")


def peak_memory(args: argparse.Namespace) -> float:
    """Returns the peak in GiB. On a CPU it is that of the process, Python and its libraries included."""
    if args.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def serve(build: Callable[[argparse.Namespace], Work], args: argparse.Namespace, connection):
    """Runs in the process of a case: sends the numbers of its [`Work`], then seconds and peak GiB for every "go"."""

    def synchronize():
        if args.device == "cuda":
            torch.cuda.synchronize()

    try:
        transformers.logging.set_verbosity_error()
        torch.manual_seed(args.seed)
        work = build(args)
        forget_peak(args)
        for step in work.steps if args.device == "cuda" else work.steps[:1]:
            step()
        synchronize()
        connection.send(("ready", (work.tokens, work.flops, work.columns)))
        while connection.recv() == "go":
            start = time.perf_counter()
            for step in work.steps:
                step()
            synchronize()
            seconds = time.perf_counter() - start
            connection.send(("done", (seconds, peak_memory(args))))
    except EOFError:  # the benchmark was interrupted
        pass
    except Exception as error:
        traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}"))


class CaseError(Exception):
    """A case could not be measured."""


class Case:
    """A process that builds its work and then does a round on demand. Raises [`CaseError`]."""

    # Forks a process that has the imports and has computed nothing: it starts quickly and has its own peak of memory.
    context = multiprocessing.get_context("forkserver")

    def __init__(self, build: Callable[[argparse.Namespace], Work], args: argparse.Namespace):
        self.connection, theirs = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(build, args, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.tokens, self.flops, self.columns = self.answer()
        self.seconds, self.peak = [], 0.0

    def answer(self):
        try:
            kind, value = self.connection.recv()
        except EOFError:
            self.process.join()
            raise CaseError(
                f"its process ended with exit code {self.process.exitcode}; -9 usually means that memory ran out"
            ) from None
        if kind == "failed":
            raise CaseError(value)
        return value

    def measure(self):
        self.connection.send("go")
        seconds, self.peak = self.answer()
        self.seconds.append(seconds)

    def stop(self):
        self.connection.close()
        self.process.join()


def measure(groups: list[tuple[dict, dict[str, Callable]]], args: argparse.Namespace) -> tuple[list[dict], float]:
    """
    Measures cases. Each case of a group is built and warmed up in its own process. Then the cases, and a product of
    matrices, do `args.repeats` rounds in turn while the other processes wait.

    Args:
        groups (`list[tuple[dict, dict[str, Callable]]]`): for each group its columns, and a dictionary of the cases:
            name to the function that makes a [`Work`] from `args`.

    Returns:
        The rows of the table, and the best rate of the matrix products in FLOP/s. A row has

        - the columns of the group, `case`, `pairs`, `tokens` (per round, padding excluded) and the columns of the
          work;
        - `seconds_per_pair` (median), `best_seconds_per_pair`, and `pairs_per_second` and `tokens_per_second` by the
          median;
        - `peak_memory_gib`: resident memory of the process, Python and libraries included; on a GPU the memory that
          torch allocated;
        - `speed_to_ours` and `speed_to_2021`: pairs per second divided by those of the same group's case;
        - `share_of_peak`: [`count_flops`] per second divided by the rate of the matrix products.

    A case that fails is reported and left out. Raises `SystemExit` if no case is left.
    """
    Case.context.set_forkserver_preload(["measure", "modeling_clir.reranker", "modeling_clir.data.collators"])
    matmul, rows = Case(multiply, args), []
    for columns, builders in groups:
        group = "".join(f"{name} {value}, " for name, value in columns.items())
        cases = {}
        for name, build in builders.items():
            try:
                cases[name] = Case(build, args)
            except CaseError as failure:
                print(f"{group}{name} is left out: {failure}", file=sys.stderr)
        for number in range(1, args.repeats + 1):
            matmul.measure()
            for name, case in list(cases.items()):
                try:
                    case.measure()
                    print(f"{group}{name}, round {number}: {case.seconds[-1]:.2f} s", file=sys.stderr)
                except CaseError as failure:
                    print(f"{group}{name} is left out: {failure}", file=sys.stderr)
                    del cases[name]
        median = {name: statistics.median(case.seconds) / len(case.tokens) for name, case in cases.items()}
        ours = OURS if OURS in median else RERANKER
        for name, case in cases.items():
            case.stop()
            pairs, tokens = len(case.tokens), sum(case.tokens)
            rows.append(
                {
                    **columns,
                    "case": name,
                    "pairs": pairs,
                    "tokens": tokens,
                    **case.columns,
                    "seconds_per_pair": median[name],
                    "best_seconds_per_pair": min(case.seconds) / pairs,
                    "pairs_per_second": 1 / median[name],
                    "tokens_per_second": tokens / pairs / median[name],
                    "peak_memory_gib": case.peak,
                    "speed_to_ours": median[ours] / median[name] if ours in median else None,
                    "speed_to_2021": median[RECIPE] / median[name] if RECIPE in median else None,
                    "share_of_peak": case.flops / pairs / median[name] if case.flops else None,  # see below
                }
            )
    matmul.stop()
    if not rows:
        sys.exit("error: no case could be measured")
    peak = max(matmul.flops / seconds for seconds in matmul.seconds)
    for row in rows:
        row["share_of_peak"] = row["share_of_peak"] and row["share_of_peak"] / peak
    return rows, peak


# ---------------------------------------------------------------------------------------------------------------------
# Table, CSV and plot
# ---------------------------------------------------------------------------------------------------------------------


HEADERS = {
    "seconds_per_pair": "s/pair (median)",
    "best_seconds_per_pair": "s/pair (best)",
    "pairs_per_second": "pairs/s",
    "tokens_per_second": "tokens/s",
    "peak_memory_gib": "peak GiB",
    "speed_to_ours": "x ours",
    "speed_to_2021": "x 2021",
    "share_of_peak": "of matmul peak",
}


def cell(name: str, value) -> str:
    if value is None:
        return "-"
    if name in ("share_of_peak", "padding"):
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"  # three digits
    return str(value)


def markdown(rows: list[dict], device: str) -> str:
    """Writes an aligned table without the columns that are empty."""
    names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    headers = [HEADERS.get(name, name.replace("_", " ")) for name in names]
    if device == "cuda":
        headers = ["MFU" if header == HEADERS["share_of_peak"] else header for header in headers]
    lines = [headers] + [[cell(name, row[name]) for name in names] for row in rows]
    numeric = [not isinstance(rows[0][name], str) for name in names]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    rule = ["-" * (width - 1) + (":" if right else "-") for width, right in zip(widths, numeric)]
    return "\n".join(
        "| "
        + " | ".join(text.rjust(w) if right else text.ljust(w) for text, w, right in zip(line, widths, numeric))
        + " |"
        for line in [lines[0], rule, *lines[1:]]
    )


def report(name: str, title: str, rows: list[dict], peak: float, plot: Callable, args: argparse.Namespace):
    """Prints the table and the conditions; writes `benchmark_{name}.csv` and `.png`."""
    texts = "random tokens"
    if "data" in args:
        texts = f"{args.data.name if args.data else 'the sample of the project'}, {args.source}-{args.target}"
    conditions = {
        **({"model": args.model} if "model" in args and args.model else {}),
        "device": args.device if args.device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "layers": args.layers,
        "hidden_size": args.hidden_size,
        "vocab_size": args.vocab_size,
        "seed": args.seed,
        "texts": texts,
        "matmul_gflops": round(peak / 1e9, 1),
    }
    described = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in conditions.items())
    args.output.mkdir(parents=True, exist_ok=True)
    with open(args.output / f"benchmark_{name}.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], *conditions])
        writer.writeheader()
        writer.writerows(row | conditions for row in rows)
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(title)
    plot(figure, rows)
    figure.savefig(args.output / f"benchmark_{name}.png", dpi=120)
    print(f"{title}\n\n{markdown(rows, args.device)}\n\n{described}, median of {args.repeats} round(s)")


def plot_bars(figure: Figure, rows: list[dict]):
    """Plots speed and peak memory of each row."""
    names = list(dict.fromkeys(row["case"] for row in rows))
    group = next(iter(rows[0]))
    labels = [row["case"] if group == "case" else f"{row[group]}, {row['case']}" for row in rows]
    panels = (("pairs_per_second", "speed (pairs/s)"), ("peak_memory_gib", "peak memory (GiB)"))
    for axes, (name, label) in zip(figure.subplots(1, 2, sharey=True), panels):
        bars = axes.barh(labels, [row[name] for row in rows], color=[f"C{names.index(row['case'])}" for row in rows])
        axes.bar_label(bars, [cell(name, row[name]) for row in rows], padding=3)
        axes.set_xlabel(label)
        axes.margins(x=0.15)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    axes.invert_yaxis()


def plot_lines(figure: Figure, rows: list[dict], x: str, label: str):
    """Plots seconds per pair, tokens per second and peak memory by the column `x`, on linear axes."""
    panels = (
        ("seconds_per_pair", "time (s/pair)"),
        ("tokens_per_second", "speed (tokens/s, without padding)"),
        ("peak_memory_gib", "peak memory (GiB)"),
    )
    lines = {}
    for row in rows:
        lines.setdefault(" ".join(row[name] for name in ("step", "case") if name in row), []).append(row)
    ticks = sorted({row[x] for row in rows})
    for axes, (name, quantity) in zip(figure.subplots(1, 3), panels):
        for line, points in lines.items():
            axes.plot([row[x] for row in points], [row[name] for row in points], marker="o", label=line)
        axes.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set(xlabel=label, ylabel=quantity)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(lines), frameon=False)
