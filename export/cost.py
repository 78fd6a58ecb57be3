"""What each operator of a graph costs: multiplications and bytes, from its shapes."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnx_ir as ir


def of_longest(path: Path, length: int) -> list[dict]:
    """`costs` of a graph file for one example, its sentences of `length` tokens where open.

    Of a graph of several at a time a share of them.
    """
    proto = onnx.load(path)
    fixed = [value.type.tensor_type.shape.dim[0].dim_value for value in proto.graph.input]
    batch = max([1, *fixed])
    for value in proto.graph.input:
        axes = value.type.tensor_type.shape.dim
        sizes = (1, length) if value.name == "token_ids" else (1,)
        for axis, size in zip(axes, sizes, strict=False):
            if not axis.dim_value:
                axis.dim_value = size
    # What was inferred for open axes would be kept.
    del proto.graph.value_info[:]
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    found = costs(ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)))
    return [
        {
            **cost,
            "flops": round(cost["flops"] / batch),
            "bytes": cost["weights"] + round((cost["bytes"] - cost["weights"]) / batch),
        }
        for cost in found
    ]


def costs(model: ir.Model) -> list[dict]:
    """One entry for each node, in order: name, operator, flops, bytes, weights.

    flops: two for each multiply-add of a convolution or product, one for each element of any
    other operator. bytes: inputs, weights and outputs, each once; what an engine fuses moves
    less. weights: those of the bytes that are constants. An open axis counts as 1. A table that
    Gather reads counts with the rows it gives.
    """
    return [
        {
            "name": node.name,
            "operator": node.op_type,
            "flops": _flops(node),
            "bytes": _bytes(node),
            "weights": _weights(node),
        }
        for node in model.graph
    ]


def _sizes(value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        return []
    return [size if isinstance(size, int) else 1 for size in value.shape]


def _flops(node: ir.Node) -> int:
    elements = math.prod(_sizes(node.outputs[0]))
    if node.op_type == "Conv":
        return 2 * elements * math.prod(_sizes(node.inputs[1])[1:])
    if node.op_type in ("MatMul", "Gemm"):
        shape = _sizes(node.inputs[0])
        flipped = node.op_type == "Gemm" and node.attributes.get_int("transA", 0)
        return 2 * elements * (shape[0] if flipped else shape[-1])
    return 0 if node.op_type in _MOVES else elements


_MOVES = (
    "Reshape",
    "Transpose",
    "Gather",
    "Slice",
    "Concat",
    "Unsqueeze",
    "Squeeze",
    "Cast",
    "Pad",
)


def _bytes(node: ir.Node) -> int:
    inputs = [x for x in node.inputs if x is not None]
    if node.op_type in ("Reshape", "Unsqueeze", "Squeeze"):
        return 0
    if node.op_type == "Gather":
        return _size(inputs[1]) + 2 * _size(node.outputs[0])
    return sum(map(_size, (*inputs, *node.outputs)))


def _weights(node: ir.Node) -> int:
    if node.op_type == "Gather" or not _bytes(node):
        return 0
    return sum(_size(x) for x in node.inputs if x is not None and x.const_value is not None)


def _size(value: ir.Value) -> int:
    return math.ceil(math.prod(_sizes(value)) * (value.dtype.itemsize if value.dtype else 0))
