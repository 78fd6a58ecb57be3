"""A batch depends on seed and step alone; evaluation sees every row once, in order."""

import numpy as np
import pytest

from fusion_keras.data.augment import AugmentSpec, missing
from fusion_keras.data.pipeline import eval_batches, steps_per_epoch, train_batches
from fusion_keras.errors import UsageError
from fusion_keras.modalities.augmentation import augmentation
from tests.support.backbones import text_preset

N = 23


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "token_ids": np.arange(N * 3, dtype=np.int32).reshape(N, 3),
        "image": rng.integers(0, 256, (N, 12, 12, 3), dtype=np.uint8),
        "label": np.arange(N, dtype=np.int32),
    }


def collected(arrays, indices=None, seed=1, epochs=3, batch_size=5, **options):
    indices = np.arange(N) if indices is None else indices
    if "augmentation" in options:
        options["augmentation"] = augmentation(
            options["augmentation"], int(arrays["label"].max()) + 1, {"text": text_preset()}
        )
    return list(train_batches(arrays, indices, batch_size, seed, epochs, **options))


def assert_equal(some, others):
    assert len(some) == len(others)
    for (inputs, labels), (other_inputs, other_labels) in zip(some, others, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        assert inputs.keys() == other_inputs.keys()
        for name, value in inputs.items():
            np.testing.assert_array_equal(value, other_inputs[name])


def test_each_epoch_is_another_shuffle_of_the_chosen_rows(arrays):
    rows = np.arange(3, 18)
    batches = collected(arrays, rows)
    assert len(batches) == 3 * steps_per_epoch(len(rows), 5) == 9
    epochs = np.concatenate([labels for _, labels in batches]).reshape(3, 15)
    assert all(sorted(epoch) == list(rows) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_batch_is_full_typed_and_keeps_its_rows_together(arrays):
    for inputs, labels in collected(arrays):
        assert set(inputs) == {"token_ids", "image"}
        np.testing.assert_array_equal(inputs["token_ids"], arrays["token_ids"][labels])
        np.testing.assert_array_equal(inputs["image"], arrays["image"][labels])
        assert (inputs["token_ids"].dtype, inputs["image"].dtype) == (np.int32, np.uint8)
        assert labels.shape == (5,)


def test_the_rows_left_over_differ_from_epoch_to_epoch(arrays):
    epochs = np.concatenate([labels for _, labels in collected(arrays, epochs=12)]).reshape(12, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert set(epochs.ravel()) == set(range(N))


def test_the_seed_decides_order_and_augmentation(arrays):
    options = {"augmentation": AugmentSpec()}
    assert_equal(collected(arrays, **options), collected(arrays, **options))
    orders = {
        tuple(np.concatenate([labels for _, labels in collected(arrays, seed=seed)]))
        for seed in range(4)
    }
    assert len(orders) == 4


@pytest.mark.parametrize("step", [1, 4, 7, 12])
def test_resuming_at_a_step_gives_the_batches_of_an_undisturbed_run(arrays, step):
    options = {"augmentation": AugmentSpec(erase=0.5)}
    undisturbed = collected(arrays, **options)
    assert len(undisturbed) == 12
    assert_equal(collected(arrays, start_step=step, **options), undisturbed[step:])


def test_augmentation_changes_images_differently_each_time_and_nothing_else(arrays):
    options = {"indices": np.arange(5), "epochs": 2}  # one batch an epoch
    plain = collected(arrays, **options)
    changed = collected(arrays, augmentation=AugmentSpec(), **options)
    seen = []
    for (inputs, labels), (other, other_labels) in zip(plain, changed, strict=True):
        np.testing.assert_array_equal(labels, other_labels)
        np.testing.assert_array_equal(inputs["token_ids"], other["token_ids"])
        assert other["image"].dtype == np.uint8
        assert all((a != b).any() for a, b in zip(inputs["image"], other["image"], strict=True))
        seen.append(other["image"][np.argsort(labels)])
    assert (seen[0] != seen[1]).any(axis=(1, 2, 3)).all()


def test_modality_dropout_leaves_each_example_one_of_both(arrays):
    spec = AugmentSpec(drop_text=0.5, drop_image=0.25)
    arrays = arrays | {"token_ids": arrays["token_ids"] + 1}  # 0 is padding
    batches = collected(arrays, epochs=40, augmentation=spec)
    tokens = np.concatenate([inputs["token_ids"] for inputs, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    # The empty sentence: the first and the last token of the full one.
    whole = arrays["token_ids"][labels]
    no_text = (tokens != whole).any(axis=1)
    np.testing.assert_array_equal(tokens[no_text][:, :2], whole[no_text][:, [0, 2]])
    assert not tokens[no_text][:, 2].any()
    images = np.concatenate([inputs["image"] for inputs, _ in batches])
    no_image = (images == images[:, :1, :1, :1]).all(axis=(1, 2, 3))
    assert not (no_text & no_image).any()
    # 800 draws: four standard deviations.
    assert no_text.mean() == pytest.approx(0.5, abs=0.07)
    assert no_image.mean() == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("sentences", [False, True])
def test_mixup_mixes_images_and_labels_alike_where_no_sentence_is(sentences):
    # An image that is its label everywhere: the mixed label can be read off the mixed image.
    labels = np.arange(N, dtype=np.int32) % 2
    images = np.broadcast_to(labels[:, None, None, None] * 200, (N, 4, 4, 3)).astype(np.uint8)
    spec = AugmentSpec(
        flip=False, shift=0.0, scale=(1.0, 1.0), rotate=0.0, brightness=0.0, contrast=0.0,
        saturation=0.0, mixup=0.5, drop_text=0.6,
    )  # fmt: skip
    arrays = {"image": images, "label": labels}
    if sentences:
        arrays["token_ids"] = np.full((N, 6), 7, np.int32)
    shares = {True: [], False: []}
    for inputs, targets in collected(arrays, augmentation=spec):
        assert targets.shape == (5, 2)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        seen = inputs["image"].mean(axis=(1, 2, 3)) / 200
        np.testing.assert_allclose(seen, targets[:, 1], atol=0.01)
        told = (inputs["token_ids"][:, 2:] != 0).any(axis=1) if sentences else np.zeros(5, bool)
        for told_of_one, share in zip(told, targets[:, 1], strict=True):
            shares[bool(told_of_one)].append(share)
    mixed = {
        k: np.mean((np.array(v) > 0.02) & (np.array(v) < 0.98)) for k, v in shares.items() if v
    }
    assert mixed[False] > 0.1
    assert mixed.get(True, 0) == 0
    assert (True in mixed) == sentences


def test_modality_dropout_takes_one_of_three_at_its_rate(arrays):
    spec = AugmentSpec(drop_text=0.2, drop_image=0.3, drop_audio=0.4)
    without = missing(4000, ("text", "image", "audio"), spec, np.random.default_rng(0))
    for modality, rate in (("text", 0.2), ("image", 0.3), ("audio", 0.4)):
        assert without[modality].mean() == pytest.approx(rate, abs=0.03)
    assert max(sum(rows.astype(int) for rows in without.values())) == 1
    arrays = {name: arrays[name] for name in ("image", "label")}
    arrays["audio"] = np.ones((N, 3, 64), np.float32)
    spec = AugmentSpec(drop_text=1.0)
    assert all(inputs["audio"].all() for inputs, _ in collected(arrays, augmentation=spec))
    spec = AugmentSpec(drop_audio=1.0)
    assert not any(inputs["audio"].any() for inputs, _ in collected(arrays, augmentation=spec))


def test_dropping_more_than_all_is_refused():
    with pytest.raises(UsageError, match="loses one at most"):
        AugmentSpec(drop_text=0.6, drop_image=0.5)


def test_one_modality_alone_passes_through(arrays):
    text = {name: arrays[name] for name in ("token_ids", "label")}
    inputs, _ = collected(text, augmentation=AugmentSpec())[0]
    assert set(inputs) == {"token_ids"}
    image = {name: arrays[name] for name in ("image", "label")}
    assert set(collected(image)[0][0]) == {"image"}


def test_scores_join_the_targets(arrays):
    scores = np.linspace(-3, 3, N, dtype=np.float32)
    inputs, targets = collected(arrays | {"score": scores})[0]
    assert set(inputs) == {"token_ids", "image"}
    np.testing.assert_array_equal(targets["score"], scores[targets["label"]])


def test_images_may_be_memory_mapped(arrays, tmp_path):
    np.save(tmp_path / "images.npy", arrays["image"])
    mapped = arrays | {"image": np.load(tmp_path / "images.npy", mmap_mode="r")}
    assert_equal(collected(mapped), collected(arrays))
    assert type(collected(mapped)[0][0]["image"]) is np.ndarray


def test_too_few_rows_for_a_batch_end_with_a_sentence(arrays):
    with pytest.raises(UsageError, match="got 4 rows to train on, wanted at least one batch of 5"):
        collected(arrays, np.arange(4))
    with pytest.raises(UsageError, match="batch_size=0"):
        collected(arrays, batch_size=0)
    with pytest.raises(UsageError, match="no rows to evaluate"):
        eval_batches(arrays, np.arange(0), 5)


def test_arrays_of_unlike_length_are_a_bug(arrays):
    with pytest.raises(ValueError, match="equal lengths"):
        collected(arrays | {"label": np.zeros(3, np.int32)})


@pytest.mark.parametrize("count", [3, 5, 12])
def test_evaluation_sees_every_row_once_in_order_in_full_batches(arrays, count):
    rows = np.arange(20, 20 - count, -1)
    seen = []
    numbered = arrays | {"number": np.arange(N)}
    for inputs, true_count in eval_batches(numbered, rows, 5):
        assert set(inputs) == {"token_ids", "image", "number"}
        numbers = inputs["number"]
        assert numbers.shape == (5,)
        assert inputs["image"].shape == (5, 12, 12, 3)
        np.testing.assert_array_equal(inputs["image"], arrays["image"][numbers])
        assert (numbers[true_count:] == rows[0]).all()
        seen += list(numbers[:true_count])
    assert seen == list(rows)


def test_fit_takes_every_batch_once_through_all_epochs(arrays):
    import keras

    def linear() -> keras.Model:
        tokens = keras.Input((3,), name="token_ids")
        outputs = keras.layers.Dense(1, kernel_initializer="ones")(tokens)
        model = keras.Model({"token_ids": tokens}, outputs)
        model.compile(keras.optimizers.SGD(1e-4), "mse")
        return model

    text = {name: arrays[name] for name in ("token_ids", "label")}
    fitted, stepped = linear(), linear()
    batches = train_batches(text, np.arange(N), 5, seed=1, epochs=3)
    steps = steps_per_epoch(N, 5)
    fitted.fit(batches, epochs=3, steps_per_epoch=steps, shuffle=False, verbose=0)
    for inputs, labels in collected(text):
        stepped.train_on_batch(inputs, labels)
    for one, other in zip(fitted.weights, stepped.weights, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        np.testing.assert_allclose(one, other, rtol=1e-5)
