"""Many files of one kind -> the rows of one array: in threads, once, with a tally of bad ones."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from fusion_keras import terminal
from fusion_keras.data.cache import cached_array, content_key
from fusion_keras.data.paths import file_digest
from fusion_keras.data.records import SkipLog
from fusion_keras.errors import UsageError

_AT_ONCE = 64
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
) -> tuple[np.ndarray, np.ndarray]:
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
      ([N, *row] memory map, with zeros where a file is unusable, or there is none;
       bool [N], False where a file is unusable)

    Raises:
      UsageError: an unusable file and no log, or the cache folder cannot be written.
    """

    def attempt(path: Path | None) -> np.ndarray | BadFile | float:
        try:
            return 0.0 if path is None else decode(path)
        except BadFile as error:
            return error

    def build(notes: dict) -> Iterator[np.ndarray]:
        reasons = notes["unusable"] = {}
        start = 0
        for results in in_threads(attempt, paths, f"decoding {kind}s"):
            rows = np.zeros((len(results), *row), dtype)
            for place, result in enumerate(results):
                if isinstance(result, BadFile):
                    reasons[str(start + place)] = str(result)
                else:
                    rows[place] = result
            yield rows
            start += len(results)

    key = content_key(*method, digests(paths))
    array, notes = cached_array(folder, key, (len(paths), *row), dtype, build)

    usable = np.ones(len(paths), bool)
    for place, reason in notes["unusable"].items():
        index = int(place)
        usable[index] = False
        sentence = f"{kind} {paths[index]}: {reason}"
        if skips is None:
            raise UsageError(f"got {sentence}, wanted a readable {kind}; fix or remove it.")
        skips.add(origins[index] if origins else skips.source, sentence)
    return array, usable


def digests(paths: Sequence[Path | None]) -> list[str]:
    """What a cache knows each file by; "" where there is none."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: "" if path is None else file_digest(path), paths))


def in_threads(work: Callable, items: Sequence, label: str) -> Iterator[list]:
    """Yields what `work` makes of the items, in order and piece by piece; its errors end it.

    Args:
      label: what the line of progress says, on stderr, where an entry shows progress.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = len(items) <= _PROGRESS_FROM or terminal.console().quiet
    with (
        Progress(*columns, console=Console(stderr=True), disable=hidden) as progress,
        ThreadPoolExecutor() as pool,
    ):
        task = progress.add_task(label, total=len(items))
        for start in range(0, len(items), _AT_ONCE):
            results = list(pool.map(work, items[start : start + _AT_ONCE]))
            yield results
            progress.advance(task, len(results))
