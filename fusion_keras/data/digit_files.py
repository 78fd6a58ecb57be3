"""MNIST and the Free Spoken Digit Dataset as they lie on disk.

Both come whole, training and test together: the study pools and divides them itself.
"""

from __future__ import annotations

import gzip
import re
import wave
import zlib
from pathlib import Path

import numpy as np

from fusion_keras.data.paths import is_file
from fusion_keras.errors import UsageError

RATE = 8000  # Hz
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049
# Five times MNIST's largest file: a header may promise anything.
_LARGEST = 2**28
_WAV_NAME = re.compile(r"(\d)_([^_]+)_(\d+)\.wav")
_GET_MNIST = (
    "put the four .gz files of MNIST there (https://ossci-datasets.s3.amazonaws.com/mnist/ "
    "is torchvision's mirror of http://yann.lecun.com/exdb/mnist)."
)
_GET_FSDD = (
    "put the .wav files of https://github.com/Jakobovski/free-spoken-digit-dataset "
    "(folder recordings) there."
)


def read_mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Both parts of MNIST, in the idx format (yann.lecun.com/exdb/mnist), gzipped.

    Args:
      folder: holds `train-*` and `t10k-*`, each `images-idx3-ubyte.gz`, `labels-idx1-ubyte.gz`.

    Returns:
      (uint8 [N, 28, 28], 0 is background; int32 [N], the digits), the training part first.

    Raises:
      UsageError: a file that is missing, cut short, of another kind or empty.
    """
    images, labels = [], []
    for part in ("train", "t10k"):
        path = folder / f"{part}-images-idx3-ubyte.gz"
        images.append(_read_idx(path, _IMAGES_MAGIC))
        labels.append(_read_idx(folder / f"{part}-labels-idx1-ubyte.gz", _LABELS_MAGIC))
        if len(images[-1]) != len(labels[-1]) or images[-1].shape[1:] != (28, 28):
            raise UsageError(
                f"got images {images[-1].shape} and {len(labels[-1])} labels in {path} and beside "
                f"it, wanted [N, 28, 28] and N; {_GET_MNIST}"
            )
    labels = np.concatenate(labels).astype(np.int32)
    if labels.max() > 9:
        raise UsageError(
            f"got the label {labels.max()} in {folder}, wanted digits 0 to 9; {_GET_MNIST}"
        )
    return np.concatenate(images), labels


def _read_idx(path: Path, magic: int) -> np.ndarray:
    """uint8 array of the magic number's rank."""
    rank = magic % 256
    if not is_file(path):
        raise UsageError(f"got no file {path}, wanted a part of MNIST; {_GET_MNIST}")
    try:
        with gzip.open(path, "rb") as file:
            header = np.frombuffer(file.read(4 + 4 * rank), ">u4")
            if len(header) != 1 + rank or header[0] != magic:
                number = header[0] if len(header) else "nothing"
                raise UsageError(
                    f"got the magic number {number} in {path}, wanted {magic}; {_GET_MNIST}"
                )
            shape = tuple(int(edge) for edge in header[1:])
            size = int(np.prod(shape, dtype=object))
            if size > _LARGEST:
                raise UsageError(
                    f"got a header of {size} values in {path}, wanted at most {_LARGEST}; "
                    f"{_GET_MNIST}"
                )
            data = file.read(size + 1)
    # What gzip trips over in a damaged file; EOFError where it is cut.
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UsageError(f"got {error} from {path}, wanted a gzip file; {_GET_MNIST}") from error
    if len(data) != size or not size:
        kept = "more than" if len(data) > size else f"{len(data)} of"
        raise UsageError(
            f"got {kept} the {size} values {shape} in {path}, wanted all and at least one; "
            f"{_GET_MNIST}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_spoken(folder: Path) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """The Free Spoken Digit Dataset: `<digit>_<speaker>_<index>.wav`, 8 kHz, 16 bits, mono.

    Returns:
      (N waveforms, float32 [samples] in -1 to 1; int32 [N], the digits; N speakers), in the
      order of the file names.

    Raises:
      UsageError: no recordings, or one of another name, rate or kind, cut short or empty.
    """
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise UsageError(f"got no recordings in {folder}, wanted .wav files; {_GET_FSDD}")
    names = [_WAV_NAME.fullmatch(path.name) for path in paths]
    for path, name in zip(paths, names, strict=True):
        if name is None:
            raise UsageError(
                f"got {path}, wanted a name like 7_jackson_32.wav (digit, speaker, index); "
                "rename or remove it."
            )
    digits = np.array([int(name[1]) for name in names], np.int32)
    return [read_wav(path) for path in paths], digits, [name[2] for name in names]


def read_wav(path: Path) -> np.ndarray:
    """One recording, float32 [samples] in -1 to 1. Raises UsageError as `read_spoken`."""
    try:
        with wave.open(str(path), "rb") as file:
            kind = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            frames = file.getnframes()
            data = file.readframes(frames)
    except (OSError, EOFError, wave.Error) as error:
        reason = str(error) or "the end of the file"
        raise UsageError(f"got {reason} from {path}, wanted a WAV file; {_GET_FSDD}") from error
    if kind != (RATE, 1, 16):
        raise UsageError(
            f"got {kind[0]} Hz, {kind[1]} channels and {kind[2]} bits in {path}, wanted {RATE} Hz, "
            "1 and 16; convert it, or take it out."
        )
    if len(data) != 2 * frames or not frames:
        raise UsageError(
            f"got {len(data) // 2} of {frames} samples in {path}, wanted all and at least one; "
            f"{_GET_FSDD}"
        )
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768
