"""A training step and an inference of ours against PyTorch's, side by side.

    python -m bench.frameworks --variant=inter --text=minilm --size=96 --length=40
    python -m bench.frameworks --variant=clstm_initial

Keras on JAX, the PyTorch reference as it is, and the reference under torch.compile have the same
architecture, weights, batch and optimiser (AdamW of recipe `best`, Adam of recipe `digits`; what
each runs is in `steps`). Each lives in a process of its
own; in every round each has a turn, in random order, all others stopped, so that a machine that
slows down slows all. A step is forward, backward, update and the loss read back; an inference ends
with the logits on the host. Memory is what comes on top of the built model: the largest resident
size during the turns less that before the first call, or the accelerator's peak. For a
workstation: this needs fusion_keras[torch] and the repository's root.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

import numpy as np

from bench.edge import latency
from bench.edge.machine import fingerprint
from bench.studies import steps

OURS = "jax"
CONTENDERS = (OURS, "torch", "torch-compiled")
MODES = ("step", "inference")
# Steps of a turn that settle caches and are not counted.
_SETTLE = 1


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    for name in ("size", "length", "units", "batch", "rounds", "turn"):
        given = getattr(options, name)
        if given is not None and given < 1:
            parser.error(f"--{name}={given}: 1 or more is wanted.")
    try:
        samples, about = measure(options)
    except KeyboardInterrupt:
        print("Interrupted. Nothing was written.", file=sys.stderr)
        return 130
    _print(samples, about, options)
    if options.json:
        content = {**vars(options), "machine": fingerprint(), "samples": samples, "about": about}
        target = Path(options.json)
        temporary = target.with_name(f".{target.name}.new")
        try:
            temporary.write_text(json.dumps(content, indent=1, default=str))
            temporary.replace(target)
        except OSError as error:
            _stop(f"{target} cannot be written ({error.strerror}); the figures stand above.")
        print(f"Samples: {target}")
    return 0


def _parser() -> argparse.ArgumentParser:
    text = "Time a training step or an inference: Keras on JAX against PyTorch."
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--variant", default="inter", help="which fusion, C-LSTMs too (inter)")
    parser.add_argument("--text", default="minilm", help="text preset (minilm)")
    parser.add_argument("--image", default="random:mobilenet_v2_1.0", help="image preset")
    small = "of a C-LSTM as in configs/digits_small.py"
    parser.add_argument("--size", type=int, help=f"pixels, width and height (96; {small})")
    parser.add_argument(
        "--length", type=int, help=f"tokens of a sentence, steps of the sound (40; {small})"
    )
    parser.add_argument("--units", type=int, help=f"of every layer ({small}; others have none)")
    parser.add_argument("--batch", type=int, default=32, help="examples (32)")
    parser.add_argument("--dropout", type=float, default=0.1, help="of the text encoder (0.1)")
    parser.add_argument("--mode", choices=MODES, default="step", help="what is timed (step)")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each contender (10)")
    parser.add_argument("--turn", type=int, default=3, help="steps of a turn that count (3)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--json", help="also write the samples to this file")
    return parser


def measure(options) -> tuple[dict[str, list[list[float]]], dict[str, dict]]:
    """Time all contenders in turns.

    Returns:
        Contender -> a block of seconds for each round; contender -> first (seconds of the first
        call, with compilation), memory (bytes), device, inputs (name -> shape and dtype), value
        (the first loss, or a logit: all agree on it but for dropout).
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes, about = {}, {}, {}
    try:
        for name in options.contenders:
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(name, options, theirs), daemon=True)
            with _environment(name):
                process.start()
            theirs.close()
            processes[name], about[name] = process, _answer(pipes[name], name)
            os.kill(process.pid, signal.SIGSTOP)
            print(f"{name}: ready, first call {about[name]['first']:.1f} s", flush=True)
        samples = {name: [] for name in options.contenders}
        for number in range(options.rounds):
            for name in random.Random(number).sample(options.contenders, len(options.contenders)):
                os.kill(processes[name].pid, signal.SIGCONT)
                pipes[name].send(options.turn)
                samples[name].append(_answer(pipes[name], name))
                os.kill(processes[name].pid, signal.SIGSTOP)
            print(f"\rround {number + 1} of {options.rounds}", end="", flush=True)
        print()
        for name, process in processes.items():
            os.kill(process.pid, signal.SIGCONT)
            pipes[name].send(0)
            about[name].update(_answer(pipes[name], name))
            process.join(timeout=60)
    finally:
        for process in processes.values():
            process.kill()
    return samples, about


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


def _answer(pipe, name: str):
    try:
        answer = pipe.recv()
    except EOFError:
        _stop(f"{name} has ended (out of memory?); lower --batch.")
    if isinstance(answer, dict) and "error" in answer:
        _stop(answer["error"])
    return answer


def _stop(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _print(samples: dict, about: dict, options) -> None:
    print(f"{options.mode} of {options.variant}, batch {options.batch}, {options.rounds} rounds:")
    inputs = next(iter(about.values()))["inputs"]
    print("  " + ", ".join(f"{name} {shape}" for name, shape in inputs.items()))
    for name, blocks in samples.items():
        flat = np.concatenate(blocks)
        megabytes = about[name]["memory"] / 1e6
        print(
            f"  {name:15} median {1e3 * np.median(flat):8.1f} ms, min {1e3 * flat.min():8.1f} ms, "
            f"memory {megabytes:6.0f} MB, first call {about[name]['first']:5.1f} s, "
            f"{about[name]['device']}, value {about[name]['value']:.5f}"
        )
    for name in samples:
        if name != OURS and OURS in samples:
            found = latency.ratio(samples[OURS], samples[name])
            bounds = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
            least = np.concatenate(samples[OURS]).min() / np.concatenate(samples[name]).min()
            print(f"  {OURS} / {name}: {found['ratio']:.2f}{bounds}, of minima {least:.2f}")


# --- In a contender's own process -----------------------------------------------------------------


def _serve(name: str, options, pipe) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from fusion_keras.errors import UsageError
    except ImportError as error:
        pipe.send({"error": f"fusion_keras[torch] is not installed here ({error})."})
        return
    try:
        contender = steps.on_keras if name == OURS else steps.on_pytorch
        made = contender(options, compiled=name.endswith("compiled"))
    except (UsageError, ImportError) as error:
        pipe.send({"error": str(error)})
        return
    gc.collect()
    built = _resident("VmRSS")
    start = time.perf_counter()
    value = made.call()
    first = time.perf_counter() - start
    pipe.send({"first": first, "value": value, "device": made.device, "inputs": made.inputs})
    made.call()
    # From here on the kernel counts the peak anew: what compiled is not what runs.
    Path("/proc/self/clear_refs").write_text("5")
    while count := pipe.recv():
        seconds = []
        for _ in range(_SETTLE + count):
            start = time.perf_counter()
            made.call()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds[_SETTLE:])
    pipe.send({"memory": made.peak() or _resident("VmHWM") - built})


def _resident(field: str) -> int:
    """Bytes of this process that are in memory now (VmRSS), or were at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
