"""One model of a search, in a process of its own: built, drafted, trained rung by rung.

The process that searches knows no Keras. What fails here, also when it runs out of memory, costs
one trial and no more.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fusion_keras import interrupts, jobs
from fusion_keras.errors import UsageError
from fusion_keras.files import whole
from fusion_keras.searching.crew import Place

# Validation rows that lower precisions are scored on, at most.
SCORED_ROWS = 1024
# Imported once, by the process that all others are forked from.
_PRELOADED = ["fusion_keras.searching.preloaded"]


class Trainee:
    """The parent's end: each call waits for its answer.

    Raises (every method):
        UsageError: whatever went wrong over there, as a sentence.
    """

    def __init__(self, process, pipe):
        self._process, self._pipe = process, pipe

    def built(self) -> dict:
        """What was built: parameters, macs (of one example), guess (the NLL of one)."""
        return self._answer()

    def draft(self, folder: Path) -> None:
        """Write what `export.draft` makes an artifact of."""
        self._ask("draft", folder)

    def train(self, rungs: Sequence[int], goes_on: Callable[[list[dict]], bool]) -> list[dict]:
        """Train to the end, unless somebody says at one of the rungs, epochs, that it is over.

        Args:
            rungs: behind which it is asked.
            goes_on: told the history so far.

        Returns:
            The history.
        """
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(("train", list(rungs)))
        while True:
            kind, value = self._heard()
            if kind != "rung":
                return value
            self._pipe.send(goes_on(value))

    def answers(self, weights: Path, rows: Path) -> dict:
        """Write the best epoch's weights, and the rows that lower precisions are scored on.

        Returns:
            valid: metric -> value, of the whole validation split; rows: how many it has; logits
            and labels of those that are scored.
        """
        return self._ask("answers", weights, rows)

    def draw(self, file: Path, title: str) -> None:
        """Draw the model into a .svg file."""
        self._ask("draw", file, title)

    def _ask(self, *question):
        with contextlib.suppress(BrokenPipeError):
            self._pipe.send(question)
        return self._answer()

    def _answer(self):
        return self._heard()[1]

    def _heard(self) -> tuple:
        try:
            kind, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise UsageError(
                f"the training's process was killed (exit code {self._process.exitcode}), perhaps "
                "out of memory"
            ) from None
        if kind == "error":
            raise UsageError(value)
        return kind, value


def begin_server() -> None:
    """Start the process that all trainings are forked from, if there is none; by the main thread,
    as it ends with the thread that started it."""
    multiprocessing.forkserver.set_forkserver_preload(_PRELOADED)
    multiprocessing.forkserver.ensure_running()


@contextlib.contextmanager
def trainee(config, folder: Path, place: Place) -> Iterator[Trainee]:
    """Begin, or go on with, the training of a config.

    Args:
        config: as given; its recipe fills what is open.
        folder: its run directory, which stays `.partial`.
        place: whose cores it has.
    """
    with _process("serve", config, folder, place) as model:
        yield model


def train_whole(place: Place, config, folder: Path) -> None:
    """An ordinary run, as `fusion_keras.train` makes it: left alone where it is finished.

    Raises:
        UsageError: whatever went wrong.
    """
    if place.crew.away:
        # Nothing is left to do here then but to look at its settings.
        place.crew.away.train_run(place, config, folder)
    with _process("to_the_end", config, folder, place) as model:
        model.built()


@contextlib.contextmanager
def _process(what: str, config, folder: Path, place: Place) -> Iterator[Trainee]:
    begin_server()
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    arguments = (what, place.share, there, config, folder)
    process = context.Process(target=_begin, args=arguments, daemon=True)
    process.start()
    there.close()
    try:
        with place.crew.member(process.pid):
            yield Trainee(process, here)
    finally:
        here.close()
        # Its files are whole at any moment, and it may stand still.
        process.kill()
        process.join()


def _begin(what: str, share: jobs.Share, pipe, config, folder: Path) -> None:
    from fusion_keras.searching import training

    interrupts.end_with_parent(signal.SIGKILL)
    # All that it starts stands still with it.
    os.setpgid(0, 0)
    share.take()
    getattr(training, what)(pipe, config, folder)


def write_draft(folder: Path, write) -> None:
    """Fill a folder, whole or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with whole(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
