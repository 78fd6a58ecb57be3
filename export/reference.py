"""What the trained run itself says, on JAX: the first rung of the parity ladder.

Runs in a process of its own (`python -m export.reference RUN FOLDER SAMPLES WITHOUT`), because a
process has one Keras backend.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from export.request import kept
from fusion_keras import cli
from fusion_keras.data.incomplete import each_kind_first, filled
from fusion_keras.errors import UsageError
from fusion_keras.interrupts import end_with_parent
from fusion_keras.modalities import MODALITY
from fusion_keras.training.evaluate import predict, right
from fusion_keras.training.restored import restore
from fusion_keras.training.run import read_json
from fusion_keras.training.task import Task

# What an artifact takes along of the validation rows as they came, for the bench.
RAW_ROWS = 32


def main(run: Path, folder: Path, samples: int, without: str = "") -> None:
    """Write `inputs.npz`, `reference.npz` and the whole test split into `folder`.

    `inputs.npz` holds `samples` validation rows, input name -> [N, ...], some of each kind where
    rows lack modalities, with those of other rows in their place; `reference.npz` the outputs and
    taps for them, [N, ...] and `jax/` before their names. With `without` rows that have nothing
    else are left out.
    `test.npz` holds inputs, `id`, `label` and perhaps `score` and `group` of every test row, and
    `right`, whether a run that is not measured as trained, but in float32 or without a modality,
    answers it rightly.
    `queries/` has a few validation rows as they came, complete ones: `texts.json`, and images and
    sounds as files.
    """
    task = restore(run, in_float32=True)
    of_use = {split: rows[_has_another(task, without)[rows]] for split, rows in task.rows.items()}
    rows = each_kind_first(of_use["valid"], task.dataset)[:samples]
    names = [x.name for x in task.graph.model.inputs]
    taps = task.graph.taps()
    if without:
        names = kept(names, without)
        present = MODALITY[without].present
        task.arrays[present] = np.zeros_like(task.arrays[present])
        gone = task.graph.taps(without)
        taps = {n: x for n, x in taps.items() if n not in gone}
    arrays = {x.name: np.asarray(task.arrays[x.name][rows]) for x in task.graph.model.inputs}
    for modality, there in task.dataset.present.items():
        name = MODALITY[modality].input
        if name in arrays:
            arrays[name] = filled(arrays[name], there[rows])
    inputs = {n: arrays[n] for n in names}
    tapped = keras.Model(
        {x.name: x for x in task.graph.model.inputs}, {**task.graph.model.output, **taps}
    )
    outputs = predict(tapped, arrays, np.arange(len(rows)))
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "reference.npz", **{f"jax/{n}": x for n, x in outputs.items()})
    test = of_use["test"]
    arrays = {n: np.asarray(task.arrays[n][test]) for n in [*names, "label"]}
    if task.dataset.scores is not None:
        arrays["score"] = task.dataset.scores[test]
    if without or read_json(run / "config.json")["config"].get("dtype", "float32") != "float32":
        logits = predict(task.graph.model, task.arrays, test)["logits"]
        arrays["right"] = right(logits, arrays["label"])
    arrays["id"] = np.array([task.dataset.ids[row] for row in test], str)
    if task.dataset.groups is not None:
        arrays["group"] = np.array([task.dataset.groups[row] for row in test], str)
    np.savez(folder / "test.npz", **arrays)
    complete = [row for row in of_use["valid"] if not task.dataset.lacking(row)]
    _write_raw(folder / "queries", task, complete[:RAW_ROWS])


def _has_another(task: Task, without: str) -> np.ndarray:
    """bool [N]: which rows have anything that the model still takes.

    Raises:
        UsageError: validation or test has no such row.
    """
    others = [task.dataset.has(m) for m in task.spec.modalities if m != without]
    of_use = np.any(others, axis=0)
    for split in ("valid", "test"):
        if not of_use[task.rows[split]].any():
            raise UsageError(f"No {split} row has anything but {without}: leave --without out.")
    return of_use


def _write_raw(folder: Path, task: Task, rows: Sequence[int]) -> None:
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
    end_with_parent()
    cli.guarded(lambda: main(*map(Path, sys.argv[1:3]), int(sys.argv[3]), sys.argv[4]))
