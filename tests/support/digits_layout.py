"""Written and spoken digits on disk as MNIST and FSDD lay them out, drawn so that they can be told
apart, and a config on which a C-LSTM trains in seconds."""

from __future__ import annotations

import dataclasses
import gzip
import struct
import wave
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fusion_keras.config import get_config

EACH = 20  # images, and recordings, of each digit


def write_idx(path, array, magic=None, cut=0):
    header = struct.pack(f">{1 + array.ndim}I", magic or 2048 + array.ndim, *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data[: len(data) - cut]))


def write_wav(path, values, rate=8000, channels=1, width=2):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(values, f"<i{width}").tobytes())
    return path


def write_digits(folder: Path) -> Path:
    """200 images, each digit a bright row of its own; 200 recordings, each a tone of its own."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(10, dtype=np.uint8), EACH)
    images = rng.integers(0, 40, (len(labels), 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 4 : 2 * label + 8] += 200
    (folder / "mnist").mkdir(parents=True)
    for part, rows in (("train", slice(0, 150)), ("t10k", slice(150, None))):
        name = folder / "mnist" / part
        write_idx(Path(f"{name}-images-idx3-ubyte.gz"), images[rows].astype(np.uint8))
        write_idx(Path(f"{name}-labels-idx1-ubyte.gz"), labels[rows])
    sounds = folder / "fsdd" / "recordings"
    sounds.mkdir(parents=True)
    for digit in range(10):
        for i in range(EACH):
            time = np.arange(500 + 10 * i) / 8000
            tone = 9000 * np.sin(2 * np.pi * (300 + 300 * digit) * time)
            write_wav(sounds / f"{digit}_speaker{i % 5}_{i}.wav", tone)
    return folder


@dataclasses.dataclass(frozen=True)
class Digits:
    """A folder with digits in `data` and a cache beside it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Digits:
        write_digits(folder / "data")
        return cls(folder)

    def settings(self, **changes) -> dict[str, object]:
        """Field of the config -> value; `changes` have `__` for a dot."""
        values = {
            "name": "tiny",
            "variant": "clstm_fc",
            "recipe": "digits",
            "data.source": "digits",
            "data.path": str(self.folder / "data"),
            "data.cache_dir": str(self.folder / "cache"),
            "data.digits.train_pairs": 64,
            "data.digits.valid_pairs": 16,
            "data.digits.test_pairs": 20,
            "clstm.image": 7,
            "clstm.steps": 3,
            "clstm.units": 2,
            "clstm.hidden": 4,
            "train.batch_size": 8,
            "train.epochs": 2,
        }
        return values | {name.replace("__", "."): value for name, value in changes.items()}

    def config(self, **changes) -> ConfigDict:
        made = get_config()
        made.update_from_flattened_dict(self.settings(**changes))
        return made

    def flags(self, **changes) -> list[str]:
        """The settings as command line flags."""
        return [f"--config.{name}={value}" for name, value in self.settings(**changes).items()]
