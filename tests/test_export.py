"""Exports to ONNX and OpenVINO: equal to torch for all shapes, and open to other tools."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

import modeling_clir.export
from modeling_clir import BertLongConfig, Reranker
from modeling_clir.convert import main as convert
from modeling_clir.export import random_inputs
from modeling_clir.exported import ExportedModel
from modeling_clir.push import push
from tests.backbones import save_backbone, tokenizer_of
from tests.helpers import write


QUERY = "Wann wurde der Leuchtturm gebaut?"
DOCUMENTS = ["The harbour of Norrvik froze in 1911.", "", "The lighthouse was built between 1861 and 1866. " * 30]


def save_bertlong(folder):
    """A random BertLong of 2 layers, in which scores are far apart and attention depends on the window."""
    tokenizer = tokenizer_of("bert")
    torch.manual_seed(0)
    config = BertLongConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=320,
        attention_window=[8, 150],
        initializer_range=0.3,
        num_labels=1,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A BertLong and its exports, `float32` (with OpenVINO) and `int8`. It is traced once, which takes longest."""
    folder, trace, traced = tmp_path_factory.mktemp("export"), modeling_clir.export.trace, []

    def trace_once(*args):
        traced[:] = traced or [trace(*args)]
        return traced[0]

    save_bertlong(folder / "bertlong")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_clir.export, "trace", trace_once)
        assert convert([str(folder / "bertlong"), str(folder / "int8"), "--to", "onnx", "--int8"]) == 0
        (folder / "float32").mkdir()  # an empty folder is replaced
        assert convert([str(folder / "bertlong"), str(folder / "float32"), "--to", "onnx", "--openvino"]) == 0
    return folder


def largest_difference(checkpoint, export, backend="onnx", number=50, longest=320, most_rows=6):
    """Over random shapes: lengths, numbers of query tokens, padding on both sides."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
    exported, found = ExportedModel(export, backend), []
    generator = np.random.default_rng(0)
    shapes = [
        (1, 1),
        (2, 1),
        (1, 2),
        *zip(generator.integers(1, most_rows, number), generator.integers(1, longest + 1, number)),
    ]
    for seed, shape in enumerate(shapes[:number]):
        inputs = random_inputs(exported.inputs, tuple(map(int, shape)), model.config.vocab_size, seed)
        if "token_type_ids" in inputs and seed % 2:
            width = int(generator.integers(0, shape[1] + 1))
            inputs["token_type_ids"] = (torch.arange(shape[1]) >= width).long() * inputs["attention_mask"]
        with torch.inference_mode():
            found.append((model(**inputs).logits - exported(**inputs).logits).abs().max().item())
    return max(found)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_scores_of_any_shape_equal_torchs(folders, backend):
    assert largest_difference(folders / "bertlong", folders / "float32", backend) < 1e-4


def test_a_row_without_tokens_has_the_score_of_torch(folders):
    model = AutoModelForSequenceClassification.from_pretrained(folders / "bertlong").eval()
    inputs = random_inputs(["input_ids", "attention_mask", "token_type_ids"], (3, 70), 100)
    inputs["attention_mask"][1] = 0
    with torch.inference_mode():
        found = ExportedModel(folders / "float32")(**inputs).logits
        torch.testing.assert_close(found, model(**inputs).logits, atol=1e-5, rtol=0)


def test_the_graph_needs_nothing_but_onnx(folders):
    import onnx

    graph = onnx.load(folders / "float32" / "model.onnx")
    onnx.checker.check_model(graph)
    assert {opset.domain for opset in graph.opset_import} <= {"", "ai.onnx"}
    assert str(modeling_clir.export.__file__).encode() not in graph.SerializeToString()  # paths stay here
    assert {value.name for value in graph.graph.input} == {"input_ids", "attention_mask", "token_type_ids"}
    assert [value.name for value in graph.graph.output] == ["logits"]


def test_an_exported_folder_ranks(folders):
    expected = Reranker.from_pretrained(folders / "bertlong").rank(QUERY, DOCUMENTS)
    assert len({round(hit["score"], 3) for hit in expected}) == 3
    for options in ({}, {"backend": "onnx"}, {"backend": "openvino"}):
        found = Reranker.from_pretrained(folders / "float32", **options).rank(QUERY, DOCUMENTS)
        assert [hit["corpus_id"] for hit in found] == [hit["corpus_id"] for hit in expected]
        assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-4)


def test_an_export_is_pushed_and_ranks_from_the_hub(folders, at_hub):
    for name in ("float32", "int8"):  # the new version has no graph of OpenVINO's
        push(folders / name, "someone/graph")
    files = at_hub.files("someone/graph")
    assert files["model.onnx"] == (folders / "int8/model.onnx").read_bytes() and "openvino_model.xml" not in files
    assert 'from_pretrained("someone/graph", revision="files-' in files["README.md"].decode()
    local, loaded = (Reranker.from_pretrained(source) for source in (folders / "int8", "someone/graph"))
    pairs = [(QUERY, document) for document in DOCUMENTS]
    assert loaded.score(pairs) == local.score(pairs)
    assert loaded.model.name_or_path == "someone/graph"


def test_an_export_does_not_replace_weights(folders, at_hub, tmp_path):
    bert = shutil.copytree(folders / "float32", tmp_path / "bert")
    config = AutoConfig.from_pretrained(bert)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(bert)
    (bert / "model.onnx").unlink()
    push(bert, "someone/bert")
    with pytest.raises(ValueError, match=r"taken: it holds another model .* ONNX"):
        push(folders / "float32", "someone/bert")


def test_a_damaged_export_is_not_pushed(folders, at_hub, tmp_path):
    folder = shutil.copytree(folders / "float32", tmp_path / "graph")
    (folder / "openvino_model.bin").unlink()
    with pytest.raises(ValueError, match=r"has no openvino_model\.bin"):
        push(folder, "someone/graph")
    graph = (folder / "model.onnx").read_bytes()
    for damaged in (graph[:-1], graph[: len(graph) // 2], b""):
        (folder / "model.onnx").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.onnx is damaged"):
            push(folder, "someone/graph")
    assert not at_hub.calls


def test_limits_of_an_export_are_the_models(folders):
    reranker = Reranker.from_pretrained(folders / "float32")
    assert reranker.encoder.max_length == 320
    with pytest.raises(ValueError, match="more than the model's 320 positions"):
        Reranker.from_pretrained(folders / "float32", max_length=321)


def test_int8_is_small_and_near(folders):
    sizes = [(folders / name / "model.onnx").stat().st_size for name in ("int8", "float32")]
    found, expected = (
        [hit["score"] for hit in Reranker.from_pretrained(folders / name).rank(QUERY, DOCUMENTS)]
        for name in ("int8", "float32")
    )
    assert sizes[0] < 0.7 * sizes[1]  # at this size much of the file is the graph
    assert found != expected and found == pytest.approx(expected, abs=0.2 * max(map(abs, expected)))


def test_an_export_opens_without_the_package_and_without_remote_code(folders):
    """As a user of onnxruntime alone opens it; config.json is of a type that Transformers has."""
    code = f"""
import sys
sys.modules["modeling_clir"] = sys.modules["torch"] = None
import onnxruntime
from transformers import AutoConfig, AutoTokenizer
folder = {str(folders / "float32")!r}
inputs = AutoTokenizer.from_pretrained(folder)({QUERY!r}, {DOCUMENTS[0]!r}, return_tensors="np")
session = onnxruntime.InferenceSession(folder + "/model.onnx")
print(AutoConfig.from_pretrained(folder).num_labels, session.run(["logits"], dict(inputs))[0][0, 0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    labels, score = done.stdout.split()
    hits = Reranker.from_pretrained(folders / "bertlong").rank(QUERY, DOCUMENTS[:1])
    assert labels == "1" and float(score) == pytest.approx(hits[0]["score"], abs=1e-4)
    assert "auto_map" not in json.loads((folders / "float32" / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "kind", ["bert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("xlm-roberta", "modernbert"))]
)
def test_native_checkpoints(tmp_path, kind):
    layers = {"num_hidden_layers": 1} if kind == "bert" else {}
    save_backbone(kind, tmp_path / kind, AutoModelForSequenceClassification, num_labels=2, **layers)
    write(tmp_path / kind / "README.md", "---", "base_model: someone/base", "language: [no, de]", "---")
    assert convert([str(tmp_path / kind), str(tmp_path / "onnx"), "--to", "onnx"]) == 0
    assert largest_difference(tmp_path / kind, tmp_path / "onnx", number=20, longest=128) < 1e-4
    assert AutoConfig.from_pretrained(tmp_path / "onnx").model_type == kind
    card = ModelCard.load(tmp_path / "onnx" / "README.md")
    assert card.data.base_model == "someone/base" and f"{kind}, exported to ONNX" in card.text  # it is not the base
    documents = ["a lighthouse", "the harbour " * 99]
    expected, found = (
        Reranker.from_pretrained(tmp_path / name, max_query_length=32).rank("lighthouse", documents)
        for name in (kind, "onnx")
    )
    assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-4)


# --- mistakes


def test_options_of_another_target(mistake, tmp_path):
    command = ("modeling_clir/convert.py", "a", tmp_path / "b")
    for options, name in ((("--int8",), "int8"), (("--to", "bert", "--openvino"), "openvino")):
        assert (
            mistake("-m modeling_clir.convert", *command[1:], *options)
            == f"error: --{name} is for --to onnx: leave it out"
        )
    found = mistake("-m modeling_clir.convert", *command[1:], "--to", "onnx", "--num_labels", "1")
    assert found == "error: --num_labels is not for --to onnx: leave it out"


def test_missing_packages_are_named_first(monkeypatch, tmp_path):
    monkeypatch.setattr(modeling_clir.export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ImportError, match=r"exporting needs onnxscript: pip install 'modeling-clir\[export\]'"):
        modeling_clir.export.export("/nowhere", tmp_path / "onnx")
    monkeypatch.setattr(modeling_clir.export, "find_spec", lambda name: None if "exporters" in name else name)
    with pytest.raises(ImportError, match=r"transformers .* has no exporters: pip install --upgrade"):
        modeling_clir.export.export("/nowhere", tmp_path / "onnx")


def test_what_cannot_rank_is_refused_and_nothing_is_written(tmp_path):
    save_backbone("bert", tmp_path / "mlm")
    with pytest.raises(ValueError, match="cannot rank, it lacks"):
        modeling_clir.export.export(str(tmp_path / "mlm"), tmp_path / "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["mlm"]


def test_an_export_that_differs_is_refused_and_nothing_is_written(folders, tmp_path, monkeypatch):
    import onnx_ir

    monkeypatch.setattr(modeling_clir.export, "trace", lambda *_: onnx_ir.load(folders / "int8" / "model.onnx"))
    with pytest.raises(ValueError, match=r"scores of the onnx export differ from torch's by .*, more than 1e-04"):
        modeling_clir.export.export(str(folders / "bertlong"), tmp_path / "onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_without_a_score_is_refused_in_int8_too(folders, monkeypatch):
    nothing = SequenceClassifierOutput(logits=torch.tensor(torch.nan))
    monkeypatch.setattr(ExportedModel, "forward", lambda self, **inputs: nothing)
    model = AutoModelForSequenceClassification.from_pretrained(folders / "bertlong").eval()
    with pytest.raises(ValueError, match="differ from torch's by inf"):
        modeling_clir.export.check(model, folders / "int8", "onnx", ["input_ids"], 64, math.inf)


def test_wrong_backends_and_options_of_exports(folders):
    with pytest.raises(ValueError, match="backend must be one of onnx, openvino, got 'tensorrt'"):
        Reranker.from_pretrained(folders / "float32", backend="tensorrt")
    with pytest.raises(ValueError, match=r"has no openvino_model.xml: export it with .* --to onnx --openvino"):
        Reranker.from_pretrained(folders / "int8", backend="openvino")
    with pytest.raises(ValueError, match=r"is an export, whose options are .*, got dtype"):
        Reranker.from_pretrained(folders / "float32", dtype="bfloat16")
