"""Each rewrite fires on what tf2onnx writes, preserves its values, and leaves others alone."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from export import onnxruntime_rules, rewrites, rule_helpers
from tests.support.onnx_graphs import (
    ATTENTION,
    GRAPHS,
    INPUTS,
    LAYER_NORM,
    LENGTH,
    RNG,
    WEIGHTS,
    parse,
)

# Almost what a rule is for, but not equal to its replacement.
OTHERS = {
    "layer_norm": LAYER_NORM.replace("AXES", "second"),
    "layer_norm_of_pixels": GRAPHS["layer_norm_of_pixels"][0].replace("as_map", "turned_map"),
    "gelu": GRAPHS["gelu"][0].replace("root", "one"),
    "hard_sigmoid": GRAPHS["hard_sigmoid"][0].replace("sixth", "eighth"),
    "hard_swish": GRAPHS["hard_swish"][0].replace("0.16666667", "0.2"),
    "attention_mask": GRAPHS["attention_mask"][0].replace("(lowest", "(half"),
    "constant_attention_mask": GRAPHS["constant_attention_mask"][0].replace("unseen", "seen"),
    "token_index": GRAPHS["token_index"][0].replace("vocabulary", "three"),
    "not_zero": GRAPHS["not_zero"][0].replace("nothing", "three"),
    "pad_of_integers": GRAPHS["pad_of_integers"][0].replace("two_after", "all_around"),
    "transpose_there_and_back": GRAPHS["transpose_there_and_back"][0].replace(
        "[0, 3, 1, 2]", "[0, 2, 3, 1]"
    ),
    "transpose_before_mean": GRAPHS["transpose_before_mean"][0].replace("space", "edge"),
    "transpose_after_mean": GRAPHS["transpose_after_mean"][0].replace("space", "edge"),
    "transpose_after_gate": GRAPHS["transpose_after_gate"][0].replace("pixel_nhwc", "pixel_nchw"),
    "transpose_of_a_pixel": GRAPHS["transpose_of_a_pixel"][0]
    .replace("gate", "image")
    .replace("pixel_nchw", "all_of_it"),
    "transpose_after_sum_with_nhwc": GRAPHS["transpose_after_sum_with_nhwc"][0].replace(
        "u = Transpose <perm = [0, 3, 1, 2]>", "u = Abs"
    ),
    "times_one": GRAPHS["times_one"][0].replace("one", "half"),
    "padding_of_a_convolution": GRAPHS["padding_of_a_convolution"][0].replace(
        "= Pad", '= Pad <mode = "edge">'
    ),
    "padding_of_a_biased_convolution": GRAPHS["padding_of_a_biased_convolution"][0].replace(
        "VALID", "SAME_UPPER"
    ),
    "padding_of_a_pool": GRAPHS["padding_of_a_pool"][0].replace("less", "six"),
    "batch_norm_scale": GRAPHS["batch_norm_scale"][0].replace("per_channel", "row"),
    "layer_scale": GRAPHS["layer_scale"][0].replace("per_channel", "row"),
    "gemm": "m = MatMul (x, matrix)\n y = Add (m, bias)",
    "dense_of_tokens": GRAPHS["dense_of_tokens"][0].replace("whole", "halves"),
    "expanded_sum": "s = Shape (other)\n e = Expand (half, s)\n y = Add (x, e)",
    "one_segment": GRAPHS["one_segment"][0].replace("{0}", "{1}"),
    "slice_of_all": GRAPHS["slice_of_all"][0].replace("first", "second_row"),
    "masked_attention": ATTENTION.replace("SCORES", "p = Add (s, scores)"),
    "attention": ATTENTION.replace("SCORES", "")
    .replace("(p)", "(s)")
    .replace("0, 2, 3", "2, 0, 3"),
    "one_unknown": GRAPHS["one_unknown"][0].replace("six1", "minus_one"),
    "one_length": LENGTH.replace("l = Slice (f, ones1, two1", "l = Slice (f, zeros1, ones1"),
    "size_of_ids": GRAPHS["size_of_ids"][0].replace("ones1, two1", "two1, six1"),
    "shape_of_tokens": "a = Add (x, other)\n s = Shape (a)\n y = Cast <to = 1> (s)",
    "gemm_to_matmul": "r = Reshape (x, rows)\n y = Gemm <transB = 1> (r, matrix, bias)",
}
# Others that look alike, of rules that have one above.
MORE = [
    ("attention_mask", GRAPHS["attention_mask"][0].replace("Softmax <axis = -1>", "Abs")),
    ("attention_mask", GRAPHS["attention_mask"][0].replace("axis = -1", "axis = 1")),
    ("attention_mask", GRAPHS["attention_mask"][0].replace("y = Soft", "a = Abs (s)\n y = Soft")),
    (
        "constant_attention_mask",
        GRAPHS["constant_attention_mask"][0].replace("Softmax <axis = -1>", "Abs"),
    ),
    ("pad_of_integers", GRAPHS["pad_of_integers"][0].replace("Pad", 'Pad <mode = "edge">')),
    ("attention_scale", GRAPHS["attention_scale"][0].replace("Gemm", "Gemm <transB = 1>")),
    ("attention_scale", GRAPHS["attention_scale"][0].replace("Gemm", "Gemm <alpha = 2.0>")),
]
WEIGHTS |= {
    "minus_one": np.array([-1], np.int64),
    "segments": RNG.normal(size=(2, 8)),
    "turned_map": np.array([-1, 6, 5, 4], np.int64),
    "halves": np.array([2, 3, 8], np.int64),
    "second_row": np.array([0, 1, 0], np.int64),
    "second": np.array([1], np.int64),
    "three": np.array(3, np.int32),
    "nothing": np.array(0, np.int32),
    "seven": np.array(7, np.int32),
    "two_after": np.array([0, 0, 0, 2], np.int64),
    "all_of_it": np.array([1, 120], np.int64),
    "all_around": np.array([0, 1, 1, 0], np.int64),
    "edge": np.array([2, 3], np.int64),
    "row": RNG.normal(size=(1, 1, 1, 4)),
}
RULES = {rule.name: rule for rule in (*rewrites.PORTABLE, *onnxruntime_rules.RULES)}


def result(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(["y"], {i.name: INPUTS[i.name] for i in session.get_inputs()})[0]


def rewritten(name: str, nodes: str) -> tuple[onnx.ModelProto, int, onnx.ModelProto]:
    before = parse(nodes)
    model = ir.serde.deserialize_model(before)
    fired = rule_helpers.apply([RULES[name]], model)[name]
    rule_helpers.tidy(model)
    return before, fired, ir.serde.serialize_model(model)


@pytest.mark.parametrize("name", RULES)
def test_rule_fires_once_and_preserves_values(name):
    nodes, operators = GRAPHS[name]
    before, fired, after = rewritten(name, nodes)
    assert fired == 1
    assert sorted(node.op_type for node in after.graph.node) == operators
    np.testing.assert_allclose(result(after), result(before), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "nodes"), [*OTHERS.items(), *MORE])
def test_rule_leaves_alone_what_only_looks_alike(name, nodes):
    _, fired, _ = rewritten(name, nodes)
    assert fired == 0
