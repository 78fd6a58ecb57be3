"""A manifest of drawn images and a config so small that training takes seconds."""

from __future__ import annotations

import csv
import os
import sys
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from fusion_keras.config import get_config
from fusion_keras.fusion.variants import VARIANTS
from fusion_keras.training.run import Run

HEADER = ("text", "image", "label", "split", "id", "group", "score")
EDGE = 32
# The named variants of text and images alone.
OF_TEXT_AND_IMAGES = tuple(variant for variant in VARIANTS if variant not in ("audio", "tabular"))
_WORDS = {
    "negative": ("bad", "awful", "sad", "dull"),
    "positive": ("good", "lovely", "happy", "bright"),
}
_CLASSES = tuple(_WORDS)


def rows(count: int = 72) -> list[list[str]]:
    """Lines under HEADER: classes in turn, groups of four rows, 5 : 2 : 2 over the splits."""
    lines = []
    for row in range(count):
        group = row // 4
        split = ("train",) * 5 + ("valid",) * 2 + ("test",) * 2
        name = _CLASSES[row % 2]
        text = f"a {_WORDS[name][group % 4]} day, number {row}"
        score = f"{(1 if row % 2 else -1) * (0.5 + group % 5 / 2):.1f}"
        lines.append(
            [text, f"{row}.png", name, split[group % 9], f"r{row}", f"g{group}", score],
        )
    return lines


def write_manifest(
    folder: Path,
    *,
    leave_out: Sequence[str] = (),
    change: Callable[[list[list[str]]], None] = lambda lines: None,
    name: str = "manifest.csv",
) -> Path:
    """Write the images (dark is negative) and the table.

    Args:
        folder: made if missing.
        leave_out: columns that the table shall lack.
        change: may edit the lines, which stand as in HEADER.
        name: of the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = rows()
    for line in lines:
        base = 170 if line[2] == "positive" else 60
        pixels = rng.integers(base - 40, base + 40, (EDGE, EDGE, 3), dtype=np.uint8)
        if not (folder / line[1]).exists():
            Image.fromarray(pixels).save(folder / line[1])
    change(lines)
    kept = [i for i, column in enumerate(HEADER) if column not in leave_out]
    with open(folder / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([line[i] for i in kept] for line in [list(HEADER), *lines])
    return folder / name


def write_wav(path: Path, waveform: np.ndarray, rate: int = 16000) -> Path:
    """A WAV file of 16 bits; waveform: [n] or [n, channels], full scale -1 to 1."""
    channels = 1 if waveform.ndim == 1 else waveform.shape[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes((waveform * 32767).astype("<i2").tobytes())
    return path


def tone(hertz: float, seconds: float, rate: int = 16000) -> np.ndarray:
    """A sine at half of full scale, float64 [n]."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write_sounds(folder: Path) -> Path:
    """A tone for each row of `folder/manifest.csv`, low for negative, and `sounds.csv` that
    names them in a further column, `audio`."""
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    for row, line in enumerate(lines):
        line["audio"] = f"{row}.wav"
        hertz = rng.integers(200, 600) + (2000 if line["label"] == "positive" else 0)
        write_wav(folder / line["audio"], tone(hertz, rng.uniform(0.2, 1.2)))
    with (folder / "sounds.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return folder / "sounds.csv"


def write_presets(folder: Path) -> None:
    """Two presets of two small layers each, in `text` and `image`: compiled in seconds."""
    # Here, because tests that need no model need not wait for Keras.
    import keras

    from fusion_keras.backbones.bert import BertBackbone
    from fusion_keras.backbones.vit import ViTBackbone

    letters = [chr(c) for c in (*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1))]
    words = [w for group in _WORDS.values() for w in group]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters), *words]
    # The same weights in every session: what is learned from them must not hang on chance.
    keras.utils.set_random_seed(0)
    text = BertBackbone(
        vocabulary_size=len(pieces), num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32
    )
    text.save_to_preset(folder / "text")
    (folder / "text" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    image = ViTBackbone((EDGE, EDGE, 3), 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    image.save_to_preset(folder / "image")


@dataclass(frozen=True)
class Bench:
    """A folder with a manifest, presets and a cache, and what names them.

    Attributes:
        folder: holds `data/manifest.csv` with its images, `presets/` and `cache/`.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Bench:
        write_manifest(folder / "data")
        write_presets(folder / "presets")
        (folder / "cache").mkdir()
        compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", folder / "compiled")
        (folder / "cache" / "jax").symlink_to(compiled)
        return cls(folder)

    def beside(self, folder: Path) -> Bench:
        """Another folder with data of its own, these presets, and what JAX has compiled."""
        write_manifest(folder / "data")
        (folder / "presets").symlink_to(self.folder / "presets")
        (folder / "cache").mkdir()
        (folder / "cache" / "jax").symlink_to(self.folder / "cache" / "jax")
        return Bench(folder)

    def settings(self, **changes) -> dict[str, object]:
        """Flag -> value of a training that takes seconds; `changes` have `__` for a dot."""
        values = {
            "variant": "text",
            "config.data.source": "manifest",
            "config.data.path": self.folder / "data" / "manifest.csv",
            "config.data.max_length": 12,
            "config.data.cache_dir": self.folder / "cache",
            "config.text.preset": self.folder / "presets" / "text",
            "config.image.preset": self.folder / "presets" / "image",
            "config.image.size": EDGE,
            "config.fusion.width": 16,
            "config.fusion.heads": 2,
            "config.train.batch_size": 8,
            "config.train.epochs": 2,
        }
        flat = ("variant", "recipe", "seed", "dtype", "parents", "run", "workdir")
        for name, value in changes.items():
            values[name if name in flat else "config." + name.replace("__", ".")] = value
        return {n: str(v) if isinstance(v, Path) else v for n, v in values.items()}

    def with_sound(self, **changes) -> dict[str, object]:
        """Changes of `settings` to a training on sentences, images and sounds."""
        table = self.folder / "data" / "sounds.csv"
        if not table.is_file():
            write_sounds(table.parent)
        named = {"data__path": table, "data__manifest__audio_column": "audio"}
        sizes = {"audio__preset": "tiny_audio", "audio__seconds": 0.5}
        return {"fusion__modalities": "text+image+audio", **named, **sizes, **changes}

    def flags(self, **changes) -> list[str]:
        """The settings as command line flags."""
        return [f"--{name}={value}" for name, value in self.settings(**changes).items()]

    def config(self, **changes) -> ConfigDict:
        """The settings as a config."""
        made = get_config()
        settings = self.settings(**changes).items()
        made.update_from_flattened_dict({n.removeprefix("config."): v for n, v in settings})
        return made


def command(entry: str, *arguments: str) -> list[str]:
    """How to run an entry module of the package in a process of its own."""
    return [sys.executable, "-m", f"fusion_keras.{entry}", *arguments]


def table(run: Run, name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of a complete run."""
    with (run.folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
