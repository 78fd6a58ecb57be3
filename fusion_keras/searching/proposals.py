"""What a search tries next: each model once, and the same again by whoever goes on with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import TrialState

from fusion_keras.errors import UsageError
from fusion_keras.searching.base import base_of, untaught
from fusion_keras.searching.outcome import Outcome, read
from fusion_keras.searching.request import Request
from fusion_keras.searching.space import Point, key_of, plan_at, variant_point
from fusion_keras.training.plan import Plan

# Proposals in a row that are there already, or cannot be built, behind which there are none left.
_EXHAUSTED = 100
# Neighbours of such a proposal that are looked at: so many with one coordinate drawn anew, as many
# with two, and so on.
_NEIGHBOURS = 8
# Trials that are drawn at random, beside the named variants, before a sampler goes by what it has
# seen; more of them cost a search of forty trials more than they tell.
_RANDOM = 4
# Models of a generation of nsga2.
_GENERATION = 10
# What Optuna keeps with a trial.
_SAME, _KEY, _NAME, NAMED = "the same as trial", "key", "model", "named"
_REASON = "reason"
_log = logging.getLogger(__name__)


def inside(request: Request) -> dict[str, dict]:
    """Named variant -> its coordinates, of those that are points of the space."""
    found, base = {}, untaught(request.base)
    for variant in request.named:
        plan = plan_at(variant_point(variant), base)
        coordinates = request.space.coordinates(plan.spec, plan.config)
        if coordinates is None:
            continue
        point = request.space.drawn(optuna.trial.FixedTrial(coordinates))
        # What is no dimension, say the number of blocks, may be otherwise there.
        if key_of(plan_at(point, base)) == key_of(plan):
            found[variant] = coordinates
    return found


@dataclass(frozen=True)
class Proposal:
    """A model that was not there before.

    Attributes:
        key, point, plan: what it is; of one that has ended the key alone.
        base: the config that the point changes.
        asked: Optuna's trial, that is to be told of; None for a named variant outside the space,
            and where it knows.
        named: the variant that it is, or "".
        ended: what became of it.
    """

    key: str
    point: Point | None = None
    plan: Plan | None = None
    base: object = None
    asked: optuna.Trial | None = None
    named: str = ""
    ended: Outcome | None = None


def proposals(study: optuna.Study, request: Request, base) -> Iterator[Proposal]:
    """First the named variants outside the space; then what has ended or was running before, by
    number; then new ones."""
    seen, within = {}, inside(request)
    for variant in (v for v in request.named if v not in within):
        point, own = variant_point(variant), base_of(variant, request, base)
        plan = plan_at(point, own)
        seen[key_of(plan)] = 0
        yield Proposal(key_of(plan), point, plan, own, named=variant)
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state == TrialState.RUNNING:
            yield from _proposed(optuna.Trial(study, frozen._trial_id), study, request, base, seen)
        elif _KEY in frozen.user_attrs and _SAME not in frozen.user_attrs:
            ended = read(request.folder / "trials" / frozen.user_attrs[_KEY])
            if ended:
                seen[ended.key] = frozen.number
                yield Proposal(ended.key, ended=ended)
    while len(seen) < request.count:
        if _in_vain(study.get_trials(deepcopy=False)) > _EXHAUSTED:
            if not seen:
                reason = study.get_trials(deepcopy=False)[-1].user_attrs.get(_REASON, "")
                raise UsageError(f"No point of the space can be built, as of the last: {reason}")
            _log.info("The space has no other points that can be built.")
            return
        yield from _proposed(study.ask(), study, request, base, seen)


def _in_vain(there: Sequence[optuna.trial.FrozenTrial]) -> int:
    """How many of the last proposals gave no model."""
    count = 0
    for frozen in reversed(there):
        if frozen.state != TrialState.FAIL or _KEY in frozen.user_attrs:
            break
        count += 1
    return count


def _proposed(
    asked: optuna.Trial, study, request: Request, base, seen: dict[str, int]
) -> Iterator[Proposal]:
    """The point of a trial, if it is a new one; else the trial is told what is wrong with it, and a
    neighbour of it is what is asked for next."""
    *before, own = study.get_trials(deepcopy=False)[: asked.number + 1]
    # A proposal whose neighbours are all there says that the sampler has nothing new.
    chance = _in_vain(before) > 0 and "fixed_params" not in own.system_attrs
    kind = "random" if chance else request.sampler
    first = _RANDOM + sum(NAMED in frozen.user_attrs for frozen in before)
    study.sampler = _sampler(kind, request.seed, asked.number, first)
    # Of what a killed search had begun to draw the rest would come out otherwise.
    asked = optuna.Trial(study, asked._trial_id)
    if not {_KEY, _SAME} & set(own.user_attrs):
        asked._cached_frozen_trial.params.clear()
        asked._cached_frozen_trial.distributions.clear()
    if kind == "nsga2":
        # Else it knows nothing of what it did not draw itself, and breeds from none of those.
        asked.relative_params  # noqa: B018
    point, plan, key = _drawn(request, asked), None, None
    try:
        plan = plan_at(point, base)
        key = key_of(plan)
    except UsageError as error:
        _log.debug("%s: %s", point.name, error)
        asked.set_user_attr(_REASON, str(error))
    if key is None or key in seen:
        if key:
            asked.set_user_attr(_SAME, seen[key])
        near = None if kind == "random" else _neighbour(asked, request, base, seen)
        if near:
            # First, so that a kill between the two loses nothing.
            study.enqueue_trial(near, skip_if_exists=True)
        study.tell(asked, state=TrialState.FAIL)
        return
    seen[key] = asked.number
    asked.set_user_attr(_KEY, key)
    asked.set_user_attr(_NAME, point.name)
    yield Proposal(key, point, plan, base, asked, asked.user_attrs.get(NAMED, ""))


def _drawn(request: Request, trial) -> Point:
    return request.space.drawn(trial, flat=request.sampler not in ("tpe", "random"))


def _neighbour(asked: optuna.Trial, request: Request, base, seen) -> dict | None:
    """Coordinates of a model that is not there, near a proposal that is; None without one.

    Behind hundreds of models a sampler that has found the best places proposes the same ones over
    and over (seven of eight times, behind 490), and each proposal costs it more than the last.

    Args:
        asked: the proposal.
        base: the config that points change.
        seen: keys of the models that are there.
    """
    names, seed = sorted(asked.params), 1_000_003 * request.seed + asked.number
    rng = np.random.default_rng(seed)
    nearby = optuna.create_study()  # in memory
    for tried in range(_NEIGHBOURS * len(names)):
        anew = rng.choice(names, 1 + tried // _NEIGHBOURS, replace=False)
        fixed = {name: value for name, value in asked.params.items() if name not in anew}
        drawn_anew = optuna.samplers.RandomSampler(seed=int(rng.integers(2**32)))
        nearby.sampler = optuna.samplers.PartialFixedSampler(fixed, drawn_anew)
        other = nearby.ask()
        try:
            if key_of(plan_at(_drawn(request, other), base)) not in seen:
                return other.params
        except UsageError:
            continue  # it cannot be built
    return None


def _sampler(kind: str, seed: int, number: int, first: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial, which depends on these and on the trials so far alone, so that a
    search that was killed goes on as it would have.

    Args:
        first: how many trials there must be before it goes by them.
    """
    samplers, seed = optuna.samplers, (1_000_003 * seed + number) % 2**32
    if kind == "random":
        return samplers.RandomSampler(seed=seed)
    if kind == "nsga2":
        return samplers.NSGAIISampler(population_size=_GENERATION, seed=seed)
    if kind == "gp":
        return samplers.GPSampler(n_startup_trials=first, seed=seed)
    # With several objectives these are off unless they are asked for.
    return samplers.TPESampler(n_startup_trials=first, multivariate=True, group=True, seed=seed)
