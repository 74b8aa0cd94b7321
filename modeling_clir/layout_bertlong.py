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
How the tokens of a batch lie in memory inside BertLong: which are global, with their padding (`PaddedLayout`) or without
(`PackedLayout`).

Shape suffixes in the comments: B rows, L padded length, D hidden size; T tokens of the batch, M of its longest row; N blocks,
S slots of a block, W tokens around a block, G most global tokens of a row.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask


# Slots of a block where the window does not ask for more: large enough for efficient matrix products, small enough
# that few keys outside the window are met.
BLOCK_SIZE = 64

# Attention weights per head that are computed at once on a CPU, so that they stay in its cache.
WEIGHTS_AT_ONCE = 2**16

FLEX_BLOCK_SIZE = 128  # of flex_attention, in queries and in keys


def global_tokens(
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
    global_attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Which tokens are global: those of `global_attention_mask` if it is given; else the 2s of `attention_mask` if there
    are any (the convention of the 2021 code); else, in a row with two segments, segment 0 (`[CLS] query [SEP]`); else
    the first token, `[CLS]`. Padding is never global.

    Args:
        attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`): 0 padding, 1 or 2 a token.
        token_type_ids, global_attention_mask (`torch.Tensor` of the same shape, *optional*).

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
        found = torch.where(two_segments, query, first)
    twos = attention_mask == 2
    return torch.where(twos.any(), twos, found)


def within_window(query_rank: torch.Tensor, key_rank: torch.Tensor, window: int) -> torch.Tensor:
    """
    `(..., queries)` and `(..., keys)`, positions in the row, to `(..., queries, keys)`: is the distance <= window / 2?
    """
    return (query_rank[..., :, None] - key_rank[..., None, :]).abs() <= window // 2


def expanded(mask: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """`(B, L)` to `(B, L, 1, ...)`, as many dimensions as `tensor` has."""
    return mask.view(mask.shape + (1,) * (tensor.dim() - 2))


@dataclass
class PaddedLayout:
    """
    The batch as it comes, `(B, L, D)`, with one `(L, L)` mask per row: the reference, which returns attention weights,
    and the layout of fixed shapes for `torch.compile` and `torch.export`. Its cost is quadratic in L.
    """

    valid: torch.Tensor  # (B, L)
    is_global: torch.Tensor  # (B, L)
    windows: list[int]
    rank: torch.Tensor = field(init=False)  # (B, L), number of tokens of the row before this one
    local_masks: dict[int, torch.Tensor] = field(init=False)  # window -> (B, 1, L, L)
    global_mask: torch.Tensor = field(init=False)  # (B, 1, 1, L)

    def __post_init__(self):
        self.rank = (self.valid.cumsum(1) - 1).clamp_min(0)
        # Every query sees itself: no row of the mask is empty, and nothing is NaN where the result is not used.
        itself = torch.eye(self.valid.shape[1], dtype=torch.bool, device=self.valid.device)
        self.local_masks = {
            window: (
                (within_window(self.rank, self.rank, window) | self.is_global[:, None]) & self.valid[:, None] | itself
            )[:, None]
            for window in set(self.windows)
        }
        self.global_mask = (self.valid | ~self.valid.any(1, keepdim=True))[:, None, None]

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """(B, L, ...) -> (B, L, ...); 0 at padding, where anything may stand."""
        return tensor.masked_fill(~expanded(self.valid, tensor), 0)

    def unpack(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states.masked_fill(~self.valid[..., None], 0.0)

    def first_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, L, D) -> (B, D), 0 where the row has no token"""
        first = self.valid.int().argmax(1)
        states = hidden_states[torch.arange(len(first), device=first.device), first]
        return states * self.valid.any(1, keepdim=True)


class PackedLayout:
    """
    The tokens without the padding, `(T, D)`: the linear layers see nothing else. Time and memory are linear in the number
    of tokens. The batch needs a token.

    For the local attention every row is cut into blocks of S tokens; a block meets the W tokens from `window / 2` before
    it to `window / 2` after it and the global tokens of its row. What an implementation does not use is not computed.
    """

    def __init__(self, valid: torch.Tensor, is_global: torch.Tensor, windows: list[int]):
        self.valid, self.windows = valid, windows  # (B, L)
        self.device = valid.device
        self.lengths = valid.sum(1)  # (B,)
        self.end = self.lengths.cumsum(0)  # (B,), into T
        self.start = self.end - self.lengths
        self.longest, self.num_tokens = int(self.lengths.max()), int(self.end[-1])
        self.row = self.rows(self.lengths)  # (T,)
        self.source = valid.flatten().nonzero()[:, 0]  # (T,), into B * L
        self.rank = (
            self.places(self.num_tokens) - self.start[self.row]
        )  # (T,), number of tokens of the row before this one
        self.first = self.start.clamp_max(self.num_tokens - 1)  # (B,), into T; any where the row has no token
        self.is_global = is_global[valid]  # (T,)
        self.global_index = self.is_global.nonzero()[:, 0]  # (all global tokens,), into T
        self.global_counts = is_global.sum(1)  # (B,)
        self.global_pairs = int((self.global_counts * self.lengths).sum())  # of a global token and a token of its row

    def places(self, number: int) -> torch.Tensor:
        return torch.arange(number, device=self.device)

    def rows(self, counts: torch.Tensor) -> torch.Tensor:
        """(B,) to (sum of counts,): the row of each of them"""
        return self.places(len(counts)).repeat_interleave(counts)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """(B, L, ...) -> (T, ...)"""
        return tensor.flatten(0, 1)[self.source]

    def unpack(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(T, D) -> (B, L, D), 0 at padding."""
        padded = hidden_states.new_zeros(self.valid.numel(), hidden_states.shape[-1])
        return padded.index_copy(0, self.source, hidden_states).view(*self.valid.shape, -1)

    def first_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(T, D) -> (B, D), 0 where the row has no token"""
        return hidden_states[self.first] * self.valid.any(1, keepdim=True)

    # --- rows as a rectangle, for the global attention

    @cached_property
    def row_tokens(self) -> torch.Tensor:
        """(B, M), into T"""
        return (self.start[:, None] + self.places(self.longest)).clamp_max(self.num_tokens - 1)

    @cached_property
    def row_mask(self) -> torch.Tensor:
        """(B, 1, 1, M), which of `row_tokens` are there"""
        there = self.places(self.longest) < self.lengths[:, None]
        return (there | (self.lengths == 0)[:, None])[:, None, None]

    @cached_property
    def global_filled(self) -> torch.Tensor:
        """(B, G), which places of a table of global tokens are taken"""
        return self.places(int(self.global_counts.max())) < self.global_counts[:, None]

    @cached_property
    def global_table(self) -> torch.Tensor:
        """(B, G), into the global tokens"""
        table = torch.zeros(self.global_filled.shape, dtype=torch.long, device=self.device)
        table[self.global_filled] = self.places(len(self.global_index))
        return table

    # --- blocks, for the local attention

    @cached_property
    def block_size(self) -> int:
        return min(self.longest, max(BLOCK_SIZE, max(self.windows) // 2))

    @cached_property
    def blocks(self) -> torch.Tensor:
        """(B,), blocks of each row"""
        return (self.lengths + self.block_size - 1) // self.block_size

    @cached_property
    def block_row(self) -> torch.Tensor:
        """(N,)"""
        return self.rows(self.blocks)

    @cached_property
    def block_start(self) -> torch.Tensor:
        """(N,), into T"""
        offset = self.places(len(self.block_row)) - (self.blocks.cumsum(0) - self.blocks)[self.block_row]
        return self.start[self.block_row] + offset * self.block_size

    @cached_property
    def block_tokens(self) -> torch.Tensor:
        """(N, S), into T; any where the slot is empty"""
        return (self.block_start[:, None] + self.places(self.block_size)).clamp_max(self.num_tokens - 1)

    @cached_property
    def block_slot(self) -> torch.Tensor:
        """(T,), into N * S"""
        return (self.blocks.cumsum(0) - self.blocks)[self.row] * self.block_size + self.rank

    @cached_property
    def local_keys(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """window -> what the blocks meet, (N, W + G), into T, and which of it each slot attends to, (N, 1, S, W + G)"""
        start, end = self.start[self.block_row][:, None], self.end[self.block_row][:, None]
        far_keys = self.global_index[self.global_table][self.block_row]  # (N, G)
        far = self.global_filled[self.block_row][:, None].expand(-1, self.block_size, -1)  # (N, S, G)
        slots, found = self.places(self.block_size), {}
        for window in set(self.windows):
            half = window // 2
            place = torch.arange(-half, self.block_size + half, device=self.device)  # (W,), from the block's start
            keys = self.block_start[:, None] + place  # (N, W)
            in_row = (keys >= start) & (keys < end)
            keys = keys.clamp(0, self.num_tokens - 1)
            # A global token is met in the list of global tokens, so not again in the window.
            near = (in_row & ~self.is_global[keys])[:, None] & within_window(slots, place, window)
            near = near | (slots[:, None] == place)  # see PaddedLayout
            found[window] = torch.cat([keys, far_keys], dim=1), torch.cat([near, far], dim=2)[:, None]
        return found

    @cached_property
    def local_parts(self) -> dict[int, list["Part"]]:
        """window -> the same, a few blocks at a time"""
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

    # --- masks of flex_attention, whose blocks are cut from T as it lies, across rows

    @cached_property
    def flex_local(self) -> dict[int, BlockMask]:
        """window -> mask of all tokens as queries and as keys"""
        tokens = self.places(self.num_tokens)
        row, rank, is_global = (fill_blocks(tensor) for tensor in (self.row, self.rank, self.is_global.long()))
        rows = block_bounds(self.row, tokens, self.num_tokens)
        far = overlap(rows, block_bounds(self.row[self.global_index], self.global_index, self.num_tokens))
        place = self.places(len(row) // FLEX_BLOCK_SIZE)
        gap = ((place[:, None] - place).abs() - 1) * FLEX_BLOCK_SIZE + 1  # least distance of their tokens

        def attended(window):
            half = torch.tensor(window // 2, device=self.device)  # not a number, for which kernels would be compiled

            def mask_mod(batch, head, query, key):
                near = (rank[query] - rank[key]).abs() <= half
                return (row[query] == row[key]) & (near | (is_global[key] == 1))

            return block_mask(far | (gap <= window // 2) & overlap(rows, rows), mask_mod, (len(tokens), len(tokens)))

        return {window: attended(window) for window in set(self.windows)}

    @cached_property
    def flex_global(self) -> BlockMask:
        """Mask of the global tokens as queries and all tokens as keys"""
        number = len(self.global_index)
        query_row, row = fill_blocks(self.row[self.global_index]), fill_blocks(self.row)
        queries = block_bounds(self.row[self.global_index], self.places(number), number)
        keys = block_bounds(self.row, self.places(self.num_tokens), self.num_tokens)

        def mask_mod(batch, head, query, key):
            return query_row[query] == row[key]

        return block_mask(overlap(queries, keys), mask_mod, (number, self.num_tokens))


def fill_blocks(tensor: torch.Tensor) -> torch.Tensor:
    """(n,) to whole blocks of flex_attention, with -1"""
    return F.pad(tensor, (0, -len(tensor) % FLEX_BLOCK_SIZE), value=-1)


def block_bounds(row: torch.Tensor, place: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last row, (blocks,), of the tokens in each block of `size` places; a block without any has first > last."""
    block, blocks = place // FLEX_BLOCK_SIZE, -(-size // FLEX_BLOCK_SIZE)
    first = row.new_full((blocks,), torch.iinfo(row.dtype).max).scatter_reduce(0, block, row, "amin")
    return first, row.new_full((blocks,), -1).scatter_reduce(0, block, row, "amax")


def overlap(queries: tuple[torch.Tensor, torch.Tensor], keys: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """`block_bounds` of queries and of keys to (query blocks, key blocks): may they have a row in common?"""
    return (queries[0][:, None] <= keys[1]) & (keys[0] <= queries[1][:, None])


def block_mask(blocks: torch.Tensor, mask_mod, lengths: tuple[int, int]) -> BlockMask:
    """(query blocks, key blocks), which are computed, to the mask of flex_attention."""
    counts = blocks.sum(1, dtype=torch.int32)[None, None]
    indices = blocks.int().argsort(dim=1, descending=True, stable=True).int()[None, None]
    return BlockMask.from_kv_blocks(
        counts, indices, BLOCK_SIZE=FLEX_BLOCK_SIZE, mask_mod=mask_mod, seq_lengths=lengths
    )


@dataclass
class Part:
    """A few blocks, n of N, of a [`PackedLayout`]."""

    start: int  # their tokens are T[start:end]
    end: int
    slots: torch.Tensor  # (end - start,), into n * S
    keys: torch.Tensor  # (n, W + G), into T
    bias: torch.Tensor  # (n, 1, S, W + G), 0 or -inf, added to the scores
