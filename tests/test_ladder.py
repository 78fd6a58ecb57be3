"""The parity ladder: what counts as equal, and what is said when it is not."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from export import ladder, pipeline
from fusion_keras.errors import UsageError

LOGITS = np.array([[2.0, -1.0], [0.5, 1.5], [-3.0, 4.0]])


def test_a_rung_measures_the_worst_row():
    found = LOGITS + np.array([[0, 0], [1.5, 0], [0, 0.2]])
    rung = ladder.compare("int8", found, "fp32", LOGITS, "int8")
    assert rung.max_abs == 1.5
    assert rung.relative == 1.5 / 4
    assert rung.flips == 1
    wanted = (4 + 1 + 2 * 0.5 + 1.5 * 1.5 + 9 + 4 * 4.2) / np.sqrt(32.5 * (5 + 6.25 + 26.64))
    assert rung.cosine == pytest.approx(wanted)


@pytest.mark.parametrize(("error", "holds"), [(3.9e-4, True), (4.1e-4, False), (np.nan, False)])
def test_float32_holds_to_a_ten_thousandth_of_the_largest_logit(error, holds):
    rung = ladder.compare("onnx", LOGITS + error, "jax", LOGITS, "float32")
    assert rung.holds is holds


def test_small_logits_are_measured_against_one():
    rung = ladder.compare("onnx", 1e-3 * LOGITS + 5e-5, "jax", 1e-3 * LOGITS, "float32")
    assert rung.relative == pytest.approx(5e-5)


def test_a_tie_is_no_flip():
    wanted = np.array([[1.0, 1.0 + 1e-6]])
    assert ladder.compare("onnx", wanted[:, ::-1], "jax", wanted, "float32").flips == 0


@pytest.mark.parametrize(
    ("rows", "flips", "holds"), [(10, 1, True), (10, 2, False), (300, 4, False)]
)
def test_fp16_may_flip_one_row_in_a_hundred(rows, flips, holds):
    wanted = np.tile([[3.01, 3.0]], (rows, 1))
    found = wanted.copy()
    found[:flips] = found[:flips, ::-1]
    assert ladder.compare("fp16", found, "fp32", wanted, "fp16").holds is holds


def test_a_failed_rung_names_the_first_tap_that_parts():
    wanted = {"text_2": np.ones((2, 3)), "text_4": np.ones((2, 3)), "image_8": np.ones((2, 3))}
    found = {n: x + (n != "text_2") for n, x in wanted.items()}
    parting = ladder.first_parting(found, wanted)
    assert parting == ("text_4", 1.0)
    rung = ladder.compare("onnx", LOGITS + 1, "jax", LOGITS, "float32")
    with pytest.raises(UsageError, match=r"onnx is too far from jax.* first at the tap text_4"):
        ladder.check(rung, parting)


def test_taps_of_a_lower_precision_part_later():
    wanted = {"text_2": np.ones(3), "text_4": 10 * np.ones(3), "mask": np.ones(3)}
    found = {"text_2": wanted["text_2"] + 0.1, "text_4": wanted["text_4"] + 3}
    assert ladder.first_parting(found, wanted)[0] == "text_2"
    assert ladder.first_parting(found, wanted, "int8") == ("text_4", 0.3)
    assert ladder.first_parting(wanted, wanted, "fp16") is None


def test_a_precision_that_fails_is_traced_to_its_tap(tmp_path):
    graph = """
    <ir_version: 10, opset_import: ["" : 20]>
    graph (float[1,3] x) => (float[1,3] logits, float[1,3] text_1, float[1,3] text_2)
    <float large = {90000.0}, float small = {0.001}>
    {
      text_1 = Abs (x)
      text_2 = Mul (text_1, large)
      logits = Mul (text_2, small)
    }
    """
    tapped = ir.serde.deserialize_model(onnx.parser.parse_model(graph))
    inputs = {"x": np.array([[1.0, 2.0, 3.0]], np.float32)}
    reference = {"jax/logits": np.zeros((1, 3)), "jax/text_1": 2 * inputs["x"]}
    evidence = pipeline._Evidence(tmp_path, tapped, inputs, reference, {})
    found = pipeline._first_parting("fp16", evidence)
    assert found[0] == "text_2", "float16 has no 90000"
    assert pipeline._first_parting("fp32", evidence) == ("text_1", 0.5)


def test_logits_that_turn_do_not_hold_whatever_their_size():
    turned = LOGITS[:, ::-1]
    rung = ladder.compare("int8", turned, "fp32", LOGITS, "int8")
    assert not rung.holds
    assert rung.cosine < 0.95


@pytest.mark.parametrize(
    ("found", "rows", "holds"),
    [(0.80, 1000, True), (0.79, 1000, True), (0.789, 1000, False), (0.75, 20, True)],
)
def test_a_lower_precision_may_lose_a_point_of_accuracy_or_one_row(found, rows, holds):
    if holds:
        return ladder.check_accuracy("int8", found, 0.80, "int8", rows)
    with pytest.raises(UsageError, match=r"int8 loses too much: test accuracy 78.9 % where 80.0"):
        ladder.check_accuracy("int8", found, 0.80, "int8", rows)


def test_short_sentences_are_compared_at_their_own_length(tmp_path):
    graph = """
    <ir_version: 10, opset_import: ["" : 20]>
    graph (int32[1,T] token_ids) => (float[1,2] logits)
    <int64[1] last = {-1}, float[2] signs = {1.0, -1.0}>
    {
      x = Cast <to = 1> (token_ids)
      s = REDUCE (x, last)
      logits = Mul (s, signs)
    }
    """
    ids = np.array([[5, 6, 0, 0, 0], [5, 6, 7, 8, 0], [3, 0, 0, 0, 0]], np.int32)
    inputs = {"token_ids": ids}
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(graph.replace("REDUCE", "ReduceSum")), path)
    logits = ids.sum(axis=1, keepdims=True) * np.array([1.0, -1.0])
    rungs = pipeline._bucket_rungs(path, logits, (2, 3, 5), inputs)
    assert [(rung.name, rung.rows) for rung in rungs] == [("2 tokens", 2), ("3 tokens", 2)]
    # A graph that minds the padding is refused.
    onnx.save(onnx.parser.parse_model(graph.replace("REDUCE", "ReduceMean")), path)
    with pytest.raises(UsageError, match="2 tokens is too far from fp32"):
        pipeline._bucket_rungs(path, logits / 5, (2, 3, 5), inputs)
