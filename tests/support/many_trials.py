"""Searches whose trials are looked up in a formula: what is left is what a suggestion costs.

`python -m tests.support.many_trials 1000 DIR [SAMPLER]` says the seconds of a suggestion, of the
processor and by the clock, and how many of the models were the same.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from fusion_keras.config import get_config
from fusion_keras.searching import space_file, study
from fusion_keras.searching.outcome import OVER, TRAINED, Outcome
from fusion_keras.searching.request import Request


def looked_up(place, point, plan, key, folder, settings, before, named=""):
    """A trial whose latency grows with its depths, and whose NLL falls with them."""
    depths = [6 if d == "last" else d for j in plan.spec.junctions for d in j.depths.values()]
    p90 = 0.5 + 0.08 * max(depths) + 0.1 * len(plan.spec.junctions)
    nll = 0.6 - 0.02 * min(depths) - 0.01 * len(depths) + 0.01 * (int(key, 16) % 7)
    outcome = Outcome(key, point.name, dict(point.settings), TRAINED, named=named)
    outcome.latency = {"int8": {"p50": p90, "p90": p90, "min": p90, "peak_mb": 80 + 10 * p90}}
    outcome.nll, outcome.valid = {"int8": nll}, {"accuracy": 0.8, "nll": nll}
    outcome.guess = 0.69
    if any(more > 0 for more in outcome.excess(settings.limits).values()):
        outcome.state = OVER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outcome.json").write_text(json.dumps(vars(outcome)))
    return outcome


def main() -> None:
    count, folder, sampler = int(sys.argv[1]), Path(sys.argv[2]), (*sys.argv[3:], "tpe")[0]
    base, cpu, clock = get_config(), [], []

    def timed(*arguments, **named):
        cpu.append(time.process_time() - last[0])
        clock.append(time.perf_counter() - last[1])
        outcome = looked_up(*arguments, **named)
        if len(cpu) % 100 == 0:
            medians = [f"{np.median(seconds[-100:]):.2f}" for seconds in (cpu, clock)]
            said = f"{medians[0]} s CPU, {medians[1]} s by the clock, medians"
            print(f"suggestions {len(cpu) - 99} to {len(cpu)}: {said}", flush=True)
        last[:] = time.process_time(), time.perf_counter()
        return outcome

    given = {"base": base, "space": space_file.default(base), "folder": folder, "cache": folder}
    request = Request(
        count=count, budget=1.6, precisions=("int8",), sampler=sampler, named=(), **given
    )
    outcomes, last = [], [time.process_time(), time.perf_counter()]
    study.search(request, outcomes, carry_out=timed)
    print(f"{len(outcomes)} models, {len({o.key for o in outcomes})} of them different")


if __name__ == "__main__":
    main()
