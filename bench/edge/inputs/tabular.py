"""The cells of a table's row -> standardised numbers and categories."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError

# Standardised numbers end here, as in training.
LIMIT = 10.0


def row(cells: dict[str, str] | Sequence[str] | None, meta: dict) -> np.ndarray:
    """A row's cells -> float32 [1, K]: numbers, then a place for each level of each category.

    A number that is missing is the mean; a category that is missing, or that training never
    met, is at none of its levels.

    Args:
        cells: column -> cell; or NAME=VALUE, as a command line has them; None is an empty row.
        meta: `meta.json`.

    Raises:
        ArtifactError: a cell without a name, a column that the model does not read, or a number
            that is none.
    """
    spec = meta["inputs"]["tabular"]
    known = [column["name"] for column in spec["numbers"] + spec["categories"]]
    given = cells if isinstance(cells, dict) else dict(map(_named, cells or ()))
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ArtifactError(
            f"The model reads no column {unknown[0]!r}; it reads {', '.join(known)}."
        )
    given = {name: str(cell).strip() for name, cell in given.items()}
    values = []
    for number in spec["numbers"]:
        value = _number(number, given.get(number["name"], ""))
        values.append(min(max(value, -LIMIT), LIMIT))
    for category in spec["categories"]:
        level = given.get(category["name"], "")
        values += [float(level == known) for known in category["levels"]]
    return np.array([values], np.float32)


def _named(written: str) -> tuple[str, str]:
    name, equals, cell = written.partition("=")
    if not equals:
        raise ArtifactError(f"{written!r} names no column: NAME=VALUE is wanted.")
    return name.strip(), cell


def _number(number: dict, cell: str) -> float:
    if not cell:
        return 0.0
    try:
        value = float(cell.replace("_", "?"))  # Python would read 1_0 as 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ArtifactError(f"{number['name']} is {cell!r}; a number is wanted, or nothing.")
    return (value - number["mean"]) / number["deviation"]


def queries(folder: Path) -> list[dict[str, str]]:
    """The rows of an artifact's `queries`."""
    return json.loads((folder / "tabular.json").read_text(encoding="utf-8"))
