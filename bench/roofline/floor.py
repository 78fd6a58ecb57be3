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
import sys
from pathlib import Path

from bench.edge import device, machine, results
from bench.edge.artifact import ArtifactError, read
from bench.roofline import layers

PRECISIONS = ("fp32", "fp16", "int8")


def kind(row: dict) -> str:
    """matrix, convolution, depthwise or other, of one entry of `meta["costs"]`.

    Depthwise: a convolution that does fewer than 4 FLOPs for each byte that passes through it.
    With 3 x 3 it does 18 an output, at least 8 bytes; a 1 x 1 that joins 16 channels or more
    does at least 4 a byte.
    """
    if row["operator"] in ("MatMul", "Gemm"):
        return "matrix"
    if row["operator"] == "Conv":
        deep = row["flops"] >= 4 * (row["bytes"] - row["weights"])
        return "convolution" if deep else "depthwise"
    return "other"


def node_ms(row: dict, profile: dict, precision: str) -> float:
    """The least time of one node, milliseconds.

    fp16 halves all bytes, int8 quarters the weights of matrix products and leaves the rest in
    fp32. Weights come from memory; what passes between nodes, where the profile knows it, from
    the cache.

    Raises:
        ArtifactError: the profile has no rate for int8.
    """
    found = kind(row)
    streamed, passed = row["weights"], row["bytes"] - row["weights"]
    if precision == "fp16":
        streamed, passed = streamed / 2, passed / 2
    quantized = precision == "int8" and found == "matrix" and streamed
    if quantized:
        streamed /= 4
    memory = streamed / profile["bandwidth_gbs"]
    memory += passed / profile.get("cache_gbs", profile["bandwidth_gbs"])
    if found == "other":
        return memory / 1e6
    return max(memory, row["flops"] / _rate(found, profile, precision, quantized)) / 1e6


def _rate(found: str, profile: dict, precision: str, quantized: bool) -> float:
    rates = profile["matrix_gflops"]
    if precision == "int8" and "int8" not in rates:
        raise ArtifactError(
            f"The profile of {profile['device']} ({profile['engine']}) has no rate for int8: ask "
            "for another --precision."
        )
    if found == "matrix":
        return (
            rates["int8" if quantized else "fp32"]
            if precision == "int8"
            else _best(rates, precision)
        )
    # Convolutions gain what products gain.
    return profile[f"{found}_gflops"] * (
        _best(rates, precision) / rates["fp32"] if precision == "fp16" else 1
    )


def _best(rates: dict, precision: str) -> float:
    return rates.get(precision, rates["fp32"])


def model_ms(costs: list[dict], profile: dict, precision: str) -> float:
    """The sum of `node_ms`, milliseconds."""
    return sum(node_ms(row, profile, precision) for row in costs)


def bounds_ms(costs: list[dict], profile: dict, precision: str) -> tuple[float, float]:
    """(all FLOPs at their rates, all weights once through memory), milliseconds."""
    endless = {**profile, "bandwidth_gbs": float("inf"), "cache_gbs": float("inf")}
    compute = model_ms(costs, endless, precision)
    weights = [{**row, "bytes": row["weights"], "flops": 0} for row in costs]
    return compute, model_ms(weights, profile, precision)


def p50(path: Path, meta: dict, profile: dict, precision: str) -> list[tuple[str, float]]:
    """(name, median latency in ms) of each contender that this floor is the floor of.

    It is that of one query of the greatest length, back to back, on the profile's engine and
    machine.

    Raises:
        ArtifactError: there is none in this file, or it was measured on another machine.
        ResultsError: the file cannot be read.
    """
    content = results.read(path)
    wanted = {"precision": precision, "runner": profile["engine"], "batch": 1, "hz": 0}
    if len(meta["lengths"]) > 1:
        wanted["inputs"] = "padded"
    found = [
        (c["name"], c["latency"]["p50"])
        for c in content["contenders"]
        if c["complete"]
        and c["artifact"]["seal"] == meta["seal"]
        and not c["slow_by"]
        and all(c[name] == value for name, value in wanted.items())
    ]
    if not found:
        asked = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise ArtifactError(f"{path} has no measurement of this artifact with {asked}.")
    differences = machine.differences(profile.get("fingerprint") or {}, content["fingerprint"])
    if differences:
        raise ArtifactError(
            f"{path} was measured on another machine than the profile ({differences[0]}): make "
            "a profile there, python -m bench.device."
        )
    return found


def show(options: argparse.Namespace) -> None:
    meta, profile = read(options.artifact), device.read(options.device)
    costs, precision = meta["costs"], options.precision
    floor = model_ms(costs, profile, precision)
    compute, memory = bounds_ms(costs, profile, precision)
    print(f"{options.artifact}, {precision}, on {profile['device']} ({profile['engine']})")
    print(f"node by node          {floor:9.3f} ms at least")
    print(f"whole model, FLOPs    {compute:9.3f} ms at least")
    print(f"whole model, weights  {memory:9.3f} ms at least")
    if options.measured:
        for name, ms in p50(options.measured, meta, profile, precision):
            print(f"{name}: measured {ms:.3f} ms (p50), {floor / ms:.0%} of it is the floor")
            if floor > ms:
                print("  More than all of it: the machine was slower when its profile was made.")
    if options.layers:
        floors = {row["name"]: node_ms(row, profile, "fp32") for row in costs}
        layers.show(floors, layers.traced(options.artifact, meta))
    if not options.measured:
        print(
            "Next: how near it comes, python -m bench ARTIFACT --out=FILE, and this with "
            "--measured=FILE"
        )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.floor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("artifact", type=Path, help="what `python -m export` wrote")
    parser.add_argument(
        "--device", type=Path, default=device.PROFILE, help=f"default: {device.PROFILE}"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="default: fp32")
    parser.add_argument("--measured", type=Path, help="results of this artifact, to compare")
    parser.add_argument(
        "--layers", action="store_true", help="time every node of fp32 with ONNX Runtime, here"
    )
    try:
        show(parser.parse_args(arguments))
    except (ArtifactError, results.ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
