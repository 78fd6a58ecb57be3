"""Rows that lack a modality: which they are, and what is said of them.

A model with stand-ins learns from such rows: its `present_*` are 0 there. A model of one modality
leaves out those without it. A row that lacks all that a model takes is no example.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np

from fusion_keras.data.records import Dataset, Records
from fusion_keras.data.splits import check_records
from fusion_keras.errors import UsageError

# What `config.data.incomplete` may be.
CHOICES = ("auto", "skip", "keep")


def presence(records: Records, modalities: Collection[str]) -> dict[str, np.ndarray]:
    """Modality -> bool [N], which rows have it, of those that some row lacks."""
    found = {}
    for modality in modalities:
        values = records.raw[modality]
        if not isinstance(values, np.ndarray):  # drawn, one for each row
            there = np.array([value is not None for value in values], bool)
            if not there.all():
                found[modality] = there
    return found


def of_use(
    records: Records, present: Mapping[str, np.ndarray], modalities: Collection[str]
) -> Records:
    """The records that have anything of what a model takes, with notes on what they lack.

    Where the model takes more than one modality, a row without any is skipped as unusable.

    Args:
      records: split.
      present: of them, see `presence`.
      modalities: that the model takes.

    Raises:
      UsageError: too many rows have nothing of it, no training row has one of the modalities, or
        the others cannot be trained on (see `splits.check_records`).
    """
    if not present:
        return records
    every = np.ones(len(records), bool)
    has_any = np.any([present.get(modality, every) for modality in modalities], axis=0)
    if len(modalities) > 1:
        for row in np.flatnonzero(~has_any):
            records.skips.add(records.origins[row], f"no {' and no '.join(modalities)}")
        records.skips.check()
    if not has_any.any():
        raise UsageError(
            f"got no row with {' or '.join(modalities)} in {records.skips.source}, wanted some; "
            "check the column."
        )
    _require_in_training(records, present)
    try:
        kept = check_records(records.select(np.flatnonzero(has_any)))
    except UsageError as error:
        raise UsageError(
            f"{(~has_any).sum()} of {len(records)} rows have no {' or '.join(modalities)}; of the "
            f"others: {error}"
        ) from error
    notes = [_note(records, modality, there, modalities) for modality, there in present.items()]
    return dataclasses.replace(kept, notes=(*kept.notes, *notes))


def _require_in_training(records: Records, present: Mapping[str, np.ndarray]) -> None:
    """Raises UsageError where a modality is in no row that could be learned from."""
    split = np.ones(len(records), bool)
    if records.splits is not None:
        split = np.asarray(records.splits) == "train"
    for modality, there in present.items():
        if not there[split].any():
            raise UsageError(
                f"got no training row with {modality} in {records.skips.source} (of {len(records)} "
                f"rows {there.sum()} have one), wanted some to learn from; check its column, or "
                f"train a model without {modality}."
            )


def filled(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """[n, ...] in which rows that are not there are copies of such as are.

    Behind a stand-in they say nothing, but the backbone sees them: its BatchNorm learns from what
    it sees, and a quantisation takes its ranges.

    Args:
      there: bool [n].
    """
    rows = np.arange(len(values))
    if there.any():
        rows[~there] = np.resize(rows[there], (~there).sum())
    return values[rows]


def each_kind_first(rows: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Rows, int [n], in their order but for the first of each kind, of those that lack the same.

    So that the first few are of every kind.
    """
    kinds: dict[str, int] = {}
    for row in rows:
        kinds.setdefault(dataset.lacking(row), row)
    first = np.array(list(kinds.values()), rows.dtype)
    return np.concatenate([first, rows[~np.isin(rows, first)]])


def _note(records: Records, modality: str, there: np.ndarray, modalities: Collection[str]) -> str:
    lacking = np.flatnonzero(~there)
    becomes = (
        f"where another is there, what the model has learned stands in for {modality}"
        if len(modalities) > 1
        else "they are left out"
    )
    return (
        f"{len(lacking)} of {len(records)} rows ({100 * len(lacking) / len(records):.1f} %) lack "
        f"{modality}, the first in {records.origins[lacking[0]]}: {becomes}"
    )
