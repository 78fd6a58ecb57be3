"""Paths out of a data file: they stay inside their folder, or the run ends. Files' digests."""

from __future__ import annotations

import errno
import os
import stat
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
        self._folders: dict[str, str] = {}
        self._paths: dict[str, Path] = {}
        self._found: dict[Path, bool] = {}

    def path(self, relative: str, where: str) -> Path:
        """See `inside`."""
        path = self._paths.get(relative)
        if path is None:
            if near := self._near(relative, where):
                path = Path(near[0])
                self._found[path] = near[1]
            else:
                path = inside(self._root, relative, where)
            self._paths[relative] = path
        return path

    def has(self, path: Path) -> bool:
        """See `is_file`."""
        found = self._found.get(path)
        if found is None:
            found = self._found[path] = is_file(path)
        return found

    def _near(self, relative: str, where: str) -> tuple[str, bool] | None:
        """The path, and whether it is a file, where the name is a plain one of what is no link,
        else None: then only the links of its folder, which many files have in common, have to be
        followed. Of text: of a million files the paths' parts would take longest."""
        head, name = os.path.split(relative)
        if name in ("", ".", "..") or relative.startswith("/") or set(relative) & {":", "\\"}:
            return None
        if head not in self._folders:
            self._folders[head] = str(inside(self._root, head, where))
        path = os.path.join(self._folders[head], name)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return path, False
        except (OSError, ValueError):
            return None
        return None if stat.S_ISLNK(mode) else (path, stat.S_ISREG(mode))

    def _far(self, name: str) -> tuple[str, bool]:
        path = self.path(name, name)
        return str(path), self.has(path)

    def looked_for(self) -> list[list]:
        """[name in the table, path, whether it is a file] of each, as JSON types."""
        return [[name, str(path), self.has(path)] for name, path in self._paths.items()]

    def are_as(self, looked_for: list[list]) -> bool:
        """Whether each file is still where it was found, and missing where it was missing."""
        try:
            return all(
                (self._near(name, name) or self._far(name)) == (before, found)
                for name, before, found in looked_for
            )
        except UsageError:  # a link leads out of the folder by now
            return False


def file_digest(path: Path) -> str:
    """sha256 of a file's content, or why it cannot be read: what a cache knows it by."""
    try:
        # Only a regular file: opening a pipe would wait for ever.
        return digest(path) if is_file(path) else "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"
