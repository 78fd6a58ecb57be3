"""What an export may lose of test accuracy, what few rows can show, and that broken graphs fall."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from export import accuracy, judging, ladder, precisions
from export.accuracy import change_of, paired_interval
from fusion_keras.errors import UsageError
from fusion_keras.exported import run_onnx


def rights(both, lost, gained, neither):
    """Whether each row is right after and before, from the counts of a paired table."""
    counts = ((True, True), both), ((False, True), lost), ((True, False), gained)
    pairs = [pair for pair, n in (*counts, ((False, False), neither)) for _ in range(n)]
    after, before = np.array(pairs).T
    return after, before


def test_the_interval_is_newcombes():
    # Newcombe 1998, the second table: 36, 12, 2, 0 by method 10.
    low, high = paired_interval(*rights(36, 12, 2, 0))
    assert (-high, -low) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    # Nothing changed in twenty rows, all right: Wilson's interval of 20 of 20 is [0.8389, 1].
    assert paired_interval(*rights(20, 0, 0, 0)) == pytest.approx((-0.1611, 0.1611), abs=5e-5)
    low, high = paired_interval(*rights(3, 2, 5, 7))
    assert paired_interval(*rights(3, 5, 2, 7)) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("lost", "rows", "holds"), [(0, 1000, True), (10, 1000, True), (11, 1000, False), (1, 20, True)]
)
def test_a_lower_precision_may_lose_a_point_of_accuracy_or_one_row(lost, rows, holds):
    right, before = rights(rows - 200 * rows // 1000 - lost, lost, 0, 200 * rows // 1000)
    change = change_of("int8", "int8", 0.8, right, before)
    if holds:
        return accuracy.check(change)
    with pytest.raises(UsageError, match=r"int8 loses too much: test accuracy 78.9 % where 80.0"):
        accuracy.check(change)


def logits(leads, changes):
    """A rung of rows whose first class leads by so much, and by how much that changes."""
    leads, changes = np.array(leads, float), np.array(changes, float)
    zeros = np.zeros(len(leads))
    return np.stack([leads + changes, zeros], 1), np.stack([leads, zeros], 1)


def test_two_rows_of_120_are_luck_where_the_differences_are_small():
    """1.7 points: a near tie each, in logits that int8 moves by 5 % of their spread."""
    leads = [0.05, 0.05] + [3.0, -3.0] * 59
    after, before = logits(leads, [-0.15, 0.15] * 60)
    after[1] = [-0.1, 0]
    rung = ladder.compare("int8", after, "fp32", before, "int8")
    change = change_of("int8", "int8", 0.9, *rights(106, 2, 0, 12), rung)
    assert not change.within
    assert change.excused
    accuracy.check(change)
    (note,) = accuracy.notes(change)
    assert note.startswith("int8: test accuracy changes by -1.7 [-5.6, +1.8] points over 120 rows")
    # The same from logits that moved by a quarter of their spread: small or not, they decide.
    loud = ladder.compare("int8", logits(leads, [-0.8, 0.8] * 60)[0], "fp32", before, "int8")
    change = change_of("int8", "int8", 0.9, *rights(106, 2, 0, 12), loud)
    with pytest.raises(UsageError, match=r"too few to show that, but its logits differ by 27 %"):
        accuracy.check(change)
    # Ten of ten that are lost are no luck, however small the differences.
    change = change_of("int8", "int8", 0.9, *rights(98, 10, 0, 12), rung)
    with pytest.raises(UsageError, match=r"show a loss all the same.*--allow_loss=8\.4\.$"):
        accuracy.check(change)


def test_where_nothing_was_right_nothing_can_be_lost():
    change = change_of("int8", "int8", 0.0, *rights(0, 0, 0, 9))
    accuracy.check(change)
    assert "no test row was answered rightly before" in accuracy.notes(change)[0]
    assert accuracy.notes(change_of("int8", "int8", 0.5, *rights(5, 0, 0, 5))) == []


def test_many_rows_are_held_to_the_point():
    after, expected = logits([3, -3] * 250, [0.01] * 500)
    rung = ladder.compare("int8", after, "fp32", expected, "int8")
    assert rung.near_ties
    right, before = rights(400, 21, 10, 569)
    change = change_of("int8", "int8", 0.421, right, before, rung)
    assert change.interval[1] > 0, "no loss is shown"
    with pytest.raises(UsageError, match=r"1\.0 points are allowed\. Nothing"):
        accuracy.check(change)


def test_a_loss_that_the_user_allows_is_the_bar():
    right, before = rights(90, 6, 0, 4)
    allowed = change_of("fp16", "fp16", 0.96, right, before, allow_loss=6.0)
    accuracy.check(allowed)
    assert accuracy.notes(allowed) == [
        "fp16: test accuracy changes by -6.0 [-12.5, -0.8] points; by --allow_loss 6.0 may be "
        "lost, 1.0 would be the bar."
    ]
    assert allowed.described()["allowed_loss"] == 0.06
    with pytest.raises(UsageError, match=r"5\.0 points are allowed by --allow_loss"):
        accuracy.check(change_of("fp16", "fp16", 0.96, right, before, allow_loss=5.0))
    assert not accuracy.notes(change_of("fp16", "fp16", 0.96, before, before, allow_loss=6.0))


def test_fp32_is_held_to_what_training_measured():
    right = np.array([True] * 18 + [False] * 2)
    accuracy.check(change_of("fp32", "float32", 0.95, right))
    with pytest.raises(UsageError, match=r"Allow that: --allow_loss=10\.$"):
        accuracy.check(change_of("fp32", "float32", 1.0, right))


# --- Whole precisions of a real graph, judged by twenty rows -----------------------------------

WIDE = 32


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A fitted classifier as fp32, and what draws rows for it: its folder, inputs and labels."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("classifier")
    hidden = rng.normal(size=(16, WIDE)).astype(np.float32) / 4
    truth = rng.normal(size=(16, 2))

    def draw(count):
        x = rng.normal(size=(count, 16)).astype(np.float32)
        return x, (x @ truth + rng.normal(size=(count, 2))).argmax(axis=1)

    x, label = draw(2000)
    features = np.maximum(x @ hidden, 0)
    wanted = np.where(np.arange(2) == label[:, None], 1.5, -1.5)
    top = np.linalg.lstsq(features, wanted, rcond=None)[0].astype(np.float32)
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        graph (float[1,16] x) => (float[1,2] logits)
        { h = MatMul (x, hidden)  r = Relu (h)  logits = MatMul (r, top) }"""
    )
    arrays = {"hidden": hidden, "top": top}
    graph.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    onnx.save(graph, folder / judging.FILES["fp32"])
    return folder, draw


def judged(folder, name, valid, test, labels, break_=lambda tensors: None, allow_loss=None):
    """Make a precision, break it, and judge it as an export does; the notes, or UsageError."""
    path, inputs = folder / judging.FILES["fp32"], {"x": valid}
    target = folder / judging.FILES[name]
    precisions.lower(name, path, target, inputs)
    model = onnx.load(target)
    tensors = {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}
    break_(tensors)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(tensors[tensor.name], tensor.name))
    onnx.save(model, target)
    evidence = judging.Evidence(
        folder, ir.load(path), inputs, {}, {"x": test, "label": labels}, allow_loss
    )
    expected, on_test = (run_onnx(path, {"x": x})["logits"] for x in (valid, test))

    def clock(_, call, *arguments):
        return call(*arguments)

    (rung,), _ = judging.compared(name, folder, "fp32", {"logits": expected}, evidence, clock)
    model, _, change = judging.scored(name, folder, folder, on_test, evidence, clock)
    return [*ladder.notes(rung), *accuracy.notes(change)], model


def _scaled(factor):
    """All weights of fp16, all scales of int8, times a factor."""

    def change(tensors):
        for name, array in tensors.items():
            if "scale" in name or array.dtype == np.float16:
                array *= array.dtype.type(factor)

    return change


def _drawn(tensors):
    """Weights as a file of garbage holds them: of the right type and range."""
    rng = np.random.default_rng(1)
    for array in tensors.values():
        if array.dtype == np.float16:
            array[...] = rng.permutation(array.ravel()).reshape(array.shape)
        elif array.dtype in (np.int8, np.uint8) and array.size > 1:
            bounds = np.iinfo(array.dtype)
            array[...] = rng.integers(bounds.min, bounds.max, array.shape, endpoint=True)


def _negated(tensors):
    for array in tensors.values():
        if array.size == 16 * WIDE:
            array[...] = ~array if array.dtype.kind in "iu" else -array


@pytest.mark.parametrize("name", ["fp16", "int8", "int8_static"])
def test_twenty_rows_let_a_sound_precision_through_and_no_broken_one(classifier, name):
    folder, draw = classifier
    for _ in range(3):
        (valid, _), (test, labels) = draw(20), draw(20)
        judged(folder, name, valid, test, labels)
        for break_ in (_scaled(3), _scaled(0.3), _drawn, _negated):
            with pytest.raises(UsageError, match=r"too far from fp32|loses too much"):
                judged(folder, name, valid, test, labels, break_)


def test_near_ties_alone_do_not_end_an_export(classifier):
    """Rows picked so that int8 changes five of twenty: each of them was next to undecided."""
    folder, draw = classifier
    pool, labels = draw(3000)
    calibration = pool[:64]
    judged(folder, "int8", calibration, pool[:20], labels[:20])
    plain, low = (
        run_onnx(folder / judging.FILES[name], {"x": pool})["logits"].argmax(axis=1)
        for name in ("fp32", "int8")
    )
    changed, same = np.flatnonzero(plain != low)[:5], np.flatnonzero(plain == low)[:15]
    rows = np.r_[changed, same]
    # As if the float graph had been right about all of these: 25 points are lost, by luck.
    test, truth = pool[rows], plain[rows]
    notes, model = judged(folder, "int8", test, test[3:], truth[3:])
    assert "int8: 5 of 20 predictions change where 1 may" in notes[0]
    assert "int8: test accuracy changes by -11.8 [" in notes[1]
    assert model["excused"]
    assert model["test_rung"]["noise"] < 0.16
    # Five lost and none gained of twenty is a loss that even twenty rows show.
    with pytest.raises(UsageError, match=r"show a loss all the same.*--allow_loss=25\.$"):
        judged(folder, "int8", test, test, truth)
    notes, model = judged(folder, "int8", test, test, truth, allow_loss=25)
    assert "by --allow_loss 25.0 may be lost, 5.0 would be the bar" in notes[1]
    assert model["allowed_loss"] == 0.25


@pytest.mark.parametrize("name", ["int8", "int8_static"])
def test_a_product_with_a_matrix_for_each_head_stays_in_float(name, tmp_path):
    rng = np.random.default_rng(0)
    graph = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]>
        graph (float[1,2,4,8] x) => (float[1,2,4,6] logits)
        { h = MatMul (x, square)  logits = MatMul (h, heads) }"""
    )
    shapes = {"square": (8, 8), "heads": (1, 2, 8, 6)}
    arrays = {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
    graph.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    for node in graph.graph.node:
        node.name = f"product_with_{node.input[1]}"
    onnx.save(graph, tmp_path / "fp32.onnx")
    x = rng.normal(size=(20, 2, 4, 8)).astype(np.float32)
    precisions.lower(name, tmp_path / "fp32.onnx", tmp_path / "lower.onnx", {"x": x})
    kept = {t.name: t for t in onnx.load(tmp_path / "lower.onnx").graph.initializer}
    assert "square" not in kept
    np.testing.assert_array_equal(numpy_helper.to_array(kept["heads"]), arrays["heads"])
    wanted = x @ arrays["square"] @ arrays["heads"]
    logits = run_onnx(tmp_path / "lower.onnx", {"x": x})["logits"]
    np.testing.assert_allclose(logits, wanted, atol=0.05 * np.abs(wanted).max())
