"""What the trained run itself says, on JAX: the first rung of the parity ladder.

Runs in a process of its own (`python -m export.reference RUN FOLDER SAMPLES WITHOUT`), because a
process has one Keras backend.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from export.request import kept
from fusion_keras import cli
from fusion_keras.modalities import MODALITY
from fusion_keras.training.evaluate import predict, right
from fusion_keras.training.restored import restore
from fusion_keras.training.task import Task

# What an artifact takes along of the validation rows as they came, for the bench.
RAW_ROWS = 32


def main(run: Path, folder: Path, samples: int, without: str = "") -> None:
    """Write `inputs.npz`, `reference.npz` and the whole test split into `folder`.

    `inputs.npz` holds the first `samples` validation rows, input name -> [N, ...];
    `reference.npz` the outputs and taps for them, [N, ...] and `jax/` before their names.
    `test.npz` holds inputs, `id`, `label` and perhaps `score` and `group` of every test row, and
    `right`, whether a run that is not measured as trained answers it rightly.
    `queries/` has a few validation rows as they came: `texts.json`, and images and sounds as files.
    """
    task = restore(run)
    rows = task.rows["valid"][:samples]
    names = [x.name for x in task.graph.model.inputs]
    taps = task.graph.taps()
    if without:
        names = kept(names, without)
        present = MODALITY[without].present
        task.arrays[present] = np.zeros_like(task.arrays[present])
        gone = task.graph.taps(without)
        taps = {n: x for n, x in taps.items() if n not in gone}
    inputs = {n: np.asarray(task.arrays[n][rows]) for n in names}
    tapped = keras.Model(
        {x.name: x for x in task.graph.model.inputs}, {**task.graph.model.output, **taps}
    )
    outputs = predict(tapped, task.arrays, rows)
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "reference.npz", **{f"jax/{n}": x for n, x in outputs.items()})
    test = task.rows["test"]
    arrays = {n: np.asarray(task.arrays[n][test]) for n in [*names, "label"]}
    if task.dataset.scores is not None:
        arrays["score"] = task.dataset.scores[test]
    if without:
        logits = predict(task.graph.model, task.arrays, test)["logits"]
        arrays["right"] = right(logits, arrays["label"])
    arrays["id"] = np.array([task.dataset.ids[row] for row in test], str)
    if task.dataset.groups is not None:
        arrays["group"] = np.array([task.dataset.groups[row] for row in test], str)
    np.savez(folder / "test.npz", **arrays)
    _write_raw(folder / "queries", task, rows[:RAW_ROWS])


def _write_raw(folder: Path, task: Task, rows: np.ndarray) -> None:
    """`texts.json`, `00.jpg`, `00.wav`, ...: what a device would be given, of each modality.

    Examples that are drawn came as no files: then there are no texts either.
    """
    folder.mkdir()
    taken = [MODALITY[m] for m in task.presets]
    for index, row in enumerate(rows):
        for modality in taken:
            modality.write_raw(folder, index, task.dataset, row)
    if not (folder / "texts.json").exists():
        (folder / "texts.json").write_text("[]\n")


if __name__ == "__main__":
    cli.guarded(lambda: main(*map(Path, sys.argv[1:3]), int(sys.argv[3]), sys.argv[4]))
