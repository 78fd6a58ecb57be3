"""What pattern rules are made with: constants and shapes of values, new initializers."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript.rewriter import RewriteRule, RewriteRuleSet

_count = itertools.count()


def tidy(model: ir.Model) -> None:
    """Take away what no output needs, and nodes that only pass on."""
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)


def apply(rules: list[RewriteRule], model: ir.Model) -> dict[str, int]:
    """Apply each rule once over the graph; how often each fired."""
    return {rule.name: RewriteRuleSet([rule]).apply_to_model(model) for rule in rules}


def constant(value: ir.Value | None) -> np.ndarray | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def scalar(value: ir.Value) -> float | None:
    values = constant(value)
    return None if values is None or values.size != 1 else float(values.reshape(()))


def shape_of(value: ir.Value) -> list | None:
    """Sizes, None where one is not known; None for an unknown rank."""
    if value.shape is None:
        return None
    return [int(d) if isinstance(d, int) else None for d in value.shape]


def vector(value: ir.Value, size: int | None = None) -> np.ndarray | None:
    """A constant that varies along its last axis only, as a vector; a scalar is repeated."""
    values = constant(value)
    if values is None:
        return None
    if values.size == 1 and size:
        return np.full(size, values.reshape(()), values.dtype)
    if values.ndim == 0 or values.size != values.shape[-1] or (size and values.size != size):
        return None
    return values.reshape(-1)


def new(op, array: np.ndarray, of: ir.Value, what: str) -> ir.Value:
    """A new initializer, named after the one that it replaces, which several may share."""
    name = f"{of.name}/{what}{next(_count)}"
    return op.initializer(ir.tensor(np.ascontiguousarray(array)), name=name)


def source(value: ir.Value, *operators: str) -> ir.Value | None:
    """What goes into a chain of single-input operators that ends in `value`."""
    for operator in operators:
        node = value.producer()
        if node is None or node.op_type != operator:
            return None
        value = node.inputs[0]
    return value
