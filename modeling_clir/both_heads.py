"""
Any encoder of Transformers with both heads of the pretraining: its own masked language model for QLM, and its own
sequence classifier for RR, on one encoder.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .configuration_bertlong import BertLongConfig
from .modeling_bertlong import (
    BertLongForXLRetrieval,
    XLRetrievalOutput,
    check_task,
    labelled,
    prediction_loss,
    relevance_loss,
)


class EncoderForXLRetrieval:
    """
    Base of classes that are both a native sequence classifier and a native masked language model, see
    [`retrieval_class`]. State dict and configuration are those of the native classes, so they open the checkpoint
    without this package.

    Attributes:
        ranker_class (`type`): sequence classifier, whose encoder both tasks train.
        language_model_class (`type` or `None`): masked language model; `None` for RR alone.
    """

    ranker_class: type[PreTrainedModel]
    language_model_class: type[PreTrainedModel] | None
    accepts_loss_kwargs = True  # tells Trainer to count the items of all accumulated batches

    @can_return_tuple
    def forward(
        self,
        *args,
        task: str | None = None,
        labels: torch.Tensor | None = None,
        sparse_prediction: bool | None = None,
        **kwargs,
    ) -> XLRetrievalOutput:
        """
        Does the same as [`BertLongForXLRetrieval.forward`], without global tokens. `args` and `kwargs` are inputs of
        the native classes. Without a task it runs the encoder once for each head.
        """
        check_task(task, labels)
        loss = prediction_logits = relevance_logits = None
        if task != "rr":
            sparse = labels is not None and (self.training if sparse_prediction is None else sparse_prediction)
            chosen = labelled(labels, sparse)
            with narrowed(self.base_model, chosen):
                outputs = self.language_model_class.forward(self, *args, return_dict=True, **kwargs)
            prediction_logits = outputs.logits[0] if sparse else outputs.logits
            if labels is not None:
                loss = prediction_loss(prediction_logits, labels[chosen] if sparse else labels)
        if task != "qlm":
            outputs = self.ranker_class.forward(self, *args, return_dict=True, **kwargs)
            relevance_logits = outputs.logits
            if labels is not None:
                loss = relevance_loss(relevance_logits, labels)
        return XLRetrievalOutput(
            loss=loss,
            prediction_logits=prediction_logits,
            relevance_logits=relevance_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


@contextmanager
def narrowed(encoder: nn.Module, chosen: torch.Tensor | bool) -> Iterator[None]:
    """
    Lets the encoder give its last hidden states at the `chosen` positions only, `(1, chosen positions, hidden_size)`:
    with a large vocabulary the head at all positions would take most of the cost. `True` chooses all.
    """
    if chosen is True:
        yield
        return

    def choose(module, args, output):
        states = output.last_hidden_state
        if states.shape[:2] != chosen.shape:
            raise ValueError(f"labels has shape {tuple(chosen.shape)}, the input has {tuple(states.shape[:2])}")
        output.last_hidden_state = states[chosen][None]
        return output

    handle = encoder.register_forward_hook(choose)
    try:
        yield
    finally:
        handle.remove()


def native_class(auto_class: type, config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Returns the class that an Auto class chooses for a configuration; `None` if there is none."""
    return auto_class._model_mapping.get(type(config), None)


def retrieval_class(config: PreTrainedConfig, language_model: bool = True) -> type[PreTrainedModel]:
    """
    Makes the class of a model with both heads of the pretraining.

    A native class is made of its two native classes: each adds its own head in its `__init__`. Modules of the same
    name in both, such as the encoder and ModernBERT's `head`, are one module, the sequence classifier's. The class has
    the sequence classifier's name, which becomes the checkpoint's `architectures`.

    Args:
        config (`PreTrainedConfig`): configuration of any encoder.
        language_model (`bool`, defaults to `True`): with the masked language model; otherwise for RR alone.

    Raises `ValueError` if transformers has no such class for the configuration.
    """
    if language_model and isinstance(config, BertLongConfig):
        return BertLongForXLRetrieval  # runs the encoder's last layer for the tokens that the heads read
    ranker = native_class(AutoModelForSequenceClassification, config)
    masked = native_class(AutoModelForMaskedLM, config) if language_model else None
    for found, wanted in ((ranker, "sequence classifier"), (masked or not language_model, "masked language model")):
        if not found:
            raise ValueError(f"transformers has no {wanted} of type {config.model_type}")
    bases = (EncoderForXLRetrieval, ranker, *[masked] * language_model)
    attributes = {"ranker_class": ranker, "language_model_class": masked, "__module__": ranker.__module__}
    return type(ranker.__name__, bases, attributes)


def language_model_names(config: PreTrainedConfig) -> list[set[str]]:
    """
    Returns the names of the tensors that a checkpoint must have for the head of a masked language model, tied ones
    left out. Each is a set, of which one name is enough: several heads name their bias twice. Empty if transformers has
    no masked language model of this type.
    """
    model_class = native_class(AutoModelForMaskedLM, config)
    if model_class is None:
        return []
    with torch.device("meta"):
        model = model_class(config)
    tied = model.all_tied_weights_keys
    head = [name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}.")]
    twins = {name: other for name, other in (model._tied_weights_keys or {}).items() if name.endswith("bias")}
    twins |= {other: name for name, other in twins.items()}
    return [{name, twins.get(name, name)} for name in head if name not in tied]


def without_language_model(model: PreTrainedModel) -> PreTrainedModel:
    """Makes a model of [`retrieval_class`] for RR alone, with the weights of a model that has both heads."""
    with torch.random.fork_rng(devices=[]):  # the drawn weights are overwritten
        ranker = retrieval_class(model.config, language_model=False)(model.config)
    state = model.state_dict()
    ranker.load_state_dict({name: state[name] for name in ranker.state_dict()})
    return ranker


__all__ = ["EncoderForXLRetrieval", "language_model_names", "retrieval_class", "without_language_model"]
