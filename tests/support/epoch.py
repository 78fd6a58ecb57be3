"""What an epoch over the rows of `many_rows` costs beside the arithmetic of its steps.

    python -m tests.support.epoch /tmp/rows --variant=text --batch=256

trains one epoch of a tiny model as every training does; every hundred steps the same compiled step
has a turn of a hundred by itself, on batches that are there. Times are of CPU, of all threads, and
of turns side by side: on a machine that others use, too, both are slowed alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.support.tiny import Bench

_TURN = 100


def measured(folder: Path, variant: str, batch: int) -> dict:
    """Medians over the turns, without the first one, in which a step is compiled.

    Returns:
      "step" and "alone" milliseconds of CPU a step, "more" what the first takes above the second in
      percent, "end" seconds of CPU of validation and checkpoint behind the epoch.
    """
    from fusion_keras.training import loop
    from fusion_keras.training.experiment import lesson_of
    from fusion_keras.training.plan import make_plan
    from fusion_keras.training.run import Run
    from fusion_keras.training.task import prepare

    config = Bench(folder).config(
        data__path=folder / "data" / "many.csv",
        data__max_length=24,
        variant=variant,
        recipe="best",
        train__batch_size=batch,
        train__epochs=1,
    )
    task = prepare(make_plan(config))
    lesson = lesson_of(task)
    turns, end = [], []

    class Watcher(loop._Watcher):
        def on_train_begin(self, logs=None):
            self.alone = _Alone(lesson, batch)

        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch, logs)
            self.begun = time.process_time()

        def on_train_batch_end(self, step, logs=None):
            super().on_train_batch_end(step, logs)
            if (step + 1) % _TURN == 0:
                now = time.process_time()
                self.alone.take(_TURN)
                then, self.begun = self.begun, time.process_time()
                turns.append(((now - then) * 1e3 / _TURN, (self.begun - now) * 1e3 / _TURN))

        def on_epoch_end(self, epoch, logs=None):
            begun = time.process_time()
            super().on_epoch_end(epoch, logs)
            end.append(time.process_time() - begun)

    loop._Watcher = Watcher
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place) / "run", "keras")
        with run.open(task.config):
            loop.fit(run, lesson, task.config)
    steps, alone = zip(*turns[1:], strict=True)
    more = statistics.median(100 * (s / a - 1) for s, a in turns[1:])
    return {
        "turns": len(steps),
        "step": round(statistics.median(steps), 2),
        "alone": round(statistics.median(alone), 2),
        "more": round(more, 1),
        "end": round(end[0], 2),
    }


class _Alone:
    """The compiled step on batches that are on the device, with variables of its own, its loss read
    each time."""

    def __init__(self, lesson, batch: int):
        import jax

        self.batches = []
        for turn in range(_TURN):
            rows = lesson.rows["train"][turn * batch : (turn + 1) * batch]
            inputs = {name: np.asarray(values[rows]) for name, values in lesson.arrays.items()}
            self.batches.append(jax.device_put((inputs, inputs.pop("label"))))
        self.step = jax.jit(lesson.model.train_step, donate_argnums=0)
        kinds = ("trainable", "non_trainable", "optimizer", "metrics")
        state = lesson.model._get_jax_state(**{f"{kind}_variables": True for kind in kinds})
        # Training donates its own to each next step.
        self.state = jax.tree.map(jax.numpy.copy, state)

    def take(self, count: int) -> None:
        for turn in range(count):
            logs, self.state = self.step(self.state, self.batches[turn % len(self.batches)])
            float(logs["loss"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="text")
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    print(json.dumps(measured(options.folder, options.variant, options.batch)))
