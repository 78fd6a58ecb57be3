"""The built-in demo: spoken opinions with drawn faces, made on the spot.

This is a demo and no benchmark: it shows that the whole chain works and what fusion is for,
with nothing to download. Figures on it say nothing about any real task.

Each example has a sentiment, and two cues of it: what the sentence says and what the face
shows. In half of the examples both are clear; in a quarter the face is blank, and in a quarter
the sentence does not say. So neither is sufficient. `noise` is the probability, for each cue by
itself, that it says the opposite of the label. With noise n, the best that can be reached is

    one modality alone    0.75 (1 - n) + 0.25 / 2     83.8 % for the default n = 0.05
    both together         1 - n                       95.0 %

for then one clear cue is right with probability 1 - n, and two clear ones that disagree (with
probability 2 n (1 - n)) leave a guess: (1 - n)^2 + n (1 - n) = 1 - n, too.
"""

from __future__ import annotations

import dataclasses
import random

import numpy as np

from fusion_keras.data.demo_faces import draw_face, draw_look
from fusion_keras.data.demo_text import TOPICS, write_sentence
from fusion_keras.data.records import SPLITS, Records
from fusion_keras.errors import UsageError

CLASSES = ("negative", "non-negative")
SMALLEST = 20

_PER_SPEAKER = 16
_VALID, _TEST = 0.16, 0.2
_NON_NEGATIVE = 0.52
# (the sentence is clear, the face is clear), in equal shares within every split and class.
_CLARITY = ((True, True), (True, True), (True, False), (False, True))


@dataclasses.dataclass(frozen=True)
class Example:
    """One example before it is written and drawn; sentiments in [-3, 3], cues 0 if unclear."""

    speaker: int
    split: str
    score: float
    text_cue: float
    face_cue: float


def make_demo(
    size: int = 1600, seed: int = 0, noise: float = 0.05, image_size: int = 64
) -> Records:
    """The demo set, the same for the same arguments. About two seconds for 1600 examples.

    Speakers, each with a look and favourite topics of their own, are the groups: nobody is in
    two splits, which have 64, 16 and 20 % of the speakers (1024, 256, 320 of 1600 examples).
    52 % of every split are non-negative (rounded to whole examples).

    Args:
      size: number of examples, at least `SMALLEST`.
      noise: the probability that a clear cue contradicts the label, in [0, 0.5]; at 0.5 the
        cues say nothing.
      image_size: side of the images in pixels, at least 16.

    Returns:
      Records named "demo", with uint8 images [size, image_size, image_size, 3] and scores
      between 0.6 and 3 in absolute value, negative for class 0.

    Raises:
      UsageError: an argument outside its range.
    """
    if size < SMALLEST:
        raise UsageError(
            f"got a demo of {size} examples, wanted at least {SMALLEST}; set a larger "
            "data.demo.size."
        )
    if not 0 <= noise <= 0.5:
        raise UsageError(
            f"got a demo with noise {noise}, wanted 0 to 0.5, where 0.5 leaves no information; "
            "set data.demo.noise within that."
        )
    if image_size < 16:
        raise UsageError(
            f"got demo images of {image_size} px, wanted at least 16; set a larger image size."
        )
    examples = draw_examples(size, seed, noise)
    speakers = {example.speaker for example in examples}
    looks = {n: draw_look(_rng(seed, "look", n)) for n in speakers}
    tastes = {n: _rng(seed, "topics", n).sample(sorted(TOPICS), 2) for n in speakers}
    texts, images = [], np.empty((size, image_size, image_size, 3), np.uint8)
    for row, example in enumerate(examples):
        rng = _rng(seed, "text", row)
        topic = rng.choice(tastes[example.speaker] if rng.random() < 0.7 else sorted(TOPICS))
        texts.append(write_sentence(rng, topic, example.text_cue))
        rng = _rng(seed, "face", row)
        images[row] = draw_face(rng, looks[example.speaker], example.face_cue, image_size)
    scores = np.array([example.score for example in examples], np.float32)
    return Records(
        name="demo",
        ids=[f"demo{row:05d}" for row in range(size)],
        splits=[example.split for example in examples],
        raw={"text": texts, "image": images},
        labels=(scores >= 0).astype(np.int32),
        classes=CLASSES,
        scores=scores,
        groups=[f"speaker{example.speaker:04d}" for example in examples],
        notes=("a generated demo, no benchmark: sentences from a grammar, drawn faces",),
    )


def draw_examples(size: int, seed: int, noise: float) -> list[Example]:
    """What each example is to say and to show, before it is put into words and pixels."""
    rng = _rng(seed, "examples")
    examples = []
    for split, speakers in _split_speakers(size).items():
        # Shares of `size`, so that every row belongs to a speaker though few divide evenly.
        rows = [row for row in range(size) if row % _count(size) in speakers]
        deck = [
            (1 if n < round(_NON_NEGATIVE * len(rows)) else -1, *_CLARITY[n % len(_CLARITY)])
            for n in range(len(rows))
        ]
        rng.shuffle(deck)
        for row, (sign, text_clear, face_clear) in zip(rows, deck, strict=True):
            score = sign * rng.randint(3, 15) / 5
            # Drawn whatever the noise is: another noise flips other cues and changes no more.
            cues = [
                clear * score * (-1 if rng.random() < noise else 1)
                for clear in (text_clear, face_clear)
            ]
            examples.append(Example(row % _count(size), split, score, *cues))
    return examples


def _count(size: int) -> int:
    return max(5, round(size / _PER_SPEAKER))


def _split_speakers(size: int) -> dict[str, range]:
    count = _count(size)
    valid, test = max(1, round(_VALID * count)), max(1, round(_TEST * count))
    ends = (count - valid - test, count - test, count)
    return dict(zip(SPLITS, map(range, (0, *ends), ends), strict=False))


def _rng(seed: int, *purpose: str | int) -> random.Random:
    """A stream of its own for each purpose; Python keeps these sequences stable."""
    return random.Random(f"demo {seed} {purpose}")
