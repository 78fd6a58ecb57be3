"""What checks are made with: what a check is, nodes, constants, ways through a graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

STANDARD = ("", "ai.onnx")


@dataclasses.dataclass(frozen=True)
class Check:
    """Something to look for.

    what: the fault and why it is one, in a few words; find: names of what has it; remedy: what to
    do; fatal: TensorRT, or every engine, refuses it; tensorrt: other engines take it.
    """

    what: str
    find: Callable[[ir.Model], Iterator[str]]
    remedy: str
    fatal: bool = False
    tensorrt: bool = False


def nodes(model: ir.Model, *kinds: str) -> Iterator[ir.Node]:
    """Every node, those of branches, loops and functions too; of some standard operators or all."""
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        for node in graph.all_nodes():
            if not kinds or (node.domain in STANDARD and node.op_type in kinds):
                yield node


def inputs(model: ir.Model) -> list[ir.Value]:
    """What is given with each query: older files list their weights among the inputs, too."""
    return [x for x in model.graph.inputs if x.name not in model.graph.initializers]


def opset(model: ir.Model) -> int | None:
    """The version of the standard operators, whose domain has two names."""
    versions = [v for domain, v in model.graph.opset_imports.items() if domain in STANDARD]
    return max(versions, default=None)


def name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def given(node: ir.Node, index: int) -> ir.Value | None:
    """An input of a node; None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or of a Constant node; None for what is computed."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def trains(node: ir.Node) -> bool:
    """Whether a BatchNormalization is in training mode: before opset 14 by its further outputs."""
    outputs = [output for output in node.outputs if output.name]
    return bool(node.attributes.get_int("training_mode", 0)) or len(outputs) > 1


def after(node: ir.Node) -> Iterator[ir.Node]:
    for output in node.outputs:
        yield from output.consumers()


def through(node: ir.Node, kinds: tuple[str, ...]) -> Iterator[ir.Node]:
    """The nodes behind one, those behind some operators instead of these."""
    for follower in after(node):
        yield from through(follower, kinds) if follower.op_type in kinds else (follower,)


def before(value: ir.Value | None, kinds: tuple[str, ...]) -> ir.Node | None:
    """The node that a value comes from, back through the first inputs of some operators."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in kinds:
        value = next((x for x in node.inputs if x is not None and x.producer()), None)
        node = value.producer() if value is not None else None
    return node
