"""The arithmetic of `metrics`: from samples to columns, to their sums, to every metric at once.

Every metric but AUROC is a function of sums over samples. So a metric of the whole split and
that of a thousand resamples of it are the same code: the sums are weighted by how often each
sample was drawn. What each metric means, and its source, is told in `metrics`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusion_keras.errors import UsageError

ECE_BINS = 15
SMALLEST_PROBABILITY = 1e-7
# bfloat16 has 8 bits: a softmax computed in it sums to 1 within about a hundredth.
SUM_TOLERANCE = 0.02


# ---- Checks ----------------------------------------------------------------------------------


def as_classes(values: np.ndarray, num_classes: int, name: str) -> np.ndarray:
    """int64 [N], checked to be class indices."""
    values = np.asarray(values)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"got {name} {values.dtype} {values.shape}, wanted integers [N].")
    if values.size and not 0 <= values.min() <= values.max() < num_classes:
        raise ValueError(
            f"got {name} from {values.min()} to {values.max()}, wanted 0 to {num_classes - 1}."
        )
    return values.astype(np.int64)


def check_length(values: np.ndarray | Sequence, name: str, count: int) -> None:
    if np.shape(values) != (count,):
        raise ValueError(f"got {name} of shape {np.shape(values)}, wanted ({count},).")


def _as_scores(values: np.ndarray | None, name: str, count: int) -> np.ndarray | None:
    """float64 [N] or None, checked to be finite."""
    if values is None:
        return None
    check_length(values, name, count)
    values = np.asarray(values, np.float64)
    check_finite(values, name)
    return values


def check_finite(values: np.ndarray, name: str) -> None:
    """Raises UsageError with the number of values that are none."""
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise UsageError(
            f"got {bad} of {values.size} values in {name} that are nan or infinite, wanted finite "
            "ones; look for a diverged training (lower the learning rate) or a damaged file."
        )


def _as_probabilities(probs: np.ndarray) -> np.ndarray:
    """float64 [N, C], checked to be distributions over at least two classes."""
    probs = np.asarray(probs).astype(np.float64)
    if probs.ndim != 2 or probs.shape[0] < 1 or probs.shape[1] < 2:
        raise ValueError(f"got probs of shape {probs.shape}, wanted [N >= 1, C >= 2].")
    check_finite(probs, "probs")
    if probs.min() < 0 or np.abs(probs.sum(axis=1) - 1).max() > SUM_TOLERANCE:
        raise ValueError("got rows of probs that do not sum to 1; apply softmax to logits.")
    return probs


# ---- From samples to sums, from sums to metrics ----------------------------------------------


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the metrics are made of: `columns`, arrays [N, ...] that are summed over samples.

    `ranking` is (is class 1 [N], its probability [N]) for AUROC, which is no such sum.
    """

    count: int
    columns: dict[str, np.ndarray]
    ranking: tuple[np.ndarray, np.ndarray] | None


def gather(probs, labels, scores, predicted_scores) -> Evidence:
    """Checks the inputs of `classification_metrics` and lays out their columns."""
    probs = _as_probabilities(probs)
    count, num_classes = probs.shape
    check_length(labels, "labels", count)
    labels = as_classes(labels, num_classes, "labels")
    scores = _as_scores(scores, "scores", count)
    predicted_scores = _as_scores(predicted_scores, "predicted_scores", count)
    if predicted_scores is not None and scores is None:
        raise ValueError("got predicted_scores without scores, wanted the true scores too.")

    predicted = probs.argmax(axis=1)
    columns = {
        "classes": _tallies(labels, predicted, num_classes),
        "ece": _calibration_gaps(probs.max(axis=1), predicted == labels),
        "nll": -np.log(np.maximum(probs[np.arange(count), labels], SMALLEST_PROBABILITY)),
    }
    if num_classes == 2 and scores is not None and _is_their_sign(labels, scores):
        columns["nonneg"] = _tallies(scores >= 0, predicted, 2)
        columns["nonzero"] = _tallies(scores > 0, predicted, 2, counted=scores != 0)
    if predicted_scores is not None:
        columns |= _regression_columns(scores, predicted_scores)
    ranking = (labels == 1, probs[:, 1]) if num_classes == 2 else None
    return Evidence(count, columns, ranking)


def _is_their_sign(labels, scores) -> bool:
    """Whether class 1 is what the scores call positive; a score of 0 may be of either."""
    return bool(((labels == 1) == (scores > 0))[scores != 0].all())


def _tallies(truth, predicted, num_classes: int, counted=None) -> np.ndarray:
    """float64 [N, 3, C]: is truly c, is predicted as c, is both; zeros where not `counted`."""
    classes = np.arange(num_classes)
    true, said = truth[:, None] == classes, predicted[:, None] == classes
    tallies = np.stack([true, said, true & said], axis=1).astype(np.float64)
    return tallies if counted is None else tallies * counted[:, None, None]


def _calibration_gaps(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """float64 [N, bins]: confidence - correct, in the bin (low, high] of the confidence."""
    inner_edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]
    gaps = np.zeros((len(confidence), ECE_BINS))
    bins = np.digitize(confidence, inner_edges, right=True)
    gaps[np.arange(len(bins)), bins] = confidence - correct
    return gaps


def _regression_columns(scores: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    # Sums of squares lose digits where the mean is large beside the spread, so it goes first.
    x, y = scores - scores.mean(), predicted - predicted.mean()
    return {
        "mae": np.abs(predicted - scores),
        "moments": np.stack([x, y, x * x, y * y, x * y], axis=1),
        "acc7": (_rounded(predicted, 3) == _rounded(scores, 3)).astype(np.float64),
        "acc5": (_rounded(predicted, 2) == _rounded(scores, 2)).astype(np.float64),
        "regression_nonneg": _tallies(scores >= 0, predicted >= 0, 2),
        "regression_nonzero": _tallies(scores > 0, predicted > 0, 2, counted=scores != 0),
    }


def _rounded(values: np.ndarray, limit: float) -> np.ndarray:
    """Halves go to the even number, as in every published code (numpy's rounding)."""
    return np.round(np.clip(values, -limit, limit))


def per_unit(evidence: Evidence, unit: np.ndarray) -> dict[str, np.ndarray]:
    """The columns summed inside each unit: arrays [U, ...]."""
    sums = {}
    for name, column in evidence.columns.items():
        sums[name] = np.zeros((unit.max() + 1, *column.shape[1:]))
        np.add.at(sums[name], unit, column)
    return sums


def evaluate(
    evidence: Evidence, unit_sums: dict[str, np.ndarray], unit: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """name -> [R] for `weights` [R, U], the times that each unit occurs in each resample."""
    sums = {name: np.tensordot(weights, column, 1) for name, column in unit_sums.items()}
    total = sums["classes"][:, 0].sum(axis=1)  # [R] samples
    accuracy, macro_f1, weighted_f1 = _scores_of_tallies(sums["classes"])
    values = {
        "accuracy": accuracy,
        "majority": sums["classes"][:, 0].max(axis=1) / total,
        "macro_f1": macro_f1,
        "weighted_f1": weighted_f1,
        "ece": np.abs(sums["ece"]).sum(axis=1) / total,
        "nll": sums["nll"] / total,
    }
    if evidence.ranking is not None:
        values |= {"auroc": _auroc(*evidence.ranking, weights[:, unit]), "acc2": accuracy}
    if "nonneg" in sums:
        values |= _acc2(sums, "")
    if "mae" in sums:
        values |= {"mae": sums["mae"] / total, "pearson": _pearson(sums["moments"], total)}
        values |= {"acc7": sums["acc7"] / total, "acc5": sums["acc5"] / total}
        values |= _acc2(sums, "regression_")
    return values


def _acc2(sums: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    values = {}
    for convention in ("nonneg", "nonzero"):
        accuracy, _, weighted_f1 = _scores_of_tallies(sums[prefix + convention])
        values |= {f"{prefix}acc2_{convention}": accuracy, f"{prefix}f1_{convention}": weighted_f1}
    return values


def _scores_of_tallies(tallies: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy, macro F1 and weighted F1, each [R], of summed `_tallies` [R, 3, C]."""
    true, said, both = tallies[:, 0], tallies[:, 1], tallies[:, 2]
    f1 = np.nan_to_num(ratio(2 * both, true + said))
    total = true.sum(axis=1)
    macro = ratio(f1.sum(axis=1), (true + said > 0).sum(axis=1))
    return ratio(both.sum(axis=1), total), macro, ratio((f1 * true).sum(axis=1), total)


def _auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[R] from `weights` [R, N]: the Mann-Whitney statistic over its number of pairs."""
    order = np.argsort(score)
    ranked = score[order]
    ties_start = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights, positive = weights[:, order], positive[order]
    above = np.add.reduceat(weights * positive, ties_start, axis=1)
    below = np.add.reduceat(weights * ~positive, ties_start, axis=1)
    wins = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
    return ratio(wins, above.sum(axis=1) * below.sum(axis=1))


def _pearson(moments: np.ndarray, total: np.ndarray) -> np.ndarray:
    """[R] from summed moments [R, 5]; nan where either side is constant."""
    x, y, xx, yy, xy = moments.T
    var_x, var_y = total * xx - x * x, total * yy - y * y
    # The variance of a constant, or of a resample that repeats one value, misses 0 by rounding.
    defined = (var_x > 1e-12 * total * xx) & (var_y > 1e-12 * total * yy)
    scale = np.sqrt(np.where(defined, var_x, 0)) * np.sqrt(np.where(defined, var_y, 0))
    return np.clip(ratio(total * xy - x * y, scale), -1, 1)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """top / bottom, nan where the bottom is 0."""
    return np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
