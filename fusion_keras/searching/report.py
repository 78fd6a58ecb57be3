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

from fusion_keras.files import write
from fusion_keras.searching.rungs import hypervolume
from fusion_keras.searching.study import Request, pareto
from fusion_keras.searching.trial import FAILED, OVER, STOPPED, TRAINED, Outcome

_log = logging.getLogger(__name__)


class Progress:
    """Shows how a search gets on, and holds what it has found."""

    def __init__(self, request: Request):
        self.request, self.outcomes = request, []
        self._began, self._before = time.monotonic(), None

    def say(self, line: str) -> None:
        _log.debug("%s", line)

    def ended(self, outcome: Outcome, outcomes: list[Outcome]) -> None:
        """A trial has ended; those that ended in an earlier call are shown, too."""
        self.outcomes = list(outcomes)
        if self._before is None:
            self._before = len(outcomes) - 1
        count, made = self.request.count, len(outcomes) - self._before
        seconds = time.monotonic() - self._began
        left = max(0, count - len(outcomes)) * seconds / max(1, made)
        _log.info(
            "[%d/%d] %s: %s  (%s gone, about %s left)",
            len(outcomes),
            count,
            outcome.named or outcome.name,
            said(outcome),
            clock(seconds),
            clock(left),
        )


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def said(outcome: Outcome) -> str:
    """What became of a trial, in a phrase."""
    if outcome.state != TRAINED:
        return f"{outcome.state}: {outcome.reason}"
    nll, p90 = outcome.objectives
    return f"NLL {nll:.3f}, {p90:.2f} ms at {outcome.fastest}"


def closing(request: Request, outcomes: Sequence[Outcome]) -> list[RenderableType]:
    """The front as a table, the counts, and what to do next; writes `front.json`."""
    counts = Counter(outcome.state for outcome in outcomes)
    order = (TRAINED, STOPPED, OVER, FAILED)
    phrases = [f"{counts[state]} {state}" for state in order if counts[state]]
    if not counts[TRAINED]:
        return [
            f"{len(outcomes)} trials: {', '.join(phrases) or 'none'}.",
            _nothing(request, outcomes),
        ]
    best = pareto(outcomes)
    table = Table(
        "model", "precision", "p90 ms", "validation NLL", "validation accuracy", title="front"
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
    return [
        table,
        f"{len(outcomes)} trials: {', '.join(phrases)}.",
        f"Hypervolume: {volume(request, outcomes):.4f} of the area up to a guess and the budget",
        f"Storage: {request.url}",
    ]


def _nothing(request: Request, outcomes: Sequence[Outcome]) -> str:
    measured = [o for o in outcomes if o.latency]
    if request.budget is None or not measured:
        return "Nothing was trained to its end."
    nearest = min(measured, key=lambda outcome: outcome.p90)
    return (
        f"Nothing that was measured is within {request.budget:g} ms; the nearest is "
        f"{nearest.named or nearest.name}, p90 {nearest.p90:.2f} ms at {nearest.fastest}."
    )


def volume(request: Request, outcomes: Sequence[Outcome]) -> float:
    """Hypervolume of the front, up to the NLL of a guess and the budget, as a share of that area.

    Without a budget up to the slowest model that was measured.
    """
    best = pareto(outcomes)
    points = np.array([(o.nll[p], o.latency[p]["p90"]) for o, p in best])
    slowest = max(t["p90"] for o in outcomes if o.latency for t in o.latency.values())
    classes = max(o.classes or 2 for o in outcomes)
    reference = (float(np.log(classes)), request.budget or slowest)
    return hypervolume(points, reference) / (reference[0] * reference[1])
