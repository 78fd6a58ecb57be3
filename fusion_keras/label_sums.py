"""The arithmetic of `metrics` for several labels a row: samples, weighted, to every metric at once.

As in `metric_sums`, a split and a thousand resamples of it are the same code. What each metric
means is told in `metrics`.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fusion_keras.metric_sums import SMALLEST_PROBABILITY, check_finite, ratio

# A label is given where its probability is above this.
THRESHOLD = 0.5


@dataclasses.dataclass(frozen=True)
class LabelEvidence:
    """What the metrics of N samples and K labels are made of.

    Attributes:
      truth, given: bool [N, K]: has the label, is given it.
      probs: float64 [N, K].
      sets: int [N], equal for samples that have the same labels.
    """

    truth: np.ndarray
    given: np.ndarray
    probs: np.ndarray
    sets: np.ndarray

    @property
    def count(self) -> int:
        return len(self.truth)


def gather_labels(probs: np.ndarray, labels: np.ndarray) -> LabelEvidence:
    """Checks the inputs of `metrics.label_metrics`."""
    probs, labels = np.asarray(probs).astype(np.float64), np.asarray(labels)
    if probs.ndim != 2 or 0 in probs.shape or labels.shape != probs.shape:
        raise ValueError(
            f"got probs of shape {probs.shape} and labels of shape {labels.shape}, wanted "
            "[N >= 1, K >= 1] for both."
        )
    check_finite(probs, "probs")
    if probs.min() < 0 or probs.max() > 1 or not np.isin(labels, (0, 1)).all():
        raise ValueError("got probs or labels outside [0, 1]; apply a sigmoid to logits.")
    truth = labels.astype(bool)
    sets = np.unique(truth, axis=0, return_inverse=True)[1].reshape(-1)
    return LabelEvidence(truth, probs > THRESHOLD, probs, sets)


def evaluate_labels(evidence: LabelEvidence, weights: np.ndarray) -> dict[str, np.ndarray]:
    """name -> [R], or [R, K] of what each label has, for how often each sample counts [R, N]."""
    truth, given, probs = evidence.truth, evidence.given, evidence.probs
    total = weights.sum(axis=1)  # [R]
    has, said, both = (weights @ x.astype(np.float64) for x in (truth, given, truth & given))
    wrong = truth != given
    p_of_truth = np.where(truth, probs, 1 - probs)
    nll = -np.log(np.maximum(p_of_truth, SMALLEST_PROBABILITY)).mean(axis=1)
    ranked = [_ranking(t, p, weights) for t, p in zip(truth.T, probs.T, strict=True)]
    auroc, ap = (np.stack(values, axis=1) for values in zip(*ranked, strict=True))
    f1 = ratio(2 * both, has + said)
    return {
        "accuracy": weights @ ~wrong.any(axis=1) / total,
        "majority": _largest_set(evidence.sets, weights) / total,
        "hamming_loss": weights @ wrong.mean(axis=1) / total,
        "micro_f1": ratio(2 * both.sum(axis=1), (has + said).sum(axis=1)),
        "macro_f1": _mean_of_defined(f1),
        "macro_auroc": _mean_of_defined(auroc),
        "macro_ap": _mean_of_defined(ap),
        "nll": weights @ nll / total,
        "precision": ratio(both, said),
        "recall": ratio(both, has),
        "f1": f1,
        "auroc": auroc,
        "ap": ap,
    }


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """[R, K] -> [R], over the labels for which a value is defined; nan without one."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))


def _largest_set(sets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[R]: the weight of the samples that have the most frequent set of labels."""
    order = np.argsort(sets, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(sets[order]) > 0])
    return np.add.reduceat(weights[:, order], starts, axis=1).max(axis=1)


def _ranking(truth, score, weights) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of one label, each [R].

    AUROC is the Mann-Whitney statistic over its number of pairs. Average precision is the sum,
    over the distinct scores from the highest down, of the precision among all that score as much,
    weighted by the share of the label's samples that come in there (no interpolation).
    """
    order = np.argsort(-score)
    ranked = score[order]
    ties_start = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    weights, truth = weights[:, order], truth[order]
    hits = np.add.reduceat(weights * truth, ties_start, axis=1)  # [R, distinct scores]
    misses = np.add.reduceat(weights * ~truth, ties_start, axis=1)
    above, below = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)
    of_label, of_others = above[:, -1], below[:, -1]
    wins = (hits * (of_others[:, None] - below + misses / 2)).sum(axis=1)
    precision = above / np.maximum(above + below, np.finfo(float).tiny)
    return ratio(wins, of_label * of_others), ratio((hits * precision).sum(axis=1), of_label)
