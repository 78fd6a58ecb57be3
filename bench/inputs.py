"""From a sentence and an image file to the arrays that an artifact's model takes.

The same ids and pixels as in training, without the training stack: `tokenizers` reads the
artifact's tokenizer, Pillow the image. `tests/test_inputs.py` compares both with training's
own on the real data.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from bench.artifact import ArtifactError

# Where Pillow only warns of a decompression bomb, this refuses.
MAX_PIXELS = 89_478_485
# What stands for an image that is not there, as in training.
GREY = 127


class Tokens:
    """Sentences -> int32 [1, T] of an artifact."""

    def __init__(self, folder: Path, meta: dict):
        from tokenizers import Tokenizer

        path = Path(folder) / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise ArtifactError(f"{path} cannot be read ({error}).") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.lengths = meta["lengths"]

    def __call__(self, text: str) -> np.ndarray:
        """Ids of one sentence, padded with 0 to the shortest length that holds it.

        A longer one than the longest loses its end, but keeps its last token, [SEP].
        """
        # Half a surrogate pair, as broken JSON escapes leave it, becomes "?".
        ids = self.tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8")).ids
        longest = self.lengths[-1]
        if len(ids) > longest:
            ids = [*ids[: longest - 1], ids[-1]]
        length = next(size for size in self.lengths if size >= len(ids))
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(ids)] = ids
        return padded


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
        reason = error if isinstance(error, ArtifactError) else f"{error or type(error).__name__}"
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
    """squash, crop or pad to [size, size]; see the checkpoint's own preprocessing."""
    from PIL import Image

    size, how = spec["size"], Image.Resampling[spec["interpolation"].upper()]
    if spec["resize"] == "squash":
        return image.resize((size, size), how)
    if spec["resize"] == "crop":
        shorter, longer = sorted(image.size)
        edge = round(size / spec["crop_fraction"])
        far = int(edge * longer / shorter)
        width, height = (edge, far) if image.width <= image.height else (far, edge)
        _check(width, height)
        left, top = (width - size) // 2, (height - size) // 2
        return image.resize((width, height), how).crop((left, top, left + size, top + size))
    scale = size / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    square = Image.new("RGB", (size, size))
    square.paste(image.resize((width, height), how), ((size - width) // 2, (size - height) // 2))
    return square


def present(meta: dict, missing: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """What a model with stand-ins is told: `present_text` ... -> float32 [1, 1], 0 if missing.

    Args:
        missing: modalities.
    """
    told = [name for name in meta["inputs"] if name.startswith("present_")]
    return {n: np.full((1, 1), n.split("_", 1)[1] not in missing, np.float32) for n in told}


def raw_queries(folder: Path) -> tuple[list[str], list[Path]]:
    """The sentences and image files of an artifact's `queries`, in order."""
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    return texts, sorted(p for p in folder.iterdir() if p.suffix != ".json")
