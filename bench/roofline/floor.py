"""The roofline of Williams, Waterman and Patterson (2009), node by node.

A node takes at least its FLOPs at the device's best rate for its kind, and at least its bytes at
the device's bandwidth. What an engine fuses moves fewer bytes than the nodes of the file do, so the
sum over nodes is the floor of running them one by one; the bound of the whole model, all FLOPs or
all weights, holds however they are fused.
"""

from __future__ import annotations

from pathlib import Path

from bench.edge import machine, results
from bench.edge.artifact import ArtifactError

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
    node_kind = kind(row)
    streamed, passed = row["weights"], row["bytes"] - row["weights"]
    if precision == "fp16":
        streamed, passed = streamed / 2, passed / 2
    quantized = precision == "int8" and node_kind == "matrix" and streamed
    if quantized:
        streamed /= 4
    memory = streamed / profile["bandwidth_gbs"]
    memory += passed / profile.get("cache_gbs", profile["bandwidth_gbs"])
    if node_kind == "other":
        return memory / 1e6
    return max(memory, row["flops"] / _rate(node_kind, profile, precision, quantized)) / 1e6


def _rate(node_kind: str, profile: dict, precision: str, quantized: bool) -> float:
    rates = profile["matrix_gflops"]
    if precision == "int8" and "int8" not in rates:
        raise ArtifactError(
            f"The profile of {profile['device']} ({profile['engine']}) has no rate for int8: ask "
            "for another --precision."
        )
    if node_kind == "matrix":
        return (
            rates["int8" if quantized else "fp32"]
            if precision == "int8"
            else _best(rates, precision)
        )
    # Convolutions gain what products gain.
    return profile[f"{node_kind}_gflops"] * (
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
    conditions = {"precision": precision, "runner": profile["engine"], "batch": 1, "hz": 0}
    if len(meta["lengths"]) > 1:
        conditions["inputs"] = "padded"
    medians = [
        (c["name"], c["latency"]["p50"])
        for c in content["contenders"]
        if c["complete"]
        and c["artifact"]["seal"] == meta["seal"]
        and not c["slow_by"]
        and all(c[name] == value for name, value in conditions.items())
    ]
    if not medians:
        asked = ", ".join(f"{name} {value}" for name, value in conditions.items())
        raise ArtifactError(f"{path} has no measurement of this artifact with {asked}.")
    differences = machine.differences(profile.get("fingerprint") or {}, content["fingerprint"])
    if differences:
        raise ArtifactError(
            f"{path} was measured on another machine than the profile ({differences[0]}): make "
            "a profile there, python -m bench.device."
        )
    return medians
