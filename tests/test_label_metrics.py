"""Metrics of several labels a row, against values worked out by hand and pair by pair."""

import numpy as np
import pytest

from fusion_keras import metrics
from fusion_keras.errors import UsageError

# Four samples, three labels; the third is in no truth and is never given.
LABELS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
PROBS = np.array([[0.9, 0.6, 0.1], [0.8, 0.7, 0.2], [0.6, 0.4, 0.1], [0.1, 0.2, 0.3]])


def test_values_by_hand():
    got = metrics.label_metrics(PROBS, LABELS)
    # Right throughout: the second sample and the fourth. Each label set comes once.
    assert got["accuracy"] == 0.5
    assert got["majority"] == 0.25
    assert got["hamming_loss"] == pytest.approx(3 / 12)
    # The first label: given to three, two of them rightly: F1 4 / 5. The second: 2 / 4.
    assert got["micro_f1"] == pytest.approx(6 / 9)
    assert got["macro_f1"] == pytest.approx((4 / 5 + 2 / 4) / 2)
    # The first ranks both before the others; of the second one pair of four is wrong.
    assert got["macro_auroc"] == pytest.approx((1 + 3 / 4) / 2)
    # The second's are the first and the third: 1/2 * 1 + 1/2 * 2/3.
    assert got["macro_ap"] == pytest.approx((1 + 5 / 6) / 2)
    p = np.where(LABELS == 1, PROBS, 1 - PROBS)
    assert got["nll"] == pytest.approx(-np.log(p).mean())


def test_each_label_by_hand():
    whole, each = metrics.summarise_labels(PROBS, LABELS, repeats=50)
    first, second, third = ({n: v["value"] for n, v in of_one.items()} for of_one in each)
    assert first == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "f1": 4 / 5, "auroc": 1, "ap": 1}
    )
    assert second == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "auroc": 3 / 4, "ap": 5 / 6}
    )
    assert all(np.isnan(value) for value in third.values())
    assert whole["accuracy"]["low"] <= 0.5 <= whole["accuracy"]["high"]


def test_exactly_half_is_not_given():
    got = metrics.label_metrics(np.array([[0.5, 0.5 + 1e-9]]), np.array([[0, 1]]))
    assert (got["accuracy"], got["micro_f1"]) == (1, 1)


def test_rankings_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    labels = (rng.random((120, 3)) < (0.5, 0.3, 0.1)).astype(int)
    # Rounded, so that probabilities are tied.
    probs = np.round(np.clip(labels * 0.3 + rng.random((120, 3)) * 0.7, 0, 1), 1)
    _, each = metrics.summarise_labels(probs, labels, repeats=2)
    for k, found in enumerate(each):
        score, true = probs[:, k], labels[:, k] == 1
        pairs = score[true][:, None] - score[~true]
        assert found["auroc"]["value"] == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean())
        # Precision among all that score as much as each sample that has the label.
        precision = [true[score >= value].mean() for value in score[true]]
        assert found["ap"]["value"] == pytest.approx(np.mean(precision))


def test_intervals_draw_groups_and_equal_repeated_evaluation():
    rng = np.random.default_rng(1)
    labels = (rng.random((40, 2)) < 0.4).astype(int)
    probs = rng.random((40, 2))
    groups = [f"g{row // 8}" for row in range(40)]
    whole, each = metrics.summarise_labels(probs, labels, groups=groups, repeats=200, seed=3)
    drawn = np.concatenate(list(metrics._draw(5, 40, 200, 3))).astype(int)
    found = []
    for times in drawn:
        rows = np.concatenate(
            [np.repeat(np.arange(8 * g, 8 * g + 8), n) for g, n in enumerate(times)]
        )
        found.append(metrics.label_metrics(probs[rows], labels[rows]))
    for name in ("accuracy", "majority", "micro_f1", "macro_f1", "macro_auroc", "macro_ap", "nll"):
        low, high = np.quantile([values[name] for values in found], [0.025, 0.975])
        assert (whole[name]["low"], whole[name]["high"]) == pytest.approx((low, high)), name
    assert each[0]["f1"]["low"] <= each[0]["f1"]["value"] <= each[0]["f1"]["high"]


@pytest.mark.parametrize(
    ("probs", "labels"),
    [([[0.5, 1.2]], [[0, 1]]), ([[0.5, 0.2]], [[0, 2]]), ([[0.5, 0.2]], [0]), ([0.5], [1])],
)
def test_what_does_not_fit_is_refused(probs, labels):
    with pytest.raises(ValueError, match="got probs"):
        metrics.label_metrics(np.array(probs), np.array(labels))


def test_a_diverged_training_is_told():
    with pytest.raises(UsageError, match="1 of 2 values"):
        metrics.label_metrics(np.array([[np.nan, 0.1]]), np.array([[0, 1]]))
