"""Files: written whole or not at all, told apart by their hash, read from their end."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bench.edge.errors import BenchError

# More than the longest line of a log; a log is asked for its last line twice a second.
_TAIL = 1 << 16


def write(path: Path, content) -> None:
    """Whole or not at all.

    Args:
        path: its folder is made.
        content: text, or bytes in any form.

    Raises:
        BenchError: the place cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror or error}.") from None


def check_place(path: Path) -> None:
    """Before hours are spent on what shall be written there.

    Raises:
        BenchError: the place cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    write(partial, "")
    partial.unlink()


def digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()


def last_line(log: Path, start: str = "") -> str:
    """The last line of a log that says something; the last with this start where there is one.

    Of a progress bar, its newest state.
    """
    with log.open("rb") as file:
        file.seek(max(0, os.path.getsize(log) - _TAIL))
        text = file.read().decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    started = [line for line in lines if line.startswith(start)]
    return (started or lines or [""])[-1]
