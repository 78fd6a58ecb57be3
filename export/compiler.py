"""Whether NVIDIA's own parser and compiler take a graph, asked without a GPU.

TensorRT-RTX (the extra `tensorrt-rtx`) compiles ahead of time for a GPU that is named; TensorRT
itself, which a Jetson has, builds on its own GPU alone. The two share the parser of ONNX and the
optimiser's front, not the kernels: what is refused here is refused there, while what is taken here
a TensorRT of an older release may still refuse. Nothing is run. The calls are `bench.engine`'s.

    python -m export.compiler LENGTHS MODEL.onnx ...
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.edge import engine
from fusion_keras import cli
from fusion_keras.errors import UsageError

# Ampere, as an Orin's GPU is; that one, 8.7, is not among what it can be asked for.
TARGET = "SM86"
_PACKAGE = "tensorrt_rtx"
_WORKSPACE, _MAX_BATCH = 1024, 8


class RefusedError(UsageError):
    """The compiler does not take a graph.

    Attributes:
        nodes: as in `bench.edge.engine.RefusedError`; none where it names none.
    """

    def __init__(self, message: str, nodes: Sequence[tuple[str, str, str]] = ()):
        super().__init__(message)
        self.nodes = nodes


def installed() -> bool:
    """Whether the compiler is there."""
    return importlib.util.find_spec(_PACKAGE) is not None


def compiled(models: Sequence[Path], lengths: Sequence[int] = ()) -> list[dict]:
    """Parse and compile ONNX files for TARGET, in a process of its own: the compiler may crash.

    Args:
        models: portable graphs.
        lengths: what sentences are padded to, where that axis is open.

    Returns:
        Of each: `compiler`, its version; `target`; `seconds`; `bytes` of the engine.

    Raises:
        RefusedError: of the first that is not taken; its own words, and the node.
    """
    command = [sys.executable, "-m", "export.compiler", ",".join(map(str, lengths))]
    done = subprocess.run([*command, *map(str, models)], capture_output=True, text=True)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for answer in answers:
        if "refused" in answer:
            raise RefusedError(answer["refused"], answer["nodes"])
    # What dies behind its last answer has given them all.
    if len(answers) < len(models):
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        ended = f"signal {-done.returncode}" if done.returncode < 0 else lines[-1]
        raise RefusedError(
            f"{_PACKAGE} ended without an answer about {models[len(answers)]} ({ended})"
        )
    return answers


def main(lengths: str, *models: str) -> None:
    """Print a line of JSON for each model; see `compiled`."""
    for model in models:
        answer = _compiled(Path(model), [int(x) for x in lengths.split(",") if x])
        print(json.dumps(answer), flush=True)


def _compiled(model: Path, lengths: list[int]) -> dict:
    import tensorrt_rtx as trt

    class Logger(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.errors = []

        def log(self, severity, message):
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

    logger = Logger()
    builder = trt.Builder(logger)
    start = time.perf_counter()
    try:
        network = engine.parsed(trt, builder, logger, model)
    except engine.RefusedError as error:
        return {"refused": str(error), "nodes": error.nodes}
    config, _ = engine.configured(trt, builder, network, lengths, _WORKSPACE, _MAX_BATCH)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, TARGET), 0)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        said = "; ".join(logger.errors) or "no message"
        return {
            "refused": f"{_PACKAGE} {trt.__version__} could not build {model}: {said}",
            "nodes": [],
        }
    return {
        "compiler": f"{_PACKAGE} {trt.__version__}",
        "target": TARGET,
        "seconds": round(time.perf_counter() - start, 3),
        "bytes": plan.nbytes,
    }


if __name__ == "__main__":
    cli.guarded(lambda: main(*sys.argv[1:]))
