"""The built-in demo set: reproducible, balanced, split by speaker, with adjustable noise."""

import collections
import random

import numpy as np
import pytest

from fusion_keras.data import demo, demo_faces, demo_text
from fusion_keras.data.records import SPLITS
from fusion_keras.data.splits import check_records
from fusion_keras.errors import UsageError


@pytest.fixture(scope="module")
def records():
    return demo.make_demo(size=400, image_size=16)


def cues(noise, size=1600):
    """(signs of the labels, text cues, face cues), each float [size] of -1, 0 or 1."""
    examples = demo.draw_examples(size, seed=3, noise=noise)
    drawn = [(example.score, example.text_cue, example.face_cue) for example in examples]
    return np.sign(np.array(drawn)).T


def reachable(labels, *signs):
    """The share that is right if clear cues vote and a draw is a guess."""
    votes = np.sign(np.sum(signs, axis=0))
    return np.mean(np.where(votes == 0, 0.5, votes == labels))


def test_the_same_arguments_give_the_same_set(records):
    again = demo.make_demo(size=400, image_size=16)
    assert again.raw["text"] == records.raw["text"]
    assert again.groups == records.groups
    np.testing.assert_array_equal(again.raw["image"], records.raw["image"])
    np.testing.assert_array_equal(again.scores, records.scores)


def test_another_seed_gives_another_set(records):
    other = demo.make_demo(size=400, image_size=16, seed=1)
    same = [a == b for a, b in zip(other.raw["text"], records.raw["text"], strict=True)]
    assert np.mean(same) < 0.05
    assert not (other.raw["image"] == records.raw["image"]).all(axis=(1, 2, 3)).any()
    assert (other.labels != records.labels).any()


@pytest.mark.parametrize("size", [demo.SMALLEST, 40, 400])
def test_records_can_be_trained_on(size):
    records = check_records(demo.make_demo(size=size, image_size=16))
    assert records.name == "demo"
    assert any("no benchmark" in note for note in records.notes)
    assert records.raw["image"].shape == (size, 16, 16, 3)
    assert records.raw["image"].dtype == np.uint8
    assert {len(getattr(records, f)) for f in ("ids", "groups", "scores")} == {size}
    assert {len(values) for values in records.raw.values()} == {size}


def test_the_sign_of_the_score_is_the_class(records):
    assert records.classes == ("negative", "non-negative")
    assert records.labels.dtype == np.int32
    assert ((records.scores >= 0) == records.labels).all()
    assert np.abs(records.scores).max() == 3
    assert np.abs(records.scores).min() == np.float32(0.6)


def test_nobody_is_in_two_splits():
    examples = demo.draw_examples(1600, seed=0, noise=0.05)
    counts = collections.Counter(example.split for example in examples)
    assert [counts[split] for split in SPLITS] == [1024, 256, 320]
    homes = {(example.speaker, example.split) for example in examples}
    assert len(homes) == len({speaker for speaker, _ in homes}) == 100


@pytest.mark.parametrize("size", [160, 1600])
def test_classes_are_nearly_even_in_every_split(size):
    examples = demo.draw_examples(size, seed=5, noise=0.05)
    for split in SPLITS:
        positive = [example.score > 0 for example in examples if example.split == split]
        assert np.mean(positive) == pytest.approx(0.52, abs=0.03)


def test_without_noise_cues_are_true_or_absent():
    labels, text, face = cues(noise=0)
    for cue in (text, face):
        assert ((cue == 0) | (cue == labels)).all()
        assert np.mean(cue == 0) == pytest.approx(0.25, abs=0.01)
    assert ((text != 0) | (face != 0)).all()


@pytest.mark.parametrize("noise", [0, 0.05, 0.2, 0.5])
def test_noise_sets_what_can_be_reached(noise):
    labels, text, face = cues(noise, size=20000)
    alone = 0.75 * (1 - noise) + 0.125
    assert reachable(labels, text) == pytest.approx(alone, abs=0.015)
    assert reachable(labels, face) == pytest.approx(alone, abs=0.015)
    assert reachable(labels, text, face) == pytest.approx(1 - noise, abs=0.015)


def test_noise_flips_cues_and_leaves_the_rest():
    (labels, *clean), (noisy_labels, *noisy) = cues(noise=0), cues(noise=0.2)
    np.testing.assert_array_equal(labels, noisy_labels)
    for before, after in zip(clean, noisy, strict=True):
        np.testing.assert_array_equal(np.abs(before), np.abs(after))
        clear = before != 0
        assert np.mean(before[clear] != after[clear]) == pytest.approx(0.2, abs=0.04)


def test_training_sentences_seldom_return_in_the_test_split():
    records = demo.make_demo(image_size=16)
    told = {
        t for t, split in zip(records.raw["text"], records.splits, strict=True) if split == "train"
    }
    test = [
        t for t, split in zip(records.raw["text"], records.splits, strict=True) if split == "test"
    ]
    assert np.mean([text in told for text in test]) < 0.03


@pytest.mark.parametrize("topic", demo_text.TOPICS)
@pytest.mark.parametrize("sentiment", [-3, -0.6, 0, 0.6, 3])
def test_sentences_are_finished(topic, sentiment):
    for seed in range(40):
        text = demo_text.write_sentence(random.Random(seed), topic, sentiment)
        assert 3 <= len(text.split()) <= 25
        assert text[0].isupper()
        assert text.endswith(".")
        assert not set(text) & set("{}")
        assert "  " not in text


def test_sentiment_is_worded_by_its_strength():
    rng = random.Random(0)
    strong = " ".join(demo_text.write_sentence(rng, "film", 2.4) for _ in range(200))
    mild = " ".join(demo_text.write_sentence(rng, "film", 0.8) for _ in range(200))
    assert "loved" in strong
    assert "loved" not in mild
    assert "not bad at all" in mild
    assert "not bad at all" not in strong


def test_articles_follow_their_word():
    assert demo_text._polish("what a awful a good") == "What an awful a good"


def test_only_the_expression_changes_with_the_sentiment():
    """Same speaker, same draw of everything else: mouth, brows and eyes alone differ."""
    look = demo_faces.draw_look(random.Random(1))
    sad, blank, glad = (
        demo_faces.draw_face(random.Random(2), look, sentiment, 64).astype(int)
        for sentiment in (-2, 0, 2)
    )
    for one, other in ((sad, glad), (sad, blank), (blank, glad)):
        changed = (np.abs(one - other).max(axis=2) > 12).mean()
        assert 0.01 < changed < 0.15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 19}, "got a demo of 19 examples, wanted at least 20"),
        ({"noise": 0.6}, "got a demo with noise 0.6, wanted 0 to 0.5"),
        ({"noise": -0.1}, "got a demo with noise -0.1"),
        ({"image_size": 8}, "got demo images of 8 px, wanted at least 16"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(UsageError, match=message):
        demo.make_demo(**arguments)
