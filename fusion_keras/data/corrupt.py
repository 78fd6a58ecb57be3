"""Damage done to an image, a sentence, its tokens or a sound, by a chosen strength: what
robustness is measured with.

Each is a pure function of one example, a strength and a random generator. Strength 0 gives the
example back as it is, bit for bit; a greater one damages more. The kinds are common ones: noise,
blur, JPEG and their like are those of Hendrycks and Dietterich 2019 (arXiv 1903.12261), a
square of grey is that of Zeiler and Fergus 2013 (arXiv 1311.2901), dropped
and mistyped letters those of MultiBench (Liang et al. 2021, arXiv 2107.07502; robustness/
text_robust.py); theirs befall each word with a probability, where shares here are exact.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from fusion_keras.data.augment import GREY
from fusion_keras.data.modalities import PRESENT
from fusion_keras.data.noise import add_white_noise
from fusion_keras.data.tokens import SpecialIds
from fusion_keras.errors import UsageError

# The stagger of a keyboard's rows, in keys.
_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))


@dataclass(frozen=True)
class Corruption:
    """One way to damage an input.

    Attributes:
      of: what it changes: "image" uint8 [S, S, 3], "text" (a str), "token_ids" int32 [T],
        [CLS] ... [SEP] and then padding, "waveform" float32 [samples] in -1 to 1, "audio"
        float32 [F, bands], its log-mel energies, or "tabular" float32 [K].
      does: in words, with the meaning of the strength.
      apply: (value, strength, rng) -> a new value; of token ids with their `SpecialIds` behind.
      level: strength -> how a table and an axis call it.
      strengths: what is measured if nothing else is asked for, ascending.
      most: the greatest strength that has a meaning.
      random: whether the generator has a say.
    """

    of: str
    does: str
    apply: Callable
    level: Callable[[float], str]
    strengths: tuple[float, ...]
    most: float = 1.0
    random: bool = True

    @property
    def modality(self) -> str:
        return {"token_ids": "text", "waveform": "audio"}.get(self.of, self.of)

    def check(self, name: str, strengths: Sequence[float]) -> None:
        """Raises UsageError for a strength without meaning."""
        for strength in strengths:
            if not (0 < strength <= self.most and math.isfinite(strength)):
                raise UsageError(
                    f"got the strength {strength:g} of {name}, wanted more than 0"
                    + (f", {self.most:g} at most" if math.isfinite(self.most) else "")
                    + f": {self.does}."
                )


def _rng(name: str, strength: float, seed: int, repeat: int, row: int) -> np.random.Generator:
    drawn = zlib.crc32(f"{name} {float(strength)!r}".encode())
    return np.random.default_rng([seed, repeat, drawn, row])


def corrupted(
    name: str, values, strength: float, seed: int, repeat: int, special: SpecialIds | None = None
):
    """Every example of a split, damaged.

    What an example gets depends on (seed, repeat, name, strength, its place) alone, not on the
    other examples.

    Args:
      name: of CORRUPTIONS.
      values: N of what the corruption changes; all but texts as one array.
      special: of the vocabulary that token ids are of.

    Returns:
      As `values`.
    """
    kind = CORRUPTIONS[name]
    more = (special,) if kind.of == "token_ids" else ()
    changed = [
        kind.apply(value, strength, _rng(name, strength, seed, repeat, row), *more)
        for row, value in enumerate(values)
    ]
    return changed if kind.of == "text" else np.stack(changed)


# ---- Images: uint8 [S, S, 3] -----------------------------------------------------------------


def noise_image(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """White noise; strength: its power over the image's, 1 / SNR (0.1 is an SNR of 10 dB).

    Powers are those of `data.noise`: the image's is its mean square, black being 0. What leaves
    0..255 is clipped afterwards, as any image file would.
    """
    if not strength:
        return image
    noisy = add_white_noise(image, 1 / strength, rng)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def blur_image(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur; strength: its standard deviation as a share of the edge."""
    if not strength:
        return image
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(strength * len(image)))
    return np.asarray(blurred)


def jpeg_image(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Written as JPEG and read again; strength: 100 - libjpeg's quality, which is 1 to 100."""
    if not strength:
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=max(1, round(100 - strength)))
    return np.asarray(Image.open(file))


def occlude_image(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A grey square in a random place; strength: its share of the area."""
    if not strength:
        return image
    edge = len(image)
    side = min(edge, round(math.sqrt(strength) * edge))
    top, left = rng.integers(0, edge - side + 1, 2)
    hidden = image.copy()
    hidden[top : top + side, left : left + side] = GREY
    return hidden


MISSING = {f"{modality}_missing": name for modality, name in PRESENT.items()}


def present(name: str, count: int, strength: float, seed: int, repeat: int) -> np.ndarray:
    """What `corrupted` takes away, for a model that is told so.

    Args:
      name: of MISSING, whose values are the names of that model's inputs.

    Returns:
      float32 [count, 1], 0 where the input is missing.
    """
    draws = [_rng(name, strength, seed, repeat, row).random() for row in range(count)]
    return (np.array(draws) >= strength).astype(np.float32)[:, None]


def miss_image(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """All grey, as training withholds an image (`data.augment.emptied`); strength: how likely."""
    return np.full_like(image, GREY) if rng.random() < strength else image


# ---- Sentences -------------------------------------------------------------------------------


def mistype(text: str, strength: float, rng: np.random.Generator) -> str:
    """Typing mistakes; strength: the share of letters that one befalls, nothing but letters.

    Each is, with equal chances, a neighbouring key of a QWERTY keyboard, a swap with the letter
    that follows, or a letter left out. Where a swap finds no letter it is a neighbouring key,
    and where a key has no neighbours (an accented letter) the letter is left out.
    """
    letters = [i for i, sign in enumerate(text) if sign.isalpha()]
    count = round(strength * len(letters))
    signs = list(text)
    for i in rng.choice(letters, count, replace=False) if count else ():
        kind = rng.integers(3)
        if kind == 0 and text[i + 1 : i + 2].isalpha():
            signs[i], signs[i + 1] = signs[i + 1], signs[i]
        elif kind == 1:
            signs[i] = ""
        else:
            signs[i] = _beside(signs[i], rng)
    return "".join(signs)


def _beside(letter: str, rng: np.random.Generator) -> str:
    """A key beside a letter's, in its case; "" where there is none."""
    keys = NEIGHBOURS.get(letter.lower(), "")
    if not keys:
        return ""
    key = keys[rng.integers(len(keys))]
    return key.upper() if letter.isupper() else key


def _neighbours() -> dict[str, str]:
    """Letter -> the letters whose keys touch its own."""
    places = {
        letter: (x + offset, y)
        for y, (row, offset) in enumerate(_ROWS)
        for x, letter in enumerate(row)
    }

    def touch(a, b):
        across, down = abs(places[a][0] - places[b][0]), abs(places[a][1] - places[b][1])
        return across == 1 if down == 0 else down == 1 and across < 1

    return {a: "".join(b for b in places if touch(a, b)) for a in places}


NEIGHBOURS = _neighbours()


# ---- Tokens: int32 [T] -----------------------------------------------------------------------


def drop_tokens(
    ids: np.ndarray, strength: float, rng: np.random.Generator, special: SpecialIds
) -> np.ndarray:
    """Word pieces left out, the others closed up; strength: the share of them."""
    length, chosen = _chosen(ids, strength, rng, special)
    kept = np.delete(ids[:length], chosen)
    return np.concatenate([kept, np.full(len(ids) - len(kept), special.pad, ids.dtype)])


def mask_tokens(
    ids: np.ndarray, strength: float, rng: np.random.Generator, special: SpecialIds
) -> np.ndarray:
    """Word pieces replaced by [MASK]; strength: the share of them."""
    _, chosen = _chosen(ids, strength, rng, special)
    masked = ids.copy()
    masked[chosen] = special.mask
    return masked


def miss_text(
    ids: np.ndarray, strength: float, rng: np.random.Generator, special: SpecialIds
) -> np.ndarray:
    """The empty sentence, [CLS] [SEP], as training withholds one; strength: how likely."""
    return drop_tokens(ids, float(rng.random() < strength), rng, special)


def _chosen(ids, strength, rng, special) -> tuple[int, np.ndarray]:
    """(tokens in all, places of a share of those between [CLS] and [SEP])."""
    length = int((ids != special.pad).sum())
    pieces = max(0, length - 2)
    return length, 1 + rng.choice(pieces, round(strength * pieces), replace=False)


# ---- Sound -----------------------------------------------------------------------------------


def noise_sound(waveform: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """White noise; strength: its power over the clip's, 1 / SNR.

    The clip's power is its mean square, silence behind a short recording included. What leaves
    full scale is clipped, as any sound file would.
    """
    return np.clip(add_white_noise(waveform, 1 / strength, rng), -1, 1) if strength else waveform


def miss_sound(energies: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """All silent, as training withholds a sound; strength: how likely."""
    return np.zeros_like(energies) if rng.random() < strength else energies


# ---- Tables ----------------------------------------------------------------------------------


def miss_row(values: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """All numbers at their mean, no category at a level, as training withholds a row; strength:
    how likely."""
    return np.zeros_like(values) if rng.random() < strength else values


# ---- All of them -----------------------------------------------------------------------------


def _decibels(strength: float) -> str:
    return f"{10 * math.log10(1 / strength):.3g} dB"


def _percent(strength: float) -> str:
    return f"{100 * strength:.3g} %"


def _powers(*decibels: float) -> tuple[float, ...]:
    return tuple(round(10 ** (-d / 10), 6) for d in decibels)


CORRUPTIONS = {
    "image_noise": Corruption(
        of="image",
        does="white noise; its power over the image's, 0.1 is an SNR of 10 dB",
        apply=noise_image,
        level=_decibels,
        strengths=_powers(30, 20, 15, 10, 5, 0),
        most=math.inf,
    ),
    "image_blur": Corruption(
        of="image",
        does="Gaussian blur; its deviation as a share of the edge",
        apply=blur_image,
        level=_percent,
        strengths=(0.005, 0.01, 0.02, 0.04, 0.08),
        random=False,
    ),
    "image_jpeg": Corruption(
        of="image",
        does="JPEG; 100 - its quality",
        apply=jpeg_image,
        level=lambda strength: f"quality {max(1, round(100 - strength))}",
        strengths=(50, 70, 80, 90, 95),
        most=99,
        random=False,
    ),
    "image_occlusion": Corruption(
        of="image",
        does="a grey square in a random place; its share of the area",
        apply=occlude_image,
        level=_percent,
        strengths=(0.1, 0.2, 0.4, 0.6, 0.8),
    ),
    "image_missing": Corruption(
        of="image",
        does="no image, grey stands for it; the share of examples",
        apply=miss_image,
        level=_percent,
        strengths=(0.25, 0.5, 0.75, 1.0),
    ),
    "text_typing": Corruption(
        of="text",
        does="typing mistakes; the share of letters",
        apply=mistype,
        level=_percent,
        strengths=(0.05, 0.1, 0.2, 0.3, 0.5),
    ),
    "text_dropping": Corruption(
        of="token_ids",
        does="word pieces left out; their share",
        apply=drop_tokens,
        level=_percent,
        strengths=(0.1, 0.2, 0.4, 0.6, 0.8),
    ),
    "text_masking": Corruption(
        of="token_ids",
        does="word pieces replaced by [MASK]; their share",
        apply=mask_tokens,
        level=_percent,
        strengths=(0.1, 0.2, 0.4, 0.6, 0.8),
    ),
    "text_missing": Corruption(
        of="token_ids",
        does="no sentence, the empty one stands for it; the share of examples",
        apply=miss_text,
        level=_percent,
        strengths=(0.25, 0.5, 0.75, 1.0),
    ),
    "audio_noise": Corruption(
        of="waveform",
        does="white noise; its power over the clip's, 0.1 is an SNR of 10 dB",
        apply=noise_sound,
        level=_decibels,
        strengths=_powers(30, 20, 15, 10, 5, 0),
        most=math.inf,
    ),
    "audio_missing": Corruption(
        of="audio",
        does="no sound, silence stands for it; the share of examples",
        apply=miss_sound,
        level=_percent,
        strengths=(0.25, 0.5, 0.75, 1.0),
    ),
    "tabular_missing": Corruption(
        of="tabular",
        does="no numbers and categories, means stand for them; the share of examples",
        apply=miss_row,
        level=_percent,
        strengths=(0.25, 0.5, 0.75, 1.0),
    ),
}
