"""A waveform of fixed length -> log-mel energies in [0, 1], what `audio_cnn` takes.

The front end of AudioSet's VGGish (Hershey et al. 2017, arXiv 1609.09430, section 3.2, with
the constants of its published code, tensorflow/models research/audioset/vggish): 16 kHz mono,
periodic Hann windows of 25 ms every 10 ms, an FFT of 512, 64 triangular bands between 125 and
7500 Hz on HTK's mel scale (The HTK Book, section 5.4: mel = 1127 ln(1 + f / 700)). Ours is the
scale of what comes out, see `log_mel`.

Worked out on the host, as token ids are, so that fp16 and int8 graphs never see the range of
a spectrum. Numpy only: `bench.edge.inputs` does the same.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusion_keras.errors import UsageError

RATE = 16000
WINDOW, HOP, FFT = 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0
# The energy of a band that counts as silence: 80 dB below a full-scale sine's, as for digits.
FLOOR = 1e-8

_HANN = np.hanning(WINDOW + 1)[:-1]  # the periodic form, for spectra


def samples_of(seconds: float) -> int:
    """Samples of a clip.

    Raises:
      UsageError: too short for one window, or longer than ten minutes.
    """
    if not WINDOW / RATE <= seconds <= 600:
        raise UsageError(
            f"got clips of {seconds} seconds, wanted {WINDOW / RATE} to 600; set audio.seconds."
        )
    return round(seconds * RATE)


def count_frames(seconds: float) -> int:
    """How many windows fit into a clip; none reaches beyond its end."""
    return (samples_of(seconds) - WINDOW) // HOP + 1


def described(seconds: float) -> dict:
    """All that makes the input of a clip, for a run's `config.json`."""
    return {
        "seconds": seconds,
        "frames": count_frames(seconds),
        "rate": RATE,
        "window": WINDOW,
        "hop": HOP,
        "fft": FFT,
        "bands": BANDS,
        "lowest": LOWEST,
        "highest": HIGHEST,
        "floor": FLOOR,
    }


def fit(waveform: np.ndarray, samples: int) -> np.ndarray:
    """[n] -> [samples]: the middle of a longer one; a shorter one stands in front of silence."""
    start = max(len(waveform) - samples, 0) // 2
    kept = waveform[start : start + samples]
    return np.pad(kept, (0, samples - len(kept)))


@functools.cache
def mel_filters() -> np.ndarray:
    """float64 [FFT // 2 + 1, BANDS]: triangles that rise and fall linearly in mel, peak 1."""
    frequencies = np.linspace(0, RATE / 2, FFT // 2 + 1)
    mel = _mel(frequencies)[:, None]
    edges = np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((mel - low) / (centre - low), (high - mel) / (high - centre))
    filters = np.maximum(triangles, 0)
    filters[0] = 0  # the mean of the samples is no sound
    return filters


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """The energy of each band in each window, on a logarithmic scale from silence to full scale.

    log(1 + E / FLOOR) / log(1 + 1 / FLOOR), cut at 1, where E is the weighted sum of a band's
    powers, 0.9 to 1.5 for a full-scale sine. 0 is digital silence. (VGGish sums magnitudes and
    takes log(E + 0.01).) Nothing is estimated from data, and the level of a recording stays.

    Args:
      waveform: [samples] at 16 kHz, full scale is -1 to 1.

    Returns:
      float32 [(samples - 400) // 160 + 1, 64], bands from low to high.
    """
    windows = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows * _HANN, FFT) / (_HANN.sum() / 2)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    # Band by band: a product of whole matrices wakes BLAS's threads, and where the cores are
    # busy it waits 20 ms for them; these take 0.3 ms for 4 s.
    energy = np.stack([power[:, bins] @ weights for bins, weights in bands_of(mel_filters)], axis=1)
    scaled = np.log1p(energy / FLOOR) / np.log1p(1 / FLOOR)
    return np.minimum(scaled, 1).astype(np.float32)


@functools.cache
def bands_of(filters: Callable[[], np.ndarray]) -> list[tuple[slice, np.ndarray]]:
    """The bins that each band of [bins, bands] has, and their weights."""
    bands = [(np.flatnonzero(column), column) for column in filters().T]
    return [(slice(b[0], b[-1] + 1), column[b[0] : b[-1] + 1].copy()) for b, column in bands]


def _mel(frequency):
    return 1127.0 * np.log1p(np.asarray(frequency) / 700.0)


@dataclass(frozen=True)
class FrontEnd:
    """How a waveform becomes what a family of audio encoders takes, [F, bands], where 0 is silence.

    Attributes:
      name: of it in the cache; another one where other numbers come out.
      described: seconds of a clip -> all that makes its input, "frames" and "bands" among it.
      filters: gives float64 [bins, bands].
      log_mel: float [samples] at 16 kHz -> float32 [F, bands].
    """

    name: str
    described: Callable[[float], dict]
    filters: Callable[[], np.ndarray]
    log_mel: Callable[[np.ndarray], np.ndarray]


VGGISH = FrontEnd("log-mel 1", described, mel_filters, log_mel)
