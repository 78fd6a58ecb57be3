"""A waveform of at most 30 s -> the log-mel energies that Whisper's encoder learned on.

`transformers.WhisperFeatureExtractor` for clips of this length (Radford et al. 2022, section 2.2):
16 kHz mono, periodic Hann windows of 25 ms around every tenth millisecond, the ends mirrored, an
FFT of 400, 80 triangular bands from 0 to 8000 Hz of equal area on Slaney's mel scale (Auditory
Toolbox, 1998), and a logarithm cut 80 dB below the clip's loudest band.

Ours is that the values are 1.5 larger, so that 0 is digital silence, as in every front end;
the encoder takes them off again. Numpy only: `bench.edge.inputs` does the same.
"""

import functools

import numpy as np

from fusion_keras.data.log_mel import HOP, RATE, WINDOW, FrontEnd, bands_of, samples_of
from fusion_keras.errors import UsageError

FFT, BANDS, LOWEST, HIGHEST = 400, 80, 0.0, 8000.0
# The power that counts as silence, and the powers of ten from a clip's loudest to its softest.
FLOOR, RANGE = 1e-10, 8.0
# What Whisper has for silence.
SILENCE = -1.5
# Frames of the longest clip; two of them make a position.
MOST = 3000

_HANN = np.hanning(WINDOW + 1)[:-1]


def count_frames(seconds: float) -> int:
    """How many windows a clip has: one begins every 10 ms, around whose begin it lies.

    Raises:
      UsageError: as `samples_of`, or longer than 30 s.
    """
    frames = samples_of(seconds) // HOP
    if frames > MOST:
        raise UsageError(
            f"got clips of {seconds} seconds, wanted {MOST * HOP // RATE} at most, as many as "
            "Whisper has positions for; set audio.seconds."
        )
    return frames


def described(seconds: float) -> dict:
    """All that makes the input of a clip, for a run's `config.json`."""
    return {
        "method": "whisper",
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
        "range": RANGE,
        "silence": SILENCE,
    }


@functools.cache
def mel_filters() -> np.ndarray:
    """float64 [FFT // 2 + 1, BANDS]: triangles in Hz, each of area 1 where a bin is 1 Hz wide."""
    frequencies = np.linspace(0, RATE / 2, FFT // 2 + 1)[:, None]
    # Linear up to 1000 Hz, which is 15, and logarithmic above.
    mel = np.linspace(LOWEST, 15 + 27 * np.log(HIGHEST / 1000) / np.log(6.4), BANDS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return np.maximum(np.minimum(rising, falling), 0) * 2 / (high - low)


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """The energy of each band in each window: (log10 E + 4) / 4 - SILENCE.

    E, the weighted sum of a band's powers, is FLOOR at least and 10^-RANGE of the clip's largest.

    Args:
      waveform: [samples] at 16 kHz, full scale is -1 to 1.

    Returns:
      float32 [samples // 160, 80], bands from low to high.
    """
    mirrored = np.pad(waveform, FFT // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, WINDOW)[::HOP]
    spectrum = np.fft.rfft(windows[: len(waveform) // HOP] * _HANN)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    # Band by band, see `data.log_mel`.
    energy = np.stack([power[:, bins] @ weights for bins, weights in bands_of(mel_filters)], axis=1)
    logarithm = np.log10(np.maximum(energy, FLOOR))
    kept = np.maximum(logarithm, logarithm.max() - RANGE)
    return ((kept + 4) / 4 - SILENCE).astype(np.float32)


WHISPER = FrontEnd("log-mel whisper 1", described, mel_filters, log_mel)
