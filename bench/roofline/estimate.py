"""Estimate the latency of artifacts on a device that is not at hand. No measurement.

    python -m bench.estimate ARTIFACT... --device=agx_orin --engine=tensorrt

    milliseconds = sum over nodes of max(FLOPs / rate of its kind, bytes / bandwidth) + launches

With the rates of a profile: of a device that `bench.device` measured (--device=FILE), or fitted
to published latencies by `bench.calibrate` (--device=agx_orin, with an --engine).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.edge import device
from bench.edge.artifact import ArtifactError, described, read
from bench.roofline.floor import PRECISIONS, model_ms

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
    found = []
    for folder in folders:
        meta = read(folder)
        times = estimate(meta["costs"], profile, precision)
        found.append({"artifact": described(folder, meta), "precision": precision, **times})
    return {
        "format": FORMAT,
        "device": profile["device"],
        "engine": profile["engine"],
        "assumed": assumed_of(profile),
        "error": error_of(profile),
        "estimates": found,
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


def show(found: dict) -> None:
    print(f"{found['device']}, {found['engine']}: estimate, not measured")
    print(f"assumed: {found['assumed']}")
    print(f"error: {found['error']}")
    print(f"{'artifact':40} {'precision':>9} {'ms':>8} {'low':>8} {'high':>8}")
    for row in found["estimates"]:
        times = " ".join(f"{row[name]:8.2f}" for name in ("milliseconds", "low", "high"))
        print(f"{row['artifact']['path']:40} {row['precision']:>9} {times}  estimate")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.estimate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifacts", type=Path, nargs="+", help="what `python -m export` wrote")
    parser.add_argument(
        "--device", default="agx_orin", help="a known device, or a profile's file (agx_orin)"
    )
    parser.add_argument(
        "--engine", choices=ENGINES, default="tensorrt", help="of a known device (tensorrt)"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    parser.add_argument("--out", type=Path, help="write the estimates, as JSON")
    options = parser.parse_args(arguments)
    try:
        profile = profile_of(options.device, options.engine)
        found = estimates(options.artifacts, profile, options.precision)
        show(found)
        if options.out:
            device.write(options.out, found)
            print(f"Estimates: {options.out}")
        print("Next: python -m bench.report with results and a file of estimates (--out)")
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Nothing was written.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
