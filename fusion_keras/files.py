"""Files: written whole or not at all, told apart by their hash, read from their end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from fusion_keras.errors import UsageError

# The end of what `whole` calls a file that several may be writing.
UNFINISHED = ".tmp"
# More than the longest line of a log.
_TAIL = 1 << 16


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or as it was; its folder is there.

    Raises:
        UsageError: the place cannot be written, or is full.
    """
    with disk_errors(path), whole(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def whole(path: Path, *, contested: bool = False) -> Iterator[Path]:
    """Where to write a file that gets its name only when the block ends without error.

    What is handed out stands beside `path` and has its suffix. It is always the same one, so
    that what a killed process left is written over.

    Args:
        path: the file; its folder is there.
        contested: several may write it at once. Each then writes a file of its own, named
            `<name>.<random>.tmp`; what killed processes left is for the caller to remove.

    Raises:
        OSError: the file cannot be renamed.
    """
    unique = f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}"
    partial = path.with_name(unique if contested else f".new.{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


@contextlib.contextmanager
def disk_errors(path: Path):
    """Turn an unwritable or full disk into a sentence.

    Raises:
        UsageError: for any OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Could not write {path}: {error.strerror or error}. Free some space or name another "
            "place; what was complete before is intact."
        ) from error


def digest_if_there(file: str) -> str:
    """sha256 of a file; "" where there is none, as of the demo's table, or none any more."""
    path = Path(file).expanduser()
    return digest(path) if path.is_file() else ""


def digest(path: Path) -> str:
    """sha256 of a file, read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def last_line(log: Path) -> str:
    """The newest line of a log that says something; of a progress bar, its newest state."""
    with log.open("rb") as file:
        file.seek(max(0, os.path.getsize(log) - _TAIL))
        lines = re.split(r"[\r\n]+", file.read().decode("utf-8", "replace"))
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
