"""Small ONNX graphs as tf2onnx writes them, each for one rewriting rule."""

import numpy as np
import onnx
import onnx.parser

RNG = np.random.default_rng(0)
INPUTS = {
    "x": RNG.normal(size=(1, 6, 8)).astype(np.float32),
    "image": RNG.normal(size=(1, 4, 5, 6)).astype(np.float32),  # NCHW, 4 channels
    "gate": RNG.normal(size=(1, 4, 1, 1)).astype(np.float32),  # NCHW, one pixel
    "map": np.random.default_rng(1).normal(size=(1, 5, 6, 4)).astype(np.float32),  # NHWC
    "scores": RNG.normal(size=(1, 2, 6, 6)).astype(np.float32),
    "ids": np.array([[3, 0, 1, -1, 6, 2]], np.int32),
    "there": np.array([[1, 1, 1, 1, 0, 0]], np.int32),
    "keep": np.array([[[[True, True, True, True, False, False]]]]),
}
# Constants of each graph: name -> array.
WEIGHTS = {
    "gamma": RNG.random((1, 1, 8)),
    "beta": RNG.random((1, 1, 8)),
    "scale": RNG.random(3),
    "kernel": RNG.normal(size=(3, 4, 3, 3)),
    "matrix": RNG.normal(size=(8, 8)),
    "matrix2": RNG.normal(size=(8, 8)),
    "matrix3": RNG.normal(size=(8, 8)),
    "bias": RNG.normal(size=8),
    "bias2": RNG.normal(size=8),
    "bias3": RNG.normal(size=8),
    "table": RNG.normal(size=(7, 8)),
    "per_channel": RNG.normal(size=(3, 1, 1)),
    "other": RNG.normal(size=(1, 1, 8)),
    "half": np.array(0.5),
    "one": np.array(1.0),
    "root": np.array(0.70710677),
    "epsilon": np.array(1e-3),
    "zero": np.array(0.0),
    "six": np.array(6.0),
    "three_f": np.array(3.0),
    "sixth": np.array(1 / 6),
    "eighth": np.array(0.125),
    "lowest": np.array(-1e9),
    "seen": np.tril(np.ones((1, 1, 6, 6))),
    "unseen": -1e9 * (1 - np.tril(np.ones((1, 1, 6, 6)))),
    "less": np.array(-1.0),
    "shift": RNG.normal(size=3),
    # Above, left, below, right: 1, 0, 2, 1.
    "around_nhwc": np.array([0, 1, 0, 0, 0, 2, 1, 0], np.int64),
    "around_nchw": np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64),
    "one_around": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "pixel_nhwc": np.array([1, 1, 1, 4], np.int64),
    "pixel_nchw": np.array([1, 4, 1, 1], np.int64),
    "last": np.array([-1], np.int64),
    "space": np.array([1, 2], np.int64),
    "zeros1": np.array([0], np.int64),
    "ones1": np.array([1], np.int64),
    "two1": np.array([2], np.int64),
    "four1": np.array([4], np.int64),
    "six1": np.array([6], np.int64),
    "minus1": np.array([-1], np.int32),
    "ten1": np.array([10], np.int32),
    "vocabulary": np.array(7, np.int32),
    "rows": np.array([6, 8], np.int64),
    "pixels": np.array([-1, 4], np.int64),
    "as_map": np.array([-1, 5, 6, 4], np.int64),
    "per_pixel": np.linspace(0.5, 2, 4),
    "per_pixel2": np.linspace(-1, 1, 4),
    "heads": np.array([1, 6, 2, 4], np.int64),
    "whole": np.array([1, 6, 8], np.int64),
    "first": np.array([0, 0, 0], np.int64),
    "end": np.array([2**31 - 1] * 3, np.int64),
    "axes": np.array([0, 1, 2], np.int64),
    "steps": np.array([1, 1, 1], np.int64),
}
LAYER_NORM = """
    mean = ReduceMean <keepdims = 1> (x, AXES)
    d = Sub (x, mean)
    dd = Mul (d, d)
    var = ReduceMean <keepdims = 1> (dd, AXES)
    ve = Add (var, epsilon)
    s = Sqrt (ve)
    r = Reciprocal (s)
    f = Mul (r, gamma)
    xf = Mul (x, f)
    n = Neg (mean)
    nf = Mul (n, f)
    b = Add (nf, beta)
    y = Add (xf, b)
"""
MASK = """
    rows4 = Unsqueeze (there, space)
    keep4 = Cast <to = 9> (rows4)
    not = Not (keep4)
    gone = Cast <to = 1> (not)
    away = Mul (gone, lowest)
"""
ATTENTION = """
    r = Reshape (x, rows)
    qm = MatMul (r, matrix)
    qb = Add (qm, bias)
    qh = Reshape (qb, heads)
    q = Transpose <perm = [0, 2, 1, 3]> (qh)
    km = MatMul (r, matrix2)
    kb = Add (km, bias2)
    kh = Reshape (kb, heads)
    k = Transpose <perm = [0, 2, 3, 1]> (kh)
    vm = MatMul (r, matrix3)
    vb = Add (vm, bias3)
    vh = Reshape (vb, heads)
    v = Transpose <perm = [0, 2, 1, 3]> (vh)
    s = MatMul (q, k)
    SCORES
    z = Softmax (p)
    h = MatMul (z, v)
    t = Transpose <perm = [0, 2, 1, 3]> (h)
    y = Reshape (t, rows)
"""
LENGTH = """
    si = Shape (image)
    ci = Cast <to = 6> (si)
    t = Slice (ci, ones1, two1, zeros1)
    c = Concat <axis = 0> (minus1, t, ten1)
    i = Cast <to = 7> (c)
    r = Reshape (image, i)
    s = Shape (r)
    f = Cast <to = 6> (s)
    l = Slice (f, ones1, two1, zeros1)
    a = Abs (l)
    y = Cast <to = 1> (a)
"""
# rule -> (nodes, operators that must be there afterwards and no others)
GRAPHS = {
    "layer_norm": (
        LAYER_NORM.replace("AXES", "last"),
        ["LayerNormalization"],
    ),
    "layer_norm_of_pixels": (
        """
    m = Reshape (map, pixels)
    n = LayerNormalization <axis = -1, epsilon = 0.001> (m, per_pixel, per_pixel2)
    y = Reshape (n, as_map)
""",
        ["LayerNormalization"],
    ),
    "gelu": (
        """
    h = Mul (half, x)
    n = Neg (x)
    nr = Mul (n, root)
    e = Erf (nr)
    c = Sub (one, e)
    y = Mul (h, c)
""",
        ["Gelu"],
    ),
    "hard_sigmoid": (
        """
    a = Add (x, three_f)
    c = Clip (a, zero, six)
    y = Mul (c, sixth)
""",
        ["HardSigmoid"],
    ),
    "hard_swish": (
        """
    h = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)
    y = Mul (x, h)
""",
        ["HardSwish"],
    ),
    "attention_mask": (
        """
    k = Cast <to = 1> (keep)
    ks = Mul (k, scores)
    not = Not (keep)
    away = Cast <to = 1> (not)
    low = Mul (lowest, away)
    s = Add (ks, low)
    y = Softmax <axis = -1> (s)
""",
        ["Add", "Cast", "Mul", "Not", "Softmax"],
    ),
    "constant_attention_mask": (
        """
    ks = Mul (seen, scores)
    s = Add (ks, unseen)
    y = Softmax <axis = -1> (s)
""",
        ["Add", "Softmax"],
    ),
    "token_index": (
        """
    f = Cast <to = 1> (ids)
    below = Less (f, zero)
    b = Cast <to = 6> (below)
    up = Add (ids, vocabulary)
    bu = Mul (b, up)
    not = Not (below)
    n = Cast <to = 6> (not)
    ni = Mul (ids, n)
    i = Add (bu, ni)
    y = Gather <axis = 0> (table, i)
""",
        ["Gather"],
    ),
    "not_zero": (
        "e = Equal (ids, nothing)\n n = Not (e)\n y = Cast <to = 1> (n)",
        ["Cast", "Cast"],
    ),
    "pad_of_integers": (
        "p = Pad (there, two_after, seven)\n y = Cast <to = 1> (p)",
        ["Cast", "Concat"],
    ),
    "attention_scale": (
        """
    r = Reshape (x, rows)
    g = Gemm (r, matrix, bias)
    h = Reshape (g, heads)
    y = Mul (h, eighth)
""",
        ["Gemm", "Reshape", "Reshape"],
    ),
    "two_sums": ("a = Add (x, gamma)\n y = Add (a, other)", ["Add"]),
    "transpose_after_mul": (
        "c = Conv (image, kernel)\n t = Transpose <perm = [0, 2, 3, 1]> (c)\n y = Mul (t, scale)",
        ["Conv", "Mul", "Transpose"],
    ),
    "transpose_after_add": (
        "c = Conv (image, kernel)\n t = Transpose <perm = [0, 2, 3, 1]> (c)\n y = Add (t, scale)",
        ["Add", "Conv", "Transpose"],
    ),
    "transpose_after_clip": (
        "t = Transpose <perm = [0, 2, 3, 1]> (image)\n y = Clip (t, zero, six)",
        ["Clip", "Transpose"],
    ),
    **{
        f"transpose_after_{name.lower()}": (
            f"t = Transpose <perm = [0, 2, 3, 1]> (image)\n y = {name} (t)",
            sorted([name, "Transpose"]),
        )
        for name in ("Relu", "Sigmoid", "Gelu", "HardSwish")
    },
    "transpose_after_pad": (
        "t = Transpose <perm = [0, 2, 3, 1]> (image)\n y = Pad (t, around_nhwc)",
        ["Pad", "Transpose"],
    ),
    "transpose_after_pad_of_value": (
        "t = Transpose <perm = [0, 2, 3, 1]> (image)\n y = Pad (t, around_nhwc, less)",
        ["Pad", "Transpose"],
    ),
    "transpose_after_mean": (
        "t = Transpose <perm = [0, 2, 3, 1]> (image)\n y = ReduceMean <keepdims = 1> (t, space)",
        ["ReduceMean", "Transpose"],
    ),
    "transpose_after_product": (
        """
    t = Transpose <perm = [0, 2, 3, 1]> (image)
    u = Transpose <perm = [0, 2, 3, 1]> (gate)
    y = Mul (t, u)
""",
        ["Mul", "Transpose"],
    ),
    "transpose_after_gate": (
        """
    t = Transpose <perm = [0, 2, 3, 1]> (image)
    g = Reshape (gate, pixel_nhwc)
    y = Mul (t, g)
""",
        ["Mul", "Transpose"],
    ),
    "transpose_of_a_pixel": (
        "t = Transpose <perm = [0, 2, 3, 1]> (gate)\n y = Reshape (t, pixel_nchw)",
        ["Reshape"],
    ),
    "times_one": ("a = Mul (one, x)\n y = Abs (a)", ["Abs"]),
    "padding_of_a_convolution": (
        "p = Pad (image, around_nchw)\n"
        "y = Conv <strides = [2, 1], pads = [0, 0, 1, 1]> (p, kernel)",
        ["Conv"],
    ),
    "padding_of_a_biased_convolution": (
        'p = Pad (image, around_nchw)\ny = Conv <auto_pad = "VALID"> (p, kernel, shift)',
        ["Conv"],
    ),
    "padding_of_a_pool": (
        """
    r = Relu (image)
    p = Pad (r, one_around, less)
    y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (p)
""",
        ["MaxPool", "Relu"],
    ),
    "transpose_after_sum": (
        """
    t = Transpose <perm = [0, 2, 3, 1]> (image)
    a = Abs (image)
    u = Transpose <perm = [0, 2, 3, 1]> (a)
    y = Add (t, u)
""",
        ["Abs", "Add", "Transpose"],
    ),
    "transpose_after_sum_with_nhwc": (
        """
    t = Transpose <perm = [0, 2, 3, 1]> (image)
    a = Add (map, t)
    u = Transpose <perm = [0, 3, 1, 2]> (map)
    g = GlobalAveragePool (u)
    v = Transpose <perm = [0, 2, 3, 1]> (g)
    y = Mul (a, v)
""",
        ["Add", "GlobalAveragePool", "Mul", *["Transpose"] * 4],
    ),
    "transpose_before_mean": (
        "t = Transpose <perm = [0, 2, 3, 1]> (image)\n y = ReduceMean <keepdims = 0> (t, space)",
        ["ReduceMean"],
    ),
    "transpose_there_and_back": (
        """
    t = Transpose <perm = [0, 2, 3, 1]> (image)
    u = Transpose <perm = [0, 3, 1, 2]> (t)
    y = Abs (u)
""",
        ["Abs"],
    ),
    "batch_norm_scale": (
        "c = Conv <strides = [2, 1], pads = [0, 0, 1, 1]> (image, kernel)\n"
        "y = Mul (c, per_channel)",
        ["Conv"],
    ),
    "batch_norm_shift": (
        "c = Conv <strides = [2, 1], pads = [0, 0, 1, 1]> (image, kernel)\n"
        "y = Add (c, per_channel)",
        ["Conv"],
    ),
    "layer_scale": ("c = Conv (image, kernel, shift)\n y = Mul (c, per_channel)", ["Conv"]),
    "reshape_twice": ("a = Reshape (x, rows)\n y = Reshape (a, heads)", ["Reshape"]),
    "reshape_to_same": ("a = Reshape (x, whole)\n y = Abs (a)", ["Abs"]),
    "slice_of_all": ("a = Slice (x, first, end, axes, steps)\n y = Abs (a)", ["Abs"]),
    "gemm": (
        "r = Reshape (x, rows)\n m = MatMul (r, matrix)\n y = Add (m, bias)",
        ["Gemm", "Reshape"],
    ),
    "dense_of_tokens": (
        "r = Reshape (x, rows)\n m = MatMul (r, matrix)\n y = Reshape (m, whole)",
        ["MatMul"],
    ),
    "expanded_sum": ("s = Shape (x)\n e = Expand (other, s)\n y = Add (x, e)", ["Add"]),
    "one_segment": (
        """
    w = Gather <axis = 0> (table, ids)
    s = Shape (ids)
    z = ConstantOfShape <value: tensor = int32[1] {0}> (s)
    g = Gather <axis = 0> (segments, z)
    y = Add (w, g)
""",
        ["Add", "Gather"],
    ),
    "one_unknown": (
        """
    s = Shape (x)
    b = Slice (s, zeros1, ones1, zeros1)
    c = Concat <axis = 0> (b, six1, two1, four1)
    i = Cast <to = 7> (c)
    y = Reshape (x, i)
""",
        ["Reshape"],
    ),
    "one_length": (
        LENGTH,
        ["Abs", "Cast", "Cast", "Shape", "Slice"],
    ),
    "size_of_ids": (
        """
    w = Gather <axis = 0> (table, ids)
    s = Shape (w)
    f = Cast <to = 6> (s)
    l = Slice (f, ones1, two1, zeros1)
    y = Cast <to = 1> (l)
""",
        ["Cast", "Cast", "Shape", "Slice"],
    ),
    "shape_of_tokens": (
        """
    w = Gather <axis = 0> (table, ids)
    p = Add (w, other)
    n = LayerNormalization <axis = -1> (p, bias, bias2)
    s = Shape (n)
    y = Cast <to = 1> (s)
""",
        ["Cast", "Gather", "Shape"],
    ),
    "gemm_to_matmul": (
        "r = Reshape (x, rows)\n y = Gemm (r, matrix, bias)",
        ["Add", "MatMul", "Reshape"],
    ),
    "masked_attention": (
        MASK + ATTENTION.replace("SCORES", "p = Add (s, away)"),
        ["Attention", "Reshape", "Reshape", "Reshape"],
    ),
    "attention": (
        ATTENTION.replace("SCORES", "").replace("(p)", "(s)"),
        ["Attention", "Reshape", "Reshape", "Reshape"],
    ),
}


def parse(nodes: str) -> onnx.ModelProto:
    used = {word.strip("(),") for word in nodes.split()}
    kinds = {np.dtype("float32"): "float", np.dtype("int32"): "int32", np.dtype("bool"): "bool"}
    inputs = ", ".join(
        f"{kinds[array.dtype]}[{','.join(map(str, array.shape))}] {name}"
        for name, array in INPUTS.items()
        if name in used
    )
    head = f'<ir_version: 10, opset_import: ["" : 20]> graph ({inputs}) => (float y)'
    model = onnx.parser.parse_model(f"{head} {{{nodes}}}")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name in sorted(used & set(WEIGHTS)):
        array = WEIGHTS[name]
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(model)
