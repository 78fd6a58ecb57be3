"""Searches over a table: a space whose models a finished search has all seen through.

A trial is looked up instead of trained, so that samplers can be compared over many seeds.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.searching import space_file, study
from fusion_keras.searching.base import untaught
from fusion_keras.searching.outcome import OVER, STOPPED, Outcome, pareto, read
from fusion_keras.searching.report import reference_of, share_of
from fusion_keras.searching.request import Request
from fusion_keras.training.restored import config_of_values
from fusion_keras.training.run import read_json


@dataclass(frozen=True)
class Table:
    """What a search has seen.

    Attributes:
        request: of the search.
        models: key -> what became of it.
    """

    request: Request
    models: dict[str, Outcome]

    @property
    def stopped(self) -> int:
        """How many were stopped at a rung: how good they are nobody knows."""
        return sum(model.state == STOPPED for model in self.models.values())

    @property
    def named(self) -> list[Outcome]:
        return [model for model in self.models.values() if model.named]

    def share(self, found: Sequence[Outcome]) -> float:
        """The hypervolume of a front as a share of that of the whole table's."""
        return share_of(pareto(found, self.request.limits), self._reference) / self.whole

    @functools.cached_property
    def _reference(self) -> tuple[float, float]:
        return reference_of(self.request, list(self.models.values()))

    @functools.cached_property
    def whole(self) -> float:
        """The hypervolume of all that there is, as a share of the area up to the reference."""
        best = pareto(list(self.models.values()), self.request.limits)
        return share_of(best, self._reference)


@dataclass(frozen=True)
class Searched:
    """One search over a table.

    Attributes:
        shares: float [T], what `Table.share` says behind each trial of it and the named variants,
            with which every search begins.
        seconds: float [T], what the trials up to there would have cost, without these.
        start: the share of the named variants alone.
        unknown: proposals that the table does not have; they count as failed.
    """

    start: float
    shares: np.ndarray
    seconds: np.ndarray
    unknown: int

    def at(self, seconds: float) -> float:
        """The share after so many seconds."""
        ended = int(np.searchsorted(self.seconds, seconds, side="right"))
        return float(self.shares[ended - 1]) if ended else self.start


def table(folder: Path, space: str, budget: float | None = None) -> Table:
    """The table of a finished search.

    Args:
        space: the file that the search was given; "" for the default space.
        budget: most ms that are allowed instead of what that search allowed.

    Raises:
        UsageError: it is no search, of another space, or nothing of it was trained, is within the
            budget and better than a guess.
    """
    if not (folder / "search.json").is_file():
        raise UsageError(f"{folder} is no search: give the --workdir of fusion_keras.search.")
    identity = read_json(folder / "search.json")
    base = config_of_values(identity["config"])
    held = space_file.of_file(Path(space), base) if space else space_file.default(base)
    models = [read(trial) for trial in sorted((folder / "trials").glob("*"))]
    if held.digest() != identity["space"]:
        raise UsageError(
            f"{folder} is a search of another space: give the --space file that it was given."
        )
    known = {model.key: model for model in models if model}
    if not any(model.nll for model in known.values()):
        raise UsageError(f"{folder} has no trained model: let that search go on.")
    # What a trial learns from was trained then.
    base = untaught(base)
    base.parents, base.parent.warm_start = (), ()
    limits = {"budget": "budget_ms", "memory": "budget_mb", "energy": "budget_mj"}
    request = Request(
        base=base,
        space=held,
        folder=folder,
        precisions=tuple(identity["precisions"]),
        named=(),
        **{name: identity[flag] for name, flag in limits.items()},
    )
    if budget is not None:
        if request.budget and budget > request.budget:
            raise UsageError(
                f"got --budget_ms={budget:g}, and {folder} has trained nothing above "
                f"{request.budget:g} ms: give at most that."
            )
        request = dataclasses.replace(request, budget=budget)
    found = Table(request, known)
    if not found.whole:
        raise UsageError(
            f"no model of {folder} is within the budget and better than a guess: give a larger "
            "budget, or a search that trained for longer."
        )
    return found


# Steps of a trial that one over its limits is spared.
_OF_TRAINING = ("training", "scoring")


def _within(model: Outcome, limits: Mapping[str, float]) -> Outcome:
    """A model as a search with these limits knows it: over them it is measured, not trained."""
    if not model.latency or max(model.excess(limits).values(), default=0) <= 0:
        return model
    spent = {what: model.seconds[what] for what in model.seconds if what not in _OF_TRAINING}
    nothing = {"nll": {}, "nll_error": {}, "valid": {}, "history": []}
    return dataclasses.replace(model, state=OVER, seconds=spent, **nothing)


def searched(known: Table, sampler: str, seed: int, trials: int) -> Searched:
    """Search a table."""
    unknown = 0

    def looked_up(place, point, plan, key, folder, settings, before, named="") -> Outcome:
        nonlocal unknown
        if key in known.models:
            return _within(known.models[key], settings.limits)
        unknown += 1
        return Outcome(key, point.name, dict(point.settings), reason="not in the table")

    found: list[Outcome] = []
    with tempfile.TemporaryDirectory() as place:
        request = dataclasses.replace(
            known.request,
            folder=Path(place),
            cache=Path(place),
            sampler=sampler,
            seed=seed,
            count=trials,
        )
        study.search(request, found, carry_out=looked_up)
    shares = [known.share([*known.named, *found[: count + 1]]) for count in range(len(found))]
    seconds = np.cumsum([sum(model.seconds.values()) for model in found])
    return Searched(known.share(known.named), np.array(shares), seconds, unknown)
