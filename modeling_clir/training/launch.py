"""Starting the processes of a distributed run on CPUs."""

import os
import sys

import psutil
from accelerate.commands.launch import launch_command_parser


def start_all_processes():
    """
    `accelerate launch --cpu --num_processes N` starts a single process unless it is given an MPI host file. This makes
    N of it, by `torch.distributed.run`, and does nothing in any other case. Called first in a runner.
    """
    alone = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ  # what accelerate leaves for N > 1
    if not alone or os.environ.get("ACCELERATE_USE_CPU", "").lower() != "true" or "PMI_SIZE" in os.environ:
        return
    command = psutil.Process(os.getppid()).cmdline()
    number = None
    if any("accelerate" in part for part in command):
        start = next(i for i, part in enumerate(command) if "accelerate" in part) + 1
        options = [part for part in command[start:] if part != "launch"]
        number = launch_command_parser().parse_known_args(options)[0].num_processes
    if number is None:
        raise ValueError(
            "accelerate launch --cpu started one process: pass it --num_processes, or use torchrun --nproc_per_node N"
        )
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    os.execv(sys.executable, [sys.executable, *launcher, *sys.argv])


__all__ = ["start_all_processes"]
