"""The micro-models are valid ONNX and compute what they say; a device is measured with them."""

import json

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pytest

from bench.device import main as device_main
from bench.edge import device, micrograph
from bench.edge.artifact import ArtifactError

SMALL = {
    "products": lambda: micrograph.products(2, 2),
    "products_int8": lambda: micrograph.products_int8(2, 2),
    "pointwise": lambda: micrograph.pointwise(4, 8, 3, 2),
    "depthwise": lambda: micrograph.depthwise(4, 5, 2),
    "elements": lambda: micrograph.elements(1 << 10, 4),
    "launches": micrograph.launches,
}


def answered(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("name", SMALL)
def test_every_graph_is_what_onnx_itself_calls_valid(name):
    model = onnx.load_from_string(SMALL[name]())
    onnx.checker.check_model(model, full_check=True)


def test_numbers_of_all_sizes_survive_the_encoder():
    # 300 takes two bytes of varint, -1 ten.
    content = micrograph.model(
        [micrograph.node("Softmax", ["x"], ["y"], axis=-1, big=300, some=[1, 70000], f=0.25)],
        {"w": np.array([[1.5, -2], [0, 3]], np.float32), "n": np.array(-7, np.int64)},
        {"x": ("float32", (1, 300))},
        {"y": ("float32", (1, 300))},
    )
    graph = onnx.load_from_string(content).graph
    found = {a.name: onnx.helper.get_attribute_value(a) for a in graph.node[0].attribute}
    assert found == {"axis": -1, "big": 300, "some": [1, 70000], "f": 0.25}
    w, n = (onnx.numpy_helper.to_array(t) for t in graph.initializer)
    np.testing.assert_array_equal(w, [[1.5, -2], [0, 3]])
    assert n == -7
    shape = graph.input[0].type.tensor_type.shape
    assert [d.dim_value for d in shape.dim] == [1, 300]


def test_a_chain_computes_each_of_its_nodes():
    # Spread over the array, then + 1/2, x 1/2, twice: (((3 + 1/2) / 2) + 1/2) / 2
    assert answered(SMALL["elements"](), np.array([3.0], np.float32)) == [1.125]


def test_what_passes_through_a_chain_stays_near_one():
    y = answered(micrograph.products(4, 8), np.ones((4, 768), np.float32))
    assert 0.5 < y.min() <= y.max() < 2
    y = answered(micrograph.products_int8(4, 8), np.ones((4, 768), np.float32))
    assert 1e-3 < y.min() <= y.max() < 1e3


def test_no_two_weights_are_equal_or_the_engine_would_stream_one():
    graph = onnx.load_from_string(micrograph.products(1, 4)).graph
    assert len({t.raw_data for t in graph.initializer}) == 4


def test_no_node_of_the_launches_is_folded(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(micrograph.launches(), options, providers=["CPUExecutionProvider"])
    left = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert len(left) == micrograph.LAUNCHES


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    found = device.measure("ort", "a test", rounds=1, seconds=0.01)
    path = tmp_path_factory.mktemp("device") / "device.json"
    device.write(path, found)
    return device.read(path)


def test_a_profile_holds_rates_that_follow_from_its_samples(profile):
    assert (profile["device"], profile["engine"], profile["kind"]) == ("a test", "ort", "measured")
    launch = np.median(sorted(profile["samples"]["launch"])[:5])  # ms of 300 nodes
    assert profile["launch_us"] == pytest.approx(1000 * launch / 300)
    ms = np.median(sorted(profile["samples"]["int8 64"])[:5])
    gflop = 8 * 2 * 64 * 768 * 3072 / 1e9
    assert profile["matrix_gflops"]["int8"] == pytest.approx(gflop / ms * 1000)
    assert profile["cache_gbs"] >= profile["bandwidth_gbs"] > 0
    assert profile["spread"] >= 0


def test_a_runner_that_is_not_there_is_refused_in_a_sentence(capsys, tmp_path):
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("TensorRT is here")
    out = tmp_path / "device.json"
    assert device_main(["--runner=ort-tensorrt", "--name=x", f"--out={out}"]) == 2
    assert "TensorrtExecutionProvider" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("content", ["", "[]", json.dumps({"format": "fusion_keras device 0"})])
def test_another_file_is_no_profile(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"other\.json"):
        device.read(path)
