"""Arrays kept on disk under the hash of what they are computed from.

An entry is two files: `<key>.npy` and `<key>.json`, which holds the array's sha256 and the
builder's notes. Each is written under a temporary name and renamed, the JSON last, so that
an entry is whole or absent. The key hashes content and never names or dates, so two
processes that build one entry at once write equal bytes, and whichever renames last changes
nothing. Every file may be deleted at any time: a memory map that is open stays valid, and
the next reader builds again.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.files import UNFINISHED, digest, whole

# Raise it when the same inputs shall give other arrays: a change in how images are decoded
# or texts tokenised. Entries of older versions are then no longer found.
VERSION = 1

_STALE_SECONDS = 24 * 3600


def cache_dir(configured: str = "") -> Path:
    """The cache folder: `configured`, else $FUSION_KERAS_CACHE, else ~/.cache/fusion_keras."""
    chosen = configured or os.environ.get("FUSION_KERAS_CACHE") or "~/.cache/fusion_keras"
    return Path(chosen).expanduser()


def content_key(*parts: object) -> str:
    """sha256 over JSON-able `parts` and the code version: the name of a cache entry."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()


def cached_array(
    folder: Path,
    key: str,
    shape: tuple[int, ...],
    dtype: np.dtype | type,
    build: Callable[[dict], Iterable[np.ndarray]],
) -> tuple[np.ndarray, dict]:
    """The array of `key`, built if it is absent or damaged.

    Args:
      folder: the cache folder; made if missing.
      key: from `content_key`.
      shape, dtype: of the whole array, known beforehand.
      build: given a dict that it may fill with JSON-able notes, yields the array's rows in
        order, in pieces [k, *shape[1:]]; so the whole never has to fit into memory.

    Returns:
      (read-only memory map of `shape`, the builder's notes)

    Raises:
      UsageError: the folder cannot be written, or is full.
    """
    entry = _read(folder, key, shape, dtype)
    if entry is not None:
        return entry
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        notes: dict = {}
        with whole(folder / f"{key}.npy", contested=True) as partial:
            _write_rows(partial, shape, dtype, build(notes))
            sha256 = digest(partial)
            # Mapped before it has its name, under which it may be deleted at once.
            array = _mapped(partial, sha256)
        with whole(folder / f"{key}.json", contested=True) as partial:
            partial.write_text(json.dumps({"sha256": sha256, "notes": notes}), encoding="utf-8")
        # Through JSON, so that the first reader gets what every later one gets.
        return array, json.loads(json.dumps(notes))
    except OSError as error:
        needed = np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize / 2**20
        raise UsageError(
            f"got '{error.strerror or error}' from the cache folder {folder}, wanted a writable "
            f"folder with {needed:.0f} MB free; free that space, or set data.cache_dir or "
            "FUSION_KERAS_CACHE to another folder."
        ) from error


def _read(
    folder: Path, key: str, shape: tuple[int, ...], dtype: np.dtype | type
) -> tuple[np.ndarray, dict] | None:
    """The entry if it is whole, else None: then it is built again."""
    try:
        entry = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        if digest(folder / f"{key}.npy") != entry["sha256"]:
            return None
        array = _mapped(folder / f"{key}.npy", entry["sha256"])
        notes = entry["notes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (array, notes) if array.shape == shape and array.dtype == dtype else None


def _mapped(path: Path, sha256: str) -> np.memmap:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    array.sha256 = sha256
    return array


def known_digest(array: np.ndarray) -> str:
    """What tells an array of the cache, with its shape and type, from others: the sha256 of its
    file, compared when it was opened. "" of any other array, parts and views of one of the cache
    among them: numpy does not hand attributes on to those."""
    return getattr(array, "sha256", "")


def _write_rows(
    path: Path, shape: tuple[int, ...], dtype: np.dtype | type, pieces: Iterable[np.ndarray]
):
    """Writes the .npy file piece by piece.

    Not through a writable memory map: on a full disk that kills the process with SIGBUS,
    where `write` raises an error that can be told.
    """
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    rows = 0
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype=dtype).data)
            rows += len(piece)
    if rows != shape[0]:
        raise ValueError(f"built {rows} rows of {shape[0]}")


def remove(folder: Path, key: str) -> None:
    """Removes an entry that is of no use any more, if it is there."""
    for suffix in (".json", ".npy"):
        with contextlib.suppress(OSError):
            (folder / f"{key}{suffix}").unlink()


def remove_stale(folder: Path):
    """Removes what killed processes left; younger files may belong to a living one."""
    for path in folder.glob(f"*{UNFINISHED}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()
