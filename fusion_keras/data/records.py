"""What passes between the stages of `data`: records read, then a data set to train on.

A *source* (manifest, mosi, demo) yields `Records`: texts, where the images are, labels.
Decoding and tokenising turn them into a `Dataset`. Both keep the order of the source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

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
    """

    source: str
    limit: float = MAX_SKIPPED
    total: int = 0
    entries: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if not 0 <= self.limit <= 1:
            raise UsageError(
                f"got max_skipped={self.limit}, wanted the share of rows that may be skipped, "
                "from 0 to 1; do set 0.01 for one row in a hundred."
            )

    def add(self, where: int | str, reason: str) -> None:
        """Notes one unusable row; `where` is its line in `source`, or a ready description."""
        place = f"{self.source} line {where}" if isinstance(where, int) else where
        self.entries.append(f"{place}: {reason}")

    def check(self) -> None:
        """Raises UsageError with the count and the first few rows if too many were skipped."""
        count = len(self.entries)
        if count <= self.limit * self.total:
            return
        shown = "; ".join(self.entries[:3]) + ("; ..." if count > 3 else "")
        raise UsageError(
            f"got {count} unusable of {self.total} rows in {self.source} ({shown}), wanted at most "
            f"{self.limit:.2%}; do mend these rows, or raise max_skipped."
        )


@dataclasses.dataclass(frozen=True)
class Records:
    """What a source yields before anything is decoded. N rows, in the order of the source.

    Attributes:
      name: short name of the data set, for reports.
      ids: N distinct names.
      splits: N of "train", "valid", "test"; None where the source has no split.
      texts: N texts, as they stand in the source.
      images: N paths; or uint8 [N, S, S, 3]; or None where the source has no images, which
        only a variant without images can train on.
      labels: int32 [N], indices into `classes`.
      classes: the names of the classes, in the order of their labels.
      scores: float32 [N], real-valued sentiment; None where there is none.
      groups: N names of what must not be divided between splits (a video); or None.
      notes: sentences about deviations, each with its file; skipped rows are in `skips`.
      origins: N descriptions of where the row stands ("label.csv line 7"), for messages.
      skips: the rows skipped so far, and the limit; None where no row can be skipped.
      sounds: N paths of files with a sound track; None where the source has no sound.
    """

    name: str
    ids: list[str]
    splits: list[str] | None
    texts: list[str]
    images: list[Path] | np.ndarray | None
    labels: np.ndarray
    classes: tuple[str, ...]
    scores: np.ndarray | None = None
    groups: list[str] | None = None
    notes: tuple[str, ...] = ()
    origins: list[str] | None = None
    skips: SkipLog | None = None
    sounds: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Sequence[int]) -> Records:
        """The records of the given row indices, in that order."""
        per_row = ("ids", "splits", "texts", "images", "sounds", "labels", "scores", "groups")
        changed = {}
        for field in (*per_row, "origins"):
            value = getattr(self, field)
            if isinstance(value, np.ndarray):
                changed[field] = value[np.asarray(rows, dtype=np.int64)]
            elif value is not None:
                changed[field] = [value[row] for row in rows]
        return dataclasses.replace(self, **changed)


@dataclasses.dataclass(frozen=True)
class Column:
    """[count, ...] of which only the rows that are asked for are ever made.

    For training and evaluation what a numpy array is: `column[rows]` is a batch [B, ...].
    """

    count: int
    make: Callable[[int], np.ndarray]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        """The given rows, at least one."""
        return np.stack([self.make(int(row)) for row in rows])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Ready to train on: the fields of `Records`, with every row decoded, tokenised and split.

    Attributes that differ from `Records`:
      splits: N of "train", "valid", "test"; always filled.
      images: uint8 [N, S, S, 3], memory-mapped; or None (text only).
      image_files: N paths that `images` were decoded from; None where there are none.
      audio: float32 [N, F, 64], log-mel energies in [0, 1], memory-mapped; or None.
      sounds: N paths that `audio` was decoded from; None where `audio` is.
      token_ids: int32 [N, T], [CLS] ... [SEP], padded with 0.
      notes: deviations and skipped rows, each with its file and line.
      fingerprint: sha256 over the content and the preprocessing.
      split_policy: one sentence on how the split came about.
      inputs: input name -> column [N, ...] worked out where it is read, for a source whose
        examples are drawn; images and token_ids are then None. Empty for all others.
    """

    name: str
    ids: list[str]
    splits: list[str]
    texts: list[str]
    images: np.ndarray | None
    image_files: list[Path] | None
    token_ids: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    scores: np.ndarray | None
    groups: list[str] | None
    notes: tuple[str, ...]
    fingerprint: str
    split_policy: str
    inputs: Mapping[str, Column] = dataclasses.field(default_factory=dict)
    audio: np.ndarray | None = None
    sounds: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> np.ndarray:
        """int64 [n]: the indices of the rows of one split, in order."""
        return np.flatnonzero(np.asarray(self.splits) == split)
