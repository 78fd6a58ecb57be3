"""Latencies on a device that is not at hand, from the rates of its profile. No measurement.

milliseconds = sum over nodes of max(FLOPs / rate of its kind, bytes / bandwidth) + launches
"""

from __future__ import annotations

from pathlib import Path

from bench.edge import device
from bench.edge.artifact import ArtifactError, described, read
from bench.roofline.floor import model_ms

FORMAT = "fusion_keras estimate 1"
ENGINES = ("ort-cuda", "tensorrt")
DEVICES = Path(__file__).parent / "devices"


def profile_of(name: str, engine: str) -> dict:
    """The profile of a known device and engine, or of a file.

    Raises:
        ArtifactError: there is none.
    """
    if Path(name).suffix == ".json" or Path(name).is_file():
        return device.read(Path(name))
    path = DEVICES / f"{name}-{engine}.json"
    if not path.is_file():
        known = sorted({p.stem.removesuffix(f"-{engine}") for p in _fitted(engine)})
        raise ArtifactError(
            f"No device {name!r} with {engine}: give --device={' or '.join(known)}, or the file "
            "of a profile that `python -m bench.device` wrote."
        )
    return device.read(path)


def estimate(costs: list[dict], profile: dict, precision: str) -> dict[str, float]:
    """milliseconds, and the range low to high.

    Fitted: the range of the errors of left-out latencies. Up to what the model would take, were
    its launches the bound instead of the rates: the published models, all large, cannot tell.
    A precision other than fp32 may also gain nothing, for no published latency shows its gain.
    Measured: nodes at their best, up to the spread that the machine showed.

    Raises:
        ArtifactError: the profile has no rate for this precision.
    """
    ms = _modelled(costs, profile, precision)
    if profile["kind"] == "measured":
        return {"milliseconds": ms, "low": ms, "high": ms * (1 + profile["spread"])}
    errors = [line["error"] for line in profile["fit"]["left_out"]]
    most = max(_modelled(costs, profile, "fp32"), ms)
    most = most / (1 + min(0.0, *errors))
    return {
        "milliseconds": ms,
        "low": ms / (1 + max(0.0, *errors)),
        "high": max(most, _launched(costs, profile)),
    }


def error_of(profile: dict) -> str:
    """What is known of the error of these estimates, in words."""
    if profile["kind"] == "measured":
        return (
            f"rates measured on the device, no model; it was {profile['spread']:.0%} slower than "
            "its best in the middle"
        )
    fit = profile["fit"]
    errors = [line["error"] for line in fit["left_out"]]
    return (
        f"mean absolute {fit['mean_error']:.1%} over {len(errors)} left-out published latencies, "
        f"{min(errors):+.1%} to {max(errors):+.1%}"
    )


def assumed_of(profile: dict) -> str:
    """Under which assumptions."""
    if profile["kind"] == "measured":
        return "every node runs at the best rate of its kind, one after the other"
    return profile["fit"]["assumed"]


def estimates(folders: list[Path], profile: dict, precision: str) -> dict:
    """What `--out` holds; every number in it is an estimate.

    Raises:
        ArtifactError: an artifact or precision cannot be used.
    """
    rows = []
    for folder in folders:
        meta = read(folder)
        times = estimate(meta["costs"], profile, precision)
        rows.append({"artifact": described(folder, meta), "precision": precision, **times})
    return {
        "format": FORMAT,
        "device": profile["device"],
        "engine": profile["engine"],
        "assumed": assumed_of(profile),
        "error": error_of(profile),
        "estimates": rows,
    }


def _launches(costs: list[dict]) -> int:
    """Nodes that do anything: a reshape moves nothing."""
    return sum(1 for row in costs if row["bytes"])


def _modelled(costs: list[dict], profile: dict, precision: str) -> float:
    return model_ms(costs, profile, precision) + _launches(costs) * profile["launch_us"] / 1000


def _launched(costs: list[dict], profile: dict) -> float:
    bound = profile["fit"]["launch"]
    peak = 1000 * bound["tflops"]
    fastest = {
        **profile,
        "matrix_gflops": {"fp32": peak},
        "convolution_gflops": peak,
        "depthwise_gflops": peak,
    }
    return model_ms(costs, fastest, "fp32") + _launches(costs) * bound["launch_us"] / 1000


def _fitted(engine: str) -> list[Path]:
    return list(DEVICES.glob(f"*-{engine}.json"))
