"""Estimate the latency of artifacts on a device that is not at hand. No measurement.

    python -m bench.estimate ARTIFACT... --device=agx_orin --engine=tensorrt

    milliseconds = sum over nodes of max(FLOPs / rate of its kind, bytes / bandwidth) + launches

With the rates of a profile: of a device that `bench.device` measured (--device=FILE), or fitted
to published latencies by `bench.calibrate` (--device=agx_orin, with an --engine).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.edge import device, flags
from bench.edge.entry import ends
from bench.roofline import estimate, floor


@ends("Interrupted. Nothing was written.")
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    profile = estimate.profile_of(options.device, options.engine)
    estimates = estimate.estimates(options.artifacts, profile, options.precision)
    if options.out:
        device.write(options.out, estimates)
    if options.json:
        print(json.dumps(estimates))
        return 0
    _print(estimates)
    if options.out:
        print(f"Estimates: {options.out}")
    print("Next: python -m bench.report with results and a file of estimates (--out)")
    return 0


def _print(estimates: dict) -> None:
    print(f"{estimates['device']}, {estimates['engine']}: estimate, not measured")
    print(f"assumed: {estimates['assumed']}")
    print(f"how far off: {estimates['error']}")
    print(f"{'artifact':40} {'precision':>9} {'ms':>8} {'low':>8} {'high':>8}")
    for row in estimates["estimates"]:
        times = " ".join(f"{row[name]:8.2f}" for name in ("milliseconds", "low", "high"))
        print(f"{row['artifact']['path']:40} {row['precision']:>9} {times}  estimate")


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("bench.estimate", __doc__, json="the estimates")
    add = parser.add_argument
    known = "a known device, or a profile's file (agx_orin)"
    add("artifacts", type=Path, nargs="+", help="what `python -m export` wrote")
    add("--device", default="agx_orin", help=known)
    engines = estimate.ENGINES
    add("--engine", choices=engines, default="tensorrt", help="of a known device (tensorrt)")
    add("--precision", choices=floor.PRECISIONS, default="fp32", help="default: fp32")
    add("--out", type=flags.file, help="write the estimates, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
