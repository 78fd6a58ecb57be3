"""What was read of a table, kept in the cache: column by column, as long as nothing has changed.

An entry is a file of lines, each a JSON value: first the sha256 of the others, then a column each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.cache import content_key, remove_stale
from fusion_keras.data.paths import Files
from fusion_keras.data.records import Records, SkipLog
from fusion_keras.files import whole

# Raise it when the same table shall give other records.
VERSION = 2
_PATHS = ("image", "audio")


def kept_records(
    folder: Path, parts: Sequence, root: Path, read: Callable[[Files], Records]
) -> Records:
    """The records that `read` gives, or that it gave before.

    Args:
      folder: the cache folder. Where it cannot be written nothing is kept.
      parts: all that decides, beside the files that the table names, as JSON types.
      root: the table's folder.
      read: looks for files through what it is given.

    Raises:
      UsageError: what `read` raises; nothing of that is kept.
    """
    root = root.resolve()
    path = folder / f"{content_key('records', VERSION, str(root), *parts)}.columns"
    columns = _columns(path)
    if columns is not None and Files(root).are_as(columns["files"]):
        return _records(columns)
    del columns
    files = Files(root)
    records = read(files)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        with whole(path, contested=True) as partial:
            _write(partial, _lines(records, files))
    except OSError:  # what needs the cache says so
        pass
    return records


def _columns(path: Path) -> dict | None:
    """Name -> column of an entry that is whole, else None."""
    try:
        digest = hashlib.sha256()
        columns = {}
        with path.open("rb") as file:
            told = file.readline().decode().strip()
            for line in file:
                digest.update(line)
                name, value = json.loads(line)
                columns[name] = value
    except (OSError, ValueError, TypeError):
        return None
    return columns if digest.hexdigest() == told else None


def _write(path: Path, lines: Iterator[bytes]) -> None:
    digest = hashlib.sha256()
    with path.open("xb") as file:
        file.write(b"0" * 64 + b"\n")
        for line in lines:
            digest.update(line)
            file.write(line)
        file.seek(0)
        file.write(digest.hexdigest().encode())


def _lines(records: Records, files: Files) -> Iterator[bytes]:
    for name, value in _contents(records, files):
        yield json.dumps([name, value]).encode() + b"\n"


def _contents(records: Records, files: Files) -> Iterator[tuple[str, object]]:
    yield "files", files.looked_for()
    yield (
        "about",
        {
            "name": records.name,
            "classes": records.classes,
            "notes": records.notes,
            "modalities": list(records.raw),
            "label_type": records.labels.dtype.str,
            "skips": vars(records.skips),
        },
    )
    for name in ("ids", "splits", "groups", "origins"):
        yield name, getattr(records, name)
    yield "labels", records.labels.tolist()
    yield "scores", None if records.scores is None else records.scores.tolist()
    for modality, values in records.raw.items():
        if modality in _PATHS:
            place = {path: n for n, path in enumerate(dict.fromkeys(values))}
            values = [
                [None if path is None else str(path) for path in place],
                [place[path] for path in values],
            ]
        yield f"raw {modality}", values


def _records(columns: dict) -> Records:
    about, raw = columns["about"], {}
    for modality in about["modalities"]:
        values = columns.pop(f"raw {modality}")
        if modality in _PATHS:
            distinct = [None if path is None else Path(path) for path in values[0]]
            values = [distinct[n] for n in values[1]]
        raw[modality] = values
    scores = columns["scores"]
    return Records(
        name=about["name"],
        ids=columns["ids"],
        splits=columns["splits"],
        raw=raw,
        labels=np.array(columns["labels"], about["label_type"]),
        classes=tuple(about["classes"]),
        scores=None if scores is None else np.array(scores, np.float32),
        groups=columns["groups"],
        notes=tuple(about["notes"]),
        origins=columns["origins"],
        skips=SkipLog(**about["skips"]),
    )
