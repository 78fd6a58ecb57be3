"""Writing an artifact so that, at any moment, either the old or the new one is there, whole."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.edge.artifact import FORMAT, META, seal_of
from fusion_keras.errors import UsageError
from fusion_keras.files import digest

# From linux/fs.h: swap the two names in one step.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` to build in; it takes the name when the block ends well.

    What an export that was killed has left there is removed first.

    Raises:
        UsageError: the place cannot be written, `target` is something else than an artifact, or
            another process is building it.
    """
    if target.name in ("", ".."):
        raise UsageError(f"got the artifact {str(target)!r}, wanted a folder with a name.")
    # Where a link points, the artifact is; the link stays.
    target = Path(os.path.realpath(target))
    if os.path.lexists(target) and not is_artifact(target):
        raise UsageError(
            f"{target} is there and is no artifact: give --out another name, or remove it."
        )
    partial = target.with_name(f".{target.name}.exporting")
    with _sentences(partial):
        if partial.is_dir():
            with _locked(partial):
                shutil.rmtree(partial)
        partial.mkdir(parents=True)
    with _locked(partial):
        with _sentences(partial):
            _mended(target)
        try:
            yield partial
            with _sentences(partial):
                _take_name(partial, target)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            with _sentences(partial):
                raise error
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def is_artifact(folder: Path) -> bool:
    """Whether a folder's `meta.json` is one that `seal` wrote; what it names may be damaged."""
    try:
        return json.loads((folder / META).read_text())["format"].startswith(
            FORMAT.rsplit(" ", 1)[0]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextlib.contextmanager
def _sentences(folder: Path) -> Iterator[None]:
    """Turn an unwritable place or a full disk into a UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Could not write {folder}: {error.strerror or error}. Free some space or give "
            "another --out; what was exported before is intact."
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Held until the block or the process ends, however it ends."""
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another process is writing {folder}: wait for it, or give another --out."
            ) from None
        yield
    finally:
        os.close(held)


def seal(folder: Path, meta: dict) -> None:
    """Write `meta.json`, last, with the digest of every file that is there and its own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {str(path.relative_to(folder)): digest(path) for path in files}
    meta = json.loads(json.dumps({"format": FORMAT, **meta, "files": digests}))
    (folder / META).write_text(json.dumps({**meta, "seal": seal_of(meta)}, indent=1) + "\n")


def _take_name(partial: Path, target: Path) -> None:
    if not target.exists():
        partial.rename(target)
        return
    try:
        _exchange(partial, target)
    except (AttributeError, OSError):
        # A system or a file system that cannot swap: for a moment neither has the name.
        old = target.with_name(f"{target.name}.replaced")
        target.rename(old)
        partial.rename(target)
        partial = old
    shutil.rmtree(partial)


def _mended(target: Path) -> None:
    """What a kill amid `_take_name` left: the artifact before, or what was to be removed of it."""
    old = target.with_name(f"{target.name}.replaced")
    if old.is_dir() and not target.exists():
        old.rename(target)
    elif old.is_dir():
        shutil.rmtree(old)


def _exchange(a: Path, b: Path) -> None:
    """Swap two names in one step of the file system."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
