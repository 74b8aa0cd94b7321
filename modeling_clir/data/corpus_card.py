"""Writes the dataset card of a corpus, from its Parquet files."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, DatasetCardData

from .files import list_files
from .languages import card_languages


LENGTHS = (0, 100, 200, 500, 1000, 2000, 5000)  # characters, where the bins of the histogram begin


def corpus_card(
    folder: Path, license: str | None = None, sources: Sequence[str] = (), left_out: Mapping[str, int] | None = None
) -> str:
    """
    Writes the card of a corpus folder (see `sections.py`), one file or shards for each table. Reads one row group at a
    time. Its metadata names a config for the sections of each language (`sections-en`) and for each pair (`en-de`).
    Empty files are not named, because `datasets` cannot read them.

    Args:
        folder (`Path`).
        license (`str`, *optional*): such as `"cc-by-sa-4.0"`; without it the metadata has none, and the text says so.
        sources (`Sequence[str]`, defaults to none): a line for each source, with its date.
        left_out (`Mapping[str, int]`, *optional*): reason to how many sections or documents were left out.

    Raises `ValueError` for a folder without sections or without pairs.
    """
    tables = {}  # name to its files, in their order
    for path in list_files(folder):
        if path.suffix == ".parquet":
            parts = path.relative_to(folder).with_suffix("").parts
            depth = {"sections": 2, "pairs": 3}.get(parts[0], 0)
            if len(parts) in (depth, depth + 1):
                tables.setdefault(parts[:depth], []).append(path)
    configs, section_rows, pair_rows, scored = {}, [], [], False
    examples = {}  # kind of table to the first config that has rows, its split and their number
    for (kind, *name), paths in sorted(tables.items()):
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
        config, split = (f"sections-{name[0]}", "train") if kind == "sections" else name
        if rows:
            configs.setdefault(config, []).append({"split": split, "path": data_files(folder, paths)})
            examples.setdefault(kind, {"config": config, "split": split, "rows": rows})
        if kind == "sections":
            section_rows.append((name[0], *count_sections(paths)))
        else:
            pair_rows.append((config, split, f"{rows:,}"))
            scored |= "source_scores" in pq.read_schema(paths[0]).names
    if not section_rows or not pair_rows:
        raise ValueError(f"{folder} is no corpus: it has no {'pairs' if section_rows else 'sections'}")
    languages = [row[0] for row in section_rows]
    data = DatasetCardData(
        language=card_languages(languages) or None,
        license=license,
        pretty_name=folder.resolve().name,
        task_categories=["text-retrieval", "sentence-similarity"],
        configs=[{"config_name": name, "data_files": splits} for name, splits in configs.items()],
    )
    bins = [f"{start}-{end - 1}" for start, end in pairwise(LENGTHS)] + [f"{LENGTHS[-1]}+"]
    template = files("modeling_clir").joinpath("templates/corpus_card.md").read_text(encoding="utf-8")
    card = DatasetCard.from_template(
        data,
        template_str=template,
        name=folder.resolve().name,
        languages=", ".join(languages),
        examples=examples,
        scored=scored,
        sources=list(sources),
        license=license,
        bins=bins,
        section_rows=section_rows,
        pair_rows=pair_rows,
        left_out={reason: f"{number:,}" for reason, number in (left_out or {}).items() if number},
    )
    return str(card)


def data_files(folder: Path, paths: list[Path]) -> str | list[str]:
    """Names files as the Hub does: one, all of a folder, or a list if some are empty."""
    names = [path.relative_to(folder).as_posix() for path in paths if pq.read_metadata(path).num_rows]
    if len(paths) == 1:
        return names[0]
    return f"{paths[0].parent.relative_to(folder).as_posix()}/*.parquet" if len(names) == len(paths) else names


def count_sections(paths: list[Path]) -> list[str]:
    """Counts sections, runs of one article, characters, and the sections in each bin of `LENGTHS`."""
    articles, characters, counts, last = 0, 0, np.zeros(len(LENGTHS), int), None
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["article", "text"]):
                lengths = pc.fill_null(pc.utf8_length(batch["text"]), 0).to_numpy()
                characters += int(lengths.sum())
                counts += np.bincount(np.searchsorted(LENGTHS, lengths, side="right") - 1, minlength=len(LENGTHS))
                for article in batch["article"].to_pylist():
                    articles += article != last
                    last = article
    return [f"{number:,}" for number in (counts.sum(), articles, characters, *counts)]


__all__ = ["corpus_card"]
