"""The cells of a table's row -> standardised numbers and categories."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.edge.errors import InputError
from bench.edge.inputs.given import written

_SHOWN = 5
# Column -> cell; or as a command line has them; None is an empty row.
Given = Mapping[str, object] | Sequence[str] | None
# Standardised numbers end here, as in training.
LIMIT = 10.0


def row(cells: Given, meta: dict) -> np.ndarray:
    """A row's cells -> float32 [1, K]: numbers, then a place for each level of each category.

    A number that is missing is the mean; a category that is missing, or that training never
    met, is at none of its levels; see `noted`.

    Args:
        cells: column -> cell, text or a number; or NAME=VALUE, as a command line has them; None is
            an empty row.
        meta: `meta.json`.

    Raises:
        InputError: a cell without a name, a column twice, one that the model does not read, or a
            number that is none.
    """
    spec = meta["inputs"]["tabular"]
    given = _cells(cells, spec)
    values = []
    for number in spec["numbers"]:
        value = _number(number, given.get(number["name"], ""))
        values.append(min(max(value, -LIMIT), LIMIT))
    for category in spec["categories"]:
        level = given.get(category["name"], "")
        values += [float(level == known) for known in category["levels"]]
    return np.array([values], np.float32)


def noted(cells: Given, meta: dict) -> tuple[np.ndarray, str]:
    """`row`, and what of it the model does not get: unknown levels, numbers too far off."""
    return row(cells, meta), _note(cells, meta["inputs"]["tabular"])


def _note(cells: Given, spec: dict) -> str:
    given, said = _cells(cells, spec), []
    for category in spec["categories"]:
        level = given.get(category["name"], "")
        if level and level not in category["levels"]:
            known = ", ".join(category["levels"][:_SHOWN])
            more = ", ..." if len(category["levels"]) > _SHOWN else ""
            said.append(
                f"{category['name']} is {level!r}, which no training row had ({known}{more}): no "
                "level stands for it"
            )
    for number in spec["numbers"]:
        value = _number(number, given.get(number["name"], ""))
        if abs(value) > LIMIT:
            said.append(
                f"{number['name']} is {given[number['name']]}, more than {LIMIT:g} standard "
                f"deviations from the mean in training, {number['mean']:.4g}: it counts as that far"
            )
    return "; ".join(said)


def _cells(cells: Given, spec: dict) -> dict[str, str]:
    """Column -> cell, "" for a missing value."""
    known = [column["name"] for column in spec["numbers"] + spec["categories"]]
    if not (cells is None or isinstance(cells, (Mapping, list, tuple))):
        raise InputError(
            f"The features are {type(cells).__name__}: cells by the names of their columns are "
            f"wanted ({', '.join(known)})."
        )
    pairs = (
        list(cells.items()) if isinstance(cells, Mapping) else [_named(str(c)) for c in cells or ()]
    )
    levels = {category["name"]: category["levels"] for category in spec["categories"]}
    missing = spec.get("missing", ())
    given = {name: _read(cell, levels.get(name, ()), missing) for name, cell in pairs}
    if len(given) < len(pairs):
        raise InputError("--tabular names a column twice: give each once.")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"The model reads no column {unknown[0]!r}; it reads {', '.join(known)}.")
    return given


def _read(cell: object, levels: Sequence[str], missing: Sequence[str]) -> str:
    """A cell as training had it; what is missing is empty, unless it is a level of this column."""
    said = written(cell)
    # A CSV file may have been written by pandas.
    if isinstance(cell, (bool, np.bool_)) and said not in levels and str(cell) in levels:
        return str(cell)
    return "" if said.casefold() in missing and said not in levels else said


def _named(written: str) -> tuple[str, str]:
    name, equals, cell = written.partition("=")
    if not equals:
        raise InputError(f"{written!r} names no column: NAME=VALUE is wanted.")
    return name.strip(), cell


def _number(number: dict, cell: str) -> float:
    if not cell:
        return 0.0
    try:
        value = float(cell.replace("_", "?"))  # Python would read 1_0 as 10
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{number['name']} is {cell!r}; a number is wanted, or nothing.")
    return (value - number["mean"]) / number["deviation"]


def queries(folder: Path) -> list[dict[str, str]]:
    """The rows of an artifact's `queries`."""
    return json.loads((folder / "tabular.json").read_text(encoding="utf-8"))
