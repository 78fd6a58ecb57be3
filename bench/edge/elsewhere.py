"""`--device=ssh://...`: the same command on another machine. What does so does not travel."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
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
        needs: module that it needs there besides -> what `pip install` calls it.
        words: of its command line there, besides the flags that are the same.
        left_out: flags that are among the words, or are of this machine alone.
        sends: name there -> file here.
        gone: names there of files that are not here.
        ours: how names there are called here.
        stdin: a file here.
        edit: (file, what makes our names of theirs) changes a file that has come.
    """

    command: str
    called: str
    runners: Sequence[str]
    artifacts: Sequence[Path] = ()
    writes: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    updates: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    fills: str = ""
    needs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    words: Sequence[str] = ()
    left_out: Sequence[str] = ()
    sends: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    gone: Sequence[str] = ()
    ours: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stdin: Path | None = None
    edit: Callable[[Path, Callable[[str], str]], None] | None = None


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
    return remote("session").run(wanted, options)


def remote(module: str):
    """A module of the other room, where there is one.

    Raises:
        BenchError: there is none.
    """
    try:
        return importlib.import_module(f"bench.remote.{module}")
    except ModuleNotFoundError:
        raise BenchError(
            "--device is for a machine with the whole repository, this is a device's copy: leave "
            "it out."
        ) from None
