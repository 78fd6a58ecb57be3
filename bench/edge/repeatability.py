"""An artifact measured against itself, undisturbed and disturbed: what a machine can tell apart."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.edge.artifact import ArtifactError
from bench.edge.measure import measure
from bench.edge.method import Contender, Method
from bench.edge.turns import die_with_parent


def _spin() -> None:
    die_with_parent()
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


def once(
    pair: list[Contender], method: Method, target: Path, disturbed: bool, say: Callable
) -> dict:
    """One measurement; returns its ratio, and where it is kept.

    Raises:
        ArtifactError: one of both was lost.
    """
    disturbance = Disturbance(method.amount.rounds // 2 if disturbed else -1)
    try:
        measured = measure(pair, method, target, say=say, on_round=disturbance)
    finally:
        disturbance.end()
    lost = [c["error"] for c in measured["contenders"] if c["error"]]
    if lost:
        raise ArtifactError(lost[0])
    steady = measured["machine_speed"]["steady"]
    return {**measured["ratios"][0], "steady": steady, "file": str(target)}


def wrong(verdict: str, planted: bool) -> bool:
    """Of the slowed first against the second, or of two alike."""
    return verdict not in ("unclear", "slower" if planted else "same")


def repeated(
    plain: Contender, method: Method, folder: Path, *, times: int, planted: float, say: Callable
) -> Iterator[tuple[str, dict]]:
    """(name, ratio with "planted" and "disturbed") of each measurement, as it is made.

    Args:
        plain: measured against itself.
        folder: of the files of results.
        times: measurements of each kind.
        planted: share by which one of both is slowed down.
        say: see `measure`.

    Raises:
        BenchError: see `once`; or a file of results cannot be written.
    """
    for disturbed, slowed in itertools.product((False, True), repeat=2):
        first = dataclasses.replace(plain, name="the first", slow_by=planted if slowed else 0.0)
        for number in range(times):
            name = f"{'slowed' if slowed else 'alike'}{'-disturbed' * disturbed}-{number}"
            seeded = dataclasses.replace(method, seed=number)
            ratio = once([first, plain], seeded, folder / f"{name}.json", disturbed, say)
            yield name, {"planted": slowed, "disturbed": disturbed, **ratio}


def verdicts(ratios: list[dict], planted: bool) -> int:
    """How many undisturbed measurements of this kind had a verdict."""
    return sum(
        ratio["verdict"] != "unclear"
        for ratio in ratios
        if not ratio["disturbed"] and ratio["planted"] == planted
    )
