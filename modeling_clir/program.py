"""
Starts every program of the project, and reports a mistake of the user in one line.

Imports nothing heavy, and sets the environment variables that torch reads when it is imported.
"""

import argparse
import errno
import json
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .names import missing_path, nearest


PROJECT = Path(__file__).resolve().parents[1]
WRONG_COMMAND = 2  # exit code
FULL = (errno.ENOSPC, errno.EDQUOT)
CANNOT_SAVE = 74  # exit code, EX_IOERR of sysexits.h
INTERRUPTED = 128 + signal.SIGINT  # exit code, as of a shell
WAIT_FOR_FIRST = 10  # seconds
# Of libraries, beside ImportError, OSError and ValueError: a file, a configuration or the Hub cannot be read.
LIBRARY_ERRORS = {"ArrowException", "HTTPError", "SafetensorError", "StrictDataclassError", "UnpicklingError"}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `ValueError` for a mistake and names the nearest flag, not all flags."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        self.check_flags(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def unknown_flags(self, argv: list[str]) -> list[str]:
        """Returns the flags in `argv` that are neither a flag of this parser nor the beginning of one."""
        flags = [part.split("=", 1)[0] for part in argv if part.startswith("--") and part != "--"]
        return [flag for flag in flags if not any(known.startswith(flag) for known in self._option_string_actions)]

    def nearest_flag(self, flag: str) -> str:
        return nearest(flag, self._option_string_actions)

    def check_flags(self, argv: list[str]):
        """Raises `ValueError` for an unknown flag, before argparse asks for missing flags."""
        if unknown := self.unknown_flags(argv):
            raise ValueError(f"there is no option {unknown[0]}{self.nearest_flag(unknown[0]) or '; see --help'}")

    def error(self, message: str):
        raise ValueError(message)


def cpu_quota(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """
    Returns the smallest CPU quota of this process, in cores; `None` without a quota. Reads the process's control
    group, of version 1 or 2, and all groups above it.
    """
    quotas = []
    for line in own.read_text(encoding="utf-8").splitlines() if own.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / "cpu" if controllers else groups
        group = root / path.lstrip("/")  # in a container this folder may be missing; then `root` has the limits
        for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            if all((folder / name).is_file() for name in files):
                quota, period = " ".join((folder / name).read_text(encoding="utf-8") for name in files).split()
                quotas += [int(quota) / int(period)] if quota not in ("max", "-1") else []
    return min(quotas, default=None)


def share_cores():
    """
    Makes this program a fair neighbour of others on the same machine; call it before torch is imported.

    - Idle threads sleep. Threads that spin take the cores from other programs; a program that has the machine for
      itself is faster with `OMP_WAIT_POLICY=ACTIVE`.
    - With a CPU quota, as in a container, there are only as many threads as the quota gives cores. OpenMP itself
      counts the cores of the affinity mask.
    - JAX, which bm25s uses where it is installed, takes GPU memory as it needs it. By default it takes three quarters
      of a GPU at once.

    Environment variables that the user has set stay.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    quota = cpu_quota()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if quota is not None and quota < cores:
        os.environ.setdefault("OMP_NUM_THREADS", str(math.ceil(quota)))


def fix_rounding(cpuinfo: Path = Path("/proc/cpuinfo")):
    """
    Makes MKL round a matrix product in the same way whatever the number of threads and the addresses of the matrices;
    call it before torch multiplies. MKL offers this for one set of instructions at a time (`MKL_CBWR`): AVX-512 if the
    processor has it, else AVX2. A setting that the processor lacks would be ignored by MKL, and with it the rounding.
    Without `cpuinfo` (not Linux) it is AVX2. A `MKL_CBWR` that the user has set stays.
    """
    flags = cpuinfo.read_text(encoding="utf-8").split() if cpuinfo.exists() else ()
    os.environ.setdefault("MKL_CBWR", "AVX512,STRICT" if "avx512f" in flags else "AVX2,STRICT")


def run_program(main: Callable[[], object]):
    """
    Calls `main`. For a mistake of the user it prints one line, `error: ...`, to stderr and exits with code 2, for a
    full disk with code 74; after Ctrl+C it prints `interrupted` and exits with code 130. At a debug level of the log the
    traceback comes first. If there are several processes, the first one prints the line.

    A mistake is an `ImportError`, `OSError`, `ValueError` or one of `LIBRARY_ERRORS`. An error from inside a library
    while a model is trained is not a mistake in the command and keeps its traceback.
    """
    try:
        main()
    except KeyboardInterrupt:
        if debugging():
            traceback.print_exc()
        if not int(os.environ.get("RANK", 0)):
            print("interrupted", file=sys.stderr, flush=True)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        full = getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error)
        if not full and not is_mistake(error):
            raise
        if debugging():
            traceback.print_exc()
        fail(describe(error), CANNOT_SAVE if full else WRONG_COMMAND)


def is_mistake(error: Exception) -> bool:
    if not isinstance(error, (ImportError, OSError, ValueError)):
        return any(kind.__name__ in LIBRARY_ERRORS for kind in type(error).__mro__)
    frames = traceback.extract_tb(error.__traceback__)
    ours = Path(frames[-1].filename).is_relative_to(PROJECT) and "site-packages" not in frames[-1].filename
    training = any(frame.name == "_run_epoch" for frame in frames)
    return ours or isinstance(error, OSError) or not training


def debugging() -> bool:
    level = os.environ.get("TRANSFORMERS_VERBOSITY", "").lower()
    return logging.getLogger(__package__).getEffectiveLevel() <= logging.DEBUG or level in ("debug", "detail")


def describe(error: Exception) -> str:
    """Describes an error in one line. An error of the operating system names its file."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        message = missing_path(os.fsdecode(error.filename))
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{os.fsdecode(error.filename)}: {error.strerror[0].lower()}{error.strerror[1:]}"
    else:
        message = str(error) or type(error).__name__
    return " ".join(message.split())


def fail(message: str, code: int):
    """
    Ends this process with a message. A process that is not the first waits, so that the launcher can end it if the
    first process fails too. After the wait it prints its own message.
    """
    rank = int(os.environ.get("RANK", 0))
    if rank:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a training only notes it
        time.sleep(WAIT_FOR_FIRST)
        message = f"process {rank}: {message}"
    print(f"error: {message}", file=sys.stderr, flush=True)
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torchrun prints it at the end of its own report
        facts = {"message": f"error: {message}", "timestamp": int(time.time())}
        Path(report).write_text(json.dumps(facts), encoding="utf-8")
    stop = SystemExit(f"error: {message}")
    stop.code = code
    raise stop


__all__ = ["CANNOT_SAVE", "Parser", "fix_rounding", "run_program", "share_cores"]
