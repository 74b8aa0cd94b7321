#!/usr/bin/env python
"""
Draws docs/attention.png from the model's own masks: the tokens that each token of a row attends to in BertLong.

    python docs/attention.py [OUTPUT]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from modeling_clir.layout_bertlong import PaddedLayout, global_tokens


QUERY = ["[CLS]", "Wer", "baute", "es", "?", "[SEP]"]
DOCUMENT = [f"d{i}" for i in range(1, 17)] + ["[SEP]"]
PADDING = ["[PAD]"] * 4
WINDOW = 6
KINDS = {
    "outside the window, or padding: not seen": "#ffffff",
    "query token: sees every token (global projections)": "#d95f02",
    "document token sees the query": "#fdc086",
    f"document token sees its window ({WINDOW // 2} tokens on each side)": "#3b75af",
}


def attention_kinds() -> np.ndarray:
    """Returns the place in `KINDS` for each attending token (row) and attended token (column), `(tokens, tokens)`."""
    lengths = [len(QUERY), len(DOCUMENT), len(PADDING)]
    attention_mask = torch.tensor([1, 1, 0]).repeat_interleave(torch.tensor(lengths))[None]
    token_type_ids = torch.tensor([0, 1, 0]).repeat_interleave(torch.tensor(lengths))[None]
    valid, is_global = attention_mask > 0, global_tokens(attention_mask, token_type_ids)
    layout = PaddedLayout(valid, is_global, [WINDOW])
    local = layout.local_masks[WINDOW][0, 0] & valid[0] & valid[0][:, None]
    everything = layout.global_mask[0, 0] & is_global[0][:, None]
    return torch.where(everything, 1, torch.where(local & is_global[0], 2, 3 * local)).numpy()


def main():
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("attention.png")
    labels = QUERY + DOCUMENT + PADDING
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(attention_kinds(), cmap=ListedColormap(list(KINDS.values())), vmin=0, vmax=len(KINDS) - 1)
    places = np.arange(len(labels))
    axes.set_xticks(places, labels, rotation=90, fontsize=7)
    axes.set_yticks(places, labels, fontsize=7)
    axes.set_xticks(places - 0.5, minor=True)
    axes.set_yticks(places - 0.5, minor=True)
    axes.grid(which="minor", color="#cccccc", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("attended token")
    axes.set_ylabel("attending token")
    patches = [Patch(facecolor=color, edgecolor="#999999", label=kind) for kind, color in KINDS.items()]
    figure.legend(handles=patches, loc="outside lower center", fontsize=9, frameon=False)
    figure.savefig(output, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
