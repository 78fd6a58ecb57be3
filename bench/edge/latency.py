"""What samples of a latency say: percentiles that hold, ratios that survive a drifting machine.

Milliseconds throughout. Samples come in blocks: while one contender runs a block, the others
stand still, and the order within a round is drawn anew. Whatever makes the whole machine slower
for a second or an hour then falls on all contenders alike.
"""

from __future__ import annotations

import math

import numpy as np

# MLPerf inference rules, "Early stopping" (github.com/mlcommons/inference_policies): the
# percentile holds with this confidence.
EARLY_STOPPING_CONFIDENCE = 0.99
_RESAMPLES = 1000
# Times faster or slower than before that a machine may become within one measurement.
STEADY = 1.10


def early_stopping(samples: np.ndarray, percentile: float) -> float | None:
    """An upper estimate of a percentile, as MLPerf's early stopping defines it.

    The t-th largest of n samples, with the largest t at which, were the true percentile above
    it, so few larger samples would come up with a probability of 1 % at most: P(X <= t) <= 0.01,
    X binomial (n, 1 - percentile). Of 1024 samples the 80th largest for 0.9.

    Returns:
        None where there are too few samples: 64 are wanted for 0.9, 130 for 0.95, 662 for 0.99.
    """
    values = np.sort(np.asarray(samples, np.float64))
    rank = overlatency(len(values), percentile)
    return float(values[-rank]) if rank else None


def overlatency(count: int, percentile: float) -> int:
    """The t of `early_stopping` for so many samples; 0 where they are too few."""
    if count < 1:
        return 0
    k = np.arange(count + 1)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    logs = log_factorial[count] - log_factorial[k] - log_factorial[count - k]
    logs += k * math.log(1 - percentile) + (count - k) * math.log(percentile)
    below = np.cumsum(np.exp(logs))
    return max(0, int((below <= 1 - EARLY_STOPPING_CONFIDENCE).sum()) - 1)


def summary(blocks: list[list[float]]) -> dict:
    """Count, mean, min, p50, p90, p95, p99, and intervals of p50 and p90.

    p90, p95, p99 are early-stopping estimates, None where the count does not allow them. The
    intervals (95 %) come from resampling whole blocks, so that they hold what the machine's
    drift adds; None with fewer than five blocks.
    """
    samples = np.concatenate([np.asarray(block, np.float64) for block in blocks])
    if not len(samples):
        return dict.fromkeys(("mean", "min", "p50", "p90", "p95", "p99"), None) | {
            "count": 0,
            "p50_interval": None,
            "p90_interval": None,
        }
    return {
        "count": len(samples),
        "mean": float(samples.mean()),
        "min": float(samples.min()),
        "p50": float(np.median(samples)),
        **{f"p{p}": early_stopping(samples, p / 100) for p in (90, 95, 99)},
        "p50_interval": _resampled(blocks, 0.5),
        "p90_interval": _resampled(blocks, 0.9),
    }


def _resampled(blocks: list[list[float]], percentile: float) -> list[float] | None:
    blocks = [np.asarray(block, np.float64) for block in blocks if len(block)]
    if len(blocks) < 5:
        return None
    rng = np.random.default_rng(0)
    # Of very many samples, fewer resamples: hours of them shall not take minutes to sum up.
    resamples = max(100, min(_RESAMPLES, int(2e7 / sum(map(len, blocks)))))
    quantiles = [
        np.quantile(np.concatenate([blocks[i] for i in drawn]), percentile)
        for drawn in rng.integers(0, len(blocks), (resamples, len(blocks)))
    ]
    return [float(x) for x in np.quantile(quantiles, [0.025, 0.975])]


def steady(samples: list[float], window: int = 8, within: float = 0.03) -> bool:
    """Whether a warm-up is over: the last windows of samples have medians that hardly differ."""
    if len(samples) < 3 * window:
        return False
    last = [np.median(samples[-(i + 1) * window : len(samples) - i * window]) for i in range(3)]
    return bool(max(last) <= (1 + within) * min(last))


def ratio(
    first: list[list[float]],
    second: list[list[float]],
    *,
    margin: float = 0.03,
    confidence: float = 0.99,
) -> dict:
    """How many times as long the first takes as the second.

    Block k of both belongs to round k, and begins with the same queries. Each round gives one ratio
    of medians, over the queries that both answered; of their logarithms
    the Hodges-Lehmann estimate and the exact interval of Wilcoxon's signed-rank test (Hollander,
    Wolfe and Chicken 2014, Nonparametric Statistical Methods, sections 3.1 to 3.3). Since the
    order within a round is drawn at random, the test needs no more of the noise than that.

    Returns:
        ratio, low, high (None with too few rounds), rounds, confidence, margin, and verdict of
        the first: "faster" or "slower" by more than the margin, "same" within it, or "unclear".
    """
    logs = []
    for a, b in zip(first, second, strict=False):
        # A round begins with the same queries for both; the faster one gets further.
        both = min(len(a), len(b))
        if both:
            logs.append(math.log(np.median(a[:both]) / np.median(b[:both])))
    logs = np.array(logs)
    asked = {"rounds": len(logs), "confidence": confidence, "margin": margin}
    if not len(logs):
        return {**asked, "ratio": None, "low": None, "high": None, "verdict": "unclear"}
    pairs = np.triu_indices(len(logs))
    averages = np.sort((logs[pairs[0]] + logs[pairs[1]]) / 2)
    outside = signed_rank_quantile(len(logs), (1 - confidence) / 2)
    middle = math.exp(np.median(averages))
    if outside < 1:
        return {**asked, "ratio": middle, "low": None, "high": None, "verdict": "unclear"}
    low, high = math.exp(averages[outside - 1]), math.exp(averages[-outside])
    verdict = _verdict(low, high, margin)
    return {**asked, "ratio": middle, "low": low, "high": high, "verdict": verdict}


def signed_rank_quantile(count: int, probability: float) -> int:
    """The largest c with P(T < c) <= probability, T Wilcoxon's signed-rank sum of `count`."""
    chances = np.ones(1)
    for rank in range(1, count + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return int((np.cumsum(chances) <= probability).sum())


def _verdict(low: float, high: float, margin: float) -> str:
    if high < 1 / (1 + margin):
        return "faster"
    if low > 1 + margin:
        return "slower"
    return "same" if low >= 1 / (1 + margin) and high <= 1 + margin else "unclear"


def drift(contenders: list[list[list[float]]]) -> dict:
    """How the machine's speed changed while it measured, from every contender's blocks.

    Returns:
        change: median of the slowest third of the time over that of the fastest; steady: whether
        it is small; sentence: what to make of it.
    """
    speeds = []
    for blocks in contenders:
        medians = np.array([np.median(block) for block in blocks if block])
        if len(medians) >= 3:
            speeds.append([float(np.median(x)) for x in np.array_split(medians, 3)])
    if not speeds:
        return {"change": None, "steady": True, "sentence": "too few rounds to tell"}
    thirds = np.median(np.array(speeds) / np.min(speeds, axis=1, keepdims=True), axis=0)
    change = float(thirds.max() / thirds.min())
    if change <= STEADY:
        return {"change": change, "steady": True, "sentence": "the machine kept its speed"}
    return {
        "change": change,
        "steady": False,
        "sentence": f"the machine was {change:.2f} times slower in one part of the measurement "
        "than in another: latencies hold for no other day, ratios do",
    }
