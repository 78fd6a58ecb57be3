"""Sentences in which words are left out or replaced, so that no label fits them any more.

A teacher says what they are. Words are replaced by neighbours in a text model's embedding, as for
TinyBERT (Jiao et al. 2020, arXiv 1909.10351, appendix A), where BERT's own predictions and GloVe
are the neighbours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fusion_keras.data.tokens import TextTokenizer

# Of each word so many neighbours are drawn from.
NEAREST = 8
# Shorter words have punctuation and letters for neighbours.
_SHORTEST = 3
_AT_ONCE = 256
# What is left of a word's beginning or end where a tokenizer does not know how to write its tokens.
_MARKS = re.compile("\u2581|</w>")


def neighbours(
    sentences: Iterable[str], tokenizer: TextTokenizer, embedding: np.ndarray
) -> dict[str, tuple[str, ...]]:
    """Word -> the words whose vectors are nearest to its own by their angle, nearest first.

    Words are those of the sentences which the vocabulary has whole; neighbours are any that it has.

    Args:
        embedding: float [V, D], a row for each id.
    """
    words = sorted(
        {core for s in sentences for _, core, _ in map(_parts, s.split()) if _long(core)}
    )
    found = _whole(tokenizer, words)
    written = (tokenizer.tokenizer.decode([i]) for i in range(len(embedding)))
    known = [_MARKS.sub("", token).strip() for token in written]
    whole = _whole(tokenizer, sorted({word for word in known if _long(word)}))
    # One spelling of each, the last one, of small letters.
    choices = {word.casefold(): (word, index) for word, index in whole.items()}
    if not found or len(choices) <= NEAREST:
        return {}
    column = {word: number for number, word in enumerate(choices)}
    names = np.array([word for word, _ in choices.values()], object)
    ids = np.array([index for _, index in choices.values()])
    units = embedding[ids]
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-9)
    near = {}
    wanted = list(found.items())
    for start in range(0, len(wanted), _AT_ONCE):
        piece = wanted[start : start + _AT_ONCE]
        own = np.array([index for _, index in piece])
        alike = embedding[own] @ units.T
        # The word itself, in whatever spelling, is none of its neighbours.
        alike[own[:, None] == ids] = -np.inf
        for row, (word, _) in enumerate(piece):
            if word.casefold() in column:
                alike[row, column[word.casefold()]] = -np.inf
        best = np.argpartition(-alike, NEAREST, axis=1)[:, :NEAREST]
        order = np.take_along_axis(alike, best, axis=1).argsort(axis=1)[:, ::-1]
        best = np.take_along_axis(best, order, axis=1)
        near |= {word: tuple(names[row]) for (word, _), row in zip(piece, best, strict=True)}
    return near


def edited(
    sentences: Sequence[str],
    share: float,
    near: Mapping[str, Sequence[str]],
    rng: np.random.Generator,
) -> list[str]:
    """The sentences with a share of their words changed: half of those are left out, the others
    replaced, where they have neighbours. What nothing would be left of stays as it is, and so does
    what stands between words, such as a separator of columns."""
    return [_edited(sentence, share, near, rng) for sentence in sentences]


def _edited(sentence: str, share: float, near: Mapping, rng: np.random.Generator) -> str:
    words, kept = sentence.split(), []
    for word, drawn in zip(words, rng.random(len(words)), strict=True):
        before, core, behind = _parts(word)
        if core and drawn < share / 2:
            continue
        if drawn < share and core in near:
            word = before + near[core][rng.integers(len(near[core]))] + behind
        kept.append(word)
    return " ".join(kept) if kept else sentence


def _parts(word: str) -> tuple[str, str, str]:
    """A word without the punctuation that it stands in, between what stands before and behind."""
    inner = [place for place, sign in enumerate(word) if _kind(sign) in "LMN"]
    if not inner:
        return word, "", ""
    first, behind = inner[0], inner[-1] + 1
    return word[:first], word[first:behind], word[behind:]


def _long(word: str) -> bool:
    return len(word) >= _SHORTEST and all(_kind(sign) in "LM" for sign in word)


def _kind(sign: str) -> str:
    """L, M or N for a letter, a mark on one (an accent, a vowel of Hindi) or a number; or other."""
    return unicodedata.category(sign)[0]


def _whole(tokenizer: TextTokenizer, words: list[str]) -> dict[str, int]:
    """Word -> its id, of those that the vocabulary has whole."""
    # Byte-level vocabularies have other ids for words behind a space, as nearly all stand.
    apart = [f" {word}" for word in words]
    encodings = tokenizer.tokenizer.encode_batch(apart, add_special_tokens=False)
    single = {w: e.ids[0] for w, e in zip(words, encodings, strict=True) if len(e.ids) == 1}
    return {word: index for word, index in single.items() if index != tokenizer.ids.unknown}
