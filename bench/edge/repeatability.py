"""Can this machine tell 10 % apart? `python -m bench.repeatability ARTIFACT`.

Measures an artifact against itself, --times times each: as it is; with one of both slowed down by
--planted; and both again with a busy process started on one core half-way. A wrong verdict is
never fine. None is fine where it was disturbed, and in one of three cases where it was not: the
first must come out as the same and the second as slower. With the defaults twelve measurements
of two minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import signal
import sys
from pathlib import Path

from bench.__main__ import Progress, share
from bench.edge import artifact, worker
from bench.edge.artifact import ArtifactError
from bench.edge.engine import positive
from bench.edge.measure import measure
from bench.edge.method import PROFILES, Contender, Method, check
from bench.edge.results import ResultsError


def _spin() -> None:
    worker.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pass


class Disturbance:
    """A busy process on one core, from a round on."""

    def __init__(self, from_round: int):
        self.from_round, self.process = from_round, None

    def __call__(self, number: int) -> None:
        if number == self.from_round:
            self.process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
            self.process.start()

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.join()


def once(pair: list[Contender], method: Method, target: Path, disturbed: bool) -> dict:
    """One measurement; returns its ratio, and where it is kept.

    Raises:
        ArtifactError: one of both was lost.
    """
    disturbance = Disturbance(method.amount.rounds // 2 if disturbed else -1)
    try:
        found = measure(pair, method, target, say=Progress(), on_round=disturbance)
    finally:
        disturbance.end()
    lost = [c["error"] for c in found["contenders"] if c["error"]]
    if lost:
        raise ArtifactError(lost[0])
    return {**found["ratios"][0], "steady": found["machine_speed"]["steady"], "file": str(target)}


def wrong(verdict: str, planted: bool) -> bool:
    """Of the slowed first against the second, or of two alike."""
    return verdict not in ("unclear", "slower" if planted else "same")


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        meta = artifact.read(options.artifact)
        plain = Contender("as it is", options.artifact, meta, options.precision)
        check(plain)
        method = Method(options.profile)
        print(f"{'':28} ratio  interval          verdict", flush=True)
        found = []
        for disturbed in (False, True):
            for planted in (False, True):
                slow_by = options.planted if planted else 0.0
                first = dataclasses.replace(plain, name="the first", slow_by=slow_by)
                for number in range(options.times):
                    name = f"{'slowed' if planted else 'alike'}{'-disturbed' * disturbed}-{number}"
                    seeded = dataclasses.replace(method, seed=number)
                    target = options.out / f"{name}.json"
                    ratio = once([first, plain], seeded, target, disturbed)
                    found.append({"planted": planted, "disturbed": disturbed, **ratio})
                    _print(name, ratio)
    except (ArtifactError, ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    bad = [f for f in found if wrong(f["verdict"], f["planted"])]
    calm = [f for f in found if not f["disturbed"]]
    told = [sum(f["verdict"] != "unclear" for f in calm if f["planted"] == p) for p in (0, 1)]
    print(
        f"undisturbed, a verdict in {told[0]} of {options.times} alike and {told[1]} of "
        f"{options.times} slowed; wrong ones in all: {len(bad)}"
    )
    summary = options.out / "summary.json"
    summary.write_text(json.dumps(found, indent=1) + "\n")
    print(f"Samples: {options.out}\nNext: measure what you came for, python -m bench ARTIFACT ...")
    return 1 if bad or 3 * min(told) < 2 * options.times else 0


def _planted(text: str) -> float:
    value = share(text)
    if value < 0.06:
        raise argparse.ArgumentTypeError("below 0.06 it is too near to the 3 % that are the same")
    return value


def _print(name: str, ratio: dict) -> None:
    interval = f"[{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio["low"] else ""
    moody = "" if ratio["steady"] else "; the machine changed its speed"
    print(f"{name:28} {ratio['ratio']:.3f}  {interval:16}  {ratio['verdict']}{moody}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.repeatability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    add("--precision", default="fp32", help="default: fp32")
    add("--profile", choices=PROFILES, default="full", help="default: full")
    add("--times", type=positive, default=3, help="of each (default 3)")
    add("--planted", type=_planted, default=0.1, help="slower by this share (default 0.1)")
    add("--out", type=Path, default=Path("results/repeatability"), help="folder of the samples")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
