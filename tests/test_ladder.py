"""The parity ladder: what counts as equal, and what is said when it is not."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from bench.edge import proof
from export import judging, ladder
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


@pytest.mark.parametrize(("error", "holds"), [(3.9e-3, True), (4.1e-3, False)])
def test_float32_of_random_weights_may_round_ten_times_as_much(error, holds):
    rung = ladder.compare("fp32", LOGITS + np.array([error, 0]), "jax", LOGITS, "draft")
    assert rung.holds is holds


def test_small_logits_are_measured_against_one():
    rung = ladder.compare("onnx", 1e-3 * LOGITS + 5e-5, "jax", 1e-3 * LOGITS, "float32")
    assert rung.relative == pytest.approx(5e-5)


@pytest.mark.parametrize(("scale", "holds"), [(0.7, True), (0.6, False), (1.4, False)])
def test_a_wrong_scale_does_not_hold_though_no_class_changes(scale, holds):
    rung = ladder.compare("int8", scale * LOGITS, "fp32", LOGITS, "int8")
    assert rung.distance == pytest.approx(abs(scale - 1))
    assert rung.cosine == pytest.approx(1)
    assert rung.holds is holds
    # What all classes of a row share is no scale.
    assert ladder.compare("int8", LOGITS + 0.5, "fp32", LOGITS, "int8").distance < 1e-12


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
    with pytest.raises(
        UsageError, match=r"onnx is too far from jax.* the first diverging tap is text_4"
    ):
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
    evidence = judging.Evidence(tmp_path, tapped, inputs, reference, {})
    found = judging.first_parting("fp16", evidence)
    assert found[0] == "text_2", "float16 has no 90000"
    assert judging.first_parting("fp32", evidence) == ("text_1", 0.5)


def test_logits_that_turn_do_not_hold_whatever_their_size():
    turned = LOGITS[:, ::-1]
    rung = ladder.compare("int8", turned, "fp32", LOGITS, "int8")
    assert not rung.holds
    assert rung.cosine < 0.95


def few_rows(*leads, changes):
    """Logits of two classes: by how much the first leads; and how much that changes."""
    expected = np.array([[lead, 0.0] for lead in leads])
    return expected + np.array([[change, 0.0] for change in changes]), expected


def test_a_flip_of_a_near_tie_is_told_from_one_that_was_decided():
    found, expected = few_rows(4, -4, 0.1, 1, changes=(0.2, 0.2, -0.2, -1.4))
    rung = ladder.compare("int8", found, "fp32", expected, "int8")
    assert rung.typical == pytest.approx(np.sqrt((3 * 0.04 + 1.96) / 4))
    # Without what the classes of a row share, leads and changes are halves.
    assert rung.noise == pytest.approx(rung.typical / np.std([4, -4, 0.1, 1]))
    assert (rung.flips, rung.decided) == (2, 1)


def test_few_rows_hold_where_what_changed_were_near_ties():
    changes = [0.1, -0.1] * 10
    found, expected = few_rows(*[0.05, -0.05] * 2, *[3, -3] * 8, changes=[-c for c in changes])
    rung = ladder.compare("int8", found, "fp32", expected, "int8")
    assert (rung.flips, rung.may_flip, rung.decided, rung.excused) == (4, 1, 0, True)
    assert rung.holds
    (note,) = ladder.notes(rung)
    assert note == (
        "int8: 4 of 20 predictions change where 1 may. So few rows are no proof: 0 of these were "
        "decided by more than the typical difference, 0.1, and the logits differ by 3.7 % of what "
        "tells the rows apart (16 % is allowed of few rows)."
    )
    # Of a hundred rows and more each change counts, as it always did.
    many = ladder.compare("int8", np.tile(found, (5, 1)), "fp32", np.tile(expected, (5, 1)), "int8")
    assert (many.flips, many.may_flip, many.holds) == (20, 5, False)


def test_few_rows_do_not_excuse_large_differences():
    found, expected = few_rows(*[0.05, -0.05] * 2, *[3, -3] * 8, changes=[-0.6, 0.6] * 10)
    rung = ladder.compare("int8", found, "fp32", expected, "int8")
    assert rung.alike
    assert (rung.flips, rung.decided) == (4, 0)
    with pytest.raises(UsageError, match=r"differ by 22 % .*\(16 % is.*--allow_loss=20\.$"):
        ladder.check(rung)
    # A twentieth of the rows may change; that so few of them do not is no proof either.
    ladder_notes = ladder.notes(ladder.compare("int8", found[4:], "fp32", expected[4:], "int8"))
    assert "0 of 16 predictions change, which is no proof of so few rows" in ladder_notes[0]


def test_few_rows_do_not_excuse_a_decided_row():
    changes = [0.1] * 18 + [-2.0, 2.0]
    found, expected = few_rows(*[10, -10] * 9, 1.5, -1.5, changes=changes)
    rung = ladder.compare("int8", found, "fp32", expected, "int8")
    assert rung.noise < rung.tolerance.noise
    assert (rung.flips, rung.may_flip, rung.decided, rung.holds) == (2, 1, 2, False)


def test_few_rows_do_not_excuse_a_graph_that_answers_all_alike():
    expected = np.array([[3.0 + i / 200, 3.1 - i / 200] for i in range(20)])
    rung = ladder.compare("fp16", np.tile([[3.053, 3.052]], (20, 1)), "fp32", expected, "fp16")
    assert rung.alike, "the logits as one vector say nothing here"
    assert rung.noise > 1
    assert not rung.holds


def few_labels(changes):
    """Logits of twelve rows of two labels, the second rare, and how much those of each change."""
    expected = np.array([[0.05, -6.0], [-0.05, -5.0], [2.0, -4.0], [-2.0, 3.0]] * 3)
    return expected + np.resize(np.array(changes), expected.shape), expected


def test_each_of_several_labels_is_a_decision_of_its_own():
    found, expected = few_labels([[-0.1, 0.1], [0.1, 0.1]])
    rung = ladder.compare("int8", found, "fp32", expected, "int8", label_kind="multi")
    assert rung.typical == pytest.approx(0.1)
    assert (rung.decisions, rung.flips, rung.may_flip, rung.decided) == (24, 6, 2, 0)
    assert rung.excused
    assert ladder.notes(rung)[0].startswith("int8: 6 of 24 predictions change where 2 may.")
    # One that never gives the rare label flips few decisions, and tells nothing apart.
    never = np.tile(expected.mean(0), (12, 1)) - [0, 3]
    rung = ladder.compare("int8", never, "fp32", expected, "int8", label_kind="multi")
    assert rung.distance > rung.tolerance.distance
    with pytest.raises(UsageError, match="too far from fp32"):
        ladder.check(rung)


def test_a_loss_that_the_user_allows_lets_as_many_rows_change():
    found, expected = few_rows(*[0.05, -0.05] * 2, *[3, -3] * 8, changes=[-0.6, 0.6] * 10)
    rung = ladder.compare("int8", found, "fp32", expected, "int8", 20)
    assert (rung.flips, rung.may_flip, rung.holds, rung.excused) == (4, 4, True, False)
    assert "which --allow_loss allows (1 would be)" in ladder.notes(rung)[0]
    assert not ladder.compare("int8", found, "fp32", expected, "int8", 14).holds
    # It does not make unlike logits alike.
    assert not ladder.compare("int8", -expected, "fp32", expected, "int8", 100).holds


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
    rungs = judging.bucket_rungs(path, logits, (2, 3, 5), inputs, 0)
    assert [(rung.name, rung.rows) for rung in rungs] == [("2 tokens", 2), ("3 tokens", 2)]
    # A graph that minds the padding is refused.
    onnx.save(onnx.parser.parse_model(graph.replace("REDUCE", "ReduceMean")), path)
    with pytest.raises(UsageError, match="2 tokens is too far from fp32"):
        judging.bucket_rungs(path, logits / 5, (2, 3, 5), inputs, 0)


def test_int8_that_random_weights_take_far_away_may_be_timed_where_it_answers_alike(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"x": rng.normal(size=(64, 2)).astype(np.float32)}
    expected, here = rows["x"], rows["x"] + rng.normal(0, 0.6, (64, 2))
    usual = ladder.compare("int8", here, "jax", expected, "int8")
    wide = ladder.widened(usual, ladder.compare("int8", here[:8], "jax", expected[:8], "int8"))
    golden = {"input_x": rows["x"][:8], "output_logits": expected[:8]}
    np.savez(tmp_path / "golden.npz", **golden)

    def compared(rung, off):
        answers = iter(here + off)

        def infer(feed):
            return {"logits": next(answers)[None]}

        return proof.compare(infer, tmp_path, {"ladder": [rung.described()]}, "int8", 1)

    with pytest.raises(proof.WrongOutputs, match="their cosine is"):
        compared(usual, 0.0)
    assert compared(wide, 0.0)[0]["cosine"] < 0.95
    with pytest.raises(proof.WrongOutputs):
        compared(wide, 9.0)


def test_scores_are_held_against_the_reference_too():
    scores = np.random.default_rng(0).normal(size=(20, 1))
    assert ladder.compare_scores("fp32", scores, "jax", scores + 1e-6, "float32").holds
    wrong = ladder.compare_scores("fp32", -3 * scores, "jax", scores, "float32")
    assert (wrong.name, wrong.holds) == ("fp32 score", False)
