"""A training step and an inference of ours against PyTorch's, side by side.

    python -m bench.frameworks --variant=inter --text=minilm --size=96 --length=40

Keras on JAX, the PyTorch reference as it is, and the reference under torch.compile have the same
architecture, weights, batch and optimiser (AdamW, recipe `best`). Each lives in a process of its
own; in every round each has a turn, in random order, all others stopped, so that a machine that
slows down slows all. A step is forward, backward, update and the loss read back; an inference ends
with the logits on the host. Memory is what comes on top of the built model: the largest resident
size during the turns less that before the first call, or the accelerator's peak. For a
workstation: this needs fusion_keras[test] and the repository's root.
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

from bench import latency
from bench.machine import fingerprint

OURS = "jax"
CONTENDERS = (OURS, "torch", "torch-compiled")
MODES = ("step", "inference")
# Steps of a turn that settle caches and are not counted.
_SETTLE = 1


def main(argv: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    for name in ("size", "length", "batch", "rounds", "turn"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: 1 or more is wanted.")
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
    parser.add_argument("--variant", default="inter", help="which fusion (inter)")
    parser.add_argument("--text", default="minilm", help="text preset (minilm)")
    parser.add_argument("--image", default="random:mobilenet_v2_1.0", help="image preset")
    parser.add_argument("--size", type=int, default=96, help="pixels, width and height (96)")
    parser.add_argument("--length", type=int, default=40, help="tokens of a sentence (40)")
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
        call, with compilation), memory (bytes), device, value (the first loss, or a logit: all
        agree on it but for dropout).
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
        pipe.send({"error": f"fusion_keras[test] is not installed here ({error})."})
        return
    try:
        call, device, peak = (_keras if name == OURS else _torch)(name, options)
    except (UsageError, ImportError) as error:
        pipe.send({"error": str(error)})
        return
    gc.collect()
    built = _resident("VmRSS")
    start = time.perf_counter()
    value = call()
    pipe.send({"first": time.perf_counter() - start, "value": value, "device": device})
    call()
    # From here on the kernel counts the peak anew: what compiled is not what runs.
    Path("/proc/self/clear_refs").write_text("5")
    while count := pipe.recv():
        seconds = []
        for _ in range(_SETTLE + count):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        pipe.send(seconds[_SETTLE:])
    pipe.send({"memory": peak() or _resident("VmHWM") - built})


def _resident(field: str) -> int:
    """Bytes of this process that are in memory now (VmRSS), or were at most (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def _task(options):
    """(config, spec, text, image, model) with random weights where the presets have none."""
    import keras

    from fusion_keras.config import get_config
    from fusion_keras.fusion.graph import build
    from fusion_keras.fusion.variants import make_spec
    from fusion_keras.training.recipes import resolve
    from fusion_keras.training.task import depths_of, load_presets

    config = get_config()
    config.recipe, config.variant = "best", options.variant
    config.text.preset, config.text.dropout = options.text, options.dropout
    config.image.preset, config.image.size = options.image, options.size
    config = resolve(config)
    keras.utils.set_random_seed(0)
    text, image, _ = load_presets(config)
    spec = make_spec(config.variant, config.fusion, depths_of(text, image))
    model = build(spec, text, image, num_classes=2).model
    return config, spec, text, image, model


def _batch(options, names) -> tuple[dict, np.ndarray]:
    """Token ids int32 [B, T] of every length, images uint8 [B, S, S, 3]; labels int32 [B]."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(1000, 30000, (options.batch, options.length)).astype(np.int32)
    for row, length in enumerate(rng.integers(4, options.length + 1, options.batch)):
        token_ids[row, length:] = 0
    shape = (options.batch, options.size, options.size, 3)
    values = {"token_ids": token_ids, "image": rng.integers(0, 256, shape).astype(np.uint8)}
    labels = rng.integers(0, 2, options.batch).astype(np.int32)
    return {name: values[name] for name in names}, labels


def _keras(name: str, options):
    os.environ["KERAS_BACKEND"] = "jax"
    import jax

    from fusion_keras.training.loop import losses_of
    from fusion_keras.training.optimizers import make_optimizer

    config, _, _, _, model = _task(options)
    inputs, labels = _batch(options, [x.name for x in model.inputs])
    device = jax.devices()[0]

    def peak() -> int:
        return device.memory_stats()["peak_bytes_in_use"] if device.platform == "gpu" else 0

    if options.mode == "step":
        optimizer = make_optimizer(config.train, model, 10_000)
        model.compile(optimizer=optimizer, **losses_of(model, config.train))
        targets = {"logits": labels}
        return (lambda: float(model.train_on_batch(inputs, targets))), device.device_kind, peak
    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]

    @jax.jit
    def forward(trainable, rest, inputs):
        return model.stateless_call(trainable, rest, inputs, training=False)[0]["logits"]

    return (
        (lambda: float(np.asarray(forward(trainable, rest, inputs))[0, 0])),
        device.device_kind,
        peak,
    )


def _torch(name: str, options):
    import torch

    from fusion_keras.fusion.state_dict import state_dict
    from tests.reference import optimizers
    from tests.reference.build import empty, filled, scaling, tensors
    from tests.reference.learn import step

    config, spec, text, image, model = _task(options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference = filled(empty(spec, text, image, 2), state_dict(model, spec)).to(device)
    scale, offset = (x.to(device) for x in scaling(model))
    inputs, labels = _batch(options, [x.name for x in model.inputs])
    del text, image, model
    optimizer, scheduler = optimizers.make_optimizer(config.train, reference, 10_000)
    called = torch.compile(reference) if name == "torch-compiled" else reference

    def forward(inputs):
        return called(**tensors(reference, inputs, scale, offset, device))

    def peak() -> int:
        return torch.cuda.max_memory_allocated() if device == "cuda" else 0

    kind = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    if options.mode == "step":
        optimizers.train_mode(reference, config.train)
        train = config.train
        return (lambda: step(forward, inputs, labels, train, optimizer, scheduler)), kind, peak
    reference.eval()

    def infer():
        with torch.inference_mode():
            return float(forward(inputs).cpu()[0, 0])

    return infer, kind, peak


if __name__ == "__main__":
    sys.exit(main())
