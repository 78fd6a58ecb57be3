"""What became of a trial: `outcome.json` in its folder, whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.searching import rungs

# Measured -> what it is called, and its unit.
LIMITED = {"p90": ("p90", "ms"), "peak_mb": ("memory", "MB"), "mj": ("energy", "mJ")}
TRAINED, STOPPED, OVER, FAILED = "trained", "stopped", "over budget", "failed"


@dataclasses.dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        key, name: of its point; settings: of it.
        state: TRAINED; STOPPED at a rung; OVER the budget, never trained; or FAILED.
        reason: why it was not trained to its end; "" where it was.
        parameters, macs: of the model, and of one example; None where it was not built.
        guess: the NLL of a guess that knows the number of classes alone.
        epochs: of its whole training.
        latency: precision -> what was measured, untrained; see `latency.Meter.known`.
        history: of validation, epoch by epoch, as `history.csv` has it.
        valid: metric -> value at the chosen epoch.
        nll: precision -> negative log-likelihood on validation.
        nll_error: precision -> by how much it is uncertain, 95 %, because validation has no more
            rows than it has.
        seconds: step -> how long it took.
        named: the variant whose architecture it is; "" for one that the search found.
    """

    key: str
    name: str
    settings: dict
    state: str = FAILED
    reason: str = ""
    parameters: int | None = None
    macs: int | None = None
    guess: float | None = None
    epochs: int = 0
    latency: dict = dataclasses.field(default_factory=dict)
    history: list = dataclasses.field(default_factory=list)
    valid: dict = dataclasses.field(default_factory=dict)
    nll: dict = dataclasses.field(default_factory=dict)
    nll_error: dict = dataclasses.field(default_factory=dict)
    seconds: dict = dataclasses.field(default_factory=dict)
    named: str = ""

    @property
    def fastest(self) -> str:
        """The precision with the least p90."""
        return min(self.latency, key=lambda name: self.latency[name]["p90"])

    @property
    def p90(self) -> float:
        """That p90, ms."""
        return self.latency[self.fastest]["p90"]

    def bounds(self, precision: str, side: int) -> tuple[float, float]:
        """NLL and p90 where both are as good (side -1) or as bad (side 1) as they may well be."""
        times, error = self.latency[precision], self.nll_error.get(precision, 0.0)
        likely = [times["p90"], *times.get("p90_interval", ())]
        return self.nll[precision] + side * error, max(likely) if side > 0 else min(likely)

    @property
    def objectives(self) -> tuple[float, float]:
        """Validation NLL and p90 in ms, both at the fastest precision."""
        return self.nll[self.fastest], self.p90

    def excess(self, limits: Mapping[str, float]) -> dict[str, float]:
        """Measured -> by how much it is over its limit, at the fastest precision; below 0 where
        it is within."""
        measured = self.latency[self.fastest]
        return {name: measured[name] - most for name, most in limits.items()}

    def guesses(self, precision: str) -> bool:
        """Whether a guess that knows the number of classes alone is as good."""
        return self.guess is not None and self.nll[precision] >= self.guess

    def at(self, epoch: int) -> tuple[float, float] | None:
        """The objectives as they were behind an epoch; None where it did not get there."""
        # Without a history it may have no latency either: it failed, or was estimated over budget.
        return rungs.reached(self.history, self.p90, epoch) if self.history else None


def read(folder: Path) -> Outcome | None:
    """What became of a trial that ended; None where it has not.

    Raises:
        UsageError: the file is damaged.
    """
    file = folder / "outcome.json"
    if not file.is_file():
        return None
    try:
        return Outcome(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"{file} cannot be read ({error}): restore it, or remove {folder}: the "
            "search goes on without that model, and may propose it again."
        ) from None


def others(trials: Path, known: Sequence[Outcome]) -> list[Outcome]:
    """What has ended in a folder of trials besides what is known, as far as it can be read."""
    keys, found = {outcome.key for outcome in known}, []
    for folder in sorted(trials.glob("*")):
        with contextlib.suppress(UsageError):
            ended = read(folder)
            if ended and ended.key not in keys:
                found.append(ended)
    return found


def pareto(
    outcomes: Sequence[Outcome], limits: Mapping[str, float] | None = None
) -> list[tuple[Outcome, str]]:
    """The front over all precisions within limits: (trial, precision), fastest first."""
    every = [
        (o, name)
        for o in outcomes
        if o.state == TRAINED
        for name in o.nll
        if all(o.latency[name][measured] <= most for measured, most in (limits or {}).items())
    ]
    points = np.array([(o.nll[name], o.latency[name]["p90"]) for o, name in every])
    best = [pair for pair, on_it in zip(every, rungs.front(points), strict=True) if on_it]
    return sorted(best, key=lambda pair: pair[0].latency[pair[1]]["p90"])
