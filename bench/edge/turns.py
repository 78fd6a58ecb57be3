"""Contenders in processes of their own that take turns, all others standing still.

A contender's process runs a `serve(*arguments, pipe)`: it sends what it has to say, once when it
is ready and once for each request that it gets. An error of the user's is a sentence at the other
end, and so is anything else that it raises.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from bench.edge.errors import BenchError

_PR_SET_PDEATHSIG = 1
T = TypeVar("T")


class Lost(Exception):
    """A contender died, hangs, or said that it cannot go on; the message is its sentence."""


class Worker:
    """A contender's process, standing still except while it is asked something.

    Attributes:
        pid: of the process.
    """

    def __init__(self, serve: Callable, arguments: tuple, timeout: float | None = None):
        """Start it.

        Args:
            serve: a function of a module, called as `serve(*arguments, pipe)` in the process.
            timeout: most seconds of silence after a request; None for any.

        Raises:
            Lost: the process could not be started.
        """
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        self._pipe, self._timeout = pipe, timeout
        self._process = context.Process(target=_live, args=(serve, arguments, theirs), daemon=True)
        # Inherited: a Ctrl-C, which reaches all of a terminal's processes, is the parent's to obey.
        with interrupts_ignored():
            try:
                self._process.start()
            except OSError as error:
                raise Lost(f"its process could not be started ({error}).") from None
        theirs.close()
        self.pid = self._process.pid

    def ask(self, request):
        """Let it run until it has answered; its answer.

        Raises:
            Lost: see `answer`.
        """
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(request)
        return self.answer(self._timeout)

    def answer(self, timeout: float | None = None):
        """What it says next; then it stands still.

        Raises:
            Lost: it failed, died, or was silent for `timeout` seconds.
        """
        try:
            if not self._pipe.poll(timeout):
                raise Lost(f"it was silent for {timeout:g} s and was ended.")
            kind, content = self._pipe.recv()
        except (EOFError, OSError):  # OSError: it was killed in the middle of its answer
            raise Lost(self._how_it_died()) from None
        if kind == "failed":
            raise Lost(content)
        self._signal(signal.SIGSTOP)
        return content

    def _how_it_died(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is not None and code < 0:
            hint = ", perhaps out of memory" if code == -signal.SIGKILL else ""
            return f"its process was killed ({signal.Signals(-code).name}){hint}."
        return f"its process ended by itself (exit code {code})."

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> None:
        # Also while it stands still: SIGKILL needs nothing of it.
        self._process.kill()
        self._process.join(5)
        self._pipe.close()


def rounds(contenders: Sequence[T], seed: int) -> Iterator[tuple[int, list[T]]]:
    """Rounds without end: their number, and the contenders in an order drawn anew."""
    rng = np.random.default_rng(seed)
    for number in itertools.count():
        yield number, [contenders[i] for i in rng.permutation(len(contenders))]


@contextlib.contextmanager
def interrupts_ignored():
    """SIGINT is nothing meanwhile, for this process and those it starts."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def die_with_parent() -> None:
    """Also while stopped: a killed parent leaves nobody behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


# --- In a contender's own process -----------------------------------------------------------------


class _Answers:
    """A contender's end of the pipe."""

    def __init__(self, pipe):
        self._pipe = pipe

    def recv(self):
        return self._pipe.recv()

    def send(self, answer) -> None:
        self._pipe.send(("done", answer))


def _live(serve: Callable, arguments: tuple, pipe) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            serve(*arguments, _Answers(pipe))
        except BenchError as error:
            pipe.send(("failed", str(error)))
        except MemoryError:
            pipe.send(("failed", "the memory is not enough for it."))
        except Exception as error:  # an engine's own, of whatever kind
            said = " ".join(str(error).split())[:400]
            pipe.send(("failed", f"{type(error).__name__}: {said}"))
