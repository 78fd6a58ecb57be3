"""Ctrl-C and a polite kill end the process, wherever they come."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Mapping

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_STARTER = "FUSION_KERAS_STARTER"


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when the thread that started it ends, however it ends.

    For a child itself, or as `preexec_fn` in a process that runs no JAX, which warns of any fork;
    it only calls what is loaded already.

    Args:
        number: the signal; SIGKILL also ends who stands still.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def bound(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program of ours that is to end with this process; see
    `end_with_starter`."""
    return {**environment, _STARTER: str(os.getpid())}


def end_with_starter() -> None:
    """Have Linux kill this process with the one that started it, if that asked for it by `bound`.

    Else it would hold its run while the same command, typed again, or another node goes on with it.
    Every file of a run is whole at any moment.
    """
    starter = os.environ.pop(_STARTER, "")
    if starter and _LIBC is not None:
        end_with_parent(signal.SIGKILL)
        if os.getppid() != int(starter):  # it has ended before this was asked
            os.kill(os.getpid(), signal.SIGKILL)


class Interrupts:
    """A context in which no interrupt is forgotten; contexts may be nested.

    What a signal raises can be lost: Keras reads a step's loss under a bare `except: pass`
    (pythonify_logs), and that is where training waits for nearly all of its time; and Python
    drops what is raised in a callback of the garbage collector, of which JAX has one.
    """

    _depth = 0
    _pending = False

    def __enter__(self):
        if not Interrupts._depth:
            Interrupts._pending = False
        Interrupts._depth += 1
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):  # neither ignored nor the system's own
                    self.previous[number] = handler
                    signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        Interrupts._pending = True
        self.previous[number](number, frame)

    @property
    def pending(self) -> bool:
        """Whether a signal has come."""
        return Interrupts._pending

    def check(self):
        """Raise what may have been lost; call it often.

        Raises:
            KeyboardInterrupt: a signal has come.
        """
        if self.pending:
            raise KeyboardInterrupt

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        Interrupts._depth -= 1
