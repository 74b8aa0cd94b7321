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
"""BertLong configuration."""

from difflib import get_close_matches

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


AUTO_MAP = {
    "AutoConfig": "configuration_bertlong.BertLongConfig",
    "AutoModel": "modeling_bertlong.BertLongModel",
    "AutoModelForPreTraining": "modeling_bertlong.BertLongForXLRetrieval",
    "AutoModelForMaskedLM": "modeling_bertlong.BertLongForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_bertlong.BertLongForSequenceClassification",
    "AutoModelForQuestionAnswering": "modeling_bertlong.BertLongForQuestionAnswering",
}
# What `pipeline("text-ranking", model=..., trust_remote_code=True)` looks for. A reader has "question-answering" here.
CUSTOM_PIPELINES = {
    "text-ranking": {"impl": "pipeline_bertlong.TextRankingPipeline", "pt": ["AutoModelForSequenceClassification"]}
}


def pipeline_class() -> type:
    """Returns the pipeline for ranking. By this import its file is copied with this one, and not imported with it."""
    from .pipeline_bertlong import TextRankingPipeline

    return TextRankingPipeline


@strict
class BertLongConfig(PreTrainedConfig):  # trf-ignore: TRF057
    r"""
    Configuration of BertLong: BERT with local attention in a window and global attention of the query's tokens.

    BERT's options keep their names and defaults. These options are new or have another default:

    attention_window (`int` or `list[int]`, *optional*, defaults to 64):
        Width of the attention window in tokens: an even number of at least 2, or a list with one per layer. A local
        token attends to `attention_window / 2` tokens on each side, to itself and to the global tokens.
    max_position_embeddings (`int`, *optional*, defaults to 1024):
        Longest sequence in tokens.
    num_labels (`int`, *optional*, defaults to 1):
        Number of relevance logits. The last logit is the relevance score. Checkpoints of 2021 have 2.

    Raises `ValueError` if a window is odd or below 2, if a list of windows does not have `num_hidden_layers` entries,
    if `num_attention_heads` does not divide `hidden_size`, and if an option is misspelt.

    Example:

    ```python
    >>> from modeling_clir import BertLongConfig, BertLongForXLRetrieval

    >>> config = BertLongConfig(num_hidden_layers=2, attention_window=[16, 32])
    >>> model = BertLongForXLRetrieval(config)
    ```"""

    model_type = "bertlong-xlr"

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    attention_window: int | list[int] = 64
    max_position_embeddings: int = 1024
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs):
        options = [*self.__dataclass_fields__, "num_labels"]
        for name in kwargs:
            if not hasattr(self, name) and (close := get_close_matches(name, options, 1, 0.88)):
                raise ValueError(f"BertLongConfig has no option {name!r}; did you mean {close[0]!r}?")
        self.validate_architecture()
        # `save_pretrained` lists the saved class only, but every Auto class must open the checkpoint.
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        kwargs.setdefault("custom_pipelines", dict(CUSTOM_PIPELINES))
        if "num_labels" not in kwargs and "id2label" not in kwargs and self.id2label is None:
            kwargs["num_labels"] = 1
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """
        Raises `ValueError` if the options do not fit together. Called for a new configuration, before saving, and by
        the model, because `from_pretrained` sets options after construction.
        """
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})"
            )
        windows = self.window_per_layer
        if len(windows) != self.num_hidden_layers:
            raise ValueError(
                f"attention_window has {len(windows)} entries but num_hidden_layers is {self.num_hidden_layers}: "
                "give one number, or one per layer"
            )
        for window in windows:
            if window < 2 or window % 2:
                raise ValueError(f"attention_window must be even and at least 2, got {window}")

    def to_diff_dict(self) -> dict:
        # Transformers omits its default of two labels, which would load as our default of one.
        return {**super().to_diff_dict(), "id2label": self.id2label, "label2id": self.label2id}

    @property
    def window_per_layer(self) -> list[int]:
        """The window of each layer, in tokens."""
        if isinstance(self.attention_window, list):
            return self.attention_window
        return [self.attention_window] * self.num_hidden_layers


BertLongConfig.register_for_auto_class()  # copies this file into saved checkpoints

__all__ = ["BertLongConfig"]
