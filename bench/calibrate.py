"""Fit the Jetson AGX Orin's rates to the thirteen latencies of Willis and Bakos (2025).

    python -m bench.calibrate            print the fit and every left-out error
    python -m bench.calibrate --write    and write the profiles that `bench.estimate` reads

The data, bench/roofline/devices/agx_orin.json: the published latencies, what the datasheet
allows, and the costs of each model's nodes, as `export/cost.py` counts them, at five token
lengths.

    milliseconds = sum over nodes of max(FLOPs / rate of its kind, bytes / bandwidth)

Two rates an engine are fitted, of matrix products and of convolutions, at most the datasheet's;
the bandwidth is the datasheet's. The token length, which the paper does not give, is the one of
the five that fits both engines best. Each latency in turn is left out, rates and length are
fitted to the others, and the model is asked for it. Beside it, the same from depth alone:
milliseconds = factor x layers, one factor for all ("by depth"), or one a backbone ("each").
"""

from __future__ import annotations

import sys

from bench.edge import device, flags
from bench.edge.entry import ends
from bench.roofline import calibrate


@ends()
def main(arguments: list[str]) -> int:
    parser = flags.parser("bench.calibrate", __doc__)
    parser.add_argument("--write", action="store_true", help="write the profiles")
    options = parser.parse_args(arguments)
    profiles = calibrate.calibrate(calibrate.load())
    _print(profiles)
    for engine, profile in profiles.items():
        if options.write:
            path = calibrate.DATA.with_name(f"{calibrate.DATA.stem}-{engine}.json")
            device.write(path, profile)
            print(f"Profile: {path}")
    return 0


def _print(profiles: dict[str, dict]) -> None:
    for engine, profile in profiles.items():
        fit = profile["fit"]
        print(f"\n{profile['device']}, {engine}; {fit['tokens']} tokens")
        print(
            f"matrix products {profile['matrix_gflops']['fp32'] / 1000:.2f} TFLOP/s, convolutions "
            f"{profile['convolution_gflops'] / 1000:.2f} TFLOP/s, {profile['bandwidth_gbs']} GB/s"
        )
        heads = f"{'published':>10} {'predicted':>10} {'error':>7} {'by depth':>9} {'each':>7}"
        print(f"{'left out':20} {heads}")
        lines = (fit["left_out"], fit["depth_left_out"], fit["backbone_left_out"])
        for line, base, each in zip(*lines, strict=True):
            print(
                f"{line['model']:20} {line['published']:10.2f} {line['predicted']:10.2f} "
                f"{line['error']:+7.1%} {base['error']:+9.1%} {each['error']:+7.1%}"
            )
        depth = f"{fit['depth_mean_error']:9.1%} {fit['backbone_mean_error']:7.1%}"
        print(f"{'mean, absolute':20} {'':10} {'':10} {fit['mean_error']:7.1%} {depth}")
        lengths = ", ".join(f"{n}: {e:.1%}" for n, e in fit["by_length"].items())
        print(f"at each token length  {lengths}")
        bound = fit["launch"]
        print(
            f"at the datasheet's rates instead: {bound['launch_us']:.1f} us a node, error of the "
            f"fit itself {bound['mean_error']:.1%}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
