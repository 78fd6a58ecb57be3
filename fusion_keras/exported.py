"""What an exported ONNX file answers, by ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusion_keras.errors import UsageError

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
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = " ".join(str(error).split())[:400]
        raise UsageError(f"ONNX Runtime refuses {path}: {reason}") from None


@functools.cache
def sums_int8() -> bool:
    """Whether ONNX Runtime sums products of uint8 and int8 exactly on this CPU.

    Without VNNI x86 adds them in pairs of 16 bits, which are cut off at 32767 (ONNX Runtime's
    documentation, "Quantize ONNX Models": U8S8 and saturation). ARM does not.
    """
    import onnx
    import onnxruntime

    shared = {"x": (onnx.TensorProto.UINT8, [1, 64]), "y": (onnx.TensorProto.INT32, [1, 16])}
    x, y = (onnx.helper.make_tensor_value_info(name, *what) for name, what in shared.items())
    most = onnx.numpy_helper.from_array(np.full((64, 16), 127, np.int8), "w")
    node = onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "sums", [x], [y], [most])
    model = onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    runner = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = runner.run(None, {"x": np.full((1, 64), 255, np.uint8)})
    return bool((found == 255 * 127 * 64).all())


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
