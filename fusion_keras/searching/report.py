"""What a search says: a line a trial, a table of the front, and a page."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from fusion_keras import terminal
from fusion_keras.files import write
from fusion_keras.searching.outcome import FAILED, LIMITED, OVER, STOPPED, TRAINED, Outcome, pareto
from fusion_keras.searching.page import write_page
from fusion_keras.searching.proof import label
from fusion_keras.searching.request import Request
from fusion_keras.searching.rungs import hypervolume

_log = logging.getLogger(__name__)


class Progress:
    """Shows how a search gets on, and holds what it has found."""

    def __init__(self, request: Request):
        self.request, self.outcomes = request, []
        self._began, self._made, self._seen, self._standing = time.monotonic(), 0, 0, ""
        self._status = terminal.console().status("")

    def __enter__(self) -> Progress:
        self._status.start()
        return self

    def __exit__(self, *_) -> None:
        self._status.stop()

    def say(self, line: str) -> None:
        """What is being done, and what was found, in a line that the next one replaces."""
        if len(self.outcomes) != self._seen:
            self._seen = len(self.outcomes)
            self._standing = standing(self.request, self.outcomes)
        self._status.update(f"{line}  {self._standing}")
        _log.debug("%s", line)

    def ended(self, outcome: Outcome) -> None:
        """A trial has ended."""
        self._made += 1
        seconds = time.monotonic() - self._began
        left = max(0, self.request.count - len(self.outcomes)) * seconds / self._made
        _log.info(
            "[%d/%d] %s: %s  (%s gone, about %s left)",
            len(self.outcomes),
            self.request.count,
            outcome.named or outcome.name,
            said(outcome),
            terminal.clock(seconds),
            terminal.clock(left),
        )


def standing(request: Request, outcomes: Sequence[Outcome]) -> str:
    """The best of each objective so far, and the front's hypervolume, in a phrase."""
    best = pareto(outcomes, request.limits)
    if not best:
        return ""
    nll, share = min(o.nll[p] for o, p in best), share_of(best, reference_of(request, outcomes))
    fastest, precision = best[0]
    return (
        f"(best: NLL {nll:.3f}, {fastest.latency[precision]['p90']:.2f} ms; the front dominates "
        f"{100 * share:.1f} %)"
    )


def said(outcome: Outcome) -> str:
    """What became of a trial, in a phrase."""
    if outcome.state != TRAINED:
        return f"{outcome.state}: {outcome.reason}"
    nll, p90 = outcome.objectives
    return f"NLL {nll:.3f}, {p90:.2f} ms at {outcome.fastest}"


def closing(
    request: Request, outcomes: Sequence[Outcome], chosen: Sequence[Outcome] = ()
) -> list[RenderableType]:
    """The front as a table, the counts and the page; writes `front.json` and `report.html`.

    Args:
        chosen: the finalists.
    """
    counts = Counter(outcome.state for outcome in outcomes)
    order = (TRAINED, STOPPED, OVER, FAILED)
    phrases = [f"{counts[state]} {state}" for state in order if counts[state]]
    trials = "1 trial" if len(outcomes) == 1 else f"{len(outcomes)} trials"
    summary = f"{trials}: {', '.join(phrases) or 'none'}."
    if not counts[TRAINED]:
        return [summary, _nothing(request, outcomes)]
    best = pareto(outcomes, request.limits)
    table = Table(
        "model",
        "precision",
        "p90 ms",
        "validation NLL",
        "validation accuracy at fp32",
        title="front",
    )
    for outcome, precision in best:
        table.add_row(
            outcome.named or outcome.name,
            precision,
            f"{outcome.latency[precision]['p90']:.2f}",
            f"{outcome.nll[precision]:.3f}",
            f"{100 * outcome.valid['accuracy']:.1f} %",
        )
    content = [
        {"key": o.key, "name": o.name, "precision": p, "settings": o.settings, "named": o.named}
        for o, p in best
    ]
    write(request.folder / "front.json", (json.dumps(content, indent=1) + "\n").encode())
    grown = volumes(request, outcomes)
    page = write_page(request, outcomes, grown, chosen)
    return [
        table,
        *_guessing(best),
        *_open(best, outcomes),
        f"{summary} They dominate {100 * grown[-1]:.1f} % of the area up to a guess and the "
        f"{'slowest' if request.budget is None else 'budget'}.",
        f"Report: {page}",
        f"Storage: {request.url}; optuna-dashboard opens it, with pictures where it is told "
        f"--artifact-dir {request.folder / 'artifacts'}",
    ]


def _guessing(best: Sequence[tuple[Outcome, str]]) -> list[str]:
    """What is to be said of a front some of which has learned nothing."""
    count = sum(outcome.guesses(precision) for outcome, precision in best)
    if not count:
        return []
    return [
        f"note: {count} of the front's {len(best)} points, no better than a guess, cannot be "
        "finalists: train for longer (--config.train.epochs)."
    ]


def _open(best: Sequence[tuple[Outcome, str]], outcomes: Sequence[Outcome]) -> list[str]:
    """What is to be said where the validation rows are too few to tell which model is best.

    New seeds do not help: they are judged by the same rows.
    """
    least, precision = min(best, key=lambda point: point[0].nll[point[1]])
    error = least.nll_error.get(precision, 0.0)
    others = [o for o in outcomes if o.state == TRAINED and o is not least]
    near = sum(min(o.nll.values()) <= least.nll[precision] + error for o in others)
    if not near:
        return []
    return [
        f"note: the least validation NLL, {least.nll[precision]:.3f}, is known to +- {error:.3f} "
        f"(95 %), and {near} of the {len(others)} others are within that: which is best is open. "
        "More validation rows would tell."
    ]


def described(request: Request, finalists: int, seeds: int) -> list[RenderableType]:
    """What would be searched, and how far an earlier call has come."""
    table = Table("dimension", "values", title="what may vary")
    for name, values in request.space.dimensions.items():
        table.add_row(name, ", ".join(map(str, values)))
    ended = sum(1 for _ in (request.folder / "trials").glob("*/outcome.json"))
    units = {"p90": "ms of p90", "peak_mb": "MB at the peak", "mj": "mJ an inference"}
    limits = ", ".join(f"at most {most:g} {units[n]}" for n, most in request.limits.items())
    return [
        table,
        f"{request.count} trials, {', '.join(request.named)} first, then by {request.sampler}; "
        f"{limits or 'no budget'}; {ended} models have been seen through in {request.folder}",
        f"Proof: {finalists} finalists, {seeds} new seeds each. Nothing was begun.",
    ]


def _nothing(request: Request, outcomes: Sequence[Outcome]) -> str:
    measured = [o for o in outcomes if o.latency]
    limits = request.limits
    if not limits or not measured or any(max(o.excess(limits).values()) <= 0 for o in measured):
        return "Nothing was trained to its end; the lines above say why."
    # Of several limits the one that is missed by most, as a share of it.
    nearest = min(measured, key=lambda o: max(x / limits[n] for n, x in o.excess(limits).items()))
    has = nearest.latency[nearest.fastest]
    wanted = " and ".join(f"{most:g} {LIMITED[name][1]}" for name, most in limits.items())
    said = ", ".join(f"{LIMITED[n][0]} {has[n]:.2f} {LIMITED[n][1]}" for n in limits)
    return (
        f"Nothing that was measured is within {wanted}; the nearest is "
        f"{nearest.named or nearest.name}, {said} at {nearest.fastest}."
    )


def volumes(request: Request, outcomes: Sequence[Outcome]) -> list[float]:
    """Hypervolume of the front behind each trial, as a share of the area up to the NLL of a guess
    and to the budget, or without one to the slowest that was measured."""
    reference = reference_of(request, outcomes)
    return [
        share_of(pareto(outcomes[:count], request.limits), reference)
        for count in range(1, len(outcomes) + 1)
    ]


def reference_of(request: Request, outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """(NLL, ms) up to which hypervolumes count: a guess, and the budget or the slowest."""
    slowest = max(t["p90"] for o in outcomes for t in o.latency.values())
    return max(o.guess or 0 for o in outcomes), request.budget or slowest


def share_of(best: list[tuple[Outcome, str]], reference: tuple[float, float]) -> float:
    """The hypervolume of a front as a share of the area up to the reference."""
    points = np.array([(o.nll[p], o.latency[p]["p90"]) for o, p in best])
    return hypervolume(points, reference) / (reference[0] * reference[1])


def proven(request: Request, chosen: Sequence[Outcome], seeds: int) -> list[str]:
    """A sentence on each finalist: what the search said of it, and what new seeds say.

    Both on the validation split, at float32, as training leaves it.
    """
    said = []
    for outcome in chosen:
        folders = [
            request.folder / "runs" / f"{label(outcome)}-s{request.seed + 1 + i}"
            for i in range(seeds)
        ]
        found = [
            json.loads((folder / "metrics.json").read_text())["splits"]["valid"]["metrics"]["nll"]
            for folder in folders
        ]
        values = [nll["value"] for nll in found]
        spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        said.append(
            f"{label(outcome)}, {outcome.name}: validation NLL {outcome.valid['nll']:.3f} in the "
            f"search, {np.mean(values):.3f}{spread} on {len(values)} new seeds"
        )
    return said
