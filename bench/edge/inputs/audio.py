"""A recording -> log-mel energies."""

from __future__ import annotations

import functools
import io
import wave
from pathlib import Path

import numpy as np

from bench.edge.errors import InputError
from bench.edge.inputs.given import called, require_file


def sound(given: str | Path | bytes | np.ndarray | None, meta: dict) -> np.ndarray:
    """A recording -> its log-mel energies, float32 [1, F, 64]; None is silence.

    Channels are averaged. A longer recording keeps its middle, a shorter one is followed by
    silence.

    Args:
        given: a WAV file, or the bytes of one, 16-bit PCM at the model's rate; or samples at that
            rate, float [n] or [n, channels], full scale -1 to 1.

    Raises:
        InputError: the file is missing, no WAV, shorter than one window or cut short, or of
            another kind or rate: a device resamples with its own tools, sox or ffmpeg. Or the array
            is another.
    """
    spec = meta["inputs"]["audio"]
    if given is None:
        return np.zeros((1, spec["frames"], spec["bands"]), np.float32)
    waveform = _of_samples(given, spec) if isinstance(given, np.ndarray) else _of_file(given, spec)
    samples = round(spec["seconds"] * spec["rate"])
    start = max(len(waveform) - samples, 0) // 2
    kept = waveform[start : start + samples]
    return log_mel(np.pad(kept, (0, samples - len(kept))), spec)[None]


def _of_samples(array: np.ndarray, spec: dict) -> np.ndarray:
    """float32 [n]."""
    if array.dtype.kind != "f" or array.ndim not in (1, 2) or len(array) < spec["window"]:
        raise InputError(
            f"The recording is an array {array.dtype} {list(array.shape)}: float [n] or [n, "
            f"channels] at {spec['rate']} Hz is wanted, full scale -1 to 1, of {spec['window']} "
            "samples or more."
        )
    if not (array.size and np.isfinite(array).all()):
        raise InputError("The recording has samples that are nan or infinite, or none at all.")
    return array.reshape(len(array), -1).mean(axis=1).astype(np.float32)


def _of_file(given: str | Path | bytes, spec: dict) -> np.ndarray:
    """float32 [n], full scale -1 to 1."""
    source = io.BytesIO(given) if isinstance(given, bytes) else require_file(given, "recording")
    try:
        return _recording(source, spec)
    # `wave` meets hostile bytes with whatever its parsing trips over.
    except Exception as error:
        # An empty file says nothing but EOFError.
        reason = getattr(error, "strerror", None) or str(error) or "it ends within its header"
        rate = spec["rate"]
        raise InputError(
            f"The recording{called(given)} cannot be used: {reason}. A WAV file of 16 bits at "
            f"{rate} Hz is wanted: `ffmpeg -i{called(given) or ' old'} -ar {rate} -ac 1 "
            "-c:a pcm_s16le new.wav`."
        ) from None


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


def _recording(source: Path | io.BytesIO, spec: dict) -> np.ndarray:
    with wave.open(str(source) if isinstance(source, Path) else source, "rb") as file:
        channels, width, found, count = file.getparams()[:4]
        if width != 2:
            raise InputError(f"{8 * width} bits a sample")
        if found != spec["rate"]:
            raise InputError(f"{found} Hz")
        samples = np.frombuffer(file.readframes(count), "<i2")
    if not count or len(samples) != count * channels:
        raise InputError(f"{len(samples) // channels} of {count} samples are there")
    if count < spec["window"]:
        raise InputError(f"{count} samples, less than one window of {spec['window']}")
    return (samples.reshape(-1, channels).mean(axis=1) / 32768).astype(np.float32)


def queries(folder: Path) -> list[Path]:
    """The recordings of an artifact's `queries`, in order."""
    return sorted(folder.glob("*.wav"))
