"""Cells of a label column -> numbered classes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from fusion_keras.data.odd_classes import (
    INTEGER,
    SEPARATES,
    SHOWN,
    SPLITS_CELLS,
    Column,
    alike,
    joined_of,
    listed,
    name_notes,
    seen,
    spelt,
)
from fusion_keras.data.table import parse_number, shortened
from fusion_keras.errors import UsageError

_SENTIMENT_ORDER = ("negative", "neutral", "non-negative", "positive")


@dataclasses.dataclass(frozen=True)
class Labels:
    """N numbered labels.

    Attributes:
      values: int32 [N], indices into `classes`; -1 for a cell that is none of them. Of several
        labels a row uint8 [N, C], 1 for each that the row has.
      classes: their names in order.
      reasons: N, why a cell, or a label in it, is none of `classes`; "" where it is one, and
        of several labels a row where the others are of use without it.
      notes: sentences with counts and first lines.
    """

    values: np.ndarray
    classes: tuple[str, ...]
    reasons: list[str]
    notes: tuple[str, ...]


def number_labels(
    cells: Sequence[str],
    lines: Sequence[int],
    source: str,
    *,
    given: tuple[str, ...] = (),
    join: bool = False,
    several: bool = False,
) -> Labels:
    """Numbers the labels of N rows.

    A cell that is literally one of the given names is that class. Whole numbers are otherwise
    names as far as names are whole numbers ("1" is "01"), else indices, if they are exactly
    0..K-1. Without given names the order is ascending for whole numbers; else negative, neutral,
    non-negative, positive if all are among these; else alphabetical.

    Args:
      cells: N, none of them empty.
      lines: N, where they stand.
      source: the file, for messages.
      given: K names in order; () takes what is found.
      join: makes one class of names that differ only in case or in characters that nobody sees,
        in the spelling that is given, or that most rows have.
      several: whether these are labels out of cells that may hold several.

    Raises:
      UsageError: a name is given twice, labels are real numbers, or numbers are no indices.
    """
    if len(set(given)) < len(given):
        raise UsageError(f"got classes {given}, wanted distinct names; remove the repetition.")
    column = Column([cell.strip() for cell in cells], list(lines), source)
    notes = []
    if join:
        column, notes = _joined(column, given)
    names, index = _given(column, given) if given else _found(column)
    values = np.array([index.get(cell, -1) for cell in column.cells], np.int32)
    unknown = {c: _why_unknown(c, names, several) for c in set(column.cells) if c not in index}
    if several:
        # What is asked for stays as it is without the others; one a row would be another label.
        others = [cell for cell in column.counts if cell in unknown and not _is_odd(cell, names)]
        notes += _others_note(column, others)
        unknown = {cell: reason for cell, reason in unknown.items() if cell not in set(others)}
    used = Column(
        [names[value] for value in values if value >= 0],
        [line for line, value in zip(column.lines, values, strict=True) if value >= 0],
        source,
    )
    notes += name_notes(used, bool(given), several)
    reasons = [unknown.get(cell, "") for cell in column.cells]
    return Labels(values, names, reasons, tuple(notes))


def _found(column: Column) -> tuple[tuple[str, ...], dict[str, int]]:
    """-> the classes that the cells are, and cell -> its class."""
    distinct = column.counts
    whole = {cell: value for cell in distinct if (value := _whole(cell)) is not None}
    if len(whole) == len(distinct):
        names = tuple(map(str, sorted(set(whole.values()))))
        return names, {cell: names.index(str(value)) for cell, value in whole.items()}
    _refuse_real(column, distinct)
    if {name.lower() for name in distinct} <= set(_SENTIMENT_ORDER):
        names = sorted(distinct, key=lambda name: (_SENTIMENT_ORDER.index(name.lower()), name))
    else:
        names = sorted(distinct)
    return tuple(names), {name: i for i, name in enumerate(names)}


def _given(column: Column, names: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, int]]:
    index = {name: i for i, name in enumerate(names)}
    distinct = column.counts
    rest = {cell: _whole(cell) for cell in distinct if cell not in index}
    numerals = {_whole(name): i for i, name in enumerate(names)}
    numerals.pop(None, None)
    if numerals:
        values = Counter(map(_whole, names))
        index |= {c: numerals[v] for c, v in rest.items() if v in numerals and values[v] == 1}
    elif rest and len(rest) == len(distinct) and None not in rest.values():
        if set(rest.values()) != set(range(len(names))):
            raise UsageError(_both_readings(column, rest, names))
        index |= rest
    if set(distinct) - index.keys():
        _refuse_real(column, distinct)
    return names, index


def _whole(cell: str) -> int | None:
    match = INTEGER.fullmatch(cell)
    return int(match[1]) if match else None


def _refuse_real(column: Column, distinct: Iterable[str]) -> None:
    """Labels that are all numbers and not all whole are no classes."""
    if any(parse_number(cell) is None for cell in distinct):
        return
    real = [cell for cell in distinct if _whole(cell) is None]
    if real:
        raise UsageError(
            f"got the label {real[0]!r} in {column.source} {column.first(real[:1])}, wanted a "
            "class name or an integer; name the column of classes as label_column, and this "
            "one as score_column."
        )


def _both_readings(column: Column, whole: dict[str, int], names: tuple[str, ...]) -> str:
    found = sorted(set(whole.values()))
    strange = [c for c, value in whole.items() if value not in range(len(names))] or list(whole)

    def reading(start: int) -> str:
        shown = [
            f"{value} is {names[value - start] if 0 <= value - start < len(names) else 'none'}"
            for value in found[: 2 * SHOWN]
        ]
        return ", ".join(shown) + (", ..." if len(found) > 2 * SHOWN else "")

    numbers = ", ".join(map(str, found[: 2 * SHOWN])) + (", ..." if found[2 * SHOWN :] else "")
    return (
        f"got the labels {numbers} ({strange[0]!r} in {column.source} "
        f"{column.first(strange[:1])}) with {len(names)} classes {', '.join(names)}: counted from "
        f"0, {reading(0)}; counted from 1, {reading(1)}; wanted names, or exactly 0 to "
        f"{len(names) - 1}; write one of these, or list the numbers themselves as classes."
    )


def _is_odd(cell: str, names: tuple[str, ...]) -> bool:
    """Whether a label that is none of these names may be meant as one or several of them."""
    return joined_of(cell, names) or any(seen(name) == seen(cell) for name in names)


def _others_note(column: Column, others: list[str]) -> list[str]:
    if not others:
        return []
    shown = [f"{shortened(o)!r} (first {column.first([o])})" for o in others[:SHOWN]]
    return [
        f"{column.source}: {sum(column.counts[o] for o in others)} labels of {len(others)} names "
        f"that are none of the classes are left out of their rows: {listed(shown, others)}"
    ]


def _why_unknown(cell: str, names: tuple[str, ...], several: bool) -> str:
    reason = f"label {shortened(cell)!r} is none of {', '.join(names)}"
    if len(names) == 1 and cell in map(str.strip, names[0].split(",")):
        written = ", ".join(repr(part.strip()) for part in names[0].split(","))
        return f'{reason}, one name: write --config.data.manifest.classes="({written})"'
    if joined_of(cell, names):
        return f"{reason}, but several of them ({SEPARATES if several else SPLITS_CELLS})"
    alike = next((name for name in names if seen(name) == seen(cell)), None)
    if alike is None:
        return reason
    return f"{reason}, but looks like {spelt(alike)} (data.manifest.join_classes joins them)"


def _joined(column: Column, given: tuple[str, ...]) -> tuple[Column, list[str]]:
    counts = column.counts
    spelling: dict[str, str] = {}
    for group in alike(dict.fromkeys([*given, *counts])):
        named = [name for name in group if name in given]
        if len(named) > 1:
            raise UsageError(
                f"got the classes {' and '.join(map(spelt, named))} with join_classes, which "
                "makes one of them; give one, or leave join_classes off."
            )
        best = named[0] if named else max(group, key=counts.__getitem__)
        spelling |= {name: best for name in group if name != best and name in counts}
    if not spelling:
        return column, []
    shown = [
        f"{spelt(name)} ({counts[name]} rows, first {column.first([name])}) as {spelt(best)}"
        for name, best in list(spelling.items())[:SHOWN]
    ]
    note = f"{column.source}: {len(spelling)} spellings of classes are read as another: "
    note += listed(shown, spelling)
    cells = [spelling.get(cell, cell) for cell in column.cells]
    return dataclasses.replace(column, cells=cells), [note]
