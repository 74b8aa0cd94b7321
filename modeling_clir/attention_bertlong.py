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
BertLong's self-attention: local in a window, global for the query's tokens.

Read from bottom to top: `BertLongSelfAttention`, then the functions that it calls. Shapes use the letters of
layout_bertlong.py, and H for heads, d for head size.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .blocks_bertlong import BlockedLayout, blocked_attention
from .configuration_bertlong import BertLongConfig
from .layout_bertlong import PackedLayout, PaddedLayout, Part
from .varlen_bertlong import MergedAttention


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Eager attention with the interface of `ALL_ATTENTION_FUNCTIONS`.

    Args:
        query (`torch.Tensor` of shape `(.., H, queries, d)`); key, value (`torch.Tensor` of shape `(.., H, keys, d)`).
        attention_mask (`torch.BoolTensor` of shape `(.., queries, keys)`): True where a query attends to a key.
        scaling (`float`): factor of the scores.
        dropout (`float`, defaults to 0): share of the weights that is dropped in training.

    Returns:
        The attended values `(.., queries, H, d)` and the weights `(.., H, queries, keys)`.
    """
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2), weights


@cache
def compiled_flex_attention() -> Callable:
    """Calls `torch.compile` only at the first use, because importing the compiler takes 2 seconds."""
    return torch.compile(flex_attention)


def flex_attention_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: BlockMask, scaling: float
) -> torch.Tensor:
    """
    Maps `query` of shape `(H, queries, d)`, `key` and `value` of shape `(H, keys, d)` to `(queries, H, d)`. Runs
    compiled on a GPU. On a CPU it is a reference: no gradients, quadratic cost.
    """
    function = flex_attention if query.device.type == "cpu" else compiled_flex_attention()
    return function(query[None], key[None], value[None], block_mask=mask, scale=scaling)[0].transpose(0, 1)


def gather(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """
    Maps `tensor` of shape `(T, D)` and `index` of shape `(..)` to `(.., D)`. Uses an embedding because its gradient
    runs in parallel on a CPU.
    """
    return F.embedding(index, tensor)


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """Casts half precision to float32; leaves float32 and float64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def keep_mask(shape: torch.Size, dropout: float) -> tuple[torch.Tensor, float]:
    """
    Draws a dropout mask. One random number of 64 bits decides for four elements, which is several times as fast as
    `bernoulli_` on a CPU.

    Args:
        shape (`torch.Size`): shape of the mask.
        dropout (`float`): share that is dropped, above 0; rounded to a multiple of 1 / 65536.

    Returns:
        `torch.BoolTensor` of `shape`, True where an element is kept, and the factor that scales the kept elements.
    """
    size, dropped = math.prod(shape), max(round(dropout * 2**16), 1)
    bits = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    return (bits[:size] > dropped - 2**15 - 1).view(shape), 2**16 / max(2**16 - dropped, 1)


class LocalAttention(torch.autograd.Function):
    """
    The local attention of a [`PackedLayout`] on a CPU. It computes a few blocks at a time, holds the keys and values
    of those blocks only, and computes the attention weights again for the gradients (Dao et al. 2022, FlashAttention,
    section 3.1). `scaled_dot_product_attention` with dropout would keep all weights.
    """

    @staticmethod
    def forward(
        ctx,
        query: torch.Tensor,  # (T, D), as key and value
        key: torch.Tensor,
        value: torch.Tensor,
        parts: list[Part],
        head_size: int,
        scaling: float,
        dropout: float,
    ) -> torch.Tensor:
        ctx.parts, ctx.head_size, ctx.scaling, ctx.factor = parts, head_size, scaling, 1.0
        kept = []
        output = torch.empty_like(query)
        for part in parts:
            weights = LocalAttention.weights(ctx, part, query, key)
            if dropout:
                mask, ctx.factor = keep_mask(weights.shape, dropout)
                weights.mul_(mask).mul_(ctx.factor)
                kept.append(mask)
            attended = torch.matmul(weights.to(value.dtype), LocalAttention.keys(ctx, part, value))
            output[part.start : part.end] = attended.transpose(1, 2).flatten(2).flatten(0, 1)[part.slots]
        ctx.save_for_backward(query, key, value, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        query, key, value, *kept = ctx.saved_tensors
        query_gradient = torch.empty_like(query)
        key_gradient, value_gradient = exact(torch.zeros_like(key)), exact(torch.zeros_like(value))

        def add(total, part, share):  # (n, H, W + G, d)
            total.index_add_(0, part.keys.flatten(), share.transpose(1, 2).flatten(2).flatten(0, 1).to(total.dtype))

        for number, part in enumerate(ctx.parts):
            weights = LocalAttention.weights(ctx, part, query, key)
            upstream = LocalAttention.queries(ctx, part, gradient)
            change = torch.matmul(upstream, LocalAttention.keys(ctx, part, value).transpose(-1, -2))
            change = exact(change)
            dropped = weights
            if kept:
                dropped = (weights * kept[number]).mul_(ctx.factor)
                change.mul_(kept[number]).mul_(ctx.factor)
            add(value_gradient, part, torch.matmul(dropped.to(value.dtype).transpose(-1, -2), upstream))
            change.sub_((change * weights).sum(-1, keepdim=True)).mul_(weights).mul_(ctx.scaling)
            change = change.to(query.dtype)
            share = torch.matmul(change, LocalAttention.keys(ctx, part, key))
            query_gradient[part.start : part.end] = share.transpose(1, 2).flatten(2).flatten(0, 1)[part.slots]
            add(key_gradient, part, torch.matmul(change.transpose(-1, -2), LocalAttention.queries(ctx, part, query)))
        return query_gradient, key_gradient.to(key.dtype), value_gradient.to(value.dtype), None, None, None, None

    @staticmethod
    def queries(ctx, part: Part, tensor: torch.Tensor) -> torch.Tensor:
        """Maps (T, D) to (n, H, S, d); empty slots are 0."""
        n, _, size, _ = part.bias.shape
        blocks = tensor.new_zeros(n * size, tensor.shape[1])
        blocks[part.slots] = tensor[part.start : part.end]
        return blocks.view(n, size, -1, ctx.head_size).transpose(1, 2)

    @staticmethod
    def keys(ctx, part: Part, tensor: torch.Tensor) -> torch.Tensor:
        """Maps (T, D) to (n, H, W + G, d)."""
        return gather(tensor, part.keys).unflatten(-1, (-1, ctx.head_size)).transpose(1, 2)

    @staticmethod
    def weights(ctx, part: Part, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Attention weights of shape (n, H, S, W + G), in float32 or float64."""
        queries, keys = LocalAttention.queries(ctx, part, query), LocalAttention.keys(ctx, part, key)
        scores = exact(torch.matmul(queries, keys.transpose(-1, -2)))
        return scores.mul_(ctx.scaling).add_(part.bias).softmax(-1)


class BertLongSelfAttention(nn.Module):
    """
    A local token i attends to the tokens j of its row with |i - j| <= attention_window / 2 and to all global tokens of
    its row; it uses `query`, `key`, `value`. A global token attends to all tokens of its row; it uses `query_global`,
    `key_global`, `value_global`. Scores are divided by the square root of the head size. The positions i and j do not
    count padding, and no token attends to padding (Beltagy et al. 2020, Longformer, section 3.1).
    """

    is_causal = False

    def __init__(self, config: BertLongConfig, window: int):
        super().__init__()
        self.config = config
        self.window = window
        self.head_size = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_size**-0.5
        for name in ("query", "key", "value", "query_global", "key_global", "value_global"):
            setattr(self, name, nn.Linear(config.hidden_size, config.hidden_size))

    @property
    def dropout(self) -> float:
        return self.config.attention_probs_dropout_prob if self.training else 0.0

    def heads(self, tensor: torch.Tensor) -> torch.Tensor:
        """Maps (.., tokens, D) to (.., H, tokens, d)."""
        return tensor.unflatten(-1, (-1, self.head_size)).transpose(-3, -2)

    def forward(
        self,
        hidden_states: torch.Tensor,
        layout: PaddedLayout | PackedLayout | BlockedLayout,
        attention_interface: Callable,
        only_global: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(B, L, D)` or `(T, D)`): in the form of the layout.
            layout (`PaddedLayout`, `PackedLayout` or `BlockedLayout`).
            attention_interface (`Callable`): a function of `ALL_ATTENTION_FUNCTIONS`.
            only_global (`bool`): compute the states of the global tokens only; needs a `PackedLayout`.

        Returns:
            The attended states, of the shape of `hidden_states`, or `(all global tokens, D)` with `only_global`, or
            `(B, 1, D)` with the one query of `BlockedLayout.only_first`; and the weights `(B, H, L, L)` from eager
            attention, else None.

        Raises:
            `ValueError` if flex_attention or varlen is to drop attention weights.
        """

        def attention(query, key, value, mask):
            output, weights = attention_interface(
                self,
                self.heads(query),
                self.heads(key),
                self.heads(value),
                mask,
                scaling=self.scaling,
                dropout=self.dropout,
            )
            return output.flatten(2), weights

        x, device = hidden_states, hidden_states.device.type
        if torch.is_autocast_enabled(device):  # cast once instead of in each linear layer
            x = x.to(torch.get_autocast_dtype(device))
        if isinstance(layout, PaddedLayout):
            return self.padded_attention(x, layout, attention)
        if isinstance(layout, BlockedLayout):
            return blocked_attention(self, x, layout), None
        if self.dropout and self.config._attn_implementation in ("flex_attention", "varlen"):
            raise ValueError(
                f"{self.config._attn_implementation} has no dropout of attention weights: set "
                "attention_probs_dropout_prob to 0 for training, or use attn_implementation='sdpa'"
            )
        if not only_global:
            output = self.local_attention(x, layout, attention)
            if not len(layout.global_index):
                return output, None
        global_output = self.global_attention(x, layout, attention)
        if not only_global:
            return output.index_copy(0, layout.global_index, global_output), None
        if torch.is_grad_enabled():  # zero gradient instead of None, for DDP and momentum
            unused = (self.query, self.key, self.value)
            global_output = global_output + 0.0 * sum(p.sum() for linear in unused for p in linear.parameters())
        return global_output, None

    def padded_attention(self, x, layout, attention):
        output, weights = attention(self.query(x), self.key(x), self.value(x), layout.local_masks[self.window])
        global_mask = layout.global_mask.expand(-1, -1, x.shape[1], -1)
        global_output, global_weights = attention(
            self.query_global(x), self.key_global(x), self.value_global(x), global_mask
        )
        output = torch.where(layout.is_global[..., None], global_output, output)
        if weights is not None:
            weights = torch.where(layout.is_global[:, None, :, None], global_weights, weights)
            weights = weights * layout.valid[:, None, :, None]
        return output, weights

    def blocked_on_cpu(self, x: torch.Tensor) -> bool:
        return x.device.type == "cpu" and self.config._attn_implementation == "sdpa"

    def local_attention(self, x, layout, attention):
        """Computes attended states as if all tokens were local. Maps (T, D) to (T, D)."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.blocked_on_cpu(x):
            parts = layout.local_parts[self.window]
            return LocalAttention.apply(query, key, value, parts, self.head_size, self.scaling, self.dropout)
        if self.config._attn_implementation == "flex_attention":
            query, key, value = self.heads(query), self.heads(key), self.heads(value)
            return flex_attention_forward(query, key, value, layout.flex_local[self.window], self.scaling).flatten(1)
        if self.config._attn_implementation == "varlen" and layout.query_first:
            return self.query_first_attention(query, key, value, layout)
        index, mask = layout.local_keys[self.window]
        output, _ = attention(gather(query, layout.block_tokens), gather(key, index), gather(value, index), mask)
        return gather(output.flatten(0, 1), layout.block_slot)

    def query_first_attention(self, query, key, value, layout):
        """The local attention of rows that start with their global tokens; 0 at the global tokens."""
        local, far = layout.local_index, layout.attended_index
        attended = MergedAttention.apply(
            *(
                gather(query, local).unflatten(-1, (-1, self.head_size)),
                self.scaling,
                layout.varlen_local[self.window],
            ),
            *(
                gather(tensor, index).unflatten(-1, (-1, self.head_size))
                for index in (local, far)
                for tensor in (key, value)
            ),
        )
        return torch.zeros_like(query).index_copy(0, local, attended.flatten(1))

    def global_attention(self, x, layout, attention):
        """Computes attended states of the global tokens. Maps (T, D) to (all global tokens, D)."""
        query = self.query_global(x[layout.global_index])
        if self.blocked_on_cpu(x) and self.rows_are_cheaper(layout):
            return self.global_attention_of_rows(query, x, layout)
        key, value = self.key_global(x), self.value_global(x)
        if self.config._attn_implementation == "flex_attention":
            query, key, value = self.heads(query), self.heads(key), self.heads(value)
            return flex_attention_forward(query, key, value, layout.flex_global, self.scaling).flatten(1)
        if self.config._attn_implementation == "varlen":
            if (index := layout.rows_with_global) is not None:
                key, value = gather(key, index), gather(value, index)
            query, key, value = (tensor.unflatten(-1, (-1, self.head_size)) for tensor in (query, key, value))
            return MergedAttention.apply(query, self.scaling, [layout.varlen_global], key, value).flatten(1)
        query = gather(query, layout.global_table)  # (B, G, D)
        key, value = gather(key, layout.row_tokens), gather(value, layout.row_tokens)  # (B, M, D)
        output, _ = attention(query, key, value, layout.row_mask.expand(-1, -1, query.shape[1], -1))
        return output[layout.global_filled]

    def rows_are_cheaper(self, layout: PackedLayout) -> bool:
        """Tells whether `global_attention_of_rows` is less work than `key_global` and `value_global` of all tokens."""
        plain = type(self.key_global) is nn.Linear and type(self.value_global) is nn.Linear  # not wrapped or quantized
        # Multiply-adds: H G M D per row for the scores and again for the values, T D D for each linear layer.
        return (
            plain
            and self.config.num_attention_heads * layout.global_pairs < layout.num_tokens * self.config.hidden_size
        )

    def global_attention_of_rows(self, query, x, layout):
        """
        Computes the global attention without the keys and values of all tokens: q (W x + b) = (q W) x + q b, and the
        sum of p (W x + b) is W (sum of p x) + b (sum of p). It works row by row, so it computes no padding.
        """
        query = self.heads(query)  # (H, all global tokens, d)
        weight, bias = (
            getattr(self.key_global, name).unflatten(0, (-1, self.head_size)) for name in ("weight", "bias")
        )
        reading = torch.matmul(query, weight)  # (H, all global tokens, D)
        offset = torch.matmul(query, bias[..., None])  # (H, all global tokens, 1)
        found, shares = [], []
        counts, lengths = layout.global_counts.tolist(), layout.lengths.tolist()
        for tokens, q, b in zip(x.split(lengths), reading.split(counts, 1), offset.split(counts, 1)):
            scores = exact(torch.matmul(q.flatten(0, 1), tokens.T) + b.flatten(0, 1))
            weights = F.softmax(scores * self.scaling, dim=-1)
            if self.dropout:
                kept, factor = keep_mask(weights.shape, self.dropout)
                weights = weights * kept * factor
            shares.append(weights.sum(-1, keepdim=True).view(b.shape))
            found.append(torch.matmul(weights.to(tokens.dtype), tokens).view(q.shape))
        weight, bias = (
            getattr(self.value_global, name).unflatten(0, (-1, self.head_size)) for name in ("weight", "bias")
        )
        output = torch.matmul(torch.cat(found, 1), weight.transpose(1, 2)) + torch.cat(shares, 1) * bias[:, None]
        return output.transpose(0, 1).flatten(1).to(x.dtype)
