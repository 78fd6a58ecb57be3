"""The audio-visual study's figures as PNG files; each says below what was run for it."""

from __future__ import annotations

import io
import textwrap

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fusion_keras.studies.digits.cells import ratio_name

# Heading, and what was run.
Title = tuple[str, str]
_NAMES = {"clstm_initial": "initial", "clstm_second": "second layer", "clstm_fc": "fully connected"}
_SMALL = 7


def fusion_levels(maps: dict[str, np.ndarray], trained: tuple, study, title: Title) -> bytes:
    """Accuracies of each variant above, the first one's lead over the others below.

    Args:
        maps: variant -> accuracy [audio, image] over the study's grid.
        trained: audio and image ratio in training, boxed.
    """
    figure = _figure(12.5, 8.6)
    axes = figure.subplots(2, len(maps))
    first = next(iter(maps.values()))
    leads = [first - accuracies for accuracies in maps.values()][1:]
    widest = max(0.01, *(float(np.abs(lead).max()) for lead in leads))
    for i, (variant, accuracies) in enumerate(maps.items()):
        name = _NAMES[variant]
        _heat(axes[0, i], accuracies, study, trained, f"{name}: accuracy", "viridis", (0, 1))
        if i == 0:
            axes[1, 0].axis("off")
            continue
        heading = f"initial minus {name}"
        _heat(axes[1, i], leads[i - 1], study, trained, heading, "RdBu_r", (-widest, widest))
    return _png(figure, title)


def regimes(maps: dict[tuple, np.ndarray], study, title: Title) -> bytes:
    """A panel for each regime, (audio, image) ratio -> accuracy [audio, image]."""
    rows, columns = len(study.train_audio), len(study.train_image)
    figure = _figure(3.2 * columns + 0.6, 3.2 * rows + 1.4)
    axes = figure.subplots(rows, columns, squeeze=False)
    for i, audio in enumerate(study.train_audio):
        for j, image in enumerate(study.train_image):
            heading = f"trained: audio {ratio_name(audio)}, image {ratio_name(image)}"
            accuracies = maps[audio, image]
            _heat(axes[i, j], accuracies, study, (audio, image), heading, "viridis", (0, 1))
    return _png(figure, title)


def _heat(axes, values, study, trained, heading, colours, limits) -> None:
    """One grid; per cent in the cells, the cell of the training in a red box."""
    picture = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_title(heading, fontsize=9)
    _ticks(axes.set_xticks, study.test_image)
    _ticks(axes.set_yticks, study.test_audio)
    axes.set_xlabel("image SNR in the test", fontsize=8)
    axes.set_ylabel("audio SNR in the test", fontsize=8)
    for (row, column), value in np.ndenumerate(values):
        r, g, b, _ = picture.to_rgba(value)
        colour = "black" if 0.3 * r + 0.59 * g + 0.11 * b > 0.5 else "white"
        # Written so that a lead that rounds to nothing has no sign.
        number = f"{round(100 * value) + 0:d}"
        axes.text(column, row, number, ha="center", va="center", fontsize=6, color=colour)
    if trained[0] in study.test_audio and trained[1] in study.test_image:
        corner = study.test_image.index(trained[1]) - 0.5, study.test_audio.index(trained[0]) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="red", linewidth=2))


def _ticks(put, ratios) -> None:
    put(range(len(ratios)), [ratio_name(r) for r in ratios], fontsize=_SMALL, rotation=45)


def curves(rows: dict[float, list[dict]], tested: tuple, name: str, title: Title) -> bytes:
    """Accuracy over the ratio in the test, a curve for each ratio in training, with bands."""
    figure = _figure(8, 5.6)
    axes = figure.subplots()
    places = np.arange(len(tested))
    for ratio, cells in rows.items():
        values, low, high = (
            [100 * cell[f"accuracy{end}"] for cell in cells] for end in ("", "_low", "_high")
        )
        (line,) = axes.plot(places, values, marker="o", label=ratio_name(ratio))
        axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xticks(places, [ratio_name(t) for t in tested])
    axes.set_xlabel(f"{name} SNR in the test; the other input is zero")
    axes.set_ylabel("accuracy in %, bands: 95 % over recordings")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    axes.legend(title=f"{name} SNR in training")
    return _png(figure, title)


def noisy(images: dict, spectrograms: dict, label: int, title: Title) -> bytes:
    """One pair, ratio -> image [S, S] above and ratio -> spectrogram [T, F] below."""
    columns = max(len(images), len(spectrograms))
    figure = _figure(1.5 * columns + 0.8, 4.6)
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for axis, (ratio, values) in zip(axes[0], images.items(), strict=False):
        axis.imshow(values, cmap="gray")
        axis.set_title(f"image {ratio_name(ratio)}", fontsize=8)
    for axis, (ratio, values) in zip(axes[1], spectrograms.items(), strict=False):
        axis.imshow(values.T, cmap="magma", origin="lower", aspect="auto", vmin=0, vmax=1)
        axis.set_title(f"audio {ratio_name(ratio)}", fontsize=8)
    heading, run = title
    return _png(figure, (f"{heading}: the digit {label}", run))


def over_time(activations: dict, scenarios: dict, label: int, begins: int, title: Title) -> bytes:
    """Scenario -> activations [T, classes], a panel each; the true class is named in red."""
    figure = _figure(12.5, 4.4)
    axes = figure.subplots(1, len(activations))
    largest = max(float(np.abs(values).max()) for values in activations.values())
    for axis, (name, values) in zip(axes, activations.items(), strict=True):
        picture = axis.imshow(
            values.T, cmap="RdBu_r", aspect="auto", vmin=-largest, vmax=largest, origin="lower"
        )
        audio, image = (ratio_name(r) for r in scenarios[name])
        axis.set_title(f"{name}: audio {audio}, image {image}", fontsize=9)
        axis.set_yticks(range(values.shape[1]))
        axis.get_yticklabels()[label].set_color("red")
        axis.axvline(begins - 0.5, color="black", linestyle=":")
        axis.set_xlabel("step; the sound begins at the dots", fontsize=8)
    axes[0].set_ylabel("class; the true one in red")
    figure.colorbar(picture, ax=list(axes), label="activation", fraction=0.03)
    heading, run = title
    return _png(figure, (f"{heading}: the digit {label}", run))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure, title: Title) -> bytes:
    heading, run = title
    figure.suptitle(heading, fontsize=11)
    across = int(14 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.wrap(run, across)), fontsize=_SMALL, x=0.01, ha="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
