"""Images: pixels, encoded by a convolutional network or a vision transformer."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from PIL import Image as Picture

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.presets import ImagePreset, find_image, load_image
from fusion_keras.data.augment import GREY, AugmentSpec, augment
from fusion_keras.data.images import ImageSpec, decode, decode_all, fit
from fusion_keras.data.records import Dataset, Reading, Records
from fusion_keras.errors import UsageError
from fusion_keras.modalities.base import Layers, Modality, map_tokens

_register = keras.saving.register_keras_serializable(package="fusion_keras")


@_register
class PatchGrid(layers.Layer):
    """ViT tokens [B, S + g * g, D] -> their grid [B, g, g, D], without the S special tokens.

    S is one or two, too few to be taken for a further row and column of patches.
    """

    def call(self, x):
        side = math.isqrt(x.shape[1])
        return ops.reshape(x[:, x.shape[1] - side**2 :], (-1, side, side, x.shape[2]))


@dataclasses.dataclass(frozen=True)
class ImageReader:
    """Image files, or images that were drawn, -> pixels uint8 [N, S, S, 3]."""

    spec: ImageSpec

    def require(self, records: Records) -> None:
        if "image" not in records.raw:
            raise UsageError(
                f"got the source {records.name!r} without images, wanted images for this variant; "
                "name where they are (data.manifest.image_column, data.mosi.raw_dir or "
                "data.mosi.frames_dir), or choose variant=text."
            )

    def read(self, records: Records, folder: Path) -> Reading:
        self.require(records)
        images = records.raw["image"]
        if isinstance(images, np.ndarray):  # the demo draws its images
            return Reading(np.stack([fit(Picture.fromarray(x), self.spec) for x in images]))
        return Reading(*decode_all(images, self.spec, folder, records.skips, records.origins))


class Image(Modality):
    """Images."""

    name = "image"
    noun, plural = "image", "images"
    files = augmented = True

    def reader(self, config) -> ImageReader:
        return ImageReader(self._find(config)[1])

    def _find(self, config):
        source, spec, scaling = find_image(config.image.preset, config.image.size or None)
        if config.image.resize:
            spec = dataclasses.replace(spec, resize=config.image.resize)
        return source, spec, scaling

    def described(self, preset: ImagePreset, config) -> dict:
        spec = preset.image_spec
        return {
            "size": spec.size,
            "resize": spec.resize,
            "crop_fraction": spec.crop_fraction,
            "interpolation": spec.interpolation,
        }

    def one(self, given, reader: ImageReader, described):
        if isinstance(given, np.ndarray):
            if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3:
                raise ValueError(f"got {given.dtype} {list(given.shape)}, wanted uint8 [H, W, 3]")
            return fit(Picture.fromarray(given), reader.spec)
        return decode(given, reader.spec)

    def nothing(self, count, reader: ImageReader, described):
        size = reader.spec.size
        return np.full((count, size, size, 3), GREY, np.uint8)

    def write_raw(self, folder: Path, index: int, dataset: Dataset, row: int) -> None:
        """In the file's own bytes; a drawn image as PNG."""
        image = dataset.raw["image"][row]
        if isinstance(image, np.ndarray):
            Picture.fromarray(dataset.inputs[self.name][row]).save(folder / f"{index:02}.png")
        else:
            shutil.copy(image, folder / f"{index:02}{Path(image).suffix.lower()}")

    def augment(self, values, spec: AugmentSpec, rng):
        return np.stack([augment(image, spec, rng) for image in values])

    def emptied(self, values: np.ndarray, rows: np.ndarray, preset) -> np.ndarray:
        values = values.copy()
        values[rows] = GREY
        return values

    def facts(self, config) -> Facts:
        return self._find(config)[0].facts

    def load(self, config, encoding: dict | None = None) -> ImagePreset:
        preset = load_image(config.image.preset, config.image.size or None)
        return dataclasses.replace(preset, image_spec=self._find(config)[1])

    def placeholder(self, preset: ImagePreset, length: int | None) -> keras.KerasTensor:
        return keras.Input(preset.backbone.input.shape[1:], dtype="uint8", name=self.input)

    def feed(self, x, layer: Layers, part: keras.Model, preset: ImagePreset | None = None):
        def scaling(name):
            return layers.Rescaling(preset.scale, preset.offset, name=name)

        return layer("image_scaling", scaling)(x), None

    def tokens(self, tap, width: int, grid: int, name: str):
        if len(tap.shape) == 3:
            tap = PatchGrid(name=f"{name}_patches")(tap)
        return map_tokens(tap, width, math.ceil(max(tap.shape[1:3]) / grid), name)

    def weights(self, part: keras.Model) -> dict:
        return backbone_weights.image(part)
