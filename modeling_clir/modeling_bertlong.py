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
BertLong: BERT for long documents, with local attention in a window and global attention of the query's tokens.

Read from top to bottom: which tokens are global, how tokens are laid out, attention, layers, base model, heads.

Shape suffixes in the comments: B rows, L padded length, D hidden size, H heads, d head size; N blocks, S slots of a
block, W tokens that a block meets, G most global tokens of a row; T tokens of the batch, M of its longest row.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import can_return_tuple

from .configuration_bertlong import BertLongConfig


# TRF057 asks for `auto_docstring`, which outside Transformers writes "The None Model" over these docstrings.
logger = logging.get_logger(__name__)

# Slots of a block where the window does not ask for more: large enough for efficient matrix products, small enough
# that few keys outside the window are met.
BLOCK_SIZE = 64


# ---------------------------------------------------------------------------------------------------------------------
# Padding, local and global tokens
# ---------------------------------------------------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------------------------------------------------
# Layouts: how the tokens of a batch lie in memory inside the model
# ---------------------------------------------------------------------------------------------------------------------


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


@dataclass
class PackedLayout:
    """
    The tokens without the padding, `(T, D)`: the linear layers see nothing else. For the local attention every row is
    cut into blocks of S tokens; a block meets the W tokens from `window / 2` before it to `window / 2` after it and the
    global tokens of its row. Time and memory are linear in the number of tokens. The batch needs a token.
    """

    valid: torch.Tensor  # (B, L)
    is_global: torch.Tensor  # (B, L)
    windows: list[int]
    rank: torch.Tensor = field(init=False)  # (T,), number of tokens of the row before this one
    source: torch.Tensor = field(init=False)  # (T,), into B * L
    first: torch.Tensor = field(init=False)  # (B,), into T; any where the row has no token
    row_tokens: torch.Tensor = field(init=False)  # (B, M), into T
    row_mask: torch.Tensor = field(init=False)  # (B, 1, 1, M), which of them are there
    global_index: torch.Tensor = field(init=False)  # (all global tokens,), into T
    global_tokens: torch.Tensor = field(init=False)  # (B, G), into T
    global_filled: torch.Tensor = field(init=False)  # (B, G), which of them are there
    block_tokens: torch.Tensor = field(init=False)  # (N, S), into T
    block_slot: torch.Tensor = field(init=False)  # (T,), into N * S
    local_keys: dict[int, torch.Tensor] = field(init=False)  # window -> (N, W + G), into T
    local_masks: dict[int, torch.Tensor] = field(init=False)  # window -> (N, 1, S, W + G)

    def __post_init__(self):
        valid, device = self.valid, self.valid.device
        lengths = valid.sum(1)
        end = lengths.cumsum(0)  # (B,), into T
        start = end - lengths
        longest, num_tokens = int(lengths.max()), int(end[-1])
        row = torch.arange(len(lengths), device=device).repeat_interleave(lengths)  # (T,)
        self.source = valid.flatten().nonzero()[:, 0]
        self.rank = torch.arange(num_tokens, device=device) - start[row]
        self.first = start.clamp_max(num_tokens - 1)
        places = torch.arange(longest, device=device)
        self.row_tokens = (start[:, None] + places).clamp_max(num_tokens - 1)
        self.row_mask = ((places < lengths[:, None]) | (lengths == 0)[:, None])[:, None, None]

        is_global = self.is_global[valid]  # (T,)
        self.global_index = is_global.nonzero()[:, 0]
        counts = self.is_global.sum(1)
        most = int(counts.max())
        self.global_filled = torch.arange(most, device=device) < counts[:, None]
        self.global_tokens = torch.zeros(len(lengths), most, dtype=torch.long, device=device)
        self.global_tokens[self.global_filled] = self.global_index

        size = min(longest, max(BLOCK_SIZE, max(self.windows) // 2))
        blocks = (lengths + size - 1) // size  # (B,)
        block_row = torch.arange(len(lengths), device=device).repeat_interleave(blocks)  # (N,)
        block_offset = torch.arange(len(block_row), device=device) - (blocks.cumsum(0) - blocks)[block_row]
        block_start = start[block_row] + block_offset * size  # (N,), into T
        slots = torch.arange(size, device=device)
        self.block_tokens = (block_start[:, None] + slots).clamp_max(num_tokens - 1)
        self.block_slot = (blocks.cumsum(0) - blocks)[row] * size + self.rank

        self.local_keys, self.local_masks = {}, {}
        far_keys = self.global_tokens[block_row]  # (N, G)
        far = self.global_filled[block_row][:, None].expand(-1, size, -1)  # (N, S, G)
        for window in set(self.windows):
            half = window // 2
            place = torch.arange(-half, size + half, device=device)  # (W,), from the block's start
            keys = block_start[:, None] + place  # (N, W)
            in_row = (keys >= start[block_row][:, None]) & (keys < end[block_row][:, None])
            keys = keys.clamp(0, num_tokens - 1)
            # A global token is met in the list of global tokens, so not again in the window.
            near = (in_row & ~is_global[keys])[:, None] & within_window(slots, place, window)
            near = near | (slots[:, None] == place)  # see PaddedLayout
            self.local_keys[window] = torch.cat([keys, far_keys], dim=1)
            self.local_masks[window] = torch.cat([near, far], dim=2)[:, None]

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


def gather(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`(T, D)` and `(..)` to `(.., D)`. As an embedding, whose gradient is summed in parallel on a CPU."""
    return F.embedding(index, tensor)


# ---------------------------------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------------------------------


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
    """The interface of `ALL_ATTENTION_FUNCTIONS`: (.., H, queries, d) in, (.., queries, H, d) and the weights out."""
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2), weights


class BertLongSelfAttention(nn.Module):
    """
    A local token i attends to the tokens j of its row with |i - j| <= attention_window / 2 and to all global tokens,
    by `query`, `key`, `value`. A global token attends to all tokens of its row, by `query_global`, `key_global`,
    `value_global`. Scores are divided by the square root of the head size. Padding is not counted in i and j and is
    attended by nobody, wherever it lies (Beltagy et al. 2020, Longformer, section 3.1).
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

    def heads(self, tensor: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, D) -> (batch, H, tokens, d)"""
        return tensor.unflatten(-1, (-1, self.head_size)).transpose(1, 2)

    def forward(
        self,
        hidden_states: torch.Tensor,
        layout: PaddedLayout | PackedLayout,
        attention_interface: Callable,
        only_global: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0

        def attention(query, key, value, mask):
            output, weights = attention_interface(
                self,
                self.heads(query),
                self.heads(key),
                self.heads(value),
                mask,
                scaling=self.scaling,
                dropout=dropout,
            )
            return output.flatten(2), weights

        if isinstance(layout, PaddedLayout):
            return self.padded_attention(hidden_states, layout, attention)
        return self.packed_attention(hidden_states, layout, attention, only_global)

    def padded_attention(self, hidden_states, layout, attention):
        x = hidden_states  # (B, L, D)
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

    def packed_attention(self, hidden_states, layout, attention, only_global):
        x = hidden_states  # (T, D)
        if not only_global:
            queries = gather(self.query(x), layout.block_tokens)  # (N, S, D)
            index = layout.local_keys[self.window]
            output, _ = attention(
                queries, gather(self.key(x), index), gather(self.value(x), index), layout.local_masks[self.window]
            )
            output = gather(output.flatten(0, 1), layout.block_slot)  # (T, D)
            if not len(layout.global_index):
                return output, None
        queries = self.query_global(x[layout.global_tokens])  # (B, G, D)
        keys = gather(self.key_global(x), layout.row_tokens)  # (B, M, D)
        values = gather(self.value_global(x), layout.row_tokens)
        global_output, _ = attention(queries, keys, values, layout.row_mask.expand(-1, -1, queries.shape[1], -1))
        global_output = global_output[layout.global_filled]  # (all global tokens, D)
        if not only_global:
            return output.index_copy(0, layout.global_index, global_output), None
        if torch.is_grad_enabled():  # a gradient of 0, not none: what momentum and DDP need
            unused = (self.query, self.key, self.value)
            global_output = global_output + 0.0 * sum(p.sum() for linear in unused for p in linear.parameters())
        return global_output, None


# ---------------------------------------------------------------------------------------------------------------------
# Layers: BERT's, but for the attention
# ---------------------------------------------------------------------------------------------------------------------


class BertLongEmbeddings(nn.Module):
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: torch.Tensor, token_type_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        """`words`: token ids, or their embeddings."""
        if not words.is_floating_point():
            words = self.word_embeddings(words)
        embeddings = words + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))


class BertLongResidual(nn.Module):
    """Linear, dropout, sum with the input of the sublayer, layer norm."""

    def __init__(self, config: BertLongConfig, in_features: int):
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class BertLongAttention(nn.Module):
    def __init__(self, config: BertLongConfig, window: int):
        super().__init__()
        self.self = BertLongSelfAttention(config, window)
        self.output = BertLongResidual(config, config.hidden_size)

    def forward(self, hidden_states, layout, attention_interface, only_global):
        attended, weights = self.self(hidden_states, layout, attention_interface, only_global)
        residual = hidden_states[layout.global_index] if only_global else hidden_states
        return self.output(attended, residual), weights


class BertLongIntermediate(nn.Module):
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.dense(hidden_states))


class BertLongLayer(GradientCheckpointingLayer):
    def __init__(self, config: BertLongConfig, window: int):
        super().__init__()
        self.attention = BertLongAttention(config, window)
        self.intermediate = BertLongIntermediate(config)
        self.output = BertLongResidual(config, config.intermediate_size)

    def forward(self, hidden_states, layout, attention_interface, only_global=False):
        """With `only_global` the states of the global tokens alone are computed, `(all global tokens, D)`."""
        hidden_states, weights = self.attention(hidden_states, layout, attention_interface, only_global)
        return self.output(self.intermediate(hidden_states), hidden_states), weights


class BertLongEncoder(nn.Module):
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.layer = nn.ModuleList(BertLongLayer(config, window) for window in config.window_per_layer)


class BertLongPooler(nn.Module):
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first_token: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(first_token))


class BertLongPredictionHeadTransform(nn.Module):
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class BertLongLMPredictionHead(nn.Module):
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.transform = BertLongPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.transform(hidden_states)) + self.bias


class BertLongOnlyMLMHead(nn.Module):  # trf-ignore: TRF026 (BERT's names)
    def __init__(self, config: BertLongConfig):
        super().__init__()
        self.predictions = BertLongLMPredictionHead(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.predictions(hidden_states)


# ---------------------------------------------------------------------------------------------------------------------
# Base model
# ---------------------------------------------------------------------------------------------------------------------


class BertLongPreTrainedModel(PreTrainedModel):  # trf-ignore: TRF057
    config_class = BertLongConfig
    base_model_prefix = "bert"
    supports_gradient_checkpointing = True
    _no_split_modules = ["BertLongEmbeddings", "BertLongLayer"]
    _supports_sdpa = True
    _supports_flash_attn = False  # FlashAttention knows no global tokens
    _supports_flex_attn = False
    # One checkpoint serves every head: what belongs to another one is no surprise.
    _keys_to_ignore_on_load_unexpected = [
        r"^(bert\.)?pooler\.dense\.(weight|bias)$",
        r"^cls\.predictions\.(bias|decoder\.weight|transform\.(dense|LayerNorm)\.(weight|bias))$",
        r"^(classifier|qa_outputs)\.(weight|bias)$",
    ]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, BertLongLMPredictionHead):
            init.zeros_(module.bias)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        if (head := getattr(self, "cls", None)) is not None:
            bias, size = head.predictions.bias, embeddings.num_embeddings
            head.predictions.bias = nn.Parameter(F.pad(bias.data, (0, size - len(bias))), bias.requires_grad)
        return embeddings


class BertLongModel(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """BertLong without a head. `forward` says what goes in and comes out."""

    def __init__(self, config: BertLongConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        config.validate_architecture()
        self.embeddings = BertLongEmbeddings(config)
        self.encoder = BertLongEncoder(config)
        self.pooler = BertLongPooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self):
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.embeddings.word_embeddings = value

    # trf-ignore: TRF045 (the hooks of `capture_outputs` would record blocks, not rows)
    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        wanted: torch.Tensor | bool = True,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                Token ids. They or `inputs_embeds` must be given.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 for padding, 1 for a token; 2 for a global token (the convention of 2021). Padding may lie anywhere
                and changes nothing.
            token_type_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 for the query (`[CLS] query [SEP]`), 1 for the document.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)` or `(1, sequence_length)`,
            *optional*):
                Defaults to the number of tokens before this one in its row, padding not counted.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Word embeddings, in place of `input_ids`.
            global_attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for a global token. By default the model finds the query's tokens itself, see [`global_tokens`].
            output_attentions (`bool`, *optional*):
                Return attention weights of shape `(batch_size, num_heads, sequence_length, sequence_length)` per
                layer, computed by the eager implementation.
            output_hidden_states (`bool`, *optional*):
                Return the embeddings and the output of every layer.
            wanted (`torch.BoolTensor` of shape `(batch_size, sequence_length)` or `bool`, *optional*, defaults to `True`):
                Where `last_hidden_state` is read, beside the first token of each row (`False`: nowhere). Elsewhere it
                may be 0: where only global tokens are wanted, the last layer computes no other ones.

        Returns:
            `BaseModelOutputWithPooling`; `last_hidden_state` is 0 at padding, `pooler_output` is of the first token
            that is not padding.

        Raises:
            `ValueError` where a row has more tokens than `max_position_embeddings`, or shapes do not fit together.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        words = input_ids if input_ids is not None else inputs_embeds
        if words.dim() != (2 if input_ids is not None else 3):
            raise ValueError(
                "input_ids are of shape (batch_size, sequence_length), inputs_embeds of shape (batch_size, "
                f"sequence_length, hidden_size), got {tuple(words.shape)}"
            )
        shape = words.shape[:2]
        if position_ids is not None and position_ids.shape == (1, shape[1]):
            position_ids = position_ids.expand(shape)
        if attention_mask is None:
            attention_mask = torch.ones(shape, dtype=torch.long, device=words.device)
        for name, tensor in (
            ("attention_mask", attention_mask),
            ("token_type_ids", token_type_ids),
            ("position_ids", position_ids),
            ("global_attention_mask", global_attention_mask),
            ("labels", wanted if torch.is_tensor(wanted) else None),
        ):
            if tensor is not None and tensor.shape != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}, the input has {tuple(shape)}")
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states

        implementation = self.config._attn_implementation
        if output_attentions and implementation != "eager":
            logger.warning_once(
                f"{implementation} attention returns no weights: they are computed by eager attention."
            )
            implementation = "eager"
        fixed_shapes = torch.compiler.is_compiling() or torch.jit.is_tracing()
        valid = attention_mask > 0
        padded = implementation == "eager" or fixed_shapes or not valid.any()
        is_global = global_tokens(attention_mask, token_type_ids, global_attention_mask)
        layout = (PaddedLayout if padded else PackedLayout)(valid, is_global, self.config.window_per_layer)
        only_global = not (padded or output_hidden_states or wanted is True)
        if only_global:
            first = valid & (valid.cumsum(1) == 1)
            only_global = not ((first | wanted) & ~is_global).any()
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)

        positions = layout.rank.clamp_min(0) if position_ids is None else layout.pack(position_ids)
        self.check_length(attention_mask, position_ids, fixed_shapes)
        if token_type_ids is None:
            token_type_ids = torch.zeros(shape, dtype=torch.long, device=words.device)
        hidden_states = self.embeddings(layout.pack(words), layout.pack(token_type_ids), positions)

        all_hidden_states = (layout.unpack(hidden_states),) if output_hidden_states else None
        all_attentions = () if output_attentions else None
        for number, layer in enumerate(self.encoder.layer, start=1):
            if only_global and number == len(self.encoder.layer):
                states, weights = layer(hidden_states, layout, attention_interface, only_global=True)
                hidden_states = torch.zeros_like(hidden_states).index_copy(0, layout.global_index, states)
                break
            hidden_states, weights = layer(hidden_states, layout, attention_interface)
            if output_hidden_states:
                all_hidden_states += (layout.unpack(hidden_states),)
            if output_attentions:
                all_attentions += (weights,)
        return BaseModelOutputWithPooling(
            last_hidden_state=all_hidden_states[-1] if output_hidden_states else layout.unpack(hidden_states),
            pooler_output=self.pooler(layout.first_token(hidden_states)) if self.pooler is not None else None,
            hidden_states=all_hidden_states,
            attentions=all_attentions,
        )

    def check_length(self, attention_mask, position_ids, fixed_shapes):
        limit = self.config.max_position_embeddings
        if attention_mask.shape[1] <= limit and position_ids is None:
            return
        if fixed_shapes:
            longest = attention_mask.shape[1]
        elif position_ids is not None:
            longest = int(position_ids.masked_fill(attention_mask <= 0, 0).max()) + 1
        else:
            longest = int((attention_mask > 0).sum(1).max())
        if longest > limit:
            raise ValueError(
                f"the sequence has {longest} tokens, the model's max_position_embeddings is {limit}: truncate the input "
                "(max_length of the tokenizer), or convert the model to more positions"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Heads
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class XLRetrievalOutput(ModelOutput):  # trf-ignore: TRF057
    """
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
        QLM: mean cross-entropy of the masked tokens. RR: mean (binary) cross-entropy of the pairs.
    prediction_logits (`torch.FloatTensor` of shape `(batch_size, sequence_length, vocab_size)`, or `(labelled, vocab_size)`):
        Scores of the vocabulary; with sparse prediction at the labelled positions only, in row-major order.
    relevance_logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
        Relevance of the document to the query; the last logit is the score.
    hidden_states, attentions: as of the base model.
    """

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    relevance_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def labelled(labels: torch.Tensor | None, sparse: bool) -> torch.Tensor | bool:
    """Where a masked language model reads the last hidden states; see [`masked_lm`]."""
    return labels != -100 if sparse and labels is not None else True


def masked_lm(
    head: nn.Module, hidden_states: torch.Tensor, labels: torch.Tensor | None, sparse: bool
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """
    Loss and logits of a masked language model; -100 in `labels` marks what is not predicted. With `sparse` the head
    runs on the labelled positions only, which is most of the cost of pretraining with a large vocabulary saved.
    """
    if labels is None:
        return None, head(hidden_states)
    if labels.shape != hidden_states.shape[:2]:
        raise ValueError(f"labels has shape {tuple(labels.shape)}, the input has {tuple(hidden_states.shape[:2])}")
    if sparse:
        chosen = labels != -100
        logits, targets = head(hidden_states[chosen]), labels[chosen]
    else:
        logits, targets = head(hidden_states), labels
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="sum")
    return total / (targets != -100).sum().clamp_min(1), logits  # 0, not NaN, where nothing is to be predicted


def retrieval_heads(model, outputs, task: str | None, labels: torch.Tensor | None, sparse: bool):
    """What `BertLongForXLRetrieval` and `BertForXLRetrieval` compute on top of their base model's outputs."""
    if task not in (None, "qlm", "rr"):
        raise ValueError(f"task must be 'qlm', 'rr' or None (both heads), got {task!r}")
    if labels is not None and task is None:
        raise ValueError("labels belong to one task: pass task='qlm' or task='rr' with them")
    loss = prediction_logits = relevance_logits = None
    if task != "rr":
        loss, prediction_logits = masked_lm(model.cls, outputs.last_hidden_state, labels, sparse)
    if task != "qlm":
        relevance_logits = model.classifier(model.dropout(outputs.pooler_output))
        if labels is not None and relevance_logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(relevance_logits.flatten().float(), labels.flatten().float())
        elif labels is not None:
            loss = F.cross_entropy(relevance_logits.float(), labels.flatten().long())
    return XLRetrievalOutput(
        loss=loss,
        prediction_logits=prediction_logits,
        relevance_logits=relevance_logits,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )


def classifier_dropout(config) -> nn.Dropout:
    own = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if own is None else own)


class BertLongForXLRetrieval(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """
    BertLong with both heads of the pretraining: query language modelling (QLM: masked query tokens are predicted from the
    document in the other language) and relevance ranking (RR), after Yu, Fei, Li (2021), "Cross-lingual Language Model
    Pretraining for Retrieval", section 3.
    """

    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.bert = BertLongModel(config)
        self.cls = BertLongOnlyMLMHead(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def get_output_embeddings(self):
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings):
        self.cls.predictions.decoder = new_embeddings

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        task: str | None = None,
        sparse_prediction: bool | None = None,
        **kwargs,
    ) -> XLRetrievalOutput:
        r"""
        Args (the others are [`BertLongModel`]'s):
            task (`str`, *optional*):
                `"qlm"` or `"rr"`: only this head is computed. Both by default.
            labels (`torch.Tensor`, *optional*, needs `task`):
                QLM: shape `(batch_size, sequence_length)`, the token to predict, -100 elsewhere. RR: shape
                `(batch_size,)`, 1 relevant, 0 not.
            sparse_prediction (`bool`, *optional*):
                Compute `prediction_logits` at the labelled positions only. By default while training.
        """
        sparse = self.training if sparse_prediction is None else sparse_prediction
        outputs = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            global_attention_mask=global_attention_mask,
            return_dict=True,
            wanted=task != "rr" and labelled(labels, task == "qlm" and sparse),
            **kwargs,
        )
        return retrieval_heads(self, outputs, task, labels, sparse)


class BertLongForMaskedLM(BertLongPreTrainedModel):  # trf-ignore: TRF057
    accepts_loss_kwargs = False  # of Trainer: the loss is the mean of the batch, not of the accumulated batches
    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.bert = BertLongModel(config, add_pooling_layer=False)
        self.cls = BertLongOnlyMLMHead(config)
        self.post_init()

    def get_output_embeddings(self):
        return self.cls.predictions.decoder

    def set_output_embeddings(self, new_embeddings):
        self.cls.predictions.decoder = new_embeddings

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sparse_prediction: bool | None = None,
        **kwargs,
    ) -> MaskedLMOutput:
        r"""
        Args (the others are [`BertLongModel`]'s):
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                The token to predict, -100 elsewhere.
            sparse_prediction (`bool`, *optional*):
                Compute `logits` at the labelled positions only, of shape `(labelled, vocab_size)`. By default while
                training with labels.
        """
        sparse = self.training if sparse_prediction is None else sparse_prediction
        outputs = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            global_attention_mask=global_attention_mask,
            return_dict=True,
            wanted=labelled(labels, sparse),
            **kwargs,
        )
        loss, logits = masked_lm(self.cls, outputs.last_hidden_state, labels, sparse)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class BertLongForSequenceClassification(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """The reranker: with `num_labels=1` the logit is the relevance of the document to the query."""

    accepts_loss_kwargs = False

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = BertLongModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs,
    ) -> SequenceClassifierOutput:
        r"""
        Args (the others are [`BertLongModel`]'s):
            labels (`torch.Tensor` of shape `(batch_size,)`, or `(batch_size, num_labels)`, *optional*):
                The loss is as in every model of Transformers: by `config.problem_type`, else mean squared error for one
                label, cross-entropy for integer labels, binary cross-entropy for the rest.
        """
        outputs = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            global_attention_mask=global_attention_mask,
            return_dict=True,
            wanted=False,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.pooler_output))
        loss = None
        if labels is not None:
            problem_type = self.config.problem_type
            if problem_type is None and self.num_labels == 1:
                problem_type = "regression"
            elif problem_type is None:
                floats = labels.is_floating_point()
                problem_type = "multi_label_classification" if floats else "single_label_classification"
            if problem_type == "regression":
                loss = F.mse_loss(logits.view(labels.shape), labels.to(logits.dtype))
            elif problem_type == "single_label_classification":
                loss = F.cross_entropy(logits, labels.view(-1))
            else:
                loss = F.binary_cross_entropy_with_logits(logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class BertLongForQuestionAnswering(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """Start and end of the answer in the document; question in segment 0, so global."""

    accepts_loss_kwargs = False

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.bert = BertLongModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(  # trf-ignore: TRF057
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        global_attention_mask: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs,
    ) -> QuestionAnsweringModelOutput:
        r"""
        Args (the others are [`BertLongModel`]'s):
            start_positions, end_positions (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                First and last token of the answer. A position outside the input is ignored.
        """
        outputs = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            global_attention_mask=global_attention_mask,
            return_dict=True,
            **kwargs,
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            outside = start_logits.shape[1]
            losses = [
                F.cross_entropy(logits, positions.view(-1).clamp(0, outside), ignore_index=outside)
                for logits, positions in ((start_logits, start_positions), (end_logits, end_positions))
            ]
            loss = sum(losses) / 2
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = [
    "BertLongForMaskedLM",
    "BertLongForQuestionAnswering",
    "BertLongForSequenceClassification",
    "BertLongForXLRetrieval",
    "BertLongModel",
    "BertLongPreTrainedModel",
    "XLRetrievalOutput",
    "global_tokens",
]
