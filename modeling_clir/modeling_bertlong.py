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
block, G most global tokens of a row, M most blocks of a row.
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
class BlockLayout:
    """
    The tokens without the padding, `(N, S, D)`: every row is cut into blocks of S tokens, and only its last block has
    empty slots. Since S is at least half of every window, the window of a token lies in its own block and the two
    beside it. Time and memory are linear in the number of tokens.
    """

    valid: torch.Tensor  # (B, L)
    is_global: torch.Tensor  # (B, L)
    windows: list[int]
    rank: torch.Tensor = field(init=False)  # (N, S), number of tokens of the row before this one; -1 in an empty slot
    token_index: torch.Tensor = field(init=False)  # (tokens,), into B * L
    slot_index: torch.Tensor = field(init=False)  # (tokens,), into N * S
    source_index: torch.Tensor = field(init=False)  # (N * S,), into B * L; 0 in an empty slot
    first_slot: torch.Tensor = field(init=False)  # (B,), into N * S
    block_row: torch.Tensor = field(init=False)  # (N,), the row of a block
    row_blocks: torch.Tensor = field(init=False)  # (B, M), the blocks of a row
    row_mask: torch.Tensor = field(init=False)  # (B, 1, 1, M * S), which slots of row_blocks hold a token
    global_slots: torch.Tensor = field(init=False)  # (B, G), into N * S
    global_filled: torch.Tensor = field(init=False)  # (B, G), which of them are there
    local_masks: dict[int, torch.Tensor] = field(init=False)  # window -> (N, 1, S, 3 * S + G)

    def __post_init__(self):
        valid, device = self.valid, self.valid.device
        batch_size = valid.shape[0]
        lengths = valid.sum(1)
        size = max(1, min(int(lengths.max()), max(BLOCK_SIZE, max(self.windows) // 2)))
        blocks = ((lengths + size - 1) // size).clamp_min(1)  # (B,); a row without tokens has an empty block
        start = blocks.cumsum(0) - blocks  # (B,), first block of a row
        num_blocks = int(blocks.sum())

        token_row = valid.nonzero()[:, 0]
        token_rank = (valid.cumsum(1) - 1)[valid]
        self.token_index = valid.flatten().nonzero()[:, 0]
        self.slot_index = start[token_row] * size + token_rank
        self.source_index = torch.zeros(num_blocks * size, dtype=torch.long, device=device)
        self.source_index[self.slot_index] = self.token_index
        rank = torch.full((num_blocks * size,), -1, device=device)
        rank[self.slot_index] = token_rank
        self.rank = rank.view(num_blocks, size)
        filled = self.rank >= 0
        self.first_slot = start * size
        self.block_row = torch.arange(batch_size, device=device).repeat_interleave(blocks)

        offsets = torch.arange(int(blocks.max()), device=device)
        row_has = offsets < blocks[:, None]  # (B, M)
        self.row_blocks = torch.where(row_has, start[:, None] + offsets, 0)
        row_mask = (filled[self.row_blocks] & row_has[..., None]).flatten(1)
        self.row_mask = (row_mask | (lengths == 0)[:, None])[:, None, None]

        slot_is_global = torch.zeros(num_blocks * size, dtype=torch.bool, device=device)
        slot_is_global[self.slot_index] = self.is_global[valid]
        counts = self.is_global.sum(1)
        most = int(counts.max())
        self.global_filled = torch.arange(most, device=device) < counts[:, None]  # (B, G)
        self.global_slots = torch.zeros(batch_size, most, dtype=torch.long, device=device)
        self.global_slots[self.global_filled] = slot_is_global.nonzero()[:, 0]

        # A global token is met in the list of global tokens, so not again in the blocks.
        is_key = filled & ~slot_is_global.view_as(filled)
        same_row = self.block_row[1:] == self.block_row[:-1]
        before = F.pad(same_row, (1, 0))[:, None]  # (N, 1), is the block before of the same row?
        after = F.pad(same_row, (0, 1))[:, None]
        no_block = torch.zeros_like(is_key[:1])
        before_is_key = torch.cat([no_block, is_key])[:-1] & before
        after_is_key = torch.cat([is_key, no_block])[1:] & after
        key_rank = self.neighbours(self.rank)
        near = torch.cat([before_is_key, is_key, after_is_key], dim=1)[:, None]  # (N, 1, 3S)
        itself = F.pad(torch.eye(size, dtype=torch.bool, device=device), (size, size))  # see PaddedLayout
        far = self.global_filled[self.block_row][:, None].expand(-1, size, -1)  # (N, S, G)
        self.local_masks = {
            window: torch.cat([within_window(self.rank, key_rank, window) & near | itself, far], dim=2)[:, None]
            for window in set(self.windows)
        }

    def neighbours(self, tensor: torch.Tensor) -> torch.Tensor:
        """(N, S, ...) -> (N, 3 * S, ...): the block before, the block, the block after."""
        none = torch.zeros_like(tensor[:1])
        around = torch.cat([none, tensor, none])
        return torch.cat([around[:-2], tensor, around[2:]], dim=1)

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """(B, L, ...) -> (N, S, ...); 0 in empty slots."""
        packed = tensor.flatten(0, 1)[self.source_index].view(self.rank.shape + tensor.shape[2:])
        return packed.masked_fill(~expanded(self.rank >= 0, packed), 0)

    def unpack(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(N, S, D) -> (B, L, D), 0 at padding."""
        padded = hidden_states.new_zeros(self.valid.numel(), hidden_states.shape[-1])
        padded = padded.index_copy(0, self.token_index, hidden_states.flatten(0, 1)[self.slot_index])
        return padded.view(*self.valid.shape, -1)

    def first_token(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(N, S, D) -> (B, D), 0 where the row has no token"""
        return hidden_states.flatten(0, 1)[self.first_slot] * self.valid.any(1, keepdim=True)


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
        self, hidden_states: torch.Tensor, layout: PaddedLayout | BlockLayout, attention_interface: Callable
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attend = self.padded_attention if isinstance(layout, PaddedLayout) else self.blocked_attention
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

        return attend(hidden_states, layout, attention)

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

    def blocked_attention(self, hidden_states, layout, attention):
        x = hidden_states  # (N, S, D)

        def local_keys(tensor):  # (N, S, D) -> (N, 3S + G, D)
            row_globals = tensor.flatten(0, 1)[layout.global_slots]  # (B, G, D)
            return torch.cat([layout.neighbours(tensor), row_globals[layout.block_row]], dim=1)

        output, _ = attention(
            self.query(x), local_keys(self.key(x)), local_keys(self.value(x)), layout.local_masks[self.window]
        )
        if layout.global_slots.shape[1] == 0:
            return output, None
        queries = self.query_global(x.flatten(0, 1)[layout.global_slots])  # (B, G, D)
        keys = self.key_global(x)[layout.row_blocks].flatten(1, 2)  # (B, M * S, D)
        values = self.value_global(x)[layout.row_blocks].flatten(1, 2)
        mask = layout.row_mask.expand(-1, -1, queries.shape[1], -1)
        global_output, _ = attention(queries, keys, values, mask)  # (B, G, D)
        filled = layout.global_filled
        output = output.flatten(0, 1).index_copy(0, layout.global_slots[filled], global_output[filled])
        return output.view_as(x), None


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

    def forward(self, hidden_states, layout, attention_interface):
        attended, weights = self.self(hidden_states, layout, attention_interface)
        return self.output(attended, hidden_states), weights


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

    def forward(self, hidden_states, layout, attention_interface):
        hidden_states, weights = self.attention(hidden_states, layout, attention_interface)
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
        layout_class = PaddedLayout if implementation == "eager" or fixed_shapes else BlockLayout
        layout = layout_class(
            valid=attention_mask > 0,
            is_global=global_tokens(attention_mask, token_type_ids, global_attention_mask),
            windows=self.config.window_per_layer,
        )
        attention_interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)

        positions = layout.rank.clamp_min(0) if position_ids is None else layout.pack(position_ids)
        self.check_length(attention_mask, position_ids, fixed_shapes)
        if token_type_ids is None:
            token_type_ids = torch.zeros(shape, dtype=torch.long, device=words.device)
        hidden_states = self.embeddings(layout.pack(words), layout.pack(token_type_ids), positions)

        all_hidden_states = (layout.unpack(hidden_states),) if output_hidden_states else None
        all_attentions = () if output_attentions else None
        for layer in self.encoder.layer:
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


def retrieval_heads(model, outputs, task: str | None, labels: torch.Tensor | None, sparse_prediction: bool | None):
    """What `BertLongForXLRetrieval` and `BertForXLRetrieval` compute on top of their base model's outputs."""
    if task not in (None, "qlm", "rr"):
        raise ValueError(f"task must be 'qlm', 'rr' or None (both heads), got {task!r}")
    if labels is not None and task is None:
        raise ValueError("labels belong to one task: pass task='qlm' or task='rr' with them")
    loss = prediction_logits = relevance_logits = None
    if task != "rr":
        sparse = model.training if sparse_prediction is None else sparse_prediction
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
        return retrieval_heads(self, outputs, task, labels, sparse_prediction)


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
        sparse = self.training if sparse_prediction is None else sparse_prediction
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
