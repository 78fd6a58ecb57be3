"""The search itself: Optuna proposes points, trials answer, and all of it can be killed.

Optuna's storage holds what was proposed and how it went; each trial's folder what it measured. A
trial that was running when the search was killed is gone on with, with the same coordinates.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from fusion_keras.config import copied, get_config
from fusion_keras.errors import UsageError
from fusion_keras.files import write
from fusion_keras.searching import space as spaces
from fusion_keras.searching import trial as trials
from fusion_keras.searching.latency import Meter
from fusion_keras.searching.rungs import front
from fusion_keras.searching.space import Space, key_of, plan_at, variant_point
from fusion_keras.searching.trainee import train_whole
from fusion_keras.searching.trial import FAILED, OVER, TRAINED, Outcome
from fusion_keras.training.recipes import resolve

SAMPLERS = ("tpe", "nsga2", "random", "gp")
NAMED = ("text", "late", "inter", "early")
OBJECTIVES = ("validation NLL", "p90 ms")
# Proposals that are there already: after so many in a row points are drawn at random, and after so
# many more there are none left.
_PATIENCE, _EXHAUSTED = 10, 100
# Trials that are drawn at random before a sampler has something to go on.
_RANDOM = 10
_SAME, _KEY, _NAME, _NAMED = "the same as trial", "key", "model", "named"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is searched for.

    Attributes:
        base: the config that points change, as given.
        space: what may vary.
        folder: where all of it goes.
        count: trials, the named variants among them.
        budget: ms of p90 at the fastest precision; None for none.
        precisions: that count.
        sampler: one of SAMPLERS.
        storage: Optuna's URL; "" is a SQLite file in the folder.
        named: variants to begin with.
        seed: of the sampler.
        cache: where latencies are kept for later searches.
        teacher: a variant that is trained first, and teaches all points of the space; "" for what
            `base` says.
    """

    base: object
    space: Space
    folder: Path
    count: int = 40
    budget: float | None = None
    precisions: tuple[str, ...] = ("fp32", "int8")
    sampler: str = "tpe"
    storage: str = ""
    named: tuple[str, ...] = NAMED
    seed: int = 0
    cache: Path = Path("~/.cache/fusion_keras")
    teacher: str = ""

    @property
    def url(self) -> str:
        """Optuna's storage."""
        return self.storage or f"sqlite:///{self.folder / 'search.db'}"

    def identity(self) -> dict:
        """What may not change from one call to the next."""
        config = json.loads(json.dumps(self.base.to_dict()))
        # The seed of a training is of each trial alike; what is found beside runs is no setting.
        return {
            "space": self.space.digest(),
            "budget_ms": self.budget,
            "precisions": list(self.precisions),
            "sampler": self.sampler,
            "teacher": self.teacher,
            "seed": self.seed,
            "config": config,
        }


def search(
    request: Request,
    say: Callable[[str], None] = lambda line: None,
    on_trial: Callable[[Outcome, list[Outcome]], None] = lambda outcome, all_of_them: None,
    carry_out: Callable[..., Outcome] = trials.carry_out,
) -> list[Outcome]:
    """Search, or go on.

    Args:
        request: what for.
        say: told what is being done.
        on_trial: told of each trial that ended, and of all so far.
        carry_out: sees a trial through; another one looks it up in a table, to compare samplers.

    Returns:
        What became of every trial, the named ones first.

    Raises:
        UsageError: a storage of another search, a space without another point, or a variant that
            cannot be.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    study = open_study(request)
    settings = trials.Settings(
        request.base, request.precisions, request.budget, Meter(request.cache), say
    )
    joint = joint_base(request, say)
    outcomes: list[Outcome] = []
    for point, plan, named in _references(request):
        key = key_of(plan)
        outcome = carry_out(point, plan, key, _place(request, key), settings, outcomes, named)
        outcomes.append(outcome)
        on_trial(outcome, outcomes)
    settings = dataclasses.replace(settings, base=joint)
    for optuna_trial, point, plan, key in _proposals(study, request, outcomes):
        named = optuna_trial.user_attrs.get(_NAMED, "")
        outcome = carry_out(point, plan, key, _place(request, key), settings, outcomes, named)
        _tell(study, optuna_trial, outcome, request.budget)
        outcomes.append(outcome)
        on_trial(outcome, outcomes)
    return outcomes


def joint_base(request: Request, say: Callable[[str], None] = lambda line: None):
    """The config that points of the space change: `request.base` with what all of them share.

    That are the teacher, and the runs of one modality that the recipe starts from: one of each,
    of the whole backbone, instead of one for each depth. They are trained first, as ordinary runs.

    Raises:
        UsageError: one could not be trained.
    """
    config = copied(request.base)
    if not config.parents and not {"image.preset", "image.size"} & set(request.space.dimensions):
        shared = resolve(spaces.variant_point(spaces.VARIANT).config(config)).parent.warm_start
        config.parents = tuple(str(_trained(request, m, say)) for m in shared)
    if request.teacher:
        config.teacher.runs = (str(_trained(request, request.teacher, say)),)
    return config


def _trained(request: Request, variant: str, say: Callable[[str], None]) -> Path:
    """The finished run of a named variant, of the search's own seed."""
    folder = request.folder / "runs" / f"{variant}-s{request.seed}"
    if not folder.is_dir():
        _log.info("First what the others learn from: %s", variant)
    say(f"training {variant} ...")
    config = variant_point(variant).config(request.base)
    config.teacher = get_config().teacher
    train_whole(config, folder)
    return folder


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
            names = [name for name in identity if before.get(name) != identity[name]]
            raise UsageError(
                f"{request.folder} holds a search with another {', '.join(names)}: repeat that "
                "command to go on with it, or give another --workdir."
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
        _begin(study, request, sealed)
    write(file, (json.dumps(identity, indent=1) + "\n").encode())
    return study


def _begin(study: optuna.Study, request: Request, sealed: str) -> None:
    """Name what is measured, and propose the named variants that the space holds."""
    study.set_metric_names(list(OBJECTIVES))
    for variant, coordinates in inside(request).items():
        study.enqueue_trial(coordinates, user_attrs={_NAMED: variant}, skip_if_exists=True)
    study.set_user_attr("identity", sealed)


def inside(request: Request) -> dict[str, dict]:
    """Named variant -> its coordinates, of those that the space holds."""
    plans = {v: plan_at(variant_point(v), request.base) for v in request.named}
    found = {v: request.space.coordinates(p.spec, p.config) for v, p in plans.items()}
    return {variant: where for variant, where in found.items() if where}


def _references(request: Request) -> Iterator[tuple]:
    """The named variants that no point of the space is."""
    within = inside(request)
    for variant in request.named:
        if variant not in within:
            point = variant_point(variant)
            yield point, plan_at(point, request.base), variant


def _place(request: Request, key: str) -> Path:
    return request.folder / "trials" / key


def _proposals(study: optuna.Study, request: Request, outcomes: list[Outcome]) -> Iterator[tuple]:
    """Points that were not there before: (Optuna's trial, point, plan, key).

    First what has ended already, as it was told, then what was running, then new ones.
    """
    seen = {outcome.key: 0 for outcome in outcomes}
    for frozen in study.get_trials(deepcopy=False):
        if frozen.state == TrialState.RUNNING:
            yield from _proposed(optuna.Trial(study, frozen._trial_id), study, request, seen)
        elif _KEY in frozen.user_attrs and _SAME not in frozen.user_attrs:
            ended = trials.read(_place(request, frozen.user_attrs[_KEY]))
            if ended:
                seen[ended.key] = frozen.number
                outcomes.append(ended)
    repeated = 0
    while len(outcomes) < request.count:
        number = len(study.get_trials(deepcopy=False))
        kind = request.sampler if repeated < _PATIENCE else "random"
        study.sampler = _sampler(kind, request.seed * 1_000_003 + number)
        new = list(_proposed(study.ask(), study, request, seen))
        repeated = 0 if new else repeated + 1
        if repeated > _EXHAUSTED:
            _log.info("The space has no other points that can be built.")
            return
        yield from new


def _proposed(
    asked: optuna.Trial, study, request: Request, seen: dict[str, int]
) -> Iterator[tuple]:
    """The point of a trial, if it is a new one; else the trial is told what is wrong with it."""
    point = request.space.drawn(asked, flat=request.sampler not in ("tpe", "random"))
    try:
        plan = plan_at(point, request.base)
    except UsageError as error:
        asked.set_user_attr("reason", str(error))
        study.tell(asked, state=TrialState.FAIL)
        return
    key = key_of(plan)
    if key in seen:
        asked.set_user_attr(_SAME, seen[key])
        study.tell(asked, state=TrialState.FAIL)
        return
    seen[key] = asked.number
    asked.set_user_attr(_KEY, key)
    asked.set_user_attr(_NAME, point.name)
    yield asked, point, plan, key


def _tell(study: optuna.Study, asked: optuna.Trial, outcome: Outcome, budget: float | None) -> None:
    """What became of it, as Optuna and its dashboard read it."""
    asked.set_user_attr("state", outcome.state)
    if outcome.reason:
        asked.set_user_attr("reason", outcome.reason)
    for precision, times in outcome.latency.items():
        asked.set_user_attr(f"{precision} p90 ms", times["p90"])
    for precision, nll in outcome.nll.items():
        asked.set_user_attr(f"{precision} NLL", nll)
    if budget is not None:
        if outcome.latency:
            asked.set_constraint("p90 over the budget, ms", outcome.p90 - budget)
        elif outcome.state == OVER:
            asked.set_constraint("p90 over the budget, ms", budget)
    if outcome.state == TRAINED:
        study.tell(asked, outcome.objectives)
    else:
        study.tell(asked, state=TrialState.FAIL if outcome.state == FAILED else TrialState.PRUNED)


def _sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler that depends on its seed and on the trials so far alone, so that a search that was
    killed goes on as it would have."""
    samplers = optuna.samplers
    if kind == "random":
        return samplers.RandomSampler(seed=seed)
    if kind == "nsga2":
        return samplers.NSGAIISampler(population_size=_RANDOM, seed=seed)
    if kind == "gp":
        return samplers.GPSampler(n_startup_trials=_RANDOM, seed=seed)
    # With several objectives these are off unless they are asked for.
    return samplers.TPESampler(n_startup_trials=_RANDOM, multivariate=True, group=True, seed=seed)


def pareto(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, str]]:
    """The front over all precisions: (trial, precision), fastest first."""
    every = [(o, name) for o in outcomes if o.state == TRAINED for name in o.nll]
    points = np.array([(o.nll[name], o.latency[name]["p90"]) for o, name in every])
    best = [pair for pair, on_it in zip(every, front(points), strict=True) if on_it]
    return sorted(best, key=lambda pair: pair[0].latency[pair[1]]["p90"])
