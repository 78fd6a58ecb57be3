"""What each corruption does to one example: powers and shares counted, nothing at strength 0."""

import io

import numpy as np
import pytest
from PIL import Image

from fusion_keras.data import corrupt
from fusion_keras.data.augment import GREY, AugmentSpec, missing
from fusion_keras.data.corrupt import CORRUPTIONS, corrupted
from fusion_keras.data.log_mel import log_mel
from fusion_keras.data.tokens import SpecialIds
from fusion_keras.errors import UsageError
from fusion_keras.modalities import MODALITY
from tests.support.backbones import text_preset

PAD, MASK = 0, 103
SPECIAL = SpecialIds(PAD, mask=MASK)
SENTENCE = "The quick brown fox, 42 years old, jumps over 13 lazy dogs!"


def rng(seed=0):
    return np.random.default_rng(seed)


def image(edge=64, low=80, high=120):
    return rng(1).integers(low, high, (edge, edge, 3), dtype=np.uint8)


def ids(count=10, length=16):
    """[CLS] 11 .. [SEP] and zeros."""
    row = np.zeros(length, np.int32)
    row[: count + 2] = [101, *range(11, 11 + count), 102]
    return row


def hum(seconds=0.2):
    """A sine at half of full scale, float32 [samples]."""
    return (0.5 * np.sin(0.3 * np.arange(round(16000 * seconds)))).astype(np.float32)


EXAMPLES = {
    "image": image(),
    "text": SENTENCE,
    "token_ids": ids(),
    "waveform": hum(),
    "audio": log_mel(hum()),
    "tabular": np.array([0.5, -1, 0, 1], np.float32),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_strength_0_changes_nothing_and_the_strongest_something(name):
    value = EXAMPLES[CORRUPTIONS[name].of]
    more = (SPECIAL,) if CORRUPTIONS[name].of == "token_ids" else ()
    same = CORRUPTIONS[name].apply(value, 0, rng(), *more)
    changed = CORRUPTIONS[name].apply(value, CORRUPTIONS[name].strengths[-1], rng(), *more)
    assert np.array_equal(same, value)
    assert not np.array_equal(changed, value)
    if name != "text_typing":
        assert same.dtype == changed.dtype == value.dtype
        assert same.shape == changed.shape == value.shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_example_itself_is_left_alone(name):
    value = EXAMPLES[CORRUPTIONS[name].of]
    before = value if isinstance(value, str) else value.copy()
    more = (SPECIAL,) if CORRUPTIONS[name].of == "token_ids" else ()
    CORRUPTIONS[name].apply(value, 0.5, rng(), *more)
    assert np.array_equal(value, before)


# ---- Images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decibels", [20, 15])
def test_image_noise_has_the_power_that_its_ratio_says(decibels):
    # About 100 everywhere, so that 18 at most of noise never meets 0 or 255.
    clean = image(256)
    strength = 10 ** (-decibels / 10)
    noise = corrupt.noise_image(clean, strength, rng()).astype(float) - clean
    power = np.mean(clean.astype(float) ** 2)
    assert np.mean(noise**2) == pytest.approx(strength * power, rel=0.02)
    assert CORRUPTIONS["image_noise"].level(strength) == f"{decibels} dB"


def test_image_noise_is_clipped_and_does_not_wrap_around():
    white = np.full((64, 64, 3), 255, np.uint8)
    noisy = corrupt.noise_image(white, 0.01, rng())
    # Half of the draws are above 255; the deviation is a tenth of 255.
    assert (noisy == 255).mean() == pytest.approx(0.5, abs=0.02)
    assert noisy.min() > 100


def test_blur_spreads_a_point_by_its_deviation():
    edge, deviation = 101, 4
    point = np.zeros((edge, edge, 3), np.uint8)
    point[48:53, 48:53] = 255
    blurred = corrupt.blur_image(point, deviation / edge, rng())[..., 0].astype(float)
    places = np.arange(edge) - 50
    share = blurred.sum(axis=0) / blurred.sum()
    # Variances add: the 5 x 5 square has (25 - 1) / 12 of its own.
    assert (share * places).sum() == pytest.approx(0, abs=0.1)
    assert (share * places**2).sum() == pytest.approx(deviation**2 + 2, rel=0.1)


def test_jpeg_is_pillows_own_at_100_minus_the_strength():
    file = io.BytesIO()
    Image.fromarray(image()).save(file, "JPEG", quality=30)
    np.testing.assert_array_equal(corrupt.jpeg_image(image(), 70, rng()), Image.open(file))
    assert CORRUPTIONS["image_jpeg"].level(70) == "quality 30"


@pytest.mark.parametrize(("share", "hidden"), [(0.25, 32**2), (1, 64**2)])
def test_occlusion_hides_its_share_with_a_grey_square(share, hidden):
    changed = corrupt.occlude_image(image(high=100), share, rng())
    grey = (changed == GREY).all(axis=-1)
    assert grey.sum() == hidden
    rows, columns = np.nonzero(grey)
    assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) == hidden


# ---- Sentences and tokens --------------------------------------------------------------------


def test_keys_are_neighbours_as_on_a_keyboard():
    assert set(corrupt.NEIGHBOURS["s"]) == set("adwezx")
    assert set(corrupt.NEIGHBOURS["q"]) == set("wa")
    assert set(corrupt.NEIGHBOURS["m"]) == set("njk")
    pairs = {(a, b) for a, keys in corrupt.NEIGHBOURS.items() for b in keys}
    assert pairs == {(b, a) for a, b in pairs}
    assert len(corrupt.NEIGHBOURS) == 26


def test_typing_mistakes_befall_letters_only():
    for seed in range(20):
        changed = corrupt.mistype(SENTENCE, 1.0, rng(seed))
        other = [[s for s in text if not s.isalpha()] for text in (SENTENCE, changed)]
        assert other[0] == other[1]
        assert changed != SENTENCE


def test_typing_mistakes_come_in_their_share_and_in_three_kinds():
    # No two letters side by side, so nothing can be swapped: a third left out, the others of
    # neighbouring keys, in their case.
    text = "S-" * 3000
    changed = corrupt.mistype(text, 0.5, rng())
    letters = [part for part in changed.split("-")[:-1] if part]
    assert len(letters) == pytest.approx(3000 - 500, abs=60)
    typed = [letter for letter in letters if letter != "S"]
    assert len(letters) - len(typed) == 1500
    assert set(typed) == set("ADWEZX")


def test_a_swap_keeps_the_letters_of_a_sentence():
    swaps = [corrupt.mistype("ab", 0.5, rng(seed)) for seed in range(60)]
    assert "ba" in swaps
    # One letter of two: swapped, left out, or the key beside it.
    beside = {f"{key}b" for key in corrupt.NEIGHBOURS["a"]}
    beside |= {f"a{key}" for key in corrupt.NEIGHBOURS["b"]}
    assert set(swaps) <= {"ba", "a", "b", *beside}


def test_letters_without_a_key_are_left_out_and_no_letters_are_no_error():
    assert corrupt.mistype("é", 1.0, rng()) == ""
    assert corrupt.mistype("", 1.0, rng()) == ""
    assert corrupt.mistype("42!", 1.0, rng()) == "42!"


def test_dropped_tokens_close_up_in_their_order():
    changed = corrupt.drop_tokens(ids(10), 0.4, rng(), SPECIAL)
    kept = changed[changed != 0].tolist()
    assert len(kept) == 8  # 10 - 4, and [CLS] and [SEP]
    assert (kept[0], kept[-1]) == (101, 102)
    assert kept[1:-1] == sorted(kept[1:-1])
    assert (changed[8:] == 0).all()


def test_masked_tokens_keep_their_places():
    changed = corrupt.mask_tokens(ids(10), 0.4, rng(), SPECIAL)
    assert (changed == MASK).sum() == 4
    unmasked = changed != MASK
    np.testing.assert_array_equal(changed[unmasked], ids(10)[unmasked])
    assert unmasked[[0, 11, 12, 15]].all()  # [CLS], [SEP] and padding


@pytest.mark.parametrize("row", [ids(0), np.zeros(16, np.int32)])
def test_a_sentence_without_words_has_nothing_to_lose(row):
    np.testing.assert_array_equal(corrupt.drop_tokens(row, 1.0, rng(), SPECIAL), row)
    np.testing.assert_array_equal(corrupt.mask_tokens(row, 1.0, rng(), SPECIAL), row)


def test_what_is_missing_is_what_training_withholds():
    examples = {
        "text": np.stack([ids(10), ids(3)]),
        "image": np.stack([image(8), image(8)]),
        "audio": np.stack([EXAMPLES["audio"]] * 2),
        "tabular": np.ones((2, 5), np.float32),
    }
    for of, values in examples.items():
        spec = AugmentSpec(**{f"drop_{of}": 1.0})
        without = missing(2, tuple(examples), spec, rng())
        assert {m: rows.all() for m, rows in without.items()} == {m: m == of for m in examples}
        withheld = MODALITY[of].emptied(values, without[of], text_preset())
        damaged = corrupted(f"{of}_missing", values, 1.0, 0, 0, SPECIAL)
        np.testing.assert_array_equal(damaged, withheld)


def test_a_share_of_the_examples_goes_without():
    images = np.zeros((1000, 2, 2, 3), np.uint8)
    changed = corrupted("image_missing", images, 0.25, 0, 0)
    assert (changed == GREY).all(axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("strength", [0.01, 0.1])
def test_noise_of_a_sound_has_the_power_asked_for(strength):
    noise = corrupt.noise_sound(hum(1.0), strength, rng()) - hum(1.0)
    assert np.square(noise).mean() / np.square(hum(1.0)).mean() == pytest.approx(strength, rel=0.03)


def test_a_noisy_sound_stays_within_full_scale_and_silence_silent():
    assert np.abs(corrupt.noise_sound(hum(), 10.0, rng())).max() == 1
    silence = np.zeros(4000, np.float32)
    np.testing.assert_array_equal(corrupt.noise_sound(silence, 1.0, rng()), silence)


# ---- All rows --------------------------------------------------------------------------------


def test_an_example_is_damaged_alike_whoever_stands_beside_it():
    images = np.stack([image(16)] * 3)
    whole = corrupted("image_noise", images, 0.1, 7, 0)
    np.testing.assert_array_equal(corrupted("image_noise", images[:2], 0.1, 7, 0), whole[:2])
    assert not np.array_equal(whole[0], whole[1])
    for other in ((0.1, 8, 0), (0.1, 7, 1), (0.2, 7, 0)):
        assert not np.array_equal(corrupted("image_noise", images, *other), whole)


def test_sentences_stay_a_list():
    changed = corrupted("text_typing", [SENTENCE, SENTENCE], 0.3, 0, 0)
    assert len(set(changed)) == 2


@pytest.mark.parametrize(
    ("name", "strength", "said"),
    [
        ("image_occlusion", 1.5, "1 at most: a grey square"),
        ("image_jpeg", 100, "99 at most"),
        ("image_noise", float("inf"), "more than 0: white noise"),
        ("image_noise", float("nan"), "more than 0"),
        ("text_typing", -0.1, "-0.1 of text_typing, wanted more than 0"),
    ],
)
def test_a_strength_without_meaning_is_refused(name, strength, said):
    with pytest.raises(UsageError, match=said):
        CORRUPTIONS[name].check(name, [strength])


def test_padding_is_what_the_vocabulary_has_for_it():
    roberta = SpecialIds(pad=1, mask=4)
    row = np.array([0, *range(11, 21), 2, 1, 1], np.int32)  # <s> ... </s>
    dropped = corrupt.drop_tokens(row, 0.5, rng(), roberta)
    assert (dropped[0], dropped[6]) == (0, 2)
    assert (dropped[7:] == 1).all()
    assert (corrupt.mask_tokens(row, 1.0, rng(), roberta)[1:11] == 4).all()
    assert corrupt.miss_text(row, 1.0, rng(), roberta).tolist() == [0, 2, *[1] * 12]
