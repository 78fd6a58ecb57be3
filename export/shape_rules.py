"""Pattern rules that take shapes out of a graph: reshapes that do nothing, computed sizes.

tf2onnx works out every size that is open. What a Reshape needs of them it can find out by
itself (-1), and one length is that of all the tokens; after these rules a graph with an open
batch and length has one Shape for each.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from export.rule_helpers import constant, new, shape_of

# From here on, the end of a slice is that of the axis: tf2onnx writes a billion.
_END = 10**9


# --- Reshapes -----------------------------------------------------------------------------------


def _reshaped_twice(op, x, first, second):
    return op.Reshape(op.Reshape(x, first), second)


def _reshape_once(op, x, first, second):
    shape = constant(second)
    if shape is None or 0 in shape:
        return None
    return op.Reshape(x, second)


def _reshaped(op, x, shape):
    return op.Reshape(x, shape, _outputs=["y"])


def _as_it_was(op, x, shape, y):
    before, after = shape_of(x), constant(shape)
    if before is None or after is None or len(before) != len(after):
        return None
    unknown = [i for i, size in enumerate(before) if size is None]
    same = all(
        w == b or (w == -1 and (b is None or not unknown))
        for w, b in zip(after.tolist(), before, strict=True)
    )
    return op.Identity(x) if same and len(unknown) <= 1 else None


def _slice(op, x, starts, ends, axes, steps):
    return op.Slice(x, starts, ends, axes, steps, _outputs=["y"])


def _unsliced(op, x, starts, ends, axes, steps, y):
    before, after = shape_of(x), shape_of(y)
    whole = before is not None and before == after and None not in before
    if not whole:
        first, end = constant(starts), constant(ends)
        whole = first is not None and not first.any() and end is not None and end.min() >= _END
    return op.Identity(x) if whole and set(constant(steps).tolist()) == {1} else None


# --- An open axis -----------------------------------------------------------------------------


def _is_of(shape: ir.Value, x: ir.Value) -> bool:
    """Whether a shape is worked out from that of `x`, or of what it was made from row by row."""
    pending, seen = [shape], set()
    while pending:
        node = pending.pop().producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type == "Shape":
            return node.inputs[0] is x
        pending += [value for value in node.inputs if value is not None]
    return False


def _dense(op, x, flat, weight, shape):
    return op.Reshape(op.MatMul(op.Reshape(x, flat), weight), shape, _outputs=["y"])


def _product(op, x, flat, weight, shape, y):
    """A dense layer on [B, T, D] by way of [B * T, D]: MatMul takes it as it is."""
    sizes, matrix, sizes_after = shape_of(x), shape_of(weight), constant(shape)
    if sizes is None or matrix is None or len(sizes) != 3 or len(matrix) != 2:
        return None
    if sizes_after is None:
        same = _is_of(shape, x) and len(shape_of(y) or ()) == 3
    else:
        same = sizes_after.tolist() == [*sizes[:2], matrix[1]]
    return op.MatMul(x, weight) if same and constant(weight) is not None else None


def _sum_expanded(op, x, y, shape):
    return op.Add(x, op.Expand(y, shape))


def _sum_broadcast(op, x, y, shape):
    return op.Add(x, y) if _is_of(shape, x) else None


def _segments(op, x, table, ids):
    zeros = op.ConstantOfShape(op.Shape(ids), _allow_other_attributes=True, _outputs=["zeros"])
    return op.Add(x, op.Gather(table, zeros, axis=0))


def _one_segment(op, x, table, ids, zeros):
    rows, value = constant(table), zeros.producer().attributes.get_tensor("value", None)
    if rows is None or (value is not None and value.numpy().any()) or not _embeds(x, ids):
        return None
    return op.Add(x, new(op, rows[0], table, "first"))


def _embeds(x: ir.Value, ids: ir.Value) -> bool:
    """Whether x [B, T, D] is a sum with the embedding of ids [B, T]: it has a row for each."""
    node = x.producer()
    if node is None:
        return False
    if node.op_type == "Gather":
        return node.inputs[1] is ids
    return node.op_type == "Add" and any(_embeds(value, ids) for value in node.inputs)


def _reshaped_by(op, x, shape):
    return op.Reshape(x, op.Cast(shape, to=7))


def _one_unknown(op, x, shape):
    """A shape with one size that is computed: the elements decide that, -1 says so."""
    node = shape.producer()
    if node is None or node.op_type != "Concat":
        return None
    sizes = [constant(size) for size in node.inputs]
    known = [size for size in sizes if size is not None]
    if len(known) != len(sizes) - 1 or any(size.size != 1 or size < 1 for size in known):
        return None
    target = [-1 if size is None else size.item() for size in sizes]
    computed = shape_of(node.inputs[target.index(-1)])
    if computed != [1]:
        return None
    return op.Reshape(x, new(op, np.array(target, np.int64), shape, "shape"))


def _length_again(op, x, batch, length, width, starts, ends, axes):
    tokens = op.Reshape(x, op.Cast(op.Concat(batch, length, width, axis=0), to=7))
    return op.Slice(op.Cast(op.Shape(tokens), to=6), starts, ends, axes)


def _length_once(op, x, batch, length, width, starts, ends, axes):
    """The length of what was reshaped to (batch, length, width)."""
    slicing = [constant(v) for v in (starts, ends, axes)]
    second = all(v is not None for v in slicing) and [v.tolist() for v in slicing] == [
        [1],
        [2],
        [0],
    ]
    return op.Identity(length) if second else None


def _size_of_embedded(op, x, starts, ends, axes):
    return op.Slice(op.Cast(op.Shape(x), to=6), starts, ends, axes)


def _size_of_ids(op, x, starts, ends, axes):
    """Rows or length of an embedding [B, T, D] are those of its ids [B, T]."""
    source, slicing = _embedding(x), [constant(v) for v in (starts, ends, axes)]
    if source is not x or any(v is None or v.size != 1 for v in slicing):
        return None
    first, end, axis = (v.item() for v in slicing)
    ids = x.producer().inputs[1]
    if axis != 0 or not 0 <= first < end <= 2 or len(shape_of(ids) or ()) != 2:
        return None
    return op.Slice(op.Cast(op.Shape(ids), to=6), starts, ends, axes)


def _shape_of(op, x):
    return op.Shape(x, _allow_other_attributes=False)


def _shape_of_tokens(op, x):
    """Of normalised sums with an embedding [B, T, D]: the shape is the embedding's."""
    source = _embedding(x)
    return None if source is None or source is x else op.Shape(source)


def _embedding(x: ir.Value) -> ir.Value | None:
    """The output of Gather that x is a normalised sum with, as `_embeds` has it."""
    node = x.producer()
    if node is None:
        return None
    if node.op_type == "Gather":
        table, axis = constant(node.inputs[0]), node.attributes.get_int("axis", 0)
        return x if table is not None and table.ndim == 2 and axis == 0 else None
    if node.op_type == "LayerNormalization":
        return _embedding(node.inputs[0])
    summands = [_embedding(v) for v in node.inputs] if node.op_type == "Add" else []
    # What is added is as long as the sentence, or one row for all of it.
    return next((v for v in summands if v is not None), None)


RESHAPES = [
    RewriteRule(_reshaped_twice, _reshape_once, name="reshape_twice", remove_nodes=False),
    RewriteRule(_reshaped, _as_it_was, name="reshape_to_same"),
    RewriteRule(_slice, _unsliced, name="slice_of_all"),
]
OPEN_AXES = [
    RewriteRule(_dense, _product, name="dense_of_tokens"),
    RewriteRule(_sum_expanded, _sum_broadcast, name="expanded_sum"),
    RewriteRule(_segments, _one_segment, name="one_segment"),
    RewriteRule(_reshaped_by, _one_unknown, name="one_unknown", remove_nodes=False),
    RewriteRule(_length_again, _length_once, name="one_length", remove_nodes=False),
    RewriteRule(_size_of_embedded, _size_of_ids, name="size_of_ids", remove_nodes=False),
    RewriteRule(_shape_of, _shape_of_tokens, name="shape_of_tokens"),
]
