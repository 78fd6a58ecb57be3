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


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a rung may differ by.

    relative: largest difference of a logit over the larger of 1 and the largest logit.
    flips: share of rows whose predicted class may change; of a few rows, one may.
    tap: where graphs that are too far apart part: the first tap that differs by more, as a
        share of its largest value.
    """

    relative: float
    flips: float
    tap: float


TOLERANCES = {
    "float32": Tolerance(EXACT, 0.0, EXACT),
    "fp16": Tolerance(0.05, 0.01, 0.02),
    "int8": Tolerance(np.inf, 0.05, 0.2),
}


@dataclasses.dataclass(frozen=True)
class Rung:
    """One comparison of logits [N, C] with those of a reference.

    max_abs: largest difference; relative: the same over the larger of 1 and the largest
    logit; cosine: smallest cosine similarity of a row; flips: rows whose class changes.
    """

    name: str
    reference: str
    rows: int
    max_abs: float
    relative: float
    cosine: float
    flips: int
    tolerance: Tolerance

    @property
    def holds(self) -> bool:
        # Written so that a nan does not hold.
        close = self.relative <= self.tolerance.relative
        return close and self.flips <= math.ceil(self.tolerance.flips * self.rows)


def compare(name: str, found: np.ndarray, reference: str, wanted: np.ndarray, kind: str) -> Rung:
    """A rung: logits `found` [N, C] of `name` against `wanted` of `reference`.

    kind: a key of TOLERANCES. A row whose two best classes of the reference are closer than
    the tolerance itself counts as no flip.
    """
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    tolerance = TOLERANCES[kind]
    max_abs = float(np.abs(found - wanted).max())
    scale = max(1.0, float(np.abs(wanted).max()))
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = (found * wanted).sum(axis=1) / np.maximum(norms, 1e-30)
    two = np.sort(wanted, axis=1)[:, -2:]
    undecided = two[:, 1] - two[:, 0] <= 2 * EXACT * scale
    flips = (found.argmax(1) != wanted.argmax(1)) & ~undecided
    return Rung(
        name,
        reference,
        len(wanted),
        max_abs,
        max_abs / scale,
        float(cosine.min()),
        int(flips.sum()),
        tolerance,
    )


def first_parting(
    found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], kind: str = "float32"
) -> tuple[str, float] | None:
    """The first tap, in the order of `wanted`, that differs by more than its kind may.

    What the graphs give in the end, logits and score, is no tap.

    Returns:
        Its name and the largest difference over the larger of 1 and its largest value.
    """
    for name, tap in wanted.items():
        if name in found and name not in ("logits", "score"):
            difference = float(np.abs(found[name] - tap).max() / max(1.0, np.abs(tap).max()))
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
        f"{rung.tolerance.relative:.2g} is allowed) and {rung.flips} predictions change{where}. "
        "Nothing was written; what was exported before is as it was."
    )
