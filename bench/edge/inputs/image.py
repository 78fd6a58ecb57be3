"""An image file -> pixels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError, require_file

# Where Pillow only warns of a decompression bomb, this refuses.
MAX_PIXELS = 89_478_485
# What stands for an image that is not there, as in training.
GREY = 127


def picture(path: str | Path | None, meta: dict) -> np.ndarray:
    """An image file -> uint8 [1, S, S, 3] in RGB; None -> the grey that stands for none.

    Upright by its EXIF orientation; transparency lies on white; 16 bits become 8.

    Raises:
        ArtifactError: the file is missing, no image, or too large to unpack.
    """
    spec = meta["inputs"]["image"]
    if path is None:
        return np.full((1, spec["size"], spec["size"], 3), GREY, np.uint8)
    from PIL import Image, ImageOps

    require_file(path, "image")
    try:
        with warnings.catch_warnings():
            # Broken EXIF and the like is met, or reported below.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check(*image.size)
                upright = ImageOps.exif_transpose(image)
                return np.asarray(_square(_rgb(upright), spec))[None]
    # Pillow's readers meet hostile bytes with whatever their parsing trips over.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ArtifactError(f"The image {path} cannot be used: {reason}.") from None


def _check(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ArtifactError(f"{width} x {height} pixels, more than the limit of {MAX_PIXELS}")


def _rgb(image):
    from PIL import Image

    if image.mode == "F":
        raise ArtifactError("floating-point pixels, which have no agreed range")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
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
