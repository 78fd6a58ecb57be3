"""Sentences in which words are changed: which ones, by what, and how much of them."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from fusion_keras.data.demo import make_demo
from fusion_keras.data.edits import NEAREST, edited, neighbours
from fusion_keras.data.tokens import SpecialIds, TextTokenizer, load_tokenizer
from tests.support.text_families import write_tokenizer

# Its vectors turn by a degree from word to word, so that the nearest stand beside each other.
NAMES = [f"{a}{b}{c}" for a in "qw" for b in "er" for c in "tyuiop"]


@pytest.fixture
def tokenizer() -> TextTokenizer:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "ab": 2, ",": 3}
    vocabulary |= {name: index for index, name in enumerate(NAMES, start=4)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return TextTokenizer(inner, SpecialIds(pad=0, unknown=1))


@pytest.fixture
def embedding() -> np.ndarray:
    angles = np.radians(np.arange(len(NAMES) + 4) - 4.0)
    lengths = np.linspace(1, 9, len(angles))[:, None]
    return lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_neighbours_are_the_words_of_the_nearest_angles_nearest_first(tokenizer, embedding):
    near = neighbours([f"{NAMES[0]}, ab {NAMES[10]} unheard"], tokenizer, embedding)
    # No short word, none that is unknown, and no word itself.
    assert set(near) == {NAMES[0], NAMES[10]}
    assert near[NAMES[0]] == tuple(NAMES[1 : NEAREST + 1])
    assert set(near[NAMES[10]]) == {*NAMES[6:10], *NAMES[11:15]}
    assert set(near[NAMES[10]][:2]) == {NAMES[9], NAMES[11]}


@pytest.mark.parametrize("kind", ["words", "bytes", "pieces", "clip", "deberta"])
def test_words_of_every_kind_of_vocabulary_have_neighbours(kind, tmp_path):
    texts = list(make_demo(size=600).raw["text"])
    write_tokenizer(tmp_path, kind, texts, more=600)
    tokenizer = load_tokenizer(tmp_path)
    drawn = np.random.default_rng(0).normal(size=(max(tokenizer.vocabulary.values()) + 1, 4))
    near = neighbours(texts, tokenizer, drawn)
    said = {word.strip(".,") for text in texts for word in text.split()}
    assert {"that", "with", "was"} <= set(near) <= said
    found = {word for row in near.values() for word in row}
    assert all(word.isalpha() for word in found)
    # Whole words, as they are written, in whatever case.
    assert len(found & {word.lower() for word in said}) > 0.6 * len(found)
    assert len(found) > 100


def test_a_word_in_other_letters_is_no_neighbour_of_itself(tokenizer, embedding):
    """A cased vocabulary, in which the nearest of a word are its own spellings."""
    spelled = {f(name): index for index, name in enumerate(NAMES) for f in (str.upper, str)}
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {n: i for i, n in enumerate(spelled, start=2)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cased = TextTokenizer(inner, SpecialIds(pad=0, unknown=1))
    vectors = embedding[[0, 1, *(4 + index for index in spelled.values())]]
    near = neighbours([NAMES[0], NAMES[0].upper()], cased, vectors)
    assert near[NAMES[0]] == near[NAMES[0].upper()] == tuple(NAMES[1 : NEAREST + 1])


def test_a_vocabulary_of_no_words_has_no_neighbours(tokenizer, embedding):
    assert neighbours([NAMES[0]], tokenizer, embedding[:8]) == {}


def test_half_of_the_changed_words_are_gone_and_half_replaced_in_their_punctuation():
    words = [f"({n})," for n in range(20_000)]
    near = {str(n): (f"x{n}", f"y{n}") for n in range(20_000)}
    (made,) = edited([" ".join(words)], 0.3, near, np.random.default_rng(0))
    kept, replaced = set(words), {f"({w})," for pair in near.values() for w in pair}
    made = made.split()
    assert len(made) == pytest.approx(17_000, rel=0.01)
    assert sum(w in replaced for w in made) == pytest.approx(3_000, rel=0.05)
    assert all(w in kept or w in replaced for w in made)
    assert {w[1] for w in made if w in replaced} == {"x", "y"}


def test_what_stands_between_words_stays_and_accents_stay_with_their_letters():
    near = {"caf\u0065\u0301": ("tea",), "\u092c\u093e\u0924": ("word",)}
    sentences = ["| caf\u0065\u0301, | \u092c\u093e\u0924! |"] * 50
    made = edited(sentences, 0.99, near, np.random.default_rng(0))
    assert {sentence.count("|") for sentence in made} == {3}
    assert {w for s in made for w in s.split()} >= {"|", "tea,", "word!"}


def test_a_sentence_is_never_emptied_and_what_has_no_neighbours_stays():
    rng = np.random.default_rng(0)
    assert edited(["word", ""], 0.999, {}, rng) == ["word", ""]
    made = edited(["one two three"] * 50, 0.999, {}, rng)
    assert all(made)
    assert {w for sentence in made for w in sentence.split()} == {"one", "two", "three"}


def test_the_same_seed_changes_the_same_words():
    near = {"good": ("fine", "nice")}
    first, second = (
        edited(["a good day"] * 30, 0.5, near, np.random.default_rng(3)) for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 3
