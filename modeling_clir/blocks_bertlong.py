# Copyright 2026 The modeling_clir developers.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
BertLong's attention in an exported graph (`torch.export`, ONNX): `BlockedLayout` and `blocked_attention`.

A graph is one program for all shapes, so its steps may depend on sizes but not on contents. The batch keeps its
rectangle, and padding is computed too. Time and memory are linear in L all the same: each row is cut into blocks, and
a block attends to the tokens near it and to the global tokens. Letters of shapes are those of layout_bertlong.py.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


SLOTS = 64  # slots of a block; a wider window takes half its width


def front(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Moves the True elements of each row of `mask`, (B, L), to the front and keeps their order. Returns the new place of
    each element, (B, L), and the element at each new place, (B, L).
    """
    ones = mask.long()
    target = torch.where(mask, ones.cumsum(1) - 1, ones.sum(1, keepdim=True) + (1 - ones).cumsum(1) - 1)
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(target)
    return target, torch.zeros_like(target).scatter(1, target, places)


def in_batch(index: torch.Tensor, width: int) -> torch.Tensor:
    """Maps places in rows of `width`, (B, n), to places in B * width."""
    return torch.arange(index.shape[0], device=index.device)[:, None] * width + index


def pick(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Maps `tensor` of shape `(B, n, D)` and places in B * n of shape `(B, m)` to `(B, m, D)`."""
    return F.embedding(index, tensor.flatten(0, 1))


def bias_of(mask: torch.Tensor) -> torch.Tensor:
    """Maps a mask to numbers that are added to scores: 0 where True, -inf elsewhere, in float32."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)


@dataclass
class Queries:
    """The tokens whose states are computed: all of a row, or its first one."""

    slots: torch.Tensor  # (N * S,), place in the row of each slot of the row's N blocks
    places: torch.Tensor  # (queries,), slot of each query; any slot for padding
    size: int  # S
    keys: dict[int, torch.Tensor]  # window -> (N, W), places in the row
    bias: dict[int, torch.Tensor]  # window -> (B, 1, N, S, W + G), 0 or -inf, added to the scores
    global_table: torch.Tensor  # (B, G) or (B, 1), places in B * L of the global queries
    global_slot: torch.Tensor  # (B, queries), place of a global token in `global_table`, flattened
    is_global: torch.Tensor  # (B, queries)


class BlockedLayout:
    """
    The batch as a rectangle, `(B, L, D)`, in which each row begins with its tokens and ends with its padding. It serves
    `torch.export`. Time and memory are linear in L, padding included.

    A window's queries are the S slots of a block, and its keys are the W tokens from `window / 2` before the block to
    `window / 2` after it. The G global tokens of a row are keys for each of its blocks. G is the most global tokens of
    a row, and at least 1; it is the only size that depends on contents.
    """

    def __init__(self, valid: torch.Tensor, is_global: torch.Tensor, windows: list[int]):
        self.valid, self.windows = valid, windows  # (B, L)
        self.length, self.device = valid.shape[1], valid.device
        self.target, self.source = front(valid)  # (B, L)
        self.lengths = valid.sum(1, keepdim=True)  # (B, 1)
        self.places = torch.arange(self.length, device=self.device)  # (L,)
        self.there = self.places < self.lengths  # (B, L), True at the tokens, which come first
        self.rank = self.places * self.there  # (B, L), number of tokens before it in its row, 0 at padding
        self.is_global = is_global.gather(1, self.source)  # (B, L)
        counts = self.is_global.sum(1, keepdim=True)
        most = self.size(counts)
        self.far = in_batch(front(self.is_global)[1][:, :most], self.length)  # (B, G), places in B * L
        self.far_filled = torch.arange(most, device=self.device) < counts  # (B, G)
        # A row without tokens attends to its padding: its states are not read, but must not be NaN.
        self.row_bias = bias_of(self.there | (self.lengths == 0))[:, None, None]  # (B, 1, 1, L)
        self.queries = self.all_queries()

    def size(self, counts: torch.Tensor) -> int:
        """The largest of `counts`, at least 1: a size that depends on contents."""
        size = counts.max().clamp_min(1).item()
        torch._check(size >= 1)
        torch._check(size <= self.length)
        return size

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Maps (B, L) or (B, L, D) to the same shape, tokens first, and sets padding, which may hold any value, to 0."""
        if tensor.dim() == 2:
            return tensor.gather(1, self.source).masked_fill(~self.there, 0)
        return pick(tensor, in_batch(self.source, self.length)).masked_fill(~self.there[..., None], 0)

    def unpack(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, D), tokens first, to (B, L, D) in the order of the input, 0 at padding."""
        return pick(hidden_states, in_batch(self.target, self.length)).masked_fill(~self.valid[..., None], 0.0)

    def first_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The first token of each row: maps (B, L, D) to (B, D), 0 for a row without tokens."""
        return hidden_states[:, 0] * (self.lengths > 0)

    def all_queries(self) -> Queries:
        size = max(SLOTS, max(self.windows) // 2)
        blocks = self.size((self.lengths + size - 1).div(size, rounding_mode="floor"))
        slots = torch.arange(blocks * size, device=self.device)
        rank = in_batch((self.is_global.long().cumsum(1) - 1).clamp_min(0), self.far.shape[1])
        places = self.places.clamp_max(slots.shape[0] - 1)
        return Queries(slots, places, size, *self.near(slots, size), self.far, rank, self.is_global)

    def only_first(self) -> "BlockedLayout":
        """The same batch, with the first token of each row as its only query: (B, L, D) becomes (B, 1, D)."""
        layout, slot, place = copy.copy(self), self.places[:1], torch.zeros_like(self.far[:, :1])
        table, row = in_batch(place, self.length), in_batch(place, 1)
        layout.queries = Queries(slot, slot, 1, *self.near(slot, 1), table, row, self.is_global[:, :1])
        return layout

    def near(self, slots: torch.Tensor, size: int) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """`keys` and `bias` of [`Queries`]."""
        found, bias = {}, {}
        start = slots.view(-1, size)[:, :1]  # (N, 1)
        far = bias_of(self.far_filled)[:, None, None, None]  # (B, 1, 1, 1, G)
        far = far.expand(-1, -1, start.shape[0], size, -1)
        for window in set(self.windows):
            half = window // 2
            keys = start + torch.arange(-half, size + half, device=self.device)  # (N, W)
            found[window] = inside = keys.clamp(0, self.length - 1)
            distance = slots.view(-1, size)[:, :, None] - keys[:, None]  # (N, S, W)
            # Global tokens are in `far`, so the window leaves them out.
            local = (self.there & ~self.is_global).index_select(1, inside.flatten()).unflatten(1, keys.shape)
            near = local[:, :, None] & (keys >= 0)[:, None] & (keys < self.length)[:, None] & (distance.abs() <= half)
            near = near | (distance == 0)  # every query attends to itself, as in PaddedLayout
            bias[window] = torch.cat([bias_of(near)[:, None], far], dim=-1)
        return found, bias


def blocked_attention(attention: nn.Module, x: torch.Tensor, layout: BlockedLayout) -> torch.Tensor:
    """
    Computes a [`BertLongSelfAttention`] in blocks.

    Args:
        attention (`BertLongSelfAttention`): the layer, in evaluation mode.
        x (`torch.Tensor` of shape `(B, L, D)`): hidden states of all tokens.
        layout (`BlockedLayout`): with the queries to compute.

    Returns:
        `torch.Tensor` of shape `(B, queries, D)`.
    """

    def blocks(tensor, index):  # (B, L, D) to (B, H, N, places of a block, d)
        return attention.heads(tensor.index_select(1, index.flatten())).unflatten(2, index.shape)

    queries, window = layout.queries, attention.window
    keys, slots = queries.keys[window], queries.slots.clamp_max(layout.length - 1).view(-1, queries.size)
    key, value = attention.key(x), attention.value(x)
    query = blocks(attention.query(x[:, : queries.is_global.shape[1]]), slots) * attention.scaling
    near, far = blocks(key, keys), attention.heads(pick(key, layout.far))[:, :, None]  # (B, H, 1, G, d)
    scores = torch.cat([query @ near.transpose(-1, -2), query @ far.transpose(-1, -2)], dim=-1)
    weights = (scores + queries.bias[window]).softmax(-1).to(value.dtype)  # the bias and so the sum are float32
    width = keys.shape[1]
    near, far = blocks(value, keys), attention.heads(pick(value, layout.far))[:, :, None]
    output = weights[..., :width] @ near + weights[..., width:] @ far
    output = output.permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2).index_select(1, queries.places)  # (B, queries, D)

    query = attention.heads(attention.query_global(pick(x, queries.global_table))) * attention.scaling
    scores = query @ attention.heads(attention.key_global(x)).transpose(-1, -2)  # (B, H, G, L)
    weights = (scores + layout.row_bias).softmax(-1).to(value.dtype)
    global_output = (weights @ attention.heads(attention.value_global(x))).transpose(1, 2).flatten(2)
    return torch.where(queries.is_global[..., None], pick(global_output, queries.global_slot), output)
