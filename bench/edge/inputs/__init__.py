"""From a sentence, an image file, ... to the arrays that an artifact's model takes.

The same ids, pixels, energies and numbers as in training, without the training stack:
`tokenizers` reads the artifact's tokenizer, Pillow the image, `wave` the recording. Each modality
has a file here. `tests/test_inputs.py` compares them with training's own on the real data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.edge.artifact import ArtifactError
from bench.edge.inputs import audio, image, tabular, text

Encode = Callable[[Any], tuple[np.ndarray, str]]


@dataclass(frozen=True)
class Kind:
    """How one modality comes to a device.

    Attributes:
        modality: its name, and that of the flag of `predict`.
        keyword: what `Predictor.predict` calls it.
        stage: what the step from what is given to the array is called.
        encoder: (folder of the artifact, `meta.json`) -> what makes [1, ...] of one example, of
            None where it is missing, and a sentence on what of it the model does not get, or "".
        queries: (folder of the artifact's queries) -> examples as they came.
        flag: arguments of the flag.
        loads: what making the encoder is called where it takes time.
    """

    modality: str
    keyword: str
    stage: str
    encoder: Callable[[Path, dict], Encode]
    queries: Callable[[Path], list]
    flag: dict[str, str]
    loads: str = ""

    @property
    def named(self) -> str:
        """Its name for those who write code and those who type a command."""
        same = self.keyword == self.modality
        return self.keyword if same else f"{self.keyword} (--{self.modality})"


def _whole(make: Callable[[Any, dict], np.ndarray]) -> Callable[[Path, dict], Encode]:
    """Of a modality of which the model gets all."""
    return lambda folder, meta: lambda given: (make(given, meta), "")


# Input of a model -> how it is made.
KINDS = {
    "token_ids": Kind(
        "text",
        "text",
        "tokens",
        lambda folder, meta: text.Tokens(folder, meta).noted,
        text.queries,
        {
            "help": "the sentence; or, once for each column, NAME=VALUE where it is joined from "
            "several",
            "action": "append",
        },
        loads="load the tokenizer",
    ),
    "image": Kind(
        "image",
        "image",
        "image",
        _whole(image.picture),
        image.queries,
        {"help": "an image file"},
    ),
    "audio": Kind(
        "audio",
        "audio",
        "sound",
        _whole(audio.sound),
        audio.queries,
        {"help": "a WAV file of 16 bits at the model's rate, 16 kHz"},
    ),
    "tabular": Kind(
        "tabular",
        "features",
        "row",
        lambda folder, meta: lambda given: tabular.noted(given, meta),
        tabular.queries,
        {"help": "cells of a table's row", "nargs": "+", "metavar": "NAME=VALUE"},
    ),
}


def kinds_of(meta: dict) -> dict[str, Kind]:
    """Input -> how it is made, of those that a model takes.

    Raises:
        ArtifactError: one of its inputs is made of no file here.
    """
    names = [name for name in meta["inputs"] if not name.startswith("present_")]
    drawn = [name for name in names if name not in KINDS]
    if drawn:
        raise ArtifactError(
            f"The model's input {drawn[0]} is not made of files here: python -m bench measures it "
            "on the examples inside of the artifact."
        )
    return {name: KINDS[name] for name in names}


def keywords(meta: dict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a model takes, as `Predictor.predict` calls it, and what of it may be left out."""
    kinds = kinds_of(meta)
    may_lack = tuple(kind.keyword for name, kind in kinds.items() if name in meta["may_lack"])
    return tuple(kind.keyword for kind in kinds.values()), may_lack


def present(meta: dict, missing: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """What a model with stand-ins is told: `present_text` ... -> float32 [1, 1], 0 if missing.

    Args:
        missing: modalities.
    """
    told = [name for name in meta["inputs"] if name.startswith("present_")]
    return {n: np.full((1, 1), n.split("_", 1)[1] not in missing, np.float32) for n in told}
