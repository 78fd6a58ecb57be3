"""Operators, types and versions that an engine does not take.

What TensorRT takes is said by onnx-tensorrt, docs/operators.md and onnxOpCheckers.cpp at 10.1-GA.
"""

from __future__ import annotations

import onnx_ir as ir

from export import tensorrt_ops
from export.checks.graph import STANDARD, Check, constant, given, inputs, name, nodes, opset, trains

_TENSORFLOW = ("PartitionedCall", "StatefulPartitionedCall", "XlaCallModule")
# What ONNX Runtime 1.18 to 1.22 take (1.23: 11); all that opsets up to 22 need.
_IR_VERSION = 10


def _of_tensorflow(model):
    yield from (name(n) for n in nodes(model) if n.op_type in _TENSORFLOW)


def _foreign(model):
    for node in nodes(model):
        standard = node.domain in STANDARD
        known = standard and node.op_type in tensorrt_ops.OPERATORS | set(_TENSORFLOW)
        if not known and node.op_identifier() not in model.functions:
            yield f"{node.op_type} {name(node)}"


def _opset(model):
    version = opset(model)
    # A graph of other domains alone names none.
    if version is not None and version not in tensorrt_ops.OPSETS:
        yield f"opset {version}"


def _ir_version(model):
    if model.ir_version > _IR_VERSION:
        yield f"IR version {model.ir_version}"


def _training(model):
    yield from (name(n) for n in nodes(model, "BatchNormalization") if trains(n))
    for node in nodes(model, "Dropout"):
        mode = given(node, 2)
        # A mode that is computed is refused, too.
        if mode is not None and (constant(mode) is None or constant(mode).any()):
            yield name(node)


def _wide_inputs(model):
    yield from (x.name for x in inputs(model) if x.dtype == ir.DataType.INT64)


def _bytes_as_numbers(model):
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    for value in inputs(model):
        for node in value.consumers() if value.dtype == ir.DataType.UINT8 else ():
            if node.op_type != "Cast" or node.attributes["to"].as_int() not in floats:
                yield f"{value.name} into {name(node)}"


CHECKS = [
    Check(
        "operators of TensorFlow's runtime, which no engine has",
        _of_tensorflow,
        "export on the TensorFlow backend, not on JAX; write grouped convolutions as "
        "DepthwiseConv2D",
        fatal=True,
    ),
    Check(
        "operators that TensorRT lacks",
        _foreign,
        "give TensorRT the portable float32 or fp16 file; for int8, the one of QuantizeLinear and "
        "DequantizeLinear, symmetric: int8 with zero points of 0 throughout",
        fatal=True,
        tensorrt=True,
    ),
    Check(
        "an opset that TensorRT does not take",
        _opset,
        f"export with opset 17 to 20 and IR version {_IR_VERSION} or less",
        fatal=True,
        tensorrt=True,
    ),
    Check(
        "layers in training mode: they answer by what else is in the batch, or by chance, and "
        "TensorRT refuses them",
        _training,
        "export in inference mode (model.eval()), or set training_mode to 0 and keep the first "
        "output alone; behind a convolution, fold the normalisation into its weights",
        fatal=True,
    ),
    Check(
        "uint8 inputs that do more than become floats, which TensorRT lacks",
        _bytes_as_numbers,
        "cast them to float32 or float16 first of all",
        fatal=True,
        tensorrt=True,
    ),
    Check(
        "an IR version that older ONNX Runtimes refuse: 1.18 to 1.22 take up to 10",
        _ir_version,
        f"set model.ir_version to {_IR_VERSION}: opsets up to 22 need no more; with a later opset, "
        "export with 17 to 20",
    ),
    Check("inputs of int64", _wide_inputs, "take int32: half the bytes, and no casts on a GPU"),
]
