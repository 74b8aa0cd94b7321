"""
Cross-lingual retrieval on Transformers. Importing the package registers its models with the Auto classes.

The import itself loads neither torch nor transformers, so that programs without a model start at once. A name is
imported at its first use. The models are registered when transformers imports its Auto classes.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


__version__ = "0.1.0"

MODULES = {
    "BertForXLRetrieval": "modeling_bert",
    "BertLongConfig": "configuration_bertlong",
    "BertLongForMaskedLM": "modeling_bertlong",
    "BertLongForQuestionAnswering": "modeling_bertlong",
    "BertLongForSequenceClassification": "modeling_bertlong",
    "BertLongForXLRetrieval": "modeling_bertlong",
    "BertLongModel": "modeling_bertlong",
    "Reader": "reader",
    "Reranker": "reranker",
}


def __getattr__(name: str):
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})


def register_config(auto: ModuleType):
    config_class = __getattr__("BertLongConfig")
    auto.AutoConfig.register(config_class.model_type, config_class)


def register_models(auto: ModuleType):
    models = sys.modules.get(f"{__name__}.modeling_bertlong")
    layers = sys.modules.get("transformers.modeling_layers")
    if models is not None and not hasattr(models, "__all__"):
        return  # our models import the Auto classes themselves: registered at the end of their file
    if layers is not None and not hasattr(layers, "GradientCheckpointingLayer"):
        return  # so does transformers' file of layers, which our models need
    for auto_class, model_class in {
        "AutoModel": "BertLongModel",
        "AutoModelForPreTraining": "BertLongForXLRetrieval",
        "AutoModelForMaskedLM": "BertLongForMaskedLM",
        "AutoModelForSequenceClassification": "BertLongForSequenceClassification",
        "AutoModelForQuestionAnswering": "BertLongForQuestionAnswering",
    }.items():
        getattr(auto, auto_class).register(__getattr__("BertLongConfig"), __getattr__(model_class), exist_ok=True)


class AfterImport(MetaPathFinder):
    """Calls `functions[name](module)` as soon as the module of that name is imported."""

    def __init__(self, functions: dict[str, Callable[[ModuleType], None]]):
        self.functions = functions

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name not in self.functions:
            return None
        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module

        def execute_and_call(module: ModuleType):
            execute(module)
            self.functions[name](module)

        spec.loader.exec_module = execute_and_call
        return spec


REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": register_config,
    "transformers.models.auto.modeling_auto": register_models,
    "transformers.modeling_layers": lambda _: register_models(sys.modules["transformers.models.auto.modeling_auto"]),
    f"{__name__}.modeling_bertlong": lambda _: register_models(sys.modules["transformers.models.auto.modeling_auto"]),
}
sys.meta_path.insert(0, AfterImport(REGISTRATIONS))
for name, register in REGISTRATIONS.items():
    if name in sys.modules:
        register(sys.modules[name])

__all__ = [
    "BertForXLRetrieval",
    "BertLongConfig",
    "BertLongForMaskedLM",
    "BertLongForQuestionAnswering",
    "BertLongForSequenceClassification",
    "BertLongForXLRetrieval",
    "BertLongModel",
    "Reader",
    "Reranker",
]
