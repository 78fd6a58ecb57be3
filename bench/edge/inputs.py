"""From a sentence, an image file and a recording to the arrays that an artifact's model takes.

The same ids, pixels and log-mel energies as in training, without the training stack:
`tokenizers` reads the artifact's tokenizer, Pillow the image, `wave` the recording.
`tests/test_inputs.py` compares them with training's own on the real data.
"""

from __future__ import annotations

import functools
import json
import warnings
import wave
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError

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


def sound(path: str | Path | None, meta: dict) -> np.ndarray:
    """A WAV file, 16-bit PCM at the model's rate -> its log-mel energies, float32 [1, F, 64].

    None is silence. Channels are averaged. A longer recording keeps its middle, a shorter one is
    followed by silence.

    Raises:
        ArtifactError: the file is missing, no WAV, shorter than one window or cut short, or of
            another kind or rate: a device resamples with its own tools, sox or ffmpeg.
    """
    spec = meta["inputs"]["audio"]
    if path is None:
        return np.zeros((1, spec["frames"], spec["bands"]), np.float32)
    try:
        waveform = _recording(path, spec)
    # `wave` meets hostile bytes with whatever its parsing trips over.
    except Exception as error:
        # An empty file says nothing but EOFError.
        reason = getattr(error, "strerror", None) or str(error) or "it ends within its header"
        rate = spec["rate"]
        raise ArtifactError(
            f"The recording {path} cannot be used: {reason}. A WAV file of 16 bits at {rate} Hz is "
            f"wanted: `ffmpeg -i {path} -ar {rate} -ac 1 -c:a pcm_s16le new.wav`."
        ) from None
    samples = round(spec["seconds"] * spec["rate"])
    start = max(len(waveform) - samples, 0) // 2
    kept = waveform[start : start + samples]
    return log_mel(np.pad(kept, (0, samples - len(kept))), spec)[None]


def log_mel(waveform: np.ndarray, spec: dict) -> np.ndarray:
    """float32 [samples] -> float32 [F, bands], what training's `data.log_mel` makes of it.

    Args:
        spec: `inputs` of `meta.json` for audio; window, hop and fft in samples, lowest and highest
            in Hz.
    """
    window = np.hanning(spec["window"] + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(waveform, spec["window"])[:: spec["hop"]]
    spectrum = np.fft.rfft(frames * window, spec["fft"]) / (window.sum() / 2)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    bands = _mel_bands(*(spec[n] for n in ("rate", "fft", "bands", "lowest", "highest")))
    # Band by band: a product of whole matrices wakes BLAS's threads, beside those of the engine.
    energy = np.stack([power[:, bins] @ weights for bins, weights in bands], axis=1)
    scaled = np.log1p(energy / spec["floor"]) / np.log1p(1 / spec["floor"])
    return np.minimum(scaled, 1).astype(np.float32)


@functools.cache
def _mel_bands(rate: int, fft: int, bands: int, lowest: float, highest: float) -> list[tuple]:
    """Triangles of peak 1, equally wide on HTK's mel scale: the bins of each, their weights."""

    def mel(frequency):
        return 1127.0 * np.log1p(frequency / 700.0)

    bins = mel(np.linspace(0, rate / 2, fft // 2 + 1))[:, None]
    edges = np.linspace(mel(lowest), mel(highest), bands + 2)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(np.minimum(rising, falling), 0)
    filters[0] = 0
    found = [(np.flatnonzero(column), column) for column in filters.T]
    return [(slice(b[0], b[-1] + 1), column[b[0] : b[-1] + 1].copy()) for b, column in found]


def _recording(path: str | Path, spec: dict) -> np.ndarray:
    """float32 [n], full scale -1 to 1."""
    with wave.open(str(path), "rb") as file:
        channels, width, found, count = file.getparams()[:4]
        if width != 2:
            raise ArtifactError(f"{8 * width} bits a sample")
        if found != spec["rate"]:
            raise ArtifactError(f"{found} Hz")
        samples = np.frombuffer(file.readframes(count), "<i2")
    if not count or len(samples) != count * channels:
        raise ArtifactError(f"{len(samples) // channels} of {count} samples are there")
    if count < spec["window"]:
        raise ArtifactError(f"{count} samples, less than one window of {spec['window']}")
    return (samples.reshape(-1, channels).mean(axis=1) / 32768).astype(np.float32)


def raw_queries(folder: Path) -> tuple[list[str], list[Path], list[Path]]:
    """The sentences, image files and recordings of an artifact's `queries`, in order."""
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    files = sorted(p for p in folder.iterdir() if p.suffix != ".json")
    sounds = [p for p in files if p.suffix == ".wav"]
    return texts, [p for p in files if p.suffix != ".wav"], sounds
