"""Lower precisions of a portable float32 graph."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime import quantization
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from export import onnxruntime_rules

# Sums of many terms, whose digits float16 does not have.
_FLOAT32 = ("LayerNormalization", "Softmax", "ReduceSum", "ReduceMean", "GlobalAveragePool")
# Whose weights are the model's bulk.
_PRODUCTS = ("Conv", "MatMul", "Gemm")


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Half precision, except for inputs, outputs, normalisation and softmax.

    Any engine runs it: the types stand in the graph, as TensorRT 11 wants them.
    """
    return convert_float_to_float16(
        model, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FLOAT32]
    )


def int8_dynamic(model: onnx.ModelProto, target: Path) -> None:
    """Matrix products on int8 weights, a scale for each output, activations scaled as they come.

    For ONNX Runtime on CPUs, with its own attention operator: no calibration; TensorRT does
    not take it.
    """
    plain = ir.serde.deserialize_model(model)
    onnxruntime_rules.tune(plain)
    with _quiet(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        source = Path(folder) / "float.onnx"
        ir.save(plain, source)
        quantization.quantize_dynamic(
            source, target, op_types_to_quantize=["MatMul", "Attention"], per_channel=True
        )


def int8_static(model: Path, target: Path, inputs: dict[str, np.ndarray]) -> None:
    """Quantise / dequantise pairs around convolutions and products, as TensorRT wants them.

    Symmetric, int8 for weights and activations, a scale for each output channel.

    Args:
        inputs: name -> [N, ...], the examples that the scales of activations come from.
    """
    with _quiet():
        quantization.quantize_static(
            model,
            target,
            _Examples(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )


class _Examples(quantization.CalibrationDataReader):
    def __init__(self, inputs: dict[str, np.ndarray]):
        self._rows = self._read(inputs)

    @staticmethod
    def _read(inputs) -> Iterator[dict[str, np.ndarray]]:
        for i in range(len(next(iter(inputs.values())))):
            yield {name: array[i : i + 1] for name, array in inputs.items()}

    def get_next(self):
        return next(self._rows, None)


def _quiet():
    """The quantiser advises, as a warning, what was done already."""
    return warnings.catch_warnings(action="ignore")
