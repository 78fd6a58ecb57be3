"""A measurement on disk: one JSON file with every raw sample, the method, and the machine.

What stands in it (times in milliseconds unless a name says otherwise):

    format, when           "fusion_keras results 1"; UTC, ISO 8601
    method                 see `bench.edge.method.Method`: profile, seed, margin, confidence ...
    fingerprint            see `bench.edge.machine.fingerprint`; equal ones are comparable
    moment                 before, after: see `bench.edge.machine.moment`
    contenders: a list of
        name               short and distinct, "inter int8"
        artifact           `bench.edge.artifact.described`
        precision, runner, batch, threads, inputs, hz
        providers          what the engine really used
        complete, error    error: a sentence, where the contender did not get to its end
        seconds            load, first_inference, (engine_build): of a fresh process
        parity             relative, allowed, cosine: against the artifact's golden outputs
        warm_up            samples before it was steady
        blocks: a list of  round, start (seconds since the first), settling, samples,
                           (device: samples by the GPU's own events),
                           (late: share that was due before the one before had ended, where hz)
        latency            `bench.edge.latency.summary` of all samples; null when cut short
        stages             null, or tokens, image, inference, all: summaries, end to end
        (device_latency)   the same of the GPU's own events
        peak_bytes         most memory of the process
        power              null, or `bench.edge.power.energy`
    ratios: a list of      first, second (indices of contenders), and `bench.edge.latency.ratio`
    machine_speed          `bench.edge.latency.drift`, over all contenders
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from bench.edge import files
from bench.edge.errors import BenchError

FORMAT = "fusion_keras results 1"


class ResultsError(BenchError):
    """A file of results cannot be read; the message says which and what to do."""


def dated() -> Path:
    """Where a measurement goes that nobody has named a file for."""
    return Path("results") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}.json"


def write(path: Path, results: dict) -> None:
    """Whole or not at all; `format` is added.

    Raises:
        BenchError: the place cannot be written.
    """
    files.write(path, json.dumps({"format": FORMAT, **results}, allow_nan=False) + "\n")


def outpaced(contender: dict) -> str:
    """A sentence, without its point, on one whose queries came faster than it answers, or ""."""
    late = [block["late"] for block in contender.get("blocks", []) if "late" in block]
    if not late or sum(late) <= len(late) / 2:
        return ""
    return (
        f"{contender['name']} does not keep up with {contender['hz']:g} queries a second: they "
        "queue, and its times say how long a turn was"
    )


def read(path: Path) -> dict:
    """What `write` wrote.

    Raises:
        ResultsError: no such file, cut short, or something else.
    """
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        stated = results["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no results of this bench"
        raise ResultsError(
            f"{path} cannot be read ({reason}): give a file that `python -m bench` wrote."
        ) from None
    if stated != FORMAT:
        raise ResultsError(f"{path} is {stated!r}, {FORMAT!r} is wanted: measure again.")
    return results
