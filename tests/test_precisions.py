"""Graphs at lower precisions, each as small as what it shows."""

import numpy as np
import onnx
import onnx.checker
import onnx.parser

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
