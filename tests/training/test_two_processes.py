"""Two processes stay together if one of them has a loss that is not finite, or cannot write."""

import os
import subprocess
import sys

import pytest

from ..conftest import REPOSITORY


pytestmark = pytest.mark.slow


def torchrun(script: str, folder, *arguments) -> subprocess.CompletedProcess:
    path = folder / "script.py"
    path.write_text(script, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", path]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    command = [str(part) for part in (*command, *arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


FULL_IN_ONE = """
import errno, sys
from pathlib import Path
from accelerate import PartialState
from modeling_clir.training.checkpoints import write_together

state = PartialState(cpu=True)

def write(folder):
    (folder / f"{state.process_index}.txt").write_text("x", encoding="utf-8")

def cannot(folder):
    if state.process_index == 1:
        raise OSError(errno.ENOSPC, "No space left on device")

output, main = Path(sys.argv[1]), state.is_main_process
write_together(output, "checkpoint-1", [write], main)
write_together(output, "checkpoint-2", [write, cannot, write], main)
"""


def test_a_full_disk_of_one_process_stops_both(tmp_path):
    output = tmp_path / "out"
    done = torchrun(FULL_IN_ONE, tmp_path, output)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "checkpoint-2 cannot be written" in lines[0] and "No space left" in lines[0]
    assert "exitcode  : 74" in done.stderr
    assert [path.name for path in output.iterdir()] == ["checkpoint-1"]
    assert {path.name for path in (output / "checkpoint-1").iterdir()} == {"0.txt", "1.txt", "manifest.json"}


BAD_IN_ONE = """
import os, sys
from pathlib import Path
import torch
from transformers import BertTokenizerFast
from modeling_clir.data.collections import assign_folds
from modeling_clir.training.ranking import RankingTrainer, finetune
from tests.helpers import WORDS
from tests.training.helpers import arguments, collection, fold_of, tiny_reranker

folder, bad, rank = Path(sys.argv[1]), int(sys.argv[2]), os.environ["RANK"]
vocabulary = folder / f"vocab-{rank}.txt"
vocabulary.write_text("\\n".join(WORDS), encoding="utf-8")
task_loss = RankingTrainer.task_loss

def changed(self, model, inputs, facts):
    loss, *rest = task_loss(self, model, inputs, facts)
    if rank == "1" and self.state.global_step + 1 in (2, 3):
        print("IDS", *facts.ids, flush=True)
        loss = loss * torch.nan
    return loss, *rest

RankingTrainer.task_loss = changed
one = collection("en-de", 10)
assign_folds([one], 0)
options = {"per_device_train_batch_size": 1, "max_bad_batches": bad, "max_steps": 5, "ddp_backend": "gloo"}
reranker = tiny_reranker(BertTokenizerFast(str(vocabulary), do_lower_case=True))
finetune(reranker, fold_of(one), [one], arguments(folder / "out", **options))
assert all(parameter.isfinite().all() for parameter in reranker.model.parameters())
print("FINITE", flush=True)
"""


@pytest.mark.parametrize("bad", [2, 1])
def test_a_bad_loss_of_one_process_is_left_out_by_both(bad, tmp_path):
    done = torchrun(BAD_IN_ONE, tmp_path, tmp_path, bad)
    ids = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("IDS")]
    assert len(ids) == 2
    for step, (query, document) in enumerate(ids, 2):
        assert (
            done.stderr.count(f"step {step} has no finite loss or gradient: rr en-de {query} {document}: loss nan")
            == 1
        )
    if bad == 2:
        assert done.returncode == 0 and done.stdout.count("FINITE") == 2, done.stderr[-3000:]
    else:
        assert "FINITE" not in done.stdout and "exitcode  : 70" in done.stderr, done.stderr[-3000:]
        assert "more than --max_bad_batches 1" in done.stderr
