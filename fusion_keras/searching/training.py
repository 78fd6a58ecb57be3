"""The other end of `trainee`: Keras on JAX."""

from __future__ import annotations

import contextlib
import csv
import math
import multiprocessing.connection
import os
import shutil
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.files import whole
from fusion_keras.fusion.architectures import of_variant
from fusion_keras.fusion.describe import count_macs
from fusion_keras.searching.trainee import SCORED_ROWS, write_draft, write_npz
from fusion_keras.training import experiment
from fusion_keras.training.evaluate import predict, validation_metrics
from fusion_keras.training.plan import Plan, make_plan
from fusion_keras.training.run import Run
from fusion_keras.training.task import prepare


def serve(pipe, config, folder: Path) -> None:
    """Answer until the other end is closed; see `trainee.Trainee`."""

    def answer() -> None:
        plan, run = make_plan(config), Run(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with run.open(plan.config):
            pupil = _Pupil(run, plan, pipe)
            pipe.send(("done", pupil.described()))
            while True:
                name, *arguments = pipe.recv()
                pipe.send(("done", getattr(pupil, name)(*arguments)))

    _guarded(pipe, folder, answer)


def to_the_end(pipe, config, folder: Path) -> None:
    """Train to the end, test split and all; see `trainee.train_whole`."""

    def answer() -> None:
        experiment.train(config, folder)
        pipe.send(("done", None))

    _guarded(pipe, folder, answer)


def _guarded(pipe, folder: Path, answer: Callable[[], None]) -> None:
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
            folder.parent.mkdir(parents=True, exist_ok=True)
            (folder.parent / "error.log").write_text(traceback.format_exc())
            pipe.send(("error", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def _end_with(parent) -> None:
    """Nobody goes on training for a search that was killed."""
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


class _Pupil:
    """A task and what is asked of it.

    Its parents and teachers are looked after when it is to be trained: a model that is too slow
    costs them nothing.
    """

    def __init__(self, run: Run, plan: Plan, pipe):
        self.run, self.plan, self.pipe, self.predict = run, plan, pipe, None
        self.begun = not plan.parents and not plan.teachers
        self.task = experiment.begin(plan, run) if self.begun else prepare(plan)
        self.length = plan.config.data.max_length

    def described(self) -> dict:
        model, dataset = self.task.graph.model, self.task.dataset
        multi = dataset.label_kind == "multi"
        return {
            "parameters": model.count_params(),
            "macs": count_macs(model, self.length),
            # Of a guess that knows the number of classes alone; of several labels a row, of each.
            "guess": math.log(2 if multi else len(dataset.classes)),
        }

    def draft(self, folder: Path) -> None:
        def write(partial: Path) -> None:
            if not (self.run.partial / "config.json").is_file():
                experiment.describe(self.run, self.task, {})
            shutil.copy(self.run.partial / "config.json", partial)
            experiment.save_model(partial / "model.keras", self.task.graph.model)
            rows = self._rows()
            write_npz(partial / "inputs.npz", self._inputs(rows))
            outputs = predict(self.task.graph.model, self.task.arrays, rows)
            write_npz(partial / "reference.npz", outputs)

        write_draft(folder, write)

    def train(self, rungs: list[int]) -> list[dict]:
        def goes_on(history: list[dict]) -> bool:
            if history[-1]["epoch"] not in rungs:
                return True
            self.pipe.send(("rung", history))
            return self.pipe.recv()

        if not self.begun:
            self.task, self.begun = experiment.begin(self.plan, self.run), True
        self.best_epoch, self.predict = experiment.fit(self.run, self.task, goes_on)
        return history_of(self.run)

    def answers(self, weights: Path, rows: Path) -> dict:
        task = self.task
        outputs = self.predict(task.rows["valid"])
        scored = self._rows()
        # By their places in the model, as `export.convert` calls them.
        values = _tapped(task.graph).variables
        write_npz(weights, {f"weight_{i}": np.asarray(v.value) for i, v in enumerate(values)})
        write_npz(rows, self._inputs(scored))
        return {
            "best_epoch": self.best_epoch,
            "valid": validation_metrics(outputs, task.dataset, task.rows["valid"]),
            "logits": outputs["logits"][self._places()],
            "labels": np.asarray(task.dataset.labels[scored]),
            "rows": len(task.rows["valid"]),
        }

    def draw(self, file: Path, title: str) -> None:
        task, architecture = self.task, of_variant(self.plan.config.variant)
        classes = len(task.dataset.classes)
        graph = architecture.build(
            task.spec, task.presets, num_classes=classes, sequence_length=self.length
        )
        parts = architecture.describe(task.spec, graph)
        with whole(file) as partial:
            architecture.draw(task.spec, task.config, parts, title, partial)

    def _places(self) -> np.ndarray:
        """Which validation rows are scored, spread evenly over them: a table may be sorted."""
        count = len(self.task.rows["valid"])
        return np.unique(np.linspace(0, count - 1, SCORED_ROWS).astype(int))

    def _rows(self) -> np.ndarray:
        return self.task.rows["valid"][self._places()]

    def _inputs(self, rows) -> dict[str, np.ndarray]:
        names = [x.name for x in self.task.graph.model.inputs]
        return {name: np.asarray(self.task.arrays[name][rows]) for name in names}


def history_of(run: Run) -> list[dict]:
    """The lines of a begun run's `history.csv`; none where nothing trains: an average of whole
    models."""
    file = run.partial / "history.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        return [{n: float(x) for n, x in line.items()} for line in csv.DictReader(lines)]


def _tapped(graph) -> keras.Model:
    """As `export.convert` has it, so that weights have the same places."""
    inputs = {x.name: x for x in graph.encoders.inputs}
    return keras.Model(inputs, {**graph.model.output, **graph.taps()})
