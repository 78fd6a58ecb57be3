"""Pairs of written and spoken digits as a data set to train on, none of them stored.

`config.data` with source=digits -> `Dataset`, whose inputs are made row by row: an image and
a spectrogram are each worked out when a batch asks for them.
"""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from fusion_keras.data.digits import FRACTIONS, Digits, Examples, count_pairs, load_digits
from fusion_keras.data.picked import Column
from fusion_keras.data.records import SPLITS, Dataset
from fusion_keras.data.spectrogram import STRIDE, WINDOW
from fusion_keras.errors import UsageError

CLASSES = tuple("0123456789")
# The fields and sections of `config.data` that are read here and not of every source.
READS = ("path", "split_seed", "digits")


def read_digits(data, image_size: int, steps: int) -> Digits:
    """Both sources of `config.data`, divided.

    Args:
        data: its path (the folder that holds mnist and fsdd), split_seed and digits.split are
            read.
        image_size: 28, or a divisor of it.
        steps: columns of a spectrogram; longer recordings are cut.

    Raises:
        UsageError: no path, and everything that `load_digits` says.
    """
    check_folder(data)
    if steps < 1:
        raise UsageError(f"got {steps} steps of sound, wanted at least 1.")
    samples = WINDOW + (steps - 1) * STRIDE
    folder = Path(data.path).expanduser()
    # The files as they are now: an experiment of many trainings reads them once.
    stamp = tuple((str(p), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*.*")))
    return _read(folder, image_size, samples, data.digits.split, data.split_seed, stamp)


def check_folder(data) -> None:
    """Raises UsageError where `config.data.path` names no folder."""
    if not data.path:
        raise UsageError(
            "got no data.path, wanted the folder that holds mnist/*.gz and fsdd/recordings/*.wav; "
            "set --config.data.path=FOLDER."
        )


@functools.lru_cache(maxsize=1)
def _read(folder, image_size, samples, split, seed, stamp) -> Digits:
    return load_digits(folder, image_size, samples, split, seed)


def load_digit_set(data, image_size: int, steps: int) -> Dataset:
    """The training, validation and test pairs of `config.data`, at its noise.

    Args:
        data: `config.data`: name, path, split_seed and the section digits are read.
        image_size, steps: as in `read_digits`.

    Returns:
        Train, valid and test one after the other. `inputs` are image float32 [N, S, S, 1], 0
        to 255 before noise, and spectrogram float32 [N, steps, 201]; a row's group is its
        recording, which several pairs share.

    Raises:
        UsageError: whatever is wrong with the files, the noise or the counts.
    """
    digits = read_digits(data, image_size, steps)
    examples = [split_examples(digits, data, split) for split in SPLITS]
    ends = np.cumsum([len(e) for e in examples])
    pairs = [e.pairs[e.number(k)] for e in examples for k in range(len(e))]

    def column(part: str) -> Column:
        def make(row: int) -> np.ndarray:
            index = int(np.searchsorted(ends, row, side="right"))
            start = int(ends[index - 1]) if index else 0
            return getattr(examples[index], part)(row - start)

        return Column(len(pairs), make)

    return Dataset(
        name=data.name or "digits",
        ids=[f"{image}+{recording}" for image, recording, _ in pairs],
        splits=[s for s, e in zip(SPLITS, examples, strict=True) for _ in range(len(e))],
        raw={"text": [f"image {image}, recording {recording}" for image, recording, _ in pairs]},
        inputs={"image": column("image"), "audio": column("spectrogram")},
        labels=np.array([digit for *_, digit in pairs], np.int32),
        classes=CLASSES,
        scores=None,
        groups=[f"recording {recording}" for _, recording, _ in pairs],
        source_notes=_notes(digits),
        drawn=fingerprint(digits, data),
        split_policy=f"seeded: images and recordings apart, by {data.digits.split}, "
        f"train/valid/test {FRACTIONS}, seed {data.split_seed}; then all pairs of one digit within "
        "a split, of which as many are drawn as are wanted",
    )


def split_examples(
    digits: Digits,
    data,
    split: str,
    image_snr: float | None = None,
    audio_snr: float | None = None,
) -> Examples:
    """The pairs of one split, at the config's noise or at another; the pairs stay the same.

    Raises:
        UsageError: a ratio that is none, or more pairs than there are.
    """
    field = f"{split}_pairs"
    pairs, available = data.digits[field], count_pairs(digits, split)
    if not 1 <= pairs <= available:
        raise UsageError(
            f"got data.digits.{field}={pairs}, wanted 1 to {available}, the pairs of that split."
        )
    return Examples(
        digits,
        split,
        data.split_seed,
        data.digits.image_snr if image_snr is None else image_snr,
        data.digits.audio_snr if audio_snr is None else audio_snr,
        pairs,
    )


def _notes(digits: Digits) -> tuple[str, ...]:
    full = sum(len(waveform) == digits.samples for waveform in digits.recordings)
    if full <= 1:
        return ()
    return (f"{full} of {len(digits.recordings)} recordings fill all {digits.samples} samples: "
            "longer ones were cut at their end",)  # fmt: skip


def fingerprint(digits: Digits, data) -> str:
    """sha256 over all that a model can learn from, and is tested on: both sources, and how pairs
    are drawn by `config.data`."""
    drawn = ("split", "split_seed", "image_snr", "audio_snr", *(f"{s}_pairs" for s in SPLITS))
    values = {**data.digits, "split_seed": data.split_seed}
    described = [[name, str(values[name])] for name in drawn]
    described += [digits.samples, list(digits.images.shape), digits.image_labels.tolist()]
    described += [digits.image_splits.tolist(), digits.recording_labels.tolist()]
    described += [digits.recording_splits.tolist(), [len(w) for w in digits.recordings]]
    digest = hashlib.sha256(json.dumps(described).encode())
    digest.update(np.ascontiguousarray(digits.images))
    for waveform in digits.recordings:
        digest.update(np.ascontiguousarray(waveform))
    return digest.hexdigest()
