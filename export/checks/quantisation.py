"""Quantised numbers as TensorRT takes them: symmetric, of signed types.

onnx-tensorrt, QuantDequantLinearHelper at 10.1-GA: "The zero point must be all zeros", uint8 is an
invalid type, "Scale coefficients must all be positive"; TensorRT's documentation, Working with
Quantized Types: int8, int4, float8 e4m3, float4 e2m1.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.checks.graph import Check, constant, given, name, nodes

_PAIR = ("QuantizeLinear", "DequantizeLinear")
_TAKEN = (
    ir.DataType.INT8,
    ir.DataType.INT4,
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT4E2M1,
)
# Whole, since each of its settings left out leads to another of these findings.
_AGAIN = (
    "quantise the float model again, symmetric and with biases in float32: activation_type and "
    "weight_type QInt8, ActivationSymmetric=True, WeightSymmetric=True, QuantizeBias=False in "
    "onnxruntime.quantization"
)


def _asymmetric(model):
    for node in nodes(model, *_PAIR):
        kind, zero = _kind(node), given(node, 2)
        if kind == ir.DataType.INT32:
            continue
        if kind is not None and kind not in _TAKEN:
            yield f"{kind.name.lower()} in {name(node)}"
        elif zero is not None and constant(zero) is None:
            yield f"a computed zero point in {name(node)}"
        elif zero is not None:
            points = constant(zero).astype(np.float32).ravel()
            if points.any():
                yield f"zero point {points[np.abs(points).argmax()]:g} in {name(node)}"


def _dequantised_biases(model):
    for node in nodes(model, "DequantizeLinear"):
        if _kind(node) == ir.DataType.INT32:
            yield name(node)


def _scales(model):
    for node in nodes(model, *_PAIR):
        scales = constant(given(node, 1))
        # Written so that a NaN is found.
        if scales is not None and not (scales.astype(np.float32) > 0).all():
            yield f"{scales.min():g} in {name(node)}"


def _kind(node: ir.Node) -> ir.DataType | None:
    """What a node quantises to or from; None where the graph does not say."""
    zero = given(node, 2)
    if node.op_type == "DequantizeLinear":
        source = node.inputs[0]
        if source.dtype is not None:
            return source.dtype
        if zero is None and source.producer() and source.producer().op_type == "QuantizeLinear":
            return _kind(source.producer())
        return None if zero is None else zero.dtype
    if zero is not None:
        return zero.dtype
    return ir.DataType(node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8)


CHECKS = [
    Check(
        "quantisation that is not symmetric int8, all that TensorRT takes: zero points other than "
        "0, or other types, such as uint8",
        _asymmetric,
        _AGAIN,
        fatal=True,
        tensorrt=True,
    ),
    Check(
        "DequantizeLinear of int32, which TensorRT lacks",
        _dequantised_biases,
        _AGAIN,
        fatal=True,
        tensorrt=True,
    ),
    Check(
        "scales of a quantisation that are not above 0, which TensorRT refuses",
        _scales,
        "calibrate again, on examples that move these values; what is 0 throughout may have the "
        "scale 1",
        fatal=True,
        tensorrt=True,
    ),
]
