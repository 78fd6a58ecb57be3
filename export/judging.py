"""What each graph of an export is judged by: its rungs, and what it loses of the test split."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from export import accuracy, doctor, ladder, precisions, stages
from export.request import PRECISIONS, trained_accuracy
from fusion_keras.errors import UsageError
from fusion_keras.exported import opened, run_onnx

FILES = {"fp32": "model.onnx"} | {name: f"model.{name}.onnx" for name in PRECISIONS}
# What a graph gives in the end.
OUTPUTS = ("logits", "score")


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the graphs of an export are judged by; arrays name -> [N, ...].

    work: the working folder; tapped: the portable graph with its taps as outputs; inputs:
    validation rows; reference: what JAX says of them; test: inputs and labels of the test split;
    allow_loss: points of accuracy that may be lost, if the user says so; label_kind: "single", one
    label a row, or "multi".
    """

    work: Path
    tapped: ir.Model
    inputs: dict[str, np.ndarray]
    reference: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    allow_loss: float | None = None
    label_kind: str = "single"


def kind_of(name: str) -> str:
    """The tolerances that a precision has."""
    return "float32" if name == "fp32" else name.split("_")[0]


def compared(name: str, folder: Path, against: str, before: dict, evidence: Evidence, clock):
    """The rungs of a model against the outputs of `against`, and its own outputs."""
    outputs = clock(f"{name}: parity", run_onnx, folder / FILES[name], evidence.inputs)
    judged = (kind_of(name), evidence.allow_loss, evidence.label_kind)
    rung = ladder.compare(name, outputs["logits"], against, before["logits"], *judged)
    if not rung.holds:
        ladder.check(rung, first_parting(name, evidence))
    if "score" not in before:
        return [rung], outputs
    scores = ladder.compare_scores(name, outputs["score"], against, before["score"], judged[0])
    ladder.check(scores)
    return [rung, scores], outputs


def together_rung(path: Path, logits, evidence: Evidence) -> ladder.Rung:
    """A graph that takes any number of examples, three at a time against one by one."""
    answered = opened(path, 3)(evidence.inputs)["logits"]
    rung = ladder.compare(
        "3 at a time", answered, "fp32", logits, "float32", label_kind=evidence.label_kind
    )
    ladder.check(rung)
    return rung


def bucket_rungs(
    path: Path, logits, lengths: tuple, inputs: dict, pad_id: int, label_kind: str = "single"
) -> list[ladder.Rung]:
    """A rung for each shorter bucket that holds any of the sentences: they, against the same padded
    on."""
    rungs = []
    for length in lengths[:-1]:
        ids = inputs["token_ids"]
        short = (ids[:, length:] == pad_id).all(axis=1)
        if short.any():
            rows = {name: array[short] for name, array in inputs.items()}
            rows["token_ids"] = ids[short, :length]
            answered = run_onnx(path, rows)["logits"]
            named = (f"{length} tokens", answered, "fp32", logits[short], "float32")
            rungs.append(ladder.compare(*named, label_kind=label_kind))
            ladder.check(rungs[-1])
    return rungs


def scored(name: str, folder: Path, run: Path, on_test, evidence: Evidence, clock):
    """What `meta.json` says of a model, its logits of the test rows, [N, C], and what it lost.

    on_test: the logits of fp32, if they are known.
    """
    test = evidence.test
    _check_valid(folder / FILES[name])
    outputs = clock(f"{name}: test split", run_onnx, folder / FILES[name], test)
    change = _change(name, outputs["logits"], run, on_test, evidence)
    accuracy.check(change)
    graph = onnx.load(folder / FILES[name], load_external_data=False).graph
    model = {
        "file": FILES[name],
        "nodes": len(graph.node),
        "operators": dict(Counter(node.op_type for node in graph.node).most_common()),
        "metrics": stages.measured(outputs, test),
        **change.described(),
    }
    return model, outputs["logits"], change


def _change(name: str, logits, run: Path, on_test, evidence: Evidence) -> accuracy.Change:
    """What a model lost: fp32 of the run as it was trained, the others of fp32, row by row."""
    test, kind, allowed = evidence.test, kind_of(name), evidence.allow_loss
    right = stages.right(logits, test["label"])
    if on_test is not None:
        before = stages.right(on_test, test["label"])
        rung = ladder.compare(name, logits, "fp32", on_test, kind, label_kind=evidence.label_kind)
        return accuracy.change_of(name, kind, float(before.mean()), right, before, rung, allowed)
    if "right" in test:
        before = float(test["right"].mean())
        return accuracy.change_of(name, kind, before, right, test["right"], allow_loss=allowed)
    return accuracy.change_of(name, kind, trained_accuracy(run), right, allow_loss=allowed)


def first_parting(name: str, evidence: Evidence) -> tuple[str, float] | None:
    """Where a precision parts from float32, or that from what JAX says: tap and difference."""
    plain, lower = evidence.work / "tapped.onnx", evidence.work / "tapped.lower.onnx"
    ir.save(evidence.tapped, plain)
    taps = run_onnx(plain, evidence.inputs)
    if name == "fp32":
        expected = {n.removeprefix("jax/"): x for n, x in evidence.reference.items()}
        return ladder.first_parting(taps, expected)
    precisions.lower(name, plain, lower, evidence.inputs)
    return ladder.first_parting(run_onnx(lower, evidence.inputs), taps, kind_of(name))


def _check_valid(path: Path) -> None:
    """Check a file that was written, with ONNX's own checker.

    Raises:
        UsageError: its words.
    """
    for finding in doctor.invalid(path):
        raise UsageError(
            f"{path.name} is {finding.what} ({finding.where[0]}). Nothing was written."
        )
