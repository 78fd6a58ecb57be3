"""The Jetson AGX Orin's rates, fitted to the thirteen latencies of Willis and Bakos (2025).

Two rates an engine are fitted, of matrix products and of convolutions, at most the datasheet's;
the bandwidth is the datasheet's. The token length, which the paper does not give, is the one of
the five that fits both engines best.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.edge import device
from bench.edge.artifact import ArtifactError
from bench.roofline.estimate import DEVICES
from bench.roofline.floor import kind, model_ms

DATA = DEVICES / "agx_orin.json"
_BACKBONES = ("mobilenet_v2", "vit")
# Steps of a hundredth: far finer than what thirteen latencies can tell.
_RATES = 0.05 * 1.01 ** np.arange(1000)


def load(path: Path = DATA) -> dict:
    """The data of a calibration.

    Raises:
        ArtifactError: the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read ({error}): copy the folder bench again."
        ) from None


def rows_of(data: dict, point: dict, length: int) -> list[dict]:
    """Costs of a published model, one entry for each kind of node, with its `count`."""
    names = ("operator", "flops", "bytes", "weights", "count")
    return [
        dict(zip(names, row, strict=True))
        for part in point["parts"]
        for row in data["tables"][part.format(length=length)]
    ]


def profile_of(data: dict, engine: str, matrix: float, convolution: float) -> dict:
    """A profile with these rates in TFLOP/s, its other precisions as the datasheet scales them.

    TF32 runs at half the rate of FP16 and a quarter of INT8 on tensor cores of this generation
    (NVIDIA A100 Tensor Core GPU Architecture: 156, 312 TFLOP/s and 624 TOP/s).
    """
    gains = {"fp32": 1, "fp16": 2, **({"int8": 4} if engine == "tensorrt" else {})}
    return {
        "format": device.FORMAT,
        "device": data["device"],
        "engine": engine,
        "kind": "fitted",
        "source": data["source"],
        "matrix_gflops": {name: 1000 * matrix * gain for name, gain in gains.items()},
        "convolution_gflops": 1000 * convolution,
        "depthwise_gflops": 1000 * convolution,
        "bandwidth_gbs": data["datasheet"]["bandwidth_gbs"],
        "launch_us": 0.0,
    }


def predicted(data: dict, point: dict, length: int, profile: dict) -> float:
    """Milliseconds of a published model."""
    return sum(
        row["count"] * model_ms([row], profile, "fp32") for row in rows_of(data, point, length)
    )


class _Grid:
    """Milliseconds of every published model of an engine at every rate.

    fixed [points]; matrix and convolution [points, rates]; published [points].
    """

    def __init__(self, data: dict, points: list[dict], length: int):
        self.rates = _RATES[data["datasheet"]["tf32_tflops"] >= _RATES]
        self.published = np.array([point["milliseconds"] for point in points])
        bandwidth = data["datasheet"]["bandwidth_gbs"]
        kinds = {"matrix": [], "convolution": [], "other": []}
        for point in points:
            for name, milliseconds in kinds.items():
                rows = [
                    (r["flops"], r["bytes"], r["count"])
                    for r in rows_of(data, point, length)
                    if kind(r).replace("depthwise", "convolution") == name
                ]
                flops, moved, count = np.array(rows or [(0, 0, 0)], np.float64).T
                rates = np.inf if name == "other" else self.rates[:, None] * 1e9
                milliseconds.append(count @ np.maximum(flops / rates, moved / bandwidth / 1e6).T)
        self.matrix, self.convolution = np.stack(kinds["matrix"]), np.stack(kinds["convolution"])
        self.fixed = np.array(kinds["other"])

    def fit(self, kept: Sequence[int]) -> tuple[float, float, float]:
        """(sum of squared relative errors, matrix rate, convolution rate) over these points."""
        kept = list(kept)
        scale = 1 / self.published[kept]
        a = self.matrix[kept] * scale[:, None]  # [points, rates]
        b = (self.convolution + self.fixed[:, None])[kept] * scale[:, None] - 1
        # |a + b|^2 = |a|^2 + 2 a.b + |b|^2, for every pair of rates
        loss = (a**2).sum(0)[:, None] + 2 * a.T @ b + (b**2).sum(0)[None]
        i, j = np.unravel_index(loss.argmin(), loss.shape)
        return float(loss[i, j]), float(self.rates[i]), float(self.rates[j])


def calibrate(data: dict) -> dict[str, dict]:
    """The profile of each engine, with `fit`: the token length, errors, the depth baselines."""
    engines = list(dict.fromkeys(point["engine"] for point in data["published"]))
    points = {e: [p for p in data["published"] if p["engine"] == e] for e in engines}
    lengths = data["lengths"]
    grids = {e: {n: _Grid(data, points[e], n) for n in lengths} for e in engines}
    whole = {e: {n: g.fit(range(len(points[e]))) for n, g in grids[e].items()} for e in engines}
    length = min(lengths, key=lambda n: sum(whole[e][n][0] for e in engines))
    profiles = {}
    for engine in engines:
        others = {n: sum(whole[e][n][0] for e in engines if e != engine) for n in lengths}
        left_out, by_length = _left_out(data, points[engine], grids[engine], others)
        depth, each = (_by_depth(points[engine], each) for each in (False, True))
        profiles[engine] = profile_of(data, engine, *whole[engine][length][1:])
        profiles[engine]["fit"] = {
            "tokens": length,
            "assumed": data["assumed"].format(length=length),
            "left_out": left_out,
            "mean_error": _mean(left_out),
            "by_length": by_length,
            "depth_left_out": depth,
            "depth_mean_error": _mean(depth),
            "backbone_left_out": each,
            "backbone_mean_error": _mean(each),
            "launch": _launch_bound(data, points[engine], length),
        }
    return profiles


def _left_out(data: dict, points: list[dict], grids: dict, others: dict[int, float]):
    """Each point predicted from the rest, length and all; and the mean error at each length.

    others: length -> the loss of the other engines, whose points stay.
    """
    lines: dict[int, list[dict]] = {length: [] for length in grids}
    chosen = []
    for i, point in enumerate(points):
        kept = [j for j in range(len(points)) if j != i]
        fits = {length: grid.fit(kept) for length, grid in grids.items()}
        for length, (_, *rates) in fits.items():
            profile = profile_of(data, point["engine"], *rates)
            ms = predicted(data, point, length, profile)
            lines[length].append(_line(point, ms) | {"tokens": length})
        best = min(fits, key=lambda n: others[n] + fits[n][0])
        chosen.append(lines[best][i])
    return chosen, {str(length): _mean(of_length) for length, of_length in lines.items()}


def _line(point: dict, ms: float) -> dict:
    published = point["milliseconds"]
    return {
        "model": point["model"],
        "published": published,
        "predicted": ms,
        "error": ms / published - 1,
    }


def _mean(lines: list[dict]) -> float:
    return float(np.mean([abs(line["error"]) for line in lines]))


def _by_depth(points: list[dict], each: bool) -> list[dict]:
    """Left-out predictions of baselines that know depth alone.

    milliseconds = a factor x the layers and blocks used; or, with `each`, a factor for the layers
    of each backbone: it needs latencies of the very backbones that it is asked for.
    """
    depth = np.array(
        [
            [p["text_layers"], *(p["image_blocks"] * (b in str(p["parts"])) for b in _BACKBONES)]
            for p in points
        ],
        np.float64,
    )
    depth = depth[:, depth.any(0)] if each else depth.sum(1, keepdims=True)
    published = np.array([p["milliseconds"] for p in points])
    lines = []
    for i, point in enumerate(points):
        kept = np.arange(len(points)) != i
        scaled = depth[kept] / published[kept, None]
        factors = np.linalg.lstsq(scaled, np.ones(kept.sum()), rcond=None)[0]
        lines.append(_line(point, float(depth[i] @ factors)))
    return lines


def _launch_bound(data: dict, points: list[dict], length: int) -> dict:
    """The other extreme: all rates at the datasheet's peak, and what is left a cost of each node.

    The published models are all large, so they cannot tell a slow engine from slow launches; a
    small model can.
    """
    peak = data["datasheet"]["tf32_tflops"]
    profile = profile_of(data, points[0]["engine"], peak, peak)
    published = np.array([p["milliseconds"] for p in points])
    roof = np.array([predicted(data, p, length, profile) for p in points])
    nodes = [sum(r["count"] for r in rows_of(data, p, length)) for p in points]
    x, y = np.array(nodes) / published, 1 - roof / published
    launch = max(0.0, float(x @ y / (x @ x)))
    error = float(np.abs(x * launch - y).mean())
    return {"launch_us": 1000 * launch, "tflops": peak, "mean_error": error}
