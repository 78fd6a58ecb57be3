"""The one training loop: Keras `fit` on JAX, resumable at every epoch's end.

Each epoch ends with a validation, a line in `history.csv` and a checkpoint that holds
all that decides what follows: weights, optimiser, random state, the best epoch so far.
Batches are a function of (seed, step), so a resumed run goes on with those an
undisturbed one would have seen.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from rich.progress import Progress
from tensorboard.compat import tf
from tensorboard.summary import Writer

from fusion_keras import terminal
from fusion_keras.data.pipeline import Change, steps_per_epoch, train_batches
from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.files import disk_errors
from fusion_keras.interrupts import Interrupts
from fusion_keras.training import accumulation, checkpoint, devices, processes
from fusion_keras.training.evaluate import predict, validation_metrics
from fusion_keras.training.losses import losses_of, targets_of_outputs
from fusion_keras.training.optimizers import make_optimizer
from fusion_keras.training.run import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesson:
    """What learns from what.

    Attributes:
        model: outputs `logits` and perhaps `score`, or what only teaching needs.
        arrays: the model's inputs, `label` and perhaps `score`, each [N, ...].
        rows: "train" and "valid" -> int [n].
        dataset: labels, scores and groups for the validation metrics.
        augmentation: changes each batch; None changes nothing.
    """

    model: Any
    arrays: Mapping[str, np.ndarray]
    rows: Mapping[str, np.ndarray]
    dataset: Dataset
    augmentation: Change | None


def fit(
    run: Run,
    lesson: Lesson,
    config,
    goes_on: Callable[[list[dict]], bool] = lambda history: True,
) -> int:
    """Train the model, or go on training it; it ends with the best epoch's weights.

    Args:
        run: where checkpoints and history go.
        lesson: its model is compiled here.
        config: the resolved config.
        goes_on: asked behind each epoch that is not the last, with the history so far, and first
            of all where there is one: whether to train on. Where not, the same call goes on later.

    Returns:
        The best epoch, counted from 1.

    Raises:
        UsageError: the loss is no longer finite, a checkpoint cannot be read or written, or the
            devices do not divide a batch, or its parts.
    """
    train, rows = config.train, lesson.rows
    devices.check_batch(train.batch_size, train.accumulate)
    model = accumulation.in_parts(lesson.model, train.accumulate)
    steps = steps_per_epoch(len(rows["train"]), train.batch_size)
    optimizer = make_optimizer(train, model, steps * train.epochs)
    kind, teacher = lesson.dataset.label_kind, config.teacher
    losses = losses_of(model, train, kind, teacher.temperature, teacher.heads, teacher.taps)
    model.compile(optimizer=optimizer, **losses)
    state = _EpochState(run, lesson, optimizer, train)
    if not state.finished and (not state.history or goes_on(state.history)):
        batches = train_batches(
            lesson.arrays,
            rows["train"],
            train.batch_size,
            config.seed,
            train.epochs,
            start_step=state.epoch * steps,
            augmentation=lesson.augmentation,
        ).map(functools.partial(targets_of_outputs, names=tuple(model.output)))
        if processes.count() > 1:
            batches = batches.map(
                functools.partial(_rows_of_batch, rows=processes.share(train.batch_size))
            )
        with (
            terminal.progress_bar(f"{config.variant} s{config.seed}") as progress,
            Interrupts() as interrupts,
            processes.training(),
        ):
            interrupts.check()
            watcher = _Watcher(state, steps, progress, interrupts, goes_on)
            with contextlib.closing(watcher), _state_as_it_is(model):
                model.fit(
                    batches,
                    epochs=train.epochs,
                    initial_epoch=state.epoch,
                    steps_per_epoch=steps,
                    callbacks=[watcher],
                    verbose=0,
                    shuffle=False,  # the batches are shuffled already
                )
    for variable, value in zip(lesson.model.variables, state.best, strict=True):
        variable.assign(value)
    return state.best_epoch


@contextlib.contextmanager
def _state_as_it_is(model: keras.Model) -> Iterator[None]:
    """Meanwhile `fit` keeps its state behind each step as it is.

    Keras would look at each of its arrays for variables and layers, of which there are none, and
    wrap its lists: a millisecond a step for 130 of them.
    """
    kind = type(model)

    def setattr_(self, name: str, value):
        (object if name == "_jax_state" else kind).__setattr__(self, name, value)

    model.__class__ = type(kind.__name__, (kind,), {"__setattr__": setattr_})
    try:
        yield
    finally:
        model.__class__ = kind


def _rows_of_batch(batch, rows: slice):
    return keras.tree.map_structure(lambda values: values[rows], batch)


class _EpochState:
    """What a checkpoint holds, in memory, and what it is of."""

    def __init__(self, run: Run, lesson: Lesson, optimizer, train):
        self.run, self.lesson, self.train = run, lesson, train
        model = lesson.model
        self.variables = [*model.variables, *optimizer.variables]
        self.epoch = 0
        self.best_epoch = 0
        self.best_key: list[float] = []
        self.best: list[np.ndarray] = []
        self.history: list[dict] = []
        loaded = checkpoint.restore(run, self.variables, len(model.variables))
        if loaded:
            self.best, values = loaded
            self.epoch, self.best_epoch = values["epoch"], values["best_epoch"]
            self.best_key, self.history = values["best_key"], values["history"]
            # The process may have been killed between the checkpoint and this file.
            run.write_bytes("history.csv", history_csv(self.history))
            _log.info("Resuming after epoch %d of %d.", self.epoch, train.epochs)

    @property
    def finished(self) -> bool:
        late = self.train.patience and self.epoch - self.best_epoch >= self.train.patience
        return self.epoch >= self.train.epochs or bool(late)

    def end_epoch(self, line: dict) -> None:
        """Take in an epoch's history line; keep the weights if it is the best; save."""
        self.epoch = line["epoch"]
        self.history.append(line)
        key = selection_key(self.train.select, line)
        if not self.best or key > self.best_key:
            self.best_key, self.best_epoch = key, self.epoch
            # Copies: the next epoch donates these buffers to its own results.
            self.best = [np.array(v.value) for v in self.lesson.model.variables]
        values = {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_key": self.best_key,
            "history": self.history,
        }
        checkpoint.save(self.run, self.variables, self.best, values)
        self.run.write_bytes("history.csv", history_csv(self.history))


def selection_key(select: str, line: dict) -> list[float]:
    """How good an epoch is, from its line of history: larger is better, item by item."""
    if select == "accuracy":
        return [line["valid_accuracy"], -line["valid_nll"]]
    return [-line["valid_nll"]] if select == "nll" else [line["epoch"]]


def history_csv(history: list[dict]) -> bytes:
    """The content of `history.csv`: a line for each epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


def epoch_line(line: dict) -> str:
    """A line of history, as it is said."""
    named = "subset accuracy" if "valid_hamming_loss" in line else "accuracy"
    return (
        f"epoch {line['epoch']:3d}  loss {line['loss']:.4f}  valid {named} "
        f"{line['valid_accuracy']:.4f}  nll {line['valid_nll']:.4f}  {line['seconds']:.1f} s"
    )


class _Watcher(keras.callbacks.Callback):
    """Shows progress; validates, logs and saves at the end of each epoch."""

    def __init__(
        self,
        state: _EpochState,
        steps: int,
        progress: Progress,
        interrupts: Interrupts,
        goes_on: Callable[[list[dict]], bool],
    ):
        super().__init__()
        self.state, self.progress, self.interrupts = state, progress, interrupts
        self.goes_on = goes_on
        self.board = None
        if processes.is_first():
            with self._board_errors():
                self.board = Writer(str(state.run.partial / "tensorboard"))
        epochs = state.train.epochs
        self.task = progress.add_task(
            "compiling", total=epochs * steps, completed=state.epoch * steps
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        processes.moved()
        self.interrupts.check()
        self.progress.update(self.task, advance=1, description=f"epoch {self.state.epoch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        loss = float(logs["loss"])
        seconds = time.perf_counter() - self.started
        lesson, rows = self.state.lesson, self.state.lesson.rows["valid"]
        outputs = predict(lesson.model, lesson.arrays, rows)
        # The loss is of the weights before the last step, the predictions are of those after.
        finite = math.isfinite(loss) and all(np.isfinite(x).all() for x in outputs.values())
        if not processes.agreed(bool(finite)):
            raise UsageError(
                f"Training diverged in epoch {epoch + 1} (loss {loss:.4g}): lower "
                "--config.train.learning_rate (or text_rate, image_rate), or clip the gradient "
                "with --config.train.clip_norm=1."
            )
        scores = validation_metrics(outputs, lesson.dataset, rows)
        line = {"epoch": epoch + 1, "seconds": round(seconds, 3), "loss": loss}
        line.update({f"valid_{name}": value for name, value in scores.items()})
        # Of several processes all stop where the first one does, however their devices round.
        line = processes.agreed(line)
        self._to_board(line)
        self.state.end_epoch(line)
        # Of many epochs a person watches the bar.
        level = logging.DEBUG if terminal.moves() and self.state.train.epochs > 30 else logging.INFO
        _log.log(level, "%s", epoch_line(line))
        if self.state.finished or not self.goes_on(self.state.history):
            self.model.stop_training = True

    def _to_board(self, line):
        if self.board is None:
            return
        with self._board_errors():
            for name, value in line.items():
                if name != "epoch" and math.isfinite(value):
                    self.board.add_scalar(name, value, line["epoch"])
            self.board.flush()

    def close(self):
        if self.board is None:
            return
        with self._board_errors():
            self.board.close()

    @contextlib.contextmanager
    def _board_errors(self):
        with disk_errors(self.state.run.partial / "tensorboard"):
            try:
                yield
            # TensorBoard writes through TensorFlow, which has its own errors for a full disk.
            except tf.errors.OpError as error:
                raise OSError(error.message) from error
