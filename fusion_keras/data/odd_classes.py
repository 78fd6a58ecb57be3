"""What is odd about classes: names that look the same, several in one, sizes too small to learn."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from fusion_keras.data.numbering import numbered
from fusion_keras.data.records import Records, class_counts
from fusion_keras.data.table import PERHAPS_NAMES, shortened

# Nobody writes these inside a name; the others are common there ("R&B/Soul", "rock, live").
_JOINTS = (";", "|")
_JOINTS_OF_NAMES = (",", "/", "+", "&")
# Of ten test rows the share that is answered rightly is known within 30 points (95 %), and of
# ten training rows hardly more than the rows themselves is learned.
FEW_ROWS = 10
# What people write where there is nothing, and where there is something else.
_PLACEHOLDERS = ("na", "nat", "nil", "?", "-", "--", "unknown", "missing")
SHOWN = 3
# What to do about several labels in a cell: where one is wanted, and where they are split.
SPLITS_CELLS = (
    "--config.data.label_kind=multi (and label_separator) makes several labels of such a cell"
)
SEPARATES = "--config.data.label_separator says what stands between the labels of a cell"


# Whole numbers are labels also in the spelling of a float column: pandas writes 1.0 for 1
# as soon as another cell of the column is empty.
INTEGER = re.compile(r"([+-]?\d{1,18})(\.0*)?")


@dataclasses.dataclass(frozen=True)
class Column:
    """N cells, none of them empty, the lines or rows where they stand, and the file that they are
    of."""

    cells: list[str]
    lines: list[int]
    source: str

    @property
    def counts(self) -> Counter[str]:
        """Distinct cells, in the order in which they are met."""
        return Counter(self.cells)

    def first(self, cells: Iterable[str]) -> str:
        """Where the first of these stands: "line 7"."""
        wanted = set(cells)
        pairs = zip(self.cells, self.lines, strict=True)
        return numbered(self.source, next(n for c, n in pairs if c in wanted))


def name_notes(column: Column, given: bool, several: bool = False) -> list[str]:
    """What is odd about the names of classes, with counts and first lines.

    Args:
      column: of rows, each with the name of its class; with `several`, of each label of each row.
      given: whether the user has listed the names, who then means each.
      several: whether a cell may hold several labels.
    """
    notes = _alike_notes(column)
    return notes if given else [*notes, *_several_notes(column, several), *_missing_notes(column)]


def seen(name: str) -> str:
    """What is left of a name without case, without what nobody sees in it, and without what is
    written in several ways: whole numbers, dashes, apostrophes, full-width letters."""
    if number := INTEGER.fullmatch(name.strip()):
        return str(int(number[1]))
    shown = []
    for letter in unicodedata.normalize("NFKC", name):
        kind = unicodedata.category(letter)
        if kind == "Cf" or "\ufe00" <= letter <= "\ufe0f":  # zero-width, a variant's selector
            continue
        letter = "-" if kind == "Pd" or letter == "\u2212" else letter
        letter = "'" if letter in "\u2018\u2019\u02bc" else letter
        shown.append(" " if kind in ("Zs", "Zl", "Zp", "Cc") else letter)
    return unicodedata.normalize("NFC", " ".join("".join(shown).split()).casefold())


def spelt(name: str) -> str:
    """A name as it is shown beside one that may look the same."""
    decomposed = unicodedata.normalize("NFC", name) != name
    return ascii(name) if decomposed else repr(name)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that look the same, each of two or more."""
    groups = defaultdict(list)
    for name in names:
        groups[seen(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def listed(shown: list[str], every: Iterable) -> str:
    """What is shown of a longer list."""
    return "; ".join(shown) + ("; ..." if len(list(every)) > len(shown) else "")


def _alike_notes(column: Column) -> list[str]:
    counts = column.counts
    groups = alike(counts)
    if not groups:
        return []
    shown = [
        " and ".join(f"{spelt(n)} ({counts[n]} rows, first {column.first([n])})" for n in group)
        for group in groups[:SHOWN]
    ]
    return [
        f"{column.source}: {sum(map(len, groups))} classes differ only in case, in characters that "
        "are not seen, or in how a number, a dash or an apostrophe is written: "
        f"{listed(shown, groups)}; --config.data.manifest.join_classes makes "
        "one of each"
    ]


def _several_notes(column: Column, several: bool) -> list[str]:
    """Classes that look like several labels in one cell."""
    counts = column.counts
    found = _looking_joined(counts)
    if not found:
        return []
    rows = sum(counts[name] for name in found)
    first = next(cell for cell in column.cells if cell in set(found))
    remedy = SEPARATES if several else SPLITS_CELLS
    return [
        f"{column.source}: {len(found)} of {len(counts)} classes look like several labels in one "
        f"cell ({rows} rows, the first {shortened(first)!r} in {column.first(found)}); each "
        f"combination is a class of its own; {remedy}"
    ]


def joined_of(cell: str, names: Iterable[str]) -> bool:
    """Whether a cell is two or more of these names with a sign between them."""
    known = set(names)
    parts = [[p.strip() for p in cell.split(joint)] for joint in (*_JOINTS, *_JOINTS_OF_NAMES)]
    return any(len(some) > 1 and known.issuperset(some) for some in parts)


def _looking_joined(names: Iterable[str]) -> list[str]:
    names = list(names)
    found = {n for n in names if n[:1] in "[{(" and n[-1:] in "]})" and len(n) > 1}
    for joint in (*_JOINTS, *_JOINTS_OF_NAMES):
        parts = {name: {part.strip() for part in name.split(joint)} for name in names}
        homes = Counter(part for of_one in parts.values() for part in of_one)
        for name, of_one in parts.items():
            if joint not in name or len(of_one) < 2 or "" in of_one:
                continue
            if joint in _JOINTS or all(homes[part] > 1 for part in of_one):
                found.add(name)
    return [name for name in names if name in found]


def _missing_notes(column: Column) -> list[str]:
    counts = column.counts
    return [
        f"{column.source}: the class {name!r} ({counts[name]} rows, first "
        f"{column.first([name])}) may be a missing value: leave such cells empty, if it is"
        for name in counts
        if name.casefold() in (*PERHAPS_NAMES, *_PLACEHOLDERS)
    ]


def many_note(records: Records) -> str:
    """A clause where there are more classes than rows can tell of, or ""."""
    total = len(records.classes)
    if total <= FEW_ROWS or len(records) >= FEW_ROWS * total:
        return ""
    return (
        f"; {total} classes in {len(records)} rows, {len(records) / total:.1f} rows for each: is "
        "the label column one of classes?"
    )


def class_notes(records: Records) -> list[str]:
    """What is odd about the sizes of the classes of records that are split.

    Returns:
      a note where classes have fewer than FEW_ROWS rows to learn or to measure, one where fewer
      are without one of several labels, and one where more than FEW_ROWS classes have fewer on
      average: a name, an id or a sentence is no class.
    """
    source = records.skips.source if records.skips else records.name
    places = records.origins or [f"row {n}" for n in range(len(records))]
    splits = np.asarray(records.splits)
    notes = []
    total = len(records.classes)
    if many := many_note(records):
        notes.append(f"{source}: {many.removeprefix('; ')}")
    for split, purpose in (("train", "learned"), ("test", "measured")):
        rows = np.flatnonzero(splits == split)
        labels = records.labels[rows]
        counts = class_counts(labels, total)
        # That a split has none of a class is noted or refused where records are checked.
        few = np.flatnonzero((counts > 0) & (counts < FEW_ROWS))
        if len(few):
            has_few = np.isin(labels, few) if labels.ndim == 1 else labels[:, few].any(axis=1)
            shown = [f"{records.classes[c]} {counts[c]}" for c in few[:SHOWN]]
            notes.append(
                f"{source}: {len(few)} of {total} classes have fewer than {FEW_ROWS} {split} rows, "
                f"too few to be {purpose} ({listed(shown, few)}, the first in "
                f"{places[rows[has_few.argmax()]]})"
            )
        without = len(rows) - counts
        common = np.flatnonzero((counts >= FEW_ROWS) & (without < FEW_ROWS))
        if labels.ndim == 2 and len(common):
            shown = [f"{records.classes[c]} {without[c]}" for c in common[:SHOWN]]
            notes.append(
                f"{source}: fewer than {FEW_ROWS} {split} rows are without {len(common)} of "
                f"{total} labels, too few for these to be {purpose} ({listed(shown, common)})"
            )
    return notes
