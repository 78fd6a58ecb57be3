"""What an exported ONNX file answers, by ONNX Runtime on the CPU."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusion_keras.errors import UsageError

_log = logging.getLogger(__name__)

# Inputs, and outputs: name -> [N, ...].
Arrays = dict[str, np.ndarray]


def session(path: Path) -> Any:
    """An onnxruntime.InferenceSession.

    Raises:
        UsageError: onnxruntime is not installed, or it refuses the file: why, and which operator.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UsageError("onnxruntime is not installed: pip install -e '.[cpu]'.") from None

    def made(exact: bool) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised, too
        options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    # Without VNNI x86 adds products of uint8 and int8 in pairs of 16 bits, which are cut off at
    # 32767. With int8 weights rewritten as uint8 it does not (onnxruntime_session_options_config_
    # keys.h), but ONNX Runtime 1.31 does not open graphs in which two nodes share one: in `int8`
    # these are of seven bits.
    with contextlib.suppress(Exception):
        return made(exact=True)
    try:
        session = made(exact=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        raise UsageError(f"ONNX Runtime refuses {path}: {reason}") from None
    _log.info(
        "%s: layers share weights: without VNNI sums may be cut off where these are of eight bits",
        Path(path).name,
    )
    return session


def opened(path: Path, batch: int = 1) -> Callable[[Arrays], Arrays]:
    """What gives every output of an ONNX file for every example.

    Of the inputs it takes what the graph wants; others may be there.

    Args:
        batch: examples at a time, where the graph has no number of its own.

    Raises:
        UsageError: see `session`.
    """
    runner = session(path)
    names = [output.name for output in runner.get_outputs()]
    taken = {i.name: i.shape[0] for i in runner.get_inputs()}
    fixed = [size for size in taken.values() if isinstance(size, int)]

    def call(rows: Arrays) -> Arrays:
        return dict(zip(names, runner.run(names, rows), strict=True))

    def answers(inputs: Arrays) -> Arrays:
        inputs = {name: inputs[name] for name in taken}
        return in_batches(call, inputs, fixed[0] if fixed else batch)

    return answers


def run_onnx(path: Path, inputs: Arrays) -> Arrays:
    """Every output of an ONNX file for every example, once; see `opened`."""
    return opened(path)(inputs)


def in_batches(call: Callable[[Arrays], Arrays], inputs: Arrays, size: int) -> Arrays:
    """Outputs [N, ...] of `call` over inputs [N, ...], `size` rows at a time.

    The last batch is filled up with its first row again.
    """
    count = len(next(iter(inputs.values())))
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        rows[rows >= count] = start
        outputs = call({name: array[rows] for name, array in inputs.items()})
        parts.append({name: x[: count - start] for name, x in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
