"""`--device=ssh://...`: the same command on another machine. What does so does not travel."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.edge.errors import BenchError


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a command needs there and what comes back.

    Attributes:
        command: of `python -m`.
        called: what it is, in a sentence.
        runners: that it needs there.
        artifacts: that it is given, as often as it is.
        writes: flag -> the file here that it writes.
        updates: flag -> the file here that it reads, where there is one, and writes.
        fills: a folder of its artifacts that it adds to, there and here; or "".
    """

    command: str
    called: str
    runners: Sequence[str]
    artifacts: Sequence[Path] = ()
    writes: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    updates: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    fills: str = ""


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", metavar="ssh://USER@HOST[:PORT][/DIR]", help="do it there, see above")
    add("--ssh", default="ssh", help="how to call OpenSSH: --ssh='ssh -F FILE' (default ssh)")


def run(wanted: Wanted, options: argparse.Namespace) -> int:
    """Run a command with these options there; what it writes comes here.

    Returns:
        Its exit code.

    Raises:
        BenchError: what hinders it, and what to do.
    """
    return _remote("session").run(wanted, options)


def _remote(module: str):
    try:
        return importlib.import_module(f"bench.remote.{module}")
    except ModuleNotFoundError:
        raise BenchError(
            "--device is for a machine with the whole repository, this is a device's copy: leave "
            "it out."
        ) from None
