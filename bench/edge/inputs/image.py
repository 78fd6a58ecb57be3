"""An image -> pixels."""

from __future__ import annotations

import contextlib
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.edge.errors import InputError
from bench.edge.inputs.given import called, opened

if TYPE_CHECKING:
    from PIL import Image

# Where Pillow only warns of a decompression bomb, this refuses.
MAX_PIXELS = 89_478_485
# What stands for an image that is not there, as in training.
GREY = 127
# EXIF's tag, and what makes an image of each of its values upright (TIFF 6.0, section 8).
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# The filters of warnings belong to the process: threads that set them take turns.
_FILTERS = threading.Lock()


def picture(given: str | Path | bytes | np.ndarray | Image.Image | None, meta: dict) -> np.ndarray:
    """An image -> uint8 [1, S, S, 3] in RGB; None -> the grey that stands for none.

    Upright by its EXIF orientation; transparency lies on white; 16 bits become 8.

    Args:
        given: a file, the bytes of one, an image of Pillow, or pixels as a camera gives them, uint8
            [H, W, 3] in RGB.

    Raises:
        InputError: the file is missing, no image, or too large to unpack; or the array is another.
    """
    spec = meta["inputs"]["image"]
    if given is None:
        return np.full((1, spec["size"], spec["size"], 3), GREY, np.uint8)
    if isinstance(given, np.ndarray):
        return np.asarray(_square(_of_pixels(given), spec))[None]
    from PIL import Image

    source = given if isinstance(given, Image.Image) else opened(given, "image")
    try:
        return np.asarray(_square(_rgb(_upright(source)), spec))[None]
    # Pillow's readers meet hostile bytes with whatever their parsing trips over.
    except Exception as error:
        reason = str(error)
        for name in (f" {source!r}", f" {str(source)!r}"):  # Pillow's, beside ours
            reason = reason.replace(name, "")
        raise InputError(
            f"The image{called(given)} cannot be used: {reason or type(error).__name__}. A whole "
            "JPEG, PNG or other picture that Pillow reads is wanted."
        ) from None


def _of_pixels(array: np.ndarray):
    from PIL import Image

    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(
            f"The image is an array {array.dtype} {list(array.shape)}: uint8 [H, W, 3] in RGB is "
            "wanted."
        )
    _check(array.shape[1], array.shape[0])
    return Image.fromarray(array)


def _upright(source):
    """The unpacked image, turned as its EXIF says; one that was given open stays so."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return _turned(source)
    with _quiet():
        image = Image.open(source)
    with image:
        return _turned(image)


def _turned(image):
    from PIL import Image

    _check(*image.size)
    if image.format == "EPS":
        raise InputError("PostScript, a program that Ghostscript would have to run")
    with _quiet():
        # First: of a TIFF it turns the pixels itself, and the tag is gone.
        image.load()
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    return image.transpose(Image.Transpose[turn]) if turn else image


@contextlib.contextmanager
def _quiet():
    """Broken EXIF and the like is met, or reported by who reads on."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{width} x {height} pixels, more than the limit of {MAX_PIXELS}")


def _rgb(image):
    from PIL import Image

    if image.mode == "F":
        raise InputError("floating-point pixels, which have no agreed range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image), 0, 65535).astype(np.int32)
        values += 128
        values //= 257
        image = Image.fromarray(values.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255,) * 4), image)
    return image.convert("RGB")


def _square(image, spec: dict):
    """squash, crop, both or pad to [size, size]; see the checkpoint's own preprocessing."""
    from PIL import Image

    size, how = spec["size"], Image.Resampling[spec["interpolation"].upper()]
    if spec["resize"] == "squash":
        return image.resize((size, size), how)
    if spec["resize"] in ("crop", "squash_crop"):
        shorter, longer = sorted(image.size)
        edge = round(size / spec["crop_fraction"])
        far = int(edge * longer / shorter) if spec["resize"] == "crop" else edge
        width, height = (edge, far) if image.width <= image.height else (far, edge)
        _check(width, height)
        left, top = (width - size) // 2, (height - size) // 2
        return image.resize((width, height), how).crop((left, top, left + size, top + size))
    scale = size / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    square = Image.new("RGB", (size, size))
    square.paste(image.resize((width, height), how), ((size - width) // 2, (size - height) // 2))
    return square


def queries(folder: Path) -> list[Path]:
    """The image files of an artifact's `queries`, in order."""
    return sorted(p for p in folder.iterdir() if p.suffix not in (".json", ".wav"))
