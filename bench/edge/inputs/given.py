"""What an example is given as: a file, the bytes of one, or what is read already."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from bench.edge.errors import InputError


def opened(given: object, what: str) -> Path | io.BytesIO:
    """A file that is there, or the bytes of one as a file.

    Args:
        given: a path; bytes, bytearray or memoryview.
        what: it is, for the sentence.

    Raises:
        InputError: it is neither, or no file is there.
    """
    if isinstance(given, (bytes, bytearray, memoryview)):
        return io.BytesIO(given)
    return require_file(given, what)


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


def written(cell: object) -> str:
    """A cell as training has it of JSON: nothing is empty, a truth is in small letters."""
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, (bool, np.bool_)) else str(cell).strip()


def called(given: object) -> str:
    """How an example is named in a sentence: by its path, where it has one."""
    return f" {given}" if isinstance(given, (str, os.PathLike)) else ""
