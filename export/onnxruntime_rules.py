"""Pattern rules for a graph that only ONNX Runtime will run: before dynamic quantisation.

Its quantiser knows `MatMul` and `Attention`, not `Gemm`. One `Attention` holds the three
products that share an input, so the input is quantised once and the products are one: a
twentieth of the latency of inter at full size. Its other fused operators are left alone:
with SkipLayerNormalization and BiasGelu the sums no longer fuse with the quantised products,
and the same graph was a tenth slower.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from export.arithmetic_rules import LOWEST
from export.rule_helpers import apply, constant, new, source, tidy

_DOMAIN = "com.microsoft"


def tune(model: ir.Model) -> dict[str, int]:
    """Rewrite a portable model in place; how often each rule fired."""
    model.graph.opset_imports[_DOMAIN] = 1
    fired = apply(RULES, model)
    tidy(model)
    return fired


def _whole_gemm(op, x, w, b):
    return op.Gemm(x, w, b, _outputs=["y"])


def _matmul(op, x, w, b, y):
    node = y.producer()
    plain = all(node.attributes.get_int(n, 0) == 0 for n in ("transA", "transB"))
    return op.Add(op.MatMul(x, w), b) if plain else None


def _attended(mask: bool):
    """Self-attention over x [B * T, D] as the portable graph has it, heads [B, T, H, D / H]."""

    def dense(op, x, weight, bias, heads, perm):
        product = op.Add(op.MatMul(x, weight), bias)
        return op.Transpose(op.Reshape(product, heads), perm=perm)

    def of(op, x, wq, bq, wk, bk, wv, bv, heads, flat, away=None):
        query = dense(op, x, wq, bq, heads, [0, 2, 1, 3])
        key = dense(op, x, wk, bk, heads, [0, 2, 3, 1])
        value = dense(op, x, wv, bv, heads, [0, 2, 1, 3])
        scores = op.MatMul(query, key)
        if mask:
            scores = op.Add(scores, away)
        shares = op.Softmax(scores, _allow_other_attributes=True, _outputs=["shares"])
        attended = op.Transpose(op.MatMul(shares, value), perm=[0, 2, 1, 3])
        return op.Reshape(attended, flat)

    def masked(op, x, wq, bq, wk, bk, wv, bv, heads, flat, away):
        return of(op, x, wq, bq, wk, bk, wv, bv, heads, flat, away)

    def plain(op, x, wq, bq, wk, bk, wv, bv, heads, flat):
        return of(op, x, wq, bq, wk, bk, wv, bv, heads, flat)

    return masked if mask else plain


def _attention(op, x, wq, bq, wk, bk, wv, bv, heads, flat, shares, away=None):
    weights, biases = ([constant(v) for v in values] for values in ((wq, wk, wv), (bq, bk, bv)))
    shape = constant(heads)
    last = shares.producer().attributes.get_int("axis", -1) in (-1, 3)
    if not last or shape is None or any(v is None for v in (*weights, *biases)):
        return None
    keys = None if away is None else _key_mask(away)
    if away is not None and keys is None:
        return None
    batch, length, count, depth = shape.tolist()
    rows = new(op, np.array([batch, length, count * depth], np.int64), heads, "rows")
    y = op.Attention(
        op.Reshape(x, rows),
        new(op, np.concatenate(weights, axis=1), wq, "qkv"),
        new(op, np.concatenate(biases), bq, "qkv"),
        *([] if keys is None else [keys]),
        num_heads=count,
        scale=1.0,  # the portable rules have folded it into the weights of the query
        mask_filter_value=LOWEST,
        _domain=_DOMAIN,
    )
    return op.Reshape(y, flat)


def _key_mask(away: ir.Value) -> ir.Value | None:
    """int32 [B, T], 1 for real tokens, of what hides the others: lowest * not keep."""
    times = away.producer()
    if times is None or times.op_type != "Mul":
        return None
    for gone in times.inputs:
        mask = source(gone, "Cast", "Not", "Cast", "Unsqueeze")
        if mask is not None and _is_rows(mask):
            return mask
    return None


def _is_rows(mask: ir.Value) -> bool:
    return mask.shape is not None and len(mask.shape) == 2 and mask.dtype == ir.DataType.INT32


RULES = [
    RewriteRule(_whole_gemm, _matmul, name="gemm_to_matmul"),
    RewriteRule(_attended(mask=True), _attention, name="masked_attention"),
    RewriteRule(_attended(mask=False), _attention, name="attention"),
]
