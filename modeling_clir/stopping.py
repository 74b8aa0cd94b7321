"""
Ends a program on SIGTERM or SIGUSR1, which a cluster sends before it takes the machine away. A signal is only noted.
The program ends where nothing is lost, on all processes together: a training after its step, with a checkpoint; ranking
and answering after a batch. Imports nothing heavy.
"""

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass


STOPPED = 75  # exit code, EX_TEMPFAIL of sysexits.h: the same command goes on
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
ONE_SIGNAL = 5  # seconds: a cluster and a launcher may both send the signal to a process


@dataclass
class Signals:
    """
    The signals that came to this process.

    Attributes:
        listening (`bool`): whether signals are noted; the same on all processes.
        noted (`str`, *optional*): name of the first signal.
        training (`bool`): whether a trainer decides where the program ends.
    """

    listening: bool = False
    noted: str | None = None
    training: bool = False
    ends_at_once_from: float = float("inf")

    def listen(self):
        """Notes signals from now on. A SIGTERM that comes 5 seconds or more after another ends the process at once."""
        self.listening, self.noted, self.ends_at_once_from = True, None, float("inf")
        for number in SIGNALS:
            signal.signal(number, self.note)

    def note(self, number: int, frame):
        if number == signal.SIGTERM and time.monotonic() >= self.ends_at_once_from:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if number == signal.SIGTERM:
            self.ends_at_once_from = min(self.ends_at_once_from, time.monotonic() + ONE_SIGNAL)
        if self.noted is None:
            self.noted = signal.Signals(number).name
            if int(os.environ.get("RANK", 0)) == 0:  # a print may interrupt a print
                os.write(2, f"{self.noted}: stops at the next step; a second SIGTERM stops at once\n".encode())

    def wanted(self) -> bool:
        """Tells whether a loop of batches should end early. [`stop_together`] must follow the loop."""
        return self.noted is not None and not self.training

    def stop_together(self):
        """Ends all processes with code 75 if a signal was noted by any of them, unless a trainer decides."""
        if self.listening and not self.training and any_process(self.noted is not None):
            stop("stopped by a signal; the same command goes on")


signals = Signals()


def any_process(flag: bool) -> bool:
    """Tells whether the flag is set on any process; all processes call this."""
    from accelerate import PartialState
    from accelerate.utils import reduce
    from torch import tensor

    state = PartialState()
    return flag if state.num_processes == 1 else bool(reduce(tensor(int(flag), device=state.device), "sum"))


def stop(message: str, code: int = STOPPED):
    """Ends this process; the first process says why."""
    if int(os.environ.get("RANK", 0)) == 0:
        print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def leave_signals_to_parent():
    """
    In a worker process of a data loader: ignores signals, because the parent needs batches until its next step and a
    cluster signals all processes of a job. A SIGTERM of the parent ends the worker. Where the sender is not known
    (macOS), every SIGTERM does.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent():
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


__all__ = ["SIGNALS", "STOPPED", "leave_signals_to_parent", "signals", "stop"]
