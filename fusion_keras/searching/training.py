"""The other end of `trainee`: Keras on JAX."""

from __future__ import annotations

import contextlib
import csv
import logging
import multiprocessing.connection
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.files import whole
from fusion_keras.fusion.architectures import of_variant
from fusion_keras.searching.trainee import SCORED_ROWS, write_draft, write_npz
from fusion_keras.training import experiment
from fusion_keras.training.evaluate import predict, validation_metrics
from fusion_keras.training.plan import make_plan
from fusion_keras.training.run import Run

_log = logging.getLogger(__name__)


def serve(pipe, config, folder: Path) -> None:
    """Answer until the other end is closed; see `trainee.Trainee`."""

    def answer() -> None:
        plan, run = make_plan(config), Run(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with run.open(plan.config):
            pupil = _Pupil(run, experiment.begin(plan, run))
            pipe.send(("done", pupil.described()))
            while True:
                name, *arguments = pipe.recv()
                pipe.send(("done", getattr(pupil, name)(*arguments)))

    _guarded(pipe, answer)


def to_the_end(pipe, config, folder: Path) -> None:
    """Train to the end, test split and all; see `trainee.train_whole`."""

    def answer() -> None:
        experiment.train(config, folder)
        pipe.send(("done", None))

    _guarded(pipe, answer)


def _guarded(pipe, answer: Callable[[], None]) -> None:
    # The one who asks decides when it is over. Every file is whole at any moment.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(
        target=_end_with, args=(multiprocessing.parent_process(),), daemon=True
    ).start()
    # An image tap of one place is one token, of which cross-attention makes what it can.
    warnings.filterwarnings("ignore", "You are using a softmax over axis")
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            answer()
        except UsageError as error:
            pipe.send(("error", str(error)))
        except MemoryError:
            pipe.send(("error", "out of memory"))
        except EOFError:
            raise  # nobody asks any more
        except Exception as error:
            _log.debug("What this comes of:", exc_info=True)
            pipe.send(("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def _end_with(parent) -> None:
    """Nobody goes on training for a search that was killed."""
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


class _Pupil:
    """A task and what is asked of it."""

    def __init__(self, run: Run, task):
        self.run, self.task = run, task
        self.predict = None

        self.architecture = of_variant(task.config.variant)
        self.parts = self.architecture.describe(task.spec, task.graph)

    def described(self) -> dict:
        task = self.task
        return {
            "parameters": task.graph.model.count_params(),
            "macs": self.parts[-1].macs,
            "classes": len(task.dataset.classes),
        }

    def draft(self, folder: Path) -> None:
        def write(partial: Path) -> None:
            shutil.copy(self.run.partial / "config.json", partial)
            experiment.save_model(partial / "model.keras", self.task.graph.model)
            rows = self._rows()
            write_npz(partial / "inputs.npz", self._inputs(rows))
            outputs = predict(self.task.graph.model, self.task.arrays, rows)
            write_npz(partial / "reference.npz", outputs)

        write_draft(folder, write)

    def train(self, until: int) -> list[dict]:
        self.best_epoch, self.predict = experiment.fit(self.run, self.task, until)
        file = self.run.partial / "history.csv"
        if not file.is_file():  # nothing trains: an average of whole models
            return []
        with file.open(newline="") as lines:
            return [{n: float(x) for n, x in line.items()} for line in csv.DictReader(lines)]

    def answers(self, weights: Path, rows: Path) -> dict:
        task = self.task
        outputs = self.predict(task.rows["valid"])
        scored = self._rows()
        model = _tapped(task.graph)
        values = [*model.trainable_variables, *model.non_trainable_variables]
        write_npz(weights, {f"weight_{i}": np.asarray(v.value) for i, v in enumerate(values)})
        write_npz(rows, self._inputs(scored))
        return {
            "best_epoch": self.best_epoch,
            "valid": validation_metrics(outputs, task.dataset, task.rows["valid"]),
            "logits": outputs["logits"][: len(scored)],
            "labels": np.asarray(task.dataset.labels[scored]),
        }

    def draw(self, file: Path, title: str) -> None:
        task = self.task
        with whole(file) as partial:
            self.architecture.draw(task.spec, task.config, self.parts, title, partial)

    def _rows(self) -> np.ndarray:
        return self.task.rows["valid"][:SCORED_ROWS]

    def _inputs(self, rows) -> dict[str, np.ndarray]:
        names = [x.name for x in self.task.graph.model.inputs]
        return {name: np.asarray(self.task.arrays[name][rows]) for name in names}


def _tapped(graph) -> keras.Model:
    """As `export.convert` has it, so that weights come in the same order."""
    inputs = {x.name: x for x in graph.encoders.inputs}
    return keras.Model(inputs, {**graph.model.output, **graph.taps()})
