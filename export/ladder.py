"""The parity ladder: how far each step of an export is from the one before it.

Keras on JAX -> Keras on TensorFlow -> SavedModel -> ONNX -> its lower precisions, all on the
same validation rows. A rung that is too far from its reference ends the export.

With few rows a count of changed predictions is mostly luck, the size of the differences is not: it
is known from every row. So a rung of few rows also holds where the differences are small
against what tells the rows apart, and where what changed were near ties.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from fusion_keras.errors import UsageError

# Largest difference of a logit, as a share of the largest logit but at least of 1: rounding,
# in another order, of a dozen layers.
EXACT = 1e-4
# Rows are few where less than so many of them make up the share that is allowed.
FEW = 5
KEPT = "Nothing was written; what was exported before is as it was."


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a rung may differ by.

    relative: largest difference of a logit over the larger of 1 and the largest logit.
    cosine: smallest cosine similarity of all the logits as one vector.
    distance: largest difference, root mean square, over the larger of 1 and the size of the
        logits. For the lower precisions it is about tan(arccos(cosine)), what noise of that cosine
        comes to; a wrong scale, which turns no vector, has a distance too.
    flips: share of the predictions (of rows, or of several labels a row of rows times labels)
        that may change; of a few, one may.
    accuracy: what may be lost of it on the test split; of a few rows, one may.
    tap: where graphs that are too far apart part: the first tap that differs by more, as a
        share of its largest value.
    noise: where rows are few, largest difference, root mean square, over the spread of the
        logits from row to row. It is about tan(pi * flips): noise of that size changes the class of
        the share `flips` of rows, if two classes' logits are normal (Sheppard 1899: the signs of
        two normal variables differ with probability arccos(correlation) / pi).
    """

    relative: float
    cosine: float
    distance: float
    flips: float
    accuracy: float
    tap: float
    noise: float


TOLERANCES = {
    "float32": Tolerance(EXACT, 0.999999, 0.01, 0.0, 0.0, EXACT, 0.0),
    # Float32 of random weights, which no training has kept small: of MobileNetV3 large, the last
    # bit of its input alone changes 1e-5 of what it gives. Weights in a wrong place change all.
    "draft": Tolerance(10 * EXACT, 0.999999, 0.01, 0.0, 0.0, EXACT, 10 * EXACT),
    "fp16": Tolerance(0.05, 0.999, 0.045, 0.01, 0.01, 0.02, 0.03),
    "int8": Tolerance(1.0, 0.95, 0.33, 0.05, 0.01, 0.2, 0.16),
}


def few(share: float, rows: int) -> bool:
    """Whether a count on so many rows cannot be held against a bar of this share."""
    return share * rows < FEW


@dataclasses.dataclass(frozen=True)
class Rung:
    """One comparison of logits [N, C] with those of a reference.

    max_abs: largest difference; relative: the same over the larger of 1 and the largest
    logit; cosine: similarity of all the logits as one vector; flips: predictions that change, of
    so many decisions: the class of each row, or of several labels a row each of them.
    typical: difference of a row, which is by how much the lead of one class over another changes at
    most (of several labels: that of a label's logit), as the root mean square over the decisions;
    decided: flips of decisions whose reference leads by more than that; distance, noise: see
    Tolerance.
    """

    name: str
    reference: str
    rows: int
    max_abs: float
    relative: float
    cosine: float
    distance: float
    flips: int
    decisions: int
    typical: float
    decided: int
    noise: float
    tolerance: Tolerance
    may_flip: int

    # All of them are written so that a nan does not hold.

    @property
    def alike(self) -> bool:
        """Whether the logits, whatever the classes, are near enough."""
        bar = self.tolerance
        near = self.relative <= bar.relative and self.distance <= bar.distance
        return near and self.cosine >= bar.cosine

    @property
    def near_ties(self) -> bool:
        """Whether all that changed is what differences of an allowed size change."""
        small = self.alike and self.noise <= self.tolerance.noise
        return small and self.decided <= self.may_flip

    @property
    def excused(self) -> bool:
        """Whether more flipped than may, and they are too few to hold it against the graph."""
        too_many = self.flips > self.may_flip
        return too_many and self.near_ties and few(self.tolerance.flips, self.decisions)

    @property
    def holds(self) -> bool:
        return self.alike and (self.flips <= self.may_flip or self.excused)

    def described(self) -> dict:
        """What `meta.json` says of it."""
        return {**dataclasses.asdict(self), "excused": self.excused, "holds": self.holds}


def compare(
    name: str,
    logits: np.ndarray,
    reference: str,
    expected: np.ndarray,
    kind: str,
    allow_loss: float | None = None,
    label_kind: str = "single",
) -> Rung:
    """A rung: `logits` [N, C] of `name` against those `expected`, of `reference`.

    A row whose two best classes of the reference are as close as rounding brings them counts as
    no flip; nor does one of several labels whose logit is as close to 0, where its probability is
    a half.

    Args:
        kind: a key of TOLERANCES.
        allow_loss: points of accuracy that the user allows to be lost; so many predictions in a
            hundred may flip.
        label_kind: "single", one label a row, or "multi".
    """
    logits, expected = np.asarray(logits, np.float64), np.asarray(expected, np.float64)
    tolerance = TOLERANCES[kind]
    scale = _scale(expected)
    differences, size = logits - expected, expected
    if label_kind == "multi":
        # Each label is decided for itself, by whether its logit is above 0.
        changed = (logits > 0) != (expected > 0)  # [N, C]
        lead, moved, rounding = np.abs(expected), np.abs(differences), EXACT * scale
        # What all rows share, of a rare label most of its logit, would hide what tells them apart.
        size = expected - expected.mean(axis=0)
    else:
        changed = logits.argmax(1) != expected.argmax(1)  # [N]
        two = np.sort(expected, axis=1)[:, -2:]
        lead, moved, rounding = (
            two[:, 1] - two[:, 0],
            np.ptp(differences, axis=1),
            2 * EXACT * scale,
        )
        # What all classes of a row share changes no class.
        differences, size = (x - x.mean(axis=1, keepdims=True) for x in (differences, size))
    flips = changed & (lead > rounding)
    typical = _root_mean_square(moved)
    distance, noise = _sizes(differences, size)
    return Rung(
        name=name,
        reference=reference,
        **_apart(logits, expected),
        distance=distance,
        flips=int(flips.sum()),
        decisions=flips.size,
        typical=typical,
        decided=int((flips & (lead > typical)).sum()),
        noise=noise,
        tolerance=tolerance,
        may_flip=math.ceil(max(tolerance.flips, (allow_loss or 0) / 100) * flips.size),
    )


def compare_scores(
    name: str, scores: np.ndarray, reference: str, expected: np.ndarray, kind: str
) -> Rung:
    """As `compare`, of scores [N, 1], which decide nothing."""
    scores, expected = np.asarray(scores, np.float64), np.asarray(expected, np.float64)
    distance, noise = _sizes(scores - expected, expected)
    return Rung(
        name=f"{name} score",
        reference=reference,
        **_apart(scores, expected),
        distance=distance,
        flips=0,
        decisions=len(expected),
        typical=_root_mean_square(scores - expected),
        decided=0,
        noise=noise,
        tolerance=TOLERANCES[kind],
        may_flip=0,
    )


def _apart(values: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """What a `Rung` says of all values together, whatever they decide."""
    max_abs = float(np.abs(values - expected).max())
    norms = np.linalg.norm(values) * np.linalg.norm(expected)
    return {
        "rows": len(expected),
        "max_abs": max_abs,
        "relative": max_abs / _scale(expected),
        "cosine": float((values * expected).sum() / max(norms, 1e-30)),
    }


def _scale(expected: np.ndarray) -> float:
    return max(1.0, float(np.abs(expected).max()))


def widened(rung: Rung, golden: Rung) -> Rung:
    """A rung of random weights whose tolerance holds twice what the golden rows differ by.

    What a lower precision costs is asked of a model that has learned something: logits of random
    weights may differ by more than is allowed. Who times a draft asks whether another engine
    answers as this one.
    """
    usual = rung.tolerance
    relative = max(usual.relative, 2 * golden.relative)
    cosine = min(usual.cosine, 1 - 2 * (1 - golden.cosine))
    wide = dataclasses.replace(usual, relative=relative, cosine=cosine)
    return dataclasses.replace(rung, tolerance=wide)


def _sizes(differences: np.ndarray, size: np.ndarray) -> tuple[float, float]:
    """Differences [N, C] over the size of the logits [N, C], at least 1, and over their spread.

    The spread is that from row to row: what all rows share is taken out. A graph that answers every
    row alike has nothing else, and differs by as much as there is to tell.
    """
    differences = _root_mean_square(differences)
    spread = _root_mean_square(size - size.mean(axis=0))
    return differences / max(_root_mean_square(size), 1), differences / max(spread, 1e-30)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def first_parting(
    taps: dict[str, np.ndarray], expected: dict[str, np.ndarray], kind: str = "float32"
) -> tuple[str, float] | None:
    """The first tap, in the order of `expected`, that differs by more than its kind may.

    What the graphs give in the end, logits and score, is no tap.

    Returns:
        Its name and the largest difference over the larger of 1 and its largest value.
    """
    for name, tap in expected.items():
        if name in taps and name not in ("logits", "score"):
            difference = float(np.abs(taps[name] - tap).max() / max(1.0, np.abs(tap).max()))
            if not difference <= TOLERANCES[kind].tap:
                return name, difference
    return None


def check(rung: Rung, parting: tuple[str, float] | None = None) -> None:
    """End the export if a parity check fails.

    Raises:
        UsageError: names both graphs, the difference, and where they part.
    """
    if rung.holds:
        return
    where = f"; the first diverging tap is {parting[0]} ({parting[1]:.2g})" if parting else ""
    # Logits that are too far off are no matter of what the user allows.
    advice = remedy(rung.name, rung.flips / rung.decisions) if rung.alike else ""
    raise UsageError(
        f"{rung.name} is too far from {rung.reference}: over {rung.rows} rows the logits differ "
        f"by up to {rung.max_abs:.3g} ({rung.relative:.2g} of the largest, "
        f"{rung.tolerance.relative:.2g} is allowed) and by {rung.distance:.2g} of their size "
        f"({rung.tolerance.distance:.2g} is), their cosine is {rung.cosine:.6g} "
        f"({rung.tolerance.cosine:.6g} is) and {rung.flips} predictions change ({rung.may_flip} "
        f"may){_held_against(rung) if rung.alike else ''}{where}. {KEPT}{advice}"
    )


def remedy(name: str, share: float) -> str:
    """What to do where so many rows in a hundred changed or were lost."""
    points = math.ceil(round(1000 * share, 6)) / 10
    leave = "Allow" if name == "fp32" else f"Leave {name} out of --precisions, or allow"
    return f" {leave} that: --allow_loss={points:g}."


def small(rung: Rung) -> str:
    """How small the differences are."""
    return (
        f"differ by {_percent(rung.noise)} % of what tells the rows apart "
        f"({_percent(rung.tolerance.noise)} % is allowed of few rows)"
    )


def _percent(share: float) -> str:
    """Two digits, and never as a power of ten."""
    percent = 100 * share
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"


def _held_against(rung: Rung) -> str:
    """Why few rows are proof enough; empty where they are not few."""
    if not few(rung.tolerance.flips, rung.decisions):
        return ""
    return (
        f"; the logits {small(rung)}, and {rung.decided} of what changed was decided by more than "
        f"the typical difference, {rung.typical:.2g}"
    )


def notes(rung: Rung) -> list[str]:
    """What is to be said of a check that passes, and would not by the count of flips alone."""
    usual = math.ceil(rung.tolerance.flips * rung.decisions)
    changed = f"{rung.name}: {rung.flips} of {rung.decisions} predictions change"
    if rung.excused:
        return [
            f"{changed} where {rung.may_flip} may. So few rows are no proof: {rung.decided} of "
            f"these were decided by more than the typical difference, {rung.typical:.2g}, and the "
            f"logits {small(rung)}."
        ]
    if rung.flips > usual:
        return [f"{changed}, which --allow_loss allows ({usual} would be)."]
    if few(rung.tolerance.flips, rung.decisions) and 0 < rung.tolerance.noise < rung.noise:
        return [
            f"{changed}, which is no proof of so few rows: the logits {small(rung)}. More of them "
            "tell more: --samples."
        ]
    return []
