"""What a device can do: rates measured on one engine, with graphs of a few nodes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.edge import files, machine, micrograph
from bench.edge.artifact import ArtifactError

FORMAT = "fusion_keras device 1"
PROFILE = Path("results/device.json")
# What a profile must have to be of use; a fitted one has no fingerprint.
_KEYS = (
    "device",
    "engine",
    "kind",
    "matrix_gflops",
    "convolution_gflops",
    "depthwise_gflops",
    "bandwidth_gbs",
    "launch_us",
)
PROVIDERS = {
    "ort": "CPUExecutionProvider",
    "ort-cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
# Probes come round so often, each in its own session, for so many seconds at a time: a machine
# that is slow for a while is then slow for all of them.
_ROUNDS, _SECONDS = 6, 0.2
# The middle of a probe's five fastest samples: what the device does undisturbed.
_FASTEST = 5


def read(path: Path) -> dict:
    """A profile that this module measured, or `bench.calibrate` fitted.

    Raises:
        ArtifactError: no such file, or something else.
    """
    try:
        profile = json.loads(Path(path).read_text(encoding="utf-8"))
        stated = profile["format"]
        lacking = [name for name in _KEYS if name not in profile] if stated == FORMAT else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no profile of a device"
        raise ArtifactError(
            f"{path} cannot be read ({reason}): make it with `python -m bench.device --runner=ort "
            f"--name=NAME --out={path}`."
        ) from None
    if stated != FORMAT:
        raise ArtifactError(f"{path} is {stated!r}, {FORMAT!r} is wanted: measure it again.")
    if lacking:
        raise ArtifactError(f"{path} lacks {', '.join(lacking)}: measure it again.")
    return profile


def write(path: Path, content: dict) -> None:
    """A profile, or estimates made with one.

    Raises:
        BenchError: the place cannot be written.
    """
    files.write(path, json.dumps(content, indent=1) + "\n")


def measure(
    runner: str,
    name: str,
    *,
    rounds: int = _ROUNDS,
    seconds: float = _SECONDS,
    say: Callable[[str], None] = lambda line: None,
) -> dict:
    """The profile of this device, GFLOP/s, GB/s (10^9 bytes) and microseconds.

    `say` is told the number of each round.

    `samples` holds probe -> milliseconds of each inference, in order; `work` its FLOPs, bytes
    or nodes. `spread` is the median, over probes, of how much slower than the plateau a middle
    sample was: what else went on, and what the device's clocks did.

    Raises:
        ArtifactError: ONNX Runtime or the provider is not there, or refuses.
    """
    probes = _probes(runner)
    samples: dict[str, list[float]] = {probe: [] for probe in probes}
    for i in range(rounds):
        say(f"Round {i + 1} of {rounds} ...")
        for probe, (make, _) in probes.items():
            samples[probe] += _timed(make, PROVIDERS[runner], seconds)
    return _profile(runner, name, {p: work for p, (_, work) in probes.items()}, samples)


def _profile(runner: str, name: str, work: dict, samples: dict[str, list[float]]) -> dict:
    best = {probe: float(np.median(sorted(ms)[:_FASTEST])) for probe, ms in samples.items()}
    rate = {probe: amount / best[probe] / 1e6 for probe, amount in work.items()}
    highest = {
        kind: max((r for probe, r in rate.items() if probe.startswith(kind)), default=None)
        for kind in ("fp32", "int8", "convolution", "depthwise", "memory", "cache")
    }
    matrix = {kind: highest[kind] for kind in ("fp32", "int8") if highest[kind]}
    return {
        "format": FORMAT,
        "device": name,
        "engine": runner,
        "kind": "measured",
        "source": "python -m bench.device",
        "fingerprint": machine.fingerprint(),
        "matrix_gflops": matrix,
        "convolution_gflops": highest["convolution"],
        "depthwise_gflops": highest["depthwise"],
        "bandwidth_gbs": highest["memory"],
        "cache_gbs": max(highest["cache"], highest["memory"]),
        "launch_us": 1000 * best["launch"] / micrograph.LAUNCHES,
        "spread": float(np.median([np.median(ms) / best[p] - 1 for p, ms in samples.items()])),
        "samples": samples,
        "work": work,
    }


def _timed(make, provider: str, seconds: float) -> list[float]:
    """Milliseconds of each inference of one session; what runs first is left out."""
    session = _session(make(), provider)
    feed = {"x": np.ones(session.get_inputs()[0].shape, np.float32)}
    for _ in range(3):
        session.run(None, feed)
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feed)
        samples.append(1000 * (time.perf_counter() - start))
    return samples


def _session(content: bytes, provider: str):
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtifactError(
            f"ONNX Runtime is not installed here ({error}): pip install onnxruntime, on a Jetson "
            "the wheel that NVIDIA offers for its JetPack."
        ) from None
    if provider not in onnxruntime.get_available_providers():
        raise ArtifactError(
            f"This ONNX Runtime has no {provider}, only "
            f"{', '.join(onnxruntime.get_available_providers())}: choose another --runner or "
            "install onnxruntime-gpu."
        )
    onnxruntime.set_default_logger_severity(3)
    try:
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # as the runners of fp32 have it
        session = onnxruntime.InferenceSession(content, providers=[provider])
    except Exception as error:  # of a class of its own for each reason
        raise ArtifactError(f"{provider} does not run here: {error}") from None
    if session.get_providers()[0] != provider:
        raise ArtifactError(f"{provider} does not start here: see what ONNX Runtime printed above.")
    return session


def _probes(runner: str) -> dict:
    """name -> (function that makes the graph, work of one inference: FLOPs, bytes or nodes).

    A probe's name starts with what it measures. An engine that fuses runs a chain of
    element-wise nodes as one, so TensorRT's bandwidth comes from streaming weights alone, and
    Softmax stands in the chain of launches. 8-bit products without calibration, uint8 by int8,
    are the CPU's.
    """
    graphs, matrix = micrograph, 768 * 3072
    probes = {
        f"fp32 {rows}": (lambda rows=rows: graphs.products(rows, 8), 8 * 2 * rows * matrix)
        for rows in (16, 64, 128)
    }
    if runner == "ort":
        probes["int8 64"] = (lambda: graphs.products_int8(64, 8), 8 * 2 * 64 * matrix)
    for deep, wide, side in ((96, 576, 14), (48, 288, 28)):
        probes[f"convolution {deep}-{wide}"] = (
            lambda shape=(deep, wide, side): graphs.pointwise(*shape, 8),
            8 * 2 * deep * wide * side**2,
        )
    for wide, side in ((576, 14), (144, 56)):
        probes[f"depthwise {wide}"] = (
            lambda shape=(wide, side): graphs.depthwise(*shape, 8),
            8 * 2 * 9 * wide * side**2,
        )
    probes["memory weights"] = (lambda: graphs.products(1, 16), 16 * 4 * matrix)
    if runner == "ort-tensorrt":
        probes["cache weights"] = (lambda: graphs.products(1, 2), 2 * 4 * matrix)
    else:
        # Written once, then read and written by each node.
        for name, size, count in (("memory", 1 << 24, 4), ("cache", 1 << 16, 64)):
            probes[f"{name} elements"] = (
                lambda shape=(size, count): graphs.elements(*shape),
                4 * size * (1 + 2 * count),
            )
    probes["launch"] = (graphs.launches, graphs.LAUNCHES)
    return probes
