"""One export, from a run directory to an artifact."""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import logging
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime

from export import (
    accuracy,
    artifact,
    compiler,
    doctor,
    judging,
    ladder,
    precisions,
    stages,
    weights,
)
from export.cost import of_longest
from export.judging import FILES, OUTPUTS
from export.request import Request, described, trained_accuracy
from fusion_keras import terminal
from fusion_keras.errors import UsageError
from fusion_keras.files import digest

_log = logging.getLogger(__name__)
GOLDEN_ROWS = 8
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
    evidence = judging.Evidence(
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
        compared, answered = judging.compared(name, folder, against, before, evidence, clock)
        models[name], scored, change = judging.scored(
            name, folder, request.run, on_test, evidence, clock
        )
        predicted[name] = stages.answers(scored, evidence.test["label"])
        rungs += compared
        notes += [*ladder.notes(compared[0]), *accuracy.notes(change)]
        if name == "fp32":
            before, against, on_test = answered, "fp32", scored
            if shapes.batch is None:
                rungs.append(
                    judging.together_rung(folder / FILES["fp32"], answered["logits"], evidence)
                )
            shorter = (lengths, evidence.inputs, pad_id, label_kind)
            found = judging.bucket_rungs(folder / FILES["fp32"], answered["logits"], *shorter)
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


def _write_golden(folder: Path, evidence: judging.Evidence) -> None:
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
