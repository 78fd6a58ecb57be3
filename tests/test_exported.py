"""What an ONNX file answers: in batches of its size, from the inputs that it takes."""

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

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


PRODUCTS = """
<ir_version: 10, opset_import: ["" : 20]>
graph (uint8[1,64] x) => (int32[1,16] first, int32[1,16] second)
{ first = MatMulInteger (x, w)  second = MatMulInteger (x, OTHER) }
"""


def products(path, other):
    """Sums of 64 products of 255 and 127, twice, with one weight or with two."""
    graph = onnx.parser.parse_model(PRODUCTS.replace("OTHER", other))
    most = np.full((64, 16), 127, np.int8)
    graph.graph.initializer.extend(numpy_helper.from_array(most, n) for n in {"w", other})
    onnx.save(graph, path)
    return run_onnx(path, {"x": np.full((1, 64), 255, np.uint8)})


def test_products_of_int8_are_summed_exactly_on_any_cpu(tmp_path):
    # Else x86 without VNNI adds them in pairs of 16 bits, which end at 32767.
    for found in products(tmp_path / "m.onnx", other="v").values():
        np.testing.assert_array_equal(found, 64 * 255 * 127)


def test_a_graph_whose_layers_share_a_weight_is_opened_all_the_same(tmp_path):
    found = products(tmp_path / "m.onnx", other="w")
    np.testing.assert_array_equal(found["first"], found["second"])
