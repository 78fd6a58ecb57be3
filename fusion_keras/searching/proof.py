"""What became of the best: trained anew on seeds that chose nothing, exported, measured together.

The best of many trials is partly luck (Feurer et al. 2022, Mind the Gap, arXiv 2212.04183): what a
search says of its finalists is not what they are. Here the test split is read, once a run.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.searching.away import Away
from fusion_keras.searching.base import base_of, joint_base
from fusion_keras.searching.crew import Crew, Place
from fusion_keras.searching.measuring import run
from fusion_keras.searching.outcome import TRAINED, Outcome, pareto
from fusion_keras.searching.request import Request
from fusion_keras.searching.rungs import hypervolume
from fusion_keras.searching.space import Point, variant_point
from fusion_keras.searching.trainee import train_whole

_log = logging.getLogger(__name__)


def finalists(
    outcomes: Sequence[Outcome], count: int, limits: Mapping[str, float] | None = None
) -> list[Outcome]:
    """Trials of the front that cover most of it, the most telling first; no named variants, and
    none that is no better than a guess, however fast.

    Args:
        outcomes: of a search.
        count: how many at most.
        limits: of a request, beyond which nothing counts.
    """
    points = {}
    for outcome, precision in pareto(outcomes, limits):
        if not outcome.named and not outcome.guesses(precision):
            place = (outcome.nll[precision], outcome.latency[precision]["p90"])
            points.setdefault(outcome.key, (outcome, []))[1].append(place)
    trained = [o for o in outcomes if o.state == TRAINED]
    if not points:
        return []
    reference = [
        1.01 * max(x for o in trained for x in o.nll.values()),
        (limits or {}).get("p90")
        or 1.01 * max(t["p90"] for o in trained for t in o.latency.values()),
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


def label(outcome: Outcome) -> str:
    """What a finalist's runs and artifacts are called, also in a longer search."""
    return f"found-{outcome.key[:6]}"


def prove(
    request: Request,
    chosen: Sequence[Outcome],
    seeds: int,
    say: Callable[[str], None] = lambda line: None,
    away: Away | None = None,
) -> list[str]:
    """Train, export, measure and report finalists beside the named variants.

    Args:
        request: of the search.
        chosen: the finalists.
        seeds: how many, those that follow the search's own.
        say: told what is being done.
        away: nodes that train instead of this machine.

    Returns:
        What the report says of the budget, and where it is.

    Raises:
        UsageError: a training or a later step failed; what is done is kept.
    """
    with Crew(request.jobs, away) as crew:
        planned = []
        for seed in range(request.seed + 1, request.seed + 1 + seeds):
            # They have parents and teachers of their own seed.
            joint = joint_base(request, crew.whole, seed, say)
            models = {v: (variant_point(v), base_of(v, request, joint)) for v in request.named}
            models |= {label(o): (Point(o.name, o.settings), joint) for o in chosen}
            for name, (point, base) in models.items():
                config = point.config(base)
                config.seed = seed
                planned.append((request.folder / "runs" / f"{name}-s{seed}", point.name, config))
        _train(crew, planned, say)
        target = request.folder / "proof"
        flags = [f"--runs={','.join(str(folder) for folder, *_ in planned)}"]
        flags += [f"--workdir={target}", f"--precisions={','.join(request.precisions)}"]
        # Whatever one of them loses, the report shall say it.
        flags += ["--allow_loss=100", f"--runners={request.runner}", *request.device]
        flags += [] if request.budget is None else [f"--budget_ms={request.budget:g}"]
        say("exporting, measuring, reporting ...")
        log = request.folder / "proof.log"
        with crew.quiet():
            run([sys.executable, "-m", "bench.study", *flags], log, crew)
    # Behind its steps, which are numbered.
    return [line for line in log.read_text().splitlines() if line and not line.startswith("[")]


def _train(crew: Crew, planned: Sequence[tuple[Path, str, object]], say) -> None:
    """Train runs side by side, those of one modality first: others find their parents there."""
    alone = [one for one in planned if one[2].variant in MODALITIES]
    ordered = [*alone, *(one for one in planned if one not in alone)]

    def trained(place: Place, number: int) -> None:
        folder, name, config = ordered[number]
        if not folder.is_dir():
            _log.info("[%d/%d] training %s: %s", number + 1, len(ordered), folder.name, name)
        say(f"training {folder.name} ...")
        train_whole(place, config, folder)

    for wave in (range(len(alone)), range(len(alone), len(ordered))):
        for training in [crew.begin(trained, number) for number in wave]:
            training.result()
