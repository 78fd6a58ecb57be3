"""The steps of an export, in order; each reads and writes files in one working folder."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir

from bench.edge.outputs import sigmoid, softmax
from export import ladder, rewrites, weights
from fusion_keras import metrics
from fusion_keras.errors import UsageError
from fusion_keras.label_sums import THRESHOLD

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What an exported graph takes: batch and token count, None where it stays open."""

    batch: int | None = 1
    length: int | None = None

    def of(self, inputs: dict[str, np.ndarray]) -> dict[str, list[int | None]]:
        """Input name -> shape, from arrays [N, ...] of examples."""
        shapes = {name: [self.batch, *array.shape[1:]] for name, array in inputs.items()}
        if "token_ids" in shapes:
            shapes["token_ids"] = [self.batch, self.length]
        return shapes


def run_apart(module: str, backend: str, *arguments: object) -> None:
    """Run `python -m module arguments` on a Keras backend, in a process of its own.

    Raises:
        UsageError: it failed; the message is its own sentence, or its last line.
    """
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-m", module, *map(str, arguments)]
    _log.debug("%s", " ".join(command))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.stderr:
        _log.debug("%s", done.stderr.rstrip())
    if done.returncode < 0:
        raise UsageError(f"{module} was killed (signal {-done.returncode}), perhaps out of memory.")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        said = next((x for x in reversed(lines) if x.startswith("error: ")), lines[-1])
        raise UsageError(
            said.removeprefix("error: ")
            if said.startswith("error: ")
            else f"{module} failed ({said.strip()})"
        )


def reference(run: Path, folder: Path, samples: int, without: str = "") -> None:
    """`inputs.npz`, `reference.npz` and `test.npz`; see `export.reference`."""
    run_apart("export.reference", "jax", run, folder, samples, without)


def convert(run: Path, folder: Path, shapes: Shapes, without: str = "") -> None:
    """`saved_model/`, `raw.onnx`, `weights.npz`, `tensorflow.npz`; see `export.convert`."""
    write_shapes(folder, shapes)
    run_apart("export.convert", "tensorflow", run, folder, without)


def write_shapes(folder: Path, shapes: Shapes) -> None:
    """`shapes.json`, for `export.convert`, of the examples in `inputs.npz`."""
    with np.load(folder / "inputs.npz") as inputs:
        values = shapes.of({name: inputs[name] for name in inputs.files})
    (folder / "shapes.json").write_text(json.dumps(values))


def rewrite(folder: Path) -> tuple[ir.Model, dict[str, int]]:
    """The portable graph, still with its taps as outputs, and how often each rule fired."""
    model = weights.assembled(folder)
    fired = rewrites.portable(model)
    return model, fired


def measured(outputs: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics of a graph's outputs over the test split, without intervals; of several labels a row
    those of all together."""
    if test["label"].ndim == 2:
        return metrics.label_metrics(sigmoid(outputs["logits"]), test["label"])
    known = {"scores": test["score"]} if "score" in test else {}
    if known and "score" in outputs:
        known["predicted_scores"] = outputs["score"][:, 0]
    return metrics.classification_metrics(softmax(outputs["logits"]), test["label"], **known)


def answers(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What a graph answers, [N]: the class's index, or where a row has several labels `as_text`."""
    if labels.ndim == 2:
        return as_text(sigmoid(logits) > THRESHOLD)
    return logits.argmax(axis=1)


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool [N]: whether a graph answers each row rightly, of several labels all of them."""
    return answers(logits, labels) == (as_text(labels) if labels.ndim == 2 else labels)


def as_text(labels: np.ndarray) -> np.ndarray:
    """0 or 1 [N, K] -> str [N], the indices of each row's labels with blanks between, "0 2"."""
    return np.array([" ".join(map(str, np.flatnonzero(row))) for row in labels], str)


def tensorflow_rungs(folder: Path, label_kind: str = "single") -> list[ladder.Rung]:
    """Keras on TensorFlow against JAX, and the SavedModel against that.

    Raises:
        UsageError: a failed parity check; names the first diverging tap.
    """
    with np.load(folder / "reference.npz") as a, np.load(folder / "tensorflow.npz") as b:
        outputs = {**{n: a[n] for n in a.files}, **{n: b[n] for n in b.files}}
    rungs = []
    for name, before in (("keras", "jax"), ("saved_model", "keras")):
        rung = ladder.compare(
            name,
            outputs[f"{name}/logits"],
            before,
            outputs[f"{before}/logits"],
            "float32",
            label_kind=label_kind,
        )
        ladder.check(rung, ladder.first_parting(_of(outputs, name), _of(outputs, before)))
        rungs.append(rung)
        if f"{before}/score" in outputs:
            scores = (outputs[f"{name}/score"], before, outputs[f"{before}/score"])
            rungs.append(ladder.compare_scores(name, *scores, "float32"))
            ladder.check(rungs[-1])
    return rungs


def _of(outputs: dict[str, np.ndarray], graph: str) -> dict[str, np.ndarray]:
    """What one graph gave."""
    return {n.removeprefix(f"{graph}/"): x for n, x in outputs.items() if n.startswith(f"{graph}/")}
