"""One export, from a run directory to an artifact."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import logging
import resource
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from export import accuracy, artifact, compiler, doctor, ladder, precisions, stages, weights
from export.cost import of_longest
from export.request import PRECISIONS, Request, described, trained_accuracy
from fusion_keras import terminal
from fusion_keras.errors import UsageError
from fusion_keras.exported import opened, run_onnx
from fusion_keras.files import digest

_log = logging.getLogger(__name__)
FILES = {"fp32": "model.onnx"} | {name: f"model.{name}.onnx" for name in PRECISIONS}
GOLDEN_ROWS = 8
# What a graph gives in the end.
OUTPUTS = ("logits", "score")
# Validation rows, ready for the model, that the bench times.
QUERY_ROWS = 64
_PACKAGES = ("tensorflow", "tf2onnx", "onnx", "onnx-ir", "onnxscript", "keras")


class _Clock:
    """Says what is being done, and how long it took."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, call, *arguments):
        start = time.perf_counter()
        with terminal.console().status(f"{name} ..."):
            result = call(*arguments)
        self.seconds[name] = time.perf_counter() - start
        _log.info("%-32s %6.1f s", name, self.seconds[name])
        return result


def export(request: Request) -> dict:
    """Write the artifact; returns its `meta.json`.

    Raises:
        UsageError: whatever the user can fix, or a failed parity check.
    """
    description = request.checked()
    lengths = request.lengths(description)
    open_length = request.dynamic or len(lengths) > 1
    shapes = stages.Shapes(
        batch=None if request.dynamic else request.batch,
        length=None if open_length or not lengths else lengths[-1],
    )
    clock = _Clock()
    with artifact.building(request.out) as folder:
        # Inside the folder, so that what a killed export leaves there goes with it.
        work = folder / "work"
        work.mkdir()
        label_kind = description.get("label_kind", "single")
        pad_id = description["inputs"].get("token_ids", {}).get("pad_id", 0)
        meta = _build(request, work, folder, shapes, lengths, pad_id, label_kind, clock)
        dtype = description["config"]["dtype"]
        if dtype != "float32":
            meta["notes"].append(f"trained in {dtype}; its graphs start from float32")
            if not request.without:
                fp32 = meta["models"]["fp32"]
                before = fp32["metrics"]["accuracy"] - fp32["accuracy_change"]
                meta["notes"].append(
                    f"fp32: measured in {dtype} the run had a test accuracy of "
                    f"{100 * trained_accuracy(request.run):.1f} %; graphs are held against what it "
                    f"answers in float32, {100 * before:.1f} %"
                )
        shutil.rmtree(work)
        meta = {
            **meta,
            **described(description, lengths),
            "shapes": dataclasses.asdict(shapes),
            "seconds": clock.seconds,
            "peak_bytes": _peak_bytes(),
            "packages": _packages(),
            "trained": description["provenance"],
            "model_sha256": digest(request.run / "model.keras"),
        }
        if "token_ids" in description["inputs"]:
            shutil.copy(request.run / "tokenizer.json", folder)
        artifact.seal(folder, meta)
    return meta


def _packages() -> dict[str, str]:
    """Package -> version; for ONNX Runtime what its module says: two packages bring that."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {**versions, "onnxruntime": onnxruntime.__version__}


@dataclasses.dataclass(frozen=True)
class _Evidence:
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


def _build(
    request: Request,
    work: Path,
    folder: Path,
    shapes: stages.Shapes,
    lengths: tuple,
    pad_id: int,
    label_kind: str,
    clock,
) -> dict:
    clock("Keras on JAX", stages.reference, request.run, work, request.samples, request.without)
    clock(
        "TensorFlow, SavedModel, tf2onnx",
        stages.convert,
        request.run,
        work,
        shapes,
        request.without,
    )
    rungs, models, predicted = stages.tensorflow_rungs(work, label_kind), {}, {}
    for made in ("saved_model", "queries"):
        shutil.move(work / made, folder / made)
    tapped, fired = clock("rewriting", stages.rewrite, work)
    portable = weights.without_taps(tapped)
    check_portable(portable)
    ir.save(portable, folder / FILES["fp32"])
    evidence = _Evidence(
        work,
        tapped,
        *(_load(work / f"{name}.npz") for name in ("inputs", "reference", "test")),
        request.allow_loss,
        label_kind,
    )
    saved = _load(work / "tensorflow.npz")
    before = {n: saved[f"saved_model/{n}"] for n in OUTPUTS if f"saved_model/{n}" in saved}
    against, notes, on_test = "saved_model", [], None
    for name in ("fp32", *request.precisions):
        if name != "fp32":
            source, target = folder / FILES["fp32"], folder / FILES[name]
            clock(name, precisions.lower, name, source, target, evidence.inputs)
        compared, answered = _compared(name, folder, against, before, evidence, clock)
        models[name], scored, change = _scored(name, folder, request.run, on_test, evidence, clock)
        predicted[name] = stages.answers(scored, evidence.test["label"])
        rungs += compared
        notes += [*ladder.notes(compared[0]), *accuracy.notes(change)]
        if name == "fp32":
            before, against, on_test = answered, "fp32", scored
            if shapes.batch is None:
                rungs.append(_together_rung(folder / FILES["fp32"], answered["logits"], evidence))
            shorter = (lengths, evidence.inputs, pad_id, label_kind)
            found = _bucket_rungs(folder / FILES["fp32"], answered["logits"], *shorter)
            rungs += found
            held = [rung.name for rung in found]
            notes += [
                f"{length} tokens: no validation row is as short, so nothing was compared there"
                for length in lengths[:-1]
                if f"{length} tokens" not in held
            ]
    compiled = {}
    if compiler.installed():
        # What TensorRT takes; the others are for ONNX Runtime.
        portable = [name for name in models if name != "int8"]
        files = [folder / FILES[name] for name in portable]
        compiled = dict(
            zip(portable, clock("compiling", compiler.compiled, files, lengths), strict=True)
        )
    _write_golden(folder, evidence)
    _write_test(folder / "test.csv", evidence.test, predicted)
    return {
        "models": models,
        "costs": of_longest(folder / FILES["fp32"], lengths[-1] if lengths else 0),
        "rewrites": fired,
        "ladder": [rung.described() for rung in rungs],
        "compiled": compiled,
        "allow_loss": request.allow_loss,
        "notes": notes,
    }


def kind_of(name: str) -> str:
    """The tolerances that a precision has."""
    return "float32" if name == "fp32" else name.split("_")[0]


def _compared(name: str, folder: Path, against: str, before: dict, evidence: _Evidence, clock):
    """The rungs of a model against the outputs of `against`, and its own outputs."""
    outputs = clock(f"{name}: parity", run_onnx, folder / FILES[name], evidence.inputs)
    judged = (kind_of(name), evidence.allow_loss, evidence.label_kind)
    rung = ladder.compare(name, outputs["logits"], against, before["logits"], *judged)
    if not rung.holds:
        ladder.check(rung, _first_parting(name, evidence))
    if "score" not in before:
        return [rung], outputs
    scores = ladder.compare_scores(name, outputs["score"], against, before["score"], judged[0])
    ladder.check(scores)
    return [rung, scores], outputs


def _together_rung(path: Path, logits, evidence: _Evidence) -> ladder.Rung:
    """A graph that takes any number of examples, three at a time against one by one."""
    answered = opened(path, 3)(evidence.inputs)["logits"]
    rung = ladder.compare(
        "3 at a time", answered, "fp32", logits, "float32", label_kind=evidence.label_kind
    )
    ladder.check(rung)
    return rung


def _bucket_rungs(
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


def _scored(name: str, folder: Path, run: Path, on_test, evidence: _Evidence, clock):
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


def _change(name: str, logits, run: Path, on_test, evidence: _Evidence) -> accuracy.Change:
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


def _write_golden(folder: Path, evidence: _Evidence) -> None:
    golden = {f"input_{n}": x[:GOLDEN_ROWS] for n, x in evidence.inputs.items()}
    for name in OUTPUTS:
        if f"jax/{name}" in evidence.reference:
            golden[f"output_{name}"] = evidence.reference[f"jax/{name}"][:GOLDEN_ROWS]
    np.savez(folder / "golden.npz", **golden)
    np.savez_compressed(
        folder / "queries.npz", **{n: x[:QUERY_ROWS] for n, x in evidence.inputs.items()}
    )


def _write_test(path: Path, test: dict, predicted: dict[str, np.ndarray]) -> None:
    """The test split as each precision answers it: class indices, of several labels a row with
    blanks between them, with ids and groups."""
    columns = {n: test[n] for n in ("id", "group", "label") if n in test}
    if columns["label"].ndim == 2:
        columns["label"] = stages.as_text(columns["label"])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *predicted])
        writer.writerows(zip(*columns.values(), *predicted.values(), strict=True))


def _first_parting(name: str, evidence: _Evidence) -> tuple[str, float] | None:
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


def check_portable(model: ir.Model) -> None:
    """Check the graph that TensorRT and ONNX Runtime both take.

    Raises:
        UsageError: an operator that one of them lacks, with its name.
    """
    for finding in doctor.examine(model):
        if finding.fatal:
            raise UsageError(
                f"The graph has {finding.what} ({', '.join(finding.where[:3])}): {finding.remedy}. "
                "Nothing was written."
            )


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _peak_bytes() -> int:
    """Most memory that this process or one that it started has held."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) * 1024
