"""The cells of a table's row -> standardised numbers and categories."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError

_SHOWN = 5
# Standardised numbers end here, as in training.
LIMIT = 10.0


def row(cells: dict[str, str] | Sequence[str] | None, meta: dict) -> np.ndarray:
    """A row's cells -> float32 [1, K]: numbers, then a place for each level of each category.

    A number that is missing is the mean; a category that is missing, or that training never
    met, is at none of its levels; see `note`.

    Args:
        cells: column -> cell; or NAME=VALUE, as a command line has them; None is an empty row.
        meta: `meta.json`.

    Raises:
        ArtifactError: a cell without a name, a column twice, one that the model does not read, or a
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


def note(encoder: functools.partial, cells: dict[str, str] | Sequence[str] | None) -> str:
    """What of the cells the model does not get: levels that it does not know, numbers too far off.

    Args:
        encoder: `row` of an artifact.
    """
    spec = encoder.keywords["meta"]["inputs"]["tabular"]
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


def _cells(cells: dict[str, str] | Sequence[str] | None, spec: dict) -> dict[str, str]:
    """Column -> cell, "" for a missing value."""
    known = [column["name"] for column in spec["numbers"] + spec["categories"]]
    pairs = list(cells.items()) if isinstance(cells, dict) else [_named(c) for c in cells or ()]
    given = {name: str(cell).strip() for name, cell in pairs}
    if len(given) < len(pairs):
        raise ArtifactError("--tabular names a column twice: give each once.")
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ArtifactError(
            f"The model reads no column {unknown[0]!r}; it reads {', '.join(known)}."
        )
    levels = {level for category in spec["categories"] for level in category["levels"]}
    missing = spec.get("missing", ())
    return {
        name: "" if cell.casefold() in missing and cell not in levels else cell
        for name, cell in given.items()
    }


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
