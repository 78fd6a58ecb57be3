"""White noise at a chosen signal-to-noise ratio, for images and sound alike."""

import numpy as np

from fusion_keras.errors import UsageError


def check_snr(snr: float, name: str) -> None:
    """Refuse what is no power ratio. Raises UsageError."""
    if not snr >= 0:  # false for NaN also
        raise UsageError(
            f"got {name}={snr}, wanted a power ratio of 0 or more; set inf for the original, "
            "0 to leave the signal out, or 10 ** (dB / 10) for a ratio in decibels."
        )


def add_white_noise(signal: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise, independent from value to value, to a signal of any shape.

    The ratio is one of powers: the mean square of this signal over the variance of the noise.
    Barnum et al. 2020 (arXiv 2011.07191) choose ratios of 0.125 to 2 but define none; read as
    powers, their 0.5 for sound is -3 dB and their 0.25 for images -6 dB. A black background
    counts as part of an image. Nothing is clipped, which would change the ratio.

    Args:
      signal: real values; silence (all zeros) has no power and gets no noise.
      snr: inf gives the signal as it is ("Orig" in their figures). 0 gives zeros: they take a
        modality away by setting its input to zero (section 5.3), and noise alone has no level.
      rng: the same state gives the same noise at every ratio, up to its scale.

    Returns:
      float32, of the signal's shape.

    Raises:
      UsageError: a ratio below 0, or none.
    """
    check_snr(snr, "snr")
    signal = np.asarray(signal, np.float32)
    if snr == 0:
        return np.zeros_like(signal)
    if np.isinf(snr):
        return signal.copy()
    deviation = np.sqrt(np.mean(np.square(signal), dtype=np.float64) / snr)
    return signal + np.float32(deviation) * rng.standard_normal(signal.shape, np.float32)
