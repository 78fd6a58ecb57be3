"""Which trials go on: rungs of epochs, and ranks that no objective decides alone.

Asynchronous successive halving over several objectives (Schmucker et al. 2021, Multi-objective
Asynchronous Successive Halving, arXiv 2106.12639, section 3): at each rung a trial is compared with
those that were there before it, by non-dominated rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Of those that have reached a rung, one in so many goes on.
KEPT_OF = 2


def rungs(epochs: int) -> list[int]:
    """The epochs behind which is looked: a quarter, a half, all of them."""
    return sorted({max(1, epochs // 4), max(1, epochs // 2), epochs})


def reached(history: Sequence[dict], p90: float, epoch: int) -> tuple[float, float] | None:
    """The objectives of a training as they were behind an epoch: the least validation NLL so far,
    and p90 in ms; None where it did not get there.

    Args:
        history: of validation, a line for each epoch.
    """
    lines = [line for line in history if line["epoch"] <= epoch]
    if not lines or max(line["epoch"] for line in lines) < epoch:
        return None
    return min(line["valid_nll"] for line in lines), p90


def ranks(points: np.ndarray) -> np.ndarray:
    """Non-dominated rank of each point, int [N]: 0 for the front, 1 for the front without it, ...

    Args:
        points: float [N, D], less is better. A point dominates another where it is nowhere worse
            and somewhere better (Deb et al. 2002, NSGA-II, section III.A).
    """
    dominates = _dominates(points)
    found, rank = np.full(len(points), -1), 0
    while (found < 0).any():
        left = found < 0
        front = left & ~dominates[left].any(0)
        found[front] = rank
        rank += 1
    return found


def goes_on(own: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    """Whether a trial is among the better half of all that have reached its rung.

    Args:
        own: its objectives there, less is better.
        others: of the trials before it.
    """
    if not others:
        return True
    found = ranks(np.array([own, *others], float))
    better = int((found[1:] < found[0]).sum())
    return better < np.ceil(len(found) / KEPT_OF)


def front(points: np.ndarray) -> np.ndarray:
    """bool [N]: the points that no other dominates."""
    return ~_dominates(points).any(0) if len(points) else np.zeros(0, bool)


def _dominates(points: np.ndarray) -> np.ndarray:
    """bool [N, N]: whether the one dominates the other."""
    nowhere_worse = (points[:, None] <= points[None]).all(-1)
    return nowhere_worse & (points[:, None] < points[None]).any(-1)


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """The area that points [N, 2] dominate, up to a reference; less is better in both.

    Zitzler and Thiele 1999, section IV: points beyond the reference add nothing.
    """
    inside = points[(points < np.asarray(reference)).all(-1)] if len(points) else points
    area, height = 0.0, float(reference[1])
    for x, y in sorted(map(tuple, inside)):
        if y < height:
            area += (float(reference[0]) - x) * (height - y)
            height = y
    return area
