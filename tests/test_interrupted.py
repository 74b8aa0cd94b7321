"""The runners, killed and signalled at random moments, end with the bytes of the uninterrupted run."""

import signal

import pytest

from .conftest import run
from .helpers import QUIET, SHORT, clir_command
from .interrupted import interrupt_until_the_end
from .test_run_mlqa import TRAIN as MLQA_TRAIN
from .test_run_mlqa import command as mlqa_command
from .test_run_mlqa import data, sources  # noqa: F401


pytestmark = pytest.mark.slow
KILL, TERM, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1
SIGNALS = [TERM, USR1, TERM, TERM, USR1]
PRETRAINING = (*QUIET, *SHORT, "--do_train", "--qlm_pairs", "en-de", "--rr_pairs", "en-de", "--learning_rate", "1e-3",
               "--max_position_embeddings", "128", "--attention_window", "16", "--per_device_train_batch_size", "2",
               "--max_steps", "300", "--save_steps", "5", "--save_total_limit", "3", "--resume_from_checkpoint", "true",
               "--dataloader_num_workers", "1", "--dataloader_persistent_workers")  # fmt: skip


@pytest.fixture(scope="module")
def pretraining(dropout_bert, sample_corpus, tmp_path_factory):
    def command(output):
        where = ("--model_name_or_path", dropout_bert, "--corpus", sample_corpus, "--output_dir", output)
        return ("run_pretraining.py", *where, *PRETRAINING)

    whole = tmp_path_factory.mktemp("whole")
    run(*command(whole), processes=2)
    return command, whole


def assert_same_files(one, other, *patterns):
    for pattern in patterns:
        names = sorted(path.relative_to(one) for path in one.glob(pattern))
        assert names and names == sorted(path.relative_to(other) for path in other.glob(pattern)), pattern
        for name in names:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("numbers", [[KILL] * 20, SIGNALS], ids=["killed", "signalled"])
def test_pretraining_on_two_processes(numbers, pretraining, tmp_path):
    command, whole = pretraining
    interrupt_until_the_end(command(tmp_path), tmp_path, numbers, 0, processes=2)
    assert_same_files(tmp_path, whole, "model.safetensors")


@pytest.mark.parametrize("numbers", [[KILL] * 5, SIGNALS], ids=["killed", "signalled"])
def test_folds_of_ranking(numbers, dropout_bert, sample_collection, tmp_path):
    flags = ("--do_train", "--num_train_epochs", "6", "--per_device_train_batch_size", "2", "--learning_rate", "1e-3")
    collections = [sample_collection / "en-de"]
    run(*clir_command(dropout_bert, collections, tmp_path / "whole", *flags))
    command = clir_command(dropout_bert, collections, tmp_path / "out", *flags)
    interrupt_until_the_end(command, tmp_path / "out", numbers, 1)
    assert_same_files(tmp_path / "out", tmp_path / "whole", "metrics.json", "en-de.run", "fold-*/model.safetensors")


@pytest.mark.parametrize("numbers", [[KILL] * 5, SIGNALS], ids=["killed", "signalled"])
def test_question_answering(numbers, dropout_bert, data, tmp_path):  # noqa: F811
    flags = (*sources(data), data / "xquad", *MLQA_TRAIN, "--num_train_epochs", "30")
    run(*mlqa_command(dropout_bert, tmp_path / "whole", *flags))
    command = mlqa_command(dropout_bert, tmp_path / "out", *flags)
    interrupt_until_the_end(command, tmp_path / "out", numbers, 2)
    assert_same_files(tmp_path / "out", tmp_path / "whole", "metrics.json", "model.safetensors", "xquad/*.json")
