"""Input columns that give the label away: the label itself, or one that says the same."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from fusion_keras.data.odd_classes import FEW_ROWS
from fusion_keras.data.table import parse_number
from fusion_keras.errors import UsageError

# A wrong cell or two make no honest input of a column.
TOLD = 0.99


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
    """Notes on input columns that tell the label by themselves.

    A column does where each of its values, met FEW_ROWS times on average, stands with one class
    alone (or with one set of labels) in TOLD of the rows; one of numbers also where it is empty in
    one class alone, or where the numbers of one class lie all above those of another.

    Args:
      columns: name -> N cells.
      numbers: the columns that are of numbers.
      labels: int [N], -1 for none; or 0 and 1 [N, C].
      source: the file, for the notes.
    """
    if labels.ndim == 2:
        labels = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    known = np.flatnonzero(labels >= 0)
    labels = labels[known]
    if len(known) < 2 * FEW_ROWS or np.bincount(labels).max() > TOLD * len(labels):
        return []
    notes = []
    for name, cells in columns.items():
        cells = [cells[row].strip().casefold() for row in known]
        told = _by_value(cells, labels)
        if not told and name in numbers:
            values = np.array([np.nan if (n := parse_number(c)) is None else n for c in cells])
            told = _by_value(np.isnan(values).tolist(), labels, "whether it is there")
            told = told or _by_range(values, labels)
        if told:
            notes.append(
                f"{source}: the column {name!r}, an input, gives the label away: {told}; is it "
                "there when a row without a label comes, or the label once more?"
            )
    return notes


def _by_value(values: Sequence, labels: np.ndarray, what: str = "") -> str:
    """What a column tells by its values, a clause, or ""."""
    distinct: dict = {}
    numbers = (distinct.setdefault(value, len(distinct)) for value in values)
    of_row = np.fromiter(numbers, np.int64, len(values))
    if FEW_ROWS * len(distinct) > len(labels):
        return ""
    counts = np.zeros((len(distinct), labels.max() + 1), int)
    np.add.at(counts, (of_row, labels), 1)
    told = counts.max(axis=1).sum()
    if told < TOLD * len(labels):
        return ""
    of_what = what or f"which of its {len(distinct)} values it is"
    return f"{of_what} tells it in {told} of {len(labels)} rows"


def _by_range(values: np.ndarray, labels: np.ndarray) -> str:
    there = ~np.isnan(values)
    if there.sum() < TOLD * len(values):
        return ""
    values, labels = values[there], labels[there]
    ranges = sorted(
        (values[labels == label].min(), values[labels == label].max())
        for label in np.unique(labels)
    )
    apart = all(below[1] < above[0] for below, above in itertools.pairwise(ranges))
    return "its ranges within the classes do not overlap" if apart else ""
