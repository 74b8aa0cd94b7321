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

Read from top to bottom: layers, base model, heads. Which tokens are global and how they lie in memory is in
layout_bertlong.py, the self-attention in attention_bertlong.py.

Shape suffixes in the comments: B rows, L padded length, D hidden size; T tokens of the batch without padding.
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

from .attention_bertlong import BertLongSelfAttention, eager_attention_forward
from .configuration_bertlong import BertLongConfig
from .layout_bertlong import PackedLayout, PaddedLayout, global_tokens


# TRF057 asks for `auto_docstring`, which outside Transformers writes "The None Model" over these docstrings.
logger = logging.get_logger(__name__)


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
    _supports_flex_attn = True
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
        if padded and implementation == "flex_attention":  # whose masks are those of the packed layout
            implementation = "sdpa"
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


# What is saved carries this code with it.
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
    "XLRetrievalOutput",
    "global_tokens",
]
