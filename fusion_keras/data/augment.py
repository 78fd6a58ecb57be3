"""Random changes of a training image that leave its label true.

All geometric ones are one affine resampling and all photometric ones one pass, so that an
image loses sharpness only once and the CPU keeps ahead of the accelerator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat

from fusion_keras.data.modalities import DROPS
from fusion_keras.errors import UsageError

# ITU-R BT.601 luma, the grey that Pillow's own enhancers use.
_LUMA = np.array([0.299, 0.587, 0.114])

# What stands for an image, or a part of one, that is not there.
GREY = 127


@dataclass(frozen=True)
class AugmentSpec:
    """How far each change may go; every amount is drawn uniformly per image.

    The defaults are modest: a face stays a face and a meme readable.

    flip: mirror every second image.
    shift: up to this fraction of the edge, in x and in y.
    scale: the range of the zoom factor; above 1 enlarges.
    rotate: up to this many degrees either way.
    brightness, contrast, saturation: factors in 1 - amount .. 1 + amount.
    erase: the probability of blanking one rectangle of 2 to 20 % of the area with grey.
    mixup: alpha of the Beta distribution that two images of a batch, and their labels, are
        mixed by, where no sentence comes with them; 0 mixes none (Zhang et al. 2018, arXiv
        1710.09412, section 2).
    drop_text, drop_image, drop_audio, drop_tabular: the probability of withholding the sentence,
        the image, the sound or the numbers and categories of an example that has more; never two
        at once (modality dropout; Neverova et al. 2016, arXiv 1501.00102).
    """

    flip: bool = True
    shift: float = 0.06
    scale: tuple[float, float] = (0.9, 1.15)
    rotate: float = 8.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    erase: float = 0.0
    mixup: float = 0.0
    drop_text: float = 0.0
    drop_image: float = 0.0
    drop_audio: float = 0.0
    drop_tabular: float = 0.0

    def __post_init__(self):
        numbers = all(isinstance(size, (int, float)) for size in self.scale)
        if not numbers or len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise UsageError(
                f"got augmentation scale {self.scale}, wanted two numbers, 0 < lowest <= highest"
            )
        shares = ("shift", "brightness", "contrast", "saturation", "erase")
        for name in (*shares, *DROPS.values()):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"got augmentation {name}={getattr(self, name)}, wanted 0 to 1")
        for name in ("mixup", "rotate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UsageError(f"got augmentation {name}={getattr(self, name)}, wanted 0 or more")
        if sum(getattr(self, name) for name in DROPS.values()) > 1:
            got = ", ".join(f"{name}={getattr(self, name)}" for name in DROPS.values())
            raise UsageError(
                f"got augmentation {got}, wanted at most 1 together: an example loses one at most"
            )


def augment(image: np.ndarray, spec: AugmentSpec, rng: np.random.Generator) -> np.ndarray:
    """uint8 [S, S, 3] -> a new uint8 [S, S, 3]; the same `rng` state gives the same pixels.

    What a rotation or shift uncovers is black.
    """
    changed = _recolour(_move(Image.fromarray(image), spec, rng), spec, rng)
    pixels = np.array(changed)
    if rng.random() < spec.erase:
        _erase(pixels, rng)
    return pixels


def _move(image: Image.Image, spec: AugmentSpec, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    angle = math.radians(rng.uniform(-spec.rotate, spec.rotate))
    zoom = rng.uniform(*spec.scale)
    shift_x, shift_y = rng.uniform(-spec.shift, spec.shift, 2) * (width, height)
    mirror = -1 if spec.flip and rng.random() < 0.5 else 1
    # Pillow wants the way back, from an output pixel to where its colour is in the input.
    # Both are taken from the centre: input = A (output - shift - centre) + centre.
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    a, b, d, e = mirror * cos, mirror * sin, -sin, cos
    centre_x, centre_y = width / 2, height / 2
    x, y = centre_x + shift_x, centre_y + shift_y
    matrix = (a, b, centre_x - a * x - b * y, d, e, centre_y - d * x - e * y)
    return image.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


def _recolour(image: Image.Image, spec: AugmentSpec, rng: np.random.Generator) -> Image.Image:
    """Saturation, brightness and contrast are linear in the pixel: one 3x4 matrix for all."""
    brightness, contrast, saturation = (
        rng.uniform(1 - amount, 1 + amount)
        for amount in (spec.brightness, spec.contrast, spec.saturation)
    )
    # Contrast turns about the image's mean grey, so that it does not change the brightness.
    mean = ImageStat.Stat(image.convert("L")).mean[0]
    mix = saturation * np.eye(3) + (1 - saturation) * _LUMA  # [channel out, channel in]
    offset = np.full((3, 1), brightness * (1 - contrast) * mean)
    matrix = np.hstack([brightness * contrast * mix, offset])
    return image.convert("RGB", tuple(matrix.ravel().tolist()))


def _erase(pixels: np.ndarray, rng: np.random.Generator):
    """Random erasing (Zhong et al. 2020, section 3), with mid-grey; changes `pixels`."""
    height, width = pixels.shape[:2]
    area = rng.uniform(0.02, 0.2) * height * width
    aspect = math.exp(rng.uniform(math.log(0.5), math.log(2)))
    tall = min(height, round(math.sqrt(area * aspect)))
    wide = min(width, round(math.sqrt(area / aspect)))
    top = rng.integers(0, height - tall + 1)
    left = rng.integers(0, width - wide + 1)
    pixels[top : top + tall, left : left + wide] = GREY


def missing(
    count: int, modalities: Sequence[str], spec: AugmentSpec, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Modality dropout: each of an example's modalities -> bool [count], whose is missing.

    Never two of one example, and none of the only one.
    """
    if len(modalities) < 2 or not any(getattr(spec, DROPS[m]) for m in modalities):
        return {modality: np.zeros(count, bool) for modality in modalities}
    drawn = rng.random(count)
    # One draw decides: images from the top, the others one above the other from below.
    without, start = {}, 0.0
    for modality in DROPS:
        rate = getattr(spec, DROPS[modality])
        if modality == "image":
            without[modality] = drawn >= 1 - rate
        else:
            above = drawn - start
            without[modality] = (above >= 0) & (above < rate)
            start += rate
    return {modality: without[modality] for modality in modalities}


def mix(
    images: np.ndarray, targets: dict[str, np.ndarray], spec: AugmentSpec, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mixup: uint8 [B, S, S, 3] and float targets [B, ...], each with another of the batch.

    One share is drawn for the whole batch, as the authors' code does.
    """
    share = np.float32(rng.beta(spec.mixup, spec.mixup))
    order = rng.permutation(len(images))
    mixed = np.round(share * images + (1 - share) * images[order]).astype(np.uint8)
    return mixed, {n: share * x + (1 - share) * x[order] for n, x in targets.items()}
