"""Gives scores in float32 from models in half precision."""

import types

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .modeling_bertlong import ScoreLinear


logger = logging.get_logger(__name__)


def scores_in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """
    Computes the model's scores in float32, in place: the last linear layer of the head becomes a [`ScoreLinear`]. In
    bfloat16 only 47 of 300 documents of a query have a score of their own. Weights, their types and names stay as they
    are. A second call changes nothing. Warns once if the model has no such layer.

    Args:
        model (`PreTrainedModel`): with sequence classification or question answering logits; of any architecture, in
            any precision.

    Returns:
        The same model.
    """
    sizes = {model.config.num_labels, 2}  # 2: start and end of an answer
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features in sizes]
    if not layers:
        logger.warning_once(
            f"{type(model).__name__} has no linear layer that gives its scores: in bfloat16 and float16 the scores of "
            "many documents can be equal. Use float32."
        )
    elif type(layers[-1]) is nn.Linear:  # not quantized
        layers[-1].__class__ = ScoreLinear
        if hasattr(layers[-1], "_old_forward"):  # accelerate calls it if the model is spread over devices
            layers[-1]._old_forward = types.MethodType(ScoreLinear.forward, layers[-1])
    return model


__all__ = ["scores_in_float32"]
