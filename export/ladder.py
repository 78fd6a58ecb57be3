"""The parity ladder: how far each step of an export is from the one before it.

Keras on JAX -> Keras on TensorFlow -> SavedModel -> ONNX -> its lower precisions, all on the
same validation rows. A rung that is too far from its reference ends the export.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fusion_keras.errors import UsageError

# Largest difference of a logit, as a share of the largest logit but at least of 1: rounding,
# in another order, of a dozen layers.
EXACT = 1e-4
_KEPT = "Nothing was written; what was exported before is as it was."


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a rung may differ by.

    relative: largest difference of a logit over the larger of 1 and the largest logit.
    cosine: smallest cosine similarity of all the logits as one vector.
    flips: share of rows whose predicted class may change, or of several labels a row share of
        their decisions; of a few, one may.
    accuracy: what may be lost of it on the test split; of a few rows, one may.
    tap: where graphs that are too far apart part: the first tap that differs by more, as a
        share of its largest value.
    """

    relative: float
    cosine: float
    flips: float
    accuracy: float
    tap: float


TOLERANCES = {
    "float32": Tolerance(EXACT, 0.999999, 0.0, 0.0, EXACT),
    "fp16": Tolerance(0.05, 0.999, 0.01, 0.01, 0.02),
    "int8": Tolerance(1.0, 0.95, 0.05, 0.01, 0.2),
}


@dataclasses.dataclass(frozen=True)
class Rung:
    """One comparison of logits [N, C] with those of a reference.

    max_abs: largest difference; relative: the same over the larger of 1 and the largest
    logit; cosine: similarity of all the logits as one vector; flips: rows whose class changes, or
    labels of rows; decisions: how many could.
    """

    name: str
    reference: str
    rows: int
    max_abs: float
    relative: float
    cosine: float
    flips: int
    decisions: int
    tolerance: Tolerance

    @property
    def may_flip(self) -> int:
        return math.ceil(self.tolerance.flips * self.decisions)

    @property
    def holds(self) -> bool:
        # Written so that a nan does not hold.
        alike = self.relative <= self.tolerance.relative and self.cosine >= self.tolerance.cosine
        return alike and self.flips <= self.may_flip


def compare(
    name: str,
    logits: np.ndarray,
    reference: str,
    expected: np.ndarray,
    kind: str,
    label_kind: str = "single",
) -> Rung:
    """A rung: `logits` [N, C] of `name` against those `expected`, of `reference`.

    kind: a key of TOLERANCES. A row whose two best classes of the reference are as close as
    rounding brings them counts as no flip; nor does one of several labels whose logit is as close
    to 0, where its probability is a half.
    """
    logits, expected = np.asarray(logits, np.float64), np.asarray(expected, np.float64)
    tolerance = TOLERANCES[kind]
    max_abs = float(np.abs(logits - expected).max())
    scale = max(1.0, float(np.abs(expected).max()))
    norms = np.linalg.norm(logits) * np.linalg.norm(expected)
    cosine = (logits * expected).sum() / max(norms, 1e-30)
    if label_kind == "multi":
        undecided = np.abs(expected) <= EXACT * scale
        flips = ((logits > 0) != (expected > 0)) & ~undecided  # [N, K]
    else:
        two = np.sort(expected, axis=1)[:, -2:]
        undecided = two[:, 1] - two[:, 0] <= 2 * EXACT * scale
        flips = (logits.argmax(1) != expected.argmax(1)) & ~undecided  # [N]
    return Rung(
        name,
        reference,
        len(expected),
        max_abs,
        max_abs / scale,
        float(cosine),
        int(flips.sum()),
        flips.size,
        tolerance,
    )


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
    """End the export if a rung does not hold.

    Raises:
        UsageError: names both graphs, the difference, and where they part.
    """
    if rung.holds:
        return
    where = f"; they part first at the tap {parting[0]} ({parting[1]:.2g})" if parting else ""
    raise UsageError(
        f"{rung.name} is too far from {rung.reference}: over {rung.rows} rows the logits differ "
        f"by up to {rung.max_abs:.3g} ({rung.relative:.2g} of the largest, "
        f"{rung.tolerance.relative:.2g} is allowed), their cosine is {rung.cosine:.6g} "
        f"({rung.tolerance.cosine:.6g} is) and {rung.flips} predictions change ({rung.may_flip} "
        f"may){where}. {_KEPT}"
    )


def allowed_loss(kind: str, rows: int) -> float:
    """The accuracy on `rows` test rows that a precision may lose."""
    return max(TOLERANCES[kind].accuracy, 1 / rows)


def check_accuracy(name: str, accuracy: float, before: float, kind: str, rows: int) -> None:
    """End the export if a graph has lost too much accuracy on the test split.

    Raises:
        UsageError: names the graph and both accuracies.
    """
    allowed = allowed_loss(kind, rows)
    # A hair more, for what a subtraction of shares of rows rounds.
    if not before - accuracy <= allowed + 1e-9:
        raise UsageError(
            f"{name} loses too much: test accuracy {100 * accuracy:.1f} % where "
            f"{100 * before:.1f} % was, {100 * allowed:.1f} points are allowed. {_KEPT}"
            + (f" Leave {name} out of --precisions." if name != "fp32" else "")
        )
