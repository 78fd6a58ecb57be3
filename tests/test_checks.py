"""Faults of value, type, rank and version: found, real where an engine can show it, and cured."""

import contextlib
import io
import warnings

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime import quantization
from onnxruntime.transformers.float16 import convert_float_to_float16

from bench.edge import micrograph
from bench.edge.artifact import read
from export import doctor, tensorrt_ops
from tests.conftest import DATA_ROOT

CASES = DATA_ROOT.parent / "cases" / "doctor"
HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
PAIR = """
    g (float[2, 3] x) => (float[2, 3] y) <float scale = {SCALE}, TYPE zero = {ZERO}> {
      q = QuantizeLinear (x, scale, zero)
      y = DequantizeLinear (q, scale, zero)
    }
"""
MASK = """
    g (float[2, 3] x, float[3] gone) => (float[2, 3] y) <float lowest = {LOWEST}> {
      away = Mul (gone, lowest)
      s = Add (x, away)
      y = Softmax <axis = -1> (s)
    }
"""
CHOICE = """
    g (float[2, 3] x, bool[3] keep) => (float[2, 3] y) {
      lowest = Constant <value_float = LOWEST> ()
      s = Where (keep, x, lowest)
      y = Softmax <axis = -1> (s)
    }
"""
FILL = """
    g (float[2, 3] x, bool[3] keep) => (float[2, 3] y)
    <int64[1] three = {3}, float[3] nothing = {0, 0, 0}> {
      lowest = ConstantOfShape <value = float[1] {LOWEST}> (three)
      m = Where (keep, nothing, lowest)
      s = Add (x, m)
      y = Softmax <axis = -1> (s)
    }
"""
PRODUCT = """
    g (float[1, 2] x) => (float[1, 2] y)
    <float[2, 2] w = {LARGE, 1, 1, LARGE}, float small = {0.0078125}, float back = {BACK}> {
      a = MatMul (x, w)
      d = Mul (a, small)
      y = Mul (d, back)
    }
"""
NORM = """
    g (float[n, 2] x) => (float[n, 2] y) <float[2] one = {1, 1}, float[2] zero = {0, 0}> {
      OUTPUTS = BatchNormalization <training_mode = MODE> (x, one, zero, zero, one)
    }
"""
CONV = """
    g (float[1, 1, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float[2, 1, 1, 1] w = {1, 2}, float[2] one = {1, 1}, float[2] zero = {0, 0}> { NODES }
"""
DROPOUT = """
    g (float[2, 3] x) => (float[2, 3] y) <float half = {0.5}, bool mode = {MODE}> {
      y = Dropout (x, half, mode)
    }
"""
BRANCHES = """
    g (float[1, 4] x, bool c) => (float[] y) <int64[1] first = {0}> {
      y = If (c) <then_branch = t () => (float[] a) { THEN },
                  else_branch = e () => (float[] b) { b = Identity (x) }>
    }
"""
QUANTISED, SCALED = "quantisation that is not symmetric", "scales of a quantisation"
MASKED, WEIGHED = "masks beyond what float16 holds", "weights beyond 65504"
TRAINED, BRANCHED = "layers in training mode", "If branches of different rank"


def words(text: str, **by: object) -> str:
    for word, value in by.items():
        text = text.replace(word, str(value))
    return text


SYMMETRIC = words(PAIR, SCALE=0.1, TYPE="int8", ZERO=0)
# name -> (what is found, the graph that has it, the graph after the remedy)
FAULTS = {
    "zero point": (QUANTISED, words(PAIR, SCALE=0.1, TYPE="int8", ZERO=-3), SYMMETRIC),
    "uint8": (QUANTISED, words(PAIR, SCALE=0.1, TYPE="uint8", ZERO=0), SYMMETRIC),
    "uint8 by default": (
        QUANTISED,
        words(PAIR, SCALE=0.1, TYPE="int8", ZERO=0).replace("scale, zero)", "scale)"),
        SYMMETRIC,
    ),
    "scale": (SCALED, words(PAIR, SCALE=0, TYPE="int8", ZERO=0), SYMMETRIC),
    "mask": (MASKED, words(MASK, LOWEST=-1e9), words(MASK, LOWEST=-3e4)),
    "mask of float32": (MASKED, words(MASK, LOWEST=-3.4e38), words(MASK, LOWEST=-3e4)),
    "mask of float16": (MASKED, words(MASK, LOWEST=-65504.0), words(MASK, LOWEST=-3e4)),
    "mask by choice": (MASKED, words(CHOICE, LOWEST=-1e9), words(CHOICE, LOWEST=-3e4)),
    "mask by a shape": (MASKED, words(FILL, LOWEST=-1e9), words(FILL, LOWEST=-3e4)),
    "weights": (
        WEIGHED,
        words(PRODUCT, LARGE=70000, BACK=1),
        words(PRODUCT, LARGE=70000 / 128, BACK=128),
    ),
    "training": (
        TRAINED,
        words(NORM, OUTPUTS="y, m, v", MODE=1),
        words(NORM, OUTPUTS="y", MODE=0),
    ),
    "training behind a convolution": (
        TRAINED,
        words(
            CONV,
            NODES="c = Conv (x, w)\n y, m, v = BatchNormalization <training_mode = 1> "
            "(c, one, zero, zero, one)",
        ),
        words(CONV, NODES="y = Conv (x, w, zero)"),
    ),
    "dropout": (TRAINED, words(DROPOUT, MODE=1), words(DROPOUT, MODE=0)),
    "branches": (
        BRANCHED,
        words(BRANCHES, THEN="a = Squeeze (x, first)"),
        words(BRANCHES, THEN="s = Squeeze (x, first)\n a = Unsqueeze (s, first)"),
    ),
}


def model_of(text: str, head: str = HEAD) -> onnx.ModelProto:
    return onnx.parser.parse_model(head + text)


def found_in(model: onnx.ModelProto) -> list[doctor.Finding]:
    return doctor.examine(ir.serde.deserialize_model(model))


def answer(model: onnx.ModelProto, **inputs) -> np.ndarray:
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers)
    kinds = {value.name: value.type for value in session.get_inputs()}
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(bool)": bool}
    return session.run(["y"], {n: np.asarray(x, types[kinds[n]]) for n, x in inputs.items()})[0]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_its_remedy_leads_to_no_other(name):
    what, sick, cured = FAULTS[name]
    (found,) = found_in(model_of(sick))
    assert found.what.startswith(what)
    assert found.where
    assert found.remedy
    assert found.fatal == (what not in (MASKED, WEIGHED))
    assert found_in(model_of(cured)) == []


# --- What an engine does with it ------------------------------------------------------------------


def in_float16(text: str) -> onnx.ModelProto:
    """Every number of a graph rounded to float16, as an engine of that precision has them."""
    model = model_of(text)
    half = onnx.TensorProto.FLOAT16
    with np.errstate(over="ignore"):
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
            value.type.tensor_type.elem_type = half
    return model


@pytest.mark.parametrize("name", ["mask", "mask of float32"])
def test_a_mask_beyond_float16_gives_nan_there_and_one_of_3e4_the_same_as_float32(name):
    given = {"x": [[1, -2, 3], [4, 5, -6]], "gone": [0, 0, 1]}
    _, sick, cured = FAULTS[name]
    wanted = answer(model_of(sick), **given)
    assert np.isnan(answer(in_float16(sick), **given)).all()
    np.testing.assert_allclose(answer(in_float16(cured), **given), wanted, atol=1e-3)
    np.testing.assert_array_equal(answer(model_of(cured), **given), wanted)


def test_an_infinite_mask_gives_nan_in_float32_too():
    model = model_of(words(MASK, LOWEST=-1))
    array = np.array(-np.inf, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "lowest"))
    (found,) = found_in(model)
    assert found.where == ("-inf in lowest, into y",)
    assert np.isnan(answer(model, x=np.ones((2, 3)), gone=[0, 0, 1])).all()


def test_onnxruntimes_converter_to_float16_leaves_a_mask_that_is_still_found():
    model = convert_float_to_float16(model_of(words(MASK, LOWEST=-1e9)))
    (found,) = found_in(model)
    assert found.where == ("-65504 in lowest, into y",)
    # A score below -16 is enough: float16 has nothing between this and infinity.
    with np.errstate(over="ignore"):
        assert np.isneginf(np.float16(-65504) + np.float16(-20))
        assert np.isfinite(np.float16(-3e4) + np.float16(-3e4) + np.float16(-20))
    cured = convert_float_to_float16(model_of(words(MASK, LOWEST=-3e4)))
    assert found_in(cured) == []
    given = {"x": np.full((2, 3), -100), "gone": [1, 1, 1]}
    np.testing.assert_allclose(answer(cured, **given), 1 / 3, atol=1e-3)


def test_weights_beyond_float16_give_infinity_there_and_divided_ones_what_float32_gives():
    _, sick, cured = FAULTS["weights"]
    wanted = answer(model_of(sick), x=[[0.5, 0.25]])
    assert not np.isfinite(answer(in_float16(sick), x=[[0.5, 0.25]])).any()
    np.testing.assert_allclose(answer(in_float16(cured), x=[[0.5, 0.25]]), wanted, rtol=1e-2)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = Clip (x, least, most)",
        "m = Max (x, least)\n y = Min (m, most)",
        "l = Less (x, most)\n y = Where (l, x, x)",
    ],
)
def test_bounds_may_be_infinite(nodes):
    text = "g (float[2] x) => (float[2] y) <float least = {-3e38}, float most = {3e38}> { NODES }"
    assert found_in(model_of(words(text, NODES=nodes))) == []
    np.testing.assert_array_equal(answer(in_float16(words(text, NODES=nodes)), x=[1, -2]), [1, -2])


def test_weights_that_are_no_numbers_are_named():
    model = model_of(words(PRODUCT, LARGE=1, BACK=1))
    array = np.array([[np.nan, 1], [1, 1]], np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    (found,) = found_in(model)
    assert found.what.startswith("weights that are not numbers")
    assert found.where == ("w",)
    assert np.isnan(answer(model, x=[[1, 1]])).any()


def test_layers_in_training_mode_answer_by_what_else_is_in_the_batch():
    alone, with_others = [[1, 2], [3, 5]], [[1, 2], [3, 5], [90, -90]]
    _, sick, cured = FAULTS["training"]
    found = [answer(model_of(sick), x=rows)[0] for rows in (alone, with_others)]
    assert not np.allclose(*found)
    found = [answer(model_of(cured), x=rows)[0] for rows in (alone, with_others)]
    np.testing.assert_array_equal(*found)


def test_before_opset_14_a_normalisation_of_several_outputs_trains():
    node = "OUTPUTS = BatchNormalization (x, one, zero, zero, one)"
    head = HEAD.replace("20", "13")
    graph = NORM[: NORM.index("OUTPUTS")] + node + "}"
    (found,) = found_in(model_of(words(graph, OUTPUTS="y, m, v, a, b"), head))
    assert found.what.startswith(TRAINED)
    assert found_in(model_of(words(graph, OUTPUTS="y"), head)) == []


def test_branches_of_different_rank_give_answers_of_different_rank():
    _, sick, cured = FAULTS["branches"]
    ranks = [answer(model_of(sick), x=[[1, 2, 3, 4]], c=c).ndim for c in (True, False)]
    assert ranks == [1, 2]
    ranks = [answer(model_of(cured), x=[[1, 2, 3, 4]], c=c).ndim for c in (True, False)]
    assert ranks == [2, 2]


def test_branches_of_a_constant_condition_may_differ():
    text = words(FAULTS["branches"][1], **{", bool c": "", "{0}>": "{0}, bool c = {1}>"})
    assert found_in(model_of(text)) == []
    # The graph that was looked at is left as it was.
    model = ir.serde.deserialize_model(model_of(FAULTS["branches"][1]))
    before = ir.to_proto(model).SerializeToString()
    doctor.examine(model)
    assert ir.to_proto(model).SerializeToString() == before


# --- Versions -------------------------------------------------------------------------------------


def test_an_ir_version_beyond_what_an_engine_knows_is_refused_and_that_of_the_remedy_is_not():
    model = model_of(words(NORM, OUTPUTS="y", MODE=0))
    model.ir_version = 11
    (found,) = found_in(model)
    assert found.where == ("IR version 11",)
    assert not found.fatal
    model.ir_version = 10
    assert found_in(model) == []
    assert answer(model, x=[[1, 2]]).shape == (1, 2)
    model.ir_version = 99
    with pytest.raises(Exception, match="Unsupported model IR version: 99"):
        answer(model, x=[[1, 2]])


# The latest IR version and opset of the oldest ONNX Runtime that a JetPack has a wheel of, by what
# these releases say of a model of IR version 99 and of one of opset 99.
JETSON = {
    # elinux.org/Jetson_Zoo#ONNX_Runtime: onnxruntime_gpu-1.18.0-cp310-cp310-linux_aarch64.whl
    "JetPack 6, ONNX Runtime 1.18": (10, 21),
    # github.com/Shattered217/Jetson-Orin-Wheels/releases/tag/7.2.0: 1.28, built for Orins
    "JetPack 7.2, ONNX Runtime 1.28": (13, 26),
}


def test_every_file_of_an_export_fits_the_onnx_runtimes_of_both_jetpacks(tiny_artifact):
    files = sorted(tiny_artifact.glob("*.onnx"))
    assert len(files) == 4
    probe = onnx.load_from_string(micrograph.products(8, 1))
    for model in [probe, *map(onnx.load, files)]:
        opset = {x.domain: x.version for x in model.opset_import}[""]
        for latest_ir, latest_opset in JETSON.values():
            assert model.ir_version <= latest_ir
            assert opset <= latest_opset
        # TensorRT 10.3 of JetPack 6, by its table; 11 takes 9 to 25 (docs.nvidia.com/deeplearning/
        # tensorrt/latest/reference/onnx-opset-guide.html).
        assert opset in tensorrt_ops.OPSETS


def test_the_domain_of_the_standard_operators_has_two_names():
    graph = words(NORM, OUTPUTS="y", MODE=0)
    assert found_in(model_of(graph, HEAD.replace('""', '"ai.onnx"'))) == []
    (found,) = found_in(model_of(graph, HEAD.replace('"" : 20', '"ai.onnx" : 22')))
    assert found.where == ("opset 22",)


# --- Quantised by ONNX Runtime --------------------------------------------------------------------

FLOATS = """
    g (float[1, 1, 4, 4] x) => (float[1, 2] y)
    <float[2, 1, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 1, 1, 2, 2, 2, 3, 3, 3},
     float[2] b = {1, -1}, float[8, 2] m = {1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1, 1, 2, 2, 2, 2}> {
      c = Conv (x, w, b)
      r = Relu (c)
      f = Flatten (r)
      y = Gemm (f, m, b)
    }
"""


class Rows(quantization.CalibrationDataReader):
    def __init__(self):
        rows = np.random.default_rng(0).normal(size=(4, 1, 1, 4, 4)).astype(np.float32)
        self._left = iter(rows)

    def get_next(self):
        row = next(self._left, None)
        return None if row is None else {"x": row}


def quantised(folder, kind=quantization.QuantType.QInt8, **options) -> onnx.ModelProto:
    onnx.save(model_of(FLOATS), folder / "float.onnx")
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static(
            folder / "float.onnx",
            folder / "int8.onnx",
            Rows(),
            activation_type=kind,
            weight_type=quantization.QuantType.QInt8,
            extra_options=options,
        )
    return onnx.load(folder / "int8.onnx")


def test_the_remedy_for_a_quantisation_is_the_one_that_tensorrt_takes(tmp_path):
    biases = "DequantizeLinear of int32"
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    found = found_in(quantised(tmp_path, quantization.QuantType.QUInt8))
    assert [f.what[: len(biases)] for f in found] == [QUANTISED[: len(biases)], biases]
    assert all(setting in f.remedy for f in found for setting in (*symmetric, "QuantizeBias=False"))
    # Half of it leads from one finding to another.
    (found,) = found_in(quantised(tmp_path, QuantizeBias=False))
    assert "zero point" in found.where[0]
    (found,) = found_in(quantised(tmp_path, **symmetric))
    assert found.what.startswith(biases)
    assert found_in(quantised(tmp_path, **symmetric, QuantizeBias=False)) == []


# --- Whole files ----------------------------------------------------------------------------------


def test_what_is_exported_has_none_of_these_faults(tiny_artifact):
    for model in read(tiny_artifact)["models"].values():
        found = doctor.examine(doctor.load(tiny_artifact / model["file"]))
        assert not [f for f in found if f.fatal], model["file"]
        assert not [f for f in found if f.what.startswith((MASKED, WEIGHED))], model["file"]


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no small inputs at {CASES}")
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("bn_train", TRAINED),
        ("ifshape", BRANCHED),
        ("ir12", "an IR version"),
        ("mask_m1e9", MASKED),
        ("mask_minf", MASKED),
        ("mask_mmax", MASKED),
        ("qdq_asym", QUANTISED),
        ("qdq_u8", QUANTISED),
    ],
)
def test_each_of_the_sick_cases_has_the_fault_of_its_name(name, what):
    (found,) = doctor.examine(doctor.load(CASES / "bad" / f"{name}.onnx"))
    assert found.what.startswith(what)


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no small inputs at {CASES}")
def test_the_sound_cases_have_none():
    paths = sorted((CASES / "good").glob("*.onnx"))
    assert paths
    assert [path.name for path in paths if doctor.examine(doctor.load(path))] == []
