"""How a command ends, and how it shows that it goes on."""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable

from bench.edge.errors import BenchError

Main = Callable[[list[str]], int]


def ends(interrupted: str = "Interrupted.", *, install: str = "") -> Callable[[Main], Main]:
    """Decorate a `main(arguments) -> exit code`: it ends in a sentence, not in a traceback.

    Exit codes: 2 the user can fix it, 130 interrupted.

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
                return main(arguments)
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


def _said(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


class Progress:
    """On a terminal, a line that the next one replaces; in a log, a line every ten seconds."""

    def __init__(self):
        self.last = -math.inf

    def __call__(self, line: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif line and time.monotonic() > self.last + 10:
            print(line, file=sys.stderr, flush=True)
            self.last = time.monotonic()
