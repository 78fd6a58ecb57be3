"""How well an ONNX file will run: `python -m export.doctor MODEL.onnx`.

Looks at the graph alone, any graph, and says what engines will stumble over, with the
remedy. Exit code 0: nothing found; 1: something was; 2: no ONNX file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir
from rich.console import RenderableType
from rich.table import Table

from export import tensorrt_ops
from fusion_keras import cli, terminal
from fusion_keras.errors import UsageError

_LAYOUTS = ([0, 2, 3, 1], [0, 3, 1, 2])
_ELEMENTWISE = ("Add", "Clip", "Mul", "Relu", "Sub", "Div", "HardSwish", "Sigmoid")
# What a fused attention kernel takes between its two products.
_BETWEEN = ("Add", "Div", "Mul", "Softmax")
_TENSORFLOW = ("PartitionedCall", "StatefulPartitionedCall", "XlaCallModule")
_LARGE = 1 << 10


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that costs time or does not run.

    what: in a few words; where: names of nodes, inputs or weights; remedy: what to do;
    fatal: TensorRT, or every engine, refuses it.
    """

    what: str
    where: tuple[str, ...]
    remedy: str
    fatal: bool = False


def examine(model: ir.Model) -> list[Finding]:
    """Everything found in a graph, the worst first.

    What TensorRT lacks is not held against a graph that is for ONNX Runtime alone.
    """
    findings = []
    for check in _CHECKS:
        if check.tensorrt and for_onnxruntime(model):
            continue
        where = tuple(check.find(model))
        if where:
            findings.append(Finding(check.what, where, check.remedy, check.fatal))
    return findings


def for_onnxruntime(model: ir.Model) -> bool:
    """Whether a graph has ONNX Runtime's own operators, or int8 by scales of each example."""
    return any(
        node.domain == "com.microsoft" or node.op_type == "DynamicQuantizeLinear"
        for node in _nodes(model)
    )


@dataclasses.dataclass(frozen=True)
class _Check:
    what: str
    find: Callable[[ir.Model], Iterator[str]]
    remedy: str
    fatal: bool = False
    tensorrt: bool = False


# --- What to look for ---------------------------------------------------------------------------


def _of_tensorflow(model):
    yield from (_name(n) for n in _nodes(model) if n.op_type in _TENSORFLOW)


def _foreign(model):
    for node in _nodes(model):
        standard = node.domain in ("", "ai.onnx")
        known = standard and node.op_type in tensorrt_ops.OPERATORS | set(_TENSORFLOW)
        if not known and node.op_identifier() not in model.functions:
            yield f"{node.op_type} {_name(node)}"


def _opset(model):
    version = model.graph.opset_imports.get("", 0)
    if version not in tensorrt_ops.OPSETS:
        yield f"opset {version}"


def _wide_inputs(model):
    yield from (x.name for x in model.graph.inputs if x.dtype == ir.DataType.INT64)


def _bytes_as_numbers(model):
    floats = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    for value in model.graph.inputs:
        for node in value.consumers() if value.dtype == ir.DataType.UINT8 else ():
            if node.op_type != "Cast" or node.attributes["to"].as_int() not in floats:
                yield f"{value.name} into {_name(node)}"


def _dequantised_biases(model):
    for node in _nodes(model):
        if node.op_type == "DequantizeLinear" and node.inputs[0].dtype == ir.DataType.INT32:
            yield _name(node)


def _layer_norms(model):
    for node in _nodes(model):
        if node.op_type == "Sqrt":
            variance = _before(node.inputs[0], ("Add",))
            if variance and variance.op_type in ("ReduceMean", "GlobalAveragePool"):
                yield _name(node)


def _gelus(model):
    yield from (_name(n) for n in _nodes(model) if n.op_type == "Erf")


def _attentions(model):
    for node in _nodes(model):
        if node.op_type == "Softmax" and _ends_in_product(node) and not _is_plain(node):
            yield _name(node)


def _norms_of_convolutions(model):
    for node in _nodes(model):
        source = node.inputs[0].producer() if node.inputs and node.inputs[0] else None
        after = source is not None and source.op_type in ("Conv", "ConvTranspose")
        constant = all(x is not None and x.const_value is not None for x in node.inputs[1:])
        if after and constant and node.op_type in ("BatchNormalization", "Mul", "Add"):
            yield _name(node)


def _shapes(model):
    """More than one for each open axis: that many an embedding of positions needs."""
    open_axes = {
        str(size) for x in model.graph.inputs for size in x.shape or () if not isinstance(size, int)
    }
    computed = [_name(n) for n in _nodes(model) if n.op_type in ("Shape", "Size")]
    yield from computed if len(computed) > len(open_axes) else ()


def _layouts(model):
    """Transposes between two convolutions."""
    for node in _nodes(model):
        if node.op_type == "Transpose" and _perm(node) in _LAYOUTS:
            source = _before(node.inputs[0], _ELEMENTWISE)
            if source is not None and (source.op_type == "Conv" and _meets_conv(node)):
                yield _name(node)


def _twice(model):
    seen: dict[tuple, str] = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _LARGE:
            continue
        key = (tensor.dtype, tuple(tensor.shape), hashlib.sha256(tensor.tobytes()).digest())
        if key in seen:
            yield f"{name} = {seen[key]}"
        seen.setdefault(key, name)


_CHECKS = [
    _Check(
        "operators of TensorFlow's runtime, which no engine has",
        _of_tensorflow,
        "export on the TensorFlow backend, not on JAX; write grouped convolutions as "
        "DepthwiseConv2D",
        fatal=True,
    ),
    _Check(
        "operators that TensorRT lacks",
        _foreign,
        "give TensorRT the portable float32 or fp16 file; for int8, the one of QuantizeLinear and "
        "DequantizeLinear",
        fatal=True,
        tensorrt=True,
    ),
    _Check(
        "an opset that TensorRT does not take",
        _opset,
        "export with opset 17 to 20",
        fatal=True,
        tensorrt=True,
    ),
    _Check(
        "uint8 inputs that do more than become floats, which TensorRT lacks",
        _bytes_as_numbers,
        "cast them to float32 or float16 first of all",
        fatal=True,
        tensorrt=True,
    ),
    _Check(
        "DequantizeLinear of int32, which TensorRT lacks",
        _dequantised_biases,
        "leave biases in float32: QuantizeBias=False in onnxruntime.quantization",
        fatal=True,
        tensorrt=True,
    ),
    _Check("inputs of int64", _wide_inputs, "take int32: half the bytes, and no casts on a GPU"),
    _Check(
        "LayerNormalization in pieces, which engines do not fuse again",
        _layer_norms,
        "rewrite to LayerNormalization (opset 17)",
    ),
    _Check("GELU in pieces", _gelus, "rewrite to Gelu (opset 20)"),
    _Check(
        "attention in a form that engines do not fuse",
        _attentions,
        "between its two products leave only a scale, an added mask and Softmax",
    ),
    _Check(
        "normalisation behind convolutions",
        _norms_of_convolutions,
        "fold its scale into the weights and its shift into the bias",
    ),
    _Check(
        "shapes computed at run time",
        _shapes,
        "fix the batch; one open axis needs none of it: Reshape takes -1",
    ),
    _Check(
        "transposes between convolutions",
        _layouts,
        "push them through what stands between, until they meet and cancel",
    ),
    _Check("weights stored twice", _twice, "let all of their uses name one initializer"),
]


# --- Walking the graph --------------------------------------------------------------------------


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node, those of branches, loops and functions too."""
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        yield from graph.all_nodes()


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def _perm(node: ir.Node) -> list[int]:
    return list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else []


def _before(value: ir.Value | None, through: tuple[str, ...]) -> ir.Node | None:
    """The node that a value comes from, back through the first inputs of some operators."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in through:
        value = next((x for x in node.inputs if x is not None and x.producer()), None)
        node = value.producer() if value is not None else None
    return node


def _after(node: ir.Node) -> Iterator[ir.Node]:
    for output in node.outputs:
        yield from output.consumers()


def _meets_conv(node: ir.Node) -> bool:
    """Whether a transpose meets its reverse, and then a convolution, over elementwise nodes."""
    pending, seen = list(_after(node)), set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.op_type == "Transpose" and any(n.op_type == "Conv" for n in _after(node)):
            return True
        if node.op_type in _ELEMENTWISE:
            pending.extend(_after(node))
    return False


def _ends_in_product(softmax: ir.Node) -> bool:
    return any(node.op_type == "MatMul" for node in _through(softmax, ("Cast", "Dropout")))


def _through(node: ir.Node, kinds: tuple[str, ...]) -> Iterator[ir.Node]:
    for after in _after(node):
        yield from _through(after, kinds) if after.op_type in kinds else (after,)


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


# --- The command ------------------------------------------------------------------------------


def report(path: Path) -> tuple[bool, list[RenderableType]]:
    """Whether nothing was found in a file; and what it holds and what was found, to be printed.

    Raises:
        UsageError: the file is not there or is no ONNX model.
    """
    try:
        model = ir.load(path)
        operators = Counter(
            node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            for node in _nodes(model)
        )
        findings = examine(model)
        if not model.graph.opset_imports or not model.graph.outputs:
            raise ValueError("it has no graph")
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename or path} is not there.") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is no ONNX model that can be read ({reason}).") from None
    said = [
        f"{path}: {sum(operators.values())} nodes",
        "  " + ", ".join(f"{count} {name}" for name, count in operators.most_common()),
    ]
    if for_onnxruntime(model):
        said.append("For ONNX Runtime alone: TensorRT takes neither its operators nor this int8.")
    if not findings:
        return True, [*said, "Nothing found that an engine would stumble over."]
    table = Table("found", "times", "where", "remedy", show_lines=True)
    for finding in findings:
        names = "\n".join(name[-40:] for name in finding.where[:3])
        table.add_row(finding.what, str(len(finding.where)), names, finding.remedy)
    return False, [*said, table]


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        sys.exit(0 if "--help" in sys.argv else 2)
    healthy = True

    def run():
        nonlocal healthy
        healthy, said = report(Path(sys.argv[1]))
        terminal.print_results(*said)

    cli.guarded(run)
    sys.exit(0 if healthy else 1)


if __name__ == "__main__":
    main()
