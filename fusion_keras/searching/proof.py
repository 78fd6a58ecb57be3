"""What became of the best: trained anew on seeds that chose nothing, exported, measured together.

The best of many trials is partly luck (Feurer et al. 2022, Mind the Gap, arXiv 2212.04183): what a
search says of its finalists is not what they are. Here the test split is read, once a run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.config import copied
from fusion_keras.searching.latency import run
from fusion_keras.searching.rungs import hypervolume
from fusion_keras.searching.space import Point, variant_point
from fusion_keras.searching.study import Request, inside, joint_base, pareto
from fusion_keras.searching.trainee import train_whole
from fusion_keras.searching.trial import TRAINED, Outcome

_log = logging.getLogger(__name__)


def finalists(outcomes: Sequence[Outcome], count: int) -> list[Outcome]:
    """Trials of the front that cover most of it, the most telling first; no named variants.

    Args:
        outcomes: of a search.
        count: how many at most.
    """
    points = {}
    for outcome, precision in pareto(outcomes):
        if not outcome.named:
            place = (outcome.nll[precision], outcome.latency[precision]["p90"])
            points.setdefault(outcome.key, (outcome, []))[1].append(place)
    trained = [o for o in outcomes if o.state == TRAINED]
    if not points:
        return []
    reference = [
        1.01 * max(x for o in trained for x in o.nll.values()),
        1.01 * max(t["p90"] for o in trained for t in o.latency.values()),
    ]
    chosen: list[Outcome] = []
    covered: list[tuple] = []
    while len(chosen) < count and len(chosen) < len(points):
        gains = {
            key: hypervolume(np.array(covered + places), reference)
            for key, (outcome, places) in points.items()
            if outcome not in chosen
        }
        outcome, places = points[max(gains, key=gains.get)]
        chosen.append(outcome)
        covered += places
    return chosen


def prove(
    request: Request,
    chosen: Sequence[Outcome],
    seeds: int,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train, export, measure and report finalists beside the named variants.

    Args:
        request: of the search.
        chosen: the finalists.
        seeds: how many, those that follow the search's own.

    Returns:
        The report, a page.

    Raises:
        UsageError: a training or a later step failed; what is done is kept.
    """
    joint = joint_base(request, say)
    models = {v: (variant_point(v), request.base) for v in request.named}
    models |= {v: (variant_point(v), joint) for v in inside(request)}
    models |= {
        f"finalist-{i}": (Point(outcome.name, outcome.settings), joint)
        for i, outcome in enumerate(chosen, 1)
    }
    planned = [
        (request.folder / "runs" / f"{name}-s{seed}", point, base, seed)
        for seed in range(request.seed + 1, request.seed + 1 + seeds)
        for name, (point, base) in models.items()
    ]
    for number, (folder, point, base, seed) in enumerate(planned, 1):
        if not folder.is_dir():
            _log.info("[%d/%d] training %s: %s", number, len(planned), folder.name, point.name)
        say(f"training {folder.name} ...")
        config = copied(base)
        config.seed = seed
        train_whole(point.config(config), folder)
    target = request.folder / "proof"
    flags = [f"--runs={','.join(str(folder) for folder, *_ in planned)}", f"--workdir={target}"]
    flags += [f"--precisions={','.join(p for p in request.precisions if p != 'fp32')}"]
    flags += [] if request.budget is None else [f"--budget-ms={request.budget:g}"]
    say("exporting, measuring, reporting ...")
    run([sys.executable, "-m", "bench.study", *flags], request.folder / "proof.log")
    return target / "report.html"
