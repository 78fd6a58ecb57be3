"""The search itself: Optuna proposes points, trials answer, and all of it can be killed.

Optuna's storage holds what was proposed and how it went; each trial's folder what it measured. A
trial that was running when the search was killed is gone on with, with the same coordinates.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import optuna
from optuna.trial import TrialState

from fusion_keras.errors import UsageError
from fusion_keras.files import write
from fusion_keras.searching import trial as trials
from fusion_keras.searching.away import Away
from fusion_keras.searching.base import joint_base, outputs_of, reference_key
from fusion_keras.searching.crew import Crew, Line, Place
from fusion_keras.searching.latency import Meter
from fusion_keras.searching.measuring import met
from fusion_keras.searching.outcome import FAILED, LIMITED, OVER, TRAINED, Outcome, others
from fusion_keras.searching.proposals import NAMED, Proposal, inside, proposals
from fusion_keras.searching.request import Request
from fusion_keras.training.run import changes, worded

OBJECTIVES = ("validation NLL", "p90 ms")


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
            an earlier call has found: the named variants outside the space, then by number. Where
            this one is stopped, all that there is.
        say: told what is being done.
        on_trial: told of each trial that has ended now.
        carry_out: sees a trial through; another one looks it up in a table, to compare samplers.
        away: nodes that train instead of this machine.

    Raises:
        UsageError: a folder or a storage of another search, another process that searches there,
            or what the trials learn from could not be trained.
    """
    request.folder.mkdir(parents=True, exist_ok=True)
    with (
        _alone(request.folder),
        Crew(request.jobs, away) as crew,
        contextlib.ExitStack() as on_the_way,
    ):
        study = open_study(request)
        on_the_way.enter_context(_told_of_all(request.folder / "trials", outcomes))
        # Before anything is trained.
        there = met(request.device, request.folder, crew) if request.device else None
        joint = joint_base(request, crew.whole, request.seed, say)
        meter = Meter(
            request.cache,
            outputs_of(request.base),
            reference_key(request.base),
            crew,
            there,
            request.runner,
            request.folder / "scale.json",
        )
        told, under_way = Line(say), deque()

        def seen_through(place: Place, proposal: Proposal, folder: Path, before) -> Outcome:
            now = told.of(proposal.key)
            settings = trials.Settings(
                proposal.base, request.precisions, request.limits, meter, now
            )
            what = (proposal.point, proposal.plan, proposal.key, folder, settings, before)
            try:
                return carry_out(place, *what, proposal.named)
            finally:
                now("")

        def begun(proposal: Proposal) -> tuple[Future, bool]:
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

        for proposal in proposals(study, request, joint):
            under_way.append((proposal, *begun(proposal)))
            # In order, whichever has ended: what is proposed next depends on no clock.
            while len(under_way) >= ahead(request.jobs):
                end_first()
        while under_way:
            end_first()


@contextlib.contextmanager
def _told_of_all(folder: Path, outcomes: list[Outcome]) -> Iterator[None]:
    """Where the block fails it may not have come to all that an earlier call has found."""
    try:
        yield
    except BaseException:
        outcomes.extend(others(folder, outcomes))
        raise


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
    tables = request.tables()
    if file.is_file():
        try:
            before = json.loads(file.read_text())
        except ValueError:
            raise UsageError(f"{file} is damaged: give another --workdir.") from None
        for table, sha256 in before.pop("tables", {}).items():
            if tables.get(table, sha256) != sha256:
                raise UsageError(
                    f"{table} has changed since the search in {request.folder} began: restore it, "
                    "or give another --workdir to search on the new rows."
                )
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
        study.enqueue_trial(coordinates, user_attrs={NAMED: variant}, skip_if_exists=True)
    write(file, (json.dumps({**identity, "tables": tables}, indent=1) + "\n").encode())
    return study


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
