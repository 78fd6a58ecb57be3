"""Which test pairs a C-LSTM answers rightly, at each signal-to-noise ratio of sound and image.

A cell of a grid is one pass over the fixed test pairs. The pairs and the draws of their noise are
the same in every cell and for every model, so that cells and models compare pair by pair.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fusion_keras.data.digit_set import fingerprint, read_digits, split_examples
from fusion_keras.errors import UsageError
from fusion_keras.files import digest, disk_errors, write
from fusion_keras.training.evaluate import predict
from fusion_keras.training.restored import load_model
from fusion_keras.training.run import corrupt_run_errors, read_json

# Audio ratio, image ratio.
Cell = tuple[float, float]
# A larger one is no faster on two cores.
_BATCH = 128


def ratio_name(snr: float) -> str:
    """A ratio as figures and files write it; "orig" where no noise is added."""
    return "orig" if math.isinf(snr) else f"{snr:g}"


class Cells:
    """The answers of one run, kept in a JSON file that is written whole after every cell."""

    def __init__(self, path: Path, stamp: str):
        """Read what is there.

        Args:
            path: the file; made with its folder where there is none.
            stamp: of model and pairs; answers under another stamp do not count.
        """
        self.path, self.stamp = path, stamp
        self._answers: dict[str, str] = {}
        if path.is_file():
            values = read_json(path)
            with corrupt_run_errors(path.parent):
                if values["stamp"] == stamp:
                    self._answers = dict(values["cells"])
                    self._count = int(values["pairs"])

    def __contains__(self, cell: Cell) -> bool:
        return self._key(cell) in self._answers

    def __getitem__(self, cell: Cell) -> np.ndarray:
        """bool [pairs], whether each is answered rightly."""
        with corrupt_run_errors(self.path.parent):
            packed = np.frombuffer(bytes.fromhex(self._answers[self._key(cell)]), np.uint8)
            return np.unpackbits(packed, count=self._count).astype(bool)

    def __setitem__(self, cell: Cell, correct: np.ndarray) -> None:
        self._count = len(correct)
        self._answers[self._key(cell)] = np.packbits(correct).tobytes().hex()
        values = {"stamp": self.stamp, "pairs": self._count, "cells": self._answers}
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write(self.path, (json.dumps(values) + "\n").encode())

    @staticmethod
    def _key(cell: Cell) -> str:
        return f"audio {cell[0]!r}, image {cell[1]!r}"


def cells_of(folder: Path, config, path: Path) -> Cells:
    """The answers found so far of a complete run.

    Args:
        folder: the run.
        config: its config.
        path: where they are kept.

    Raises:
        UsageError: the run is damaged, or the data is not what it was trained on.
    """
    digits = read_digits(config.data, config.clstm.image, config.clstm.steps)
    now = fingerprint(digits, config.data)
    with corrupt_run_errors(folder):
        before = read_json(folder / "config.json")["dataset"]["fingerprint"]
        model = digest(folder / "model.keras")
    if now != before:
        raise UsageError(f"The data has changed since {folder} was trained: restore the data.")
    return Cells(path, f"{model} {now}")


def evaluate(
    folder: Path, config, cells: Cells, grid: Iterable[Cell], done: Callable[[], None]
) -> None:
    """Work out the cells of a grid that are missing; `done` is called after each.

    Args:
        folder, config: a complete run and its config.
        cells: its answers, filled here.
        grid: which cells.
    """
    missing = [cell for cell in dict.fromkeys(grid) if cell not in cells]
    if not missing:
        return
    digits = read_digits(config.data, config.clstm.image, config.clstm.steps)
    model = load_model(folder)
    images = {}
    for audio in dict.fromkeys(a for a, _ in missing):
        heard = split_examples(digits, config.data, "test", audio_snr=audio)
        places = range(len(heard))
        labels = np.array([heard.digit(k) for k in places], np.int32)
        spectrograms = np.stack([heard.spectrogram(k) for k in places])
        for image in (i for a, i in missing if a == audio):
            if image not in images:
                seen = split_examples(digits, config.data, "test", image_snr=image)
                images[image] = np.stack([seen.image(k) for k in places])
            inputs = {"image": images[image], "spectrogram": spectrograms}
            logits = predict(model, inputs, np.arange(len(labels)), _BATCH)["logits"]
            cells[audio, image] = logits.argmax(-1) == labels
            done()


def recordings_of(config) -> list[str]:
    """The recording of each test pair: what several pairs share is drawn together."""
    digits = read_digits(config.data, config.clstm.image, config.clstm.steps)
    examples = split_examples(digits, config.data, "test")
    return [str(examples.pairs[examples.number(k)][1]) for k in range(len(examples))]
