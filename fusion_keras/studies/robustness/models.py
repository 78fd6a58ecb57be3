"""Models whose robustness is measured: on Keras, or exported ones by ONNX Runtime.

Both answer the same question, which class for each row of a split, with some inputs exchanged.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from fusion_keras import exported
from fusion_keras.data import sound
from fusion_keras.data.cache import cache_dir
from fusion_keras.data.tokens import TextTokenizer, load_tokenizer
from fusion_keras.errors import UsageError
from fusion_keras.modalities import MODALITY
from fusion_keras.training.evaluate import BATCH, predict
from fusion_keras.training.task import Task

# What all models together may keep of the outputs of encoders whose inputs stay as they are.
KEPT_BYTES = 1 << 30

# Inputs that differ from the clean ones, name -> [n, ...], to the class of each row, int [n].
Classes = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a split as one run takes them.

    Attributes:
        name: of the data set.
        inputs: "token_ids" int32 [n, T], "image" uint8 [n, S, S, 3], "audio" float32 [n, F, bands]
            and, of a model with stand-ins, "present_text" ... float32 [n, 1], as far as it
            takes them.
        texts: n sentences; "" for a row without one.
        labels: int [n].
        ids, groups: n names; groups None where rows are independent.
        classes: their names.
        tokenizer: None without sentences.
        waveforms, log_mel: the first gives float32 [n, samples], the second makes of one of them
            what the model takes, float32 [F, bands]; None without sound.
    """

    name: str
    inputs: dict[str, np.ndarray]
    texts: list[str]
    labels: np.ndarray
    ids: list[str]
    groups: list[str] | None
    classes: tuple[str, ...]
    tokenizer: TextTokenizer | None
    waveforms: Callable[[], np.ndarray] | None = None
    log_mel: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def digest(self) -> str:
        """sha256 of what two models must share to be compared on: ids, labels, groups."""
        shared = [self.name, self.ids, self.labels.tolist(), self.groups, list(self.classes)]
        return hashlib.sha256(json.dumps(shared).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Contender:
    """A model to measure.

    Attributes:
        key: of its content: where the file lies does not matter.
        path: the run or the artifact.
        variant, seed: of its training.
        precision: of an artifact's model; "" for a run.
        family: what models that differ in nothing but the seed have in common.
        rows: the data.
        classes: its answers.
    """

    key: str
    path: Path
    variant: str
    seed: int
    precision: str
    family: str
    rows: Rows
    classes: Classes


def rows_of(task: Task, split: str) -> Rows:
    """The rows of a split.

    Raises:
        UsageError: no such split.
    """
    if split not in task.rows:
        raise UsageError(f"Unknown split {split!r}; one of {', '.join(task.rows)} is wanted.")
    dataset, rows = task.dataset, task.rows[split]
    taken, hears = [x.name for x in task.graph.model.inputs], task.presets.get("audio")
    return Rows(
        name=dataset.name,
        inputs={name: np.asarray(task.arrays[name][rows]) for name in taken},
        texts=[dataset.raw["text"][row] or "" for row in rows],
        labels=dataset.labels[rows],
        ids=[dataset.ids[row] for row in rows],
        groups=None if dataset.groups is None else [dataset.groups[row] for row in rows],
        classes=tuple(dataset.classes),
        tokenizer=_tokenizer(task),
        waveforms=functools.partial(_waveforms, task, rows) if hears else None,
        log_mel=hears.backbone.front_end.log_mel if hears else None,
    )


def _tokenizer(task: Task) -> TextTokenizer | None:
    return load_tokenizer(task.presets["text"].tokenizer_dir) if "text" in task.presets else None


def _waveforms(task: Task, rows: np.ndarray) -> np.ndarray:
    paths = [task.dataset.raw["audio"][row] for row in rows]
    return sound.waveforms(
        paths, task.presets["audio"].seconds, cache_dir(task.config.data.cache_dir)
    )


def keras_classes(task: Task, rows: Rows, room: int = KEPT_BYTES) -> Classes:
    """A run's model. An encoder whose input is the clean one runs once, if its output fits.

    Args:
        room: how many bytes may be kept of the encoders' outputs.
    """
    encoders, everything = task.graph.encoders, np.arange(len(rows.labels))
    if _tap_bytes(encoders, rows) > room:

        def whole(changed):
            inputs = {**rows.inputs, **changed}
            return predict(task.graph.model, inputs, everything)["logits"].argmax(-1)

        return whole
    parts = {MODALITY[m].input: task.graph.encoder(m) for m in task.graph.tap_names}
    clean = {}

    def taps(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
        return predict(parts[name], {name: array}, everything)

    def classes(changed: dict[str, np.ndarray]) -> np.ndarray:
        outputs = {}
        for name in parts:
            if name not in changed and name not in clean:
                clean[name] = taps(name, rows.inputs[name])
            outputs |= taps(name, changed[name]) if name in changed else clean[name]
        names = [m.present for m in MODALITY.values() if m.present in rows.inputs]
        present = {name: {**rows.inputs, **changed}[name] for name in names}
        return predict(task.graph.fusion, outputs | present, everything)["logits"].argmax(-1)

    return classes


def _tap_bytes(encoders: keras.Model, rows: Rows) -> int:
    """What the outputs of all rows take, as float32; an open length is that of the sentences."""
    length = rows.inputs["token_ids"].shape[1] if "token_ids" in rows.inputs else 1
    values = sum(
        int(np.prod([size or length for size in x.shape[1:]])) for x in encoders.output.values()
    )
    return 4 * len(rows.labels) * values


def onnx_classes(file: Path, rows: Rows) -> Classes:
    """An exported model, by ONNX Runtime on the CPU.

    Raises:
        UsageError: onnxruntime is not installed, or it refuses the file.
    """
    answers = exported.opened(file, BATCH)
    return lambda changed: answers({**rows.inputs, **changed})["logits"].argmax(-1)
