"""Sound files -> log-mel energies: any file with a sound track that FFmpeg decodes.

Rate and channels do not matter: PyAV's resampler brings everything to 16 kHz, and channels are
averaged here, as on the device. (FFmpeg's own mix of two channels to float is their sum times
0.707, 3 dB louder than one.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from fusion_keras.data import media
from fusion_keras.data.cache import cached_array, content_key
from fusion_keras.data.log_mel import RATE, VGGISH, WINDOW, FrontEnd, fit, samples_of
from fusion_keras.data.paths import is_file
from fusion_keras.data.records import SkipLog
from fusion_keras.errors import UsageError

# A track that ends earlier than its header says, by more seconds than codecs pad, was cut off.
_TOLERANCE = 0.25


class BadSound(media.BadFile):
    """The file cannot be used as sound; the message is the reason, without the path."""


def decode(path: Path) -> np.ndarray:
    """The first sound track of a file as float32 [n] at 16 kHz, mono, full scale -1 to 1.

    Raises:
      BadSound: missing, empty, no sound track, damaged, or cut off: it ends before its header
        says so.
    """
    path = Path(path)
    if not is_file(path):
        raise BadSound("no such file")
    try:
        _check_riff(path)
        waveform, expected = _decoded(path)
    except BadSound:
        raise
    # Damaged bytes also raise what PyAV's own parsing trips over (ValueError, OverflowError);
    # all of it means the same here.
    except Exception as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise BadSound(f"not a readable sound file ({reason})") from error
    if len(waveform) < WINDOW:
        raise BadSound(f"{len(waveform) / RATE:.3f} s of sound, less than one window of 25 ms")
    if len(waveform) / RATE < expected - _TOLERANCE:
        raise BadSound(f"cut off at {len(waveform) / RATE:.2f} of {expected:.2f} s")
    if not np.isfinite(waveform).all():
        raise BadSound("samples that are not finite")
    return waveform


def decode_all(
    paths: list[Path],
    seconds: float,
    folder: Path,
    skips: SkipLog | None = None,
    origins: list[str] | None = None,
    front_end: FrontEnd = VGGISH,
) -> tuple[np.ndarray, np.ndarray]:
    """The log-mel energies of N sound files, or from the cache.

    A longer clip than `seconds` keeps its middle, a shorter one is followed by silence.

    Args:
      skips, origins: as `media.decoded` takes them.
      front_end: of the encoder.

    Returns:
      (float32 [N, F, bands] memory map, with zeros where a file is unusable;
       bool [N], True where the sound is usable)

    Raises:
      UsageError: an unusable file and no log, clips of no possible length, or the cache folder
        cannot be written.
    """
    samples, described = samples_of(seconds), front_end.described(seconds)
    # Another FFmpeg may decode otherwise, and other filters give other energies.
    filters = hashlib.sha256(front_end.filters()).hexdigest()
    return media.decoded(
        "sound",
        paths,
        lambda path: front_end.log_mel(fit(decode(path), samples)),
        method=(front_end.name, av.__version__, filters, seconds),
        row=(described["frames"], described["bands"]),
        dtype=np.float32,
        folder=folder,
        skips=skips,
        origins=origins,
    )


def waveforms(paths: list[Path | None], seconds: float, folder: Path) -> np.ndarray:
    """float32 [N, samples] memory map, what `decode_all` takes the energies of, or from the cache;
    silence where there is no file.

    Raises:
      UsageError: an unusable file, or the cache folder cannot be written.
    """
    samples = samples_of(seconds)

    def waveform(path: Path | None) -> np.ndarray:
        if path is None:
            return np.zeros(samples, np.float32)
        try:
            return fit(decode(path), samples)
        except BadSound as error:
            raise UsageError(
                f"got sound {path}: {error}, wanted what was read before; put the file back."
            ) from error

    def build(notes: dict) -> Iterator[np.ndarray]:
        return map(np.stack, media.in_threads(waveform, paths, "decoding sounds"))

    key = content_key("waveforms 1", av.__version__, seconds, media.digests(paths, folder))
    return cached_array(folder, key, (len(paths), samples), np.float32, build)[0]


def _decoded(path: Path) -> tuple[np.ndarray, float]:
    """float32 [n] at 16 kHz, and how many seconds the header promises; 0 where it does not."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("audio")
        if stream is None:
            raise BadSound("no sound track")
        # The files are decoded side by side.
        stream.codec_context.thread_count = 1
        resampler = av.AudioResampler(format="fltp", rate=RATE)
        parts = []
        for frame in container.decode(stream):
            parts += resampler.resample(frame)
        if not parts:
            raise BadSound("the sound track is empty")
        parts += resampler.resample(None)
        expected = float((stream.duration or 0) * stream.time_base)
    channels = np.concatenate([part.to_ndarray() for part in parts], axis=1)
    return channels.mean(axis=0), expected


def _check_riff(path: Path) -> None:
    """Raise BadSound for a WAV file shorter than it says, of which FFmpeg says nothing."""
    with open(path, "rb") as file:
        kind, promised = file.read(4), 8 + int.from_bytes(file.read(4), "little")
    # A writer that could not go back to the header leaves 0 or all ones there.
    written = 8 < promised < 8 + 0xFFFFFFFF
    size = path.stat().st_size
    if kind == b"RIFF" and written and size < promised:
        raise BadSound(f"cut off at {size} of {promised} bytes")
