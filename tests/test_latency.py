"""Percentiles, ratios and drift, against published counts and cases worked out by hand."""

import itertools

import numpy as np
import pytest

from bench.edge.latency import (
    drift,
    early_stopping,
    overlatency,
    ratio,
    signed_rank_quantile,
    steady,
    summary,
)


# MLPerf inference rules: the fewest queries for a percentile, and 80 above it of 1024.
@pytest.mark.parametrize(("percentile", "fewest"), [(0.9, 64), (0.95, 130), (0.99, 662)])
def test_a_percentile_wants_the_counts_that_mlperf_names(percentile, fewest):
    assert overlatency(fewest - 1, percentile) == 0
    assert overlatency(fewest, percentile) == 1


def test_of_1024_samples_the_estimate_is_the_80th_largest():
    samples = np.random.default_rng(0).permutation(1024) + 1.0
    assert overlatency(1024, 0.9) == 80
    assert early_stopping(samples, 0.9) == 1024 - 79


def test_the_estimate_lies_below_the_true_percentile_in_one_case_of_a_hundred():
    rng = np.random.default_rng(1)
    below = [early_stopping(rng.random(300), 0.9) < 0.9 for _ in range(4000)]
    assert 0.003 < np.mean(below) <= 0.014


def test_a_summary_has_no_percentile_that_the_count_does_not_allow():
    found = summary([[1.0, 2.0, 3.0]] * 22)
    assert (found["count"], found["min"], found["p50"], found["mean"]) == (66, 1, 2, 2)
    assert found["p90"] == 3
    assert found["p95"] is found["p99"] is None
    assert found["p50_interval"] == [2, 2]
    few = summary([[1.0, 2.0], [3.0]])
    assert (few["p90"], few["p50_interval"]) == (None, None)
    assert summary([[]])["count"] == 0


def test_intervals_hold_the_drift_between_blocks():
    calm = summary([[10.0, 11.0, 12.0]] * 10)["p50_interval"]
    moody = summary([[10.0, 11.0, 12.0]] * 5 + [[20.0, 21.0, 22.0]] * 5)["p50_interval"]
    assert calm == [11, 11]
    assert moody[0] < 12
    assert moody[1] > 19


def test_warm_up_ends_when_samples_stop_falling():
    falling = [100 * 0.9**i for i in range(30)]
    assert not steady(falling)
    assert not steady([5.0] * 23)
    assert steady([*falling, *([5.0] * 24)])


@pytest.mark.parametrize("count", [5, 8])
def test_signed_rank_quantile_is_that_of_all_sign_patterns(count):
    ranks = np.arange(1, count + 1)
    sums = [ranks @ np.array(s) for s in itertools.product((0, 1), repeat=count)]
    for probability in (0.005, 0.025, 0.1):
        c = signed_rank_quantile(count, probability)
        assert np.mean(np.array(sums) < c) <= probability < np.mean(np.array(sums) < c + 1)


def blocks(rng, machine, factor, queries=8, noise=0.02):
    return [list(factor * m * (1 + noise * rng.standard_normal(queries))) for m in machine]


def test_a_drifting_machine_does_not_move_the_ratio():
    rng = np.random.default_rng(2)
    machine = 40 * np.repeat([1.0, 1.25, 0.9], 10)
    found = ratio(blocks(rng, machine, 1.1), blocks(rng, machine, 1))
    assert found["rounds"] == 30
    assert found["low"] < 1.1 < found["high"]
    assert found["high"] - found["low"] < 0.04
    assert found["verdict"] == "slower"
    assert ratio(blocks(rng, machine, 1), blocks(rng, machine, 1.1))["verdict"] == "faster"
    assert ratio(blocks(rng, machine, 1), blocks(rng, machine, 1))["verdict"] == "same"


def test_noise_gives_no_verdict_but_in_one_case_of_a_hundred():
    rng = np.random.default_rng(3)
    machine = [40.0] * 16
    verdicts = [
        ratio(blocks(rng, machine, 1, noise=0.3), blocks(rng, machine, 1, noise=0.3))["verdict"]
        for _ in range(500)
    ]
    assert verdicts.count("faster") + verdicts.count("slower") <= 10
    assert "same" not in verdicts


def test_too_few_rounds_give_a_ratio_without_a_verdict():
    found = ratio([[2.0]] * 7, [[1.0]] * 7)
    assert (found["ratio"], found["low"], found["verdict"]) == (2, None, "unclear")
    assert ratio([[2.0]] * 8, [[1.0]] * 8)["verdict"] == "slower"
    assert ratio([], [])["ratio"] is None


def test_rounds_that_one_of_both_did_not_reach_do_not_count():
    assert ratio([[2.0]] * 9 + [[]], [[1.0]] * 12)["rounds"] == 9


def test_a_round_compares_the_queries_that_both_answered():
    # Two sentences, one ten times as long: the first contender's turn ends in the middle.
    found = ratio([[1.0, 10.0, 1.0]] * 12, [[1.0, 10.0, 1.0, 10.0, 10.0, 10.0]] * 12)
    assert (found["ratio"], found["verdict"]) == (1, "same")


def test_many_rounds_are_no_trouble():
    assert ratio([[2.0]] * 1100, [[1.0]] * 1100)["verdict"] == "slower"


def test_drift_is_told_from_all_contenders():
    calm = [[[10.0]] * 12, [[30.0]] * 12]
    assert drift(calm) == {"change": 1, "steady": True, "sentence": "the machine kept its speed"}
    slower = [[[10.0]] * 8 + [[15.0]] * 4, [[30.0]] * 8 + [[45.0]] * 4]
    found = drift(slower)
    assert not found["steady"]
    assert found["change"] == pytest.approx(1.5)
    assert "1.50 times slower" in found["sentence"]
    assert drift([[[1.0]]])["steady"]
