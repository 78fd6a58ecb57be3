"""What a modality is to everything that handles one: the contract that each file here fulfils."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from keras_hub.layers import PositionEmbedding

from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.pointwise import PixelLayerNormalization
from fusion_keras.data.modalities import DROPS, INPUT_OF, PRESENT
from fusion_keras.data.picked import Picked, of_each
from fusion_keras.data.records import Dataset, Reader

# name, make -> the layer of that name: made anew, or found in a model that was loaded.
Layers = Callable[[str, Callable[[str], layers.Layer]], layers.Layer]


class Modality(abc.ABC):
    """One kind of input: how it is read, what encodes it, how it meets the others.

    Attributes:
        name: its name in settings, specs, files and layers; one of `data.modalities.MODALITIES`.
        noun, plural: what one example of it, and several, are called in messages.
        files: whether it comes as files, some of which may turn out unusable.
        padded: whether its examples are token ids of any length, padded.
        augmented: whether `augment` changes anything.
        learns: whether its backbone's size comes of the training rows.
    """

    name: str
    noun: str
    plural: str
    files = False
    padded = False
    augmented = False
    learns = False

    @property
    def input(self) -> str:
        """The model's input."""
        return INPUT_OF[self.name]

    @property
    def present(self) -> str:
        """The input of a model with stand-ins that says whether this modality is there."""
        return PRESENT[self.name]

    @property
    def drop(self) -> str:
        """The setting of `config.augment` that says how often training withholds it."""
        return DROPS[self.name]

    @property
    def part(self) -> str:
        """The name of its backbone inside a model."""
        return f"{self.name}_backbone"

    def tap(self, depth: int | str) -> str:
        """The name of a tap wherever it is an input or an output, e.g. `text_4`."""
        return f"{self.name}_{depth}"

    # --- Data -------------------------------------------------------------------------------

    @abc.abstractmethod
    def reader(self, config) -> Reader:
        """What makes `input` of a source's rows.

        Args:
            config: the resolved config.

        Raises:
            UsageError: settings that cannot be, or a preset that cannot be read.
        """

    def contents(self, dataset: Dataset) -> list[str]:
        """A digest of each row's content; "" where there is none, or the data set was read without
        it."""
        values = dataset.inputs.get(self.name)
        if not isinstance(values, np.ndarray | Picked):
            return [""] * len(dataset)
        return [name or "" for name in of_each(values, dataset.has(self.name), digest)]

    @abc.abstractmethod
    def described(self, preset, config) -> dict:
        """How one example becomes the input, for `config.json` and the device."""

    def files_of(self, preset) -> dict[str, bytes]:
        """Files that a run and its artifact need beside the model: name -> content."""
        return {}

    @abc.abstractmethod
    def one(self, given: Any, reader: Reader, described: Mapping[str, Any]) -> np.ndarray:
        """The input of one example that is in no data set, [...].

        Args:
            given: of it, as `api.Run.predict` says.
            reader: of the run's config.
            described: what `described` gave when the run was trained.

        Raises:
            ValueError, TypeError, OSError: it cannot be read.
        """

    @abc.abstractmethod
    def nothing(self, count: int, reader: Reader, described: Mapping[str, Any]) -> np.ndarray:
        """The input of as many examples that lack it, [count, ...]; see `one` and `emptied`."""

    @abc.abstractmethod
    def write_raw(self, folder: Path, index: int, dataset: Dataset, row: int) -> None:
        """Write a row as it came into an artifact's `queries`, where a device reads it."""

    # --- Training ---------------------------------------------------------------------------

    def augment(self, values: np.ndarray, spec, rng: np.random.Generator) -> np.ndarray:
        """Random changes of a batch [B, ...] that leave its labels true; none by default."""
        return values

    @abc.abstractmethod
    def emptied(self, values: np.ndarray, rows: np.ndarray, preset: Any) -> np.ndarray:
        """A batch [B, ...] in which the rows chosen by bool [B] show nothing.

        preset: that it was read for.
        """

    # --- Graph ------------------------------------------------------------------------------

    @abc.abstractmethod
    def facts(self, config) -> Facts:
        """What the config's preset is, without loading weights.

        Raises:
            UsageError: the preset is unknown, unreachable or of another kind.
        """

    @abc.abstractmethod
    def load(self, config, encoding: dict | None = None) -> Any:
        """The config's preset: an object whose `backbone` has `taps`, `summary`, `num_depths`.

        Args:
            config: the resolved config.
            encoding: what `reader` has learned from the training rows; of most, nothing.

        Raises:
            UsageError: the preset cannot be loaded.
        """

    @abc.abstractmethod
    def placeholder(self, preset, length: int | None) -> keras.KerasTensor:
        """The model's input; `length` is that of padded tokens, None leaves it open."""

    def feed(
        self, x: keras.KerasTensor, layer: Layers, part: keras.Model, preset=None
    ) -> tuple[Any, Any]:
        """(what the backbone takes of the model's input, its padding mask or None).

        Args:
            x: the input.
            layer: gives the layers in front of the backbone; see `Layers`.
            part: the backbone, perhaps cut.
            preset: None where they are found in a model.
        """
        return x, None

    def tokens(self, tap: keras.KerasTensor, width: int, grid: int, name: str):
        """A tap as tokens [B, N, width] for attention, see `fusion.spec.Junction.grid`."""
        return project(tap, width, name)

    # --- PyTorch ----------------------------------------------------------------------------

    @abc.abstractmethod
    def weights(self, part: keras.Model) -> Mapping[str, Any]:
        """The weights of a backbone, perhaps cut: the reference's names -> `layouts.Weight`."""


def digest(content) -> str:
    """A short digest of bytes."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def project(x, width: int, name: str):
    """Normalise, then project: taps of unlike backbones differ in scale by orders."""
    x = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)
    return layers.Dense(width, name=f"{name}_project")(x)


def map_tokens(tap, width: int, size, name: str):
    """A map [B, h, w, C] as tokens [B, N, width], one for each `size` of it: normalised, projected
    and told their places, since attention sees a set."""
    x = PixelLayerNormalization(epsilon=1e-6, name=f"{name}_norm")(tap)
    x = layers.Conv2D(width, size, strides=size, padding="same", name=f"{name}_project")(
        x
    )  # [B, g, g, width] or [B, N, 1, width]
    x = layers.Reshape((-1, width), name=f"{name}_tokens")(x)
    positions = PositionEmbedding(x.shape[1], name=f"{name}_positions")(x)
    return layers.Add(name=f"{name}_place")([x, positions])
