"""One trial: built, measured untrained, trained rung by rung where it fits, scored.

A trial that was killed goes on from what it has.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.errors import MachineError, UsageError
from fusion_keras.files import write
from fusion_keras.searching import rungs
from fusion_keras.searching.base import reference
from fusion_keras.searching.crew import Place
from fusion_keras.searching.latency import Meter
from fusion_keras.searching.losses import half_width, losses_of
from fusion_keras.searching.outcome import FAILED, LIMITED, OVER, STOPPED, TRAINED, Outcome, read
from fusion_keras.searching.space import Point
from fusion_keras.searching.trainee import Trainee, trainee
from fusion_keras.training.plan import Plan

# Another engine rounds otherwise; weights in a wrong place are far away.
_PARITY = 1e-2
# An estimate is of the fastest graph so far, and half of that: it may err to that side alone.
_LOW_END = 0.5
# The drawing of a model that was trained.
PICTURE = "model.svg"
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class Settings:
    """What all trials of a search share.

    Attributes:
        base: the config that points change.
        precisions: that are measured and scored.
        limits: measured -> most that is allowed of it, at the fastest precision.
        meter: measures drafts.
        say: told what is being done, in a line that the next one replaces.
    """

    base: object
    precisions: tuple[str, ...]
    limits: Mapping[str, float]
    meter: Meter
    say: Callable[[str], None]


def carry_out(
    place: Place,
    point: Point,
    plan: Plan,
    key: str,
    folder: Path,
    settings: Settings,
    before: Sequence[Outcome],
    named: str = "",
) -> Outcome:
    """See a trial through, or go on with it.

    Args:
        place: where.
        point, plan, key: what it is.
        folder: of this trial alone.
        before: the trials before it, that it is compared with.
        named: the variant that it is: it is trained to its end whatever the others do.

    Returns:
        What became of it; a failure is one, too.

    Raises:
        MachineError: see `latency.Meter.measured`.
        EndedError: the search ends.
    """
    ended = read(folder)
    if ended:
        return ended
    folder.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(key, point.name, dict(point.settings), named=named)
    outcome.epochs = plan.config.train.epochs
    try:
        _carry_out(outcome, place, point, folder, settings, before)
    except MachineError:
        raise  # of this machine, not of this model
    except UsageError as error:
        place.crew.check()  # no failure of its own
        outcome.state, outcome.reason = FAILED, str(error)
    write(folder / "outcome.json", (json.dumps(dataclasses.asdict(outcome)) + "\n").encode())
    # A checkpoint is as large as four models.
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        elif left.suffix == ".npz":
            left.unlink()
    return outcome


def _carry_out(outcome: Outcome, place: Place, point, folder: Path, settings, before) -> None:
    known = settings.meter.known(outcome.key, settings.precisions, settings.limits)
    if known:
        outcome.latency = known
        if _over(outcome, settings):
            return
    clock, config = _Clock(outcome, settings.say), point.config(settings.base)
    rungs_ahead = [] if outcome.named else rungs.rungs(outcome.epochs)[:-1]
    away = place.crew.away
    with trainee(config, folder / "run", place) as model:
        _build(outcome, model, clock)
        if not known:
            if _hopeless(outcome, settings, before):
                return
            _measure(outcome, place, model, folder, settings, clock)
            if _over(outcome, settings):
                return
        if not away:
            verdict = functools.partial(_goes_on, outcome, before)
            outcome.history = clock("training", model.train, rungs_ahead, verdict)
            if outcome.state != STOPPED:
                _finish(outcome, place, model, folder, settings, clock)
            return
    peers = {epoch: _peers(outcome, before, epoch) for epoch in rungs_ahead}
    trained = (place, config, folder, outcome.p90, peers)
    outcome.history, stopped = clock("training", away.train_trial, *trained)
    if stopped:
        _stop(outcome)
        return
    with trainee(config, folder / "run", place) as model:
        model.built()
        # All of it is there already.
        outcome.history = model.train([], lambda history: True)
        _finish(outcome, place, model, folder, settings, clock)


def _finish(outcome: Outcome, place: Place, model: Trainee, folder: Path, settings, clock) -> None:
    """Score and draw a model that was trained to its end."""
    clock("scoring", _score, outcome, place, model, folder, settings)
    model.draw(folder / PICTURE, outcome.named or outcome.name)
    outcome.state = TRAINED


def measured(place: Place, point: Point, key: str, folder: Path, settings: Settings) -> Outcome:
    """Build a model and measure it, and train nothing: parameters, macs and latency.

    Raises:
        UsageError: it could not be built, converted or measured.
    """
    outcome = Outcome(key, point.name, dict(point.settings))
    clock = _Clock(outcome, settings.say)
    known = settings.meter.known(key, settings.precisions)
    with trainee(point.config(settings.base), folder / "run", place) as model:
        _build(outcome, model, clock)
        if known:
            outcome.latency = known
        else:
            _measure(outcome, place, model, folder, settings, clock)
    return outcome


def _build(outcome: Outcome, model: Trainee, clock: _Clock) -> None:
    for field, value in clock("building", model.built).items():
        setattr(outcome, field, value)


def _measure(
    outcome: Outcome,
    place: Place,
    model: Trainee,
    folder: Path,
    settings: Settings,
    clock: _Clock,
) -> None:
    draft = clock("converting", _draft, place, model, folder, settings)
    make_reference = functools.partial(_make_reference, place, folder, settings)
    more = (settings.precisions, folder / "bench.log", make_reference, settings.limits)
    outcome.latency = clock("measuring", settings.meter.measured, outcome.key, draft, *more)


def _goes_on(outcome: Outcome, before: Sequence[Outcome], history: list[dict]) -> bool:
    """Whether a trial goes on behind a rung; else it says why not."""
    outcome.history = history
    epoch = history[-1]["epoch"]
    if rungs.goes_on(outcome.at(epoch), _peers(outcome, before, epoch)):
        return True
    _stop(outcome)
    return False


def _peers(outcome: Outcome, before: Sequence[Outcome], epoch: int) -> list[tuple[float, float]]:
    """The objectives of those before it behind an epoch; in a training of another length the rate
    is another one there."""
    there = [o.at(epoch) for o in before if o.epochs == outcome.epochs]
    return [objectives for objectives in there if objectives]


def _stop(outcome: Outcome) -> None:
    outcome.state = STOPPED
    outcome.reason = f"after epoch {outcome.history[-1]['epoch']:g}: others do better there"


class _Clock:
    def __init__(self, outcome: Outcome, say):
        self._outcome, self._say = outcome, say

    def __call__(self, name: str, call, *arguments):
        self._say(f"{self._outcome.name}: {name} ...")
        start, seconds = time.perf_counter(), self._outcome.seconds
        try:
            return call(*arguments)
        finally:
            seconds[name] = round(seconds.get(name, 0) + time.perf_counter() - start, 2)


def _over(outcome: Outcome, settings: Settings) -> bool:
    excess = outcome.excess(settings.limits)
    over = [name for name, more in excess.items() if more > 0]
    if not over:
        return False
    measured = outcome.latency[outcome.fastest]
    said = ", ".join(f"{LIMITED[n][0]} {measured[n]:.2f} {LIMITED[n][1]}" for n in over)
    outcome.state = OVER
    outcome.reason = f"{said} at {outcome.fastest}, measured"
    return True


def _hopeless(outcome: Outcome, settings: Settings, before: Sequence[Outcome]) -> bool:
    """Whether a model is over the budget even at the rate of the fastest graph so far, halved."""
    budget = settings.limits.get("p90")
    if budget is None or not outcome.macs:
        return False
    # Small graphs take longer for each product: what is due for every query weighs more.
    rates = [
        min(t["p50"] for t in o.latency.values()) / o.macs
        for o in before
        if o.latency and o.macs and o.macs >= outcome.macs / 2
    ]
    if len(rates) < 3:
        return False
    low = _LOW_END * min(rates) * outcome.macs
    if low <= budget:
        return False
    outcome.state = OVER
    outcome.reason = f"{outcome.macs / 1e6:.0f} M multiply-adds, at least {low:.1f} ms, estimated"
    return True


def _draft(place: Place, model: Trainee, folder: Path, settings: Settings) -> Path:
    """The artifact of the untrained model."""
    target = folder / "draft"
    if not (target / "meta.json").is_file():
        model.draft(folder / "made")
        place.converter.make(folder / "made", target, settings.precisions, folder / "export.log")
    return target


def _make_reference(place: Place, folder: Path, settings: Settings, target: Path) -> None:
    made = folder / "reference-made"
    with trainee(reference(settings.base), folder / "reference", place) as model:
        model.built()
        model.draft(made)
    place.converter.make(made, target, ("fp32",), folder / "export.log")


def _score(
    outcome: Outcome, place: Place, model: Trainee, folder: Path, settings: Settings
) -> None:
    """The validation NLL of each precision, with the trained weights in the draft's graph."""
    draft = _draft(place, model, folder, settings)
    files = [folder / name for name in ("weights.npz", "rows.npz", "answers.npz")]
    answered = model.answers(*files[:2])
    wanted = tuple(dict.fromkeys(("fp32", *settings.precisions)))
    place.converter.answer([draft, *files], wanted, folder / "export.log")
    outcome.valid = answered["valid"]
    with np.load(files[2]) as arrays:
        logits = {name: arrays[name] for name in wanted}
    own, labels = answered["logits"], answered["labels"]
    off = float(np.abs(logits["fp32"] - own).max() / max(np.abs(own).max(), 1e-6))
    if not off <= _PARITY:
        raise UsageError(
            f"the exported graph answers otherwise than the model: {off:.1e} of its largest logit"
        )
    wrong = [name for name in settings.precisions if not np.isfinite(logits[name]).all()]
    if wrong:
        raise UsageError(f"its logits at {wrong[0]} are not finite")
    # Of many validation rows the lower precisions see the first: what they cost there.
    plain = losses_of(own, labels).mean()
    outcome.nll = {
        name: float(outcome.valid["nll"] + losses_of(logits[name], labels).mean() - plain)
        for name in settings.precisions
    }
    outcome.nll_error = {
        name: half_width(own, logits[name], labels, answered["rows"])
        for name in settings.precisions
    }
