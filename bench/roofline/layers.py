"""Where the time of a model goes: ONNX Runtime's profiler beside each node's floor."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from pathlib import Path

from bench.edge.artifact import ArtifactError, golden

PARTS = {
    "text": "text backbone",
    "padding": "text backbone",
    "image": "image backbone",
    "audio": "audio backbone",
    "fusion": "fusion",
    "fusion/logits": "head",
    "fusion/score": "head",
}
_WARM_UP, _RUNS = 5, 30


def parts(names: list[str]) -> list[str]:
    """The part of the model of each node, in the graph's order.

    A rewritten node has lost its place in the name (node_Conv_12): it counts with the one
    before it.
    """
    part_of_each, last = [], "other"
    for name in names:
        scope = re.match(r"(padding|text|image|audio|fusion)_[^/]*/?(logits|score)?", name)
        if scope:
            head = scope[1] == "fusion" and scope[2]
            last = PARTS[f"fusion/{scope[2]}" if head else scope[1]]
        part_of_each.append(last)
    return part_of_each


def traced(folder: Path, meta: dict) -> list[dict]:
    """What ONNX Runtime's profiler says of the fp32 model on the CPU, one example a run.

    Returns:
        In the order of execution: name and operator, as ONNX Runtime has them after its own
        rewriting, and ms, the mean time of the kernel over the runs.

    Raises:
        ArtifactError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtifactError(f"--layers wants ONNX Runtime ({error}): pip install it.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    batch = meta["shapes"]["batch"] or 1
    feed = {name: x[:batch] for name, x in golden(folder)[0].items()}
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "trace")
        file = folder / meta["models"]["fp32"]["file"]
        try:
            session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of a class of its own for each reason
            said = " ".join(str(error).split())[:300]
            raise ArtifactError(f"ONNX Runtime refuses {file}: {said}") from None
        for _ in range(_WARM_UP + _RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    return kernels(events, _WARM_UP)


def kernels(events: list[dict], warm_up: int) -> list[dict]:
    """Mean kernel times of a trace of ONNX Runtime, without the first `warm_up` runs.

    https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html: an event of
    category Node and name ..._kernel_time for each kernel, `dur` in microseconds.
    """
    seen: Counter = Counter()
    total: dict[str, dict] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        row = total.setdefault(name, {"name": name, "operator": event["args"]["op_name"], "ms": 0})
        seen[name] += 1
        if seen[name] > warm_up:
            row["ms"] += event["dur"] / 1000
    return [{**row, "ms": row["ms"] / max(1, seen[n] - warm_up)} for n, row in total.items()]


def totals(floors: dict[str, float], nodes: list[dict]) -> dict[str, Counter]:
    """Milliseconds by part and by operator, and the floor of each part.

    Args:
        floors: node of the file -> milliseconds, in the graph's order.
        nodes: what `traced` returns.

    Returns:
        "part", "operator" and "floor", each name -> milliseconds.
    """
    part_of = dict(zip(floors, parts(list(floors)), strict=True))
    # What ONNX Runtime made itself counts with the node before it.
    last = "other"
    sums = {"part": Counter(), "operator": Counter(), "floor": Counter()}
    for node in nodes:
        last = part_of.get(in_file(node["name"]), last)
        sums["part"][last] += node["ms"]
        sums["operator"][node["operator"]] += node["ms"]
    for name, part in part_of.items():
        sums["floor"][part] += floors[name]
    return sums


def in_file(name: str) -> str:
    """A node's name before ONNX Runtime changed its layout."""
    return name.removesuffix("_nchwc")
