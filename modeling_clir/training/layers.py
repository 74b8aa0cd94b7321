"""Chooses the layers of an encoder to train, and reinitializes layers."""

import torch
from torch import nn
from transformers import PreTrainedModel


def head_parameters(model: PreTrainedModel) -> list[tuple[str, nn.Parameter]]:
    """Parameters outside the base model (the head). The pooler is inside it."""
    encoder = set(model.base_model.parameters())
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter not in encoder]


def encoder_layers(model: PreTrainedModel) -> list[tuple[nn.Module, ...]]:
    """Returns the modules of each layer, first to last. XLM has several a layer: it lists its sublayers separately."""
    number = model.config.num_hidden_layers
    lists = {}
    for name, module in model.base_model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and len(module) == number and not inside:
            lists[name] = module
    return list(zip(*lists.values()))


def last_layers(model: PreTrainedModel, number: int, option: str) -> list[nn.Module]:
    layers = encoder_layers(model)
    if not 0 <= number <= len(layers):
        raise ValueError(f"--{option} must be between 0 and the model's {len(layers)} layers, got {number}")
    return [module for parts in layers[len(layers) - number :] for module in parts]


def finetune_last_layers(model: PreTrainedModel, number: int):
    """Freezes all but the last `number` layers, the pooler and the head, in place."""
    chosen = last_layers(model, number, "num_finetuned_layers")
    model.base_model.requires_grad_(False)
    for module in chosen:
        module.requires_grad_(True)
    for name, parameter in model.base_model.named_parameters():
        if "pooler" in name:
            parameter.requires_grad_(True)


@torch.no_grad()
def reinitialize_layers(model: PreTrainedModel, number: int, seed: int):
    """
    Reinitializes the last `number` layers, in place (Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning").
    """
    chosen = last_layers(model, number, "reinit_layers")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for layer in chosen:
            for parameter in layer.parameters():
                parameter._is_hf_initialized = False  # otherwise `_init_weights` skips the parameter
            for module in layer.modules():
                model._init_weights(module)


__all__ = ["encoder_layers", "finetune_last_layers", "head_parameters", "reinitialize_layers"]
