"""What the trained run itself says, on JAX: the first rung of the parity ladder.

Runs in a process of its own (`python -m export.reference RUN FOLDER SAMPLES`), because a
process has one Keras backend.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np

from fusion_keras import cli
from fusion_keras.training.evaluate import predict
from fusion_keras.training.reliance import restore


def main(run: Path, folder: Path, samples: int) -> None:
    """Write `inputs.npz`, `reference.npz` and the whole test split into `folder`.

    `inputs.npz` holds the first `samples` validation rows, input name -> [N, ...];
    `reference.npz` the outputs and taps for them, [N, ...] and `jax/` before their names.
    `test.npz` holds inputs, `label` and perhaps `score` of every test row.
    """
    task = restore(run)
    rows = task.rows["valid"][:samples]
    names = [x.name for x in task.graph.model.inputs]
    inputs = {n: np.asarray(task.arrays[n][rows]) for n in names}
    taps = {n: x for n, x in task.graph.encoders.output.items() if n != "mask"}
    tapped = keras.Model(
        {x.name: x for x in task.graph.model.inputs}, {**task.graph.model.output, **taps}
    )
    found = predict(tapped, task.arrays, rows)
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "reference.npz", **{f"jax/{n}": x for n, x in found.items()})
    test = task.rows["test"]
    arrays = {n: np.asarray(task.arrays[n][test]) for n in [*names, "label"]}
    if task.dataset.scores is not None:
        arrays["score"] = task.dataset.scores[test]
    np.savez(folder / "test.npz", **arrays)


if __name__ == "__main__":
    cli.guarded(lambda: main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
