"""The trainings of the audio-visual study, and their answers over a grid of test noise.

Every training is an ordinary run, found again by a later figure or the same command; every
cell of a grid is kept as soon as it is known.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import time
from pathlib import Path

import jax
import keras
import numpy as np

from fusion_keras import terminal
from fusion_keras.studies.digits.cells import Cell, cells_of, evaluate, ratio_name
from fusion_keras.training import experiment
from fusion_keras.training.run import Run

_log = logging.getLogger(__name__)
ORIGINAL = math.inf


@dataclasses.dataclass(frozen=True)
class Study:
    """What is asked for.

    Attributes:
        config: of every training, before its recipe; the figure sets variant, ratios and seed.
        workdir: runs, answers and figures go to workdir/<config.name>.
        seeds: a training of each regime for each; accuracies are their mean.
        train_audio, train_image: power ratios of the regimes of figures 2, 3 and 4.
        test_audio, test_image: power ratios of the grid.
        example: place of the test pair that figures 6 and 11 to 16 show; None: the figure's own.
    """

    config: object
    workdir: Path
    seeds: tuple[int, ...] = (0,)
    train_audio: tuple[float, ...] = (2, 1, 0.5, 0.25)
    train_image: tuple[float, ...] = (1, 0.5, 0.25, 0.125)
    test_audio: tuple[float, ...] = (ORIGINAL, 4, 2, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0)
    test_image: tuple[float, ...] = (ORIGINAL, 4, 2, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0)
    example: int | None = None

    @property
    def folder(self) -> Path:
        return self.workdir / self.config.name

    @property
    def grid(self) -> list[Cell]:
        return [(audio, image) for audio in self.test_audio for image in self.test_image]


@dataclasses.dataclass(frozen=True)
class Regime:
    """A model and the noise that it is trained with."""

    variant: str
    audio: float
    image: float

    def __str__(self) -> str:
        return f"{self.variant}-a{ratio_name(self.audio)}-v{ratio_name(self.image)}"


def config_of(study: Study, regime: Regime, seed: int):
    """The config of one training, its recipe still open."""
    config = copy.deepcopy(study.config)
    config.variant, config.seed = regime.variant, seed
    noise = config.data.digits
    noise.audio_snr, noise.image_snr = float(regime.audio), float(regime.image)
    return config


def trained(study: Study, regimes: list[Regime]) -> dict[tuple[Regime, int], Path]:
    """A complete run of each regime and seed, trained unless it is there.

    Raises:
        UsageError: a run of that name has other settings, or whatever ends a training.
    """
    keys = [(regime, seed) for regime in regimes for seed in study.seeds]
    folders = {(r, s): study.folder / f"{r}-s{s}" for r, s in keys}
    waiting = [key for key in keys if not Run(folders[key]).complete]
    # What is there first: that it has these settings shall not show after hours of training.
    for key in keys:
        if key not in waiting:
            experiment.train(config_of(study, *key), folders[key])
    start = time.perf_counter()
    for done, key in enumerate(waiting):
        left = (time.perf_counter() - start) / max(done, 1) * (len(waiting) - done) / 60
        left_text = f", about {left:.0f} min left" if done else ""
        _log.info("Training %s, %d to go%s", folders[key].name, len(waiting) - done, left_text)
        experiment.train(config_of(study, *key), folders[key])
        # What was compiled for one model is of no use to the next.
        keras.backend.clear_session()
        jax.clear_caches()
    return folders


def answers(
    study: Study, regimes: list[Regime], grid: list[Cell]
) -> dict[Regime, dict[Cell, np.ndarray]]:
    """Regime -> cell -> bool [seeds, pairs], whether each test pair is answered rightly."""
    folders, cells_by_run = trained(study, regimes), {}
    for (regime, seed), folder in folders.items():
        config = config_of(study, regime, seed)
        cells_by_run[regime, seed] = cells_of(folder, config, _answer_file(study, folder))
    total = len(cells_by_run) * len(grid)
    known = sum(cell in cells for cells in cells_by_run.values() for cell in grid)
    with terminal.progress_bar("testing", "cells") as progress:
        task = progress.add_task("", total=total, completed=known)
        for (regime, seed), cells in cells_by_run.items():
            progress.update(task, description=f"{regime}-s{seed}")
            config = config_of(study, regime, seed)
            evaluate(folders[regime, seed], config, cells, grid, lambda: progress.advance(task))
    return {
        regime: {c: np.stack([cells_by_run[regime, s][c] for s in study.seeds]) for c in grid}
        for regime in regimes
    }


def _answer_file(study: Study, folder: Path) -> Path:
    return study.folder / "answers" / f"{folder.name}.json"
