"""What costs time: forms that engines do not fuse, shapes and weights they need not have."""

from __future__ import annotations

import hashlib

import onnx_ir as ir

from export.checks.graph import (
    Check,
    after,
    before,
    given,
    inputs,
    name,
    nodes,
    through,
    trains,
)

_LAYOUTS = ([0, 2, 3, 1], [0, 3, 1, 2])
_ELEMENTWISE = ("Add", "Clip", "Mul", "Relu", "Sub", "Div", "HardSwish", "Sigmoid")
# What a fused attention kernel takes between its two products.
_BETWEEN = ("Add", "Div", "Mul", "Softmax")
_LARGE = 1 << 10


def _layer_norms(model):
    for node in nodes(model, "Sqrt"):
        variance = before(node.inputs[0], ("Add",))
        if variance and variance.op_type in ("ReduceMean", "GlobalAveragePool"):
            # Without a mean that is taken away it is another normalisation (RMSNorm).
            squared = before(variance.inputs[0], ("Mul", "Pow", "Transpose", "Reshape"))
            if squared is not None and squared.op_type in ("Sub", "Add"):
                yield name(node)


def _gelus(model):
    yield from (name(n) for n in nodes(model, "Erf"))


def _attentions(model):
    for node in nodes(model, "Softmax"):
        if _ends_in_product(node) and not _is_plain(node):
            yield name(node)


def _norms_of_convolutions(model):
    for node in nodes(model, "BatchNormalization", "Mul", "Add"):
        source = given(node, 0).producer() if given(node, 0) is not None else None
        behind = source is not None and source.op_type in ("Conv", "ConvTranspose")
        fixed = all(x is not None and x.const_value is not None for x in node.inputs[1:])
        if (
            behind
            and fixed
            and _folds(node, source)
            and not (node.op_type == "BatchNormalization" and trains(node))
        ):
            yield name(node)


def _folds(node: ir.Node, source: ir.Node) -> bool:
    """Whether constants behind a convolution are numbers of its channels, and of it alone."""
    output = source.outputs[0]
    if len(output.uses()) > 1 or output.is_graph_output():
        return False
    sizes = [list(x.const_value.shape) for x in node.inputs[1:]]
    return node.op_type == "BatchNormalization" or all(
        size[-2:] == [1, 1] or not size or size == [1] for size in sizes
    )


def _shapes(model):
    """More than one for each open axis: that many an embedding of positions needs."""
    open_axes = {
        str(size) for x in inputs(model) for size in x.shape or () if not isinstance(size, int)
    }
    computed = [name(n) for n in nodes(model, "Shape", "Size")]
    yield from computed if len(computed) > len(open_axes) else ()


def _layouts(model):
    """Transposes between two convolutions."""
    for node in nodes(model, "Transpose"):
        if _perm(node) in _LAYOUTS:
            source = before(node.inputs[0], _ELEMENTWISE)
            if source is not None and (source.op_type == "Conv" and _meets_conv(node)):
                yield name(node)


def _twice(model):
    seen: dict[tuple, str] = {}
    for name_of, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or len(tensor.shape) < 2 or tensor.nbytes < _LARGE:
            continue  # vectors are small: biases of zeros, zero points
        key = (tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest())
        if key in seen:
            yield f"{name_of} = {seen[key]}"
        seen.setdefault(key, name_of)


CHECKS = [
    Check(
        "LayerNormalization in pieces, which engines do not fuse again",
        _layer_norms,
        "rewrite to LayerNormalization (opset 17)",
    ),
    Check("GELU in pieces", _gelus, "rewrite to Gelu (opset 20)"),
    Check(
        "attention in a form that engines do not fuse",
        _attentions,
        "between its two products leave only a scale, an added mask and Softmax",
    ),
    Check(
        "normalisation behind convolutions",
        _norms_of_convolutions,
        "fold its scale into the weights and its shift into the bias",
    ),
    Check(
        "shapes computed at run time",
        _shapes,
        "fix the batch; one open axis needs none of it: Reshape takes -1",
    ),
    Check(
        "transposes between convolutions",
        _layouts,
        "push them through what stands between, until they meet and cancel",
    ),
    Check("weights stored twice", _twice, "let all of their uses name one initializer"),
]


# --- Ways through a graph -------------------------------------------------------------------------


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else []


def _meets_conv(node: ir.Node) -> bool:
    """Whether a transpose meets its reverse, and then a convolution, over elementwise nodes."""
    pending, seen = list(after(node)), set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type == "Transpose" and any(n.op_type == "Conv" for n in after(node)):
            return True
        if node.op_type in _ELEMENTWISE:
            pending.extend(after(node))
    return False


def _ends_in_product(softmax: ir.Node) -> bool:
    return any(node.op_type == "MatMul" for node in through(softmax, ("Cast", "Dropout")))


def _is_plain(softmax: ir.Node) -> bool:
    """Whether its scores come from a product by way of a scale and a sum only."""
    node = softmax
    while node.op_type in _BETWEEN:
        sources = [x.producer() for x in node.inputs if x is not None and x.producer()]
        product = [n for n in sources if n.op_type == "MatMul"]
        if product:
            return True
        onward = [n for n in sources if n.op_type in _BETWEEN]
        if not onward:
            return False
        node = onward[0]
    return False
