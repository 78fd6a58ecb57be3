"""The parity ladder: what counts as equal, and what is said when it is not."""

import numpy as np
import pytest

from export import ladder
from fusion_keras.errors import UsageError

LOGITS = np.array([[2.0, -1.0], [0.5, 1.5], [-3.0, 4.0]])


def test_a_rung_measures_the_worst_row():
    found = LOGITS + np.array([[0, 0], [1.5, 0], [0, 0.2]])
    rung = ladder.compare("int8", found, "fp32", LOGITS, "int8")
    assert rung.max_abs == 1.5
    assert rung.relative == 1.5 / 4
    assert rung.flips == 1
    wanted = (2 * 0.5 + 1.5 * 1.5) / (np.hypot(2, 1.5) * np.hypot(0.5, 1.5))
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
    wanted = np.tile([[0.01, 0.0]], (rows, 1))
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
