"""What passes between the stages of `data`: records read, then a data set to train on.

A *source* (manifest, mosi, demo) yields `Records`: sentences, where the images are, labels.
Readers, one for each modality that a model takes, turn them into a `Dataset`. Both keep the order
of the source.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from fusion_keras.data.fingerprint import fingerprint
from fusion_keras.data.modalities import DROPS, MODALITIES
from fusion_keras.data.numbering import place
from fusion_keras.data.picked import Column, Picked
from fusion_keras.errors import UsageError

SPLITS = ("train", "valid", "test")

# One row in a hundred. The dirtiest real set at hand (3000 crawled tweets) loses none, and
# losing 1 % at random moves a test accuracy by far less than its confidence interval; a
# larger loss is hardly ever random dirt but a wrong folder or a broken copy, and then a
# trained model would be worth nothing. A set of fewer than 100 rows may therefore lose none.
MAX_SKIPPED = 0.01


@dataclasses.dataclass
class SkipLog:
    """Counts the rows of a source that cannot be used, and ends the run when too many are.

    Reading and decoding share one log, so that the limit holds for both together.

    Attributes:
      source: the file that the rows come from, as shown to the user.
      limit: the greatest share of `total` that may be skipped, in [0, 1].
      total: rows in the source, usable or not; set by the reader when it has read them all.
      entries: one sentence for each row skipped, with its file and line.
      lacking: modality -> places of the rows skipped for nothing but what their cells lack.
    """

    source: str
    limit: float = MAX_SKIPPED
    total: int = 0
    entries: list[str] = dataclasses.field(default_factory=list)
    lacking: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if not 0 <= self.limit <= 1:
            raise UsageError(
                f"got max_skipped={self.limit}, wanted the share of rows that may be skipped, "
                "from 0 to 1; set 0.01 for one row in a hundred."
            )

    def add(self, where: int | str, reason: str, lacking: Sequence[str] = ()) -> None:
        """Notes one unusable row.

        Args:
          where: its line or number in `source`, or a ready description.
          lacking: the modalities that it lacks, where it could be used with them missing.
        """
        there = place(self.source, where) if isinstance(where, int) else where
        self.entries.append(f"{there}: {reason}")
        for modality in lacking:
            self.lacking.setdefault(modality, []).append(there)

    @property
    def advice(self) -> str:
        """How rows that lack a modality can be used, a sentence; "" where none was skipped."""
        if not self.lacking:
            return ""
        counts = ", ".join(
            f"{len(places)} lack {modality} (the first in {places[0]})"
            for modality, places in self.lacking.items()
        )
        drops = " ".join(f"--config.augment.{DROPS[m]}=0.3" for m in self.lacking)
        return (
            f"of the rows that were skipped {counts}: a fused model with stand-ins learns from "
            f"such rows, --config.fusion.stand_ins {drops}; one of a modality alone leaves out "
            "those without it, --config.data.incomplete=keep"
        )

    def check(self) -> None:
        """Raises UsageError with the count and the first few rows if too many were skipped."""
        count = len(self.entries)
        if count <= self.limit * self.total:
            return
        shown = "; ".join(self.entries[:3]) + ("; ..." if count > 3 else "")
        raise UsageError(
            f"got {count} unusable of {self.total} rows in {self.source} ({shown}), wanted at most "
            f"{self.limit:.2%}; fix these rows, or raise max_skipped."
            + (f" {self.advice[0].upper()}{self.advice[1:]}." if self.advice else "")
        )


@dataclasses.dataclass(frozen=True)
class Records:
    """What a source yields before anything is decoded. N rows, in the order of the source.

    Attributes:
      name: short name of the data set, for reports.
      ids: N distinct names.
      splits: N of "train", "valid", "test"; None where the source has no split.
      raw: modality -> N of what the source has of it: "text" sentences as they stand there,
        "image" paths or, drawn, uint8 [N, S, S, 3], "audio" paths of files with a sound track,
        "tabular" dicts of column -> cell; None where the row lacks it. Without those that it has
        not; but for "text", which is None in all rows then.
      labels: int32 [N], indices into `classes`; of several labels a row uint8 [N, C], 1 for each
        that the row has.
      classes: the names of the classes, in the order of their labels.
      scores: float32 [N], real-valued sentiment; None where there is none.
      groups: N names of what must not be divided between splits (a video); or None.
      notes: sentences about deviations, each with its file; skipped rows are in `skips`.
      origins: N descriptions of where the row stands ("label.csv line 7"), for messages.
      skips: the rows skipped so far, and the limit; None where no row can be skipped.
    """

    name: str
    ids: list[str]
    splits: list[str] | None
    raw: Mapping[str, Sequence]
    labels: np.ndarray
    classes: tuple[str, ...]
    scores: np.ndarray | None = None
    groups: list[str] | None = None
    notes: tuple[str, ...] = ()
    origins: list[str] | None = None
    skips: SkipLog | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def any_of(self, modality: str) -> bool:
        """Whether any row has it."""
        values = self.raw.get(modality, ())
        return isinstance(values, np.ndarray) or any(value is not None for value in values)

    def select(self, rows: Sequence[int]) -> Records:
        """The records of the given row indices, in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        per_row = ("ids", "splits", "labels", "scores", "groups", "origins")
        changed = {field: _of_rows(getattr(self, field), rows) for field in per_row}
        changed["raw"] = {name: _of_rows(values, rows) for name, values in self.raw.items()}
        return dataclasses.replace(self, **changed)


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """int64 [C]: how many rows have each class; labels int [N], or 0 and 1 [N, C]."""
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels, minlength=classes)


def _of_rows(values: Sequence | np.ndarray | None, rows: np.ndarray):
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[rows]
    return [values[row] for row in rows]


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a reader made of all rows of a source.

    Attributes:
      values: [N, ...], a model's input; `Picked` where rows share files.
      usable: bool [N]; None where every row is.
      notes: sentences about what was cut, missing or unknown.
      encoding: what was learned from the training rows, as JSON types; None where nothing was.
    """

    values: np.ndarray | Picked
    usable: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    encoding: dict | None = None


class Reader(Protocol):
    """Makes a model's input of what a source has of one modality."""

    def require(self, records: Records) -> None:
        """Raises UsageError where the source has nothing of this modality."""

    def read(self, records: Records, folder: Path) -> Reading:
        """The input of every row.

        Args:
          records: split; those of unusable files are added to its `skips`.
          folder: the cache folder.

        Raises:
          UsageError: the source has nothing of this modality, or what it has cannot be read.
        """


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Ready to train on: the fields of `Records`, with every row read and split.

    Attributes that differ from `Records`:
      splits: N of "train", "valid", "test"; always filled.
      inputs: modality -> what a model takes of it: "text" token ids int32 [N, T], "image" uint8
        [N, S, S, 3], "audio" float32 [N, F, bands], "tabular" float32 [N, K], as far as they were
        asked for, memory-mapped where they are large; `Picked` where rows share files; of a source
        whose examples are drawn `Column`s.
      source_notes: deviations and skipped rows, each with its file and line.
      notes_of: modality -> sentences about what was cut, missing or unknown.
      split_policy: one sentence on how the split came about.
      shared: modality -> bool [N], whether what the row has of it is in another split too; of those
        modalities of which anything is (see `leaks`).
      encodings: modality -> what its reader has learned from the training rows.
      whole: whether no row was lost to a file that cannot be used.
      present: modality -> bool [N], whether the row has it, of those in `inputs` that some row
        lacks; what stands in its place there means nothing.
      drawn: of a source whose examples are drawn, its fingerprint.
      folder: the cache folder, which keeps the fingerprint of others; None for none.
    """

    name: str
    ids: list[str]
    splits: list[str]
    raw: Mapping[str, Sequence]
    inputs: Mapping[str, np.ndarray | Column | Picked]
    labels: np.ndarray
    classes: tuple[str, ...]
    scores: np.ndarray | None
    groups: list[str] | None
    source_notes: tuple[str, ...]
    split_policy: str
    notes_of: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    shared: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    encodings: Mapping[str, dict] = dataclasses.field(default_factory=dict)
    whole: bool = True
    present: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    drawn: str = ""
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def label_kind(self) -> str:
        """ "single", one label a row, or "multi", any number of them."""
        return "multi" if self.labels.ndim == 2 else "single"

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is to be said of it."""
        return self.source_notes + tuple(note for notes in self.notes_of.values() for note in notes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over all that a model can learn from; where the files lie does not count."""
        if self.drawn:
            return self.drawn
        scores = None if self.scores is None else self.scores.tolist()
        fields = [self.ids, self.splits, self.raw["text"], self.labels.tolist()]
        fields += [self.classes, self.groups, scores]
        return fingerprint(fields, self.inputs, self.present, self.folder)

    def of_one(self, modality: str) -> Dataset | None:
        """The data set as it is read for this modality alone; None where that has other rows."""
        if not self.whole:
            return None
        return dataclasses.replace(
            self,
            inputs={m: x for m, x in self.inputs.items() if m == modality},
            notes_of={m: notes for m, notes in self.notes_of.items() if m == modality},
            shared={m: rows for m, rows in self.shared.items() if m == modality},
            encodings={m: e for m, e in self.encodings.items() if m == modality},
            present={m: rows for m, rows in self.present.items() if m == modality},
        )

    def has(self, modality: str) -> np.ndarray:
        """bool [N]: which rows have this modality."""
        return self.present.get(modality, np.ones(len(self), bool))

    def lacking(self, row: int) -> str:
        """The modalities that a row lacks, with + between; "" if it is complete."""
        return "+".join(m for m in MODALITIES if m in self.present and not self.present[m][row])

    def rows(self, split: str) -> np.ndarray:
        """int64 [n]: the indices of the rows of one split, in order."""
        return np.flatnonzero(np.asarray(self.splits) == split)
