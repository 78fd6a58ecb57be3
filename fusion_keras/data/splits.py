"""Which rows train, validate and test: the standard MOSI folds, and a seeded split.

The seeded split is stratified by class and never divides a group (a video, an author).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from fusion_keras.data.odd_classes import SHOWN, alike, many_note, spelt
from fusion_keras.data.records import SPLITS, Records, class_counts
from fusion_keras.errors import UsageError

# The standard split of CMU-MOSI by video id, as in CMU-MultimodalSDK's
# cmu_mosi_std_folds.py; all 93 videos.
_MOSI_TRAIN = """
03bSnISJMiM 0h-zjBukYpk 1DmNV9C1hbY 1iG0909rllw 2WGyTLYerpo 2iD-tVS8NPw 5W7Z1C_fDaE
6Egk_28TtTM 6_0THN4chvY 73jzhE8R1TQ 7JsX8y1ysxY 8OtFthrtaJM 8d-gEyoeBzc 8qrpnFRGt2A
9J25DZhivz8 9T9Hf74oK10 9c67fiY0wGQ 9qR7uwkblbs Af8D0E4ZXaw BI97DNYfe5I BXuRRbG0Ugk
Bfr499ggo-0 BioHAh1qJAQ BvYR0L6f2Ig Ci-AH39fi3Y Clx4VXItLTE Dg_0XKD0Mf4 G-xst2euQUc
G6GlGvlkxAQ GWuJjcEuzt8 HEsqda8_d0Q I5y0__X72p0 Iu2PFX3z_1s IumbAb8q2dM Jkswaaud0hk
LSi-o-IrDMs MLal-t_vJPM Njd1F0vZSm4 Nzq88NnDkEk OQvJTdtJ2H4 OtBXNcAL_lE Oz06ZWiO20M
POKffnXeBds PZ-lDQFboO8 QN9ZIUWUXsY Qr1Ca94K55A Sqr0AcuoNnk TvyZBvOMOTc VCslbP0mgZI
VbQk4H8hgr0 Vj1wYRQjB-o W8NXH0Djyww
"""
_MOSI_VALID = """
WKA5OygbEKI X3j2zQgwYgE ZAIRrfG22O0 ZUXBRvtny7o _dI--eQ6qVU aiEXnCPZubE atnd_PF-Lbs
bOL9jKpeJRs bvLlb-M3UXU c5xsKMxpXnc
"""
_MOSI_TEST = """
c7UH_rxdZv4 cM3Yna7AavY cW1FSBF59ik cXypl4FnoZo d3_k5Xpfmik d6hH302o4v8 dq3Nf_lMPnE
etzxEpPuc6I f9O3YtZ2VfI f_pcplsH_V0 fvVhgmXxadc iiK8YX8oH1E jUzDDGyPkXU k5Y_838nuGo
lXPQBPVc5Cw nbWiPyCm4g0 nzpVDcQ0ywM ob23OKe5a9Q pLTX3ipuDJI phBUpBr1hSo rnaNMUZpvvg
tIrG4oNLFzE tStelxIAHjw tmZoasNr4rU v0zCBqDeKcE vvZ4IcEtiZc vyB00TXsimI wMbj6ajWbic
yDtzw_Y-7RU yvsjCA6Y5Fc zhpQhgha_KU
"""
STANDARD_MOSI_FOLDS: dict[str, frozenset[str]] = {
    "train": frozenset(_MOSI_TRAIN.split()),
    "valid": frozenset(_MOSI_VALID.split()),
    "test": frozenset(_MOSI_TEST.split()),
}
STANDARD_MOSI_COUNTS = {"train": 1284, "valid": 229, "test": 686}  # utterances

# Orders of the groups that are tried; the most balanced outcome is kept. On
# MOSI's 93 videos (9 to 63 utterances each) the sizes of the splits then come out within
# a quarter of a point of the fractions, and the class shares within a point and a half.
_TRIES = 16


def assign_splits(
    labels: np.ndarray,
    groups: Sequence[str] | None,
    fractions: Sequence[float] = (0.7, 0.1, 0.2),
    seed: int = 0,
) -> list[str]:
    """Gives each row "train", "valid" or "test", stratified and without dividing a group.

    The same arguments give the same answer on every machine and with every library version:
    the order in which groups are placed comes from a hash of the seed and the group's name.

    Args:
      labels: int [N], class indices; or 0 and 1 [N, C], the labels of each row.
      groups: N group names; None where every row stands alone.
      fractions: the shares of train, valid and test.
      seed: any integer.

    Raises:
      UsageError: the fractions are no shares of a whole, or a split would stay empty.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(
            f"got split fractions {tuple(fractions)}, wanted three positive shares (train, valid, "
            "test) that add up to 1; set for example (0.7, 0.1, 0.2)."
        )
    parts = _allot(labels, groups, fractions, f"split {seed}")
    return [SPLITS[part] for part in parts]


def halve(
    labels: np.ndarray, groups: Sequence[str] | None, seed: int, fraction: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows in two, stratified and without dividing a group.

    Late fusion trains its parents on "a subset" of the training data and the head on
    "another subset" (Willis and Bakos 2025, section 3.3.1, which says no more): these are
    the two.

    Args:
      labels: as for `assign_splits`; groups: N names or None; seed: any integer.
      fraction: the share of the first part, strictly between 0 and 1.

    Returns:
      int64 [a] and int64 [N - a]: the row indices of each part, ascending.

    Raises:
      UsageError: the fraction leaves a part empty.
    """
    if not 0 < fraction < 1:
        raise UsageError(
            f"got fraction {fraction}, wanted a share strictly between 0 and 1; set 0.5."
        )
    parts = _allot(labels, groups, (fraction, 1 - fraction), f"halve {seed}")
    return np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)


def check_records(records: Records) -> Records:
    """Checks that records can be trained and scored on; returns them with notes on oddities.

    For every source, and again after rows were dropped or a split was assigned. A class that
    validation or test lacks, and a group in two splits, are only noted: they bias the figures,
    but a user may have no other data.

    Raises:
      UsageError: an id comes twice, there are fewer than two classes, a split has no rows, or
        training lacks a class.
    """
    source = records.skips.source if records.skips else records.name
    _check_ids(records)
    present = np.flatnonzero(class_counts(records.labels, len(records.classes)))
    if len(present) < 2:
        classes = ", ".join(records.classes[c] for c in present) or "none"
        remedy = "check the label column"
        if records.labels.ndim == 2:
            remedy += (
                "; a single label that a row has or has not is two classes: give each a name, one "
                "in a row, with --config.data.label_kind=single"
            )
        raise UsageError(
            f"got labels of fewer than two classes in {source} ({classes}), wanted two or more; "
            f"{remedy}."
        )
    if records.splits is None:
        return records
    oddities = _check_classes(records, source) + _divided_groups(records, source)
    notes = records.notes + tuple(note for note in oddities if note not in records.notes)
    return dataclasses.replace(records, notes=notes)


def _check_ids(records: Records) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(records.ids):
        if name in first:
            places = records.origins or [f"row {n}" for n in range(len(records))]
            raise UsageError(
                f"got the id {name!r} twice ({places[first[name]]} and {places[row]}), wanted "
                "distinct ids; rename or remove one, or leave a manifest's column of ids out with "
                "--config.data.manifest.id_column=."
            )
        first[name] = row


def _check_classes(records: Records, source: str) -> list[str]:
    notes = []
    splits = np.asarray(records.splits)
    for split in SPLITS:
        rows = np.flatnonzero(splits == split)
        if len(rows) == 0:
            raise UsageError(
                f"got no {split} rows in {source}, wanted rows in each of {', '.join(SPLITS)}; "
                "add them, or drop the split column for a seeded split."
            )
        missing = np.flatnonzero(class_counts(records.labels[rows], len(records.classes)) == 0)
        named = [records.classes[c] for c in missing]
        absent = ", ".join(named[:SHOWN]) + (
            f" and {len(named) - SHOWN} more" * (len(named) > SHOWN)
        )
        if absent and split == "train":
            joins = ""
            for group in alike(records.classes):
                if set(group) & set(named):
                    joins = (
                        f"; {' and '.join(map(spelt, group))} look alike, and "
                        "--config.data.manifest.join_classes makes one of such"
                    )
            raise UsageError(
                f"got no train row of class {absent} in {source}, wanted every class in train; "
                f"add rows, or leave the class out{joins}{many_note(records)}."
            )
        if absent:
            notes.append(f"{source}: the {split} split has no row of class {absent}")
    return notes


def _divided_groups(records: Records, source: str) -> list[str]:
    homes: dict[str, set[str]] = {}
    for group, split in zip(records.groups or (), records.splits, strict=bool(records.groups)):
        homes.setdefault(group, set()).add(split)
    divided = sorted(group for group, where in homes.items() if len(where) > 1)
    if not divided:
        return []
    shown = ", ".join(divided[:3]) + (", ..." if len(divided) > 3 else "")
    return [f"{source}: {len(divided)} groups are in more than one split: {shown}"]


def _allot(labels, groups, fractions, salt: str) -> np.ndarray:
    """int64 [N]: for each row the index of its part."""
    labels = np.asarray(labels)
    names = np.arange(len(labels)).astype(str) if groups is None else np.asarray(groups, dtype=str)
    units, unit_of_row = np.unique(names, return_inverse=True)
    if len(units) < len(fractions):
        kind = "rows" if groups is None else "groups"
        remedy = "add data"
        if groups is not None:
            remedy += ", or leave a manifest's groups out with --config.data.manifest.group_column="
        raise UsageError(
            f"got {len(units)} {kind}, wanted at least {len(fractions)} to divide; {remedy}."
        )
    if labels.ndim == 2:
        # The row itself is counted, too: it may have no label, and sizes shall be even.
        marks = np.column_stack([labels, np.ones(len(labels))])
        counts = np.zeros((len(units), marks.shape[1]))  # [units, labels + 1]
        np.add.at(counts, unit_of_row, marks)
    else:
        counts = np.zeros((len(units), labels.max() + 1))  # [units, classes]
        np.add.at(counts, (unit_of_row, labels), 1)
    counts = counts[:, counts.sum(0) > 0]
    # Rows that stand alone come out even in any order; groups of unlike size do not.
    tries = 1 if groups is None else _TRIES
    outcomes = [_place(units, counts, fractions, f"{salt} {attempt}") for attempt in range(tries)]
    parts, _ = min(outcomes, key=lambda outcome: outcome[1])
    if len(np.unique(parts)) < len(fractions) and groups is None:
        count = counts.shape[1]
        raise UsageError(
            f"got {count} classes in {len(units)} rows, of which no split into shares near "
            f"{tuple(fractions)} has some of each class, wanted classes of several rows each; is "
            "the label column one of classes?"
        )
    if len(np.unique(parts)) < len(fractions):
        raise UsageError(
            f"got {len(units)} groups, one of them so large that a part of the split stays empty, "
            f"wanted shares near {tuple(fractions)}; give finer groups or a split column."
        )
    return parts[unit_of_row]


def _place(units, counts, fractions, salt: str) -> tuple[np.ndarray, float]:
    """One greedy pass over the units in hashed order: each goes where it unbalances least.

    The measure is a chi-square distance between the parts' class counts and their targets,
    which fills all parts at the same pace. -> int64 [units], and that distance at the end.
    """
    order = sorted(range(len(units)), key=lambda u: _digest(f"{salt} {units[u]}"))
    targets = np.outer(fractions, counts.sum(0))  # [parts, classes]
    filled = np.zeros_like(targets)
    parts = np.zeros(len(units), dtype=np.int64)
    for unit in order:
        new = counts[unit]
        cost = (new * (2 * (filled - targets) + new) / targets).sum(1)
        parts[unit] = np.argmin(cost)
        filled[parts[unit]] += new
    return parts, float(((filled - targets) ** 2 / targets).sum())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
