"""An artifact of a graph that has learned nothing yet, to be timed before it is trained.

How long a graph takes hardly depends on its weights. A search measures a draft, and puts the
weights into its graph later: nothing is converted twice.

`python -m export.draft`, on Keras' TensorFlow backend, makes one after another, each in a process
forked from one that has TensorFlow loaded: to load it takes as long as to convert a small model.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from export import artifact, convert, ladder, precisions, stages, weights
from export.judging import FILES, kind_of
from export.pipeline import GOLDEN_ROWS, QUERY_ROWS, check_portable
from export.request import described
from fusion_keras import cli
from fusion_keras.exported import run_onnx
from fusion_keras.interrupts import end_with_parent
from fusion_keras.training.run import read_json

RAW = "raw.onnx"


def make(run: Path, out: Path, wanted: tuple[str, ...]) -> None:
    """Write an artifact of a model that has not been trained: no test split, no SavedModel.

    Args:
        run: a folder with `config.json`, as a run has it, `model.keras`, `inputs.npz`, validation
            rows as the model takes them, name -> [N, ...], and `reference.npz`, what JAX says of
            them, `logits` [N, C].
        wanted: precisions.

    Raises:
        UsageError: the graph cannot be converted, or answers otherwise than JAX.
    """
    description = read_json(run / "config.json")
    inputs, reference = _load(run / "inputs.npz"), _load(run / "reference.npz")
    ids = inputs.get("token_ids")
    lengths = [ids.shape[1]] if ids is not None else []
    shapes = stages.Shapes(1, lengths[0] if lengths else None)
    label_kind = description.get("label_kind", "single")
    with artifact.building(out) as folder:
        work = folder / "work"
        work.mkdir()
        shutil.copy(run / "inputs.npz", work)
        stages.write_shapes(work, shapes)
        convert.main(run, work, graph_alone=True)
        graph = weights.without_taps(stages.rewrite(work)[0])
        check_portable(graph)
        shutil.move(work / RAW, folder / RAW)
        _write(graph, folder, wanted, inputs)
        rows = {name: array[:QUERY_ROWS] for name, array in inputs.items()}
        expected = reference["logits"][:QUERY_ROWS]
        rungs = []
        for name in dict.fromkeys(("fp32", *wanted)):
            logits = run_onnx(folder / FILES[name], rows)["logits"]
            kind = "draft" if name == "fp32" else kind_of(name)
            rung = ladder.compare(name, logits, "jax", expected, kind, label_kind=label_kind)
            if name != "fp32":
                few = slice(GOLDEN_ROWS)
                golden = ladder.compare(name, logits[few], "jax", expected[few], kind)
                rung = ladder.widened(rung, golden)
            rungs.append(rung)
        ladder.check(rungs[0])
        shutil.rmtree(work)
        golden = {f"input_{name}": array[:GOLDEN_ROWS] for name, array in inputs.items()}
        np.savez(folder / "golden.npz", **golden, output_logits=expected[:GOLDEN_ROWS])
        np.savez_compressed(folder / "queries.npz", **rows)
        # Nothing that has not learned is tested.
        (folder / "test.csv").write_text(f"label,{','.join(wanted)}\n")
        meta = {
            **described(description, lengths),
            "shapes": dataclasses.asdict(shapes),
            "models": {name: _described(folder / FILES[name]) for name in wanted},
            "ladder": [rung.described() for rung in rungs],
        }
        artifact.seal(folder, meta)


def answer(
    draft: Path, values: Path, inputs: Path, target: Path, wanted: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """What a draft's graph says with trained weights in it.

    Args:
        draft: an artifact that `make` wrote.
        values: weights by the names that the graph has for them; see `export.convert`.
        inputs: rows, name -> [N, ...].
        target: the .npz file to write.
        wanted: precisions.

    Returns:
        Precision -> logits [N, C], as written.
    """
    rows = _load(inputs)
    with tempfile.TemporaryDirectory(dir=target.parent) as place:
        folder = Path(place)
        shutil.copy(draft / RAW, folder / RAW)
        (folder / "weights.npz").symlink_to(values.resolve())
        _write(weights.without_taps(stages.rewrite(folder)[0]), folder, wanted, rows)
        said = {name: run_onnx(folder / FILES[name], rows)["logits"] for name in wanted}
    np.savez(target, **said)
    return said


def _write(graph: ir.Model, folder: Path, wanted: tuple[str, ...], inputs: dict) -> None:
    """The graph at each precision; float32 in any case, of which the others are made."""
    source = folder / FILES["fp32"]
    ir.save(graph, source)
    for name in wanted:
        if name != "fp32":
            few = {n: array[:: max(1, len(array) // QUERY_ROWS)] for n, array in inputs.items()}
            precisions.lower(name, source, folder / FILES[name], few)


def _described(path: Path) -> dict:
    nodes = len(onnx.load(path, load_external_data=False).graph.node)
    return {"file": path.name, "nodes": nodes, "metrics": {"accuracy": None}}


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def serve() -> None:
    """Do what the lines of stdin ask for, and print each one's exit code.

    A line is a JSON list: the log to write, "make" or "answer", and its arguments as text,
    precisions with commas between them.
    """
    answers = os.fdopen(os.dup(1), "w")
    # What libraries print is no answer.
    os.dup2(2, 1)
    # Who asks decides when it is over, and this ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    # Of forks of a process with threads. Those that are there by now, of numpy, hold nothing.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded")
    for line in sys.stdin:
        process = multiprocessing.get_context("fork").Process(target=_work, args=json.loads(line))
        process.start()
        process.join()
        print(process.exitcode, file=answers, flush=True)


def _work(log: str, task: str, *arguments: str) -> None:
    end_with_parent()
    *paths, wanted = arguments
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    do = {"make": make, "answer": answer}[task]
    cli.guarded(lambda: do(*map(Path, paths), tuple(wanted.split(","))))


if __name__ == "__main__":
    serve()
