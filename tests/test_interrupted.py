"""The runners, killed and signalled at random moments, end with the bytes of the uninterrupted run."""

import signal

import pytest

from .conftest import run
from .helpers import QUIET, SHORT, clir_command
from .interrupted import interrupt_until_the_end


pytestmark = pytest.mark.slow
KILL, TERM, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1
PRETRAINING = (*QUIET, *SHORT, "--do_train", "--qlm_pairs", "en-de", "--rr_pairs", "en-de", "--learning_rate", "1e-3",
               "--max_position_embeddings", "128", "--attention_window", "16", "--per_device_train_batch_size", "2",
               "--max_steps", "300", "--save_steps", "5", "--save_total_limit", "3", "--resume_from_checkpoint", "true")  # fmt: skip


@pytest.fixture(scope="module")
def pretraining(dropout_bert, sample_corpus, tmp_path_factory):
    def command(output):
        where = ("--model_name_or_path", dropout_bert, "--corpus", sample_corpus, "--output_dir", output)
        return ("run_pretraining.py", *where, *PRETRAINING)

    whole = tmp_path_factory.mktemp("whole")
    run(*command(whole), processes=2)
    return command, whole


@pytest.mark.parametrize("numbers", [[KILL] * 20, [TERM, USR1, TERM, TERM, USR1], [TERM]], ids=["killed", "signalled", "quick"])
def test_pretraining_on_two_processes(numbers, pretraining, tmp_path):
    command, whole = pretraining
    interrupt_until_the_end(command(tmp_path), tmp_path, numbers, 0, processes=2)
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
