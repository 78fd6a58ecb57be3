"""What an example is given as: a file, the bytes of one, or an array."""

from __future__ import annotations

import os
from pathlib import Path

from bench.edge.errors import InputError


def require_file(path: object, what: str) -> Path:
    """`path`, which is one of a file.

    Raises:
        InputError: it is no path, or no file is there.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"The {what} is a {type(path).__name__}: give a file, bytes or an array.")
    try:
        if Path(path).is_file():
            return Path(path)
        found = "a folder" if Path(path).is_dir() else "not there"
    except (OSError, ValueError):  # a name that no file can have
        found = "not there"
    raise InputError(f"The {what} {path} is {found}: give the path of a file.")


def called(given: object) -> str:
    """How an example is named in a sentence: by its path, where it has one."""
    return "" if isinstance(given, bytes) else f" {given}"
