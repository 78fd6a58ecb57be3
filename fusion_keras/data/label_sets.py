"""Cells that hold any number of labels -> a 0 or 1 for each class."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from fusion_keras.data.labels import Labels, number_labels
from fusion_keras.data.numbering import numbered, place
from fusion_keras.data.table import shortened
from fusion_keras.errors import UsageError


def number_label_sets(
    cells: Sequence[str],
    lines: Sequence[int],
    source: str,
    *,
    separator: str,
    given: tuple[str, ...] = (),
    join: bool = False,
) -> Labels:
    """Numbers the labels of N rows, any number of them a row.

    A cell is a JSON list of names or integers, or names with a separator between them. A label
    that comes twice in a cell counts once. An empty cell is a row without labels, and so is an
    empty list; the empty cells, which may be missing values, are noted. Labels that are none of the
    given ones are left out with a note, unless they look like one: such a row has a reason.
    Classes are named and ordered as `number_labels` does.

    Args:
      cells: N, empty where there is no label.
      lines: N, where they stand.
      separator: what stands between two names; "" for lists alone.
      source, given, join: as for `number_labels`.

    Raises:
      UsageError: what begins as a list is none of names and integers, or as for `number_labels`.
    """
    parts = [
        _parts(cell.strip(), separator, place(source, n))
        for cell, n in zip(cells, lines, strict=True)
    ]
    _check_names(parts, cells, lines, source)
    of_rows = [list(dict.fromkeys(of_row)) for of_row in parts]
    row_of = np.repeat(np.arange(len(cells)), [len(labels) for labels in of_rows])
    flat = number_labels(
        [label for labels in of_rows for label in labels],
        [lines[row] for row in row_of],
        source,
        given=given,
        join=join,
        several=True,
    )
    values = np.zeros((len(cells), len(flat.classes)), np.uint8)
    known = flat.values >= 0
    values[row_of[known], flat.values[known]] = 1
    reasons = [""] * len(cells)
    for row, reason in zip(row_of, flat.reasons, strict=True):
        reasons[row] = reasons[row] or reason
    notes = flat.notes + _empty_notes(cells, lines, source) + _single_notes(values, source)
    return Labels(values, flat.classes, reasons, notes)


def _parts(cell: str, separator: str, where: str) -> list[str]:
    """What stands between the separators of a cell, or in its list."""
    if cell.startswith(("[", "{")):
        parts = [str(value) for value in _listed(cell, where)]
    else:
        parts = cell.split(separator) if separator else [cell]
    return [part.strip() for part in parts if part.strip()]


def _check_names(
    parts: Sequence[list[str]], cells: Sequence[str], lines: Sequence[int], source: str
) -> None:
    """Raises UsageError where all cells are a 0 or 1 for each class instead of names."""
    known = {part for of_row in parts for part in of_row}
    repeated = any(len(set(of_row)) < len(of_row) for of_row in parts)
    of_one_length = len({len(of_row) for of_row in parts}) == 1 and len(parts[0]) > 1
    listed = all(cell.strip().startswith("[") for cell in cells)
    if known <= {"0", "1", "0.0", "1.0"} and (repeated or (listed and of_one_length)):
        first = next(i for i, of_row in enumerate(parts) if of_row)
        raise UsageError(
            f"got {shortened(cells[first])} in {place(source, lines[first])}, which looks like a 0 "
            "or 1 for each class, wanted the names of the classes that the row has, or their "
            'numbers: write [0, 1, 1] as "1;2".'
        )


def _listed(cell: str, where: str) -> list:
    try:
        values = json.loads(cell)
    except (ValueError, RecursionError):
        values = None
    kinds = {type(value) for value in values} if isinstance(values, list) else {None}
    if not kinds <= {str, int, float}:
        raise UsageError(
            f"got the labels {shortened(cell)} in {where}, wanted a JSON list of names or integers "
            'such as ["fire", "flood"]; write it so, or the names with a separator between them '
            "(--config.data.label_separator)."
        )
    return values


def _empty_notes(cells: Sequence[str], lines: Sequence[int], source: str) -> tuple[str, ...]:
    empty = [line for cell, line in zip(cells, lines, strict=True) if not cell.strip()]
    if not empty:
        return ()
    return (
        f"{source}: the label cell of {len(empty)} rows is empty or a missing value (the first in "
        f"{numbered(source, empty[0])}); they "
        "are taken to have no label: take them out, if their labels are not known",
    )


def _single_notes(values: np.ndarray, source: str) -> tuple[str, ...]:
    if not len(values) or values.sum(axis=1).max() > 1:
        return ()
    return (
        f"{source}: no row has more than one label: do --config.data.label_kind=multi and "
        "label_separator say how the cells are meant?",
    )
