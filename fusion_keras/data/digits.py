"""Written and spoken digits in pairs: the data of Barnum et al. 2020, appendix A.3.

Images and recordings are divided first, each 8 : 1 : 1, and then every image meets every
recording of its digit and split. The paper counts 11.2 million training pairs: here a pair is
worked out from its number, and none is ever stored.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import grain
import numpy as np

from fusion_keras.data.digit_files import read_mnist, read_spoken
from fusion_keras.data.noise import add_white_noise, check_snr
from fusion_keras.data.records import SPLITS
from fusion_keras.data.spectrogram import count_steps, log_spectrogram, pad_front, whole_steps
from fusion_keras.data.splits import assign_splits
from fusion_keras.errors import UsageError

FRACTIONS = (0.8, 0.1, 0.1)
SPLIT_POLICIES = ("example", "speaker")


@dataclasses.dataclass(frozen=True)
class Digits:
    """Both sources, read and divided.

    Attributes:
      images: uint8 [N, S, S], 0 is background.
      image_labels: int32 [N].
      image_splits: str [N], "train", "valid" or "test".
      recordings: M waveforms, float32 [1 .. samples] in -1 to 1.
      recording_labels: int32 [M].
      recording_splits: str [M].
      speakers: str [M].
      samples: the length that sound is padded to.
    """

    images: np.ndarray
    image_labels: np.ndarray
    image_splits: np.ndarray
    recordings: list[np.ndarray]
    recording_labels: np.ndarray
    recording_splits: np.ndarray
    speakers: np.ndarray
    samples: int

    @property
    def steps(self) -> int:
        """Columns of a spectrogram."""
        return count_steps(self.samples)


def load_digits(
    folder: Path,
    image_size: int = 28,
    samples: int | None = None,
    split: str = "example",
    seed: int = 0,
) -> Digits:
    """Read `folder/mnist/*.gz` and `folder/fsdd/recordings/*.wav`, and divide them.

    Args:
      image_size: 28, or a divisor of it: then squares of pixels are averaged.
      samples: the length of all sound at 8 kHz, 400 and a multiple of 200 more; of longer
        recordings the beginning is kept. None takes the longest, as the paper does. A small
        model for a CPU has image_size 14 and samples 4000, half a second, into which 73 %
        of the 3000 recordings fit whole.
      split: "example" divides recordings one by one, as the paper; "speaker" keeps those of
        one voice in one split, so that valid and test are of voices never heard.
      seed: of both divisions.

    Raises:
      UsageError: files that are missing or unusable, see `data.digit_files`; a size, length
        or split that cannot be; too few speakers to divide.
    """
    if image_size < 1 or 28 % image_size:
        raise UsageError(f"got image_size={image_size}, wanted a divisor of 28; set 28 or 14.")
    if split not in SPLIT_POLICIES:
        raise UsageError(f"got split={split!r}, wanted one of {', '.join(SPLIT_POLICIES)}.")
    if samples is not None:
        count_steps(samples)
    images, image_labels = read_mnist(folder / "mnist")
    recordings, recording_labels, speakers = read_spoken(folder / "fsdd" / "recordings")
    samples = samples or whole_steps(max(map(len, recordings)))
    if split == "speaker":
        recording_splits = _by_speaker(speakers, seed)
    else:
        recording_splits = assign_splits(recording_labels, None, FRACTIONS, seed)
    return Digits(
        images=_shrink(images, image_size),
        image_labels=image_labels,
        image_splits=np.array(assign_splits(image_labels, None, FRACTIONS, seed)),
        recordings=[waveform[:samples] for waveform in recordings],
        recording_labels=recording_labels,
        recording_splits=np.array(recording_splits),
        speakers=np.array(speakers),
        samples=samples,
    )


def _by_speaker(speakers: list[str], seed: int) -> list[str]:
    """A tenth of the speakers each, and at least one, for valid and test: 4, 1, 1 of FSDD's six.

    By a hash, so that every library version gives the same answer.
    """
    names = sorted(
        set(speakers), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()
    )
    if len(names) < 3:
        raise UsageError(
            f"got {len(names)} speakers ({', '.join(names)}), wanted at least 3 to divide; add "
            "recordings, or split by example."
        )
    count = max(1, round(FRACTIONS[1] * len(names)))
    homes = dict.fromkeys(names, "train")
    homes.update(dict.fromkeys(names[:count], "valid"))
    homes.update(dict.fromkeys(names[count : 2 * count], "test"))
    return [homes[name] for name in speakers]


def _shrink(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 [N, 28, 28] -> uint8 [N, size, size], the means of squares."""
    edge = images.shape[1] // size
    if edge == 1:
        return images
    squares = images.reshape(-1, size, edge, size, edge)
    return np.round(squares.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)


class Pairs:
    """Every image with every recording of its digit, within one split, by number."""

    def __init__(self, digits: Digits, split: str):
        """Raises UsageError: the split has no pair."""

        def rows(labels, splits):
            return [np.flatnonzero((labels == digit) & (splits == split)) for digit in range(10)]

        self._images = rows(digits.image_labels, digits.image_splits)
        self._recordings = rows(digits.recording_labels, digits.recording_splits)
        counts = [len(a) * len(b) for a, b in zip(self._images, self._recordings, strict=True)]
        self._ends = np.cumsum(counts)
        if not len(self):
            raise UsageError(
                f"got no {split} image and recording of one digit, wanted at least one; add "
                "recordings."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[int, int, int]:
        """(row of the image, row of the recording, digit) of pair 0 <= number < len."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        digit = int(np.searchsorted(self._ends, number, side="right"))
        recordings = self._recordings[digit]
        within = int(number) - (int(self._ends[digit - 1]) if digit else 0)
        image, recording = divmod(within, len(recordings))
        return int(self._images[digit][image]), int(recordings[recording]), digit


def count_pairs(digits: Digits, split: str) -> int:
    """How many pairs a split has; 0 < count. Raises UsageError as `Pairs`."""
    return len(Pairs(digits, split))


class Examples:
    """The pairs of a split in an order drawn by a seed, with noise: a source for Grain.

    Example k is a function of (split, seed, k). The order is a permutation that Grain
    evaluates index by index, so the first n of them are n distinct pairs; the paper trains on
    87516. Noise is a function of (split, seed, pair) and not of k, with the same draw scaled
    at every ratio; order and noise of another epoch come from another seed.
    """

    def __init__(
        self,
        digits: Digits,
        split: str,
        seed: int = 0,
        image_snr: float = np.inf,
        audio_snr: float = np.inf,
        count: int | None = None,
    ):
        """Take the first `count` examples (None: all) at power ratios, see `data.noise`.

        Args:
          split: "train", "valid" or "test".
          seed: 0 <= seed < 2**32.

        Raises:
          UsageError: a ratio below 0, a seed or count that cannot be, a split without pairs.
        """
        check_snr(image_snr, "image_snr")
        check_snr(audio_snr, "audio_snr")
        if not 0 <= seed < 2**32:
            raise UsageError(f"got seed={seed}, wanted 0 to {2**32 - 1}.")
        self.pairs = Pairs(digits, split)
        self._count = len(self.pairs) if count is None else count
        if not 1 <= self._count <= len(self.pairs):
            raise UsageError(
                f"got count={count} for {split}, wanted 1 to {len(self.pairs)}, the pairs it has."
            )
        self._digits = digits
        self._key = (seed, SPLITS.index(split))
        self._snr = {"image": image_snr, "audio": audio_snr}
        self._order = grain.MapDataset.range(len(self.pairs)).seed(seed).shuffle()

    def __len__(self) -> int:
        return self._count

    def number(self, k: int) -> int:
        """Which pair stands at place k."""
        if not 0 <= k < self._count:
            raise IndexError(k)
        return int(self._order[int(k)])

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        """Example k.

        Returns:
          "image" float32 [S, S, 1], 0 to 255 before noise; "spectrogram" float32 [steps, 201],
          see `data.spectrogram`; "label" int32 []. Noise is added to the image as the model
          sees it, and to sound before it is padded, as in the paper.
        """
        made = {"image": self.image(k), "spectrogram": self.spectrogram(k)}
        return {**made, "label": np.int32(self.digit(k))}

    def digit(self, k: int) -> int:
        """The label of example k."""
        return self.pairs[self.number(k)][2]

    def image(self, k: int) -> np.ndarray:
        """The image of example k alone, as `__getitem__` gives it."""
        number = self.number(k)
        clean = self._digits.images[self.pairs[number][0]]
        return add_white_noise(clean, self._snr["image"], self._rng(number, 0))[..., None]

    def spectrogram(self, k: int) -> np.ndarray:
        """The spectrogram of example k alone."""
        number = self.number(k)
        clean = self._digits.recordings[self.pairs[number][1]]
        sound = add_white_noise(clean, self._snr["audio"], self._rng(number, 1))
        return log_spectrogram(pad_front(sound, self._digits.samples))

    def batch(self, places: Iterable[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(inputs {"image" [B, S, S, 1], "spectrogram" [B, steps, 201]}, labels int32 [B])."""
        examples = [self[k] for k in places]
        stacked = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
        return stacked, stacked.pop("label")

    def _rng(self, number: int, modality: int) -> np.random.Generator:
        return np.random.default_rng([*self._key, number, modality])
