"""A checkpoint's own image preprocessing, from its preprocessor_config.json."""

from dataclasses import replace
from pathlib import Path

from fusion_keras.backbones.sources import read_json
from fusion_keras.data.images import ImageSpec
from fusion_keras.errors import UsageError

# What every published ViT and MobileNetV2 of Google takes: pixel * scale + offset.
SCALE, OFFSET = 1 / 127.5, -1.0

_INTERPOLATION = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as Hugging Face stores them
_HALVES = [0.5, 0.5, 0.5]


def read_preprocessing(directory: Path, family: ImageSpec):
    """How a checkpoint directory wants its images.

    Args:
        directory: of the checkpoint.
        family: what its architecture's published checkpoints do, taken where the directory
            has no preprocessor_config.json or the file leaves it open.

    Returns:
        (ImageSpec of the family's size, scale, offset), the latter as in presets.ImagePreset.

    Raises:
        UsageError: the file asks for something that is not supported.
    """
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        return family, SCALE, OFFSET
    config = read_json(path)
    try:
        return _resizing(config, family), *_scaling(config)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UsageError(
            f"got {path} with preprocessing that is not known here ({error!r}), wanted a "
            "bilinear or bicubic resize, a centre crop and a normalisation; delete the file to "
            "use its family's."
        ) from error


def _resizing(config, family):
    """How an image becomes square. Raises KeyError, TypeError ... on anything else."""
    size = config.get("size", family.size)
    if isinstance(size, int):
        edge, by_shorter_edge = size, family.resize == "crop"
    elif "shortest_edge" in size:
        edge, by_shorter_edge = size["shortest_edge"], True
    else:
        edge, by_shorter_edge = size["height"], False
    interpolation = _INTERPOLATION[config.get("resample", 2)]
    if not by_shorter_edge:
        return replace(family, resize="squash", crop_fraction=1.0, interpolation=interpolation)
    crop = edge
    if config.get("do_center_crop", True):
        crop = config.get("crop_size", family.size)
        crop = crop if isinstance(crop, int) else crop["height"]
    return replace(family, resize="crop", crop_fraction=crop / edge, interpolation=interpolation)


def _scaling(config):
    """(scale, offset): numbers where the three channels agree, else tuples of three."""
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean, deviation = [0.0] * 3, [1.0] * 3
    if config.get("do_normalize", True):
        mean, deviation = config.get("image_mean", _HALVES), config.get("image_std", _HALVES)
    scale = tuple(factor / float(d) for d in deviation)
    offset = tuple(-float(m) / float(d) for m, d in zip(mean, deviation, strict=True))
    if len(set(scale)) == 1 and len(set(offset)) == 1:
        return scale[0], offset[0]
    return scale, offset
