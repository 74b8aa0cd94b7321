"""One commit or none: checkpoints and corpora are uploaded to a Hub on loopback, whatever breaks."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
import torch
from huggingface_hub import HfApi, ModelCard

from modeling_clir import BertLongForXLRetrieval
from modeling_clir.push import check_card, files_to_push, pin_snippets, push

from .conftest import REPOSITORY
from .helpers import write
from .hub_server import Repository, User
from .tiny import build


CARD = """---
license: apache-2.0
language: [de, en]
pipeline_tag: text-ranking
---

# clir-bertlong

```python
from transformers import AutoModel

model = AutoModel.from_pretrained("clir-bertlong", trust_remote_code=True)
```

Not code: "clir-bertlong".
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push") / "clir-bertlong"
    build(BertLongForXLRetrieval, max_position_embeddings=64).float().save_pretrained(folder)
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    write(folder / "en-de.run", "q Q0 d 1 1.0 tag")
    write(folder / "xquad/context-de.question-en.json", {})
    write(folder / ".eval_results/xquad.yaml", "[]")
    private = ("training_args.bin", "checkpoint-2/optimizer.pt", "fold-0/model.safetensors", "settings.json")
    for name in (*private, "emissions.csv"):
        write(folder / name, "")
    return folder


@pytest.fixture
def folder(built, tmp_path):
    return shutil.copytree(built, tmp_path / built.name)


@pytest.fixture
def corpus(sample_corpus, tmp_path):
    return shutil.copytree(sample_corpus, tmp_path / "corpus")


@pytest.fixture
def hub(at_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    return at_hub


def state(folder) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def commits(hub, name="someone/clir-bertlong", kind="model") -> int:
    """Counts the commits after the Hub's own first one."""
    repository = hub.repositories.get((kind, name))
    return len(repository.commits) - 1 if repository else 0


def test_a_checkpoint_is_one_commit(folder, hub):
    before = state(folder)
    url = push(folder, "someone/clir-bertlong")
    found = hub.files("someone/clir-bertlong")
    assert url.startswith(f"{hub.endpoint}/someone/clir-bertlong/commit/") and commits(hub) == 1
    assert {"config.json", "modeling_bertlong.py", "en-de.run", ".eval_results/xquad.yaml"} < found.keys()
    assert "xquad/context-de.question-en.json" in found
    private = ("checkpoint", "fold", "training_args", "settings", "emissions")
    assert not [name for name in found if name.startswith(private)]
    for name, data in found.items():
        assert name == "README.md" or data == (folder / name).read_bytes()
    assert found["model.safetensors"] in hub.blobs.values()
    assert state(folder) == before


def test_examples_of_the_card_name_repository_and_tag(folder, hub):
    push(folder, "clir-bertlong")  # the account's own
    repository = hub.repositories["model", "someone/clir-bertlong"]
    [tag] = repository.tags
    card = hub.files("someone/clir-bertlong")["README.md"].decode()
    assert f'from_pretrained("someone/clir-bertlong", revision="{tag}", trust_remote_code=True)' in card
    assert 'Not code: "clir-bertlong"' in card and "\n# clir-bertlong\n" in card
    assert repository.tags[tag] == repository.branches["main"]
    assert pin_snippets(card, "clir-bertlong", "someone/clir-bertlong", tag) == card


def test_a_name_may_be_that_of_a_task():
    call = 'answer = pipeline("question-answering", model="question-answering")'
    pinned = pin_snippets(f"```python\n{call}\n```", "question-answering", "someone/reader", "files-1")
    assert 'pipeline("question-answering", model="someone/reader", revision="files-1")' in pinned


@pytest.mark.parametrize(
    "card", ["license: other", "license: [mit, cc-by-sa-4.0]", "language: [no, en]", "language: no", "license: mit"]
)
def test_cards_that_the_hub_accepts(card, tmp_path):
    check_card(write(tmp_path / "README.md", "---", card, "---", "# model"))


def test_a_new_version_replaces_weights_and_keeps_what_others_added(folder, hub):
    push(folder, "someone/clir-bertlong")
    repository = hub.repositories["model", "someone/clir-bertlong"]
    first = dict(repository.tags)
    files = dict(repository.commits[repository.branches["main"]])
    files |= {"LICENSE": (b"theirs", False), "pytorch_model.bin": (b"old", True), "onnx/old.py": (b"", False)}
    repository.commit(files, "main")
    torch.manual_seed(1)
    build(BertLongForXLRetrieval, seed=1, max_position_embeddings=64).float().save_pretrained(folder)
    push(folder, "someone/clir-bertlong")
    found = hub.files("someone/clir-bertlong")
    assert found["LICENSE"] == b"theirs" and "onnx/old.py" in found and "pytorch_model.bin" not in found
    assert commits(hub) == 3 and len(repository.tags) == 2 and first.items() <= repository.tags.items()
    push(folder, "someone/clir-bertlong")  # nothing has changed
    assert commits(hub) == 3


def test_a_branch_and_a_private_repository(folder, hub):
    push(folder, "someone/clir-bertlong", private=True, revision="next")
    repository = hub.repositories["model", "someone/clir-bertlong"]
    assert repository.private and hub.files("someone/clir-bertlong") == {}
    assert "model.safetensors" in hub.files("someone/clir-bertlong", "next")
    hub.repositories["model", "someone/open"] = Repository()
    with pytest.raises(ValueError, match="already and public"):
        push(folder, "someone/open", private=True)
    assert commits(hub, "someone/open") == 0


def test_a_corpus_is_a_data_set(corpus, hub):
    url = push(corpus, "someone/corpus", dataset=True)
    found = hub.files("someone/corpus", kind="dataset")
    assert "/datasets/someone/corpus/commit/" in url and commits(hub, "someone/corpus", "dataset") == 1
    assert {str(p.relative_to(corpus)) for p in corpus.rglob("*") if p.is_file()} == found.keys()
    [tag] = hub.repositories["dataset", "someone/corpus"].tags
    assert f'load_dataset("someone/corpus", revision="{tag}", name="sections-' in found["README.md"].decode()


# ---------------------------------------------------------------------------------------------------------------------
# Faults
# ---------------------------------------------------------------------------------------------------------------------


FAULTS = {
    "token is no longer valid": ("whoami", {"status": 401}, "does not accept the token"),
    "not allowed to create": ("create", {"status": 403}, "may not write to someone/clir-bertlong (of the test)"),
    "no write access": ("commit", {"status": 403}, "may not write"),
    "too many requests": ("commit", {"status": 429, "Retry_After": "30"}, "again in 30 seconds"),
    "too many for long": ("preupload", {"status": 429, "Retry_After": "30", "times": 6}, "again in 30 seconds"),
    "error at commit": ("commit", {"status": 500}, "failed with status 500 (of the test)"),
    "connection lost at commit": ("commit", {}, "connection to the Hub broke"),
    "connection lost in the upload": ("upload", {"times": 6}, "connection to the Hub broke"),
    "storage fails": ("upload", {"status": 503, "times": 6}, "failed with status 503"),
    "someone else commits": ("commit", {"status": 412}, "has changed during the upload"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_nothing_half_and_the_next_try_succeeds(name, folder, hub, mistake):
    route, options, message = FAULTS[name]
    hub.fail(route, **options)
    before = state(folder)
    printed = mistake("-m modeling_clir.push", folder, "someone/clir-bertlong")
    assert message in printed and "nothing was committed" in printed and "hf_ours" not in printed
    assert commits(hub) == 0 and state(folder) == before
    push(folder, "someone/clir-bertlong")
    assert commits(hub) == 1 and state(folder) == before
    assert hub.files("someone/clir-bertlong").keys() == files_to_push(folder).keys()


@pytest.mark.parametrize(
    "options", [{}, {"status": 503}, {"status": 429, "Retry_After": "1"}], ids=["lost", "503", "429"]
)
def test_a_fault_that_passes_is_waited_for(options, folder, hub):
    hub.fail("upload", times=2, **options)
    push(folder, "someone/clir-bertlong")
    assert commits(hub) == 1 and hub.calls.count("upload") == 3


def test_a_tag_that_fails_is_made_by_the_next_try(folder, hub):
    hub.fail("tag", status=500)
    with pytest.raises(ValueError, match=r"the files are committed \(\w{8}\), their tag is not"):
        push(folder, "someone/clir-bertlong")
    push(folder, "someone/clir-bertlong")
    assert commits(hub) == 1 and len(hub.repositories["model", "someone/clir-bertlong"].tags) == 1


def test_tokens(folder, hub, mistake, monkeypatch):
    for token, message in (
        ("", "there is no token"),
        ("hf_unknown", "does not accept the token"),
        ("hf_reads", "only reads"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        assert message in mistake("-m modeling_clir.push", folder, "someone/clir-bertlong")
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    assert "does not belong to other" in mistake("-m modeling_clir.push", folder, "other/clir-bertlong")
    assert "no name of a repository" in mistake("-m modeling_clir.push", folder, "a/b/c")
    assert not hub.repositories


def test_a_name_that_is_taken(folder, corpus, hub, mistake):
    files = {"config.json": (json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode(), False)}
    for name, content in (("bert", files), ("notes", {"notes.txt": (b"", False)})):
        hub.repositories["model", f"someone/{name}"] = repository = Repository()
        repository.commit(content, "main")
    hub.repositories["dataset", "someone/corpus"] = repository = Repository()
    repository.commit({"train.csv": (b"", False)}, "main")
    printed = mistake("-m modeling_clir.push", folder, "someone/bert")
    assert "taken: it holds another model (bert BertModel)" in printed
    assert "files that are no checkpoint" in mistake("-m modeling_clir.push", folder, "someone/notes")
    assert "another data set" in mistake("-m modeling_clir.push", corpus, "someone/corpus", "--dataset")
    assert all(len(one.commits) == 2 for one in hub.repositories.values())
    push(folder, "someone/other-name")
    assert commits(hub, "someone/other-name") == 1


def test_the_hub_refuses_the_card(folder, hub, mistake):
    write(folder / "README.md", "---", "base_model: a/b/c", "---", "# clir-bertlong")
    assert '"base_model" must be names of the Hub' in mistake("-m modeling_clir.push", folder, "someone/x")
    assert commits(hub, "someone/x") == 0


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


WRONG_MODELS = {
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json: it has a model of each fold"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights, model.safetensors"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), "model.safetensors is damaged"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
    "a shard is missing": (
        lambda f: write(f / "model.safetensors.index.json", {"weight_map": {"a": "model-1.safetensors"}}),
        "has no weights, model-1.safetensors",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer_config.json").unlink(), "has no tokenizer"),
    "no code": (lambda f: (f / "modeling_bertlong.py").unlink(), "has no modeling_bertlong.py"),
    "a part of the code": (lambda f: (f / "layout_bertlong.py").unlink(), "has no layout_bertlong.py"),
    "no card": (lambda f: (f / "README.md").unlink(), "has no card"),
    "a card without metadata": (lambda f: write(f / "README.md", "# model"), "is no card"),
    "a card of broken metadata": (lambda f: write(f / "README.md", "---", "a: [", "---", ""), "is not YAML"),
    "a language": (lambda f: write(f / "README.md", "---", "language: simple", "---", ""), "the language simple"),
    "a license": (lambda f: write(f / "README.md", "---", "license: MIT", "---", ""), "the license 'MIT'"),
    "one of two licenses": (lambda f: write(f / "README.md", "---", "license: [mit, none]", "---", ""), "'none'"),
    "nothing": (shutil.rmtree, "there is no"),
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_a_checkpoint_that_is_not_finished_is_refused(name, folder, hub, mistake):
    change, message = WRONG_MODELS[name]
    change(folder)
    assert message in mistake("-m modeling_clir.push", folder, "someone/clir-bertlong")
    assert not hub.calls


def test_a_corpus_that_is_not_finished_is_refused(corpus, folder, hub, mistake):
    assert "add --dataset" in mistake("-m modeling_clir.push", corpus, "someone/corpus")
    assert "leave out --dataset" in mistake("-m modeling_clir.push", folder, "someone/corpus", "--dataset")
    cut(next(corpus.rglob("*.parquet")))
    assert "parquet is cut" in mistake("-m modeling_clir.push", corpus, "someone/corpus", "--dataset")
    shutil.rmtree(corpus / "pairs")
    assert "it has no pairs" in mistake("-m modeling_clir.push", corpus, "someone/corpus", "--dataset")
    assert not hub.calls


def test_offline(folder, hub, mistake, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in mistake("-m modeling_clir.push", folder, "someone/clir-bertlong")


# ---------------------------------------------------------------------------------------------------------------------
# Loaded back
# ---------------------------------------------------------------------------------------------------------------------


# Run without the module `site`, which makes an editable install of the package importable.
LOAD = """
import importlib.util, json, sys, torch
assert importlib.util.find_spec("modeling_clir") is None
from transformers import AutoModel, AutoTokenizer
name, revision = sys.argv[1:]
options = {"trust_remote_code": True, "revision": revision}
model, tokenizer = AutoModel.from_pretrained(name, **options).eval(), AutoTokenizer.from_pretrained(name, **options)
assert type(model).__module__.startswith("transformers_modules"), type(model)
with torch.no_grad():
    state = model(**tokenizer("wer entdeckte", "marie curie", return_tensors="pt")).last_hidden_state
print(json.dumps([type(model).__name__, type(tokenizer).__name__, state.sum().item()]))
"""


def test_a_pushed_model_opens_by_its_name_without_the_package(folder, tokenizer, hub, tmp_path):
    model = build(BertLongForXLRetrieval, max_position_embeddings=64, vocab_size=len(tokenizer)).float()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    url = push(folder, "someone/clir-bertlong")
    commit = url.rsplit("/", 1)[1]
    changed = build(BertLongForXLRetrieval, seed=1, max_position_embeddings=64, vocab_size=len(tokenizer)).float()
    changed.save_pretrained(folder)
    push(folder, "someone/clir-bertlong")  # the name now stands for other weights, the commit does not
    environment = os.environ | {"PYTHONPATH": sysconfig.get_path("purelib")}
    command = [sys.executable, "-S", "-c", LOAD, "someone/clir-bertlong", commit]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    name, of_tokenizer, total = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        expected = model.base_model(**tokenizer("wer entdeckte", "marie curie", return_tensors="pt"))[0].sum()
    assert name == "BertLongModel" and "Bert" in of_tokenizer
    assert total == pytest.approx(expected.item(), rel=1e-4)


def test_the_command_alone(folder, hub):
    command = [sys.executable, "-m", "modeling_clir.push", str(folder), "someone/clir-bertlong"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(f"{hub.endpoint}/someone/clir-bertlong/commit/")


def test_the_server_answers_the_clients_other_questions(folder, hub):
    """The routes that no upload uses, by the official client."""
    push(folder, "someone/clir-bertlong")
    api = HfApi()
    refs = api.list_repo_refs("someone/clir-bertlong")
    assert [branch.name for branch in refs.branches] == ["main"] and len(refs.tags) == 1
    tree = {entry.path for entry in api.list_repo_tree("someone/clir-bertlong")}
    assert {"xquad", "config.json"} <= tree and "xquad/context-de.question-en.json" not in tree
    [weights] = api.get_paths_info("someone/clir-bertlong", ["model.safetensors"])
    assert weights.lfs.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert ModelCard.load("someone/clir-bertlong").data.license == "apache-2.0"
    hub.users["hf_others"] = User("else")
    with pytest.raises(ValueError, match="belong"):
        push(folder, "someone/clir-bertlong", token="hf_others")
