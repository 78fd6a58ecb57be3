"""Numbers that float16 lacks: in masks, in weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from export.checks.graph import STANDARD, Check, after, name, nodes

_LARGEST = 65504  # of float16
# A mask has scores added to it, and float16 has infinity from 65520 on: two masks of -3e4 fit.
_LARGEST_MASK = 6e4
# bfloat16 has float32's range.
_KINDS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
_SOFTMAX = ("Softmax", "LogSoftmax", "Attention")
# What a mask passes on its way to the scores.
_ON_THE_WAY = ("Add", "Cast", "Concat", "Div", "Dropout", "Expand", "Gather", "Identity", "Max")
_ON_THE_WAY += ("Min", "Mul", "Neg", "Pad", "Reshape", "ScatterElements", "ScatterND", "Slice")
_ON_THE_WAY += (
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "Trilu",
    "Unsqueeze",
    "Where",
)
# Where infinity does what the number did.
_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min")


def _masks(model):
    for value, tensor in _constants(model):
        largest = _magnitude(tensor)
        softmax = _softmax(value) if largest > _LARGEST_MASK else None
        if softmax is not None and not _is_bound(value):
            yield f"{_extreme(tensor):.9g} in {value.name}, into {name(softmax)}"


def _beyond_float16(model):
    for value, tensor in _constants(model):
        largest = _magnitude(tensor)
        if largest > _LARGEST and not _is_bound(value) and _softmax(value) is None:
            yield f"{_extreme(tensor):.9g} in {value.name}"


def _not_numbers(model):
    for value, tensor in _constants(model):
        if np.isnan(_magnitude(tensor)):
            yield value.name


CHECKS = [
    Check(
        "weights that are not numbers (NaN): whatever they touch is none either",
        _not_numbers,
        "take a checkpoint from before the training diverged, and export that",
    ),
    Check(
        "masks beyond what float16 holds, which become infinite: NaN in fp16 engines, where they "
        "are multiplied by 0 or hide a whole row",
        _masks,
        "hide with -3e4: its exp is 0 in any precision, and two such masks and the scores still "
        "fit into float16",
    ),
    Check(
        "weights beyond 65504, which float16 lacks: infinity and NaN in fp16 engines",
        _beyond_float16,
        "divide them by a power of two, and multiply by it where the numbers are small again; for "
        "a number that only hides or bounds, take 3e4",
    ),
]


# --- Constants --------------------------------------------------------------------------------


def _constants(model: ir.Model) -> Iterator[tuple[ir.Value, np.ndarray]]:
    """Every constant of floats that something uses, and its array."""
    held = [(v, v.const_value) for g in model.graphs() for v in g.initializers.values()]
    for node in nodes(model, "Constant"):
        held.append((node.outputs[0], ir.convenience.get_const_tensor(node.outputs[0])))
    for node in nodes(model, "ConstantOfShape"):
        if "value" in node.attributes:
            held.append((node.outputs[0], node.attributes["value"].as_tensor()))
    for value, tensor in held:
        if tensor is not None and tensor.dtype in _KINDS and tensor.size and value.uses():
            yield value, tensor.numpy()


def _magnitude(array: np.ndarray) -> float:
    """The largest without its sign, by no copy of the array; NaN where one is NaN."""
    return max(abs(float(array.max())), abs(float(array.min())))


def _extreme(array: np.ndarray) -> float:
    return max(float(array.max()), float(array.min()), key=abs)


def _is_bound(value: ir.Value) -> bool:
    """Whether a constant only bounds or is compared with: no harm where it becomes infinite."""
    return all(
        (node.op_type == "Clip" and index > 0)
        or node.op_type in _COMPARISONS
        or (node.op_type == "Pad" and all(n.op_type == "MaxPool" for n in after(node)))
        for node, index in value.uses()
    )


def _softmax(value: ir.Value) -> ir.Node | None:
    """The softmax whose scores a value is added to or chosen for."""
    pending, seen = list(value.consumers()), set()
    while pending:
        node = pending.pop()
        if id(node) in seen or node.domain not in STANDARD:
            continue
        seen.add(id(node))
        if node.op_type in _SOFTMAX:
            return node
        if node.op_type in _ON_THE_WAY:
            pending.extend(after(node))
    return None
