"""
Aligns sentences (XSA) or documents (XDA) across languages by the vectors of an encoder (Yu, Fei, Li 2021).

Each text of one language finds the nearest text of the other language by cosine similarity. P@1 is the percentage of
texts that find their translation. The measure needs no training and no head: it compares the layers of a model.
"""

import csv
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from ..data.pairs import batches_by_length, plain_backend, tokens_at_once
from ..data.parallel import ParallelTexts
from ..loading import fit_tokenizer, longest_input
from ..reranker import TEXTS_AT_ONCE, distinct


logger = logging.get_logger(__name__)

CHUNK = 4096  # texts of each side in one matrix product
TIE = 1e-9  # cosines (in double precision) that differ by less are equal


@dataclass
class LayerVectors:
    """
    Vectors of texts in every layer.

    Attributes:
        vectors (`np.ndarray` of shape `(poolings, layers, distinct texts, hidden_size)`): float32, in a file. Layer 0
            has the embeddings.
        rows (`np.ndarray` of shape `(texts,)`): the place of each text in `vectors`. Texts of the same tokens share a
            place.
        cut (`np.ndarray` of shape `(texts,)`): whether the text was longer than `max_length`.
        poolings (`tuple[str, ...]`): `"mean"` is over all tokens, special tokens included and padding excluded.
            `"[CLS]"` follows if the tokenizer has that token.
    """

    vectors: np.ndarray
    rows: np.ndarray
    cut: np.ndarray
    poolings: tuple[str, ...]


@torch.inference_mode()
def encode_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    max_length: int | None = None,
    max_tokens_per_batch: int = 8192,
    folder: Path | None = None,
    progress: bool = True,
) -> LayerVectors:
    """
    Computes the vectors of texts in every layer. Texts of the same tokens are computed once; texts of similar length
    share a batch.

    Args:
        model (`PreTrainedModel`): an encoder that returns hidden states.
        tokenizer (`PreTrainedTokenizerBase`): any tokenizer. Special tokens written out in a text are text, see
            [`plain_backend`].
        texts (`list[str]`).
        max_length (`int`, *optional*): cuts texts to this many tokens. Defaults to what both model and tokenizer take.
        max_tokens_per_batch (`int`, defaults to 8192): rows of a batch times the tokens of its longest row, at most; see
            [`tokens_at_once`].
        folder (`Path`, *optional*): folder for the file of the vectors, which has no name there. Defaults to the
            folder of temporary files.
        progress (`bool`, defaults to `True`): show a bar on stderr.

    Raises `ValueError` for a length that the model does not take, for a tokenizer that is not the model's, and for
    vectors that are not numbers. Raises `OSError` if the folder has no room for the vectors.
    """
    max_length = longest_input(model, tokenizer, max_length)
    fit_tokenizer(tokenizer, model)
    backend = plain_backend(tokenizer)
    special = backend.num_special_tokens_to_add(False)
    if max_length <= special:
        raise ValueError(f"max_length ({max_length}) leaves no room for a text beside {special} special tokens")
    keys, cut = [], []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        for encoding in backend.encode_batch(texts[start : start + TEXTS_AT_ONCE], add_special_tokens=False):
            cut.append(len(encoding) > max_length - special)
            encoding.truncate(max_length - special, direction=tokenizer.truncation_side)
            keys.append(np.array(backend.post_process(encoding).ids, dtype=np.int32).tobytes())
    keys, rows = distinct(keys)
    inputs = [torch.from_numpy(np.frombuffer(key, dtype=np.int32).copy()) for key in keys]
    poolings = ("mean",) if tokenizer.cls_token_id is None else ("mean", "[CLS]")

    lengths, vectors = np.array([len(ids) for ids in inputs]), None
    for part in batches_by_length(lengths, tokens_at_once(model, max_tokens_per_batch), "encoding", "text", progress):
        ids = pad_sequence([inputs[i] for i in part], batch_first=True, padding_value=tokenizer.pad_token_id)
        mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths[part])[:, None]
        ids, mask = ids.long().to(model.device), mask.long().to(model.device)
        states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
        if vectors is None:
            vectors = in_a_file((len(poolings), len(states), len(inputs), states[0].shape[-1]), folder)
        for layer, pooled in enumerate(pool_tokens(states, mask, ids, tokenizer.cls_token_id)):
            if not np.isfinite(pooled).all():
                raise ValueError(
                    f"the vectors of layer {layer} are not numbers; the checkpoint has NaN weights, or its numbers "
                    "overflow"
                )
            vectors[:, layer, part] = pooled
    return LayerVectors(vectors, rows, np.array(cut), poolings)


def pool_tokens(states: tuple[torch.Tensor, ...], mask: torch.Tensor, ids: torch.Tensor, cls_token_id: int | None):
    """
    Yields for each layer the vectors `(poolings, rows, hidden_size)` of its states `(rows, length, hidden_size)`.
    `mask` and `ids` are `(rows, length)`. Without a `cls_token_id` the only pooling is the mean.
    """
    weights = (mask / mask.sum(1, keepdim=True))[:, None]
    first_cls = (ids == cls_token_id).int().argmax(1) if cls_token_id is not None else None
    for state in states:
        pooled = [(weights @ state.float())[:, 0]]
        if first_cls is not None:
            pooled.append(state[torch.arange(len(state), device=state.device), first_cls].float())
        yield torch.stack(pooled).cpu().numpy()


def in_a_file(shape: tuple[int, ...], folder: Path | None) -> np.ndarray:
    """Returns an array of float32 in a temporary file, outside memory. Raises `OSError` if the disk has no room."""
    with TemporaryFile(dir=folder) as file:
        size, free = 4 * int(np.prod(shape, dtype=float)), shutil.disk_usage(file.fileno()).free
        if size > free:
            raise OSError(
                f"the vectors take {size >> 20} MiB, {folder or 'the temporary folder'} has {free >> 20} MiB"
            )
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


@torch.inference_mode()
def nearest_is_own(
    source: np.ndarray, target: np.ndarray, device: torch.device | str = "cpu", chunk: int = CHUNK
) -> tuple[np.ndarray, np.ndarray]:
    """
    Tells whether each source's nearest target is the one of its own row, and each target's nearest source likewise.
    The own row must be nearer than every other row: a tie is a miss. The search is exact: it computes all cosine
    similarities in double precision, `chunk x chunk` at a time, in one product for both directions.

    Args:
        source, target (`np.ndarray` of shape `(texts, hidden_size)`): a row is a text and its translation.

    Returns:
        Two `np.ndarray` of `bool`, of shape `(texts,)`: for the sources and for the targets.
    """

    def unit(vectors: np.ndarray) -> torch.Tensor:
        vectors = torch.from_numpy(np.array(vectors)).to(device).double()
        return vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)

    own = torch.empty(len(source), dtype=torch.double, device=device)
    other_target, other_source = (torch.full_like(own, -torch.inf) for _ in range(2))
    for start in range(0, len(source), chunk):
        rows, queries = slice(start, start + chunk), unit(source[start : start + chunk])
        for begin in range(0, len(target), chunk):
            columns = slice(begin, begin + chunk)
            cosine = queries @ unit(target[columns]).T
            if start == begin:
                own[rows] = cosine.diagonal()
                cosine.fill_diagonal_(-torch.inf)
            other_target[rows] = torch.maximum(other_target[rows], cosine.amax(1))
            other_source[columns] = torch.maximum(other_source[columns], cosine.amax(0))
    return tuple((own - other > TIE).cpu().numpy() for other in (other_target, other_source))


@dataclass
class Alignment:
    """
    Attributes:
        source, target (`str`): names of the two sides.
        counts (`dict[str, int]`): number of `texts`. `source_cut` and `target_cut` count the texts of each side that
            were cut. `source_copies` and `target_copies` count the texts that have the same tokens as another text of
            their side; such a text cannot be found.
        results (`list[dict]`): for each `pooling` and `layer` the P@1 in per cent: `source_target` (a source finds its
            target), `target_source` (a target finds its source), and their `mean`.
    """

    source: str
    target: str
    counts: dict[str, int]
    results: list[dict]

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"

    def best(self, pooling: str) -> int:
        """The layer with the highest mean. Of equal layers the lowest."""
        return max((one for one in self.results if one["pooling"] == pooling), key=lambda one: one["mean"])["layer"]


def measure_alignment(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[ParallelTexts],
    max_length: int | None = None,
    max_tokens_per_batch: int = 8192,
    folder: Path | None = None,
    progress: bool = True,
) -> list[Alignment]:
    """
    Measures P@1 of each pair, in both directions, for each layer and pooling. Arguments and errors are those of
    [`encode_layers`].

    A text that has the same tokens as another text of its side, after the cut, has the same vector and cannot be
    found. The log counts such texts, and the texts that were cut.
    """
    texts = [text for pair in pairs for side in (pair.source_texts, pair.target_texts) for text in side]
    encoded = encode_layers(model, tokenizer, texts, max_length, max_tokens_per_batch, folder, progress)
    alignments, sides, start = [], [], 0
    for pair in pairs:
        counts, end = {"texts": len(pair.source_texts)}, start + 2 * len(pair.source_texts)
        rows, cut = (np.split(of_all[start:end], 2) for of_all in (encoded.rows, encoded.cut))
        copies = [np.bincount(side)[side] > 1 for side in rows]
        for i, side in enumerate(("source", "target")):
            counts |= {f"{side}_cut": int(cut[i].sum()), f"{side}_copies": int(copies[i].sum())}
        alignments.append(Alignment(pair.source, pair.target, counts, []))
        log_counts(alignments[-1])
        sides.append((rows, copies))
        start = end

    steps = [(p, layer) for p in range(encoded.vectors.shape[0]) for layer in range(encoded.vectors.shape[1])]
    with tqdm(total=len(pairs) * len(steps), desc="P@1", disable=not progress, file=sys.stderr) as bar:
        for alignment, (rows, copies) in zip(alignments, sides):
            for p, layer in steps:
                vectors = encoded.vectors[p, layer]
                found = nearest_is_own(vectors[rows[0]], vectors[rows[1]], model.device)
                one, other = (100 * float((own & ~of).mean()) for own, of in zip(found, reversed(copies)))
                measured = {"source_target": one, "target_source": other, "mean": (one + other) / 2}
                alignment.results.append({"pooling": encoded.poolings[p], "layer": layer} | measured)
                bar.update()
    return alignments


def log_counts(alignment: Alignment):
    counts = alignment.counts
    for what, meaning in (
        ("cut", "are longer than the longest input and were cut"),
        ("copies", "have the same tokens as another text of their side and cannot be found"),
    ):
        source, target = counts[f"source_{what}"], counts[f"target_{what}"]
        if source or target:
            logger.warning(
                f"{alignment.name}: of {counts['texts']} texts of each side, {source} ({alignment.source}) and "
                f"{target} ({alignment.target}) {meaning}"
            )


def mean_of(alignments: list[Alignment]) -> Alignment:
    """Averages the results over pairs and sums the counts."""
    counts = {name: sum(one.counts[name] for one in alignments) for name in alignments[0].counts}
    results = []
    for same in zip(*(one.results for one in alignments)):
        means = {
            name: sum(one[name] for one in same) / len(same) for name in ("source_target", "target_source", "mean")
        }
        results.append({"pooling": same[0]["pooling"], "layer": same[0]["layer"]} | means)
    return Alignment("source", "target", counts, results)


def to_markdown(alignments: list[Alignment]) -> str:
    """Writes a table per pair, and one of their mean if there are several. The best layer of each pooling is bold."""
    titled = [(one.name, one) for one in alignments]
    if len(alignments) > 1:
        titled.append((f"mean of {len(alignments)} pairs", mean_of(alignments)))
    tables = []
    for title, one in titled:
        poolings = list(dict.fromkeys(row["pooling"] for row in one.results))
        arrows = (f"{one.source} → {one.target}", f"{one.target} → {one.source}", "both")
        lines = [
            f"P@1, {title}, {one.counts['texts']} texts",
            "",
            f"| layer | {' | '.join(f'{pooling}, {arrow}' for pooling in poolings for arrow in arrows)} |",
            "| ---: |" + " ---: |" * (3 * len(poolings)),
        ]
        for layer in sorted({row["layer"] for row in one.results}):
            cells = [str(layer)]
            for row in one.results:
                if row["layer"] == layer:
                    values = [f"{row[column]:.1f}" for column in ("source_target", "target_source", "mean")]
                    best = one.best(row["pooling"]) == layer
                    cells += [f"**{value}**" if best else value for value in values]
            lines.append(f"| {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def write_alignment(alignments: list[Alignment], settings: dict, folder: Path):
    """
    Writes `alignment.md` (the tables), `alignment.csv` (a line for each pair, pooling and layer), `alignment.json`
    (the same results, the counts, the best layers and `settings`) and `alignment.png` (P@1 by layer).
    """
    (folder / "alignment.md").write_text(to_markdown(alignments), encoding="utf-8")
    with open(folder / "alignment.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["source", "target", *alignments[0].results[0]], lineterminator="\n")
        writer.writeheader()
        for one in alignments:
            writer.writerows({"source": one.source, "target": one.target} | row for row in one.results)
    pairs = []
    for one in alignments:
        best = {row["pooling"]: one.best(row["pooling"]) for row in one.results}
        names = {"source": one.source, "target": one.target}
        pairs.append(names | one.counts | {"best_layer": best, "results": one.results})
    with open(folder / "alignment.json", "w", encoding="utf-8") as file:
        json.dump(settings | {"pairs": pairs}, file, indent=2, ensure_ascii=False)
    plot_alignment(alignments, folder / "alignment.png")


def plot_alignment(alignments: list[Alignment], path: Path):
    """Plots P@1 (mean of both directions) by layer, with a colour for each pair and a line style for each pooling."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, one in enumerate(alignments):
        for pooling in dict.fromkeys(row["pooling"] for row in one.results):
            points = [(row["layer"], row["mean"]) for row in one.results if row["pooling"] == pooling]
            style = "-" if pooling == "mean" else "--"
            axes.plot(
                *zip(*points), style, color=f"C{number}", marker="o", markersize=3, label=f"{one.name}, {pooling}"
            )
    axes.set(xlabel="layer (0: embeddings)", ylabel="P@1, mean of both directions", ylim=(-3, 103))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)


__all__ = [
    "Alignment",
    "LayerVectors",
    "encode_layers",
    "measure_alignment",
    "nearest_is_own",
    "to_markdown",
    "write_alignment",
]
