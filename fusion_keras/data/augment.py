"""Random changes of a training image that leave its label true.

All geometric ones are one affine resampling and all photometric ones one pass, so that an
image loses sharpness only once and the CPU keeps ahead of the accelerator.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageStat

from fusion_keras.errors import UsageError

# ITU-R BT.601 luma, the grey that Pillow's own enhancers use.
_LUMA = np.array([0.299, 0.587, 0.114])

_GREY = 127


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
    drop_text, drop_image: the probability of withholding the sentence, or the image, of an
        example that has both; never both at once (modality dropout; Neverova et al.
        2016, arXiv 1501.00102).
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

    def __post_init__(self):
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise UsageError(
                f"got augmentation scale {self.scale}, wanted two numbers, 0 < lowest <= highest"
            )
        shares = ("shift", "brightness", "contrast", "saturation", "erase")
        for name in (*shares, "drop_text", "drop_image"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"got augmentation {name}={getattr(self, name)}, wanted 0 to 1")
        if self.mixup < 0:
            raise UsageError(f"got augmentation mixup={self.mixup}, wanted 0 or more")
        if self.drop_text + self.drop_image > 1:
            raise UsageError(
                f"got augmentation drop_text={self.drop_text} and drop_image={self.drop_image}, "
                "wanted at most 1 together: an example keeps one of the two"
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
    pixels[top : top + tall, left : left + wide] = _GREY


def missing(
    count: int, spec: AugmentSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Modality dropout: bool [count], whose sentence is missing, and whose image; never both."""
    drawn = rng.random(count)
    return drawn < spec.drop_text, drawn >= 1 - spec.drop_image


def withhold(
    token_ids: np.ndarray, images: np.ndarray, spec: AugmentSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Modality dropout: int32 [B, T] and uint8 [B, S, S, 3] -> the same, some of them empty.

    A withheld sentence is the empty one, its first and last token side by side ([CLS] and
    [SEP]); a withheld image is all grey. Third, bool [B], whose sentence was withheld.
    """
    if not spec.drop_text and not spec.drop_image:
        return token_ids, images, np.zeros(len(images), bool)
    without_text, without_image = missing(len(token_ids), spec, rng)
    token_ids, images = token_ids.copy(), images.copy()
    last = np.maximum((token_ids != 0).sum(axis=1) - 1, 1)
    token_ids[without_text, 1] = token_ids[np.arange(len(last)), last][without_text]
    token_ids[without_text, 2:] = 0
    images[without_image] = _GREY
    return token_ids, images, without_text


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
