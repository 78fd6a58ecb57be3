"""What a run is scored by: metrics, their bootstrap intervals, and the comparison of two runs.

N samples, C classes. Class metrics need the probabilities; `scores` are real-valued truths
such as CMU-MOSI's in [-3, 3]; `predicted_scores` are what a regression head says.

| metric | of what | definition |
|---|---|---|
| accuracy | classes | share of samples whose most probable class is the true one |
| majority | classes | share of the largest class *of the split that is scored* |
| macro_f1 | classes | mean F1 over the classes that occur in truths or predictions |
| weighted_f1 | classes | mean F1, each class weighted by its share of the truths |
| ece | classes | expected calibration error, 15 equal-width bins (Guo et al. 2017, section 2) |
| nll | classes | mean of -ln p(true class), p clipped to at least 1e-7 as Keras's losses do |
| auroc | 2 classes | P(p1 of a class-1 sample > p1 of a class-0 one), ties counted half |
| acc2 | 2 classes | accuracy under the name that sentiment papers use; its F1 is weighted_f1 |
| acc2_nonneg, f1_nonneg | 2 classes, scores | negative (< 0) against non-negative (>= 0) |
| acc2_nonzero, f1_nonzero | 2 classes, scores | truths of 0 dropped: negative against positive |
| mae, pearson | regression | mean absolute error, correlation; over all samples |
| acc7, acc5 | regression | share with equal round(clip(x, -3, 3)), round(clip(x, -2, 2)) |
| regression_acc2_nonneg, regression_f1_nonneg | regression | as above, from the predicted score |
| regression_acc2_nonzero, regression_f1_nonzero | regression | as above, from the predicted score |

For the class-wise Acc-2, class 1 is the non-negative (positive) one; where the labels are not the
signs of the scores (zeros aside), the four are left out. Acc-2 of the paper
(Willis and Bakos 2025) is negative against non-negative. Every F1 of an Acc-2 is weighted by
the truths. Published codes differ from each other, so compare like with like:

- MMSA (`metricsTop.py`): all eight as here. A predicted score is positive if `> 0` where zeros
  are dropped, and non-negative if `>= 0` where they are not.
- MulT (`eval_metrics.py`): mae, pearson, acc7, acc5 as here. Its Acc-2 asks `> 0`, so that
  without `exclude_zero` a truth of 0 counts as *negative*: neither of ours; with it, acc2_nonzero.
- MISA (`solver.py`, after MulT): accuracies as here. Both call F1 with (prediction, truth): the
  classes are then weighted by how often they are *predicted*, unlike every F1 here.
- MAG (`multimodal_driver.py`): drops truths of 0 from MAE and correlation too, and asks `>= 0`,
  which differs from acc2_nonzero only where a predicted score is exactly 0.

All of them round with numpy, halves to the even number: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2. So do we.

Where a sample has any number of K labels, each is a decision for itself, and is given where its
probability is above 0.5:

| metric | definition |
|---|---|
| accuracy | subset accuracy: share of samples whose every label is decided rightly |
| majority | share of the most frequent set of labels *of the split that is scored* |
| hamming_loss | share of decisions that are wrong |
| micro_f1 | F1 of all decisions together |
| macro_f1, macro_auroc, macro_ap | mean over the labels for which f1, auroc, ap are defined |
| nll | mean binary cross-entropy of all decisions, p clipped as above |
| precision, recall, f1 | of each label; where it is never given, never true, neither: undefined |
| auroc, ap | of each label: as above; average precision without interpolation |

A metric that is not defined (AUROC with one class, Acc-2 with no non-zero truth, correlation
with a constant) is nan. The arithmetic is in `metric_sums` and `label_sums`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fusion_keras.label_sums import evaluate_labels, gather_labels
from fusion_keras.metric_sums import as_classes, check_length, evaluate, gather, per_unit

# Resamples times samples held at once (8 MB an array): large splits in bounded memory.
_HELD_AT_ONCE = 1_000_000


def classification_metrics(
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    predicted_scores: np.ndarray | None = None,
) -> dict[str, float]:
    """Every metric of the module's table that the inputs allow, in the table's order.

    Args:
      probs: float [N, C], rows sum to 1.
      labels: int [N], in [0, C).
      scores: float [N], real-valued truths; None where there are none.
      predicted_scores: float [N], from a regression head; needs `scores`.

    Raises:
      ValueError: shapes, labels or sums that do not fit.
      UsageError: predictions that are not finite (the training diverged).
    """
    evidence = gather(probs, labels, scores, predicted_scores)
    unit = np.arange(evidence.count)
    values = evaluate(evidence, per_unit(evidence, unit), unit, np.ones((1, evidence.count)))
    return {name: float(value[0]) for name, value in values.items()}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [C, C]: how many samples of class (row) were predicted as class (column).

    Raises:
      ValueError: lengths that differ, or a class outside [0, num_classes).
    """
    labels = as_classes(labels, num_classes, "labels")
    predicted = as_classes(predicted, num_classes, "predicted")
    check_length(predicted, "predicted", len(labels))
    pairs = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def bootstrap_intervals(
    names: Sequence[str] | None,
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    predicted_scores: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13) of each metric.

    Args:
      names: which metrics; None for all that the inputs allow.
      groups: N names of what was drawn together, such as the videos that utterances come from.
        Whole groups are then drawn with replacement, since their samples are dependent.
      repeats: number of resamples.
      level: the share of resamples inside the interval, in (0, 1).
      The others are as in `classification_metrics`.

    Returns:
      name -> (low, high). Resamples in which a metric is undefined are left out. With fewer
      than two groups (or samples) there is nothing to resample, and both ends are nan.

    Raises:
      ValueError: as `classification_metrics`; or a name that is no metric of these inputs.
    """
    evidence = gather(probs, labels, scores, predicted_scores)
    unit, count = _units(groups, evidence.count)
    sums = per_unit(evidence, unit)
    draws = _draw(count, evidence.count, repeats, seed)
    parts = [evaluate(evidence, sums, unit, weights) for weights in draws]
    replicates = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    unknown = sorted(set(names or ()) - set(replicates))
    if unknown:
        raise ValueError(f"got metrics {unknown}, wanted some of {list(replicates)}.")
    chosen = replicates if names is None else names
    return {name: _interval(replicates[name], level, count) for name in chosen}


def summarise(
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    predicted_scores: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Every metric with its interval: name -> {"value", "low", "high"}; nan where undefined.

    Arguments and errors are those of `classification_metrics` and `bootstrap_intervals`.
    """
    regression = {"scores": scores, "predicted_scores": predicted_scores}
    resampling = {"groups": groups, "repeats": repeats, "level": level, "seed": seed}
    values = classification_metrics(probs, labels, **regression)
    intervals = bootstrap_intervals(None, probs, labels, **regression, **resampling)
    return {
        name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]}
        for name, value in values.items()
    }


def label_metrics(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of several labels a sample, those of all labels together.

    Args:
      probs: float [N, K], of each label for itself.
      labels: 0 or 1 [N, K].

    Raises:
      ValueError: shapes or values that do not fit.
      UsageError: predictions that are not finite (the training diverged).
    """
    evidence = gather_labels(probs, labels)
    values = evaluate_labels(evidence, np.ones((1, evidence.count)))
    return {name: float(value[0]) for name, value in values.items() if value.ndim == 1}


def summarise_labels(
    probs: np.ndarray,
    labels: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    repeats: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[dict[str, dict[str, float]], list[dict[str, dict[str, float]]]]:
    """Every metric with its interval, of all labels together and of each.

    Arguments and errors are those of `label_metrics` and `bootstrap_intervals`.

    Returns:
      name -> {"value", "low", "high"}, nan where undefined; and the same for each of K labels.
    """
    evidence = gather_labels(probs, labels)
    values = evaluate_labels(evidence, np.ones((1, evidence.count)))
    unit, count = _units(groups, evidence.count)
    parts = [
        evaluate_labels(evidence, weights[:, unit])
        for weights in _draw(count, evidence.count, repeats, seed)
    ]
    whole, each = {}, [{} for _ in range(evidence.truth.shape[1])]
    for name, value in values.items():
        replicates = np.concatenate([part[name] for part in parts])
        if value.ndim == 1:
            whole[name] = _valued(value[0], replicates, level, count)
        else:
            for k, of_label in enumerate(each):
                of_label[name] = _valued(value[0, k], replicates[:, k], level, count)
    return whole, each


def _valued(value: float, replicates: np.ndarray, level: float, count: int) -> dict[str, float]:
    low, high = _interval(replicates, level, count)
    return {"value": float(value), "low": low, "high": high}


def paired_bootstrap(
    correct_a: np.ndarray,
    correct_b: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    repeats: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """The accuracy of a minus that of b on the same samples, and how sure that is.

    Both runs are resampled together, so that what makes a sample hard for both cancels. The
    p-value inverts the percentile interval: twice the smaller share of resamples on either
    side of 0, with one added to both counts so that it is never 0 (Davison and Hinkley 1997,
    section 4.2). It is below 1 - level where the interval excludes 0.

    Args:
      correct_a, correct_b: bool or float [N], or [S, N] for S training seeds, in the same order
        of ids (for the caller to see to). Seeds are averaged before resampling, so the interval
        speaks of these seeds on new samples, not of new seeds.
      groups: N names; whole groups are drawn, as in `bootstrap_intervals`.
      repeats, level, seed: as in `bootstrap_intervals`.

    Returns:
      "difference", "low", "high" as fractions, and "p_value", two-sided. With fewer than two
      groups (or samples) all but the difference are nan.

    Raises:
      ValueError: shapes that differ or are neither [N] nor [S, N].
    """
    a, b = np.asarray(correct_a, np.float64), np.asarray(correct_b, np.float64)
    if a.shape != b.shape or a.ndim not in (1, 2) or a.size == 0:
        raise ValueError(
            f"got correct_a of shape {a.shape} and correct_b of shape {b.shape}, wanted the same "
            "[N] or [seeds, N] for both; compare runs over the same ids and as many seeds."
        )
    gain = np.atleast_2d(a - b).mean(axis=0)  # [N]
    unit, count = _units(groups, len(gain))
    gains, sizes = np.bincount(unit, weights=gain), np.bincount(unit)
    drawn = [(w @ gains) / (w @ sizes) for w in _draw(count, len(gain), repeats, seed)]
    # Sums of thirds and the like miss 0 by rounding; a tie of two runs must count as one.
    replicates = np.round(np.concatenate(drawn), 12)
    low, high = _interval(replicates, level, count)
    smaller_side = min((replicates <= 0).sum(), (replicates >= 0).sum())
    p_value = min(1.0, 2 * (smaller_side + 1) / (repeats + 1)) if count > 1 else np.nan
    return {"difference": float(gain.mean()), "low": low, "high": high, "p_value": float(p_value)}


# ---- Resampling ------------------------------------------------------------------------------


def _units(groups: Sequence[str] | None, count: int) -> tuple[np.ndarray, int]:
    """The unit of each sample, int [N], and the number of units: groups, or single samples."""
    if groups is None:
        return np.arange(count), count
    check_length(groups, "groups", count)
    names, unit = np.unique(np.asarray(groups), return_inverse=True)
    return unit, len(names)


def _draw(count: int, samples: int, repeats: int, seed: int) -> Iterator[np.ndarray]:
    """Yields float64 [r, count]: how often each unit is drawn in each of `repeats` resamples."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _HELD_AT_ONCE // samples)
    for start in range(0, repeats, at_once):
        rows = min(at_once, repeats - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count)
        yield times.reshape(rows, count).astype(np.float64)


def _interval(replicates: np.ndarray, level: float, count: int) -> tuple[float, float]:
    defined = replicates[~np.isnan(replicates)]
    if count < 2 or not defined.size:
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
