"""Input columns that give the label away: the label itself, or one that says the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from fusion_keras.data.odd_classes import FEW_ROWS
from fusion_keras.data.table import parse_number
from fusion_keras.errors import UsageError


def refuse_targets(targets: Mapping[str, str], inputs: Sequence[str]) -> None:
    """Raises UsageError where a column is to be learned and is what it is learned from.

    Args:
      targets: setting that names a target -> its column, "" for none.
      inputs: columns of texts, numbers and categories.
    """
    for setting, column in targets.items():
        if column and column in inputs:
            remedy = "name another, or leave it out of one of them"
            if setting == "score_column":
                remedy += " (--config.data.manifest.score_column= for no scores)"
            raise UsageError(
                f"got the column {column!r} both as {setting} and as an input of the model, which "
                f"would only have to repeat it; {remedy}."
            )


def giveaways(
    columns: Mapping[str, Sequence[str]], numbers: Sequence[str], labels: np.ndarray, source: str
) -> list[str]:
    """Notes on input columns that tell the label of every row by themselves.

    A column of numbers does where those of one class lie all above those of another, any other
    where each of its values, met FEW_ROWS times on average, stands with one class alone.

    Args:
      columns: name -> N cells.
      numbers: the columns that are of numbers.
      labels: int [N]; -1 for none.
      source: the file, for the notes.
    """
    known = np.flatnonzero(labels >= 0)
    labels = labels[known]
    if len(known) < 2 * FEW_ROWS or len(np.unique(labels)) < 2:
        return []
    notes = []
    for name, cells in columns.items():
        cells = [cells[row] for row in known]
        if told := _by_range(cells, labels) if name in numbers else _by_value(cells, labels):
            notes.append(
                f"{source}: the column {name!r}, an input, gives the label of every row away: "
                f"{told}; is it there when a row without a label comes, or the label once more?"
            )
    return notes


def _by_value(cells: list[str], labels: np.ndarray) -> str:
    classes: dict[str, set[int]] = {}
    for cell, label in zip(cells, labels.tolist(), strict=True):
        classes.setdefault(cell.strip().casefold(), set()).add(label)
    if FEW_ROWS * len(classes) > len(cells) or any(len(found) > 1 for found in classes.values()):
        return ""
    return f"each of its {len(classes)} values stands with one class alone"


def _by_range(cells: list[str], labels: np.ndarray) -> str:
    values = np.array([np.nan if (n := parse_number(cell)) is None else n for cell in cells])
    if np.isnan(values).any():
        return ""
    ranges = sorted(
        (values[labels == label].min(), values[labels == label].max())
        for label in np.unique(labels)
    )
    apart = all(below[1] < above[0] for below, above in itertools.pairwise(ranges))
    return "its ranges within the classes do not overlap" if apart else ""
