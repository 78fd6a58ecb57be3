"""Metrics against cases worked by hand and against the arithmetic of published MOSI codes."""

import math
import time

import numpy as np
import pytest

from fusion_keras import metrics
from fusion_keras.errors import UsageError


def as_probs(classes, confidence=0.9):
    """Probabilities whose most probable class is the given one, in the binary case."""
    classes = np.asarray(classes)
    return np.where(classes[:, None] == np.arange(2), confidence, 1 - confidence)


def synthetic(count=700, groups=31, seed=0):
    """A made-up split of MOSI's size: probs, labels and the keyword arguments."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.uniform(-3, 3, count) * 5) / 5
    predicted = scores + rng.normal(0, 1.5, count)
    p1 = 1 / (1 + np.exp(-predicted))
    given = {"scores": scores.astype(np.float32), "predicted_scores": predicted}
    names = [f"video{index}" for index in rng.integers(groups, size=count)]
    return np.stack([1 - p1, p1], 1), (scores >= 0).astype(np.int32), given, names


class TestClassMetrics:
    # Three classes; truths 0 0 0 1 1 2, predictions 0 0 1 1 2 1.
    #   class 0: tp 2, truths 3, predictions 2 -> F1 = 4 / 5
    #   class 1: tp 1, truths 2, predictions 3 -> F1 = 2 / 5
    #   class 2: tp 0, truths 1, predictions 1 -> F1 = 0
    LABELS = np.array([0, 0, 0, 1, 1, 2])
    PREDICTED = np.array([0, 0, 1, 1, 2, 1])
    PROBS = np.where(PREDICTED[:, None] == np.arange(3), 0.8, 0.1)

    def test_three_classes_by_hand(self):
        got = metrics.classification_metrics(self.PROBS, self.LABELS)
        assert list(got) == ["accuracy", "majority", "macro_f1", "weighted_f1", "ece", "nll"]
        assert got["accuracy"] == pytest.approx(3 / 6)
        assert got["majority"] == pytest.approx(3 / 6)
        assert got["macro_f1"] == pytest.approx((4 / 5 + 2 / 5 + 0) / 3)
        assert got["weighted_f1"] == pytest.approx((3 * 4 / 5 + 2 * 2 / 5 + 0) / 6)
        # One bin: confidence 0.8 throughout, half of it right.
        assert got["ece"] == pytest.approx(0.3)
        assert got["nll"] == pytest.approx(-(3 * math.log(0.8) + 3 * math.log(0.1)) / 6)

    def test_confusion_matrix_has_truths_as_rows(self):
        got = metrics.confusion_matrix(self.LABELS, self.PREDICTED, 3)
        assert got.tolist() == [[2, 1, 0], [0, 1, 1], [0, 1, 0]]
        assert metrics.confusion_matrix(np.array([], int), np.array([], int), 2).sum() == 0

    def test_a_class_that_occurs_nowhere_is_no_part_of_macro_f1(self):
        probs = np.pad(self.PROBS, ((0, 0), (0, 4)))
        got = metrics.classification_metrics(probs, self.LABELS)
        assert got["macro_f1"] == pytest.approx((4 / 5 + 2 / 5 + 0) / 3)

    def test_calibration_error_weighs_bins_by_their_samples(self):
        # (0.6, 0.667]: 0.65 right, 0.65 wrong -> gap sum |1.3 - 1| = 0.3
        # (0.933, 1]: 0.95 wrong, 0.95 right, 1.0 right -> |2.9 - 2| = 0.9
        p1 = np.array([0.65, 0.65, 0.95, 0.95, 1.0])
        labels = np.array([1, 0, 0, 1, 1])
        got = metrics.classification_metrics(np.stack([1 - p1, p1], 1), labels)
        assert got["ece"] == pytest.approx((0.3 + 0.9) / 5)

    def test_there_are_fifteen_bins_and_opposite_gaps_in_two_of_them_do_not_cancel(self):
        # 14/15 = 0.9333 parts the two: the one right (gap -0.08), the other wrong (gap 0.94).
        p1 = np.array([0.92, 0.94])
        got = metrics.classification_metrics(np.stack([1 - p1, p1], 1), np.array([1, 0]))
        assert got["ece"] == pytest.approx((0.08 + 0.94) / 2)

    def test_a_confidence_on_an_edge_is_in_the_bin_below(self):
        # (8/15, 9/15] holds 0.58 (wrong) and 0.6 (right): |0.58 + 0.6 - 1|.
        p1 = np.array([0.58, 0.6])
        got = metrics.classification_metrics(np.stack([1 - p1, p1], 1), np.array([0, 1]))
        assert got["ece"] == pytest.approx(0.18 / 2)

    def test_certain_and_wrong_costs_the_clipped_logarithm(self):
        got = metrics.classification_metrics(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1]))
        assert got["nll"] == pytest.approx(-math.log(1e-7) / 2)

    def test_auroc_counts_ties_half(self):
        # Positives 0.8, 0.5; negatives 0.5, 0.2, 0.9. Pairs won: 0.8 beats 0.5 and 0.2;
        # 0.5 ties with 0.5 and beats 0.2. 2 + 1.5 of 6.
        p1 = np.array([0.8, 0.5, 0.5, 0.2, 0.9])
        got = metrics.classification_metrics(np.stack([1 - p1, p1], 1), np.array([1, 1, 0, 0, 0]))
        assert got["auroc"] == pytest.approx(3.5 / 6)

    def test_majority_is_of_the_split_that_is_scored(self):
        got = metrics.classification_metrics(as_probs([1, 1, 1, 1]), np.array([0, 0, 0, 1]))
        assert got["majority"] == pytest.approx(0.75)
        assert got["accuracy"] == got["acc2"] == pytest.approx(0.25)
        got = metrics.classification_metrics(as_probs([0, 0, 0, 0]), np.array([1, 1, 0, 1]))
        assert got["majority"] == pytest.approx(0.75)


class TestAcc2ByClass:
    def test_both_conventions_by_hand(self):
        # score     -2  -1   0   0   1   2     (truths: - - + + + +; zeros dropped: - - + +)
        # predicted  0   1   0   1   1   0
        scores = np.array([-2.0, -1, 0, 0, 1, 2])
        got = metrics.classification_metrics(
            as_probs([0, 1, 0, 1, 1, 0]), (scores >= 0).astype(int), scores=scores
        )
        assert got["acc2_nonneg"] == got["accuracy"] == pytest.approx(3 / 6)
        assert got["acc2_nonzero"] == pytest.approx(2 / 4)
        # With zeros: negative tp 1, truths 2, predictions 3 -> 2/5; other tp 2, 4, 3 -> 4/7.
        assert got["f1_nonneg"] == pytest.approx((2 * 2 / 5 + 4 * 4 / 7) / 6)
        # Without: each class tp 1, truths 2, predictions 2 -> 1/2.
        assert got["f1_nonzero"] == pytest.approx(1 / 2)

    def test_absent_for_three_classes(self):
        probs = np.full((3, 3), 1 / 3)
        got = metrics.classification_metrics(probs, np.array([0, 1, 2]), scores=np.zeros(3))
        assert not [name for name in got if name.startswith(("acc2", "auroc"))]


# ---- The arithmetic of published codes, written here from their definitions -------------------


def accuracy_of(truth, predicted):
    return sum(t == p for t, p in zip(truth, predicted, strict=True)) / len(truth)


def weighted_f1_of(first, second):
    """Weighted F1 as scikit-learn defines it: weights are the supports in the first argument."""
    total = 0.0
    for kind in sorted(set(first) | set(second)):
        both = sum(a == b == kind for a, b in zip(first, second, strict=True))
        in_first, in_second = list(first).count(kind), list(second).count(kind)
        total += in_first / len(first) * 2 * both / (in_first + in_second)
    return total


class TestPublishedRegressionArithmetic:
    # Truths of 0, a predicted score of exactly 0, halves, and scores outside [-3, 3].
    TRUTH = np.array([-3.0, -1.4, -0.6, 0.0, 0.0, 0.0, 0.4, 1.0, 1.8, 2.6, 2.4, -2.2])
    SAID = np.array([-3.8, 0.2, 0.0, 0.3, 0.7, 0.0, 0.5, -0.4, 2.5, 3.9, 2.2, 1.5])
    KEPT = TRUTH != 0

    @pytest.fixture
    def ours(self):
        labels = (self.TRUTH >= 0).astype(int)
        return metrics.classification_metrics(
            as_probs(labels), labels, scores=self.TRUTH, predicted_scores=self.SAID
        )

    def test_mmsa_equals_ours_throughout(self, ours):
        truth, said = self.TRUTH >= 0, self.SAID >= 0
        assert ours["regression_acc2_nonneg"] == pytest.approx(accuracy_of(truth, said))
        assert ours["regression_f1_nonneg"] == pytest.approx(weighted_f1_of(truth, said))
        truth, said = self.TRUTH[self.KEPT] > 0, self.SAID[self.KEPT] > 0
        assert ours["regression_acc2_nonzero"] == pytest.approx(accuracy_of(truth, said))
        assert ours["regression_f1_nonzero"] == pytest.approx(weighted_f1_of(truth, said))
        for name, limit in (("acc7", 3), ("acc5", 2)):
            hits = np.round(self.SAID.clip(-limit, limit)) == np.round(
                self.TRUTH.clip(-limit, limit)
            )
            assert ours[name] == pytest.approx(hits.mean())
        assert ours["mae"] == pytest.approx(np.abs(self.SAID - self.TRUTH).mean())
        assert ours["pearson"] == pytest.approx(np.corrcoef(self.SAID, self.TRUTH)[0, 1])

    def test_mult_with_zeros_counts_them_as_negative_and_is_neither_of_ours(self, ours):
        theirs = accuracy_of(self.TRUTH > 0, self.SAID > 0)  # 0 > 0 is false: negative
        assert theirs != pytest.approx(ours["regression_acc2_nonneg"])
        assert theirs != pytest.approx(ours["regression_acc2_nonzero"])

    def test_mult_without_zeros_is_acc2_nonzero(self, ours):
        theirs = accuracy_of(self.TRUTH[self.KEPT] > 0, self.SAID[self.KEPT] > 0)
        assert theirs == pytest.approx(ours["regression_acc2_nonzero"])

    def test_misa_and_mult_swap_the_arguments_of_f1(self, ours):
        truth, said = self.TRUTH[self.KEPT] > 0, self.SAID[self.KEPT] > 0
        assert weighted_f1_of(said, truth) != pytest.approx(ours["regression_f1_nonzero"])
        assert weighted_f1_of(truth, said) == pytest.approx(ours["regression_f1_nonzero"])

    def test_mag_drops_zeros_from_mae_and_correlation_too(self, ours):
        truth, said = self.TRUTH[self.KEPT], self.SAID[self.KEPT]
        assert np.abs(said - truth).mean() != pytest.approx(ours["mae"])
        assert np.corrcoef(said, truth)[0, 1] != pytest.approx(ours["pearson"])

    def test_mag_calls_a_prediction_of_exactly_zero_positive(self, ours):
        truth, said = self.TRUTH[self.KEPT], self.SAID[self.KEPT]
        differ = accuracy_of(truth >= 0, said >= 0) - ours["regression_acc2_nonzero"]
        assert differ == pytest.approx(-1 / self.KEPT.sum())  # the -0.6 predicted as 0.0
        away = said != 0
        assert accuracy_of(truth[away] >= 0, said[away] >= 0) == pytest.approx(
            accuracy_of(truth[away] > 0, said[away] > 0)
        )

    def test_regression_metrics_by_hand(self):
        truth, said = np.array([-1.0, 0.0, 2.0, 3.0]), np.array([1.0, 0.2, 2.0, 5.0])
        got = metrics.classification_metrics(
            as_probs([0, 1, 1, 1]), np.array([0, 1, 1, 1]), scores=truth, predicted_scores=said
        )
        assert got["mae"] == pytest.approx((2 + 0.2 + 0 + 2) / 4)
        # Rounded to [-3, 3]: truths -1 0 2 3, predictions 1 0 2 3; to [-2, 2]: -1 0 2 2, 1 0 2 2.
        assert got["acc7"] == got["acc5"] == pytest.approx(3 / 4)
        assert got["regression_acc2_nonneg"] == pytest.approx(3 / 4)
        assert got["regression_acc2_nonzero"] == pytest.approx(2 / 3)
        # Means 1 and 2.05; deviations -2 -1 1 2 and -1.05 -1.85 -0.05 2.95.
        products = 2.10 + 1.85 - 0.05 + 5.90
        squares = 1.1025 + 3.4225 + 0.0025 + 8.7025
        assert got["pearson"] == pytest.approx(products / math.sqrt(10 * squares))

    @pytest.mark.parametrize(
        ("truth", "said", "hit"),
        # Halves go to the even number: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, and not away from zero.
        [(0.5, 0.0, 1), (0.5, 1.0, 0), (1.5, 2.0, 1), (2.5, 2.0, 1), (2.5, 3.0, 0), (-0.5, 0.0, 1)],
    )
    def test_halves_round_as_numpy_rounds_them(self, truth, said, hit):
        got = metrics.classification_metrics(
            as_probs([1]),
            np.array([1]),
            scores=np.array([truth]),
            predicted_scores=np.array([said]),
        )
        assert got["acc7"] == hit


class TestUndefined:
    def test_is_nan_without_a_warning(self):
        got = metrics.summarise(
            as_probs([1, 1, 0]), np.array([1, 1, 1]), scores=np.zeros(3), predicted_scores=[0.1] * 3
        )
        for name in ("auroc", "acc2_nonzero", "f1_nonzero", "regression_f1_nonzero", "pearson"):
            assert all(math.isnan(value) for value in got[name].values()), name
        assert got["accuracy"]["value"] == pytest.approx(2 / 3)

    def test_correlation_with_constant_predictions_is_undefined(self):
        got = metrics.classification_metrics(
            as_probs([0, 1, 1]),
            np.array([0, 1, 1]),
            scores=[-1, 1, 2.5],
            predicted_scores=[0.1] * 3,
        )
        assert math.isnan(got["pearson"])

    def test_correlation_ignores_resamples_that_repeat_one_prediction(self):
        # One group is predicted -0.4 throughout; drawn twice, it has no correlation, though in
        # floating point its variance comes out above 0.
        given = {
            "scores": [-1.0, 1, 2, -2, 1, 3],
            "predicted_scores": [-0.4] * 3 + [-1.0, 1.1, 2.3],
        }
        probs, labels, names = as_probs([1] * 6), np.array([0, 1, 1, 0, 1, 1]), list("aaabbb")
        got = metrics.bootstrap_intervals(["pearson"], probs, labels, groups=names, **given)
        both = np.corrcoef(*given.values())[0, 1]
        one = np.corrcoef(given["scores"][3:], given["predicted_scores"][3:])[0, 1]
        assert got["pearson"] == pytest.approx(tuple(sorted([both, one])))

    def test_one_sample_has_values_but_no_interval(self):
        got = metrics.summarise(as_probs([1]), np.array([1]))
        assert got["accuracy"]["value"] == 1
        assert math.isnan(got["accuracy"]["low"])
        assert math.isnan(got["accuracy"]["high"])

    def test_one_group_has_no_interval(self):
        got = metrics.bootstrap_intervals(
            ["accuracy"], as_probs([1, 0]), np.array([1, 1]), groups=["v", "v"]
        )
        assert all(math.isnan(end) for end in got["accuracy"])

    def test_resamples_where_a_metric_is_undefined_are_left_out(self):
        # With three samples and one negative, many resamples hold one class only.
        got = metrics.summarise(as_probs([0, 1, 1]), np.array([0, 1, 1]))
        assert got["auroc"] == {"value": 1.0, "low": 1.0, "high": 1.0}


class TestBadInput:
    @pytest.mark.parametrize(
        ("probs", "labels", "given", "message"),
        [
            (np.ones((2, 1)), [0, 0], {}, r"wanted \[N >= 1, C >= 2\]"),
            (np.ones((0, 2)), [], {}, r"wanted \[N >= 1, C >= 2\]"),
            ([[2.0, -1.0]], [0], {}, "apply softmax"),
            ([[3.0, 1.0]], [0], {}, "apply softmax"),
            (as_probs([0, 1]), [0], {}, r"got labels of shape \(1,\), wanted \(2,\)"),
            (as_probs([0, 1]), [0, 2], {}, "wanted 0 to 1"),
            (as_probs([0, 1]), [0.0, 1.0], {}, "wanted integers"),
            (as_probs([0, 1]), [0, 1], {"scores": [1.0]}, "got scores of shape"),
            (as_probs([0, 1]), [0, 1], {"predicted_scores": [1.0, 2.0]}, "without scores"),
        ],
    )
    def test_says_what_was_wanted(self, probs, labels, given, message):
        with pytest.raises(ValueError, match=message):
            metrics.classification_metrics(np.asarray(probs), np.asarray(labels), **given)

    def test_a_diverged_run_is_told_to_the_user(self):
        with pytest.raises(UsageError, match="got 2 of 4 values in probs that are nan"):
            metrics.classification_metrics(np.array([[np.nan] * 2, [0.5] * 2]), np.array([0, 1]))

    def test_names_must_exist_and_groups_must_fit(self):
        with pytest.raises(ValueError, match=r"got metrics \['mae'\]"):
            metrics.bootstrap_intervals(["mae"], as_probs([0, 1]), np.array([0, 1]))
        with pytest.raises(ValueError, match="got groups of shape"):
            metrics.bootstrap_intervals(None, as_probs([0, 1]), np.array([0, 1]), groups=["a"])

    def test_confusion_matrix_refuses_unlike_lengths(self):
        with pytest.raises(ValueError, match="got predicted of shape"):
            metrics.confusion_matrix(np.array([0, 1]), np.array([0]), 2)


class TestBootstrap:
    def test_accuracy_interval_is_the_binomial_one(self):
        rng = np.random.default_rng(1)
        correct = np.arange(700) < 560
        labels = rng.integers(2, size=700)
        got = metrics.bootstrap_intervals(
            ["accuracy"], as_probs(np.where(correct, labels, 1 - labels)), labels, repeats=4000
        )
        half_width = 1.96 * math.sqrt(0.8 * 0.2 / 700)  # 2.96 points
        assert got["accuracy"] == pytest.approx((0.8 - half_width, 0.8 + half_width), abs=2e-3)

    def test_level_widens_the_interval_and_seed_repeats_it(self):
        probs, labels, given, _ = synthetic(200)
        at = [
            metrics.bootstrap_intervals(["mae"], probs, labels, **given, level=level)["mae"]
            for level in (0.5, 0.95, 0.95)
        ]
        assert at[1] == at[2]
        assert at[1][0] < at[0][0] < at[0][1] < at[1][1]
        assert at[1] != metrics.bootstrap_intervals(["mae"], probs, labels, **given, seed=1)["mae"]

    def test_whole_groups_are_drawn(self):
        # Two groups of ten, all right in one and all wrong in the other: a resample of groups
        # has accuracy 0, 1/2 or 1; a resample of samples stays near 1/2.
        labels = np.zeros(20, int)
        probs, names = as_probs(np.repeat([0, 1], 10)), ["right"] * 10 + ["wrong"] * 10
        by_group = metrics.bootstrap_intervals(["accuracy"], probs, labels, groups=names)
        by_sample = metrics.bootstrap_intervals(["accuracy"], probs, labels)
        assert by_group["accuracy"] == (0.0, 1.0)
        assert 0.2 < by_sample["accuracy"][0] < by_sample["accuracy"][1] < 0.8

    def test_a_resample_scores_as_the_repeated_samples_would(self):
        probs, labels, given, names = synthetic(60, groups=7)
        _, unit = np.unique(names, return_inverse=True)
        (weights,) = metrics._draw(7, 60, repeats=5, seed=3)
        evidence = metrics.gather(probs, labels, *given.values())
        got = metrics.evaluate(evidence, metrics.per_unit(evidence, unit), unit, weights)
        for row, times in enumerate(weights):
            taken = np.repeat(np.arange(60), times.astype(int)[unit])
            plain = metrics.classification_metrics(
                probs[taken], labels[taken], **{name: each[taken] for name, each in given.items()}
            )
            assert {name: value[row] for name, value in got.items()} == pytest.approx(plain)

    def test_a_large_split_is_drawn_in_several_pieces(self, monkeypatch):
        probs, labels, _, names = synthetic(50)
        whole = metrics.bootstrap_intervals(None, probs, labels, groups=names, repeats=101)
        monkeypatch.setattr(metrics, "_HELD_AT_ONCE", 500)
        pieces = [len(piece) for piece in metrics._draw(31, 50, repeats=101, seed=0)]
        assert pieces == [10] * 10 + [1]
        apart = metrics.bootstrap_intervals(None, probs, labels, groups=names, repeats=101)
        assert list(apart) == list(whole)

    def test_all_metrics_of_a_split_like_mosi_take_under_two_seconds(self):
        probs, labels, given, names = synthetic(700)
        seconds = []
        for _ in range(3):  # the best of three, of this process: others may be busy
            start = time.process_time()
            got = metrics.summarise(probs, labels, **given, groups=names, repeats=1000)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 2
        assert len(got) == 20
        for name, entry in got.items():
            assert entry["low"] < entry["high"], name
            # The calibration error of a resample is biased upwards; all else holds its value.
            assert name == "ece" or entry["low"] <= entry["value"] <= entry["high"], name


class TestPairedBootstrap:
    def test_equal_runs_do_not_differ(self):
        correct = np.arange(50) % 3 > 0
        got = metrics.paired_bootstrap(correct, correct)
        assert got == {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0}

    def test_difference_and_interval_by_hand(self):
        # a alone right on 60 of 400, b alone on 20: difference 0.1; per-sample variance
        # 80 / 400 - 0.1 ** 2 = 0.19, so the standard error is sqrt(0.19 / 400) = 0.0218.
        a = np.r_[np.ones(60), np.zeros(20), np.ones(320)]
        b = np.r_[np.zeros(60), np.ones(20), np.ones(320)]
        got = metrics.paired_bootstrap(a, b)
        error = math.sqrt(0.19 / 400)
        assert got["difference"] == pytest.approx(0.1)
        assert got["low"] == pytest.approx(0.1 - 1.96 * error, abs=3e-3)
        assert got["high"] == pytest.approx(0.1 + 1.96 * error, abs=3e-3)
        assert got["p_value"] == pytest.approx(2 / 10_001)  # 4.6 standard errors: never below 0
        back = metrics.paired_bootstrap(b, a)
        assert back["difference"] == pytest.approx(-0.1)
        assert back["high"] == pytest.approx(-got["low"])

    def test_p_value_agrees_with_the_interval(self):
        rng = np.random.default_rng(0)
        agree = []
        for share in (0.5, 0.55, 0.6, 0.7, 0.8):
            a, b = rng.random(300) < share, rng.random(300) < 0.5
            got = metrics.paired_bootstrap(a, b, repeats=2000)
            agree.append((got["p_value"] < 0.05) == (got["low"] > 0 or got["high"] < 0))
        assert all(agree)

    def test_seeds_are_averaged_before_samples_are_drawn(self):
        a = np.array([[1, 0, 1, 1], [1, 1, 1, 0]])
        b = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
        got = metrics.paired_bootstrap(a, b)
        # Per sample: 1, 0, 0.5, -0.5, which is also what a single "seed" of these gains gives.
        assert got == metrics.paired_bootstrap(np.array([1, 0, 0.5, -0.5]), np.zeros(4))
        assert got["difference"] == pytest.approx(0.25)

    def test_a_resample_that_ends_in_a_draw_counts_for_both_sides(self):
        # Ten seeds: three samples gained by 0.1, one lost by 0.3. Drawing both groups gives
        # 0.1 + 0.1 + 0.1 - 0.3, which is not 0 in floating point.
        got = metrics.paired_bootstrap([0.1, 0.1, 0.1, 0], [0, 0, 0, 0.3], groups=list("aaab"))
        assert got["p_value"] == 1.0

    def test_dependent_samples_widen_the_interval(self):
        # Ten groups of forty; each group is wholly gained or wholly not.
        gained = np.repeat([1, 1, 1, 1, 1, 1, 0, 0, 0, 0], 40)
        names = np.repeat([f"video{index}" for index in range(10)], 40)
        by_group = metrics.paired_bootstrap(gained, np.zeros(400), groups=names)
        by_sample = metrics.paired_bootstrap(gained, np.zeros(400))
        assert by_group["high"] - by_group["low"] > 4 * (by_sample["high"] - by_sample["low"])

    def test_one_group_gives_a_difference_and_nothing_else(self):
        got = metrics.paired_bootstrap(np.array([1, 1]), np.array([0, 1]), groups=["v", "v"])
        assert got.pop("difference") == 0.5
        assert all(math.isnan(value) for value in got.values())

    def test_unlike_shapes_are_refused(self):
        for a, b in ((3, 4), ((2, 3), 3), ((2, 3), (3, 3)), (0, 0), ((1, 2, 3), (1, 2, 3))):
            with pytest.raises(ValueError, match=r"wanted the same \[N\] or \[seeds, N\]"):
                metrics.paired_bootstrap(np.ones(a), np.ones(b))
        with pytest.raises(ValueError, match="got groups of shape"):
            metrics.paired_bootstrap(np.ones(3), np.ones(3), groups=["a"])


def test_labels_that_are_not_the_signs_of_the_scores_have_no_acc2_of_scores():
    probs, scores = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([2.0, -2.0])
    told = metrics.classification_metrics(probs, np.array([0, 1]), scores=scores)
    assert "acc2_nonneg" not in told
    assert "acc2_nonneg" in metrics.classification_metrics(probs, np.array([1, 0]), scores=scores)
