"""A checkpoint's own image preprocessing: preprocessor_config.json, or timm's pretrained_cfg."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from fusion_keras.backbones.sources import read_json
from fusion_keras.data.images import ImageSpec
from fusion_keras.errors import UsageError

# Pillow's numbers, as Hugging Face stores them.
_INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}
_HALVES = (0.5, 0.5, 0.5)
_RESAMPLE = {name: number for number, name in _INTERPOLATION.items()}
# Above this edge ConvNeXT's preprocessing, which ResNet has too, squashes and does not crop.
_WARPED_FROM = 384
# What of an edge it keeps below that, where it is not said.
_CROP_PCT = 224 / 256


@dataclass(frozen=True)
class Family:
    """How the published checkpoints of an architecture take their images.

    Attributes:
        spec: how a file becomes a square.
        mean, deviation: of each channel (R, G, B), of values in [0, 1]; the halves make it
            x / 127.5 - 1, which the ViTs and MobileNetV2s of Google take.
        include_top: divide by the deviation once more, as EfficientNet's classifiers do.
    """

    spec: ImageSpec
    mean: tuple[float, float, float] = _HALVES
    deviation: tuple[float, float, float] = _HALVES
    include_top: bool = False

    @classmethod
    def of_imagenet(cls, spec: ImageSpec) -> "Family":
        """One whose values are standardised by ImageNet's mean and deviation."""
        return cls(spec, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @property
    def scaling(self) -> tuple:
        """(scale, offset) as in presets.ImagePreset."""
        return _scaling({}, self)


def read_preprocessing(directory: Path, family: Family):
    """How a checkpoint directory wants its images.

    Args:
        directory: of the checkpoint.
        family: what its architecture's published checkpoints do, taken where the directory
            has neither preprocessor_config.json nor timm's pretrained_cfg or they leave it open.

    Returns:
        (ImageSpec of the family's size, scale, offset), the latter as in presets.ImagePreset.

    Raises:
        UsageError: the file asks for something that is not supported.
    """
    path, read = directory / "preprocessor_config.json", dict
    if not path.is_file() and (directory / "processor_config.json").is_file():
        # What transformers 5 writes of a pair of sentences and images.
        path, read = directory / "processor_config.json", _of_processor
        if "image_processor" not in read_json(path):
            return family.spec, *family.scaling
    elif not path.is_file():
        path, read = directory / "config.json", _of_timm
    config = read_json(path)
    if read is _of_timm and "pretrained_cfg" not in config:
        return family.spec, *family.scaling
    try:
        config = read(config)
        return _resizing(config, family.spec), *_scaling(config, family)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = error if isinstance(error, ValueError) else repr(error)
        raise UsageError(
            f"got {path} with preprocessing that is not known here ({reason}), wanted a "
            "bilinear or bicubic resize, a centre crop and a normalisation; leave it out to "
            "use its family's."
        ) from error


def _of_processor(config: dict) -> dict:
    """What a processor of several modalities does with its images. Raises KeyError ..."""
    return dict(config["image_processor"])


def _of_timm(config: dict) -> dict:
    """timm's pretrained_cfg in the words of preprocessor_config.json. Raises KeyError ..."""
    published = config["pretrained_cfg"]
    if published.get("crop_mode", "center") != "center":
        raise ValueError(f"crop_mode {published['crop_mode']}")
    if len(published["input_size"]) != 3:
        raise ValueError(f"input_size {published['input_size']}")
    size = published["input_size"][-1]
    return {
        "size": {"shortest_edge": math.floor(size / published["crop_pct"])},
        "crop_size": size,
        "do_center_crop": True,
        "resample": _RESAMPLE[published["interpolation"]],
        "image_mean": published["mean"],
        "image_std": published["std"],
    }


def _resizing(config, family):
    """How an image becomes square. Raises KeyError, TypeError ... on anything else."""
    size = config.get("size", family.size)
    if isinstance(size, int):
        edge, by_shorter_edge = size, family.resize == "crop"
    elif isinstance(size, dict) and "shortest_edge" in size:
        edge, by_shorter_edge = size["shortest_edge"], True
    elif isinstance(size, dict) and "height" in size:
        edge, by_shorter_edge = size["height"], False
    else:
        raise ValueError(f"size {size!r}")
    resample = config.get("resample", _RESAMPLE[family.interpolation])
    if resample not in _INTERPOLATION:
        raise ValueError(f"resample {resample!r}")
    interpolation = _INTERPOLATION[resample]
    # ViT's processor never crops, whosever weights it prepares images for.
    processor = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    crops = family.resize == "squash_crop" and not processor.startswith("ViT")
    if "crop_pct" in config or processor.startswith("ConvNext"):
        by_shorter_edge = edge < _WARPED_FROM
        wider = int(edge / (config.get("crop_pct") or _CROP_PCT))
        fraction = edge / wider if by_shorter_edge else 1.0
    elif config.get("do_center_crop", by_shorter_edge or crops):
        crop = config.get("crop_size", family.size)
        fraction = (crop if isinstance(crop, int) else crop["height"]) / edge
    else:
        fraction = 1.0
    if not 0 < fraction <= 1:
        raise ValueError(f"a centre crop of {fraction:g} of the edge, size {size!r}")
    how = "crop" if by_shorter_edge else "squash" if fraction == 1.0 else "squash_crop"
    return replace(family, resize=how, crop_fraction=fraction, interpolation=interpolation)


def _scaling(config, family):
    """(scale, offset): numbers where the three channels agree, else tuples of three."""
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean, deviation = [0.0] * 3, [1.0] * 3
    if config.get("do_normalize", True):
        mean = config.get("image_mean", family.mean)
        deviation = config.get("image_std", family.deviation)
    if config.get("rescale_offset", False):
        raise ValueError("rescale_offset")
    for name, values in (("image_mean", mean), ("image_std", deviation)):
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise ValueError(f"{name} {values!r}")
    again = deviation if config.get("include_top", family.include_top) else [1.0] * 3
    scale = tuple(factor / float(d) / float(a) for d, a in zip(deviation, again, strict=True))
    offset = tuple(
        -float(m) / float(d) / float(a) for m, d, a in zip(mean, deviation, again, strict=True)
    )
    if len(set(scale)) == 1 and len(set(offset)) == 1:
        return scale[0], offset[0]
    return scale, offset
