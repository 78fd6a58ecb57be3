"""Image files -> uint8 [S, S, 3], as the checkpoint's own preprocessing does it.

The three ways to reach a square are those of Hugging Face's image processors in their
Pillow form; `tests/test_images.py` compares the pixels with theirs. Scaling to the
model's value range is not done here: it is part of the model graph.
"""

import contextlib
import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL import __version__ as pillow_version

from fusion_keras.data import media
from fusion_keras.data.paths import is_file
from fusion_keras.data.records import SkipLog
from fusion_keras.errors import UsageError

# What one picture may cost, about 270 MB as RGB. It is the size at which Pillow only
# warns; a file that unpacks to more is taken for a decompression bomb.
MAX_PIXELS = 89_478_485

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_WHITE = (255, 255, 255, 255)
_DIGEST_BYTES = 16


class BadImage(media.BadFile):
    """The file cannot be used as an image; the message is the reason, without the path."""


@dataclass(frozen=True)
class ImageSpec:
    """How an image of any shape becomes [size, size, 3].

    resize: "squash" scales both edges to `size` and ignores the aspect ratio (ViT);
      "crop" scales the shorter edge to round(size / crop_fraction) and cuts the centre
      (MobileNetV2: 224 / 256 = 0.875); "squash_crop" scales both edges to that and cuts the
      centre (DeiT); "pad" scales the longer edge to `size` and centres it on black.
    interpolation: "bilinear" or "bicubic", antialiased as Pillow does it, or "nearest".
    """

    size: int
    resize: str = "squash"
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self):
        if self.size < 1:
            raise UsageError(f"got image size {self.size}, wanted at least 1 pixel")
        if self.resize not in _RESIZERS:
            raise UsageError(f"got resize={self.resize!r}, wanted one of {sorted(_RESIZERS)}")
        if not 0 < self.crop_fraction <= 1:
            raise UsageError(f"got crop_fraction={self.crop_fraction}, wanted 0 < fraction <= 1")
        if self.interpolation not in _RESAMPLING:
            raise UsageError(
                f"got interpolation={self.interpolation!r}, wanted one of {sorted(_RESAMPLING)}"
            )


def decode(source: str | Path | bytes | Image.Image, spec: ImageSpec) -> np.ndarray:
    """Decodes one file, the bytes of one, or an image of Pillow to uint8 [S, S, 3] in RGB order.

    The EXIF orientation is applied. Grey, palette and CMYK become RGB; transparency is
    laid on white, as a page shows it; 16 bits are scaled to 8; of an animation the first
    frame counts.

    Raises:
      BadImage: missing, truncated, not an image, or too large to unpack.
    """
    return _decoded(source, lambda image: fit(image, spec))


def _decoded(
    source: str | Path | bytes | Image.Image, finish: Callable[[Image.Image], np.ndarray]
) -> np.ndarray:
    """What `finish` makes of a file's upright RGB image; raises as `decode` does."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    elif not isinstance(source, Image.Image) and not is_file(Path(source)):
        raise BadImage("no such file")
    try:
        given = isinstance(source, Image.Image)  # and stays open
        with contextlib.nullcontext(source) if given else Image.open(source) as image:
            _check_pixels(*image.size)
            if image.format == "EPS":
                raise BadImage("PostScript, a program that Ghostscript would have to run")
            upright = ImageOps.exif_transpose(image)
            return finish(_to_rgb(upright))
    except BadImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise BadImage("not an image that Pillow can read") from error
    # Pillow's format readers meet hostile bytes with whatever their parsing trips over
    # (OSError, SyntaxError, struct.error, IndexError, ...): all mean the same here.
    except Exception as error:
        raise BadImage(f"{error or type(error).__name__}") from error


def fit(image: Image.Image, spec: ImageSpec) -> np.ndarray:
    """An RGB image of any shape -> uint8 [S, S, 3]; raises BadImage if it is too oblong."""
    return np.asarray(_RESIZERS[spec.resize](image, spec))


def decode_all(
    paths: list[Path],
    spec: ImageSpec,
    folder: Path,
    skips: SkipLog | None = None,
    origins: list[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes N image files, or takes them from the cache.

    Args:
      skips, origins: as `media.decoded` takes them.

    Returns:
      (uint8 [N, S, S, 3] memory map, with zeros where a file is unusable;
       bool [N], True where the image is usable)

    Raises:
      UsageError: an unusable file and no log, or the cache folder cannot be written.
    """
    # What Pillow warns of (broken EXIF, huge files) is met or reported by `decode`. Set here,
    # because the filters belong to the process and not to a thread.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return media.decoded(
            "image",
            paths,
            lambda path: decode(path, spec),
            # Another Pillow may bring another JPEG decoder, hence other pixels.
            method=("images", pillow_version, asdict(spec)),
            row=(spec.size, spec.size, 3),
            dtype=np.uint8,
            folder=folder,
            skips=skips,
            origins=origins,
        )


def pixel_keys(paths: Sequence[Path | None], folder: Path) -> list[bytes | None]:
    """A digest of the pixels of each of N image files at their own size, or from the cache.

    Equal for equal bytes, and for what was saved anew without loss. None where a file is unusable,
    or there is none.
    """
    there = [path for path in paths if path is not None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        digests, usable = media.decoded(
            "image",
            there,
            lambda path: _decoded(path, _pixel_digest),
            method=("pixels 1", pillow_version),
            row=(_DIGEST_BYTES,),
            dtype=np.uint8,
            folder=folder,
            # Who reads the images will say which are unusable.
            skips=SkipLog("", 1.0),
        )
    keys = (row.tobytes() if ok else None for row, ok in zip(digests, usable, strict=True))
    return [None if path is None else next(keys) for path in paths]


def _pixel_digest(image: Image.Image) -> np.ndarray:
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=_DIGEST_BYTES)
    digest.update(image.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _narrow(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _narrow(image: Image.Image) -> Image.Image:
    """16 bits -> 8. Pillow's own conversion would clip every value above 255 to white."""
    if image.mode == "F":
        raise BadImage("floating-point pixels, which have no agreed range")
    values = np.clip(np.asarray(image), 0, 65535).astype(np.int32)
    values += 128
    values //= 257
    return Image.fromarray(values.astype(np.uint8))


def _squash(image: Image.Image, spec: ImageSpec) -> Image.Image:
    return image.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation])


def _crop(image: Image.Image, spec: ImageSpec) -> Image.Image:
    shorter, longer = sorted(image.size)
    edge = round(spec.size / spec.crop_fraction)
    far = int(edge * longer / shorter)  # truncated, as Hugging Face's resize does
    width, height = (edge, far) if image.width <= image.height else (far, edge)
    _check_pixels(width, height)  # a 1 x 50000 strip would be blown up a thousandfold
    return _centre(image.resize((width, height), _RESAMPLING[spec.interpolation]), spec.size)


def _squash_crop(image: Image.Image, spec: ImageSpec) -> Image.Image:
    edge = round(spec.size / spec.crop_fraction)
    return _centre(image.resize((edge, edge), _RESAMPLING[spec.interpolation]), spec.size)


def _centre(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _pad(image: Image.Image, spec: ImageSpec) -> Image.Image:
    scale = spec.size / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    image = image.resize((width, height), _RESAMPLING[spec.interpolation])
    square = Image.new("RGB", (spec.size, spec.size))
    square.paste(image, ((spec.size - width) // 2, (spec.size - height) // 2))
    return square


def _check_pixels(width: int, height: int):
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels, more than the limit of {MAX_PIXELS}")


_RESIZERS = {"squash": _squash, "crop": _crop, "squash_crop": _squash_crop, "pad": _pad}
