"""Ranks with a reranker that export.py has written: ONNX Runtime or OpenVINO computes it, without torch's weights."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import cached_file

from .loading import HUB_OPTIONS, WEIGHTS, check_checkpoint, read_config


ONNX, OPENVINO = "model.onnx", "openvino_model.xml"
BACKENDS = {"onnx": (ONNX, "onnxruntime"), "openvino": (OPENVINO, "openvino")}


def find_graph(source: str | Path, backend: str | None = None, **options) -> Path | None:
    """
    Finds the graph of an exported folder or Hub repository: of `backend`, or by default the ONNX graph if there are no
    weights for torch. `None` without one. `options` are `HUB_OPTIONS`; others are left out. Raises `ValueError` if there
    is no such folder or repository, or if it has no config.json.
    """
    options = {name: options[name] for name in HUB_OPTIONS if name in options}
    read_config(source, **options)

    def find(name: str) -> Path | None:
        path = cached_file(str(source), name, _raise_exceptions_for_missing_entries=False, **options)
        return Path(path) if path else None

    if backend is None:
        return None if any(find(name) for name in WEIGHTS) else find(ONNX)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    name = BACKENDS[backend][0]
    if (path := find(name)) is None:
        option = " --openvino" if backend == "openvino" else ""
        raise ValueError(
            f"{source} has no {name}: export it with python -m modeling_clir.convert CHECKPOINT OUTPUT --to onnx{option}"
        )
    return path


class ExportedModel(nn.Module):
    """
    An exported model that is called as the model of torch it came from. It has as many threads as torch.

    Args:
        source (`str` or `Path`): folder or Hub repository of an export.
        backend (`str`, *optional*): `"onnx"` (default) or `"openvino"`.
        config (`PreTrainedConfig`, *optional*): its configuration.
        options: `HUB_OPTIONS`.
    """

    device = torch.device("cpu")

    def __init__(self, source: str | Path, backend: str = "onnx", config: PreTrainedConfig | None = None, **options):
        super().__init__()
        self.config, self.name_or_path = config, str(source)
        graph, threads = find_graph(source, backend, **options), torch.get_num_threads()
        package = BACKENDS[backend][1]
        if find_spec(package) is None:
            raise ImportError(f"{source} needs {package}: pip install 'modeling-clir[export]'")
        runtime = import_module(package)
        if backend == "openvino":
            compiled = runtime.compile_model(graph, "CPU", {"INFERENCE_NUM_THREADS": threads})
            self.inputs = [port.any_name for port in compiled.inputs]
            self.run = lambda feed: compiled.create_infer_request().infer(feed)[0]  # threads may share the model
        else:
            settings = runtime.SessionOptions()
            settings.intra_op_num_threads = threads
            settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = runtime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
            self.inputs = [port.name for port in session.get_inputs()]
            self.run = lambda feed: session.run(["logits"], feed)[0]

    def forward(self, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        """Takes the model's inputs, `(rows, length)` each. Returns `logits` of shape `(rows, num_labels)`."""
        feed = {name: np.ascontiguousarray(inputs[name].numpy()) for name in self.inputs}
        return SequenceClassifierOutput(logits=torch.from_numpy(np.asarray(self.run(feed))))


def load_exported(source: str | Path, backend: str, **options) -> tuple[ExportedModel, PreTrainedTokenizerBase]:
    """
    Opens an export and its tokenizer. Raises `ValueError` for options of torch's weights, such as `dtype`, and in the
    cases of [`check_checkpoint`].
    """
    if unknown := sorted(options.keys() - {*HUB_OPTIONS}):
        raise ValueError(f"{source} is an export, whose options are {', '.join(HUB_OPTIONS)}, got {unknown[0]}")
    config, tokenizer, _ = check_checkpoint(source, "rank", **options)
    config.max_position_embeddings = tokenizer.model_max_length  # RoBERTa's own number counts rows of padding
    return ExportedModel(source, backend, config, **options), tokenizer


__all__ = ["BACKENDS", "ONNX", "OPENVINO", "ExportedModel", "find_graph", "load_exported"]
