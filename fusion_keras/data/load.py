"""One call from `config.data` to a `Dataset`: a source's records, split, read, fingerprinted."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from fusion_keras.data.cache import cache_dir, cached_array, content_key
from fusion_keras.data.demo import make_demo
from fusion_keras.data.incomplete import of_use, presence
from fusion_keras.data.kept import kept_records
from fusion_keras.data.leaks import (
    GROUP_BY,
    check_group_by,
    content_keys,
    contradictions,
    find_leaks,
    grouped,
    uneven_note,
)
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.media import digests
from fusion_keras.data.mosi import read_mosi
from fusion_keras.data.odd_classes import class_notes
from fusion_keras.data.picked import Picked
from fusion_keras.data.records import Dataset, Reader, Reading, Records
from fusion_keras.data.splits import assign_splits, check_records
from fusion_keras.errors import UsageError

_ROWS_AT_ONCE = 256

# The demo is drawn at the size that is wanted, within these pixels: a face has no more to
# show above, and drawing 1600 of them at 224 takes 13 seconds.
_DEMO_EDGES = (16, 96)
_DEMO_LOOK = 100


class DataConfig(Protocol):
    """The fields of `config.data` that are read here, and nowhere else in this package."""

    source: str  # one of SOURCES
    name: str  # what the data set is called; "" for the source's own name
    path: str  # the manifest or the MOSI label file; `data.digit_set` reads digits
    max_length: int  # tokens per text, with [CLS] and [SEP]
    max_skipped: float  # the share of rows that may be unusable
    split_fractions: tuple[float, float, float]  # train, valid, test, where the source has none
    split_seed: int
    group_by: str  # one of leaks.GROUP_BY
    label_kind: str  # "single" or "multi"
    label_separator: str  # what stands between the labels of a cell
    cache_dir: str  # "" for the default
    manifest: Any  # the sections of one source each: its columns and `classes`
    mosi: Any  # raw_dir and frames_dir, "" for none
    demo: Any  # size, noise and seed


def load_dataset(
    data: DataConfig,
    readers: Mapping[str, Reader] = MappingProxyType({}),
    keep_incomplete: bool = False,
) -> Dataset:
    """Reads the configured source and makes it ready to train on.

    Only what is asked for is made. The split is assigned before anything is read, so that an
    unusable file moves no other row.

    Args:
      data: `config.data`.
      readers: modality -> what makes its input; those of files, some of which may be unusable,
        first. A manifest's image files must exist also where no reader takes them, unless
        image_column is "".
      keep_incomplete: whether rows that lack a modality are kept; all of them then are, those too
        that have nothing of what the readers take: splits do not depend on the model.

    Raises:
      UsageError: everything that the sources and readers say of bad input; an unknown source.
    """
    folder = cache_dir(data.cache_dir)
    records = SOURCES[data.source].read(data, folder, readers, keep_incomplete)
    given = records.splits is not None
    records, policy = _with_splits(records, data, folder)
    count = len(records)
    records, readings = _read_all(records, readers, folder)
    inputs = {name: reading.values for name, reading in readings.items()}
    leaks, contradicting = {}, []
    if SOURCES[data.source].repeats_mean_leaks:
        keys = content_keys(records, inputs)
        leaks = find_leaks(records, keys, lambda modality: _remedy(data, given, modality))
        contradicting = contradictions(records, keys)
    said = {name: [leak.note] for name, leak in leaks.items()}
    present = presence(records, readers)
    learned = of_use(records, present, readers)
    notes = (*learned.notes, *class_notes(learned), *contradicting)
    if records.skips:
        notes += (*filter(None, [records.skips.advice]), *records.skips.entries)
    return Dataset(
        name=data.name or records.name,
        ids=records.ids,
        splits=records.splits,
        raw=records.raw,
        inputs=inputs,
        labels=records.labels,
        classes=records.classes,
        scores=records.scores,
        groups=records.groups,
        source_notes=notes,
        notes_of={m: (*reading.notes, *said.get(m, ())) for m, reading in readings.items()},
        split_policy=policy,
        encodings={m: r.encoding for m, r in readings.items() if r.encoding is not None},
        whole=len(records) == count,
        shared={name: leak.rows for name, leak in leaks.items()},
        present=present,
        folder=folder,
    )


def check_source(
    data: DataConfig,
    readers: Mapping[str, Reader],
    scores: bool = False,
    keep_incomplete: bool = False,
) -> tuple[str, ...]:
    """Looks at the configured source as far as it takes seconds: nothing is decoded.

    Args:
      data, readers, keep_incomplete: as for `load_dataset`.
      scores: whether real-valued targets are wanted.

    Returns:
      the names of the classes.

    Raises:
      UsageError: what `load_dataset` would say of the files, the table, and what it lacks.
    """
    folder = cache_dir(data.cache_dir)
    records = SOURCES[data.source].read(data, folder, readers, keep_incomplete, look=True)
    for reader in readers.values():
        reader.require(records)
    if scores and records.scores is None:
        raise UsageError(
            f"config.regression is set, but {data.name or records.name} has no scores: name its "
            "score column, or leave regression off."
        )
    records, _ = _with_splits(records, data, None)
    return of_use(records, presence(records, readers), readers).classes


def _read_all(records: Records, readers: Mapping[str, Reader], folder: Path):
    """The records whose files are all usable, and modality -> `Reading` of them."""
    readings: dict[str, Reading] = {}
    for modality, reader in readers.items():
        reading = readings[modality] = reader.read(records, folder)
        if reading.usable is None or reading.usable.all():
            continue
        records.skips.check()
        kept = np.flatnonzero(reading.usable)
        records = check_records(records.select(kept))
        readings = {
            name: dataclasses.replace(r, values=_kept(r.values, kept, folder), usable=None)
            for name, r in readings.items()
        }
    return records, readings


def _demo(data: DataConfig, folder: Path, readers, keep: bool, look: bool = False) -> Records:
    edge = readers["image"].spec.size if "image" in readers else 0
    edge = min(max(edge, _DEMO_EDGES[0]), _DEMO_EDGES[1])
    if data.name:
        raise UsageError(
            f"got data.name={data.name!r} with source=demo, wanted no name: results on the "
            "built-in demo are always called the demo's."
        )
    size = min(data.demo.size, _DEMO_LOOK) if look else data.demo.size
    return make_demo(size, data.demo.seed, data.demo.noise, edge)


def _manifest(data: DataConfig, folder: Path, readers, keep: bool, look: bool = False) -> Records:
    path = _path(data)
    settings = {
        "numbers": readers["tabular"].numbers if "tabular" in readers else (),
        "categories": readers["tabular"].categories if "tabular" in readers else (),
        "max_skipped": data.max_skipped,
        "label_kind": data.label_kind,
        "label_separator": data.label_separator,
        "keep_incomplete": keep,
        **data.manifest,
    }
    if not path.is_file():  # for the reader to tell
        return read_manifest(path, **settings)
    [digest] = digests([path], folder)
    return kept_records(
        folder,
        (path.name, digest, settings),
        path.parent,
        lambda files: read_manifest(path, files=files, **settings),
    )


def _mosi(data: DataConfig, folder: Path, readers, keep: bool, look: bool = False) -> Records:
    raw, frames = (
        Path(place).expanduser() if place else ""
        for place in (data.mosi.raw_dir, data.mosi.frames_dir)
    )
    # Text-only training does not wait for 2199 videos.
    return read_mosi(
        _path(data),
        raw_dir=raw if "image" in readers else "",
        frames_dir=frames if "image" in readers else "",
        sound_dir=raw if "audio" in readers else "",
        cache_dir=folder,
        max_skipped=data.max_skipped,
        decode=not look,
        keep_incomplete=keep,
    )


@dataclasses.dataclass(frozen=True)
class Source:
    """Where examples come from.

    Attributes:
      read: (config.data, cache folder, modality -> reader, keep_incomplete, look) -> Records, with
        what the readers take; with `look` what takes seconds: no clip is decoded, and of the demo
        few are drawn.
      reads: the fields and sections of `config.data` that it reads and not every source does.
      repeats_mean_leaks: whether content in two splits is a mistake worth a note.
    """

    read: Callable[..., Records]
    reads: tuple[str, ...]
    repeats_mean_leaks: bool = True


_OF_FILES = ("path", "max_skipped", "incomplete")
SOURCES = {
    # A grammar of few words writes many a sentence twice.
    "demo": Source(_demo, ("demo",), repeats_mean_leaks=False),
    "manifest": Source(
        _manifest,
        (
            *("manifest", *_OF_FILES, "split_fractions", "split_seed", "group_by"),
            *("label_kind", "label_separator"),
        ),
    ),
    "mosi": Source(_mosi, ("mosi", *_OF_FILES)),
}


def _path(data: DataConfig) -> Path:
    if not data.path:
        raise UsageError(f"got no data.path, wanted the file that source={data.source!r} reads.")
    return Path(data.path).expanduser()


def _with_splits(records: Records, data: DataConfig, folder: Path | None) -> tuple[Records, str]:
    """The records with a split, and one sentence on how it came about.

    Without a cache folder nothing is decoded: where images decide, the split is left open.
    """
    check_group_by(data.group_by, records, data.source)
    if records.splits is not None:
        return records, "as the source gives it; deviations from a standard are in the notes"
    kept = GROUP_BY[data.group_by]
    if "image" in kept and folder is None:
        return records, ""
    of_what = "class" if records.labels.ndim == 1 else "label"
    kind = f"stratified by {of_what}" + (", groups undivided" if records.groups else "")
    if kept:
        kind += f", rows of one {' or '.join(kept)} undivided"
        records = grouped(records, kept, folder)
    fractions = tuple(data.split_fractions)
    splits = assign_splits(records.labels, records.groups, fractions, data.split_seed)
    records = check_records(dataclasses.replace(records, splits=splits))
    if kept:
        notes = (*records.notes, *uneven_note(records, fractions))
        records = dataclasses.replace(records, notes=notes)
    return records, f"seeded: {kind}, train/valid/test {fractions}, seed {data.split_seed}"


def _remedy(data: DataConfig, given: bool, modality: str) -> str:
    """What keeps rows of the same content in one split, a clause for the note of a leak."""
    kept = GROUP_BY[data.group_by]
    if "group_by" not in SOURCES[data.source].reads or modality in kept:
        return ""
    if modality not in GROUP_BY["both"]:
        return "a group column (data.manifest.group_column) keeps rows together"
    flag = f"--config.data.group_by={'both' if kept else modality}"
    if given:
        return f"--config.data.manifest.split_column= {flag} draws a split with each in one part"
    return f"{flag} keeps each in one split"


def _kept(array: np.ndarray | Picked, kept: np.ndarray, folder: Path) -> np.ndarray | Picked:
    """Through the cache again: the rows that are kept shall be memory-mapped, too."""
    if isinstance(array, Picked):
        return array.select(kept)

    def build(notes: dict) -> Iterator[np.ndarray]:
        for start in range(0, len(kept), _ROWS_AT_ONCE):
            yield array[kept[start : start + _ROWS_AT_ONCE]]

    digest = hashlib.sha256(np.ascontiguousarray(array)).hexdigest()
    key = content_key("usable", digest, kept.tolist())
    return cached_array(folder, key, (len(kept), *array.shape[1:]), array.dtype, build)[0]
