"""What an ONNX file answers: in batches of its size, from the inputs that it takes."""

import numpy as np
import onnx.parser
import pytest

from fusion_keras.errors import UsageError
from fusion_keras.exported import opened, run_onnx

# What a row gives depends on the largest of its batch.
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
graph (float[BATCH,2] x) => (float[BATCH,2] logits, float[BATCH,2] doubled)
{ top = ReduceMax <keepdims = 0> (x)  logits = Sub (x, top)  doubled = Add (x, x) }
"""


def saved(path, batch):
    onnx.save(onnx.parser.parse_model(GRAPH.replace("BATCH", batch)), path)
    return path


ROWS = {"x": np.array([[1, 0], [3, 2], [2, 5]], np.float32), "label": np.array([0, 0, 1])}


def test_a_graph_of_two_rows_is_asked_for_two_the_last_filled_up_with_its_own(tmp_path):
    outputs = run_onnx(saved(tmp_path / "m.onnx", "2"), ROWS)
    np.testing.assert_array_equal(outputs["logits"], [[-2, -3], [0, -1], [-3, 0]])
    np.testing.assert_array_equal(outputs["doubled"], 2 * ROWS["x"])


def test_an_open_graph_is_asked_for_as_many_as_are_wanted(tmp_path):
    path = saved(tmp_path / "m.onnx", "N")
    np.testing.assert_array_equal(run_onnx(path, ROWS)["logits"], [[0, -1], [0, -1], [-3, 0]])
    together = opened(path, batch=64)(ROWS)["logits"]
    np.testing.assert_array_equal(together, [[-4, -5], [-2, -3], [-3, 0]])


def test_a_file_that_is_refused_is_named_with_the_reason(tmp_path):
    path = saved(tmp_path / "m.onnx", "N")
    path.write_bytes(path.read_bytes().replace(b"ReduceMax", b"ReduceAny"))
    with pytest.raises(UsageError, match=r"ONNX Runtime refuses .*m\.onnx: .*ReduceAny"):
        run_onnx(path, ROWS)
