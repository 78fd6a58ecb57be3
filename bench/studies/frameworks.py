"""Contenders of three kinds that train or infer in turns: Keras on JAX, PyTorch, compiled PyTorch.

Each lives in a process of its own, see `bench.edge.turns`; what each runs is in `steps`.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from bench.edge import turns
from bench.edge.errors import BenchError
from bench.studies import steps

OURS = "jax"
CONTENDERS = (OURS, "torch", "torch-compiled")
MODES = ("step", "inference")
PRECISIONS = ("float32", "tf32", "bfloat16")
# Steps of a turn that settle caches and are not counted.
_SETTLE = 1


def measure(
    options, say: Callable[[str], None]
) -> tuple[dict[str, list[list[float]]], dict[str, dict]]:
    """Time all contenders in turns.

    Args:
        options: the flags of `bench.frameworks`.
        say: told what has been done, in a line that the next one replaces.

    Returns:
        Contender -> a block of seconds for each round; contender -> first (seconds of the first
        call, with compilation), memory (bytes), device, inputs (name -> shape and dtype), value
        (the first loss, or a logit: all agree on it but for dropout).

    Raises:
        BenchError: a contender cannot be built, or its process ended.
    """
    workers: dict[str, turns.Worker] = {}
    about, samples = {}, {name: [] for name in options.contenders}
    try:
        for name in options.contenders:
            with _lost(name), _environment(name):
                workers[name] = turns.Worker(serve, (name, options))
                about[name] = workers[name].answer()
            say(f"{name}: ready, first call {about[name]['first']:.1f} s")
        rounds = turns.rounds(options.contenders, seed=0)
        for number, order in itertools.islice(rounds, options.rounds):
            for name in order:
                with _lost(name):
                    samples[name].append(workers[name].ask(options.turn))
            say(f"round {number + 1} of {options.rounds}")
        for name, worker in workers.items():
            with _lost(name):
                about[name] |= worker.ask(0)
    finally:
        for worker in workers.values():
            worker.end()
    say("")
    return samples, about


@contextlib.contextmanager
def _lost(name: str):
    """All are wanted: one that is lost ends the comparison."""
    try:
        yield
    except turns.Lost as lost:
        raise BenchError(f"{name}: {lost}") from None


@contextlib.contextmanager
def _environment(name: str):
    """What a contender's process starts with: ours as `fusion_keras.train` starts itself."""
    as_it_is = dict(os.environ)
    if name == OURS:
        with contextlib.suppress(ImportError):  # said by the contender itself
            from fusion_keras.huge_pages import environment

            os.environ.update(environment(as_it_is))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(as_it_is)


# --- In a contender's own process -----------------------------------------------------------------


def serve(name: str, options, pipe) -> None:
    """The life of a `turns.Worker`: says what it is, answers a number of calls with their seconds.

    Zero ends it; it answers with its memory.

    Raises:
        BenchError: the flags name no model, or a library is not installed.
    """
    try:
        from fusion_keras.errors import UsageError
    except ImportError as error:
        raise BenchError(f"fusion_keras[torch] is not installed here ({error}).") from None
    build = steps.on_keras if name == OURS else steps.on_pytorch
    try:
        contender = build(options, compiled=name.endswith("compiled"))
    except (UsageError, ImportError) as error:
        raise BenchError(str(error)) from None
    gc.collect()
    built = _resident("VmRSS")
    start = time.perf_counter()
    value = contender.call()
    first = time.perf_counter() - start
    described = {"device": contender.device, "inputs": contender.inputs}
    pipe.send({"first": first, "value": value, **described})
    contender.call()
    # From here on the kernel counts the peak anew: what compiled is not what runs.
    Path("/proc/self/clear_refs").write_text("5")
    while count := pipe.recv():
        seconds = []
        for _ in range(_SETTLE + count):
            start = time.perf_counter()
            contender.call()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds[_SETTLE:])
    pipe.send({"memory": contender.peak() or _resident("VmHWM") - built})


def _resident(field: str) -> int:
    """Bytes of this process that are in memory now (VmRSS), or were at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
