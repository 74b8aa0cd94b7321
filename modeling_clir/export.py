"""
Exports rerankers to ONNX and OpenVINO: `python -m modeling_clir.convert SOURCE OUTPUT --to onnx`.

An exported folder holds one graph for any number of rows and any length, the tokenizer, a config.json and a card. It
opens without this package and without remote code. exported.py ranks with it.
"""

import io
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
import transformers
from huggingface_hub import ModelCard, ModelCardData
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from .configuration_bertlong import BertLongConfig
from .data.files import new_folder
from .data.languages import card_languages
from .exported import ONNX, OPENVINO, ExportedModel
from .loading import check_labels, load_pretrained, longest_input
from .model_card import inherited
from .quantization import KEPT


TOLERANCE = 1e-4  # largest difference from torch's scores, times the largest score if that is above 1
SCOPES = "pkg.torch.onnx.name_scopes"  # metadata of a node: the names of the modules that it comes from
IN_ONE_FILE = 1.5 * 2**30  # bytes of weights; protobuf ends at 2 GiB
SHAPES = [(2, 2), (1, 1), (3, 7), (1, 64), (2, 65), (5, 33), (2, 150), (1, 300)]  # that an export is tried with


def require(*packages: str):
    """Raises `ImportError` that says what to install if a package of the extra `export` is missing."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ImportError(f"exporting needs {', '.join(missing)}: pip install 'modeling-clir[export]'")
    if find_spec("transformers.exporters") is None:
        raise ImportError(
            f"transformers {transformers.__version__} has no exporters: pip install --upgrade 'transformers>=5.23'"
        )


def random_inputs(names: list[str], shape: tuple[int, int], vocab_size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """
    Draws rows of random tokens. The query is about a sixth of a row. Padding is on the right in even rows and on the
    left in odd rows; the first row has none.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(min(5, vocab_size - 1), vocab_size, shape, generator=generator)
    place, rows = torch.arange(shape[1])[None], torch.arange(shape[0])[:, None]
    lengths = (torch.rand(shape[0], 1, generator=generator) * shape[1]).long().clamp_min(1)
    lengths[0] = shape[1]
    start = (shape[1] - lengths) * (rows % 2)
    mask = ((place >= start) & (place < start + lengths)).long()
    types = (place - start > lengths // 6).long() * mask
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: inputs[name] for name in names}


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what the exporters print of their progress and of versions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def trace(model: PreTrainedModel, names: list[str], limit: int):
    """Returns the graph of a model as an `onnx_ir.Model`: inputs `names`, output `logits`, any rows, any length."""
    from transformers.exporters import OnnxConfig, OnnxExporter

    shape = {0: torch.export.Dim("rows"), 1: torch.export.Dim("length", max=limit)}
    inputs = random_inputs(names, (2, min(100, limit)), model.config.vocab_size)
    inputs["attention_mask"].fill_(1)
    config = OnnxConfig(dynamic=True, dynamic_shapes=dict.fromkeys(names, shape))
    return OnnxExporter().export(model, inputs, config).program


def scope(node) -> str:
    """The names of the modules that a node of a traced graph comes from."""
    return node.metadata_props.get(SCOPES, "")


def quantize(program):
    """
    Quantizes the linear layers and the word embeddings of a traced graph to int8, except what [`quantize_int8`] keeps.
    Weights have a scale for each output channel. Activations are quantized at each call.
    """
    from onnxruntime.quantization import QuantType
    from transformers.exporters import OnnxRuntimeDynamicConfig, OnnxRuntimeQuantizer
    from transformers.exporters.configs import ExportFormat

    nodes = [node for node in program.graph if node.op_type in ("MatMul", "Gemm", "Gather")]
    kept = [node.name for node in nodes if KEPT.search(scope(node)) or "classifier" in scope(node)]
    config = OnnxRuntimeDynamicConfig(
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        reduce_range=True,  # without it, AVX2's sums of products overflow
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )
    return OnnxRuntimeQuantizer(config).quantize(program, {}, ExportFormat.ONNX)


def save(program, path: Path):
    """Writes a graph without the paths of source files in it. Weights above `IN_ONE_FILE` go to `model.onnx.data`."""
    import onnx_ir

    for node in program.graph.all_nodes():
        for name in node.metadata_props.keys() - {SCOPES}:
            del node.metadata_props[name]
    weights = sum(value.const_value.nbytes for value in program.graph.initializers.values() if value.const_value)
    onnx_ir.save(program, path, external_data=f"{path.name}.data" if weights > IN_ONE_FILE else None)


def save_openvino(folder: Path):
    """Writes the graph of an export for OpenVINO beside it."""
    import openvino

    model = openvino.Core().read_model(folder / ONNX)  # `convert_model` would send statistics of its use
    openvino.save_model(model, folder / OPENVINO, compress_to_fp16=False)


def largest_difference(model: PreTrainedModel, exported: ExportedModel, names: list[str], limit: int) -> float:
    """
    Returns the largest difference between the scores of a model and of its export over `SHAPES`, relative to the
    largest score if that is above 1.
    """
    found = 0.0
    for seed, (rows, length) in enumerate(SHAPES):
        inputs = random_inputs(names, (rows, min(length, limit)), model.config.vocab_size, seed)
        with torch.inference_mode():
            expected = model(**inputs).logits
        difference = (exported(**inputs).logits - expected).abs().max() / expected.abs().max().clamp_min(1)
        found = max(found, difference.item() if math.isfinite(difference) else math.inf)
    return found


def exported_config(model: PreTrainedModel) -> PreTrainedConfig:
    """
    The configuration of an export: the model's own, or for a BertLong a BERT's of the same size. Other tools know
    BERT's; the graph has all that is BertLong's own.
    """
    config = model.config
    if config.model_type == BertLongConfig.model_type:
        options = {name: value for name, value in config.to_dict().items() if name in BertConfig.__annotations__}
        options |= {"id2label": config.id2label, "label2id": config.label2id}
        config = BertConfig(**options, exported_from=BertLongConfig.model_type)
        config.architectures = ["BertForSequenceClassification"]
    return config


CARD = """---
{data}
---

# {name}

{source}, exported to {format}: a reranker for a query and a document in different languages. A higher
logit{second} is more relevant.

The graph takes {inputs}, each of shape `(rows, length)`, with any number of rows and up to {max_length} tokens.

```python
from modeling_clir import Reranker

reranker = Reranker.from_pretrained("{name}")
```

The largest difference from the scores in torch, on {shapes} random batches, is {difference:.1g}{relative}.
"""


def export(source: str, output: Path, int8: bool = False, openvino: bool = False) -> str:
    """
    Exports a reranker, BertLong or native, for ONNX Runtime, and checks the export's scores against torch's.

    Args:
        source (`str`): folder or Hub name of a checkpoint with 1 label, or with 2 labels of which the second ranks.
        output (`Path`): folder to write; must not exist, or be empty.
        int8 (`bool`, defaults to `False`): quantize linear layers and word embeddings.
        openvino (`bool`, defaults to `False`): also write the graph for OpenVINO, `openvino_model.xml`.

    Returns:
        A line that says what was written.

    Raises:
        `ImportError` if a package is missing, and `ValueError` if the checkpoint is no reranker or the scores of the
        export are not torch's.
    """
    require("onnx", "onnxscript", "onnxruntime", *["openvino"] * openvino)
    model, tokenizer = load_pretrained(AutoModelForSequenceClassification, source, "rank")
    check_labels(model)
    limit = longest_input(model, tokenizer)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names]
    with quiet():
        program = trace(model.eval(), names, limit)
    if output.is_dir() and not any(output.iterdir()):
        output.rmdir()
    with new_folder(output) as folder:
        config = exported_config(model)
        config.dtype = torch.float32
        config.save_pretrained(folder)
        tokenizer.model_max_length = limit
        tokenizer.save_pretrained(folder)
        with quiet():
            quantized = quantize(program) if int8 else None
        save(program, folder / ONNX)
        differences = [check(model, folder, "onnx", names, limit)]
        if quantized is not None:
            (folder / ONNX).unlink()
            (folder / f"{ONNX}.data").unlink(missing_ok=True)
            save(quantized, folder / ONNX)
            differences.append(check(model, folder, "onnx", names, limit, math.inf))
        if openvino:
            save_openvino(folder)
            differences.append(check(model, folder, "openvino", names, limit, math.inf if int8 else TOLERANCE))
        kind = ("int8 " if int8 else "") + ("ONNX and OpenVINO" if openvino else "ONNX")
        license, languages, linked = inherited(source)
        name = Path(source).resolve().name if Path(source).exists() else source
        data = ModelCardData(
            language=card_languages(languages) or None,
            library_name="onnx",
            base_model=linked,
            pipeline_tag="text-ranking",
            tags=["onnx", "cross-lingual", "reranker"],
            **license,
        )
        text = CARD.format(
            data=data,
            name=output.resolve().name,
            source=name,
            format=kind,
            max_length=limit,
            second=" (the second one)" if config.num_labels == 2 else "",
            inputs=", ".join(f"`{name}`" for name in names),
            shapes=len(SHAPES),
            difference=differences[-1],
            relative=" of the largest score" if int8 else "",
        )
        ModelCard(text).save(folder / "README.md")
        size = sum(path.stat().st_size for path in folder.glob(f"{ONNX}*")) / 2**20
    return (
        f"{config.get_text_config().model_type if config is model.config else 'bertlong'} -> {kind}: {size:.1f} MiB, "
        f"any rows, up to {limit} tokens; largest difference from torch {differences[-1]:.1e}, saved in {output}"
    )


def check(
    model: PreTrainedModel, folder: Path, backend: str, names: list[str], limit: int, tolerance: float = TOLERANCE
) -> float:
    """Returns [`largest_difference`] of an export in a folder. Raises `ValueError` if it is above `tolerance`."""
    difference = largest_difference(model, ExportedModel(folder, backend), names, limit)
    if difference > tolerance or math.isinf(difference):
        raise ValueError(
            f"the scores of the {backend} export differ from torch's by {difference:.1e}, more than {tolerance:.0e}: "
            f"this {model.config.model_type} cannot be exported"
        )
    return difference


__all__ = ["export"]
