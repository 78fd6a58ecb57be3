"""The same image, sentence or sound in two splits: found by content, counted, kept together.

A model answers rightly what it has learned by heart, so that rows of validation and test whose
content is among the training rows make both figures better than they are.

Sentences are the same if they differ in nothing but case, white space and what Unicode's NFKC takes
for one (a full-width letter, a ligature, a combined accent). Images and sounds are the same if the
model takes the same numbers of them: copies under other names, and what was saved anew without
loss. What is nearly the same (a JPEG saved once more, a crop) is not found. Rows of a table's
numbers and categories are equal by chance, and not looked at.
"""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.images import pixel_keys
from fusion_keras.data.picked import Picked, of_each
from fusion_keras.data.records import SPLITS, Records
from fusion_keras.errors import UsageError

# modality -> one of it, and several.
NOUNS = {
    "text": ("sentence", "sentences"),
    "image": ("image", "images"),
    "audio": ("sound", "sounds"),
}
# `config.data.group_by` -> by what rows are kept together.
GROUP_BY = {"": (), "image": ("image",), "text": ("text",), "both": ("image", "text")}
# Groups of a few rows fill three parts to within a point; more is due to a large one.
_UNEVEN = 0.05
# Whose content is looked for where.
_PAIRS = (("test", "train"), ("test", "valid"), ("valid", "train"))

# N of them, of one row each; None is content that there is not, and is like no other.
Keys = Sequence[Hashable | None]


@dataclasses.dataclass(frozen=True)
class Leak:
    """What of one modality is in more than one split.

    Attributes:
      rows: bool [N], whether the row's content is in another split too.
      note: a sentence with counts and the first line.
    """

    rows: np.ndarray
    note: str


def content_keys(records: Records, inputs: Mapping[str, np.ndarray]) -> dict[str, Keys]:
    """Modality -> what each row's content is known by, of what a model takes.

    Args:
      records: N rows.
      inputs: modality -> [N, ...], as the model takes it.
    """
    keys = {}
    for modality, values in inputs.items():
        if modality == "text":
            keys[modality] = sentence_keys(records.raw["text"])
        else:
            there = [content is not None for content in records.raw[modality]]
            keys[modality] = array_keys(values, there)
    return keys


def contradictions(records: Records, keys: Mapping[str, Keys]) -> list[str]:
    """A note where rows that are the same in all that a model takes have other labels.

    No model can answer all of them rightly.
    """
    if not keys:
        return []
    rows = _joined([_codes(column) for column in keys.values()])
    distinct, labels = np.unique(records.labels, axis=0, return_inverse=True)
    labels, there = labels.reshape(-1), rows >= 0
    pairs = np.unique(rows[there] * len(distinct) + labels[there])
    of_row = pairs // len(distinct)
    unlike = np.flatnonzero(there & (np.bincount(of_row, minlength=len(rows))[rows] > 1))
    if not len(unlike):
        return []
    places = records.origins or [f"row {n}" for n in range(len(records))]
    first = unlike[0]
    second = unlike[(rows[unlike] == rows[first]) & (labels[unlike] != labels[first])][0]
    source = records.skips.source if records.skips else records.name
    what = " and ".join(NOUNS.get(m, (m,))[0] for m in keys)
    return [
        f"{source}: {len(unlike)} rows have the same {what} as another row and another label, the "
        f"first {places[first]} and {places[second]}: no model can be right in both"
    ]


def find_leaks(
    records: Records, keys: Mapping[str, Keys], remedy: Callable[[str], str]
) -> dict[str, Leak]:
    """What the splits share of each modality that a model takes.

    Args:
      records: N rows, split.
      keys: see `content_keys`.
      remedy: a modality -> what the user can do about it, a clause; "" where there is nothing.

    Returns:
      modality -> leak, of those that are in more than one split.
    """
    leaks = {}
    for modality in (m for m in NOUNS if m in keys):
        codes = _codes(keys[modality])
        homes = _homes(codes, records.splits)
        rows = _divided(codes, homes)
        if rows.any():
            note = _note(modality, codes, homes, records, remedy(modality))
            leaks[modality] = Leak(rows, note)
    return leaks


def sentence_keys(texts: Sequence[str | None]) -> list[str | None]:
    """What is left of each sentence without case, white space and compatible forms."""
    return [None if text is None else _plain(text) or None for text in texts]


def _plain(text: str) -> str:
    if text.isascii():  # of which nothing is composed
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def array_keys(
    values: np.ndarray | Picked, there: Sequence[bool] | None = None
) -> list[bytes | None]:
    """A digest of each row of [N, ...]; None where nothing is there."""
    there = np.ones(len(values), bool) if there is None else np.asarray(there, bool)
    return of_each(values, there, lambda row: hashlib.blake2b(row, digest_size=16).digest())


def _codes(keys: Keys) -> np.ndarray:
    """int64 [N]: the number of each key, in the order in which they are met; -1 for None."""
    numbers: dict[Hashable | None, int] = dict.fromkeys(keys, 0)
    numbers.pop(None, None)
    for number, key in enumerate(numbers):
        numbers[key] = number
    numbers[None] = -1
    return np.fromiter(map(numbers.__getitem__, keys), np.int64, len(keys))


def _joined(columns: Sequence[np.ndarray]) -> np.ndarray:
    """int64 [N]: a number for each combination of codes; -1 where all are."""
    joined = columns[0]
    for codes in columns[1:]:
        pairs = (joined + 1) * (codes.max() + 2) + codes + 1
        numbers = np.unique(pairs, return_inverse=True)[1].reshape(-1)
        joined = np.where(pairs == 0, -1, numbers)
    return joined


def _homes(codes: np.ndarray, splits: Sequence[str]) -> np.ndarray:
    """bool [K, 3]: whether each of K contents is in each of SPLITS."""
    homes = np.zeros((codes.max() + 1, len(SPLITS)), bool)
    names = np.asarray(splits)
    for place, split in enumerate(SPLITS):
        homes[codes[(names == split) & (codes >= 0)], place] = True
    return homes


def _divided(codes: np.ndarray, homes: np.ndarray) -> np.ndarray:
    """bool [N]: whether a row's content is in another split too."""
    divided = np.zeros(len(codes), bool)
    divided[codes >= 0] = (homes.sum(axis=1) > 1)[codes[codes >= 0]]
    return divided


def _note(
    modality: str, codes: np.ndarray, homes: np.ndarray, records: Records, remedy: str
) -> str:
    noun = NOUNS[modality]
    divided = np.flatnonzero(homes.sum(axis=1) > 1)
    splits = np.asarray(records.splits)
    counts = []
    for split, other in _PAIRS:
        own = codes[splits == split]
        count = int(homes[own[own >= 0], SPLITS.index(other)].sum())
        if count:
            counts.append(f"{count} of {len(own)} {split} rows have one of {other}")
    its_rows = np.flatnonzero(codes == divided[0])
    home = {split: its_rows[splits[its_rows] == split] for split in SPLITS}
    places = records.origins or [f"row {n}" for n in range(len(records))]
    first = " and ".join(
        f"{places[rows[0]]} ({split})" for split, rows in home.items() if len(rows)
    )
    source = records.skips.source if records.skips else records.name
    return (
        f"{source}: {len(divided)} of {len(homes)} {noun[1]} are in more than one split: "
        f"{', '.join(counts)}; the first {noun[0]} is that of {first}"
        + (f"; {remedy}" if remedy else "")
    )


# ---- A split that divides nothing ----------------------------------------------------------


def check_group_by(chosen: str, records: Records, source: str) -> None:
    """Checks `config.data.group_by` against the records of a source.

    Raises:
      UsageError: it is none, the split is given, or the source has not what rows are grouped by.
    """
    if chosen not in GROUP_BY:
        raise UsageError(
            f'got data.group_by={chosen!r}, wanted image, text, both, or "" for neither.'
        )
    if chosen and records.splits is not None:
        raise UsageError(
            f"got data.group_by={chosen!r} and a {source} that gives the split, wanted one of "
            "them: leave group_by out (what the splits share is counted in the notes), or let a "
            "split be drawn with --config.data.manifest.split_column=."
        )
    missing = [m for m in GROUP_BY[chosen] if not records.any_of(m)]
    if missing:
        raise UsageError(
            f"got data.group_by={chosen!r} and no {missing[0]} column, wanted one: name it "
            f"(data.manifest.{missing[0]}_column), or leave group_by out."
        )


def grouped(records: Records, modalities: Sequence[str], folder: Path) -> Records:
    """The records in groups that share no image or sentence, whatever the models take.

    Rows are in one group where a chain of equal content joins them: a, whose image is b's, and c,
    whose sentence is b's. No group of before is divided. A group is called by the least of the
    names of its groups of before, or of the ids of its rows, so that the order of the rows does
    not count.

    Args:
      modalities: of "image" and "text". Images are compared at their own size, so that the split
        is the same for models that take them larger, smaller or not at all.
      folder: the cache folder.
    """
    make = {
        "text": lambda: sentence_keys(records.raw["text"]),
        "image": lambda: pixel_keys(records.raw["image"], folder),
    }
    keys = [make[modality]() for modality in modalities]
    names = records.groups or records.ids
    joined = _components([*keys, *([records.groups] if records.groups else [])], len(names))
    least: dict[int, str] = {}
    for group, name in zip(joined, names, strict=True):
        least[group] = min(name, least.get(group, name))
    return dataclasses.replace(records, groups=[least[group] for group in joined])


def _components(columns: Sequence[Keys], count: int) -> list[int]:
    """The connected component of each of `count` rows, by union and find."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for keys in columns:
        first: dict[Hashable, int] = {}
        for row, key in enumerate(keys):
            if key is not None:
                parent[root(row)] = root(first.setdefault(key, row))
    return [root(row) for row in range(count)]


def uneven_note(records: Records, fractions: Sequence[float]) -> tuple[str, ...]:
    """A note where large groups keep the splits from the shares that are wanted."""
    found = [records.splits.count(split) / len(records) for split in SPLITS]
    if max(abs(a - b) for a, b in zip(found, fractions, strict=True)) <= _UNEVEN:
        return ()
    _, sizes = np.unique(np.array(records.groups), return_counts=True)
    source = records.skips.source if records.skips else records.name
    shares = " / ".join(f"{100 * share:.0f}" for share in found)
    wanted = " / ".join(f"{100 * share:.0f}" for share in fractions)
    return (
        f"{source}: train / valid / test have {shares} % of the rows, wanted {wanted}: "
        f"{sizes.max()} of {len(records)} rows hang together by what they share",
    )
