"""Pattern rules that keep a convolutional network in NCHW, its batch norms and padding folded.

tf2onnx surrounds each convolution with the transposes of NHWC: each is moved behind what follows
it, until it meets the next one and both are gone. What then stands beside a convolution, a scale, a
shift or a padding, becomes part of it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from export.rule_helpers import constant, new, scalar, shape_of, vector

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


CONVOLUTIONS = [
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
]
