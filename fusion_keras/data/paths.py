"""Paths out of a data file: they stay inside their folder, or the run ends. Files' digests."""

from __future__ import annotations

import errno
from pathlib import Path, PureWindowsPath

from fusion_keras.errors import UsageError
from fusion_keras.files import digest


def inside(root: Path, relative: str, where: str) -> Path:
    """The path of `relative` under `root`, links followed; the file need not exist.

    A data file may come from anyone, so that no row of it may make the program read elsewhere:
    this is never a row to skip.

    Raises:
      UsageError: the path is another machine's, or leaves `root`, by itself, through ".." or
        through a link; `where`
        (file and line) tells the user which row says so.
    """
    root = root.resolve()
    windows = PureWindowsPath(relative)
    target = None
    # An absolute path of this machine may lie inside.
    if Path(relative).is_absolute() or not (windows.drive or windows.root):
        target = _followed(root / relative)
    if target is None or not target.is_relative_to(root):
        raise UsageError(
            f"got the path {relative!r} in {where}, wanted one that stays inside {root}; put "
            "the file there and name it relative to that folder."
        )
    return target


def _followed(path: Path) -> Path | None:
    """Where links lead; None in a loop of them, of which Python tells up to 3.12 only unless
    it is strict."""
    try:
        return path.resolve(strict=True)
    except RuntimeError:  # a loop, up to 3.12
        return None
    except OSError as error:  # what does not exist is for the reader of the file to tell
        return None if error.errno == errno.ELOOP else path.resolve()


def is_file(path: Path) -> bool:
    """Whether a readable path leads to a file; False also for a name no file can have."""
    try:
        return path.is_file()
    except OSError:  # for example a name longer than the file system allows
        return False


class Files:
    """The files that a table names: each is looked for once, however many rows name it."""

    def __init__(self, root: Path):
        self._root = root.resolve()
        self._paths: dict[str, Path] = {}
        self._found: dict[Path, bool] = {}

    def path(self, relative: str, where: str) -> Path:
        """See `inside`."""
        path = self._paths.get(relative)
        if path is None:
            path = self._paths[relative] = inside(self._root, relative, where)
        return path

    def has(self, path: Path) -> bool:
        """See `is_file`."""
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = is_file(path)
        return found


def file_digest(path: Path) -> str:
    """sha256 of a file's content, or why it cannot be read: what a cache knows it by."""
    try:
        # Only a regular file: opening a pipe would wait for ever.
        return digest(path) if is_file(path) else "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
