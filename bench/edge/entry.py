"""How a command ends, and how it shows that it goes on."""

from __future__ import annotations

import functools
import logging
import math
import os
import select
import sys
import time
from collections.abc import Callable

from bench.edge.errors import BenchError

Main = Callable[[list[str]], int]
# Its level is what the flags --quiet, --json and --verbose say; none is that of neither.
_log = logging.getLogger("bench")
# Stdout is for the answer, progress goes on.
JSON = (logging.INFO + logging.WARNING) // 2


def ends(interrupted: str = "Interrupted.", *, install: str = "") -> Callable[[Main], Main]:
    """Decorate a `main(arguments) -> exit code`: it ends in a sentence, not in a traceback.

    Exit codes: 1 nobody reads the output any more, 2 the user can fix it, 130 interrupted.

    Args:
        interrupted: what is said after Ctrl-C; a `KeyboardInterrupt` with a message of its own
            goes before.
        install: what to do where a library is missing; without it, that is no mistake of the
            user's.
    """

    def decorate(main: Main) -> Main:
        @functools.wraps(main)
        def ended(arguments: list[str]) -> int:
            try:
                return _until_nobody_reads(main, arguments)
            except BenchError as error:
                return _said(f"error: {error}", 2)
            except ImportError as error:
                if not install:
                    raise
                return _said(f"error: {error}: {install}", 2)
            except KeyboardInterrupt as error:
                # A line that shows progress may stand there.
                return _said(f"\n{str(error) or interrupted}", 130)

        return ended

    return decorate


def _until_nobody_reads(main: Main, arguments: list[str]) -> int:
    """What `main` returns, or quietly 1 where what reads stdout has gone: `| head`.

    As Python's documentation of `signal` advises (Note on SIGPIPE): what is left to write, and is
    written when Python ends, goes nowhere.
    """
    try:
        try:
            return main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise  # another pipe, to a process of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has gone."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False  # no file
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _said(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


def _shows(level: int) -> bool:
    return (_log.level or logging.INFO) <= level


def tell(line: str) -> None:
    """A line on how it goes on, among the results; with --quiet or --json there is none."""
    if _shows(logging.INFO):
        print(line, flush=True)


def detail(line: str) -> None:
    """A line that is shown with --verbose alone."""
    if _shows(logging.DEBUG):
        print(line, file=sys.stderr, flush=True)


class Progress:
    """On a terminal, a line that the next one replaces; in a log, a line every ten seconds."""

    def __init__(self):
        self.last = -math.inf

    def __call__(self, line: str) -> None:
        if not _shows(JSON):
            return
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif line and time.monotonic() > self.last + 10:
            print(line, file=sys.stderr, flush=True)
            self.last = time.monotonic()
