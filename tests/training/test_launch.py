"""The processes of `accelerate launch --cpu`."""

import os

import psutil
import pytest

from modeling_clir.training import launch
from modeling_clir.training.launch import requested_processes, start_all_processes


SCRIPT = ["run_clir.py", "--num_processes", "9"]


@pytest.mark.parametrize(
    ("command", "number"),
    [
        (["/venv/bin/python", "/venv/bin/accelerate", "launch", "--cpu", "--num_processes", "2", *SCRIPT], 2),
        (
            [
                "/accelerate-env/bin/python",
                "/accelerate-env/bin/accelerate",
                "launch",
                "--cpu",
                "--num_processes=3",
                *SCRIPT,
            ],
            3,
        ),
        (["/accelerate/python", "-m", "accelerate.commands.launch", "--num-processes", "4", "--cpu", *SCRIPT], 4),
        (
            ["python", "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_processes", "2", *SCRIPT],
            2,
        ),
        (["python", "/bin/accelerate-launch", "--cpu", "--num_processes", "2", *SCRIPT], 2),
        (["python", "/bin/accelerate", "launch", "--cpu", *SCRIPT], 1),
        (["bash", "job.sh"], 1),
        (["/accelerate/python", "sweep.py", "--num_processes", "5"], 1),
        (["slurmstepd: [1.batch]"], 1),
    ],
)
def test_requested_processes(command, number):
    assert requested_processes(command) == number


def test_processes_of_a_configuration_file(tmp_path):
    path = tmp_path / "cpu.yaml"
    path.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: 6\nuse_cpu: true\n"
    )
    assert requested_processes(["python", "accelerate", "launch", "--config_file", str(path), *SCRIPT]) == 6


def test_several_machines_are_refused():
    command = ["python", "accelerate", "launch", "--cpu", "--num_machines", "2", "--num_processes", "4", *SCRIPT]
    with pytest.raises(ValueError, match="on several machines use torchrun"):
        requested_processes(command)


def test_a_cluster_that_sets_master_addr_does_not_stop_a_single_process(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "node-1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    shared = []
    monkeypatch.setattr(launch, "share_cores", lambda: shared.append(os.getpid()))
    for command in (["bash", "job.sh"], ["python", "accelerate", "launch", "--cpu", "run_clir.py"]):
        monkeypatch.setattr(psutil.Process, "cmdline", lambda self, command=command: command)
        start_all_processes()
    assert len(shared) == 2
