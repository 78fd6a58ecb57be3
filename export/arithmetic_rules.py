"""Pattern rules that give operators back which tf2onnx writes as arithmetic.

Normalisation, GELU, hard swish, masks, token ids, and products with a bias. Integers are kept out
of operators for which CUDA has no kernel.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from export.rule_helpers import constant, new, scalar, shape_of, source, vector

# What hides a key from softmax: exp of it is 0 in any precision, and it fits into float16.
LOWEST = -3e4


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
    return op.Add(op.Mul(kept, scores), shift, _outputs=["selected"])


def _masked(op, scores, kept, shift, selected):
    """where(keep, scores, lowest) -> scores + (lowest where not keep): softmax is the same."""
    gone = _hidden(kept, shift)
    if gone is None or not _to_softmax(selected):
        return None
    return op.Add(scores, op.Mul(gone, new(op, np.array(LOWEST, np.float32), shift, "lowest")))


def _to_softmax(value: ir.Value) -> bool:
    """Whether nothing but Softmax over its last axis is made of a value, or of sums with it."""
    uses = [use.node for use in value.uses()]
    if not uses or value.is_graph_output():
        return False
    return all(
        _to_softmax(node.outputs[0])
        if node.op_type == "Add"
        else node.op_type == "Softmax" and _is_last(node.attributes.get_int("axis", -1), value)
        for node in uses
    )


def _is_last(axis: int, value: ir.Value) -> bool:
    return axis == -1 or (value.shape is not None and axis == len(value.shape) - 1)


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


def _masked_by_constants(op, scores, kept, shift, selected):
    """The same where it is known what is kept: a causal model's mask."""
    keep, lowest = constant(kept), constant(shift)
    if not _to_softmax(selected) or keep is None or lowest is None or keep.shape != lowest.shape:
        return None
    if not np.isin(keep, (0, 1)).all() or ((lowest != 0) == (keep != 0)).any():
        return None
    if keep.all() or lowest[keep == 0].max() >= LOWEST:
        return None
    hidden = np.where(keep == 0, LOWEST, 0.0).astype(lowest.dtype)
    return op.Add(scores, new(op, hidden, shift, "lowest"))


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
    mode = y.producer().attributes.get("mode")
    constants = mode is None or mode.as_string() == "constant"
    if not (whole and constants) or any(known is None for known in (shape, amounts, fill)):
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
    product = op.Gemm(x, weight, bias, _allow_other_attributes=False)
    return op.Mul(op.Reshape(product, shape), scale)


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


# --- Products --------------------------------------------------------------------------------


def _biased(op, x, weight, bias):
    return op.Add(op.MatMul(x, weight), bias)


def _gemm(op, x, weight, bias):
    sizes, matrix, vector = shape_of(x), shape_of(weight), shape_of(bias)
    if sizes is None or len(sizes) != 2 or matrix is None or len(matrix) != 2:
        return None
    if vector != [matrix[1]] or constant(bias) is None:
        return None
    return op.Gemm(x, weight, bias)


ARITHMETIC = [
    RewriteRule(_keras_layer_norm, _layer_norm, name="layer_norm", remove_nodes=False),
    RewriteRule(_norm_of_pixels, _norm_of_maps, name="layer_norm_of_pixels"),
    RewriteRule(_erf_gelu, _gelu, name="gelu"),
    RewriteRule(_clipped, _hard_sigmoid, name="hard_sigmoid"),
    RewriteRule(_times_hard_sigmoid, _hard_swish, name="hard_swish"),
    RewriteRule(_selected, _masked, name="attention_mask"),
    RewriteRule(_selected, _masked_by_constants, name="constant_attention_mask"),
    RewriteRule(_wrapped_index, _index, name="token_index"),
    RewriteRule(_differs, _is_set, name="not_zero"),
    RewriteRule(_padded, _lengthened, name="pad_of_integers"),
    RewriteRule(_scaled_heads, _fold_scale, name="attention_scale"),
    RewriteRule(_added_twice, _add_once, name="two_sums"),
]
# Behind the rules that take reshapes out, which stand between a product and its bias.
PRODUCTS = [RewriteRule(_biased, _gemm, name="gemm")]
