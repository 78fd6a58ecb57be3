"""What is made once for all of pytest's workers, and which cases are quick tests."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest


def session_folder(base: Path) -> Path:
    """The folder that all workers of a session share.

    Args:
        base: pytest's base folder for temporary files, which a worker has inside the session's.
    """
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder` as `make` leaves it; whoever comes second waits for the first.

    A maker that fails leaves what it made for inspection; the next one tries again beside it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.done")
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


def slow_but(quick: Iterable, cases: Iterable) -> list:
    """Cases for `parametrize`, all of them slow tests but the quick ones."""
    quick, marked = list(quick), []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if case in quick else pytest.mark.slow))
    return marked
