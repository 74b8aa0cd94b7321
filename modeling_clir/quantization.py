"""Inference in int8 on a CPU."""

import re
import warnings

import torch
from torch import nn
from transformers import PreTrainedModel

from .precision import scores_in_float32


# The first layer's queries and keys (BERT's names) cause half of the scores' drift, so they stay in float32.
KEPT = re.compile(r"\blayer\.0\.attention\.self\.(query|key)")


def quantize_int8(model: PreTrainedModel) -> PreTrainedModel:
    """
    Converts the linear layers to int8, in place. Weights are quantized once per output channel, activations per tensor
    at each call. Embeddings, layer norms, the matrix products of attention, the first layer's queries and keys, and
    the layer that gives the scores stay in float32. The scale of an activation depends on its batch, so scores depend
    a little on the rows that are computed together. The model can no longer be trained, moved or saved. On a CPU with
    bfloat16 instructions, bfloat16 is faster and closer to float32.

    Args:
        model (`PreTrainedModel`): in float32, on a CPU, in evaluation mode.

    Returns:
        The same model.

    Raises:
        `ValueError` if the model is in training mode, not on a CPU, in another precision or quantized already.
        `ImportError` if this version of torch has no `torch.ao.quantization`.
    """
    if model.training:
        raise ValueError("int8 is for inference: call model.eval() first, and quantize after training")
    if model.device.type != "cpu":
        raise ValueError(f"int8 is for CPUs, the model is on {model.device}: use bfloat16 there")
    if model.dtype != torch.float32:
        raise ValueError(f"int8 is made from float32 weights, the model has {model.dtype}")
    scores_in_float32(model)
    linear = [name for name, module in model.named_modules() if type(module) is nn.Linear and not KEPT.search(name)]
    if not linear:
        raise ValueError("the model has no linear layer to quantize; it may be quantized already")
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:
        raise ImportError(f"torch {torch.__version__} lacks torch.ao.quantization: use bfloat16") from error
    # torch deprecates this for torchao. torchao is as fast only in a compiled model, which computes padding.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*deprecated")
        return quantize_dynamic(model, dict.fromkeys(linear, per_channel_dynamic_qconfig), inplace=True)


__all__ = ["quantize_int8"]
