"""How well an ONNX file will run: `python -m export.doctor MODEL.onnx`.

Looks at the graph alone, any graph: its operators, types, ranks, versions and numbers. Says what
engines will stumble over, with the remedy. Exit code 0: nothing found; 1: something was; 2: no
ONNX file.

With --compile=tensorrt NVIDIA's own compiler is asked, too, for a GPU like an Orin's (sm86); no GPU
is needed: pip install -e ".[tensorrt-rtx]". What it refuses is found, with its own words. Where
the length of sentences is open, those of the artifact around the file are compiled, or 64 tokens.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections import Counter
from pathlib import Path

import onnx
import onnx_ir as ir
from rich.console import RenderableType
from rich.table import Table

from bench.edge import artifact, flags
from bench.edge.errors import BenchError
from export import compiler
from export.checks import branches, fusions, operators, quantisation, values
from export.checks.graph import STANDARD, nodes
from fusion_keras import cli, terminal
from fusion_keras.errors import UsageError

# Where nothing says how long sentences are.
_LENGTH = 64
# What ends a build, then what gives wrong answers, then what costs time.
_ROOMS = (operators, quantisation, branches, values, fusions)
CHECKS = sorted((c for room in _ROOMS for c in room.CHECKS), key=lambda check: not check.fatal)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that costs time, answers wrong or does not run.

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
    for check in CHECKS:
        if check.tensorrt and for_onnxruntime(model):
            continue
        where = tuple(check.find(model))
        if where:
            findings.append(Finding(check.what, where, check.remedy, check.fatal))
    return findings


def invalid(path: Path) -> list[Finding]:
    """What ONNX's own checker says of a file: operators, inputs, types, shapes, cycles.

    Weights beside the model are not read; a model that is too large to be checked in memory is by
    its shapes alone.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        if not any(
            onnx.external_data_helper.uses_external_data(x) for x in model.graph.initializer
        ):
            onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        said = " ".join(str(error).split())[:200]
        remedy = "export the model anew, or mend the node that is named"
        return [Finding("no valid ONNX: no engine takes it", (said,), remedy, fatal=True)]
    return []


def refused(path: Path) -> list[Finding]:
    """What NVIDIA's compiler does not take of a file; see `export.compiler`.

    Raises:
        UsageError: it is not installed.
    """
    if not compiler.installed():
        raise UsageError(
            "--compile=tensorrt wants NVIDIA's compiler: pip install -e '.[tensorrt-rtx]' (Linux "
            "on x86-64)."
        )
    try:
        lengths = artifact.read(path.parent)["lengths"]
    except BenchError:
        lengths = []
    try:
        compiler.compiled([path], lengths or [_LENGTH])
    except compiler.RefusedError as error:
        remedy = "see its words; TensorRT on a device will refuse it likewise"
        nodes = [f"{operator} {name}: {said}" for name, operator, said in error.nodes]
        where = tuple(nodes or [str(error)])
        return [Finding("NVIDIA's compiler refuses it", where, remedy, fatal=True)]
    return []


def for_onnxruntime(model: ir.Model) -> bool:
    """Whether a graph has ONNX Runtime's own operators, or int8 by scales of each example."""
    return any(
        node.domain == "com.microsoft" or node.op_type == "DynamicQuantizeLinear"
        for node in nodes(model)
    )


def load(path: Path) -> ir.Model:
    """A model; links are followed to it and to the files of its weights.

    onnx_ir reads no weights that a link leads to outside of the model's folder: a path in a file
    may come from anyone. Links are the user's own, as in a cache of models; names that leave the
    folder stay refused.
    """
    model = ir.load(path)
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _followed(value.const_value, path)
    return model


def _followed(tensor: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    location = Path(tensor.location)
    if location.is_absolute() or ".." in location.parts:
        return tensor
    # Beside the link, or where only the model is one, beside what it leads to.
    beside = (path.parent / location, path.resolve().parent / location)
    found = next((file for file in beside if file.exists()), beside[0])
    return ir.ExternalTensor(
        os.path.realpath(found),
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
    )


# --- The command ------------------------------------------------------------------------------


def looked_at(path: Path, compiling: bool = False) -> tuple[Counter[str], bool, list[Finding]]:
    """What a file holds, by operator; whether it is for ONNX Runtime alone; and what was found.

    Args:
        compiling: whether NVIDIA's compiler is asked.

    Raises:
        UsageError: the file is not there or is no ONNX model.
    """
    if path.is_dir():
        files = sorted(file.name for file in path.glob("*.onnx"))
        inside = f"its {', '.join(files)}" if files else "a file that ends in .onnx"
        raise UsageError(f"{path} is a folder: give {inside}.")
    try:
        model = load(path)
        operators = Counter(
            node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
            for node in nodes(model)
        )
        findings = [*invalid(path), *examine(model)]
        if not model.graph.opset_imports or not model.graph.outputs:
            raise ValueError("it has no graph")
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename or path} is not there.") from None
    except Exception as error:
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise UsageError(
            f"{path} is no ONNX model that can be read ({reason}): give a whole .onnx file."
        ) from None
    if compiling:
        findings += refused(path)
    return operators, for_onnxruntime(model), findings


def report(path: Path, compiling: bool = False) -> tuple[bool, list[RenderableType]]:
    """Whether nothing was found in a file; and what it holds and what was found, to be printed.

    As `looked_at`.
    """
    operators, alone, findings = looked_at(path, compiling)
    said = [
        f"{path}: {sum(operators.values())} nodes",
        "  " + ", ".join(f"{count} {name}" for name, count in operators.most_common()),
    ]
    if alone:
        said.append("For ONNX Runtime alone: TensorRT takes neither its operators nor this int8.")
    if not findings:
        also = ", and NVIDIA's compiler takes it" if compiling else ""
        return True, [*said, f"Nothing found that an engine would stumble over{also}."]
    table = Table("found", "times", "where", "remedy", show_lines=True)
    for finding in findings:
        names = "\n".join(_short(name) for name in finding.where[:3])
        table.add_row(finding.what, str(len(finding.where)), names, finding.remedy)
    return False, [*said, table]


def as_json(path: Path, compiling: bool = False) -> tuple[bool, dict]:
    """As `report`, for JSON."""
    operators, alone, findings = looked_at(path, compiling)
    return not findings, {
        "file": str(path),
        "operators": dict(operators.most_common()),
        "onnxruntime_alone": alone,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _short(name: str) -> str:
    """A place in at most 60 letters: the number before a long name, and the name's end.

    A compiler's words stay whole.
    """
    return name if len(name) <= 60 or " " in name else f"{name[:20]}...{name[-37:]}"


def main(arguments: list[str]) -> int:
    parser = flags.parser("export.doctor", __doc__, json="what was found")
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file of any origin")
    parser.add_argument("--compile", choices=["tensorrt"], help="ask NVIDIA's compiler, too")
    options = parser.parse_args(arguments)
    healthy = True

    def run() -> None:
        nonlocal healthy
        if options.json:
            healthy, found = as_json(options.model, bool(options.compile))
            print(json.dumps(found))
        else:
            healthy, said = report(options.model, bool(options.compile))
            terminal.print_results(*said)

    cli.guarded(run)
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
