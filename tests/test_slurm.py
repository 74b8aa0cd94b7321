"""The scripts for SLURM, on programs that behave as SLURM's do: what the tasks get, and which job starts again."""

import os
import re
import signal
import subprocess
import sys

import pytest

from .conftest import REPOSITORY, run
from .helpers import QUIET, SHORT


SCRIPTS = sorted(path.name for path in REPOSITORY.glob("scripts/slurm/*.sbatch"))

# sbatch [--option=value ...] SCRIPT ARGUMENT ...: runs the job at once, again if it was queued again. In the first run
# the signal of --signal=B: comes to the script, and to nothing else, as soon as the file {wanted} exists.
SBATCH = """#!{python}
import os, re, signal, subprocess, sys, time
from pathlib import Path
at = next(i for i, part in enumerate(sys.argv) if i and not part.startswith("--"))
text = Path(sys.argv[at]).read_text(encoding="utf-8")
options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.M))
options |= dict(part[2:].split("=") for part in sys.argv[1:at])
number, seconds = re.fullmatch(r"B:(\\w+)@(\\d+)", options["signal"]).groups()
assert "requeue" in options and options["open-mode"] == "append" and seconds == "300"
nodes = int(options["nodes"])
tasks = options.get("ntasks") or str(nodes * int(options["ntasks-per-node"]))
spool = Path("{folder}/slurm_script")
spool.write_text(text, encoding="utf-8")
environment = os.environ | {{"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_SUBMIT_DIR": os.getcwd(),
    "SLURM_NTASKS": tasks, "SLURM_CPUS_PER_TASK": options["cpus-per-task"], "FAKE_NODES": str(nodes)}}
for restart in range(3):
    job = subprocess.Popen(["bash", str(spool), *sys.argv[at + 1:]], env=environment, cwd="/")
    while restart == 0 and job.poll() is None and not list(Path("{folder}").glob("{wanted}")):
        time.sleep(0.01)
    if restart == 0 and job.poll() is None:
        job.send_signal(getattr(signal, "SIG" + number))
    code = job.wait()
    with open("{folder}/jobs", "a") as log:
        log.write(f"{{code}}\\n")
    if not Path("{folder}/queued").exists():
        sys.exit(code)
    Path("{folder}/queued").unlink()
sys.exit("it starts again and again")
"""

# srun --option COMMAND ...: a process for each task; passes USR1 on; a TERM or one bad exit kills all; the highest exit
# code.
SRUN = """#!{python}
import os, signal, subprocess, sys, time
number, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ["FAKE_NODES"])
command = [part for part in sys.argv[1:] if not part.startswith("--kill-on-bad-exit")]
tasks = []
signal.signal(signal.SIGUSR1, lambda number, frame: [task.send_signal(number) for task in tasks])
signal.signal(signal.SIGTERM, lambda number, frame: [task.kill() for task in tasks])
for k in range(number):
    assert os.environ["SRUN_CPUS_PER_TASK"] == os.environ["SLURM_CPUS_PER_TASK"]
    environment = os.environ | {{"SLURM_PROCID": str(k), "SLURM_LOCALID": str(k % (number // nodes))}}
    tasks.append(subprocess.Popen(command, env=environment))
while None in (codes := [task.poll() for task in tasks]):
    if any(codes):
        for task in tasks:
            task.kill()
    time.sleep(0.01)
sys.exit(max(128 - code if code < 0 else code for code in codes if code != -9))
"""

SCONTROL = """#!/bin/sh
[ "$1 $2" = "show hostnames" ] && echo 127.0.0.1 && echo 127.0.0.2
[ "$1 $2" = "requeue 7" ] && touch {folder}/queued
"""

# python: says what it got. exit=CODE among its arguments ends it; signal=CODE lets its first run wait for a signal.
PYTHON = """#!/bin/bash
echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $MASTER_PORT: $*" >> {folder}/tasks
for part; do
    [[ $part = exit=* ]] && exit ${{part#exit=}}
    [[ $part = signal=* ]] && trap "exit ${{part#signal=}}" USR1
done
[[ $* = *signal* && ! -e {folder}/jobs ]] || exit 0
touch {folder}/started
for _ in {{1..200}}; do sleep 0.05; done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Makes the programs. Returns a function that hands in a job and returns its exit codes and the finished process."""

    def submit(script, *arguments, wanted="nothing", python=PYTHON):
        programs = {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}
        if python is not None:
            programs["python"] = python
        (tmp_path / "bin").mkdir(exist_ok=True)
        for name, text in programs.items():
            path = tmp_path / "bin" / name
            path.write_text(text.format(python=sys.executable, folder=tmp_path, wanted=wanted), encoding="utf-8")
            path.chmod(0o755)
        path = f"{tmp_path / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        options = [part for part in map(str, arguments) if part.startswith(("--nodes", "--ntasks", "--signal"))]
        rest = [part for part in map(str, arguments) if part not in options]
        command = ["sbatch", *options, f"scripts/slurm/{script}", *rest]
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
        del environment["MKL_CBWR"]  # as `run`
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
        return [int(code) for code in (tmp_path / "jobs").read_text(encoding="utf-8").split()], done

    return submit


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_the_tasks_get(script, slurm, tmp_path):
    codes, done = slurm(script, "--output_dir", "a folder")
    assert codes == [0], done.stderr
    rows = sorted((tmp_path / "tasks").read_text(encoding="utf-8").splitlines(), key=lambda row: int(row.split()[0]))
    number = {"pretraining.sbatch": 16, "wikipedia.sbatch": 1}.get(script, 4)
    assert len(rows) == number
    for k, row in enumerate(rows):
        assert row.startswith(f"{k} {k % 8} {number} 127.0.0.1 20007: "), row
    command = rows[0].split(": ")[1]
    program, flags = {
        "pretraining.sbatch": ("run_pretraining.py", "--do_train --resume_from_checkpoint true"),
        "clir.sbatch": ("run_clir.py", "--do_train"),
        "mlqa.sbatch": ("run_mlqa.py", "--do_train"),
        "wikipedia.sbatch": ("scripts/build_wikipedia.py", "--workers 32"),
    }[script]
    assert command == f"{program} --output_dir a folder {flags}"


@pytest.mark.parametrize(
    ("argument", "codes"),
    [("exit=75", [75, 75, 75]), ("exit=2", [2]), ("exit=70", [70]), ("signal=75", [75, 0]), ("signal=0", [0]),
     ("signal", [128 + signal.SIGUSR1, 0])],
)  # fmt: skip
def test_which_jobs_start_again(argument, codes, slurm):
    found, done = slurm("mlqa.sbatch", "--ntasks-per-node=1", argument, wanted="started")
    assert found == codes, done.stderr
    assert done.stdout.count("starts again") == len(codes) - (argument != "exit=75")


def test_a_preempted_job_stops_as_at_its_end(slurm):
    codes, done = slurm("mlqa.sbatch", "--signal=B:TERM@300", "--ntasks-per-node=1", "signal=75", wanted="started")
    assert codes == [75, 0], done.stderr


def test_jobs_name_programs_and_flags_that_exist():
    for script in SCRIPTS:
        (command,) = re.findall(r"^run_tasks python (\S+)", (REPOSITORY / "scripts/slurm" / script).read_text(), re.M)
        assert (REPOSITORY / command).is_file()


@pytest.mark.slow
def test_an_interrupted_job_ends_with_the_weights_of_the_uninterrupted_run(
    slurm, dropout_bert, sample_corpus, tmp_path
):
    flags = (*QUIET, *SHORT, "--corpus", sample_corpus, "--model_name_or_path", dropout_bert, "--qlm_pairs", "en-de",
             "--rr_pairs", "en-de", "--max_position_embeddings", "128", "--attention_window", "16", "--max_steps", "60",
             "--per_device_train_batch_size", "2", "--save_steps", "10", "--output_dir")  # fmt: skip
    run("run_pretraining.py", *flags, tmp_path / "whole", "--do_train", processes=2)
    nodes = ("--nodes=2", "--ntasks-per-node=1")
    codes, done = slurm(
        "pretraining.sbatch", *nodes, *flags, tmp_path / "out", wanted="out/checkpoint-10", python=None
    )
    assert codes == [75, 0], done.stderr[-3000:]
    assert "stopped by a signal after step" in done.stderr
    names = [folder / "model.safetensors" for folder in (tmp_path / "whole", tmp_path / "out")]
    assert names[0].read_bytes() == names[1].read_bytes()
