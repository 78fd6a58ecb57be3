"""A finished run asked about examples that are in no data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from fusion_keras.data.modalities import INPUT_OF, PRESENT
from fusion_keras.data.records import Reader
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import FUSION, of_values
from fusion_keras.modalities import MODALITY
from fusion_keras.training.evaluate import predict


def outputs(
    model: keras.Model, config, description: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """What a run's model answers.

    Args:
        model, config: of the run; see `restored`.
        description: its `config.json`.
        rows: n examples, modality -> what `Modality.one` takes; what is not there is missing.

    Returns:
        Output name -> float32 [n, ...].

    Raises:
        UsageError: a row that lacks what the run needs, or has what cannot be read.
    """
    of_values(description["spec"]).refuse(description["variant"], "ask")
    spec = FUSION.from_dict(description["spec"])
    readers = FUSION.readers(config)
    _check(rows, spec, description)
    arrays: dict[str, np.ndarray] = {}
    for name in spec.modalities:
        has = np.array([row.get(name) is not None for row in rows])
        arrays[INPUT_OF[name]] = _read(name, rows, has, readers[name], description)
        if spec.stand_ins:
            arrays[PRESENT[name]] = has[:, None].astype(np.float32)
    return predict(model, arrays, np.arange(len(rows)))


def _check(rows: Sequence[Mapping[str, Any]], spec, description: Mapping[str, Any]) -> None:
    """Raises UsageError for a row that this model cannot be asked about."""
    lacking = description["dataset"].get("lacking", {})
    augment = description["config"]["augment"]
    for number, row in enumerate(rows):
        given = {name for name, value in row.items() if value is not None}
        unknown = sorted(set(row) - set(MODALITY))
        if unknown:
            raise UsageError(
                f"row {number} has {unknown[0]!r}, which is no modality: {', '.join(MODALITY)} are."
            )
        missing = [m for m in spec.modalities if m not in given]
        if len(missing) == len(spec.modalities):
            raise UsageError(
                f"row {number} has none of {', '.join(spec.modalities)}: give one at least."
            )
        for name in missing:
            # A frozen head without stand-ins learns from whole examples.
            withholds = augment["enabled"] and (spec.stand_ins or not spec.frozen)
            withheld = withholds and augment.get(MODALITY[name].drop, 0) > 0
            if not withheld and not lacking.get(name, {}).get("train"):
                also = " --config.fusion.stand_ins" if spec.frozen else ""
                raise UsageError(
                    f"row {number} has no {name}, and this run has never learned without: give it "
                    f"one, or train with --config.augment.{MODALITY[name].drop}=0.3{also}."
                )


def _read(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    has: np.ndarray,
    reader: Reader,
    description: Mapping[str, Any],
) -> np.ndarray:
    """A modality's input of every row, [n, ...]; of those without, what shows nothing."""
    modality, values = MODALITY[name], []
    described = description["inputs"][INPUT_OF[name]]
    for number in np.flatnonzero(has):
        try:
            values.append(modality.one(rows[number][name], reader, described))
        except (ValueError, TypeError, OSError) as error:
            raise UsageError(f"the {name} of row {number} cannot be read: {error}.") from None
    whole = modality.nothing(len(rows), reader, described)
    if values:
        whole[has] = values
    return whole
