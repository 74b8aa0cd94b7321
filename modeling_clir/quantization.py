"""int8 inference on a CPU."""

import re
import warnings

import torch
from torch import nn
from transformers import PreTrainedModel

from .precision import scores_in_float32


# Left in float32: half of the scores' drift is of the first layer's queries and keys (BERT's names).
KEPT = re.compile(r"\blayer\.0\.attention\.self\.(query|key)")


def quantize_int8(model: PreTrainedModel) -> PreTrainedModel:
    """
    Turns the linear layers to int8, in place: weights by output channel once, activations by tensor as they come.
    Embeddings, layer norms, the products of attention, and queries and keys of the first layer stay in float32. The
    range of a tensor is that of its batch: scores depend a little on what is computed together. The model cannot be
    trained, moved or saved any more. On a CPU with bfloat16 instructions bfloat16 is faster and closer to float32.

    Args:
        model (`PreTrainedModel`): in float32, on a CPU, not in training mode.

    Returns:
        The same model. Raises `ValueError` for a model that is none of this or that is quantized already, `ImportError`
        where this torch has no `torch.ao.quantization`.
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
        raise ValueError("the model has no linear layer to quantize, it may be quantized already")
    try:
        from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic
    except ImportError as error:
        raise ImportError(f"torch {torch.__version__} lacks torch.ao.quantization: use bfloat16") from error
    # Deprecated in favour of torchao, which needs a compiled model, so padded rows, to be as fast.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*deprecated")
        return quantize_dynamic(model, dict.fromkeys(linear, per_channel_dynamic_qconfig), inplace=True)


__all__ = ["quantize_int8"]
