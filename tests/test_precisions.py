"""Graphs at lower precisions, each as small as what it shows."""

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser
import pytest

from export import precisions
from fusion_keras.exported import opened


def test_a_number_that_both_precisions_read_is_cast_once(tmp_path):
    # Max stays in float32 and Add does not, so that both Max read the same float16 number.
    model = onnx.parser.parse_model(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        one (float[1, 4] x) => (float[1, 4] y)
        <float[4] c = {0.5, 1.0, 1.5, 2.0}>
        {
            larger = Max(x, c)
            square = Mul(x, x)
            larger_square = Max(square, c)
            sum = Add(larger, c)
            y = Add(sum, larger_square)
        }
        """
    )
    lowered = precisions.fp16(model)
    onnx.checker.check_model(lowered, full_check=True)
    onnx.save(lowered, tmp_path / "model.onnx")
    x = np.array([[0.25, 3.0, -1.0, 4.0]], np.float32)
    c = np.array([0.5, 1.0, 1.5, 2.0], np.float32)
    wanted = np.maximum(x, c) + c + np.maximum(x * x, c)
    np.testing.assert_array_equal(opened(tmp_path / "model.onnx")({"x": x})["y"], wanted)


@pytest.mark.parametrize(("second", "most"), [("a", 64), ("b", 127)])
def test_a_weight_that_two_products_share_is_of_seven_bits(tmp_path, second, most):
    # ONNX Runtime cannot rewrite it for x86 without VNNI, where two products of eight bits may
    # not fit into the 16 bits that they are added in.
    graph = f"""
        <ir_version: 9, opset_import: ["" : 17]>
        one (float[1, 64] x) => (float[1, 64] y)
        {{
            first = MatMul(x, a)
            y = MatMul(first, {second})
        }}
        """
    model = onnx.parser.parse_model(graph)
    weights = np.where(np.eye(64, dtype=bool), 1.0, 0.5).astype(np.float32)
    other = np.float32(1.5) - weights
    given = {"a": weights, "b": other}
    for name in sorted({"a", second}):
        model.graph.initializer.append(onnx.numpy_helper.from_array(given[name], name))
    precisions.int8_dynamic(model, tmp_path / "model.onnx")
    written = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(written) == len({"a", second})  # each once
    assert {int(np.abs(array).max()) for array in written} == {most}
    x = np.linspace(0.5, 1, 64, dtype=np.float32)[None]
    found = opened(tmp_path / "model.onnx")({"x": x})["y"]
    np.testing.assert_allclose(found, x @ weights @ given[second], rtol=0.02)
