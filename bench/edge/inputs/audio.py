"""A recording -> log-mel energies."""

from __future__ import annotations

import functools
import io
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.edge.errors import InputError
from bench.edge.inputs.given import called, opened


def sound(given: str | Path | bytes | np.ndarray | None, meta: dict) -> np.ndarray:
    """A recording -> its log-mel energies, float32 [1, F, bands]; None is silence.

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
    source = opened(given, "recording")
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
    """float32 [samples] -> float32 [F, bands], what training's front end makes of it.

    Args:
        spec: `inputs` of `meta.json` for audio; window, hop and fft in samples, lowest and highest
            in Hz; method "whisper" is `data.whisper_mel`'s, without one it is `data.log_mel`'s.
    """
    method = spec.get("method", "vggish")
    if method not in _METHODS:
        raise InputError(
            f"The model hears by method {method!r}, of which this bench knows {', '.join(_METHODS)}"
            ": copy the bench that comes with the artifact's version."
        )
    return _METHODS[method](waveform, spec).astype(np.float32)


def _vggish(waveform: np.ndarray, spec: dict) -> np.ndarray:
    amplitude = np.hanning(spec["window"] + 1)[:-1].sum() / 2
    energy = _energies(waveform, spec, _htk_filters) / amplitude**2
    return np.minimum(np.log1p(energy / spec["floor"]) / np.log1p(1 / spec["floor"]), 1)


def _whisper(waveform: np.ndarray, spec: dict) -> np.ndarray:
    mirrored = np.pad(waveform, spec["fft"] // 2, mode="reflect")
    energy = _energies(mirrored, spec, _slaney_filters)[: spec["frames"]]
    logarithm = np.log10(np.maximum(energy, spec["floor"]))
    kept = np.maximum(logarithm, logarithm.max() - spec["range"])
    return (kept + 4) / 4 - spec["silence"]


# Bytes of samples, says the header of who could not go back to it.
_UNKNOWN = 0xFFFFFFFF
_METHODS = {"vggish": _vggish, "whisper": _whisper}


def _energies(waveform: np.ndarray, spec: dict, filters: Callable) -> np.ndarray:
    """The weighted sum of each band's powers in each window, float64 [F, bands]."""
    window = np.hanning(spec["window"] + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(waveform, spec["window"])[:: spec["hop"]]
    spectrum = np.fft.rfft(frames * window, spec["fft"])
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    sizes = (spec[n] for n in ("rate", "fft", "bands", "lowest", "highest"))
    # Band by band: a product of whole matrices wakes BLAS's threads, beside those of the engine.
    return np.stack([power[:, bins] @ weights for bins, weights in _bands(filters, *sizes)], axis=1)


@functools.cache
def _bands(filters: Callable, rate: int, fft: int, *band: float) -> list[tuple]:
    """The bins of each band, and their weights."""
    matrix = filters(np.linspace(0, rate / 2, fft // 2 + 1)[:, None], *band)
    found = [(np.flatnonzero(column), column) for column in matrix.T]
    return [(slice(b[0], b[-1] + 1), column[b[0] : b[-1] + 1].copy()) for b, column in found]


def _htk_filters(frequencies: np.ndarray, bands: int, lowest: float, highest: float) -> np.ndarray:
    """Triangles of peak 1, equally wide on HTK's mel scale: [bins, bands]."""

    def mel(frequency):
        return 1127.0 * np.log1p(frequency / 700.0)

    filters = _triangles(mel(frequencies), np.linspace(mel(lowest), mel(highest), bands + 2))
    filters[0] = 0
    return filters


def _slaney_filters(
    frequencies: np.ndarray, bands: int, lowest: float, highest: float
) -> np.ndarray:
    """Triangles of equal area in Hz, equally apart on Slaney's mel scale: [bins, bands]."""
    step = np.log(6.4) / 27

    def mel(hertz):
        return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / step

    places = np.linspace(mel(lowest), mel(highest), bands + 2)
    edges = np.where(places < 15, places * 200 / 3, 1000 * np.exp((places - 15) * step))
    return _triangles(frequencies, edges) * 2 / (edges[2:] - edges[:-2])


def _triangles(places: np.ndarray, edges: np.ndarray) -> np.ndarray:
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0)


def _recording(source: Path | io.BytesIO, spec: dict) -> np.ndarray:
    with wave.open(str(source) if isinstance(source, Path) else source, "rb") as file:
        channels, width, found, count = file.getparams()[:4]
        if width != 2:
            raise InputError(f"{8 * width} bits a sample")
        if found != spec["rate"]:
            raise InputError(f"{found} Hz")
        frames = file.readframes(count)
        if count == _UNKNOWN // (width * channels):
            count = len(frames) // (width * channels)
            frames = frames[: count * width * channels]
        samples = np.frombuffer(frames, "<i2")
    if not count or len(samples) != count * channels:
        raise InputError(f"{len(samples) // channels} of {count} samples are there")
    if count < spec["window"]:
        raise InputError(f"{count} samples, less than one window of {spec['window']}")
    return (samples.reshape(-1, channels).mean(axis=1) / 32768).astype(np.float32)


def queries(folder: Path) -> list[Path]:
    """The recordings of an artifact's `queries`, in order."""
    return sorted(folder.glob("*.wav"))
