"""Single examples of the audio-visual study: how noise looks, and what a model says over time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fusion_keras.backbones.clstm import with_steps
from fusion_keras.data.digit_files import RATE
from fusion_keras.data.digit_set import CLASSES, read_digits, split_examples
from fusion_keras.data.digits import Digits
from fusion_keras.data.spectrogram import STRIDE, WINDOW
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import CLSTM
from fusion_keras.studies.digits import drawings
from fusion_keras.studies.digits.cells import Cell, ratio_name
from fusion_keras.training.restored import load_model

# Appendix A.5: "the original input", sound better than the image, the reverse, and both alike.
# It gives the ratios of the second and the fourth; those of the third mirror the second.
SCENARIOS: dict[str, Cell] = {
    "original": (math.inf, math.inf),
    "better sound": (1, 0.25),
    "better image": (0.25, 1),
    "both alike": (0.5, 0.5),
}


def noisy(config, place: int, study):
    """Figure 6: one test pair at the ratios of the grid; (rows of the table, drawing)."""
    digits = read_digits(config.data, config.clstm.image, config.clstm.steps)
    images, spectrograms, rows = {}, {}, []
    for ratio in study.test_image:
        images[ratio] = _at(digits, config, place, ratio, math.inf).image(place)[..., 0]
        rows.append(_spread("image", ratio, images, place))
    for ratio in study.test_audio:
        example = _at(digits, config, place, math.inf, ratio)
        spectrograms[ratio] = example.spectrogram(place)
        rows.append(_spread("spectrogram", ratio, spectrograms, place))
    label = example.digit(place)
    return rows, lambda title: drawings.noisy(images, spectrograms, label, title)


def _spread(kind: str, ratio: float, inputs: dict[float, np.ndarray], place: int) -> dict:
    values = inputs[ratio]
    return {
        "input": kind,
        "example": place,
        "ratio": ratio_name(ratio),
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "least": float(values.min()),
        "most": float(values.max()),
    }


def over_time(folder: Path, config, place: int):
    """Figures 11 to 16: the last layer after every step; (rows of the table, drawing).

    Args:
        folder, config: a complete run and its config.
        place: of the test pair.
    """
    sizes = CLSTM.spec(config).sizes
    model = with_steps(load_model(folder), config.variant, sizes)
    digits = read_digits(config.data, sizes.image, sizes.steps)
    activations, rows = {}, []
    for name, (audio, image) in SCENARIOS.items():
        example = _at(digits, config, place, image, audio)[place]
        inputs = {n: example[n][None] for n in ("image", "spectrogram")}
        activations[name] = np.asarray(model.predict_on_batch(inputs)["steps"])[0]  # [T, classes]
        rows += _rows(name, (audio, image), place, int(example["label"]), activations[name])
    label, begins = int(example["label"]), _onset(digits, config, place)
    return rows, lambda title: drawings.over_time(activations, SCENARIOS, label, begins, title)


def _rows(name: str, cell: Cell, place: int, label: int, steps: np.ndarray) -> list[dict]:
    return [
        {
            "scenario": name,
            "test_audio": ratio_name(cell[0]),
            "test_image": ratio_name(cell[1]),
            "example": place,
            "label": CLASSES[label],
            "step": step,
            "seconds": (WINDOW + step * STRIDE) / RATE,
            **{f"activation_{c}": float(v) for c, v in zip(CLASSES, values, strict=True)},
        }
        for step, values in enumerate(steps)
    ]


def _at(digits: Digits, config, place: int, image: float, audio: float):
    """The test pairs at these ratios. Raises UsageError: there is no such place."""
    examples = split_examples(digits, config.data, "test", image, audio)
    if not 0 <= place < len(examples):
        raise UsageError(f"--example is {place}; 0 to {len(examples) - 1} is wanted.")
    return examples


def _onset(digits: Digits, config, place: int) -> int:
    """The first step whose window reaches into the recording, behind the zeros in front."""
    examples = _at(digits, config, place, math.inf, math.inf)
    _, recording, _ = examples.pairs[examples.number(place)]
    silent = digits.samples - len(digits.recordings[recording])
    return max(0, -(-(silent - WINDOW + 1) // STRIDE))
