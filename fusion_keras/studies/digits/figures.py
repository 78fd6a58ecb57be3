"""The figures of Barnum, Talukder and Yue 2020 (arXiv 2011.07191): what each trains and shows.

The paper prints no grids: where it leaves a choice open, the defaults of `regimes.Study`
are ours.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from pathlib import Path

import numpy as np

from fusion_keras.errors import UsageError
from fusion_keras.files import disk_errors, write
from fusion_keras.fusion.architectures import CLSTM
from fusion_keras.metrics import paired_bootstrap
from fusion_keras.studies.digits import drawings, examples
from fusion_keras.studies.digits.cells import Cell, ratio_name, recordings_of
from fusion_keras.studies.digits.regimes import (
    ORIGINAL,
    Regime,
    Study,
    answers,
    config_of,
    trained,
)
from fusion_keras.training.plan import make_plan
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import Run

# Audio and image ratio in training of the figures that compare three levels of fusion:
# section 5.1, and the captions of figures 7 to 10.
FUSION_FIGURES = {1: (0.5, 0.25), 7: (1, 0.5), 8: (2, 0.25), 9: (1, 0.25), 10: (1, 0.125)}
ACTIVATION_FIGURES = tuple(range(11, 17))
FIGURES = (1, 2, 3, 4, 6, *range(7, 17))
_GRID = ("test_audio", "test_image")
# The fields of a study that a figure reads, besides its config.
READS = {
    **dict.fromkeys(FUSION_FIGURES, ("seeds", *_GRID)),
    2: ("seeds", "train_audio", "train_image", *_GRID),
    3: ("seeds", "train_image", "test_image"),
    4: ("seeds", "train_audio", "test_audio"),
    6: ("example", *_GRID),
    **dict.fromkeys(ACTIVATION_FIGURES, ("seeds", "example")),
}
_RESAMPLES = 1000


def make(figure: int, study: Study) -> Path:
    """Train what a figure needs, evaluate it, draw it; returns the picture, a table beside it.

    Raises:
        UsageError: an unknown figure, settings that mean nothing to it, or whatever is wrong
            with data, config or an earlier run.
    """
    _check(figure, study)
    target = study.folder / "figures" / f"figure{figure}.png"
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if figure == 6:
        rows, draw = examples.noisy(resolve(study.config), study.example or 0, study)
    elif figure in ACTIVATION_FIGURES:
        rows, draw = _activations(figure, study)
    elif figure in FUSION_FIGURES:
        rows, draw = _fusion_levels(figure, study)
    elif figure == 2:
        rows, draw = _regimes(study)
    else:
        rows, draw = _one_input(figure, study)
    write(target.with_suffix(".csv"), _table(rows).encode())
    write(target, draw(_title(figure, study)))
    return target


def planned(figure: int, study: Study) -> list[str]:
    """What `make` would train for a figure, a line each.

    Raises:
        UsageError: as `make`, of the figure, the settings and the data.
    """
    _check(figure, study)
    regimes = [] if figure == 6 else _trained_for(figure, study)
    for regime in regimes[:1]:
        make_plan(config_of(study, regime, study.seeds[0]))
        recordings_of(study.config)  # the data are read
    folders = [study.folder / f"{regime}-s{seed}" for regime in regimes for seed in study.seeds]
    there = [Run(folder).complete for folder in folders]
    lines = [
        f"{folder}{': trained before' if done else ''}"
        for folder, done in zip(folders, there, strict=True)
    ]
    return [
        *lines,
        f"{len(there) - sum(there)} of {len(there)} trainings are left; none was begun.",
    ]


def _trained_for(figure: int, study: Study) -> list[Regime]:
    """The models that a figure shows."""
    if figure in ACTIVATION_FIGURES:
        return [Regime(study.config.variant, *FUSION_FIGURES[1])]
    if figure in FUSION_FIGURES:
        audio, image = FUSION_FIGURES[figure]
        return [Regime(variant, audio, image) for variant in CLSTM.variants]
    variant = study.config.variant
    if figure == 2:
        noises = itertools.product(study.train_audio, study.train_image)
        return [Regime(variant, audio, image) for audio, image in noises]
    ratios = study.train_image if figure == 3 else study.train_audio
    # The other input is zero: without this one there would be nothing.
    ratios = tuple(dict.fromkeys((ORIGINAL, *ratios)))
    return [Regime(variant, 0, r) if figure == 3 else Regime(variant, r, 0) for r in ratios]


def _check(figure: int, study: Study) -> None:
    config = study.config
    if figure not in FIGURES:
        raise UsageError(
            f"--figure is {figure}; one of {', '.join(map(str, FIGURES))} is wanted (5 is the "
            "paper's drawing of the architecture)."
        )
    # The regimes are the figures'; a noise of its own would be silently overwritten.
    for field in ("audio_snr", "image_snr"):
        if not math.isinf(config.data.digits[field]):
            raise UsageError(
                f"config.data.digits.{field} is set, but the figures set the noise: leave it out; "
                "--train_audio, --train_image, --test_audio and --test_image choose it."
            )
    if figure in FUSION_FIGURES and config.variant != CLSTM.variants[0]:
        raise UsageError(
            f"config.variant is {config.variant!r}, but figure {figure} shows all three: leave it "
            "out."
        )
    if config.seed and (config.seed,) != study.seeds:
        raise UsageError(f"config.seed is {config.seed}: give --seeds={config.seed} in its place.")
    if figure in ACTIVATION_FIGURES and len(study.seeds) > 1:
        raise UsageError(f"--seeds is {study.seeds}; figure {figure} shows one model: give one.")
    for name in ("example", "seeds", "train_audio", "train_image", *_GRID):
        values = getattr(study, name)
        # The defaults of a dataclass are its attributes.
        if name not in READS[figure] and values != getattr(Study, name):
            raise UsageError(f"--{name} means nothing to figure {figure}: leave it out.")
        if name == "example":
            continue
        if not values or len(set(values)) < len(values):
            raise UsageError(f"--{name} is {values}; one value or more, each once, is wanted.")
        if not all(value >= 0 for value in values):
            raise UsageError(f"--{name} is {values}; values of 0 or more are wanted.")
    resolve(config)  # its mistakes, before anything is begun


# --- The figures --------------------------------------------------------------------------------


def _fusion_levels(figure: int, study: Study):
    """Figures 1 and 7 to 10: three levels of fusion over the grid, and the first's lead."""
    audio, image = FUSION_FIGURES[figure]
    regimes = _trained_for(figure, study)
    correct, groups = answers(study, regimes, study.grid), recordings_of(study.config)
    rows = []
    for regime in regimes:
        for cell in study.grid:
            lead = _difference(correct[regimes[0]][cell], correct[regime][cell], groups)
            named = {f"initial_minus_this{end}": value for end, value in lead.items()}
            rows.append(_row(regime, cell, correct[regime][cell], groups, study) | named)
    maps = {r.variant: _map(correct[r], study) for r in regimes}
    return rows, lambda title: drawings.fusion_levels(maps, (audio, image), study, title)


def _regimes(study: Study):
    """Figure 2: one architecture under every noise in training, over the grid."""
    regimes = _trained_for(2, study)
    correct, groups = answers(study, regimes, study.grid), recordings_of(study.config)
    rows = [_row(r, c, correct[r][c], groups, study) for r in regimes for c in study.grid]
    maps = {(r.audio, r.image): _map(correct[r], study) for r in regimes}
    return rows, lambda title: drawings.regimes(maps, study, title)


def _one_input(figure: int, study: Study):
    """Figures 3 (images alone) and 4 (sound alone): the other input is zero, always."""
    images, regimes = figure == 3, _trained_for(figure, study)
    ratios = [regime.image if images else regime.audio for regime in regimes]
    tested = study.test_image if images else study.test_audio
    grid = [(0, t) if images else (t, 0) for t in tested]
    correct, groups = answers(study, regimes, grid), recordings_of(study.config)
    rows = [_row(r, c, correct[r][c], groups, study) for r in regimes for c in grid]
    width = len(grid)
    curves = {x: rows[i * width : (i + 1) * width] for i, x in enumerate(ratios)}
    name = "image" if images else "audio"
    return rows, lambda title: drawings.curves(curves, tested, name, title)


def _activations(figure: int, study: Study):
    """Figures 11 to 16: one example each, the classes' activations after every step of sound."""
    [regime] = _trained_for(figure, study)
    folder = trained(study, [regime])[regime, study.seeds[0]]
    place = figure - ACTIVATION_FIGURES[0] if study.example is None else study.example
    config = config_of(study, regime, study.seeds[0])
    return examples.over_time(folder, config, place)


def _map(correct: dict[Cell, np.ndarray], study: Study) -> np.ndarray:
    """Mean accuracies [audio, image]."""
    means = [correct[cell].mean() for cell in study.grid]
    return np.reshape(means, (len(study.test_audio), len(study.test_image)))


def _row(regime: Regime, cell: Cell, correct: np.ndarray, groups, study: Study) -> dict:
    # The difference to a model that answers nothing rightly is the accuracy itself.
    accuracy = _difference(correct, np.zeros_like(correct), groups)
    return {
        "variant": regime.variant,
        "train_audio": ratio_name(regime.audio),
        "train_image": ratio_name(regime.image),
        "test_audio": ratio_name(cell[0]),
        "test_image": ratio_name(cell[1]),
        "seeds": " ".join(map(str, study.seeds)),
        "pairs": correct.shape[1],
        **{f"accuracy{end}": value for end, value in accuracy.items()},
    }


def _difference(ours: np.ndarray, theirs: np.ndarray, groups) -> dict[str, float]:
    """Under "" the mean difference, under "_low" and "_high" its 95 % interval over recordings."""
    difference = paired_bootstrap(ours, theirs, groups=groups, repeats=_RESAMPLES)
    return {"": difference["difference"], "_low": difference["low"], "_high": difference["high"]}


# --- What is said and written -------------------------------------------------------------------


def _title(figure: int, study: Study) -> tuple[str, str]:
    """The heading of a figure, and what was run for it."""
    config, source = resolve(study.config), "Barnum et al. 2020"
    sizes, data = config.clstm, config.data.digits
    run = [f"{sizes.image} x {sizes.image} images, {sizes.steps} steps of sound"]
    if figure in ACTIVATION_FIGURES:
        audio, image = FUSION_FIGURES[1]
        run = [f"{config.variant}, trained at audio {audio}, image {image}", *run]
    elif figure in (2, 3, 4):
        run = [config.variant, *run]
    if figure != 6:
        seeds = study.seeds
        run += [
            f"{sizes.units} units, {data.train_pairs} training pairs x {config.train.epochs} "
            f"epochs of batch {config.train.batch_size}, {config.train.optimizer} "
            f"{config.train.learning_rate:g}, seed{'s' * (len(seeds) > 1)} "
            f"{', '.join(map(str, seeds))}"
        ]
    if figure != 6 and figure not in ACTIVATION_FIGURES:
        run += [f"{data.test_pairs} test pairs in every cell"]
    run += [f"split by {data.split}"]
    return f"As figure {figure} of {source}, measured here", "; ".join(run)


def _table(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({n: f"{v:.6g}" if isinstance(v, float) else v for n, v in row.items()})
    return text.getvalue()


def report(figure: int, picture: Path) -> list[str]:
    """Where the output of a figure is and what to do next."""
    following = next((f for f in FIGURES if f > figure), FIGURES[0])
    return [
        f"Figure: {picture}",
        f"Numbers: {picture.with_suffix('.csv')}",
        f"Next: another one with\n  python -m fusion_keras.digits --figure={following} and the "
        "same settings; runs that both need are not trained again.",
    ]
