"""Cross-lingual retrieval on Transformers: importing the package registers its models with the Auto classes."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
)

from .configuration_bertlong import BertLongConfig
from .modeling_bert import BertForXLRetrieval
from .modeling_bertlong import (
    BertLongForMaskedLM,
    BertLongForQuestionAnswering,
    BertLongForSequenceClassification,
    BertLongForXLRetrieval,
    BertLongModel,
)


AutoConfig.register(BertLongConfig.model_type, BertLongConfig)
BertLongConfig.register_for_auto_class()
for auto_class, model_class in (
    (AutoModel, BertLongModel),
    (AutoModelForPreTraining, BertLongForXLRetrieval),
    (AutoModelForMaskedLM, BertLongForMaskedLM),
    (AutoModelForSequenceClassification, BertLongForSequenceClassification),
    (AutoModelForQuestionAnswering, BertLongForQuestionAnswering),
):
    auto_class.register(BertLongConfig, model_class)
    model_class.register_for_auto_class(auto_class.__name__)

__version__ = "0.1.0"

__all__ = [
    "BertForXLRetrieval",
    "BertLongConfig",
    "BertLongForMaskedLM",
    "BertLongForQuestionAnswering",
    "BertLongForSequenceClassification",
    "BertLongForXLRetrieval",
    "BertLongModel",
]
