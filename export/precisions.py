"""Lower precisions of a portable float32 graph."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxruntime import quantization
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from export import onnxruntime_rules

# Sums of many terms, whose digits float16 does not have. LayerNormalization and Softmax are not
# among them: the one works in float32 by its definition (`stash_type`), the other in every
# engine, on what an fp16 product gave it; casts around them would only hinder fusions.
_FLOAT32 = ("ReduceSum", "ReduceMean", "GlobalAveragePool")
# Whose weights are the model's bulk.
_PRODUCTS = ("Conv", "MatMul", "Gemm")
# Operator -> which of its inputs is the zero point of weights, a vector.
_ZERO_POINTS = {"MatMulInteger": 3, "QAttention": 7, "DequantizeLinear": 2}
# Of values that are equal, whatever their size.
_KEEP_ONE = passes.DeduplicateInitializersPass(size_limit=1 << 60)
# Of 99.99, 99.997 and 99.999 the one whose logits are nearest to float32 over three variants.
_PERCENTILE = 99.999


def lower(name: str, source: Path, target: Path, inputs: dict[str, np.ndarray]) -> None:
    """Write a float32 graph at a lower precision.

    Args:
        name: fp16, int8 or int8_static.
        inputs: examples, name -> [N, ...], to calibrate int8_static on.
    """
    if name == "fp16":
        onnx.save(fp16(onnx.load(source)), target)
    elif name == "int8":
        int8_dynamic(onnx.load(source), target)
    else:
        int8_static(source, target, inputs)


def fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Half precision, except for inputs, outputs and the sums of pooling.

    Any engine runs it: the types stand in the graph, as TensorRT 11 wants them.
    """
    blocked = [*DEFAULT_OP_BLOCK_LIST, *_FLOAT32]
    lowered = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    # None is allowed by ONNX: types that stand beside what is float32 again, the same cast for each
    # of the nodes that read a value, and casts that stand behind what reads them.
    del lowered.graph.value_info[:]
    made: set[str] = set()
    for node in list(lowered.graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            lowered.graph.node.remove(node)
        made.update(node.output)
    sorted_model = ir.serde.deserialize_model(lowered)
    passes.TopologicalSortPass()(sorted_model)
    return ir.serde.serialize_model(sorted_model)


def int8_dynamic(model: onnx.ModelProto, target: Path) -> None:
    """Matrix products on int8 weights, a scale for each output, activations scaled as they come.

    For ONNX Runtime on CPUs, with its own attention operator: no calibration; TensorRT does
    not take it. Where layers share weights, these are of seven bits: on x86 without VNNI ONNX
    Runtime sums exactly by weights that it rewrites, but not those that two nodes share. A pair of
    products of 255 and 64 fits into the 16 bits that pairs are added in.
    """
    plain = ir.serde.deserialize_model(model)
    onnxruntime_rules.tune(plain)
    _KEEP_ONE(plain)
    with _quiet(), tempfile.TemporaryDirectory(dir=target.parent) as folder:
        source = Path(folder) / "float.onnx"
        ir.save(plain, source)
        quantized = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            source,
            quantized,
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=True,
            reduce_range=_shares_weights(plain),
            nodes_to_exclude=_of_heads(plain),
        )
        _save_once(ir.load(quantized), target)


def int8_static(model: Path, target: Path, inputs: dict[str, np.ndarray]) -> None:
    """Quantise / dequantise pairs around convolutions and products, as TensorRT wants them.

    Symmetric, int8 for weights and activations, a scale for each output channel. The scale
    of an activation spans all but one in a hundred thousand of its values: with its extremes a few
    outliers take the resolution from all the others.

    Args:
        inputs: name -> [N, ...], the examples that the scales of activations come from.
    """
    # The quantiser reports its progress on the terminal, which has ours.
    with _quiet(), contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static(
            model,
            target,
            _Examples(inputs, _batch(model)),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            nodes_to_exclude=_of_heads(ir.load(model)),
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                # TensorRT quantises what goes into a product, not what comes out, and dequantises
                # no int32.
                "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
                "QuantizeBias": False,
                "CalibPercentile": _PERCENTILE,
                # One batch at a time: all activations of all examples do not fit into memory.
                "CalibStridedMinMax": 1,
            },
        )
    _save_once(ir.load(target), target)


def _of_heads(model: ir.Model) -> list[str]:
    """Products with weights that are a matrix for each head, as of DeBERTa's distances.

    The quantiser would give them scales by an axis that is not the outputs'.
    """
    return [
        node.name
        for node in model.graph
        if node.op_type == "MatMul"
        and node.inputs[1].const_value is not None
        and len(node.inputs[1].shape) > 2
    ]


def _shares_weights(model: ir.Model) -> bool:
    """Whether a matrix is a weight of two products that are quantised, as in ALBERT."""
    left = set(_of_heads(model))
    weights = [
        node.inputs[1]
        for node in model.graph
        if node.op_type in ("MatMul", "Attention")
        and node.inputs[1].const_value is not None
        and node.name not in left
    ]
    return len(set(weights)) < len(weights)


def _save_once(model: ir.Model, target: Path) -> None:
    """Save a model, each value once but for zero points of weights, of which each use has its own.

    ONNX Runtime replaces weights and their zero points on a CPU without VNNI, under names made from
    theirs, and opens no graph where two uses share one (see `fusion_keras.exported.session`).
    """
    _KEEP_ONE(model)
    for node in model.graph:
        place = _ZERO_POINTS.get(node.op_type, len(node.inputs))
        shared = node.inputs[place] if place < len(node.inputs) else None
        if shared is None or shared.const_value is None or shared.shape.rank() == 0:
            continue
        own = ir.Value(
            name=f"{node.outputs[0].name}_zero_point_of_weights",
            shape=shared.shape,
            type=shared.type,
            const_value=ir.Tensor(shared.const_value.numpy()),
        )
        model.graph.register_initializer(own)
        node.replace_input_with(place, own)
    passes.RemoveUnusedNodesPass()(model)
    ir.save(model, target)


def _batch(model: Path) -> int:
    """The examples that a graph takes at a time; 1 where that is open."""
    inputs = onnx.load(model, load_external_data=False).graph.input
    return inputs[0].type.tensor_type.shape.dim[0].dim_value or 1


class _Examples(quantization.CalibrationDataReader):
    """Batches of examples, the last one filled up with its first row, a range of them."""

    def __init__(self, inputs: dict[str, np.ndarray], batch: int):
        self._inputs, self._batch = inputs, batch
        self._count = len(next(iter(inputs.values())))
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-self._count // self._batch)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._left = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, np.ndarray] | None:
        number = next(self._left, None)
        if number is None:
            return None
        rows = np.arange(number * self._batch, (number + 1) * self._batch)
        rows[rows >= self._count] = rows[0]
        return {name: array[rows] for name, array in self._inputs.items()}


@contextlib.contextmanager
def _quiet():
    """The quantiser advises, by warnings and on the root logger, what was done already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
