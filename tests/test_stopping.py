"""Signals: noted at first, ending at once the second time, and left to the parent in the workers of a data loader."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader

from modeling_clir.data.pairs import batches_by_length
from modeling_clir.stopping import STOPPED, leave_signals_to_parent, signals

from .conftest import REPOSITORY


PROGRAM = """
import sys, time
from modeling_clir import stopping
from modeling_clir.stopping import signals
stopping.ONE_SIGNAL = 1
signals.listen()
print("listens", flush=True)
while not (signals.wanted() and "once" in sys.argv):
    time.sleep(0.01)
signals.stop_together()
"""


def start(*arguments) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=REPOSITORY, **pipes)
    assert process.stdout.readline() == "listens\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_at_the_next_step_and_says_so(number):
    process = start("once")
    process.send_signal(number)
    printed = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == STOPPED
    assert printed[0].startswith(f"{number.name}: stops at the next step") and printed[1].startswith("stopped by a")


def test_a_second_sigterm_stops_at_once():
    process = start("never")
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):  # of a cluster and of a launcher
        process.send_signal(number)
        time.sleep(0.1)
    assert process.poll() is None
    time.sleep(1)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM


def test_batches_end_early_and_the_process_with_them():
    signals.listen()
    seen = []
    with pytest.raises(SystemExit) as stopped:
        for batch in batches_by_length(np.ones(10, int), 1, "x", "row", False, distributed=True):
            seen.append(batch)
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == STOPPED and len(seen) == 3


class Items:
    def __getitem__(self, index):
        time.sleep(0.05)
        return os.getpid()

    def __len__(self):
        return 40


def start_worker(worker: int):
    leave_signals_to_parent()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_leave_signals_to_their_parent(context):
    signals.listen()
    options = {"worker_init_fn": start_worker, "multiprocessing_context": context, "persistent_workers": True}
    batches = iter(DataLoader(Items(), num_workers=1, **options))
    worker = psutil.Process(int(next(batches)))
    for name in ("TERM", "USR1", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert [int(next(batches)) for _ in range(20)] == [worker.pid] * 20
    worker.terminate()  # by the parent
    assert worker.wait(10) == 0
    assert signals.noted is None
