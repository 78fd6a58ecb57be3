"""Pattern rules that turn what tf2onnx writes into what engines run well.

tf2onnx writes normalisation, GELU, masks and batch norms as the arithmetic that TensorFlow
has for them, and surrounds each convolution with the transposes of NHWC. `PORTABLE` is a list
of rules, pattern -> replacement, that gives standard ONNX operators back, of opset 20, which
is what TensorRT 10 takes (onnx-tensorrt, docs/operators.md: opset 9 to 20). `portable`
applies them until nothing changes.

Each rule preserves the values of the graph up to rounding; where a rule needs constants of a
certain shape and does not find them, it does not fire.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewriteRule

from export.rule_helpers import apply, constant, new, scalar, shape_of, source, tidy, vector
from export.shape_rules import OPEN_AXES, RESHAPES

OPSET = 20
_NO_LIMIT = 1 << 60
# Rules feed each other: a folded batch norm lets a transpose pass, which meets another.
_ROUNDS = 50
# What hides a key from softmax: exp of it is 0 in any precision, and it fits into float16.
LOWEST = -3e4


def portable(model: ir.Model) -> dict[str, int]:
    """Rewrite a model of opset 18 in place.

    Returns:
        How often each rule fired.
    """
    model.graph.opset_imports[""] = OPSET
    fired = dict.fromkeys((rule.name for rule in PORTABLE), 0)
    for _ in range(_ROUNDS):
        fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
        )
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        passes.DeduplicateInitializersPass()(model)
        passes.CommonSubexpressionEliminationPass()(model)
        counts = apply(PORTABLE, model)
        tidy(model)
        for name, count in counts.items():
            fired[name] += count
        if not any(counts.values()):
            break
    passes.DeduplicateInitializersPass(size_limit=_NO_LIMIT)(model)
    passes.RemoveUnusedOpsetsPass()(model)
    passes.NameFixPass()(model)
    return fired


# --- LayerNormalization ---------------------------------------------------------------------


def _keras_layer_norm(op, x, axes, axes_again, eps, gamma, beta):
    def mean_of(y, over):
        return op.ReduceMean(y, over, keepdims=1, _allow_other_attributes=True)

    mean = mean_of(x, axes)
    deviation = op.Sub(x, mean)
    variance = mean_of(op.Mul(deviation, deviation), axes_again)
    factor = op.Mul(op.Reciprocal(op.Sqrt(op.Add(variance, eps))), gamma)
    return op.Add(op.Mul(x, factor), op.Add(op.Mul(op.Neg(mean), factor), beta))


def _layer_norm(op, x, axes, axes_again, eps, gamma, beta):
    epsilon, shape = scalar(eps), shape_of(x)
    if epsilon is None or shape is None:
        return None
    # With open axes the width is not always known; the weights know it.
    sizes = [constant(v).size for v in (gamma, beta) if constant(v) is not None]
    width = shape[-1] or max(sizes, default=1)
    last = (-1, len(shape) - 1)
    if width == 1 or any(scalar(a) not in last for a in (axes, axes_again)):
        return None
    scale, shift = vector(gamma, width), vector(beta, width)
    if scale is None or shift is None:
        return None
    scale, shift = new(op, scale, gamma, "scale"), new(op, shift, beta, "shift")
    return op.LayerNormalization(x, scale, shift, axis=-1, epsilon=epsilon)


def _norm_of_pixels(op, x, matrix, scale, shift, shape):
    y = op.LayerNormalization(
        op.Reshape(x, matrix), scale, shift, _allow_other_attributes=True, _outputs=["y"]
    )
    return op.Reshape(y, shape)


def _norm_of_maps(op, x, matrix, scale, shift, shape, y):
    """A map's pixels as rows, normalised, and a map again: the norm takes maps as they are."""
    sizes, rows, after = shape_of(x), constant(matrix), constant(shape)
    if sizes is None or rows is None or after is None or len(sizes) != after.size:
        return None
    batch, *others = after.tolist()
    if sizes[1:] != others or batch not in (-1, sizes[0]) or rows[-1] != sizes[-1]:
        return None
    given = y.producer().attributes
    return op.LayerNormalization(x, scale, shift, axis=-1, epsilon=given["epsilon"].as_float())


# --- GELU ---------------------------------------------------------------------------------


def _erf_gelu(op, x, half, one, root):
    return op.Mul(op.Mul(half, x), op.Sub(one, op.Erf(op.Mul(op.Neg(x), root))))


def _gelu(op, x, half, one, root):
    # Of maps tf2onnx gives the numbers four axes.
    numbers = [scalar(value) for value in (half, one, root)]
    if None in numbers or not np.allclose(numbers, (0.5, 1, 0.5**0.5), rtol=1e-6, atol=0):
        return None
    return op.Gelu(x, approximate="none")


# --- Hard sigmoid and hard swish --------------------------------------------------------------


def _clipped(op, x, three, low, high, sixth):
    return op.Mul(op.Clip(op.Add(x, three), low, high), sixth)


def _hard_sigmoid(op, x, three, low, high, sixth):
    numbers = [scalar(value) for value in (three, low, high, sixth)]
    if None in numbers or not np.allclose(numbers, (3, 0, 6, 1 / 6), rtol=1e-6, atol=0):
        return None
    return op.HardSigmoid(x, alpha=1 / 6, beta=0.5)


def _times_hard_sigmoid(op, x):
    return op.Mul(x, op.HardSigmoid(x, _allow_other_attributes=True, _outputs=["gate"]))


def _hard_swish(op, x, gate):
    given = gate.producer().attributes
    slope, middle = given.get_float("alpha", 0.2), given.get_float("beta", 0.5)
    return op.HardSwish(x) if np.allclose((slope, middle), (1 / 6, 0.5), rtol=1e-6) else None


# --- Masks and token ids --------------------------------------------------------------------


def _selected(op, scores, kept, shift):
    return op.Add(op.Mul(kept, scores), shift)


def _masked(op, scores, kept, shift):
    """where(keep, scores, lowest) -> scores + (lowest where not keep): softmax is the same."""
    gone = _hidden(kept, shift)
    if gone is None:
        return None
    return op.Add(scores, op.Mul(gone, new(op, np.array(LOWEST, np.float32), shift, "lowest")))


def _hidden(kept: ir.Value, shift: ir.Value) -> ir.Value | None:
    """Cast(Not(keep)), if the two are Cast(keep) and that times lowest; all layers share them."""
    cast, times = kept.producer(), shift.producer()
    if cast is None or times is None or (cast.op_type, times.op_type) != ("Cast", "Mul"):
        return None
    for one, gone in (times.inputs, reversed(times.inputs)):
        lowest, negated = scalar(one), source(gone, "Cast", "Not")
        if lowest is not None and lowest < LOWEST and negated is cast.inputs[0]:
            return gone
    return None


def _wrapped_index(op, table, ids, size):
    below = op.Less(op.Cast(ids, to=1), 0.0)
    wrapped = op.Mul(op.Cast(below, to=6), op.Add(ids, size))
    return op.Gather(table, op.Add(wrapped, op.Mul(ids, op.Cast(op.Not(below), to=6))), axis=0)


def _index(op, table, ids, size):
    # Gather takes negative indices for what Keras takes them.
    rows, wrap = shape_of(table), scalar(size)
    return op.Gather(table, ids, axis=0) if rows and rows[0] == wrap else None


# --- Integers, for which CUDA has no kernel ----------------------------------------------------
# ONNX Runtime's CUDA provider takes neither Equal nor Pad of int32 at this opset
# (docs/OperatorKernels.md), and its copies to the CPU and back cost more than the operators.


def _differs(op, ids, zero):
    return op.Not(op.Equal(ids, zero))


def _is_set(op, ids, zero):
    whole = ids.dtype is not None and ids.dtype.is_integer()
    return op.Cast(ids, to=ir.DataType.BOOL) if whole and scalar(zero) == 0 else None


def _padded(op, x, pads, value):
    return op.Pad(x, pads, value, _outputs=["y"])


def _lengthened(op, x, pads, value, y):
    """Padding of one axis is a constant beside it."""
    shape, amounts, fill = shape_of(x), constant(pads), constant(value)
    whole = x.dtype is not None and x.dtype.is_integer()
    if not whole or any(known is None for known in (shape, amounts, fill)):
        return None
    before, after = amounts[: len(shape)], amounts[len(shape) :]
    (axes,) = np.nonzero(before + after)
    if len(axes) != 1 or amounts.min() < 0:
        return None
    axis = int(axes[0])
    if any(size is None for i, size in enumerate(shape) if i != axis):
        return None

    def block(count: int, what: str) -> list[ir.Value]:
        sizes = [count if i == axis else size for i, size in enumerate(shape)]
        return [new(op, np.full(sizes, fill, fill.dtype), y, what)] if count else []

    parts = [*block(before[axis], "before"), x, *block(after[axis], "after")]
    return op.Concat(*parts, axis=axis)


# --- Scales folded into the weights before them -------------------------------------------------


def _scaled_heads(op, x, weight, bias, shape, scale):
    return op.Mul(op.Reshape(op.Gemm(x, weight, bias), shape), scale)


def _fold_scale(op, x, weight, bias, shape, scale):
    w, b, by = constant(weight), constant(bias), scalar(scale)
    if w is None or b is None or by is None:
        return None
    by = w.dtype.type(by)
    gemm = op.Gemm(x, new(op, w * by, weight, "scaled"), new(op, b * by, bias, "scaled"))
    return op.Reshape(gemm, shape)


def _added_twice(op, x, a, b):
    return op.Add(op.Add(x, a), b)


def _add_once(op, x, a, b):
    first, second = constant(a), constant(b)
    if first is None or second is None or constant(x) is not None:
        return None
    return op.Add(x, new(op, first + second, a, "sum"))


# --- Convolutions: batch norm, and NHWC --------------------------------------------------------

_TO_NHWC, _TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]


def _channels(value: ir.Value) -> np.ndarray | None:
    """A constant as [C, 1, 1], for NCHW, if it varies along the last axis of NHWC only."""
    values = vector(value)
    return None if values is None else values.reshape(-1, 1, 1)


def _lifted(name):
    def rule_pattern(op, x, c):
        return getattr(op, name)(op.Transpose(x, perm=_TO_NHWC), c)

    def replacement(op, x, c):
        per_channel = _channels(c)
        if per_channel is None:
            return None
        y = getattr(op, name)(x, new(op, per_channel, c, "nchw"))
        return op.Transpose(y, perm=_TO_NHWC)

    return RewriteRule(rule_pattern, replacement, name=f"transpose_after_{name.lower()}")


def _clip_nhwc(op, x, low, high):
    return op.Clip(op.Transpose(x, perm=_TO_NHWC), low, high)


def _clip_nchw(op, x, low, high):
    return op.Transpose(op.Clip(x, low, high), perm=_TO_NHWC)


def _lifted_activation(name):
    """Behind a transpose -> before it, of an operator of one input."""

    def rule_pattern(op, x):
        return getattr(op, name)(op.Transpose(x, perm=_TO_NHWC), _outputs=["y"])

    def replacement(op, x, y):
        changed = getattr(op, name)(x, **{a.name: a for a in y.producer().attributes.values()})
        return op.Transpose(changed, perm=_TO_NHWC)

    rule_name = f"transpose_after_{name.lower()}"
    return RewriteRule(rule_pattern, replacement, name=rule_name, remove_nodes=False)


def _lifted_pair(name, rule_name):
    """The same of an operator of two inputs, each behind a transpose; one may be broadcast."""

    def rule_pattern(op, a, b):
        return getattr(op, name)(op.Transpose(a, perm=_TO_NHWC), op.Transpose(b, perm=_TO_NHWC))

    def replacement(op, a, b):
        return op.Transpose(getattr(op, name)(a, b), perm=_TO_NHWC)

    return RewriteRule(rule_pattern, replacement, name=rule_name, remove_nodes=False)


def _sum_nhwc(op, x, y):
    return op.Add(x, op.Transpose(y, perm=_TO_NHWC))


def _sum_nchw(op, x, y):
    """Of a map in NHWC, as a norm gives it, that goes into a convolution as well."""
    turned = [node for node in x.consumers() if node.op_type == "Transpose"]
    if not any(list(node.attributes["perm"].as_ints()) == _TO_NCHW for node in turned):
        return None
    return op.Transpose(op.Add(op.Transpose(x, perm=_TO_NCHW), y), perm=_TO_NHWC)


def _padded_nhwc(op, x, pads):
    return op.Pad(op.Transpose(x, perm=_TO_NHWC), pads, _outputs=["y"])


def _padded_with_nhwc(op, x, pads, value):
    return op.Pad(op.Transpose(x, perm=_TO_NHWC), pads, value, _outputs=["y"])


def _padded_nchw(op, x, pads, y, value=None):
    sizes = constant(pads)
    if sizes is None or sizes.size != 8:
        return None
    around = new(op, sizes.reshape(2, 4)[:, _TO_NCHW].reshape(-1), pads, "nchw")
    inputs = (x, around) if value is None else (x, around, value)
    padded = op.Pad(*inputs, **{a.name: a for a in y.producer().attributes.values()})
    return op.Transpose(padded, perm=_TO_NHWC)


def _there_and_back(op, x):
    return op.Transpose(op.Transpose(x, perm=_TO_NHWC), perm=_TO_NCHW)


def _itself(op, x):
    return op.Identity(x)


def _mean_nhwc(op, x, axes):
    x = op.Transpose(x, perm=_TO_NHWC)
    return op.ReduceMean(x, axes, keepdims=0, _allow_other_attributes=True)


def _mean_nchw(op, x, axes):
    moved = _moved_axes(op, axes)
    return None if moved is None else op.ReduceMean(x, moved, keepdims=0)


def _kept_mean_nhwc(op, x, axes):
    x = op.Transpose(x, perm=_TO_NHWC)
    return op.ReduceMean(x, axes, keepdims=1, _allow_other_attributes=True)


def _kept_mean_nchw(op, x, axes):
    moved = _moved_axes(op, axes)
    if moved is None:
        return None
    return op.Transpose(op.ReduceMean(x, moved, keepdims=1), perm=_TO_NHWC)


def _moved_axes(op, axes):
    """Height and width of a map, where they stand in NCHW; None of other axes."""
    values = constant(axes)
    if values is None or sorted(values.tolist()) != [1, 2]:
        return None
    return new(op, np.array([2, 3], np.int64), axes, "nchw")


def _gated_nhwc(op, x, gate, shape):
    return op.Mul(op.Transpose(x, perm=_TO_NHWC), op.Reshape(gate, shape, _outputs=["g"]))


def _gated_nchw(op, x, gate, shape, g):
    """A number for each channel, [B, C, 1, 1], which tf2onnx reshapes, or [B, C]."""
    sizes = shape_of(gate)
    if sizes is None or not _is_pixel(g, [1, 2]):
        return None
    if len(sizes) == 2 and sizes[1] is not None:
        gate = op.Reshape(gate, new(op, np.array([-1, sizes[1], 1, 1], np.int64), shape, "nchw"))
    elif not _is_pixel(gate, [2, 3]):
        return None
    return op.Transpose(op.Mul(x, gate), perm=_TO_NHWC)


def _pixel_nhwc(op, x, shape):
    return op.Reshape(op.Transpose(x, perm=_TO_NHWC), shape)


def _pixel_nchw(op, x, shape):
    return op.Reshape(x, shape) if _is_pixel(x, [2, 3]) else None


def _is_pixel(value: ir.Value, axes: list[int]) -> bool:
    """Whether a map is one pixel, these its axes of height and width."""
    sizes = shape_of(value)
    return sizes is not None and len(sizes) == 4 and all(sizes[axis] == 1 for axis in axes)


def _times_one(op, one, x):
    return op.Mul(one, x)  # SiLU's beta, which TensorFlow multiplies by


def _once(op, one, x):
    values = constant(one)
    return op.Identity(x) if values is not None and values.shape == () and values == 1 else None


def _padded_conv(op, x, pads, w):
    padded = op.Pad(x, pads, _outputs=["padded"])
    return op.Conv(padded, w, _allow_other_attributes=True, _outputs=["conv"])


def _padded_biased_conv(op, x, pads, w, b):
    padded = op.Pad(x, pads, _outputs=["padded"])
    return op.Conv(padded, w, b, _allow_other_attributes=True, _outputs=["conv"])


def _padding_conv(op, x, pads, w, padded, conv, b=None):
    given = _with_padding(conv, padded, pads)
    if given is None:
        return None
    return op.Conv(*((x, w) if b is None else (x, w, b)), **given)


def _padded_pool(op, x, pads, value):
    padded = op.Pad(op.Relu(x, _outputs=["positive"]), pads, value, _outputs=["padded"])
    return op.MaxPool(padded, _allow_other_attributes=True, _outputs=["pooled"])


def _padding_pool(op, x, pads, value, positive, padded, pooled):
    """What pads is not above what ReLU gives, of which every window has some: it never wins."""
    number, given = scalar(value), _with_padding(pooled, padded, pads)
    if number is None or number > 0 or given is None or "dilations" in given:
        return None
    if any(side >= min(given["kernel_shape"].as_ints()) for side in given["pads"]):
        return None
    return op.MaxPool(positive, **given)


def _with_padding(value: ir.Value, padded: ir.Value, pads: ir.Value) -> dict | None:
    """The attributes of what makes `value` of a padded map, the padding among them; else None."""
    sizes, given = constant(pads), dict(value.producer().attributes)
    mode, automatic = padded.producer().attributes.get("mode"), given.pop("auto_pad", None)
    if mode is not None and mode.as_string() != "constant":
        return None
    if automatic is not None and automatic.as_string() not in ("NOTSET", "VALID"):
        return None
    if sizes is None or sizes.size != 8 or sizes.reshape(2, 4)[:, :2].any():
        return None
    own = given.pop("pads", None)
    around = sizes.reshape(2, 4)[:, 2:].reshape(-1) + (own.as_ints() if own else 0)
    return {**given, "pads": around.tolist()}


def _conv(op, x, w, bias=None, like=None):
    inputs = (x, w) if bias is None else (x, w, bias)
    return op.Conv(*inputs, **{a.name: a for a in like.attributes.values()})


def _conv_times(op, x, w, c):
    conv = op.Conv(x, w, _allow_other_attributes=True, _outputs=["conv"])
    return op.Mul(conv, c)


def _biased_conv_times(op, x, w, b, c):
    conv = op.Conv(x, w, b, _allow_other_attributes=True, _outputs=["conv"])
    return op.Mul(conv, c)


def _fold_times(op, x, w, c, conv, b=None):
    weight, bias, scale = constant(w), constant(b), _of_channels(c, w)
    if scale is None or (b is not None and bias is None):
        return None
    scaled = new(op, weight * scale[:, None, None, None], w, "scaled")
    shifted = None if b is None else new(op, bias * scale, b, "scaled")
    return _conv(op, x, scaled, shifted, like=conv.producer())


def _of_channels(c: ir.Value, w: ir.Value) -> np.ndarray | None:
    """A number for each output channel of a convolution's weights, of a constant in NCHW."""
    weight, numbers = constant(w), constant(c)
    if weight is None or numbers is None or numbers.size != weight.shape[0]:
        return None
    return numbers.reshape(-1) if numbers.shape[-3:] == (numbers.size, 1, 1) else None


def _conv_plus(op, x, w, c):
    conv = op.Conv(x, w, _allow_other_attributes=True, _outputs=["conv"])
    return op.Add(conv, c)


def _fold_plus(op, x, w, c, conv):
    shift = _of_channels(c, w)
    if shift is None:
        return None
    return _conv(op, x, w, new(op, shift, c, "bias"), like=conv.producer())


# --- Products ---


def _biased(op, x, weight, bias):
    return op.Add(op.MatMul(x, weight), bias)


def _gemm(op, x, weight, bias):
    sizes, matrix, vector = shape_of(x), shape_of(weight), shape_of(bias)
    if sizes is None or len(sizes) != 2 or matrix is None or len(matrix) != 2:
        return None
    if vector != [matrix[1]] or constant(bias) is None:
        return None
    return op.Gemm(x, weight, bias)


PORTABLE = [
    RewriteRule(_keras_layer_norm, _layer_norm, name="layer_norm", remove_nodes=False),
    RewriteRule(_norm_of_pixels, _norm_of_maps, name="layer_norm_of_pixels"),
    RewriteRule(_erf_gelu, _gelu, name="gelu"),
    RewriteRule(_clipped, _hard_sigmoid, name="hard_sigmoid"),
    RewriteRule(_times_hard_sigmoid, _hard_swish, name="hard_swish"),
    RewriteRule(_selected, _masked, name="attention_mask"),
    RewriteRule(_wrapped_index, _index, name="token_index"),
    RewriteRule(_differs, _is_set, name="not_zero"),
    RewriteRule(_padded, _lengthened, name="pad_of_integers"),
    RewriteRule(_scaled_heads, _fold_scale, name="attention_scale"),
    RewriteRule(_added_twice, _add_once, name="two_sums"),
    _lifted("Mul"),
    _lifted("Add"),
    RewriteRule(_clip_nhwc, _clip_nchw, name="transpose_after_clip", remove_nodes=False),
    *map(_lifted_activation, ("Relu", "Sigmoid", "Gelu", "HardSwish")),
    _lifted_pair("Add", "transpose_after_sum"),
    _lifted_pair("Mul", "transpose_after_product"),
    RewriteRule(_sum_nhwc, _sum_nchw, name="transpose_after_sum_with_nhwc", remove_nodes=False),
    RewriteRule(_padded_nhwc, _padded_nchw, name="transpose_after_pad", remove_nodes=False),
    RewriteRule(
        _padded_with_nhwc, _padded_nchw, name="transpose_after_pad_of_value", remove_nodes=False
    ),
    RewriteRule(_times_one, _once, name="times_one"),
    RewriteRule(_gated_nhwc, _gated_nchw, name="transpose_after_gate", remove_nodes=False),
    RewriteRule(_pixel_nhwc, _pixel_nchw, name="transpose_of_a_pixel", remove_nodes=False),
    RewriteRule(_padded_conv, _padding_conv, name="padding_of_a_convolution"),
    RewriteRule(_padded_biased_conv, _padding_conv, name="padding_of_a_biased_convolution"),
    RewriteRule(_padded_pool, _padding_pool, name="padding_of_a_pool", remove_nodes=False),
    RewriteRule(_mean_nhwc, _mean_nchw, name="transpose_before_mean", remove_nodes=False),
    RewriteRule(_kept_mean_nhwc, _kept_mean_nchw, name="transpose_after_mean", remove_nodes=False),
    RewriteRule(_there_and_back, _itself, name="transpose_there_and_back", remove_nodes=False),
    RewriteRule(_conv_times, _fold_times, name="batch_norm_scale"),
    RewriteRule(_biased_conv_times, _fold_times, name="layer_scale"),
    RewriteRule(_conv_plus, _fold_plus, name="batch_norm_shift"),
    *RESHAPES,
    RewriteRule(_biased, _gemm, name="gemm"),
    *OPEN_AXES,
]
