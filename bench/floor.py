"""How fast could this model be on this device, and where does its time go?

    python -m bench.floor ARTIFACT --device=results/device.json --measured=RESULTS.json --layers

The roofline of Williams, Waterman and Patterson (2009, doi:10.1145/1498765.1498785), node by
node: a node takes at least its FLOPs at the device's best rate for its kind, and at least its
bytes at the device's bandwidth. What an engine fuses moves fewer bytes than the nodes of the
file do, so the sum over nodes is the floor of running them one by one; the bound of the whole
model, all FLOPs or all weights, holds however they are fused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.edge import device, flags
from bench.edge.artifact import read
from bench.edge.entry import ends
from bench.edge.errors import BenchError
from bench.roofline import floor, layers

# Rows of a table of operators or nodes.
_TOP = 10


@ends()
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.json and options.layers:
        raise BenchError("--layers is a table to look at: leave it or --json out.")
    meta, profile = read(options.artifact), device.read(options.device)
    costs, precision = meta["costs"], options.precision
    least = floor.model_ms(costs, profile, precision)
    compute, memory = floor.bounds_ms(costs, profile, precision)
    measured = floor.p50(options.measured, meta, profile, precision) if options.measured else []
    if options.json:
        print(
            json.dumps(
                {
                    "artifact": str(options.artifact),
                    "precision": precision,
                    "device": profile["device"],
                    "engine": profile["engine"],
                    "nodes_ms": least,
                    "flops_ms": compute,
                    "weights_ms": memory,
                    "measured_p50_ms": dict(measured),
                }
            )
        )
        return 0
    print(f"{options.artifact}, {precision}, on {profile['device']} ({profile['engine']})")
    print(f"node by node          {least:9.3f} ms at least")
    print(f"whole model, FLOPs    {compute:9.3f} ms at least")
    print(f"whole model, weights  {memory:9.3f} ms at least")
    for name, ms in measured:
        print(f"{name}: measured {ms:.3f} ms (p50), {least / ms:.0%} of it is the floor")
        if least > ms:
            print("  More than all of it: the machine was slower when its profile was made.")
    if options.layers:
        floors = {row["name"]: floor.node_ms(row, profile, "fp32") for row in costs}
        _print_layers(floors, layers.traced(options.artifact, meta))
    if not options.measured:
        print(
            "Next: how near it comes, python -m bench ARTIFACT --out=FILE, and this with "
            "--measured=FILE"
        )
    return 0


def _print_layers(floors: dict[str, float], nodes: list[dict]) -> None:
    """Measured kernel times beside floors: by part, by operator, the slowest nodes."""
    sums = layers.totals(floors, nodes)
    total = sums["part"].total()
    print(f"\n{'by part':40} {'ms':>8} {'share':>6} {'floor':>8}")
    for part, ms in sums["part"].most_common():
        print(f"{part:40} {ms:8.3f} {ms / total:6.1%} {sums['floor'][part]:8.3f}")
    print(f"\n{'by operator':40} {'ms':>8} {'share':>6}")
    for operator, ms in sums["operator"].most_common(_TOP):
        print(f"{operator:40} {ms:8.3f} {ms / total:6.1%}")
    print(f"\n{'slowest nodes':40} {'ms':>8} {'share':>6} {'floor':>8}")
    for node in sorted(nodes, key=lambda node: -node["ms"])[:_TOP]:
        least = floors.get(layers.in_file(node["name"]))
        beside = "-" if least is None else f"{least:.3f}"
        label = node["name"] if len(node["name"]) <= 40 else "..." + node["name"][-37:]
        print(f"{label:40} {node['ms']:8.3f} {node['ms'] / total:6.1%} {beside:>8}")


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("bench.floor", __doc__, json="the floor, in milliseconds,")
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    add("--device", type=Path, default=device.PROFILE, help=f"default: {device.PROFILE}")
    add("--precision", choices=floor.PRECISIONS, default="fp32", help="default: fp32")
    add("--measured", type=Path, help="results of this artifact, to compare")
    traced = "time every node of fp32 with ONNX Runtime, here"
    add("--layers", action="store_true", help=traced)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
