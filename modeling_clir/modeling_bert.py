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
"""The "short" model: plain BERT with both heads of the pretraining, for up to 512 tokens."""

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel, BertPreTrainedModel
from transformers.models.bert.modeling_bert import BertOnlyMLMHead

from .both_heads import EncoderForXLRetrieval
from .modeling_bertlong import ScoreLinear, XLRetrievalOutput, classifier_dropout


class BertForXLRetrieval(EncoderForXLRetrieval, BertForSequenceClassification, BertForMaskedLM):  # trf-ignore: TRF057
    """
    BERT with the heads of [`BertLongForXLRetrieval`]. Its checkpoint is a plain BERT: `BertModel`, `BertForMaskedLM`
    and `BertForSequenceClassification` open it without this package. Scores are float32 in every precision.
    """

    ranker_class, language_model_class = BertForSequenceClassification, BertForMaskedLM
    _keys_to_ignore_on_load_unexpected = [r"^cls\.seq_relationship\.", r"^qa_outputs\."]

    def __init__(self, config: BertConfig):
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        self.bert = BertModel(config)
        self.cls = BertOnlyMLMHead(config)
        self.dropout = classifier_dropout(config)
        self.classifier = ScoreLinear(config.hidden_size, config.num_labels)
        self.post_init()

    def set_output_embeddings(self, new_embeddings):
        self.cls.predictions.decoder = new_embeddings
        # BERT stores its bias under two names. A shared parameter would be saved under the unused one.
        self.cls.predictions.bias = nn.Parameter(new_embeddings.bias.detach().clone())

    def forward(  # trf-ignore: TRF057
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> XLRetrievalOutput:
        """
        Does the same as [`EncoderForXLRetrieval.forward`].

        Raises:
            `ValueError` if `attention_mask` has values above 1: they mark global tokens, which plain BERT does not
            have.
        """
        if attention_mask is not None and not torch.compiler.is_compiling() and (attention_mask > 1).any():
            raise ValueError(
                "attention_mask has values above 1: they mark global tokens, which plain BERT does not have. Pass a "
                "mask of 0 and 1, or use BertLongForXLRetrieval"
            )
        return super().forward(input_ids, attention_mask=attention_mask, **kwargs)

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """Saves a checkpoint whose `architectures` is the native sequence classifier."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        if is_main_process:
            self.config.architectures = [self.ranker_class.__name__]
            self.config.save_pretrained(save_directory)


__all__ = ["BertForXLRetrieval"]
