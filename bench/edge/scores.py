"""How right the answers of a table are, by training's own definitions (`fusion_keras.metrics`)."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from bench.edge.predictor import Answer

# What Keras's losses clip probabilities to.
_SMALLEST = 1e-7


@dataclass(frozen=True)
class Truth:
    """Where a table says what is right.

    label, score: names of columns, "" where the table has none.
    """

    classes: tuple[str, ...]
    several: bool
    threshold: float
    label: str
    score: str
    separator: str

    @classmethod
    def of(cls, meta: dict, columns, names: list[str]) -> Truth:
        return cls(
            tuple(meta["classes"]),
            meta.get("label_kind") == "multi",
            meta.get("threshold", 0.5),
            columns.label if columns.label in names else "",
            columns.score if columns.score in names else "",
            columns.label_separator,
        )

    def scores(self, rows, found) -> tuple[dict[str, float], int, tuple[str, ...]]:
        """Metrics of the rows that have both an answer and a truth, their number, and notes."""
        answered = [(r, a) for r, a in zip(rows, found, strict=True) if isinstance(a, Answer)]
        pairs = [(self._numbers(r.cells[self.label]), a) for r, a in answered] if self.label else []
        known = [(numbers, a) for numbers, a in pairs if numbers is not None]
        metrics, notes = {}, ()
        if len(known) < len(pairs):
            notes = (
                f"{len(pairs) - len(known)} of {len(pairs)} answered rows have a label that is "
                f"none of the model's classes ({', '.join(self.classes)}): they are not scored",
            )
        if known:
            truth = np.stack([numbers for numbers, _ in known])
            shares = np.array([list(a.probabilities.values()) for _, a in known])
            metrics = self._of_several(truth, shares) if self.several else _of_one(truth, shares)
        return {**metrics, **self._of_scores(answered)}, len(known), notes

    def _numbers(self, cell: str) -> np.ndarray | None:
        """A 1 for each class that is true, [C]; None where the cell says something else."""
        names = self._names(cell.strip())
        if not set(names) <= set(self.classes) or (len(names) != 1 and not self.several):
            return None
        return np.array([name in names for name in self.classes], np.int64)

    def _names(self, cell: str) -> list[str]:
        if not self.several:
            return [cell]
        if cell.startswith("["):
            try:
                return [str(name).strip() for name in json.loads(cell)]
            except ValueError:
                return [cell]
        parts = cell.split(self.separator) if self.separator else [cell]
        return [part.strip() for part in parts if part.strip()]

    def _of_several(self, truth: np.ndarray, shares: np.ndarray) -> dict[str, float]:
        given = shares > self.threshold
        wrong = given != truth.astype(bool)
        clipped = np.clip(np.where(truth, shares, 1 - shares), _SMALLEST, 1)
        together = _f1(truth.sum(), given.sum(), (given & (truth > 0)).sum())
        return {
            "subset accuracy": float(1 - wrong.any(axis=1).mean()),
            "hamming_loss": float(wrong.mean()),
            "micro_f1": float(together),
            "nll": float(-np.log(clipped).mean()),
        }

    def _of_scores(self, answered) -> dict[str, float]:
        if not self.score:
            return {}
        pairs = [
            (_number(r.cells[self.score]), a.score) for r, a in answered if a.score is not None
        ]
        errors = [abs(true - said) for true, said in pairs if true is not None]
        return {"mae": float(np.mean(errors))} if errors else {}


def _of_one(truth: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    """Of one label a row: truth and shares [N, C]."""
    said = np.eye(truth.shape[1], dtype=np.int64)[shares.argmax(axis=1)]
    both = (truth * said).sum(axis=0)
    occur = truth.sum(axis=0) + said.sum(axis=0) > 0
    f1 = _f1(truth.sum(axis=0), said.sum(axis=0), both)[occur]
    of_truth = np.maximum((truth * shares).sum(axis=1), _SMALLEST)
    return {
        "accuracy": float(both.sum() / len(truth)),
        "macro_f1": float(f1.mean()),
        "nll": float(-np.log(of_truth).mean()),
    }


def _f1(true, said, both) -> np.ndarray:
    """0 where nothing is true and nothing said."""
    return 2 * both / np.maximum(np.asarray(true) + said, 1)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` rows (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return max(0.0, centre - half), min(1.0, centre + half)


def _number(cell: str) -> float | None:
    try:
        value = float(cell.replace("_", "?"))  # Python would read 1_0 as 10
    except ValueError:
        return None
    return value if math.isfinite(value) else None
