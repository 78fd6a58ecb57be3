"""A waveform of fixed length -> the columns that a recurrent layer reads, one a step.

Windows of 400 samples every 200, hence 201 frequencies (Barnum et al. 2020, appendix A.3).
Numpy only, so that a device can do the same.
"""

import numpy as np

from fusion_keras.errors import UsageError

WINDOW, STRIDE = 400, 200

# The power that counts as silence, of a full-scale sine's: 80 dB below. The quietest spoken
# digits have bins around 60 dB below.
FLOOR = 1e-8

_HANN = np.hanning(WINDOW + 1)[:-1]  # the periodic form, for spectra


def count_steps(samples: int) -> int:
    """How many columns a waveform gives.

    Raises:
      UsageError: not a whole number: the last samples would be in no column.
    """
    if samples < WINDOW or (samples - WINDOW) % STRIDE:
        raise UsageError(
            f"got {samples} samples of sound, wanted {WINDOW} and a multiple of {STRIDE} more; "
            f"set {whole_steps(samples)}."
        )
    return (samples - WINDOW) // STRIDE + 1


def whole_steps(samples: int) -> int:
    """The smallest length with a whole number of columns that holds `samples`."""
    return WINDOW + max(-(-(samples - WINDOW) // STRIDE), 0) * STRIDE


def pad_front(waveform: np.ndarray, samples: int) -> np.ndarray:
    """Zeros before [n], n <= samples -> float32 [samples]."""
    return np.pad(np.asarray(waveform, np.float32), (samples - len(waveform), 0))


def log_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """The power of each window and frequency, on a logarithmic scale.

    The paper says nothing of window function or scale. Here: Hann windows, none beyond the
    ends of the waveform, and log(1 + P / FLOOR) / log(1 / FLOOR), with P = 1 for a full-scale
    sine in the middle of its bin: 0 is silence, 1 full scale. Powers of speech span six
    orders of magnitude, of which a network would see the loudest alone. Nothing is estimated
    from data, and the level of a recording stays: noise is set relative to it.

    Args:
      waveform: [samples], full scale is -1 to 1.

    Returns:
      float32 [steps, 201], frequencies 0 to 4000 Hz at 8 kHz.

    Raises:
      UsageError: see `count_steps`.
    """
    count_steps(len(waveform))
    windows = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::STRIDE]
    spectrum = np.fft.rfft(windows * _HANN) / (_HANN.sum() / 2)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return (np.log1p(power / FLOOR) / -np.log(FLOOR)).astype(np.float32)
