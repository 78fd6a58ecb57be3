"""Which rows were answered rightly, made into curves with intervals and MultiBench's two numbers.

Liang et al. 2021 (MultiBench, arXiv 2107.07502) call accuracy over growing imperfection the
performance-imperfection curve and sum it up by relative and effective robustness; both are here
as their code computes them (github.com/pliang279/MultiBench, eval_scripts/robustness.py at commit
0f790a2), without its last step, which maps them to 0..1 over the published methods.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from fusion_keras.data.corrupt import CORRUPTIONS
from fusion_keras.metrics import paired_bootstrap

_RESAMPLES = 2000

# (key of a model, corruption, strength) -> share of the draws in which each row is right, [n].
Correct = Callable[[str, str, float], np.ndarray]


def relative_robustness(accuracies: Sequence[float]) -> float:
    """Area below an accuracy curve, from clean to the greatest strength, by trapezoids.

    Strengths count as equally spaced over a length of 1, as MultiBench's levels 0, 0.1, ..., 1
    are (`relative_robustness_helper`). A model that loses nothing has its clean accuracy.
    """
    return float(np.trapezoid(accuracies, dx=1 / (len(accuracies) - 1)))


def effective_robustness(accuracies: Sequence[float], reference: Sequence[float]) -> float:
    """How much less a model loses than the reference does, summed over the strengths.

    The sum of f - beta, where beta is the reference's curve, moved so that it starts at f's clean
    accuracy (`effective_robustness_helper`; the idea of Taori et al. 2020, arXiv
    2007.00644). Above 0 it loses less. It grows with the number of strengths: compare it within
    one grid.
    """
    f, baseline = np.asarray(accuracies), np.asarray(reference)
    # As differences from clean, so that a model against itself is 0 and not a rounding error.
    return float(np.sum((f - f[0]) - (baseline - baseline[0])))


def names_of(models: Sequence[dict]) -> list[str]:
    """What each model's curve is called: alike for those that differ in nothing but the seed.

    The variant, and the precision of an exported one; with the name of its first directory where
    two that may not be averaged would be called alike.

    Args:
        models: each with variant, precision, family and path.
    """
    plain = {m["family"]: f"{m['variant']} {m['precision']}".strip() for m in models}
    first = {m["family"]: m["path"] for m in reversed(models)}
    times = Counter(plain.values())
    return [
        name if times[name := plain[m["family"]]] == 1 else f"{name} ({first[m['family']]})"
        for m in models
    ]


def curves_of(
    models: Sequence[dict],
    grid: dict[str, tuple[float, ...]],
    correct: Correct,
    groups: Sequence[str] | None,
    reference: str,
) -> list[dict]:
    """A curve for each corruption and each name of `names_of`.

    Args:
        models: as `names_of` takes them, with key and seed.
        grid: corruption -> strengths, without the 0 that every curve begins with.
        correct: strength 0 is the undamaged split, whatever the corruption.
        groups: of the rows; whole ones are resampled.
        reference: the name of the curve that effective robustness is against.

    Returns:
        Of each curve name, paths, seeds, corruption, modality, strengths and levels (their
        names); accuracy, low and high, and drop, drop_low and drop_high, the clean accuracy minus
        it, paired by row, each a list over the strengths (95 % bootstrap intervals, None where
        there is nothing to resample); relative and effective.
    """
    models_of: dict[str, list[dict]] = {}
    for name, model in zip(names_of(models), models, strict=True):
        models_of.setdefault(name, []).append(model)
    curves = []
    for corruption, strengths in grid.items():
        strengths = (0.0, *strengths)
        shares_of = {
            name: [np.stack([correct(m["key"], corruption, s) for m in some]) for s in strengths]
            for name, some in models_of.items()
        }
        base = [share.mean() for share in shares_of[reference]]
        for name, some in models_of.items():
            kind, shares = CORRUPTIONS[corruption], shares_of[name]
            accuracy = [float(share.mean()) for share in shares]
            curves.append(
                {
                    "name": name,
                    "paths": [m["path"] for m in some],
                    "seeds": [m["seed"] for m in some],
                    "corruption": corruption,
                    "modality": kind.modality,
                    "strengths": list(strengths),
                    "levels": ["clean", *(kind.level(s) for s in strengths[1:])],
                    **_intervals(shares, groups),
                    "relative": relative_robustness(accuracy),
                    "effective": effective_robustness(accuracy, base),
                }
            )
    return curves


def _intervals(shares: list[np.ndarray], groups) -> dict[str, list[float | None]]:
    """Of shares [seeds, n], one array a strength."""
    how = {"groups": groups, "repeats": _RESAMPLES}
    alone = [paired_bootstrap(share, np.zeros_like(share), **how) for share in shares]
    drops = [paired_bootstrap(shares[0], share, **how) for share in shares]
    columns = {}
    for start, intervals in (("", alone), ("drop_", drops)):
        columns[start[:-1] or "accuracy"] = [interval["difference"] for interval in intervals]
        for end in ("low", "high"):
            columns[start + end] = [
                None if math.isnan(interval[end]) else interval[end] for interval in intervals
            ]
    return columns
