"""Starts the processes of a distributed run on CPUs, and lets signals reach all processes of a run."""

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

from ..program import share_cores
from ..stopping import SIGNALS, STOPPED, signals


LAUNCHER = re.compile(r"accelerate(-launch|\.commands\.\w+)?")  # a program, or a module after -m
SIGNAL_ON_DEATH_OF_PARENT = 1  # an option of Linux' prctl


def start_all_processes():
    """
    Starts N processes for `accelerate launch --cpu --num_processes N`, which itself starts only one unless it is given
    an MPI host file. Runs them by `torch.distributed.run`, waits for them and exits. In any other case it sets the
    threads of this process ([`share_cores`]) and listens to signals ([`Signals`]). A runner calls it first, before
    torch is imported.
    """
    if "ACCELERATE_USE_CPU" in os.environ and "LOCAL_RANK" not in os.environ:
        follow_launcher()
    number = 1
    alone = "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ  # accelerate leaves this for N > 1
    if alone and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "PMI_SIZE" not in os.environ:
        import psutil

        number = requested_processes(psutil.Process(os.getppid()).cmdline())
    if number == 1:
        share_cores()
        signals.listen()
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    def pass_on(number, frame):
        children = psutil.Process().children()
        for child in children:
            child.send_signal(number)
        if not children:
            sys.exit(STOPPED)

    for one in SIGNALS:  # torchrun itself would end the processes after 30 seconds, and lose their exit code
        signal.signal(one, pass_on)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = ["--standalone", "--nproc_per_node", str(number), "--signals_to_handle", "SIGINT,SIGHUP,SIGQUIT"]
    try:
        run(parse_args([*options, *sys.argv]))
    except ChildFailedError as error:  # the process that failed has said why
        sys.exit(error.get_first_failure()[1].exitcode)
    sys.exit()


def follow_launcher():
    """Turns the end of an `accelerate launch` of one process, which passes on no signal, into a SIGTERM (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SIGNAL_ON_DEATH_OF_PARENT, signal.SIGTERM)


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
