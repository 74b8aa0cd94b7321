"""
Trains low-rank adapters of the encoder's linear layers (Hu et al. 2022, LoRA) by peft, and the heads with all their
weights. A saved model has the adapters merged into its weights, so it opens like any other; the folder `adapter` beside
them has the adapters and heads alone, in peft's format.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel


FOLDER = "adapter"
OWNER = "base_model.model."  # peft's prefix of a model's names


def head_layers(model: PreTrainedModel) -> list[str]:
    """
    Returns the names of the layers that are trained with all their weights: those outside the base model, and the
    pooler. A layer that shares its weights with the encoder, such as the decoder of words, stays as it is.
    """
    encoder = {id(p) for name, p in model.base_model.named_parameters() if "pooler" not in name}
    found = []
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not list(module.children()) and not any(id(parameter) in encoder for parameter in own):
            found.append(name)
    return found


def add_lora(model: PreTrainedModel, rank: int, seed: int):
    """
    Freezes the encoder and gives each of its linear layers an adapter, in place. The output of a layer gets 2 times
    the adapter's, which is 0 before training.

    Args:
        model (`PreTrainedModel`): encoder with heads.
        rank (`int`): rank of the adapters.
        seed (`int`): the adapters are drawn with it.
    """
    from peft import LoraConfig, inject_adapter_in_model

    heads = head_layers(model)
    prefix = next(name for name, module in model.named_modules() if module is model.base_model)
    layers = [
        f"{prefix}.{name}"
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and f"{prefix}.{name}" not in heads
    ]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)
    config.base_model_name_or_path = model.config._name_or_path
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name in heads:
        model.get_submodule(name).requires_grad_(True)
    config.modules_to_save = heads
    model.lora_config = config


@contextmanager
def merged(model: PreTrainedModel) -> Iterator[None]:
    """Within it the model has plain layers, with the adapters merged into their weights. Afterwards it is unchanged."""
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    for name, module in adapted.items():
        plain = copy.copy(module.base_layer)
        weight = plain.weight.detach() + module.get_delta_weight("default").detach()
        plain._parameters = plain._parameters | {"weight": nn.Parameter(weight, requires_grad=False)}
        model.set_submodule(name, plain)
    try:
        yield
    finally:
        for name, module in adapted.items():
            model.set_submodule(name, module)


def save_adapter(model: PreTrainedModel, folder: Path):
    """Writes `folder/adapter`, which `PeftModel.from_pretrained(base model, folder/adapter)` opens."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {
        OWNER + name.replace(".default.", "."): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name in trained
    }
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    save_file(state, folder / FOLDER / "adapter_model.safetensors", metadata={"format": "pt"})
    model.lora_config.save_pretrained(folder / FOLDER)


def load_adapter(model: PreTrainedModel, folder: Path):
    """Loads what [`save_adapter`] wrote into a model of [`add_lora`], in place."""
    state = load_file(folder / FOLDER / "adapter_model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[OWNER + name.replace(".default.", ".")])


__all__ = ["FOLDER", "add_lora", "head_layers", "load_adapter", "merged", "save_adapter"]
