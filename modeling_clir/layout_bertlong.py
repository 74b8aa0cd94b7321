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
Finds the global tokens of a batch, and lays its tokens out in memory with padding (`PaddedLayout`) or without padding
(`PackedLayout`).

Letters of shapes: B rows, L padded length, D hidden size; T tokens of the batch, M tokens of its longest row; N
blocks, S slots of a block, W tokens in and around a block, G most global tokens of a row.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask


# Least slots of a block. Large enough for efficient matrix products, small enough that few keys lie outside the
# window.
BLOCK_SIZE = 64

# Attention weights per head that are computed at once on a CPU, so that they fit into its cache.
WEIGHTS_AT_ONCE = 2**16

FLEX_BLOCK_SIZE = 128  # queries and keys in a block of flex_attention


def global_tokens(
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
    global_attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Finds the global tokens. The first rule that applies decides:

    1. `global_attention_mask` is given: its tokens.
    2. `attention_mask` has a 2 anywhere (the convention of the 2021 code): the tokens with 2.
    3. The row has two segments: segment 0 (`[CLS] query [SEP]`).
    4. The first token of the row (`[CLS]`).

    Padding is never global.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): 0 padding, 1 a token, 2 a global
            token.
        token_type_ids (`torch.Tensor` of the same shape, *optional*): 0 for the query, 1 for the document.
        global_attention_mask (`torch.Tensor` of the same shape, *optional*): 1 for a global token.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, sequence_length)`.
    """
    valid = attention_mask > 0
    if global_attention_mask is not None:
        return (global_attention_mask > 0) & valid
    first = valid & (valid.cumsum(1) == 1)
    found = first
    if token_type_ids is not None:
        query = (token_type_ids == 0) & valid
        two_segments = query.any(1, keepdim=True) & (valid & ~query).any(1, keepdim=True)
        found = (query & two_segments) | (first & ~two_segments)
    twos = attention_mask == 2
    return twos | (found & ~twos.any())


def within_window(query_rank: torch.Tensor, key_rank: torch.Tensor, window: int) -> torch.Tensor:
    """
    Tells whether the distance of query and key is at most window / 2. Maps positions in the row of shape
    `(..., queries)` and `(..., keys)` to `(..., queries, keys)`.
    """
    return (query_rank[..., :, None] - key_rank[..., None, :]).abs() <= window // 2


def expanded(mask: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Maps `mask` of shape `(B, L)` to `(B, L, 1, ...)` with as many dimensions as `tensor`."""
    return mask.view(mask.shape + (1,) * (tensor.dim() - 2))


@dataclass
class PaddedLayout:
    """
    The batch with its padding, `(B, L, D)`, and one `(L, L)` mask per row. It serves eager attention, which returns
    attention weights, and the fixed shapes of `torch.compile`. Time and memory are quadratic in L.
    """

    valid: torch.Tensor  # (B, L)
    is_global: torch.Tensor  # (B, L)
    windows: list[int]
    rank: torch.Tensor = field(init=False)  # (B, L), number of tokens before this one in its row
    local_masks: dict[int, torch.Tensor] = field(init=False)  # window -> (B, 1, L, L)
    global_mask: torch.Tensor = field(init=False)  # (B, 1, 1, L)

    def __post_init__(self):
        self.rank = (self.valid.cumsum(1) - 1).clamp_min(0)
        # Every query attends to itself, so no row of the mask is empty and unused results are not NaN.
        itself = torch.eye(self.valid.shape[1], dtype=torch.bool, device=self.valid.device)
        self.local_masks = {
            window: (
                (within_window(self.rank, self.rank, window) | self.is_global[:, None]) & self.valid[:, None] | itself
            )[:, None]
            for window in set(self.windows)
        }
        self.global_mask = (self.valid | ~self.valid.any(1, keepdim=True))[:, None, None]

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, ...) to (B, L, ...) and sets padding, which may hold any value, to 0."""
        return tensor.masked_fill(~expanded(self.valid, tensor), 0)

    def unpack(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, D) to (B, L, D) and sets padding to 0."""
        return hidden_states.masked_fill(~self.valid[..., None], 0.0)

    def first_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The first token of each row: maps (B, L, D) to (B, D), 0 for a row without tokens."""
        first = self.valid.int().argmax(1)
        states = hidden_states[torch.arange(len(first), device=first.device), first]
        return states * self.valid.any(1, keepdim=True)


class PackedLayout:
    """
    The tokens of the batch without padding, `(T, D)`. Time and memory are linear in T. The batch needs at least one
    token.

    The local attention cuts each row into blocks of S tokens. A block attends to the W tokens from `window / 2` before
    it to `window / 2` after it, and to the global tokens of its row. The properties are computed at their first use,
    so an attention implementation pays only for those that it uses.
    """

    def __init__(self, valid: torch.Tensor, is_global: torch.Tensor, windows: list[int]):
        self.valid, self.windows = valid, windows  # (B, L)
        self.device = valid.device
        self.lengths = valid.sum(1)  # (B,)
        self.end = self.lengths.cumsum(0)  # (B,), places in T
        self.start = self.end - self.lengths
        self.longest, self.num_tokens = int(self.lengths.max()), int(self.end[-1])
        self.row = self.rows(self.lengths)  # (T,)
        self.source = valid.flatten().nonzero()[:, 0]  # (T,), places in B * L
        self.rank = self.places(self.num_tokens) - self.start[self.row]  # (T,), number of tokens before it in its row
        self.first = self.start.clamp_max(self.num_tokens - 1)  # (B,), places in T; any place for a row without tokens
        self.is_global = is_global[valid]  # (T,)
        self.global_index = self.is_global.nonzero()[:, 0]  # (all global tokens,), places in T
        self.global_counts = is_global.sum(1)  # (B,)
        self.global_pairs = int(
            (self.global_counts * self.lengths).sum()
        )  # pairs of a global token and a token of its row

    def places(self, number: int) -> torch.Tensor:
        return torch.arange(number, device=self.device)

    def rows(self, counts: torch.Tensor) -> torch.Tensor:
        """Maps counts per row, (B,), to the row of each counted item, (sum of counts,)."""
        return self.places(len(counts)).repeat_interleave(counts)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Maps (B, L, ...) to (T, ...)."""
        return tensor.flatten(0, 1)[self.source]

    def unpack(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (T, D) to (B, L, D), 0 at padding."""
        padded = hidden_states.new_zeros(self.valid.numel(), hidden_states.shape[-1])
        return padded.index_copy(0, self.source, hidden_states).view(*self.valid.shape, -1)

    def first_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The first token of each row: maps (T, D) to (B, D), 0 for a row without tokens."""
        return hidden_states[self.first] * self.valid.any(1, keepdim=True)

    # --- rows as a rectangle: for the global attention

    @cached_property
    def row_tokens(self) -> torch.Tensor:
        """(B, M), places in T"""
        return (self.start[:, None] + self.places(self.longest)).clamp_max(self.num_tokens - 1)

    @cached_property
    def row_mask(self) -> torch.Tensor:
        """(B, 1, 1, M), True where `row_tokens` has a token of the row; all True for a row without tokens"""
        there = self.places(self.longest) < self.lengths[:, None]
        return (there | (self.lengths == 0)[:, None])[:, None, None]

    @cached_property
    def global_filled(self) -> torch.Tensor:
        """(B, G), True where `global_table` has a global token of the row"""
        return self.places(int(self.global_counts.max())) < self.global_counts[:, None]

    @cached_property
    def global_table(self) -> torch.Tensor:
        """(B, G), places in `global_index`"""
        table = torch.zeros(self.global_filled.shape, dtype=torch.long, device=self.device)
        table[self.global_filled] = self.places(len(self.global_index))
        return table

    # --- blocks: for the local attention

    @cached_property
    def whole_rows(self) -> bool:
        """Tells whether blocks of whole rows, M slots and M keys, have at most as many attention weights as others."""
        size = max(BLOCK_SIZE, max(self.windows) // 2)
        blocks = int(((self.lengths + size - 1) // size).sum())
        keys = size + min(self.windows) + self.global_filled.shape[1]
        return len(self.lengths) * self.longest**2 <= blocks * size * keys

    @cached_property
    def block_size(self) -> int:
        return self.longest if self.whole_rows else max(BLOCK_SIZE, max(self.windows) // 2)

    @cached_property
    def blocks(self) -> torch.Tensor:
        """(B,), number of blocks of each row"""
        return (self.lengths + self.block_size - 1) // self.block_size

    @cached_property
    def block_row(self) -> torch.Tensor:
        """(N,), row of each block"""
        return self.rows(self.blocks)

    @cached_property
    def block_start(self) -> torch.Tensor:
        """(N,), places in T"""
        offset = self.places(len(self.block_row)) - (self.blocks.cumsum(0) - self.blocks)[self.block_row]
        return self.start[self.block_row] + offset * self.block_size

    @cached_property
    def block_tokens(self) -> torch.Tensor:
        """(N, S), places in T; any place for an empty slot"""
        return (self.block_start[:, None] + self.places(self.block_size)).clamp_max(self.num_tokens - 1)

    @cached_property
    def block_slot(self) -> torch.Tensor:
        """(T,), places in N * S"""
        return (self.blocks.cumsum(0) - self.blocks)[self.row] * self.block_size + self.rank

    @cached_property
    def local_keys(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """
        For each window: the keys of the blocks, (N, W + G), places in T; and which of them each slot attends to,
        (N, 1, S, W + G). Blocks of whole rows have their own tokens as keys, (N, S).
        """
        if self.whole_rows:
            slots, keys = self.places(self.block_size), self.block_tokens
            in_row = slots < self.lengths[self.block_row][:, None]
            masks = {
                window: in_row[:, None] & (within_window(slots, slots, window) | self.is_global[keys][:, None])
                for window in set(self.windows)
            }
            itself = torch.eye(len(slots), dtype=torch.bool, device=self.device)  # so that no slot attends to nothing
            return {window: (keys, (mask | itself)[:, None]) for window, mask in masks.items()}
        start, end = self.start[self.block_row][:, None], self.end[self.block_row][:, None]
        far_keys = self.global_index[self.global_table][self.block_row]  # (N, G)
        far = self.global_filled[self.block_row][:, None].expand(-1, self.block_size, -1)  # (N, S, G)
        slots, found = self.places(self.block_size), {}
        for window in set(self.windows):
            half = window // 2
            place = torch.arange(
                -half, self.block_size + half, device=self.device
            )  # (W,), relative to the block's start
            keys = self.block_start[:, None] + place  # (N, W)
            in_row = (keys >= start) & (keys < end)
            keys = keys.clamp(0, self.num_tokens - 1)
            # Global tokens are in `far_keys`, so the window leaves them out.
            near = (in_row & ~self.is_global[keys])[:, None] & within_window(slots, place, window)
            near = near | (slots[:, None] == place)  # every query attends to itself, as in PaddedLayout
            found[window] = torch.cat([keys, far_keys], dim=1), torch.cat([near, far], dim=2)[:, None]
        return found

    @cached_property
    def local_parts(self) -> dict[int, list["Part"]]:
        """For each window: `local_keys`, a few blocks at a time."""
        bounds = [*self.block_start.tolist(), self.num_tokens]
        found = {}
        for window, (keys, mask) in self.local_keys.items():
            bias = torch.zeros(mask.shape, device=self.device).masked_fill_(~mask, -torch.inf)
            at_once = max(1, WEIGHTS_AT_ONCE // (self.block_size * keys.shape[1]))
            found[window] = []
            for i in range(0, len(keys), at_once):
                j = min(i + at_once, len(keys))
                slots = self.block_slot[bounds[i] : bounds[j]] - i * self.block_size
                found[window].append(Part(bounds[i], bounds[j], slots, keys[i:j], bias[i:j]))
        return found

    # --- sequences of varlen_bertlong.py

    @cached_property
    def query_first(self) -> bool:
        """Tells whether the global tokens of each row are its first ones, at least one in a row with local tokens."""
        first = self.is_global == (self.rank < self.global_counts[self.row])
        return bool(first.all() and (self.global_counts[self.local_counts > 0] > 0).all())

    @cached_property
    def local_counts(self) -> torch.Tensor:
        """(B,), number of local tokens of each row"""
        return self.lengths - self.global_counts

    @cached_property
    def local_index(self) -> torch.Tensor:
        """(all local tokens,), places in T"""
        return (~self.is_global).nonzero()[:, 0]

    @cached_property
    def attended_index(self) -> torch.Tensor:
        """Places in T of the global tokens of the rows that have local tokens"""
        return self.global_index[self.local_counts[self.row[self.global_index]] > 0]

    @cached_property
    def varlen_local(self) -> dict[int, list["Sequences"]]:
        """
        For each window: the local tokens of a row as queries, with them as keys in the window, and with the row's
        global tokens as keys.
        """
        far = Sequences.of(self.local_counts, self.global_counts)
        return {
            window: [Sequences.of(self.local_counts, self.local_counts, window // 2), far]
            for window in set(self.windows)
        }

    @cached_property
    def varlen_global(self) -> "Sequences":
        """The global tokens of a row as queries, and all its tokens as keys: those of `rows_with_global`."""
        return Sequences.of(self.global_counts, self.lengths)

    @cached_property
    def rows_with_global(self) -> torch.Tensor | None:
        """Places in T of the tokens of the rows that have global tokens, or `None` if these are all tokens"""
        there = self.global_counts[self.row] > 0
        return None if there.all() else there.nonzero()[:, 0]

    # --- masks of flex_attention: its blocks are cut from T and may span rows

    @cached_property
    def flex_local(self) -> dict[int, BlockMask]:
        """For each window: the mask with all tokens as queries and as keys."""
        tokens = self.places(self.num_tokens)
        row, rank, is_global = (fill_blocks(tensor) for tensor in (self.row, self.rank, self.is_global.long()))
        rows = block_bounds(self.row, tokens, self.num_tokens)
        far = overlap(rows, block_bounds(self.row[self.global_index], self.global_index, self.num_tokens))
        place = self.places(len(row) // FLEX_BLOCK_SIZE)
        gap = ((place[:, None] - place).abs() - 1) * FLEX_BLOCK_SIZE + 1  # least distance of tokens of two blocks

        def attended(window):
            half = torch.tensor(
                window // 2, device=self.device
            )  # a tensor: a number would compile a kernel per window

            def mask_mod(batch, head, query, key):
                near = (rank[query] - rank[key]).abs() <= half
                return (row[query] == row[key]) & (near | (is_global[key] == 1))

            return block_mask(far | (gap <= window // 2) & overlap(rows, rows), mask_mod, (len(tokens), len(tokens)))

        return {window: attended(window) for window in set(self.windows)}

    @cached_property
    def flex_global(self) -> BlockMask:
        """The mask with the global tokens as queries and all tokens as keys."""
        number = len(self.global_index)
        query_row, row = fill_blocks(self.row[self.global_index]), fill_blocks(self.row)
        queries = block_bounds(self.row[self.global_index], self.places(number), number)
        keys = block_bounds(self.row, self.places(self.num_tokens), self.num_tokens)

        def mask_mod(batch, head, query, key):
            return query_row[query] == row[key]

        return block_mask(overlap(queries, keys), mask_mod, (number, self.num_tokens))


def fill_blocks(tensor: torch.Tensor) -> torch.Tensor:
    """Pads `tensor` of shape `(n,)` with -1 to whole blocks of flex_attention."""
    return F.pad(tensor, (0, -len(tensor) % FLEX_BLOCK_SIZE), value=-1)


def block_bounds(row: torch.Tensor, place: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Returns the first and last row of the tokens in each block, each of shape `(blocks,)`. A block without tokens has
    first > last.

    Args:
        row (`torch.Tensor` of shape `(tokens,)`): row of each token.
        place (`torch.Tensor` of shape `(tokens,)`): place of each token, below `size`.
        size (`int`): number of places, which are cut into blocks.
    """
    block, blocks = place // FLEX_BLOCK_SIZE, -(-size // FLEX_BLOCK_SIZE)
    first = row.new_full((blocks,), torch.iinfo(row.dtype).max).scatter_reduce(0, block, row, "amin")
    return first, row.new_full((blocks,), -1).scatter_reduce(0, block, row, "amax")


def overlap(queries: tuple[torch.Tensor, torch.Tensor], keys: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """
    Tells whether two blocks may have a row in common. Maps `block_bounds` of queries and of keys to
    `(query blocks, key blocks)`.
    """
    return (queries[0][:, None] <= keys[1]) & (keys[0] <= queries[1][:, None])


def block_mask(blocks: torch.Tensor, mask_mod, lengths: tuple[int, int]) -> BlockMask:
    """
    Makes the mask of flex_attention.

    Args:
        blocks (`torch.BoolTensor` of shape `(query blocks, key blocks)`): the blocks that are computed.
        mask_mod (`Callable`): which query attends to which key, see `flex_attention`.
        lengths (`tuple[int, int]`): number of queries and of keys.
    """
    counts = blocks.sum(1, dtype=torch.int32)[None, None]
    indices = blocks.int().argsort(dim=1, descending=True, stable=True).int()[None, None]
    return BlockMask.from_kv_blocks(
        counts, indices, BLOCK_SIZE=FLEX_BLOCK_SIZE, mask_mod=mask_mod, seq_lengths=lengths
    )


@dataclass
class Part:
    """n of the N blocks of a [`PackedLayout`]."""

    start: int  # the tokens of the blocks are T[start:end]
    end: int
    slots: torch.Tensor  # (end - start,), places in n * S
    keys: torch.Tensor  # (n, W + G), places in T
    bias: torch.Tensor  # (n, 1, S, W + G), 0 or -inf, added to the scores


@dataclass
class Sequences:
    """n sequences of queries one after the other, and the keys that each attends to, as `varlen_attn` takes them."""

    queries: torch.Tensor  # (n + 1,), int32, start of each sequence and end of the last
    keys: torch.Tensor  # (n + 1,)
    most_queries: int  # of a sequence
    most_keys: int
    reach: int  # a query attends to keys at this distance at most; -1 for all

    @classmethod
    def of(cls, queries: torch.Tensor, keys: torch.Tensor, reach: int = -1) -> "Sequences":
        """Makes the sequences from the numbers of queries and keys of each row, `(B,)`; leaves out rows without queries."""
        counts = torch.stack([queries, keys])[:, queries > 0]
        ends = F.pad(counts.cumsum(1, dtype=torch.int32), (1, 0))
        most = counts.amax(1).tolist() if counts.numel() else [0, 0]
        return cls(*ends, *most, reach)
