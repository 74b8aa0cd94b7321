"""A tiny random BERT, and the sample corpus as the runners read it. Both are made once per test process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modeling_clir.program import fix_rounding
from modeling_clir.stopping import SIGNALS, signals

from .helpers import run_here


REPOSITORY = Path(__file__).resolve().parents[1]
os.environ["HF_HUB_OFFLINE"] = "1"
fix_rounding()  # as run_clir.py, which may run in this process


def run(*command, processes: int = 1, check: bool = True) -> subprocess.CompletedProcess:
    """Runs one of the project's programs as a user would, with one thread per process."""
    launcher = [sys.executable]
    if processes > 1:
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    del environment["MKL_CBWR"]  # a user's is not set
    done = subprocess.run(
        [*launcher, *map(str, command)], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300
    )
    if check and done.returncode:
        raise AssertionError(f"{command} exited with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done


def kill_when(command: list[str], folder: Path, pattern: str, seconds: float = 300):
    """Starts one of the project's programs; kills it when `folder` has a file of this name or `seconds` are over."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *command], cwd=REPOSITORY, env=environment, **quiet)
    end = time.monotonic() + seconds
    while process.poll() is None and not list(folder.glob(pattern)) and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended by itself"
    assert list(folder.glob(pattern)), f"no {pattern} in {seconds} s"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """Saves checkpoint and tokenizer of a random BERT: 32 wide, 2 layers, no dropout."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertTokenizerFast

    from modeling_clir import BertForXLRetrieval

    folder = tmp_path_factory.mktemp("tiny") / "bert"
    folder.mkdir()
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train([str(path) for path in sorted((REPOSITORY / "sample/train").glob("*.jsonl"))], vocab_size=800)
    trainer.save_model(str(folder))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True, model_max_length=128)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        num_labels=1,
    )
    BertForXLRetrieval(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dropout_bert(tiny_bert, tmp_path_factory) -> Path:
    """Saves the tiny BERT with dropout: random draws must be the same after a kill, too."""
    folder = tmp_path_factory.mktemp("dropout") / "bert"
    folder.mkdir()
    for path in tiny_bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """Makes a BERT tokenizer with so few words that a test can tell where they are cut."""
    from transformers import BertTokenizerFast

    from .helpers import WORDS

    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(path), do_lower_case=True)


@pytest.fixture
def call(monkeypatch):
    """Calls the `main` of a runner with a command line, on one thread as the processes of `run`."""
    import torch

    def call_main(runner, command):
        monkeypatch.setattr(sys, "argv", command)
        runner.main()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield call_main
    torch.set_num_threads(threads)


@pytest.fixture
def mistake(monkeypatch, capsys):
    """Runs a program that must exit with code 2 and print one line, `error: ...`. Returns the line."""

    def run_mistake(program, *options) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_here(monkeypatch, program, *options)
        printed = capsys.readouterr().err
        last = printed.strip().splitlines()[-1]
        assert stopped.value.code == 2 and last.startswith("error: ") and "Traceback" not in printed, printed[-2000:]
        return last

    return run_mistake


@pytest.fixture(autouse=True)
def handlers_of_signals():
    """Makes the process handle signals as before, after a runner or test that listens to them."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    signals.listening, signals.noted, signals.training = False, None, False


@pytest.fixture(autouse=True)
def cache_of_datasets(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets")


@pytest.fixture
def at_hub(monkeypatch, tmp_path):
    """
    Starts a Hub on loopback with the user `someone`, for this process and those that it starts: its address, an empty
    cache, a token. Xet, the other protocol of uploads, is off.
    """
    import huggingface_hub.constants as constants
    import huggingface_hub.hf_api
    from huggingface_hub.utils._http import close_session

    from .hub_server import HubServer

    close_session()  # one that was opened offline stays offline
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)  # code of checkpoints in another folder
    monkeypatch.syspath_prepend(tmp_path / "modules")
    with HubServer() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.endpoint)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # remembers the address
        monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_ours", "HF_HOME": str(tmp_path / "home")}
        for name, value in (environment | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}).items():
            monkeypatch.setenv(name, value)
        yield hub
    close_session()


@pytest.fixture(scope="session")
def sample_corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "corpus"
    languages = ("--languages", "en,de,fr,es", "--validation_fraction", "0.1", "--same_language")
    run("scripts/build_corpus.py", folder, *languages, "--documents", "sample/train")
    return folder


@pytest.fixture(scope="session")
def sample_collection(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    run("scripts/build_collections.py", folder, "--pairs", "en-de,de-en", "--documents", "sample/test")
    return folder
