"""Starts the processes of a distributed run on CPUs."""

import os
import re
import sys
from pathlib import Path

from ..program import share_cores


LAUNCHER = re.compile(r"accelerate(-launch|\.commands\.\w+)?")  # a program, or a module after -m


def start_all_processes():
    """
    Starts N processes for `accelerate launch --cpu --num_processes N`, which itself starts only one unless it is given
    an MPI host file. Runs them by `torch.distributed.run`, waits for them and exits. In any other case it sets the
    threads of this process ([`share_cores`]). A runner calls it first, before torch is imported.
    """
    number = 1
    alone = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ  # accelerate leaves this for N > 1
    if alone and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "PMI_SIZE" not in os.environ:
        import psutil

        number = requested_processes(psutil.Process(os.getppid()).cmdline())
    if number == 1:
        share_cores()
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        run(parse_args(["--standalone", "--nproc_per_node", str(number), *sys.argv]))
    except ChildFailedError as error:  # the process that failed has said why
        sys.exit(error.get_first_failure()[1].exitcode)
    sys.exit()


def requested_processes(command: list[str]) -> int:
    """
    Returns the number of processes that an `accelerate launch` with this command line asks for; 1 for any other
    command.

    Raises `ValueError` for several machines, because accelerate would start a separate training on each.
    """
    at = next((i for i, part in enumerate(command) if i and LAUNCHER.fullmatch(Path(part).name)), None)
    if at is None:
        return 1
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    options = command[at + 1 :]
    options = launch_command_parser().parse_known_args(options[options[:1] == ["launch"] :])[0]
    if (options.num_machines or 1) > 1:
        raise ValueError("accelerate launch --cpu is for one machine; on several machines use torchrun")
    number = options.num_processes
    if number is None and (options.config_file or (Path(default_config_file).is_file() and not options.cpu)):
        number = load_config_from_file(options.config_file).num_processes
    return number or 1


__all__ = ["start_all_processes"]
