"""The negative log-likelihood of rows, and how sure its mean is."""

from __future__ import annotations

import numpy as np

from fusion_keras.metric_sums import SMALLEST_PROBABILITY


def half_width(own: np.ndarray, lower: np.ndarray, labels: np.ndarray, rows: int) -> float:
    """Of the 95 % interval of a precision's mean negative log-likelihood, rows taken as
    independent: 1.96 standard errors, of the model's own on all rows, and of what the precision
    adds on those that were scored.

    Args:
        own, lower: logits of the model and of the precision, on the scored rows.
        labels: theirs; see `losses_of`.
        rows: how many there are in all.
    """
    losses = losses_of(own, labels)
    if len(losses) < 2:
        return 0.0
    added = losses_of(lower, labels) - losses
    return float(1.96 * np.sqrt(losses.var(ddof=1) / rows + added.var(ddof=1) / len(losses)))


def losses_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each row, [N], of logits [N, C] and labels [N]; of several labels
    a row [N, K] their mean."""
    # As `metrics` has it.
    most = -np.log(SMALLEST_PROBABILITY)
    if labels.ndim == 2:
        return np.minimum(np.logaddexp(0, logits) - labels * logits, most).mean(1)
    raised = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(raised, labels[:, None], -1)[:, 0]
    return np.minimum(np.log(np.exp(raised).sum(-1)) - chosen, most)
