"""What TensorRT asks of the two branches of an If.

onnx-tensorrt, docs/operators.md at 10.1-GA: "Output tensors of the two conditional branches must
have the same rank"; TensorRT's operators, If: "unless the condition is a build-time constant".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir
import onnx_ir.passes.common as passes

from export.checks.graph import Check, constant, name, nodes

# Elements: axes and shapes, no weights.
_SMALL = 64


def _ranks(model):
    if not any(_differ(model, unknown=True)):
        return
    for node, then, other in _differ(_inferred(model), unknown=False):
        yield f"{name(node)}: rank {then} or {other}"


def _differ(model: ir.Model, unknown: bool) -> Iterator[tuple]:
    """(If, rank of an output from one branch, from the other) where they differ or may."""
    for node in nodes(model, "If"):
        if constant(node.inputs[0]) is not None:
            continue
        branches = (node.attributes[f"{which}_branch"].as_graph() for which in ("then", "else"))
        for pair in zip(*(branch.outputs for branch in branches), strict=False):
            ranks = [None if value.shape is None else len(value.shape) for value in pair]
            if unknown if None in ranks else ranks[0] != ranks[1]:
                yield node, *ranks


def _inferred(model: ir.Model) -> ir.Model:
    """A copy with the shapes that ONNX works out, constants standing in the branch that uses them.

    Its inference sees none from outside of a branch, so that a Squeeze there has no rank.
    """
    model = model.clone()
    for graph in model.graphs():
        for node in list(graph):
            for index, value in enumerate(node.inputs):
                tensor = None if value is None else ir.convenience.get_const_tensor(value)
                if tensor is None or value.graph is graph or tensor.size > _SMALL:
                    continue
                inside = ir.node("Constant", [], {"value": tensor})
                inside.outputs[0].name = f"{value.name}/{name(node)}/{index}"
                graph.insert_before(node, inside)
                node.replace_input_with(index, inside.outputs[0])
    passes.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return model


CHECKS = [
    Check(
        "If branches of different rank, which TensorRT refuses",
        _ranks,
        "give both outputs one rank (Unsqueeze or Reshape the lower), or fold the condition into a "
        "constant: fixed shapes and onnxscript.optimizer.optimize",
        fatal=True,
        tensorrt=True,
    ),
]
