"""Checkpoints carry their code and open through every Auto class, without this package, and in other libraries."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertTokenizerFast,
    pipeline,
)

import modeling_clir
from modeling_clir.configuration_bertlong import AUTO_MAP, CUSTOM_PIPELINES
from tests.conftest import REPOSITORY
from tests.tiny import build, pair_batch, tiny_config


AUTO_CLASSES = {
    AutoModel: modeling_clir.BertLongModel,
    AutoModelForPreTraining: modeling_clir.BertLongForXLRetrieval,
    AutoModelForMaskedLM: modeling_clir.BertLongForMaskedLM,
    AutoModelForSequenceClassification: modeling_clir.BertLongForSequenceClassification,
    AutoModelForQuestionAnswering: modeling_clir.BertLongForQuestionAnswering,
}
CODE = (
    "attention_bertlong.py",
    "blocks_bertlong.py",
    "configuration_bertlong.py",
    "layout_bertlong.py",
    "modeling_bertlong.py",
    "varlen_bertlong.py",
)
PIPELINES = ("pipeline_bertlong.py", "spans_bertlong.py")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "wer", "entdeckte", "radium", "marie", "curie", "berlin", "."]


def check_folder(folder):
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert stored["auto_map"] == AUTO_MAP and stored["model_type"] == "bertlong-xlr"
    assert stored["custom_pipelines"] == CUSTOM_PIPELINES
    assert {path.name for path in folder.iterdir()} == {*CODE, *PIPELINES, "config.json", "model.safetensors"}
    for name in (*CODE, *PIPELINES):
        assert (folder / name).read_bytes() == (REPOSITORY / "modeling_clir" / name).read_bytes()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of the class that has every head except the one for question answering."""
    folder = tmp_path_factory.mktemp("hub") / "clir-bertlong"
    model = build(modeling_clir.BertLongForXLRetrieval, initializer_range=0.5, max_position_embeddings=64).float()
    model.save_pretrained(folder)
    return folder


def test_every_checkpoint_of_every_class_carries_the_code(tmp_path):
    for auto_class, model_class in AUTO_CLASSES.items():
        folders = tmp_path / model_class.__name__, tmp_path / f"{model_class.__name__}-again"
        build(model_class).save_pretrained(folders[0])
        loaded = auto_class.from_pretrained(folders[0])
        assert type(loaded) is model_class
        loaded.save_pretrained(folders[1])
        for folder in folders:
            check_folder(folder)
    tiny_config().save_pretrained(tmp_path / "config")
    assert (tmp_path / "config" / "configuration_bertlong.py").is_file()


WITHOUT_THE_PACKAGE = """
import sys
sys.modules["modeling_clir"] = None
import json, pathlib, torch, transformers
source, output, inputs = sys.argv[1], pathlib.Path(sys.argv[2]), torch.load(sys.argv[3])
found = {"config": type(transformers.AutoConfig.from_pretrained(source, trust_remote_code=True)).__name__}
for name in json.loads(sys.argv[4]):
    values = []
    for folder in (source, output / name):  # saved by the package, and saved again here
        model = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()
        assert type(model).__module__.startswith("transformers_modules"), type(model)
        with torch.no_grad():
            values.append(model(**inputs)[0])
        if folder == source:
            model.save_pretrained(output / name)
    found[name] = type(model).__name__, *values
torch.save(found, output / "found.pt")
"""


WHAT_IS_IMPORTED = """
import json, sys, types
from transformers.modeling_layers import GradientCheckpointingLayer  # the heaviest module that the files need
before = set(sys.modules)
package = sys.modules["modeling_clir"] = types.ModuleType("modeling_clir")  # without its __init__.py
package.__path__ = [sys.argv[1]]
import modeling_clir.modeling_bertlong
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_model_files_import_nothing_heavy():
    """They do not import torch's compiler: that takes 2 seconds, and only flex_attention needs it."""
    command = [sys.executable, "-c", WHAT_IS_IMPORTED, str(REPOSITORY / "modeling_clir")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = ["modeling_clir", *(f"modeling_clir.{name.removesuffix('.py')}" for name in CODE)]
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("where", [pytest.param("folder", marks=pytest.mark.slow), "hub"])
def test_without_the_package(where, checkpoint, tmp_path):
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_MODULES_CACHE": str(tmp_path / "modules")}
    source = str(checkpoint)
    if where == "hub":  # the cache after a download
        source, commit = "someone/clir-bertlong", "0123456789abcdef0123456789abcdef01234567"
        cache = tmp_path / "home" / "hub" / "models--someone--clir-bertlong"
        shutil.copytree(checkpoint, cache / "snapshots" / commit)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(commit, encoding="utf-8")
    inputs = pair_batch()
    torch.save(inputs, tmp_path / "inputs.pt")
    output = tmp_path / "output"
    output.mkdir()
    names = [auto_class.__name__ for auto_class in AUTO_CLASSES]
    command = [sys.executable, "-c", WITHOUT_THE_PACKAGE, source, output, tmp_path / "inputs.pt", json.dumps(names)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(output / "found.pt")
    assert found["config"] == "BertLongConfig"
    for auto_class, model_class in AUTO_CLASSES.items():
        name, once, again = found[auto_class.__name__]
        assert name == model_class.__name__
        check_folder(output / auto_class.__name__)
        if model_class is not modeling_clir.BertLongForQuestionAnswering:  # its head is newly initialized
            torch.testing.assert_close(once, auto_class.from_pretrained(checkpoint)(**inputs)[0])
        torch.testing.assert_close(once, again)
        torch.testing.assert_close(again, auto_class.from_pretrained(output / auto_class.__name__)(**inputs)[0])


def test_auto_classes_from_a_configuration():
    for auto_class, model_class in AUTO_CLASSES.items():
        assert type(auto_class.from_config(tiny_config())) is model_class
    config = AutoConfig.for_model("bertlong-xlr", attention_window=8)
    assert type(config) is modeling_clir.BertLongConfig and config.attention_window == 8


@pytest.fixture(scope="module")
def with_tokenizer(checkpoint, tmp_path_factory):
    """Saves the checkpoint as a reranker, with a tokenizer."""
    folder = tmp_path_factory.mktemp("hub") / "reranker"
    shutil.copytree(checkpoint, folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


QUERY = "wer entdeckte radium"
DOCUMENTS = ["marie curie . " * 4, "berlin", "berlin . " * 60, "curie entdeckte radium . radium ."]


def scores(folder):
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    found = []
    for document in DOCUMENTS:
        inputs = tokenizer(QUERY, document, truncation="longest_first", return_tensors="pt")
        with torch.no_grad():
            inputs["global_attention_mask"] = (inputs["token_type_ids"] == 0).long()
            found.append(model(**inputs).logits.squeeze())
    return torch.stack(found)


def test_cross_encoder_gives_the_models_scores(with_tokenizer):
    expected = scores(with_tokenizer)
    assert expected.std() > 1e-3
    encoder = CrossEncoder(str(with_tokenizer), activation_fn=torch.nn.Identity(), device="cpu")
    for batch_size in (1, 4):
        pairs = [(QUERY, document) for document in DOCUMENTS]
        found = encoder.predict(pairs, batch_size=batch_size, convert_to_tensor=True)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    ranking = [result["corpus_id"] for result in encoder.rank(QUERY, DOCUMENTS)]
    assert ranking == expected.argsort(descending=True).tolist()


def test_pipeline_for_text_classification(with_tokenizer):
    rank = pipeline("text-classification", model=str(with_tokenizer), function_to_apply="none", device="cpu")
    pairs = [{"text": QUERY, "text_pair": document} for document in DOCUMENTS]
    found = [result["score"] for result in rank(pairs, batch_size=2, truncation=True)]
    torch.testing.assert_close(torch.tensor(found), scores(with_tokenizer), atol=1e-5, rtol=0)


@pytest.mark.parametrize("document", [None, "marie curie entdeckte radium ."], ids=["query", "query with document"])
def test_pipelines_for_masks_and_hidden_states(document, with_tokenizer, monkeypatch):
    said = []
    monkeypatch.setattr("modeling_clir.modeling_bertlong.logger.warning_once", said.append)
    text, pair = "marie [MASK] entdeckte radium", {"text_pair": document} if document else {}
    fill = pipeline("fill-mask", model=str(with_tokenizer), device="cpu")
    inputs = fill.tokenizer(text, return_tensors="pt", **pair)
    with torch.no_grad():
        expected = AutoModelForMaskedLM.from_pretrained(with_tokenizer)(**inputs).logits[0, 2].softmax(-1)
        states = AutoModel.from_pretrained(with_tokenizer)(**inputs).last_hidden_state
    best = expected.topk(3)
    found = fill(text, top_k=3, tokenizer_kwargs=pair)
    assert [result["token"] for result in found] == best.indices.tolist()
    assert [result["score"] for result in found] == pytest.approx(best.values.tolist(), abs=1e-5)
    extract = pipeline("feature-extraction", model=str(with_tokenizer), device="cpu")
    torch.testing.assert_close(extract(text, return_tensors=True, tokenize_kwargs=pair), states)
    assert not said  # the tokenizer marks the query


RANK = """
import sys
sys.modules["modeling_clir"] = None
import json
from transformers import pipeline
folder, asked = sys.argv[1], json.loads(sys.argv[2])
rank = pipeline("text-ranking", model=folder, trust_remote_code=True, device="cpu")
assert type(rank).__module__.startswith("transformers_modules"), type(rank)
print(json.dumps({size: rank(asked, batch_size=size, max_query_length=10) for size in (1, 3, 16)}))
"""


def test_pipeline_for_ranking_without_the_package(with_tokenizer, tmp_path):
    asked = [(QUERY, DOCUMENTS), (QUERY, []), ("wer entdeckte [SEP] " * 6, DOCUMENTS[::-1])]
    ask = json.dumps([{"query": query, "documents": documents} for query, documents in asked])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    command = [sys.executable, "-c", RANK, str(with_tokenizer), ask]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    reranker = modeling_clir.Reranker.from_pretrained(with_tokenizer, max_query_length=10)
    for found in json.loads(done.stdout).values():
        for hits, (query, documents) in zip(found, asked, strict=True):
            expected = reranker.rank(query, documents)
            assert [(hit["corpus_id"], hit["text"]) for hit in hits] == [(h["corpus_id"], h["text"]) for h in expected]
            scores_of = [[hit["score"] for hit in of_query] for of_query in (hits, expected)]
            assert scores_of[0] == pytest.approx(scores_of[1], abs=1e-5)


def test_pipeline_for_ranking_takes_options_and_refuses_other_input(with_tokenizer, monkeypatch, caplog):
    rank = pipeline("text-ranking", model=str(with_tokenizer), trust_remote_code=True, device="cpu")
    monkeypatch.setattr(rank.__class__.__init__.__globals__["logger"], "propagate", True)
    hits = rank(QUERY, DOCUMENTS)
    assert "1 of 4 documents were cut" in caplog.text
    assert rank(QUERY, DOCUMENTS, top_k=2) == hits[:2] and rank({"query": QUERY, "documents": DOCUMENTS}) == hits
    short = modeling_clir.Reranker.from_pretrained(with_tokenizer, max_length=20, max_query_length=10)
    expected = [hit["score"] for hit in short.rank(QUERY, DOCUMENTS)]
    found = rank(QUERY, DOCUMENTS, max_length=20, max_query_length=10)
    assert [hit["score"] for hit in found] == pytest.approx(expected, abs=1e-5)
    assert rank(QUERY, []) == []
    for wrong in ((QUERY,), (QUERY, "berlin"), (QUERY, [None]), (None, DOCUMENTS), ([QUERY], DOCUMENTS)):
        with pytest.raises(TypeError, match="must be"):
            rank(*wrong)
    with pytest.raises(TypeError, match="no option 'top'"):
        rank(QUERY, DOCUMENTS, top=2)


def test_the_pipeline_stays_with_a_checkpoint_that_others_save(with_tokenizer, tmp_path):
    """sentence-transformers saves config and model; the pipeline's code must come along."""
    CrossEncoder(str(with_tokenizer), device="cpu").save_pretrained(str(tmp_path / "again"))
    rank = [
        pipeline("text-ranking", model=str(folder), trust_remote_code=True, device="cpu")
        for folder in (with_tokenizer, tmp_path / "again")
    ]
    assert rank[0](QUERY, DOCUMENTS) == rank[1](QUERY, DOCUMENTS)


def test_the_model_files_follow_transformers_conventions():
    mlinter = shutil.which("mlinter", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    done = subprocess.run([mlinter, "modeling_clir", "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
