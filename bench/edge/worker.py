"""One contender in a process of its own: opened, checked, warmed up, then timed on demand.

Within one process the idle threads of one engine would slow down the other.
"""

from __future__ import annotations

import itertools
import time

import numpy as np

from bench.edge import latency, proof
from bench.edge.artifact import ArtifactError, queries
from bench.edge.method import Contender
from bench.edge.proof import fitted

# Samples of a warm-up, whatever its clock says.
_FEWEST, _MOST = 24, 2000
# Between the first queries of two rounds; prime, so that all queries get to be the first.
_STRIDE = 29


def serve(contender: Contender, warm_up: float, seed: int, settling: int, open_runner, pipe):
    """The life of a `turns.Worker`.

    Args:
        warm_up: most seconds of it.
        open_runner: `engines.open_runner`, or what a test puts in its place.
        pipe: says what it took to be ready; then answers ("block", (number, count)) and
            ("stages", count), until None comes.
    """
    start = time.perf_counter()
    with open_runner(
        contender.runner,
        contender.folder,
        contender.meta,
        contender.precision,
        threads=contender.threads,
        allow_fallback=contender.allow_fallback,
        run=contender.run,
    ) as runner:
        seconds = {"load": time.perf_counter() - start}
        if runner.build_seconds:
            seconds["engine_build"] = runner.build_seconds
        try:
            parity, seconds["first_inference"] = proof.compare(
                runner.infer,
                contender.folder,
                contender.meta,
                contender.precision,
                contender.batch,
                runner.tolerance,
            )
        except proof.WrongOutputs as error:
            raise ArtifactError(f"its outputs are wrong, nothing was timed: {error}") from None
        feeds = Feeds(contender, seed)
        timer = _Timer(runner, contender, feeds)
        samples = _warm_up(timer, warm_up)
        providers = list(runner.providers)
        pipe.send(
            {"seconds": seconds, "parity": parity, "providers": providers, "warm_up": samples}
        )
        for command, argument in iter(pipe.recv, None):
            if command == "block":
                number, count = argument
                pipe.send(timer.block(number, count, settling))
            else:
                pipe.send(_stages(runner, contender, argument))


# --- Inputs -------------------------------------------------------------------------------------


class Feeds:
    """The artifact's queries, in a seeded order without end, as dicts of arrays [batch, ...]."""

    def __init__(self, contender: Contender, seed: int):
        arrays = queries(contender.folder)
        count = len(next(iter(arrays.values())))
        order = np.random.default_rng(seed).permutation(count)
        self._order = np.resize(order, count * contender.batch).reshape(count, contender.batch)
        self._arrays, self._meta = arrays, contender.meta
        self._padded, self._next = contender.inputs == "padded", 0

    def begin(self, number: int) -> None:
        """Go to where round `number` begins: the same queries for every contender."""
        self._next = number * _STRIDE

    def __call__(self) -> dict[str, np.ndarray]:
        # Put together when it is due: all of them at once would be memory that no model takes.
        rows = self._order[self._next % len(self._order)]
        self._next += 1
        feed = {name: np.ascontiguousarray(x[rows]) for name, x in self._arrays.items()}
        return feed if self._padded else fitted(feed, self._meta)


# --- Time ---------------------------------------------------------------------------------------


class _Timer:
    def __init__(self, runner, contender: Contender, feeds: Feeds):
        self.infer, self.runner, self.feeds = runner.infer, runner, feeds
        self.slow_by = contender.slow_by
        self.gap = 1 / contender.hz if contender.hz else 0.0
        self.late = 0

    def one(self, due: float | None = None) -> float:
        """Milliseconds of one query, from when it is due on (None: now)."""
        feed = self.feeds()
        arrival = None if due is None else self._wait(due)
        start = time.perf_counter()
        self.infer(feed)
        if self.slow_by:
            until = time.perf_counter() + self.slow_by * (time.perf_counter() - start)
            while time.perf_counter() < until:
                pass
        return 1000 * (time.perf_counter() - (start if arrival is None else arrival))

    def many(self, count: int) -> tuple[list[float], list[float]]:
        """Samples, and those of the device's own clock where it has one."""
        samples, device = [], []
        due = time.perf_counter()
        for _ in range(count):
            due += self.gap
            samples.append(self.one(due if self.gap else None))
            if getattr(self.runner, "device_ms", None) is not None:
                device.append(self.runner.device_ms)
        return samples, device

    def _wait(self, due: float) -> float:
        """Sleep until a query is due; returns when it arrived, late or not."""
        left = due - time.perf_counter()
        if left <= 0:
            self.late += 1
            return due
        time.sleep(left)
        return time.perf_counter()

    def block(self, number: int, count: int, settling: int) -> dict:
        settled, _ = self.many(settling)
        self.feeds.begin(number)
        self.late, start = 0, time.monotonic()
        samples, device = self.many(count)
        block = {"settling": settled, "samples": samples, "began": start}
        block |= {"ended": time.monotonic(), **({"device": device} if device else {})}
        return {**block, "late": self.late / count} if self.gap else block


def _warm_up(timer: _Timer, most_seconds: float) -> list[float]:
    samples, until = [], time.perf_counter() + most_seconds
    while len(samples) < _MOST:
        samples.append(timer.one())
        late = time.perf_counter() > until
        if latency.steady(samples) or (late and len(samples) >= _FEWEST):
            break
    return samples


def _stages(runner, contender: Contender, rounds: int) -> dict:
    """End to end, from a sentence, an image file, ...: milliseconds of each stage.

    Returns:
        "tokens", "image", "sound", "row", "inference", "all" -> samples; or "skipped" -> why. What
        is wrong here takes nothing from what was timed before.
    """
    try:
        return _timed_stages(runner, contender, rounds)
    except ImportError as error:
        return {"skipped": f"{error}: pip install tokenizers pillow"}
    except Exception as error:  # of libraries that the timing itself does without
        return {"skipped": " ".join(str(error).split())[:400] or type(error).__name__}


def _timed_stages(runner, contender: Contender, rounds: int) -> dict:
    from bench.edge import inputs

    meta, folder = contender.meta, contender.folder
    read, examples = {}, {}
    for name, kind in inputs.kinds_of(meta).items():
        read[kind.stage] = (name, kind.encoder(folder, meta))
        examples[name] = kind.queries(folder / "queries")
    count = max(map(len, examples.values()))
    if not all(examples.values()):
        return {"skipped": "the artifact's examples came as no files"}
    present = inputs.present(meta)
    found = {name: [] for name in (*read, "inference", "all")}
    # The first round of all queries warms up every length.
    for i in range(-count, rounds):
        feed, times = dict(present), [time.perf_counter()]
        for name, encode in read.values():
            feed[name], _ = encode(examples[name][i % len(examples[name])])
            times.append(time.perf_counter())
        runner.infer(feed)
        times.append(time.perf_counter())
        if i >= 0:
            for stage, (start, end) in zip(
                (*read, "inference"), itertools.pairwise(times), strict=True
            ):
                found[stage].append(1000 * (end - start))
            found["all"].append(1000 * (times[-1] - times[0]))
    return found
