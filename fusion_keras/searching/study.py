"""The search itself: Optuna proposes points, trials answer, and all of it can be killed.

Optuna's storage holds what was proposed and how it went; each trial's folder what it measured. A
trial that was running when the search was killed is gone on with, with the same coordinates.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from fusion_keras.errors import UsageError
from fusion_keras.files import write
from fusion_keras.searching import trial as trials
from fusion_keras.searching.away import Away
from fusion_keras.searching.base import base_of, joint_base, outputs_of, untaught
from fusion_keras.searching.crew import Crew, Line, Place
from fusion_keras.searching.latency import Meter, met
from fusion_keras.searching.outcome import FAILED, LIMITED, OVER, TRAINED, Outcome, read
from fusion_keras.searching.request import Request
from fusion_keras.searching.rungs import front
from fusion_keras.searching.space import Point, key_of, plan_at, variant_point
from fusion_keras.training.plan import Plan
from fusion_keras.training.run import changes, worded

OBJECTIVES = ("validation NLL", "p90 ms")
# Proposals in a row that are there already, or cannot be built, behind which there are none left.
_EXHAUSTED = 100
# Neighbours of such a proposal that are looked at: so many with one coordinate drawn anew, as many
# with two, and so on.
_NEIGHBOURS = 8
# Trials that are drawn at random before a sampler has something to go on.
_RANDOM = 10
_SAME, _KEY, _NAME, _NAMED = "the same as trial", "key", "model", "named"
_log = logging.getLogger(__name__)


def search(
    request: Request,
    outcomes: list[Outcome],
    say: Callable[[str], None] = lambda line: None,
    on_trial: Callable[[Outcome], None] = lambda outcome: None,
    carry_out: Callable[..., Outcome] = trials.carry_out,
    away: Away | None = None,
) -> None:
    """Search, or go on.

    Args:
        request: what for.
        outcomes: an empty list; what became of every trial is put there as it ends, and first what
            an earlier call has found: the named variants outside the space, then by number.
        say: told what is being done.
        on_trial: told of each trial that has ended now.
        carry_out: sees a trial through; another one looks it up in a table, to compare samplers.
        away: nodes that train instead of this machine.

    Raises:
        UsageError: a folder or a storage of another search, another process that searches there,
            or what the trials learn from could not be trained.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    with _alone(request.folder), Crew(request.jobs, away) as crew:
        study = open_study(request)
        # Before anything is trained.
        there = met(request.device, request.folder, crew) if request.device else None
        joint = joint_base(request, crew.whole, request.seed, say)
        meter = Meter(request.cache, outputs_of(request.base), crew, there)
        told, under_way = Line(say), deque()

        def seen_through(place: Place, proposal: _Proposal, folder: Path, before) -> Outcome:
            now = told.of(proposal.key)
            settings = trials.Settings(
                proposal.base, request.precisions, request.limits, meter, now
            )
            what = (proposal.point, proposal.plan, proposal.key, folder, settings, before)
            try:
                return carry_out(place, *what, proposal.named)
            finally:
                now("")

        def begun(proposal: _Proposal) -> tuple[Future, bool]:
            """What becomes of a proposal, and whether that is known already."""
            if proposal.ended:
                future: Future[Outcome] = Future()
                future.set_result(proposal.ended)
                return future, True
            folder = request.folder / "trials" / proposal.key
            before = outcomes[: max(0, len(outcomes) + len(under_way) + 1 - ahead(request.jobs))]
            there = (folder / "outcome.json").is_file()
            return crew.begin(seen_through, proposal, folder, before), there

        def end_first() -> None:
            proposal, future, there = under_way.popleft()
            outcomes.append(future.result())
            if proposal.asked or not there:
                on_trial(outcomes[-1])
            if proposal.asked:
                _tell(study, proposal.asked, outcomes[-1], request)

        for proposal in _proposals(study, request, joint):
            under_way.append((proposal, *begun(proposal)))
            # In order, whichever has ended: what is proposed next depends on no clock.
            while len(under_way) >= ahead(request.jobs):
                end_first()
        while under_way:
            end_first()


def ahead(jobs: int) -> int:
    """How many trials are under way, or wait for one that began before them.

    A trial is proposed, and compared with others, as if of the so many before it none had ended:
    so the same seed finds the same, as long as latencies are the same. With one place for trials
    all before it have; with several there are some more, so that none stands empty for long.
    """
    return jobs + jobs // 2


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held until the block or the process ends, however it ends.

    Raises:
        UsageError: another process searches here.
    """
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"Another process is searching in {folder}: wait for it, or give another --workdir."
            ) from None
        yield


def open_study(request: Request) -> optuna.Study:
    """The study of a request, new or gone on with.

    Raises:
        UsageError: the folder or the storage is of another search, or cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    file, identity = request.folder / "search.json", request.identity()
    if file.is_file():
        try:
            before = json.loads(file.read_text())
        except ValueError:
            raise UsageError(f"{file} is damaged: give another --workdir.") from None
        if before != identity:
            phrases = worded(changes(before, identity))[:4]
            raise UsageError(
                f"{request.folder} holds a search with other settings ({'; '.join(phrases)}): "
                "repeat that command to go on with it, or give another --workdir."
            )
    try:
        study = optuna.create_study(
            storage=request.url,
            study_name="fusion_keras",
            directions=["minimize", "minimize"],
            load_if_exists=True,
        )
        identified = study.user_attrs.get("identity")
    except Exception as error:  # of any database
        said = str(error).splitlines()[0]
        raise UsageError(f"The --storage {request.url} cannot be opened: {said}") from None
    sealed = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    if identified not in (None, sealed):
        raise UsageError(
            f"The --storage {request.url} is of another search: give another one, or repeat that "
            "search's command."
        )
    if identified is None:
        study.set_metric_names(list(OBJECTIVES))
        study.set_user_attr("identity", sealed)
    for variant, coordinates in inside(request).items():
        study.enqueue_trial(coordinates, user_attrs={_NAMED: variant}, skip_if_exists=True)
    write(file, (json.dumps(identity, indent=1) + "\n").encode())
    return study


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
class _Proposal:
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


def _proposals(study: optuna.Study, request: Request, base) -> Iterator[_Proposal]:
    """First the named variants outside the space; then what has ended or was running before, by
    number; then new ones."""
    seen, within = {}, inside(request)
    for variant in (v for v in request.named if v not in within):
        point, own = variant_point(variant), base_of(variant, request, base)
        plan = plan_at(point, own)
        seen[key_of(plan)] = 0
        yield _Proposal(key_of(plan), point, plan, own, named=variant)
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state == TrialState.RUNNING:
            yield from _proposed(optuna.Trial(study, frozen._trial_id), study, request, base, seen)
        elif _KEY in frozen.user_attrs and _SAME not in frozen.user_attrs:
            ended = read(request.folder / "trials" / frozen.user_attrs[_KEY])
            if ended:
                seen[ended.key] = frozen.number
                yield _Proposal(ended.key, ended=ended)
    while len(seen) < request.count:
        if _in_vain(study.get_trials(deepcopy=False)) > _EXHAUSTED:
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
) -> Iterator[_Proposal]:
    """The point of a trial, if it is a new one; else the trial is told what is wrong with it, and a
    neighbour of it is what is asked for next."""
    *before, own = study.get_trials(deepcopy=False)[: asked.number + 1]
    # A proposal whose neighbours are all there says that the sampler has nothing new.
    chance = _in_vain(before) > 0 and "fixed_params" not in own.system_attrs
    kind = "random" if chance else request.sampler
    study.sampler = _sampler(kind, request.seed, asked.number)
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
        asked.set_user_attr("reason", str(error))
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
    yield _Proposal(key, point, plan, base, asked, asked.user_attrs.get(_NAMED, ""))


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


def _tell(study: optuna.Study, asked: optuna.Trial, outcome: Outcome, request: Request) -> None:
    """What became of it, as Optuna and its dashboard read it."""
    asked.set_user_attr("state", outcome.state)
    if outcome.reason:
        asked.set_user_attr("reason", outcome.reason)
    for precision, times in outcome.latency.items():
        asked.set_user_attr(f"{precision} p90 ms", times["p90"])
    for precision, nll in outcome.nll.items():
        asked.set_user_attr(f"{precision} NLL", nll)
    excess = {}
    if outcome.latency:
        excess = outcome.excess(request.limits)
    elif outcome.state == OVER:  # by an estimate
        excess = {"p90": request.budget}
    for name, more in excess.items():
        called, unit = LIMITED[name]
        asked.set_constraint(f"{called} over the budget, {unit}", more)
    picture = request.folder / "trials" / outcome.key / trials.PICTURE
    if picture.is_file():
        pictures = request.folder / "artifacts"
        pictures.mkdir(exist_ok=True)
        optuna.artifacts.upload_artifact(
            artifact_store=optuna.artifacts.FileSystemArtifactStore(pictures),
            file_path=str(picture),
            study_or_trial=asked,
        )
    if outcome.state == TRAINED:
        study.tell(asked, outcome.objectives)
    else:
        study.tell(asked, state=TrialState.FAIL if outcome.state == FAILED else TrialState.PRUNED)


def _sampler(kind: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial, which depends on these and on the trials so far alone, so that a
    search that was killed goes on as it would have."""
    samplers, seed = optuna.samplers, (1_000_003 * seed + number) % 2**32
    if kind == "random":
        return samplers.RandomSampler(seed=seed)
    if kind == "nsga2":
        return samplers.NSGAIISampler(population_size=_RANDOM, seed=seed)
    if kind == "gp":
        return samplers.GPSampler(n_startup_trials=_RANDOM, seed=seed)
    # With several objectives these are off unless they are asked for.
    return samplers.TPESampler(n_startup_trials=_RANDOM, multivariate=True, group=True, seed=seed)


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
    best = [pair for pair, on_it in zip(every, front(points), strict=True) if on_it]
    return sorted(best, key=lambda pair: pair[0].latency[pair[1]]["p90"])
