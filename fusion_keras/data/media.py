"""Many files of one kind -> the rows of one array: in threads, once, with a tally of bad ones."""

import functools
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.progress import Progress

from fusion_keras import terminal
from fusion_keras.data.cache import cached_array, content_key, remove
from fusion_keras.data.paths import file_digest
from fusion_keras.data.picked import Picked
from fusion_keras.data.records import SkipLog
from fusion_keras.errors import UsageError

_AT_ONCE = 64
# Pieces of that many that are begun before the one that is taken is done.
_AHEAD = 2
# Files of which a killed process loses at most so many.
_PIECE = 4096
# Of files that were written less than this before, digests are not kept.
_SETTLED_NS = 3 * 10**9
# Fewer files are done before a progress bar could be read.
_PROGRESS_FROM = 50


class BadFile(ValueError):
    """The file cannot be used; the message is the reason, without the path."""


def decoded(
    kind: str,
    paths: Sequence[Path | None],
    decode: Callable[[Path], np.ndarray],
    *,
    method: tuple,
    row: tuple[int, ...],
    dtype: type,
    folder: Path,
    skips: SkipLog | None = None,
    origins: Sequence[str] | None = None,
) -> tuple[np.ndarray | Picked, np.ndarray]:
    """Decodes N files, or takes them from the cache.

    Unusable files are added to `skips` with their reason, and the caller checks its limit;
    without a log the first one ends the run.

    Args:
      kind: "image" or "sound", for messages.
      paths: the files; None for a row that has none.
      decode: a file -> [*row] of `dtype`, or BadFile; works outside the GIL.
      method: all that decides, beside a file's content, what is decoded of it, as JSON types.
      folder: the cache folder.
      skips, origins: the log, and N descriptions of the rows for it ("x.csv line 7").

    Returns:
      ([N, *row] memory map, with zeros where a file is unusable, or there is none; where rows
       share files `Picked` of one, for each file is decoded and kept once;
       bool [N], False where a file is unusable)

    Raises:
      UsageError: an unusable file and no log, or the cache folder cannot be written.
    """
    distinct = list(dict.fromkeys(paths))
    shared = len(distinct) - (None in distinct) < sum(path is not None for path in paths)
    place = {path: n for n, path in enumerate(distinct)}
    kept = distinct if shared else paths
    array, reasons = _decoded_once(kind, kept, decode, method, row, dtype, folder)
    numbers = np.array([place[path] for path in paths]) if shared else np.arange(len(paths))
    values = Picked((array,), numbers) if shared else array
    usable = ~np.isin(numbers, list(reasons))
    for index in np.flatnonzero(~usable):
        sentence = f"{kind} {paths[index]}: {reasons[numbers[index]]}"
        if skips is None:
            raise UsageError(f"got {sentence}, wanted a readable {kind}; fix or remove it.")
        skips.add(origins[index] if origins else skips.source, sentence)
    return values, usable


def _decoded_once(
    kind: str,
    paths: Sequence[Path | None],
    decode: Callable[[Path], np.ndarray],
    method: tuple,
    row: tuple[int, ...],
    dtype: type,
    folder: Path,
) -> tuple[np.ndarray, dict[int, str]]:
    """-> [n, *row] of n files, and place -> reason of those that are unusable.

    Of many files each piece is an entry of the cache until the whole is one, so that a process
    that was killed goes on where it was.
    """

    def attempt(path: Path | None) -> np.ndarray | BadFile | float:
        try:
            return 0.0 if path is None else decode(path)
        except BadFile as error:
            return error

    def build(start: int, stop: int, progress: Progress, notes: dict) -> Iterator[np.ndarray]:
        reasons = notes["unusable"] = {}
        for results in _in_threads(attempt, paths[start:stop], progress):
            rows = np.zeros((len(results), *row), dtype)
            for place, result in enumerate(results):
                if isinstance(result, BadFile):
                    reasons[str(start + place)] = str(result)
                else:
                    rows[place] = result
            yield rows
            start += len(results)

    def build_all(notes: dict) -> Iterator[np.ndarray]:
        reasons = notes["unusable"] = {}
        with _progress(f"decoding {kind}s", len(paths)) as progress:
            if len(paths) <= _PIECE:
                yield from build(0, len(paths), progress, notes)
                return
            pieces = []
            for start in range(0, len(paths), _PIECE):
                stop = min(start + _PIECE, len(paths))
                pieces.append(content_key(*method, "piece", start, known[start:stop]))
                made = functools.partial(build, start, stop, progress)
                shape = (stop - start, *row)
                piece, of_piece = cached_array(folder, pieces[-1], shape, dtype, made)
                progress.update(progress.task_ids[0], completed=stop)
                reasons |= of_piece["unusable"]
                yield piece
        for piece in pieces:
            remove(folder, piece)

    known = digests(paths, folder)
    key = content_key(*method, known)
    array, notes = cached_array(folder, key, (len(paths), *row), dtype, build_all)
    return array, {int(place): reason for place, reason in notes["unusable"].items()}


def digests(paths: Sequence[Path | None], folder: Path | None = None) -> list[str]:
    """What a cache knows each file by; "" where there is none.

    Args:
      folder: of the cache, which keeps them as long as no file has changed: who writes to a file,
        or puts another in its place, changes its place on the disk or the time of its last change,
        which, unlike that of its content, nobody can set.
    """
    distinct = list(dict.fromkeys(paths))
    there = [path for path in distinct if path is not None]
    found = _kept_digests(there, folder) if folder and there else _file_digests(there)
    of_path = {None: "", **dict(zip(there, found, strict=True))}
    return [of_path[path] for path in paths]


def _file_digests(paths: Sequence[Path]) -> Iterator[str]:
    for several in in_threads(file_digest, paths, "reading files"):
        yield from several


def _kept_digests(paths: Sequence[Path], folder: Path) -> Iterable[str]:
    """`_file_digests`, from the cache folder if no file has changed since they were taken."""
    began, latest = time.time_ns(), 0
    # Of a million files their states alone would be a gigabyte.
    states = hashlib.sha256()
    try:
        for path in paths:
            s = os.stat(path)
            times = s.st_mtime_ns, s.st_ctime_ns
            states.update(repr((str(path), s.st_dev, s.st_ino, s.st_size, *times)).encode())
            latest = max(latest, s.st_ctime_ns)
    except (OSError, ValueError):
        return _file_digests(paths)
    # What is written within one tick of the clock of a file system does not show.
    if not 0 < latest < began - _SETTLED_NS:
        return _file_digests(paths)

    def build(notes: dict) -> Iterator[np.ndarray]:
        for digest in _file_digests(paths):
            yield np.frombuffer(bytes.fromhex(digest), np.uint8)[None]

    try:
        key = content_key("digests 2", states.hexdigest())
        kept, _ = cached_array(folder, key, (len(paths), 32), np.uint8, build)
    except ValueError:  # of a file that cannot be read there is no digest
        return _file_digests(paths)
    return (row.tobytes().hex() for row in np.asarray(kept))


def in_threads(work: Callable, items: Sequence, label: str) -> Iterator[list]:
    """Yields what `work` makes of the items, in order and piece by piece; its errors end it.

    Args:
      label: what the line of progress says, on stderr, where an entry shows progress.
    """
    with _progress(label, len(items)) as progress:
        yield from _in_threads(work, items, progress)


def _progress(label: str, total: int) -> Progress:
    progress = terminal.progress_bar(label, "files", rate=True)
    progress.disable = total <= _PROGRESS_FROM
    progress.add_task("", total=total)
    return progress


def _in_threads(work: Callable, items: Sequence, progress: Progress) -> Iterator[list]:
    with ThreadPoolExecutor() as pool:
        # Further pieces are begun before one is taken, so that no thread waits for the slowest.
        begun: deque[list[Future]] = deque()
        for start in range(0, len(items), _AT_ONCE):
            begun.append([pool.submit(work, item) for item in items[start : start + _AT_ONCE]])
            if len(begun) > _AHEAD:
                yield _taken(begun.popleft(), progress)
        while begun:
            yield _taken(begun.popleft(), progress)


def _taken(begun: list[Future], progress: Progress) -> list:
    results = [future.result() for future in begun]
    progress.advance(progress.task_ids[0], len(results))
    return results
