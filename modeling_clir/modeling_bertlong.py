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

Read from top to bottom: layers, base model, heads. layout_bertlong.py finds the global tokens and lays the batch out
in memory; attention_bertlong.py has the self-attention, and varlen_bertlong.py one of its implementations.

Letters of shapes: B rows, L padded length, D hidden size; T tokens of the batch without padding.
"""

from dataclasses import dataclass

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

from .attention_bertlong import BertLongSelfAttention, eager_attention_forward, exact
from .blocks_bertlong import BlockedLayout
from .configuration_bertlong import BertLongConfig
from .layout_bertlong import PackedLayout, PaddedLayout, global_tokens


# TRF057 asks for `auto_docstring`. Outside Transformers it puts "The None Model" above these docstrings.
logger = logging.get_logger(__name__)


# ---------------------------------------------------------------------------------------------------------------------
# Layers: BERT's, except for the attention
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
        """`words` are token ids or word embeddings."""
        if not words.is_floating_point():
            words = self.word_embeddings(words)
        embeddings = words + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)
        return self.dropout(self.LayerNorm(embeddings))


class BertLongResidual(nn.Module):
    """Linear layer, dropout, sum with the sublayer's input, layer norm."""

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
        if isinstance(layout, BlockedLayout):
            residual = residual[:, : attended.shape[1]]
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
        """With `only_global` it computes the states of the global tokens only, `(all global tokens, D)`."""
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
    _supports_flash_attn = False  # FlashAttention would drop the global tokens
    _supports_flex_attn = True
    # One checkpoint serves every head, so weights of another head are expected.
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

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        if requested_attention == "varlen":  # BertLong's own, in varlen_bertlong.py
            return requested_attention
        return super().get_correct_attn_implementation(requested_attention, is_init_check)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        if (head := getattr(self, "cls", None)) is not None:
            bias, size = head.predictions.bias, embeddings.num_embeddings
            head.predictions.bias = nn.Parameter(F.pad(bias.data, (0, size - len(bias))), bias.requires_grad)
        return embeddings


@torch.compiler.assume_constant_result  # runs while torch.compile traces, so the warning does not break the graph
def warn_of_quadratic_cost() -> None:
    """Warns once that compiled models use the padded layout."""
    logger.warning_once(
        "a compiled BertLong computes attention between all positions, padding included: time and memory "
        "grow with the square of the length. Without torch.compile they grow linearly."
    )


class BertLongModel(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """BertLong without a head. See `forward` for inputs and outputs."""

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

    # trf-ignore: TRF045 (`capture_outputs` would record packed tokens, not rows)
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
                Token ids. Give either `input_ids` or `inputs_embeds`.
            attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 padding, 1 a token, 2 a global token (the convention of 2021). Defaults to all 1. Padding may lie
                anywhere and does not change the result.
            token_type_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*):
                0 for the query (`[CLS] query [SEP]`), 1 for the document. Defaults to all 0: one text.
            position_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)` or `(1, sequence_length)`,
            *optional*):
                Defaults to the number of tokens before each token in its row, padding excluded.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*):
                Word embeddings instead of `input_ids`.
            global_attention_mask (`torch.Tensor` of shape `(batch_size, sequence_length)`, *optional*):
                1 for a global token. By default the query's tokens are global, see [`global_tokens`].
            output_attentions (`bool`, *optional*):
                Return the attention weights of each layer, of shape `(batch_size, num_heads, sequence_length,
                sequence_length)`. Eager attention computes them.
            output_hidden_states (`bool`, *optional*):
                Return the embeddings and the output of each layer.
            wanted (`torch.BoolTensor` of shape `(batch_size, sequence_length)` or `bool`, *optional*, defaults to
                `True`): Positions of `last_hidden_state` that the caller reads, besides the first token of each row;
                `False` for none. Other positions may be 0: if all positions that are read are global, the last layer
                computes global tokens only.

        Returns:
            `BaseModelOutputWithPooling`. `last_hidden_state` is 0 at padding. `pooler_output` belongs to the first
            token of the row that is not padding.

        Raises:
            `ValueError` if a row has more tokens than `max_position_embeddings`, or shapes do not fit together.
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
            logger.warning_once(f"{implementation} attention returns no weights: eager attention computes this call")
            implementation = "eager"
        fixed_shapes = torch.compiler.is_compiling() or torch.jit.is_tracing()
        exported = torch.compiler.is_exporting() and implementation != "eager" and not self.training
        valid = attention_mask > 0
        padded = not exported and (implementation == "eager" or fixed_shapes or not valid.any())
        is_global = global_tokens(attention_mask, token_type_ids, global_attention_mask)
        if fixed_shapes and not exported and implementation != "eager":
            warn_of_quadratic_cost()
        if input_ids is not None and global_attention_mask is None and not fixed_shapes:
            self.warn_of_local_queries(input_ids, attention_mask, is_global)
        layout_class = BlockedLayout if exported else PaddedLayout if padded else PackedLayout
        layout = layout_class(valid, is_global, self.config.window_per_layer)
        only_global = not (padded or exported or output_hidden_states or wanted is True)
        if only_global:
            first = valid & (valid.cumsum(1) == 1)
            only_global = not ((first | wanted) & ~is_global).any()
        if implementation == "varlen" and not padded and not layout.query_first:
            logger.warning_once(
                "varlen attention needs rows that start with their global tokens (the query): sdpa computes the local "
                "attention of the others"
            )
        if implementation == "varlen" or (padded and implementation == "flex_attention"):
            implementation = "sdpa"  # of what those cannot compute, such as the padded layout
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
            if exported and wanted is False and not output_hidden_states and number == len(self.encoder.layer):
                states, weights = layer(hidden_states, layout.only_first(), attention_interface)
                hidden_states = F.pad(states, (0, 0, 0, layout.length - 1))
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

    def warn_of_local_queries(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, is_global: torch.Tensor):
        """
        Warns once if a row looks like two texts but only its first token is global. Tokenizers end both texts with the
        same token, so the row's last token occurs twice.
        """
        alone = is_global.sum(1) == 1
        if not alone.any() or (attention_mask == 2).any():
            return
        valid = attention_mask > 0
        last = (valid.cumsum(1) * valid).argmax(1, keepdim=True)
        same = (input_ids == input_ids.gather(1, last)) & valid & ~is_global
        if (alone & (same.sum(1) > 1)).any():
            pass_types = self.config.type_vocab_size > 1
            types = "token_type_ids (0 for the query, 1 for the document) or " if pass_types else ""
            logger.warning_once(
                "an input looks like two texts (its last token occurs twice), but nothing marks the query: only the "
                f"first token is global, and scores are worse. Pass {types}global_attention_mask (1 for the query's "
                "tokens)."
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
                f"the sequence has {longest} tokens, the model's max_position_embeddings is {limit}: truncate the "
                "input (max_length of the tokenizer), or convert the model to more positions"
            )


# ---------------------------------------------------------------------------------------------------------------------
# Heads
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class XLRetrievalOutput(ModelOutput):  # trf-ignore: TRF057
    """
    loss (`torch.FloatTensor` of shape `()`, *optional*, returned with `labels`):
        QLM: cross-entropy, mean of the masked tokens. RR: (binary) cross-entropy, mean of the pairs.
    prediction_logits (`torch.FloatTensor` of shape `(batch_size, sequence_length, vocab_size)`, or
    `(labelled, vocab_size)`):
        Scores of the vocabulary. With sparse prediction only the labelled positions have scores, row by row.
    relevance_logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
        Relevance of the document to the query, in float32 even if the model is in half precision. The last logit is
        the score.
    hidden_states, attentions: outputs of the base model.
    """

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    relevance_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def labelled(labels: torch.Tensor | None, sparse: bool) -> torch.Tensor | bool:
    """The positions at which [`masked_lm`] reads the last hidden states, a `torch.BoolTensor`, or `True` for all."""
    return labels != -100 if sparse and labels is not None else True


def masked_lm(
    head: nn.Module, hidden_states: torch.Tensor, labels: torch.Tensor | None, sparse: bool
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """
    Computes loss and logits of a masked language model.

    Args:
        head (`nn.Module`): maps hidden states to logits of the vocabulary.
        hidden_states (`torch.Tensor` of shape `(B, L, D)`).
        labels (`torch.LongTensor` of shape `(B, L)`, *optional*): the tokens to predict, -100 elsewhere.
        sparse (`bool`): run the head at the labelled positions only. With a large vocabulary this saves most of the
            cost of pretraining.

    Returns:
        The mean cross-entropy (None without labels, 0 if nothing is labelled), and the logits: `(B, L, vocab_size)`,
        or `(labelled, vocab_size)` if sparse.

    Raises:
        `ValueError` if labels and hidden states differ in shape.
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
    return prediction_loss(logits, targets), logits


def prediction_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """
    Returns the mean cross-entropy of the tokens to predict, 0 instead of NaN if there are none. `logits` are
    `(..., vocab_size)`, `targets` are `(...)` with -100 where nothing is predicted.
    """
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="sum")
    return total / (targets != -100).sum().clamp_min(1)


def relevance_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the mean (binary) cross-entropy of pairs. `logits` are `(pairs, 1 or more)`, `labels` are `(pairs,)`."""
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.flatten().float(), labels.flatten().float())
    return F.cross_entropy(logits.float(), labels.flatten().long())


def check_task(task: str | None, labels: torch.Tensor | None):
    """Raises `ValueError` for an unknown task, and for labels without a task."""
    if task not in (None, "qlm", "rr"):
        raise ValueError(f"task must be 'qlm', 'rr' or None (both heads), got {task!r}")
    if labels is not None and task is None:
        raise ValueError("labels belong to one task: pass task='qlm' or task='rr' with the labels")


class ScoreLinear(nn.Linear):
    """
    The last layer of a head that gives scores. It computes in float32 even if model or autocast is in half precision:
    half precision would give many documents the same score. The weights keep their type.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight, bias = exact(self.weight), None if self.bias is None else exact(self.bias)
        device = hidden_states.device.type
        if not torch.is_autocast_enabled(device):
            return F.linear(hidden_states.to(weight.dtype), weight, bias)
        with torch.autocast(device, enabled=False):
            return F.linear(hidden_states.to(weight.dtype), weight, bias)


def classifier_dropout(config) -> nn.Dropout:
    """Returns dropout of `config.classifier_dropout`, or of `config.hidden_dropout_prob` if that is None."""
    own = config.classifier_dropout
    return nn.Dropout(config.hidden_dropout_prob if own is None else own)


class BertLongForXLRetrieval(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """
    BertLong with the two heads of the pretraining. Query language modelling (QLM) predicts masked tokens of the query
    from a document in the other language. Relevance ranking (RR) scores the document. See Yu, Fei, Li (2021),
    "Cross-lingual Language Model Pretraining for Retrieval", section 3.
    """

    _tied_weights_keys = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight"}

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.bert = BertLongModel(config)
        self.cls = BertLongOnlyMLMHead(config)
        self.dropout = classifier_dropout(config)
        self.classifier = ScoreLinear(config.hidden_size, config.num_labels)
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
                `"qlm"` or `"rr"`: compute this head only. Computes both by default.
            labels (`torch.Tensor`, *optional*, needs `task`):
                QLM: shape `(batch_size, sequence_length)`, the token to predict, -100 elsewhere. RR: shape
                `(batch_size,)`, 1 relevant, 0 not.
            sparse_prediction (`bool`, *optional*):
                Compute `prediction_logits` at the labelled positions only. Defaults to True in training mode.

        Returns:
            [`XLRetrievalOutput`].

        Raises:
            `ValueError` for another task, labels without a task, and what the base model refuses.
        """
        check_task(task, labels)
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
        loss = prediction_logits = relevance_logits = None
        if task != "rr":
            loss, prediction_logits = masked_lm(self.cls, outputs.last_hidden_state, labels, sparse)
        if task != "qlm":
            relevance_logits = self.classifier(self.dropout(outputs.pooler_output))
            if labels is not None:
                loss = relevance_loss(relevance_logits, labels)
        return XLRetrievalOutput(
            loss=loss,
            prediction_logits=prediction_logits,
            relevance_logits=relevance_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class BertLongForMaskedLM(BertLongPreTrainedModel):  # trf-ignore: TRF057
    accepts_loss_kwargs = False  # tells Trainer that the loss is the mean of one batch, not of all accumulated ones
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
                Compute `logits` at the labelled positions only, of shape `(labelled, vocab_size)`. Defaults to True in
                training mode. Without labels it has no effect.
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
    """The reranker. With `num_labels=1` the logit is the document's relevance to the query. Logits are in float32."""

    accepts_loss_kwargs = False

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = BertLongModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = ScoreLinear(config.hidden_size, config.num_labels)
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
                The loss follows Transformers: it is chosen by `config.problem_type`. If that is None, it is mean
                squared error for `num_labels=1`, cross-entropy for integer labels, and binary cross-entropy for other
                labels.
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
                loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class BertLongForQuestionAnswering(BertLongPreTrainedModel):  # trf-ignore: TRF057
    """
    Finds start and end of the answer in the document. The question is segment 0, so it is global. Logits are in
    float32.
    """

    accepts_loss_kwargs = False

    def __init__(self, config: BertLongConfig):
        super().__init__(config)
        self.bert = BertLongModel(config, add_pooling_layer=False)
        self.qa_outputs = ScoreLinear(config.hidden_size, 2)
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
                First and last token of the answer. Positions outside the input are ignored.
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


# Copies the code of the model into saved checkpoints.
BertLongModel.register_for_auto_class("AutoModel")
BertLongForXLRetrieval.register_for_auto_class("AutoModelForPreTraining")
BertLongForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
BertLongForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")
BertLongForQuestionAnswering.register_for_auto_class("AutoModelForQuestionAnswering")

__all__ = [
    "BertLongForMaskedLM",
    "BertLongForQuestionAnswering",
    "BertLongForSequenceClassification",
    "BertLongForXLRetrieval",
    "BertLongModel",
    "BertLongPreTrainedModel",
    "ScoreLinear",
    "XLRetrievalOutput",
    "global_tokens",
]
