"""Several processes give the numbers of one."""

import json

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from modeling_clir.training.options import check_options
from modeling_clir.training.training_arguments import XLRetrievalTrainingArguments

from ..conftest import REPOSITORY
from ..helpers import WORDS, write
from .helpers import corpus_of_words
from .in_processes import CASES, main, start


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Words and corpus, and what one process finds."""
    folder = tmp_path_factory.mktemp("processes")
    words = write(folder / "vocab.txt", "\n".join(WORDS) + "\n")
    corpus = corpus_of_words(folder / "corpus", 19)
    threads = torch.get_num_threads()
    (folder / "one").mkdir()
    main(str(words), corpus, str(folder / "one"))
    torch.set_num_threads(threads)
    return words, corpus, torch.load(folder / "one/found.pt")


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_training_and_evaluation_equal_one_process(processes, data, tmp_path):
    words, corpus, expected = data
    start(processes, words, corpus, tmp_path)
    found = torch.load(tmp_path / "found.pt")
    for case in CASES:
        torch.testing.assert_close(found[case]["weights"], expected[case]["weights"], atol=1e-5, rtol=0, msg=case)
        assert found[case]["measures"] == pytest.approx(expected[case]["measures"], abs=1e-5), case
    moved = (expected["plain"]["weights"] - expected["tokens"]["weights"]).abs().max()
    assert moved > 1e-3  # the cases train


def environment_of(recipe: str) -> dict[str, str]:
    """Returns what `accelerate launch` sets for one of recipes/accelerate."""
    command = ["--config_file", str(REPOSITORY / f"recipes/accelerate/{recipe}.yaml"), "run_pretraining.py"]
    options, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    found = prepare_multi_gpu_env(options)
    return {name: value for name, value in found.items() if name.startswith(("FSDP_", "ACCELERATE_"))}


def test_a_sharded_pretraining_equals_one_process(data, tmp_path):
    words, corpus, expected = data
    start(2, words, corpus, tmp_path, ["plain", "accumulated", "adam", "resumed"], **environment_of("fsdp2"))
    found = torch.load(tmp_path / "found.pt")
    for case in ("plain", "accumulated"):
        torch.testing.assert_close(found[case]["weights"], expected[case]["weights"], atol=1e-5, rtol=0, msg=case)
        assert found[case]["measures"] == pytest.approx(expected[case]["measures"], abs=1e-5), case
    torch.testing.assert_close(found["resumed"]["weights"], found["adam"]["weights"], atol=1e-6, rtol=0)
    names = {path.name for path in (tmp_path / "plain").glob("*.py")}
    assert "modeling_bertlong.py" in names and not any("fsdp" in name for name in names)
    config = json.loads((tmp_path / "plain/config.json").read_text(encoding="utf-8"))
    assert config["auto_map"]["AutoModelForPreTraining"] == "modeling_bertlong.BertLongForXLRetrieval"


@pytest.mark.parametrize(("recipe", "processes"), [("ddp", 8), ("nodes", 16), ("fsdp2", 8)])
def test_recipes_of_accelerate(recipe, processes, tmp_path, monkeypatch):
    found = environment_of(recipe)
    assert ("ACCELERATE_USE_FSDP" in found) == (recipe == "fsdp2")
    path = REPOSITORY / f"recipes/accelerate/{recipe}.yaml"
    assert load_config_from_file(str(path)).num_processes == processes
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    args = XLRetrievalTrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)
    if recipe == "fsdp2":
        with pytest.raises(ValueError, match=r"FSDP is refused: run_clir\.py trains on whole models"):
            check_options(args, "run_clir.py")
        monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
        with pytest.raises(ValueError, match="FSDP_STATE_DICT_TYPE SHARDED_STATE_DICT is refused, it must be FULL_ST"):
            XLRetrievalTrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)
