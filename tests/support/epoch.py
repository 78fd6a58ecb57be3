"""What an epoch over the rows of `many_rows` costs beside the arithmetic of its steps.

    python -m tests.support.epoch /tmp/rows --variant=text --batch=256

trains one epoch of a tiny model as every training does, and takes the same compiled step by itself,
on a batch that is there, before and behind it. Seconds are of CPU, of all threads, so that another
program on the machine changes them little.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.support.tiny import Bench

# Steps in which a step is compiled and caches settle, and steps by themselves.
_FIRST, _ALONE = 20, 200


def measured(folder: Path, variant: str, batch: int) -> dict:
    """Milliseconds of CPU a step: of an epoch, and alone; seconds of what ends the epoch."""
    import jax

    from fusion_keras.training import loop
    from fusion_keras.training.experiment import lesson_of
    from fusion_keras.training.plan import make_plan
    from fusion_keras.training.run import Run
    from fusion_keras.training.task import prepare

    table = {"data__path": folder / "data" / "many.csv", "data__max_length": 24}
    task = prepare(
        make_plan(
            Bench(folder).config(
                **table, variant=variant, recipe="best", train__batch_size=batch, train__epochs=1
            )
        )
    )
    lesson, alone, stamps = lesson_of(task), [], []

    def steps_alone() -> None:
        inputs, targets = _one_batch(lesson, batch)
        step = jax.jit(lesson.model.train_step)
        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = lesson.model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})
        for n in range(_FIRST + _ALONE):
            if n == _FIRST:
                begun = time.process_time()
            logs, state = step(state, (inputs, targets))
            float(logs["loss"])
        alone.append(1e3 * (time.process_time() - begun) / _ALONE)

    class Watcher(loop._Watcher):
        def on_train_begin(self, logs=None):
            steps_alone()

        def on_train_batch_end(self, step, logs=None):
            super().on_train_batch_end(step, logs)
            stamps.append(time.process_time())

        def on_epoch_end(self, epoch, logs=None):
            begun = time.process_time()
            super().on_epoch_end(epoch, logs)
            stamps.append(time.process_time() - begun)

    loop._Watcher = Watcher
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", "keras")
        with run.open(task.config):
            loop.fit(run, lesson, task.config)
    steps_alone()
    *stamps, end = stamps
    per_step = 1e3 * (stamps[-1] - stamps[_FIRST]) / (len(stamps) - 1 - _FIRST)
    return {
        "steps": len(stamps),
        "step": round(per_step, 2),
        "alone": [round(x, 2) for x in alone],
        "more": f"{100 * (per_step / np.mean(alone) - 1):.1f} %",
        "end": round(end, 2),
        "augment": lesson.augmentation is not None,
    }


def _one_batch(lesson, batch: int):
    import jax

    rows = lesson.rows["train"][:batch]
    arrays = {name: np.asarray(values[rows]) for name, values in lesson.arrays.items()}
    label = arrays.pop("label")
    return jax.device_put((arrays, {"logits": label} if len(lesson.model.output) > 1 else label))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="text")
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    print(json.dumps(measured(options.folder, options.variant, options.batch)))
