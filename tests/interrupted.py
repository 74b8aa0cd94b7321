"""Runs a program again and again, and interrupts it each time, until it is left to end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from modeling_clir.stopping import STOPPED
from modeling_clir.training.checkpoints import PARTIAL, damage, is_checkpoint

from .conftest import REPOSITORY, run


LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes"]


def start(command: list[str], processes: int = 1) -> subprocess.Popen:
    """Starts one of the project's programs as a user would, with one thread per process, in a session of its own."""
    launcher = [sys.executable] if processes == 1 else [*LAUNCH, str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    del environment["MKL_CBWR"]  # a user's is not set
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    return subprocess.Popen([*launcher, *map(str, command)], cwd=REPOSITORY, env=environment, **pipes)


def all_processes(process: subprocess.Popen) -> list[psutil.Process]:
    if process.poll() is not None:
        return []
    launched = psutil.Process(process.pid)
    return [launched, *launched.children(recursive=True)]


def rank(process: subprocess.Popen, number: int) -> psutil.Process:
    """Finds one of the training processes. The workers of its data loader have its environment."""
    return next(
        (one for one in all_processes(process) if one.environ().get("RANK") == str(number)),
        psutil.Process(process.pid),
    )


def wait_until(process: subprocess.Popen, condition, seconds: float = 200) -> bool:
    """Waits for a condition, the end of the process or the time; tells whether the process still runs."""
    end = time.monotonic() + seconds
    while process.poll() is None and not condition():
        assert time.monotonic() < end, f"nothing happened in {seconds} s"
        time.sleep(0.001)
    return process.poll() is None


def checkpoints(output: Path) -> dict[Path, int]:
    """Returns the checkpoints below a folder with the times when they were made."""
    try:
        found = [path for path in output.rglob("checkpoint-*") if is_checkpoint(path) and path.parent.name != PARTIAL]
        return {path: path.stat().st_mtime_ns for path in found}
    except FileNotFoundError:  # one was removed meanwhile
        return {}


def is_saving(output: Path) -> bool:
    try:
        return any(output.rglob(f"{PARTIAL}/*/*"))
    except FileNotFoundError:
        return False


def interrupt(
    command: list[str], output: Path, number: int, moment: random.Random, processes: int = 1, saving: bool = False
) -> bool:
    """
    Starts a program, waits for a random moment after it has written a checkpoint (`saving`: while it writes one), and
    sends a signal: SIGKILL to all processes; others to the launcher or to one process, which must then exit with
    code 75. Tells whether it was interrupted before it ended.
    """
    before, process = checkpoints(output), start(command, processes)
    family = []
    try:
        running = wait_until(process, lambda: checkpoints(output).items() - before.items())
        if running and saving:
            running = wait_until(process, lambda: is_saving(output))
        end = time.monotonic() + moment.uniform(0, 0.05 if saving else 1.5)
        if not running or not wait_until(process, lambda: time.monotonic() > end):
            return False
        family = all_processes(process)
        if number == signal.SIGKILL:
            for one in family:
                one.kill()
            process.communicate(timeout=100)
        else:
            receiver = process if moment.random() < 0.5 else rank(process, moment.randrange(processes))
            receiver.send_signal(number)
            printed = process.communicate(timeout=100)[1]  # until all processes have closed their pipe
            assert "stopped by a signal" in printed, printed[-3000:]
            if processes == 1:
                assert process.returncode == STOPPED
            elif receiver is not process:  # which accelerate launch prints
                assert f"exit status {STOPPED}" in printed, printed[-3000:]
    finally:
        for one in family or all_processes(process):
            if one.is_running():
                one.kill()
    return True


def interrupt_until_the_end(command: list[str], output: Path, numbers: list[int], seed: int, processes: int = 1):
    """
    Interrupts a program by each of the signals, every second time while it writes a checkpoint, then runs it to its
    end. After each interruption every checkpoint must be whole.
    """
    moment = random.Random(seed)
    for round, number in enumerate(numbers):
        assert interrupt(command, output, number, moment, processes, bool(round % 2)), f"ended in round {round}"
        broken = {path: damage(path) for path in checkpoints(output)}
        assert not any(broken.values()), broken
    run(*command, processes=processes)
