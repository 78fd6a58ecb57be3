"""What a model answers, as a reader wants it."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Logits [..., C] -> probabilities [..., C], float64."""
    logits = np.asarray(logits, np.float64)
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits -> the probability of each label for itself, float64."""
    return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))
