"""Contenders side by side: each in its own process, taking turns in rounds of random order."""

from __future__ import annotations

import datetime
import itertools
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.edge import artifact, latency, machine, power, results, turns, worker
from bench.edge.method import Contender, Method, Profile
from bench.edge.runners import engines

_log = logging.getLogger(__name__)
# End-to-end queries, after the rounds: as many as a p90 wants.
STAGE_ROUNDS = 64
# Loading may build an engine: it may be silent for so many times as long as a query.
_LOADING = 10
# Queries: fewer have no median to speak of.
_SMALLEST_TURN = 5
# Seconds between two writings of the samples so far.
_WRITE_EVERY = 5.0
_IDLE_SECONDS, _POWER_SECONDS = 5.0, 15.0


class _Entry:
    """A contender, its process, and what is known of it so far."""

    def __init__(self, contender: Contender):
        self.contender, self.worker = contender, None
        self.known = {
            **contender.described(),
            "artifact": artifact.described(contender.folder, contender.meta),
            "complete": False,
            "error": None,
            **dict.fromkeys(("providers", "seconds", "parity", "stages", "power", "peak_bytes")),
            "warm_up": [],
            "blocks": [],
        }

    @property
    def runs(self) -> bool:
        return self.known["error"] is None

    def start(self, method: Method, open_runner) -> None:
        amounts = (method.amount.warm_up, method.seed, method.settling)
        arguments = (self.contender, *amounts, open_runner)
        self.worker = turns.Worker(worker.serve, arguments, method.timeout)
        self.known |= self.worker.answer(_LOADING * method.timeout)

    def planned(self, number: int, amount: Profile) -> int:
        """Queries of the turn in round `number`: its share of all that is still to be done.

        Faster and slower contenders alike get their seconds and their queries. How fast one is,
        its last turn tells better than a warm-up in which the machine may have been another.
        """
        blocks = self.known["blocks"]
        last = blocks[-1]["samples"] if blocks else self.known["warm_up"][-16:]
        typical = max(float(np.median(last)) / 1000, 1e-6)
        typical = max(typical, 1 / self.contender.hz if self.contender.hz else 0)
        queries, seconds = self._so_far()
        left = max(amount.queries - queries, (amount.seconds - seconds) / typical)
        return max(_SMALLEST_TURN, math.ceil(left / max(1, amount.rounds - number)))

    def _so_far(self) -> tuple[int, float]:
        """Queries and seconds that count."""
        blocks = self.known["blocks"]
        return (
            sum(len(b["samples"]) for b in blocks),
            sum(b["ended"] - b["began"] for b in blocks),
        )

    def turn(self, number: int, amount: Profile, began: float) -> None:
        block = self.worker.ask(("block", (number, self.planned(number, amount))))
        block = {"round": number, "start": block["began"] - began, **block}
        self.known["blocks"].append(block)

    def enough(self, method: Method) -> bool:
        queries, seconds = self._so_far()
        return queries >= method.amount.queries and seconds >= method.amount.seconds

    def finish(self, meter, idle_watts: float | None) -> None:
        """What needs no turns; the peak first, before the stages bring in their libraries.

        Who is lost meanwhile has been timed all the same.
        """
        self.known |= {"peak_bytes": machine.peak_bytes(self.worker.pid), "complete": True}
        try:
            self._finish(meter, idle_watts)
        except turns.Lost as lost:
            self.known["stages"] = {"skipped": str(lost)}
            self.worker.end()

    def _finish(self, meter, idle_watts: float | None) -> None:
        if meter.source:
            # Sensors renew their values twice a second: a turn in a round is too short for them.
            queries, seconds = self._so_far()
            block = self.worker.ask(("block", (0, math.ceil(_POWER_SECONDS * queries / seconds))))
            span = (block["began"], block["ended"])
            self.known["power"] = power.energy(
                meter.samples, *span, idle_watts, len(block["samples"])
            )
        if self.contender.batch == 1:
            stages = self.worker.ask(("stages", STAGE_ROUNDS))
            skipped = stages.get("skipped")
            self.known["stages"] = (
                {"skipped": skipped}
                if skipped
                else {name: latency.summary([samples]) for name, samples in stages.items()}
            )

    def guarded(self, step, *arguments) -> None:
        """One step; a contender that is lost keeps its samples, and the others go on."""
        try:
            step(*arguments)
        except turns.Lost as lost:
            self.known["error"] = str(lost)
            _log.warning("\n%s: %s", self.contender.name, lost)
            if self.worker:
                self.worker.end()


def measure(
    contenders: list[Contender],
    method: Method,
    target: Path,
    *,
    open_runner: Callable = engines.open_runner,
    say: Callable[[str], None] = lambda line: None,
    on_round: Callable[[int], None] = lambda number: None,
) -> dict:
    """Measure, and write what there is every few seconds.

    Args:
        contenders: with distinct names, see `method.check`.
        target: the file of results.
        open_runner: opens a contender's engine in its process.
        say: told what is being done, in a line that the next one replaces.
        on_round: called with the number of each round, before it.

    Returns:
        The results as written.

    Raises:
        results.ResultsError: `target` cannot be written.
    """
    session = _Session(contenders, method, target)
    session.write()
    try:
        with power.Sampler() as meter:
            idle_watts = _idle_watts(meter)
            for entry in session.entries:
                say(f"{entry.contender.name}: loading, checking, warming up ...")
                entry.guarded(entry.start, method, open_runner)
            session.rounds(say, on_round)
            for entry in session.running:
                say(f"{entry.contender.name}: end to end ...")
                entry.guarded(entry.finish, meter, idle_watts)
    finally:
        with turns.interrupts_ignored():  # a second Ctrl-C would leave processes, or no results
            for entry in session.entries:
                if entry.worker:
                    entry.worker.end()
            measured = session.results()
            results.write(target, measured)
    say("")
    return measured


def _idle_watts(meter) -> float | None:
    """Of what measures its power, how much it draws with nothing to do."""
    if not meter.source:
        return None
    start = time.monotonic()
    time.sleep(_IDLE_SECONDS)
    return power.mean_watts(meter.samples, start, time.monotonic())


class _Session:
    def __init__(self, contenders: list[Contender], method: Method, target: Path):
        self.method, self.target = method, target
        self.entries = [_Entry(c) for c in contenders]
        self.when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        self.fingerprint = machine.fingerprint()
        self.before = {**machine.moment(), "busy": machine.busy()}
        self.began = time.monotonic()

    @property
    def running(self) -> list[_Entry]:
        return [entry for entry in self.entries if entry.runs]

    def rounds(self, say, on_round) -> None:
        total = self.method.amount.rounds
        start = time.monotonic()
        written = start
        for number, order in turns.rounds(self.entries, self.method.seed):
            if not self.running or (number >= total and self._enough()):
                break
            on_round(number)
            for entry in order:
                if entry.runs:
                    entry.guarded(entry.turn, number, self.method.amount, self.began)
            spent, made = time.monotonic() - start, number + 1
            left = max(0, total - made) * spent / made
            say(f"round {made} of {total}, {_clock(spent)} gone, {_clock(left)} left")
            if time.monotonic() > written + _WRITE_EVERY:
                self.write()
                written = time.monotonic()

    def _enough(self) -> bool:
        return all(entry.enough(self.method) for entry in self.running)

    def write(self) -> None:
        """Samples as they come, without what is worked out of them in the end."""
        results.write(self.target, {**self._about(), "contenders": self._contenders()})

    def results(self) -> dict:
        known = self._contenders()
        samples = [[b["samples"] for b in entry["blocks"]] for entry in known]
        for entry, blocks in zip(known, samples, strict=True):
            entry["latency"] = latency.summary(blocks or [[]])
            device = [b["device"] for b in entry["blocks"] if "device" in b]
            if device:
                entry["device_latency"] = latency.summary(device)
        return {
            **self._about(),
            "moment": {"before": self.before, "after": machine.moment()},
            "contenders": known,
            "ratios": [
                {"first": i, "second": j, **self._ratio(samples[i], samples[j])}
                for i, j in itertools.combinations(range(len(known)), 2)
                if samples[i] and samples[j]
            ],
            "machine_speed": latency.drift(samples),
        }

    def _about(self) -> dict:
        return {
            "when": self.when,
            "method": self.method.described(),
            "fingerprint": self.fingerprint,
            "moment": {"before": self.before},
        }

    def _ratio(self, first, second) -> dict:
        kept = {"margin": self.method.margin, "confidence": self.method.confidence}
        return latency.ratio(first, second, **kept)

    def _contenders(self) -> list[dict]:
        """What is known, without the clock readings that mean nothing elsewhere."""
        inner = ("began", "ended")
        return [
            {
                **entry.known,
                "blocks": [
                    {k: v for k, v in block.items() if k not in inner}
                    for block in entry.known["blocks"]
                ],
                "latency": None,
            }
            for entry in self.entries
        ]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
