"""`--device=ssh://...`: the same command on another machine. What does so does not travel."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from bench.edge.errors import BenchError


def add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--device", metavar="ssh://USER@HOST[:PORT][/DIR]", help="measure there, see above")
    add("--ssh", default="ssh", help="how to call OpenSSH: --ssh='ssh -F FILE' (default ssh)")


def run(
    command: str,
    options: argparse.Namespace,
    target: Path,
    *,
    runners: Sequence[str],
    artifacts: Sequence[Path] = (),
) -> int:
    """Run `python -m <command>` with these options there; what it writes comes to `target`.

    Returns:
        Its exit code.

    Raises:
        BenchError: what hinders it, and what to do.
    """
    try:
        session = importlib.import_module("bench.remote.session")
    except ModuleNotFoundError:
        raise BenchError(
            "--device is for a machine with the whole repository, this is a device's copy: leave "
            "it out."
        ) from None
    return session.run(command, options, target, runners, artifacts)
