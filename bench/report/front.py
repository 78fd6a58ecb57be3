"""What accuracy costs in latency: the Pareto front, paired comparisons, the best within a budget.

Accuracies come from the class that each model gives each test row, so that two models can be
compared row by row, and rows of one group (a video, a speaker) stay together.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

RESAMPLES = 4000
BASELINES = ("text", "image", "audio", "tabular")


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval; shares, not percent.

    above: the share of resamples in which the value is above 0 (of a difference).
    """

    mean: float
    low: float
    high: float
    above: float = 1.0


@dataclass(frozen=True, eq=False)
class Model:
    """One architecture at one precision, with every training of it that was given.

    Attributes:
        artifact: `bench.edge.artifact.described` of the first of them.
        correct: seed -> bool [N], whether each test row is answered rightly.
    """

    artifact: dict
    precision: str
    correct: dict[int, np.ndarray]

    @property
    def groups(self) -> list[str] | None:
        return self.artifact["test"]["groups"]

    @cached_property
    def accuracy(self) -> Interval:
        found = interval(np.stack(list(self.correct.values())), self.groups)
        if found.low < found.high:
            return found
        # Of one group, or of groups all alike, a bootstrap sees no doubt; see `difference`.
        doubt = min(1.0, 3 / self.units)
        low, high = max(0.0, found.low - doubt), min(1.0, found.high + doubt)
        return dataclasses.replace(found, low=low, high=high)

    @property
    def units(self) -> int:
        """How many groups of test rows, or rows, are independent of each other."""
        return len(self.artifact["test"]["labels"] if self.groups is None else set(self.groups))

    @property
    def backbones(self) -> str:
        return " + ".join(self.artifact["backbones"].values())


# A runner that rounds as no graph does whose accuracy is known.
OTHER_ARITHMETIC = "openvino-bf16"


@dataclass(frozen=True, eq=False)
class Point:
    """A contender of a measurement, or an estimate of one.

    Attributes:
        name: short; distinct among all that a report shows.
        file: where it was read.
        machine: key of what it may be compared with; equal for equal fingerprints only.
        model: what ran.
        precision, runner, batch, threads, inputs, hz: how it ran; None where not said.
        latency: `bench.edge.latency.summary`; of an estimate milliseconds, low, high.
        estimate: nothing was measured.
        contender: all that the file says of it.
    """

    name: str
    file: str
    machine: str
    model: Model
    precision: str
    runner: str
    latency: dict
    batch: int | None = None
    threads: int | None = None
    inputs: object = None
    hz: float | None = None
    estimate: bool = False
    contender: dict = field(default_factory=dict)

    @property
    def accuracy(self) -> Interval:
        return self.model.accuracy

    @property
    def is_paced(self) -> bool:
        """Whether its queries were not back to back, or were slowed down."""
        return bool(self.hz or self.contender.get("slow_by"))


def pool(artifacts: Iterable[dict]) -> dict[tuple[str, str], Model]:
    """(seal, precision) -> the model with all its seeds.

    Artifacts are seeds of one model where data set, test rows, variant, backbones and fusion spec
    agree. Where two of them have the same seed and yet answer differently (another
    recipe, say), nothing tells which seeds belong together: each then stands alone.
    """
    families: dict[tuple, dict[str, dict]] = {}
    for artifact in artifacts:
        for precision in artifact["test"]["predicted"]:
            seals = families.setdefault(_key(artifact, precision), {})
            seals[artifact["seal"]] = artifact
    models = {}
    for (*_, precision), seals in families.items():
        by_seed: dict[int, dict] = {}
        apart = any(
            by_seed.setdefault(a["seed"], a)["test"]["predicted"][precision]
            != a["test"]["predicted"][precision]
            for a in seals.values()
        )
        together = Model(
            next(iter(by_seed.values())),
            precision,
            {seed: _correct(by_seed[seed], precision) for seed in sorted(by_seed)},
        )
        for seal, artifact in seals.items():
            alone = Model(artifact, precision, {artifact["seed"]: _correct(artifact, precision)})
            models[seal, precision] = alone if apart else together
    return models


def _key(artifact: dict, precision: str) -> tuple:
    spec = json.dumps(artifact.get("spec"), sort_keys=True)
    backbones = tuple(sorted(artifact["backbones"].items()))
    ids = artifact["test"]["ids"]
    return (artifact["dataset"], ids, artifact["variant"], backbones, spec, precision)


def _correct(artifact: dict, precision: str) -> np.ndarray:
    test = artifact["test"]
    labels, predicted = np.array(test["labels"]), np.array(test["predicted"][precision])
    if labels.shape != predicted.shape or not len(labels):
        raise ValueError(f"{len(predicted)} predictions of {len(labels)} test rows")
    return labels == predicted


def interval(values: np.ndarray, groups: list[str] | None) -> Interval:
    """Mean of values [S, N] (seeds, test rows) and its 95 % percentile bootstrap interval.

    Groups of rows (rows, where `groups` is None) and seeds are drawn anew, with replacement:
    Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13. With one seed
    nothing of the spread between trainings is in it.
    """
    drawn = resampled(values, groups)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high), float((drawn > 0).mean()))


def resampled(values: np.ndarray, groups: list[str] | None) -> np.ndarray:
    """Bootstrap means, float [RESAMPLES], of values [S, N]; the same draw for all seeds."""
    seeds, rows = values.shape
    unit = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = [np.bincount(unit, row) for row in values.astype(np.float64)]
    # Units alike in every sum and size are interchangeable, so how many of each kind are drawn
    # is all that matters: far fewer numbers than one for each row.
    kinds, counts = np.unique(
        np.column_stack([*sums, np.bincount(unit)]), axis=0, return_counts=True
    )
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(counts.sum(), counts / counts.sum(), RESAMPLES)
    totals = drawn @ kinds  # [R, S + 1]
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    return (totals[:, :-1] * weights).sum(axis=1) / totals[:, -1]


def difference(first: Model, second: Model) -> Interval:
    """Accuracy of the first minus that of the second, paired by test row and by seed.

    Pooled over the seeds that both have; where they share none, each is averaged over its own.
    Where both answer every row alike a bootstrap sees no doubt. The rule of three does: of n groups
    of which none differs, at 95 % fewer than 3 / n do (Hanley and Lippman-Hand 1983).
    """
    shared = sorted(first.correct.keys() & second.correct.keys())
    if shared:
        values = [first.correct[s].astype(float) - second.correct[s] for s in shared]
    else:
        means = [np.mean(list(m.correct.values()), axis=0) for m in (first, second)]
        values = [means[0] - means[1]]
    found = interval(np.stack(values), first.groups)
    if any(np.any(value) for value in values):
        return found
    doubt = min(1.0, 3 / first.units)
    return dataclasses.replace(found, low=-doubt, high=doubt)


def at(point: Point, percentile: str) -> tuple[float, float, float] | None:
    """Milliseconds (value, low, high) at "p50" or "p90"; None where it is not known.

    An estimate gives its one value for either. The early-stopping p90 is an upper estimate and
    may lie above the interval of the plain percentile: high is then the p90 itself.
    """
    if point.estimate:
        return tuple(point.latency[name] for name in ("milliseconds", "low", "high"))
    value = point.latency.get(percentile)
    if value is None:
        return None
    low, high = point.latency.get(f"{percentile}_interval") or (value, value)
    return value, min(low, value), max(high, value)


def axis_of(points: list[Point]) -> str:
    """The percentile that all points have: p90, else p50, never one against the other."""
    return "p90" if all(at(point, "p90") for point in points) else "p50"


def pareto(points: list[Point], percentile: str) -> list[Point]:
    """Points that none beats in both accuracy and latency, from the fastest on."""
    known = [point for point in points if at(point, percentile)]
    front: list[Point] = []
    for point in sorted(known, key=lambda p: (at(p, percentile)[0], -p.accuracy.mean)):
        if not front or point.accuracy.mean > front[-1].accuracy.mean:
            front.append(point)
    return front


@dataclass(frozen=True)
class Answer:
    """The best within a budget.

    Attributes:
        chosen: the most accurate whose p90, with its interval, is within; None if none is.
        cheaper: the next faster one on the front, and gain: what `chosen` is better by.
        nearest: where nothing is chosen, the one that misses by least; None without any p90.
    """

    chosen: Point | None = None
    cheaper: Point | None = None
    gain: Interval | None = None
    nearest: Point | None = None


def best_within(points: list[Point], budget: float) -> Answer:
    """Of points of one machine and one test set, the answer for a budget in milliseconds."""
    known = [point for point in points if at(point, "p90")]
    front = pareto([p for p in known if at(p, "p90")[2] <= budget], "p90")
    if not front:
        return Answer(nearest=min(known, key=lambda p: at(p, "p90")[2], default=None))
    if len(front) == 1:
        return Answer(front[0])
    chosen, cheaper = front[-1], front[-2]
    return Answer(chosen, cheaper, difference(chosen.model, cheaper.model))


def majority(artifact: dict) -> tuple[str, float]:
    """The most frequent class of the test rows, or of several labels a row the most frequent set,
    and its share: what no model should fall below."""
    classes, labels = artifact["classes"], artifact["test"]["labels"]
    values, counts = np.unique(labels, return_counts=True)
    value, share = values[counts.argmax()], float(counts.max() / counts.sum())
    if artifact.get("label_kind") == "multi":
        return " + ".join(classes[int(k)] for k in value.split()) or "no label", share
    return str(classes[value]), share


def grouped(points: Iterable[Point], key: Callable[[Point], object]) -> dict[object, list[Point]]:
    """key -> points, in the order in which they come."""
    groups: dict[object, list[Point]] = {}
    for point in points:
        groups.setdefault(key(point), []).append(point)
    return groups
