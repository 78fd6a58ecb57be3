"""What a graph may lose of the accuracy on the test split, and what few test rows can show.

A graph that loses more than its bar is refused. With few rows two of them are more than a bar
of one point, and which of the near ties fall to the right class is luck. There a loss is held
against a graph if the rows show one (the interval of the paired change leaves out 0), or if its
logits differ by more than a sound graph's do: an interval of few rows is wide enough to hold
0 for a graph that guesses.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from export.ladder import KEPT, TOLERANCES, Rung, few, remedy, small
from fusion_keras.errors import UsageError

_Z = 1.959964  # of 95 %


@dataclasses.dataclass(frozen=True)
class Change:
    """The accuracy of one graph on the test split beside that of another.

    before, after: shares; rows: of the split; allowed: the share that may be lost; by_user:
    whether that is --allow_loss; interval: 95 % of after - before, and rung: the logits of the
    test rows; both None where the other's answers are not known row by row.
    """

    name: str
    kind: str
    before: float
    after: float
    rows: int
    allowed: float
    by_user: bool
    interval: tuple[float, float] | None = None
    rung: Rung | None = None

    @property
    def value(self) -> float:
        return self.after - self.before

    @property
    def within(self) -> bool:
        # A hair more, for what a subtraction of shares of rows rounds; a nan is not within.
        return -self.value <= self.allowed + 1e-9

    @property
    def excused(self) -> bool:
        """Whether more is lost than may, and the rows are too few to show a loss."""
        if self.within or self.by_user or self.rung is None:
            return False
        is_few = few(TOLERANCES[self.kind].accuracy, self.rows)
        return is_few and self.interval[1] >= 0 and self.rung.near_ties

    def described(self) -> dict:
        """What `meta.json` says of it."""
        return {
            "accuracy_change": self.value,
            "change_interval": self.interval,
            "allowed_loss": self.allowed,
            "excused": self.excused,
            "test_rung": self.rung and self.rung.described(),
        }


def change_of(
    name: str,
    kind: str,
    before: float,
    right: np.ndarray,
    right_before: np.ndarray | None = None,
    rung: Rung | None = None,
    allow_loss: float | None = None,
) -> Change:
    """What a graph has lost.

    Args:
        kind: a key of TOLERANCES.
        before: the accuracy that it is compared with.
        right: bool [N], whether the graph answers each test row rightly.
        right_before: bool [N], the other's; rung: of their logits. None where not known.
        allow_loss: points that the user allows, instead of the bar of the kind.
    """
    rows = len(right)
    usual = max(TOLERANCES[kind].accuracy, 1 / rows)
    return Change(
        name=name,
        kind=kind,
        before=before,
        after=float(right.mean()),
        rows=rows,
        allowed=usual if allow_loss is None else allow_loss / 100,
        by_user=allow_loss is not None,
        interval=None if right_before is None else paired_interval(right, right_before),
        rung=rung,
    )


def paired_interval(right: np.ndarray, right_before: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a change of accuracy, from answers to the same rows.

    Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10: Wilson's intervals of both
    accuracies, joined by their correlation, with its continuity correction. Unlike a bootstrap or
    an interval of the normal distribution it has a width where no row changes.

    Args:
        right, right_before: bool [N].

    Returns:
        Low and high of the accuracy minus the one before.
    """
    n = len(right)
    both, neither = int((right & right_before).sum()), int((~right & ~right_before).sum())
    gained, lost = int((right & ~right_before).sum()), int((~right & right_before).sum())
    after, low_after, high_after = _wilson(both + gained, n)
    before, low_before, high_before = _wilson(both + lost, n)
    product = both * neither - gained * lost
    scale = math.sqrt((both + gained) * (lost + neither) * (both + lost) * (gained + neither))
    correlation = (max(product - n / 2, 0) if product > 0 else product) / (scale or 1)

    def distance(of_after: float, of_before: float) -> float:
        return math.sqrt(of_after**2 - 2 * correlation * of_after * of_before + of_before**2)

    change = after - before
    low = change - distance(after - low_after, high_before - before)
    return low, change + distance(high_after - after, before - low_before)


def _wilson(count: int, n: int) -> tuple[float, float, float]:
    """A share and its interval."""
    share = count / n
    middle = (count + _Z**2 / 2) / (n + _Z**2)
    half = _Z * math.sqrt(n * share * (1 - share) + _Z**2 / 4) / (n + _Z**2)
    return share, middle - half, middle + half


def check(change: Change) -> None:
    """End the export if a graph has lost too much accuracy on the test split.

    Raises:
        UsageError: names the graph and both accuracies.
    """
    if change.within or change.excused:
        return
    around = "" if change.interval is None else f", a change of {shown(change)} points"
    by = " by --allow_loss" if change.by_user else ""
    raise UsageError(
        f"{change.name} loses too much: test accuracy {100 * change.after:.1f} % where "
        f"{100 * change.before:.1f} % was{around} over {change.rows} rows, "
        f"{100 * change.allowed:.1f} points are allowed{by}{_held_against(change)}. {KEPT}"
        f"{remedy(change.name, -change.value)}"
    )


def _held_against(change: Change) -> str:
    """Why few rows are proof enough; empty where they are not few, or the user has set the bar."""
    rung, bar = change.rung, TOLERANCES[change.kind]
    if change.by_user or rung is None or not few(bar.accuracy, change.rows):
        return ""
    if change.interval[1] < 0:
        return "; the rows are few, and show a loss all the same"
    return (
        f"; the rows are too few to show that, but its logits {small(rung)} and {rung.decided} "
        f"classes changed that were decided by more than the typical difference ({rung.may_flip} "
        "may)"
    )


def shown(change: Change) -> str:
    """Points: "+0.3", or "+0.3 [-1.0, +1.6]" where the interval is known."""
    value = f"{100 * change.value:+.1f}"
    if change.interval is None:
        return value
    low, high = (f"{100 * end:+.1f}" for end in change.interval)
    return f"{value} [{low}, {high}]"


def notes(change: Change) -> list[str]:
    """What is to be said of a change that is let pass, and would not be by the usual bar."""
    usual = max(TOLERANCES[change.kind].accuracy, 1 / change.rows)
    if not change.before:
        return [f"{change.name}: no test row was answered rightly before, so that none can be lost"]
    changes = f"{change.name}: test accuracy changes by {shown(change)} points"
    bar = f"{100 * change.allowed:.1f} may be lost"
    if change.excused:
        return [
            f"{changes} over {change.rows} rows, where {bar}. So few rows do not show a loss, and "
            f"its logits {small(change.rung)}."
        ]
    if change.by_user and not -change.value <= usual + 1e-9:
        return [f"{changes}; by --allow_loss {bar}, {100 * usual:.1f} would be the bar."]
    return []
