"""Numbers and categories from a table's columns, encoded by a small multilayer perceptron.

A reading of sensors, what a form asked, what stands beside a picture in a data base. Numbers are
standardised by the training rows; a category is one of the levels that they have. A multilayer
perceptron over both is a strong baseline for such data (Gorishniy et al. 2021, arXiv 2106.11959,
section 3.1, whose MLPBlock is a layer here).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import keras
import keras_hub
import numpy as np
from keras import layers

from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.layouts import Weight, dense, under
from fusion_keras.data.odd_classes import alike, spelt
from fusion_keras.data.records import Dataset, Reading, Records, SkipLog
from fusion_keras.data.table import parse_number
from fusion_keras.data.text_columns import named_columns
from fusion_keras.errors import UsageError
from fusion_keras.modalities.base import Modality

# More levels name the rows, not what they have in common.
MOST_LEVELS = 1000
# Standardised numbers end here: one wild value must not drown a row, nor overflow float16.
LIMIT = 10.0


@keras.saving.register_keras_serializable(package="fusion_keras")
class TabularBackbone(keras_hub.models.Backbone):
    """A multilayer perceptron over standardised numbers and categories.

    Input: float [B, K]: numbers, then for each category one place per level, 1 at its own.
    Output: the summary.

    Attributes:
        taps: {0: one matrix product of the input, whose rows for the levels are their
            embeddings, 1..N: output of layer k, dense and ReLU}, each [B, D].
        summary: [B, D], the last layer's output.
        num_depths: N.
    """

    def __init__(self, size, width=64, num_layers=3, dtype=None, **kwargs):
        """Build the graph.

        Args:
            size: K.
            width: D.
            num_layers: N.
            dtype: dtype policy of every layer.
        """
        values = keras.Input((size,), name="tabular")
        x = layers.Dense(width, dtype=dtype, name="embedding")(values)
        taps = {0: x}
        for depth in range(1, num_layers + 1):
            x = layers.Dense(width, activation="relu", dtype=dtype, name=f"layer_{depth - 1}")(x)
            taps[depth] = x
        super().__init__(inputs=values, outputs=x, dtype=dtype, **kwargs)
        self.taps, self.summary, self.num_depths = taps, x, num_layers
        self._arguments = {"size": size, "width": width, "num_layers": num_layers}

    def get_config(self):
        """Return the arguments of the constructor."""
        return {**super().get_config(), **self._arguments}


@dataclasses.dataclass(frozen=True)
class TabularPreset:
    """backbone; encoding: how a row's cells become its input, as `TabularReader` learned it."""

    backbone: TabularBackbone
    encoding: dict


@dataclasses.dataclass(frozen=True)
class TabularReader:
    """Cells of named columns -> float32 [N, K]."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.numbers + self.categories

    def require(self, records: Records) -> None:
        self._unusable(records)

    def _unusable(self, records: Records) -> dict[int, str]:
        """Row -> why it cannot be used: a cell of numbers that holds none.

        Raises:
            UsageError: the source has no such columns, or too many rows cannot be used.
        """
        if "tabular" not in records.raw:
            raise UsageError(
                f"got the source {records.name!r} without columns of numbers and categories, which "
                "a manifest has; choose source=manifest, or leave tabular out of "
                "fusion.modalities."
            )
        found = {}
        for i, row in enumerate(records.raw["tabular"]):
            for name in self.numbers if row else ():
                cell = row[name]
                if cell.strip() and parse_number(cell) is None:
                    comma = parse_number(cell.replace(",", ".", 1)) is not None
                    hint = " (a decimal comma: write a point)" if comma else ""
                    found[i] = f"{records.origins[i]}: {name} {cell!r} is no number{hint}"
                    break
        log = records.skips or SkipLog(records.name, 0, len(records))
        dataclasses.replace(log, entries=[*log.entries, *found.values()]).check()
        return found

    def read(self, records: Records, folder: Path) -> Reading:
        """As of files that cannot be used, rows are left out behind the split: it is the same for
        models that take no numbers."""
        unusable = self._unusable(records)
        nothing = dict.fromkeys(self.columns, "")
        rows = [nothing if row is None else row for row in records.raw["tabular"]]
        for row, reason in unusable.items():
            records.skips.entries.append(reason)
            rows[row] = nothing
        usable = ~np.isin(np.arange(len(rows)), list(unusable))
        train = [row for row, split in zip(rows, records.splits, strict=True) if split == "train"]
        encoding = {
            "numbers": [_standard(name, train) for name in self.numbers],
            "categories": [_levels(name, train) for name in self.categories],
        }
        values = np.stack([encode(row, encoding) for row in rows])
        used = [row for row, ok in zip(rows, usable, strict=True) if ok]
        return Reading(values, usable, tuple(_notes(used, encoding)), encoding)


def _standard(name: str, rows: Sequence[dict[str, str]]) -> dict:
    """The mean and standard deviation of a column of numbers over the training rows."""
    values = [parse_number(row[name]) for row in rows if row[name].strip()]
    if not values:
        raise UsageError(
            f"got no number in column {name!r} of any training row, wanted some; leave it out "
            "of tabular.numbers."
        )
    if min(values) == max(values):
        # Of equal numbers the deviation may be what rounding leaves.
        return {"name": name, "mean": float(values[0]), "deviation": 1.0}
    return {"name": name, "mean": float(np.mean(values)), "deviation": float(np.std(values))}


def _levels(name: str, rows: Sequence[dict[str, str]]) -> dict:
    """The values that a column of categories has in the training rows."""
    levels = sorted({row[name].strip() for row in rows} - {""})
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise UsageError(
            f"got {len(levels)} values in column {name!r} of the training rows, wanted 1 to "
            f"{MOST_LEVELS} for a category; leave it out of tabular.categories, or name it in "
            "tabular.numbers."
        )
    return {"name": name, "levels": levels}


def encode(row: dict[str, str], encoding: dict) -> np.ndarray:
    """One row's cells -> float32 [K]: a missing number is the mean, an unknown level no level."""
    values = []
    for number in encoding["numbers"]:
        cell = row[number["name"]].strip()
        value = (float(cell) - number["mean"]) / number["deviation"] if cell else 0.0
        values.append(min(max(value, -LIMIT), LIMIT))
    for category in encoding["categories"]:
        cell = row[category["name"]].strip()
        values += [float(cell == level) for level in category["levels"]]
    return np.array(values, np.float32)


def _notes(rows, encoding):
    for number in encoding["numbers"]:
        empty = sum(not row[number["name"]].strip() for row in rows)
        if empty:
            yield f"{empty} of {len(rows)} rows have no {number['name']}: the mean stands for it"
        if len({row[number["name"]].strip() for row in rows} - {""}) == 1:
            yield f"every {number['name']} is the same number: nothing can be learned from it"
    for category in encoding["categories"]:
        known = set(category["levels"])
        for group in alike(category["levels"]):
            yield (
                f"{category['name']}: {' and '.join(map(spelt, group))} look alike and are levels "
                "of their own: write them alike, if they are one"
            )
        other = sum(row[category["name"]].strip() not in known for row in rows)
        if other:
            yield (
                f"{other} of {len(rows)} rows have no {category['name']}, or one that no training "
                "row has: no level stands for it"
            )


def _named(columns: str) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in named_columns(columns))))


def _cell(value, levels: Sequence[str], missing: Collection[str]) -> str:
    """A cell as a table has it; what is missing is empty, unless it is a level of this column."""
    text = "" if value is None else str(value).strip()
    if isinstance(value, (bool, np.bool_)):
        # As JSON has it, or as pandas writes a CSV file.
        text = next((form for form in (text.lower(), text) if form in levels), text.lower())
    return "" if text.casefold() in missing and text not in levels else text


def _sizes(preset: str) -> tuple[int, int]:
    """(layers, width) of a preset's name, mlp_LAYERSxWIDTH."""
    match = re.fullmatch(r"mlp_([1-9]\d?)x([1-9]\d{0,3})", preset)
    if not match:
        raise UsageError(
            f"got {preset!r} for the tabular backbone, wanted mlp_LAYERSxWIDTH, e.g. mlp_3x64 for "
            "three layers of 64 units."
        )
    return int(match[1]), int(match[2])


class Tabular(Modality):
    """Numbers and categories."""

    name = "tabular"
    noun, plural = "row of a table", "rows of a table"
    learns = True

    def reader(self, config) -> TabularReader:
        reader = TabularReader(_named(config.tabular.numbers), _named(config.tabular.categories))
        if not reader.columns:
            raise UsageError(
                "config.tabular.numbers and config.tabular.categories name no column: name those "
                "that hold the numbers and categories, as in --config.tabular.numbers=age,income."
            )
        twice = next((c for c in reader.columns if reader.columns.count(c) > 1), None)
        if twice:
            raise UsageError(
                f"config.tabular.numbers and config.tabular.categories name {twice!r} twice: name "
                "each column once."
            )
        return reader

    def described(self, preset: TabularPreset, config) -> dict:
        # What is a missing value there is one on the device.
        words = config.data.manifest.missing if config.data.source == "manifest" else ()
        return preset.encoding | {"missing": sorted(word.strip().casefold() for word in words)}

    def one(self, given, reader: TabularReader, described):
        unknown = sorted(set(given) - set(reader.columns))
        if unknown:
            raise ValueError(f"there is no column {unknown[0]!r}; {', '.join(reader.columns)} are")
        levels = {each["name"]: each["levels"] for each in described["categories"]}
        missing = set(described.get("missing", ()))
        cells = {n: _cell(given.get(n), levels.get(n, ()), missing) for n in reader.columns}
        for number in described["numbers"]:
            cell = cells[number["name"]]
            if cell and parse_number(cell) is None:
                raise ValueError(f"{number['name']} is {cell!r}; a number is wanted, or nothing")
        return encode(cells, described)

    def nothing(self, count, reader: TabularReader, described):
        size = len(encode(dict.fromkeys(reader.columns, ""), described))
        return np.zeros((count, size), np.float32)

    def write_raw(self, folder: Path, index: int, dataset: Dataset, row: int) -> None:
        path = folder / "tabular.json"
        rows = json.loads(path.read_text()) if index else []
        path.write_text(json.dumps([*rows, dataset.raw["tabular"][row]], indent=1) + "\n")

    def emptied(self, values: np.ndarray, rows: np.ndarray, preset) -> np.ndarray:
        values = values.copy()
        values[rows] = 0
        return values

    def facts(self, config) -> Facts:
        return Facts(_sizes(config.tabular.preset)[0])

    def load(self, config, encoding: dict | None = None) -> TabularPreset:
        size = len(encoding["numbers"]) + sum(len(c["levels"]) for c in encoding["categories"])
        layers, width = _sizes(config.tabular.preset)
        return TabularPreset(TabularBackbone(size, width, layers), encoding)

    def placeholder(self, preset: TabularPreset, length: int | None) -> keras.KerasTensor:
        return keras.Input(preset.backbone.input.shape[1:], dtype="float32", name=self.input)

    def tokens(self, tap, width: int, grid: int, name: str):
        """One token."""
        x = super().tokens(tap, width, grid, name)
        return layers.Reshape((1, width), name=f"{name}_token")(x)

    def weights(self, part: keras.Model) -> dict[str, Weight]:
        tensors = {}
        for layer in part.layers:
            if isinstance(layer, layers.Dense):
                # layer_0 is layers.0 of a list of PyTorch's.
                tensors |= under(layer.name.replace("layer_", "layers."), dense(layer))
        return tensors
