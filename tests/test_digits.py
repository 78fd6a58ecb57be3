"""Written and spoken digits: files, splits, pairs that are never stored, noise, spectrograms."""

import gzip
import struct
from collections import Counter

import numpy as np
import pytest

from fusion_keras.data.digit_files import read_mnist, read_spoken, read_wav
from fusion_keras.data.digits import Examples, Pairs, count_pairs, load_digits
from fusion_keras.data.noise import add_white_noise
from fusion_keras.data.spectrogram import count_steps, log_spectrogram, pad_front, whole_steps
from fusion_keras.errors import UsageError
from tests.support.digits_layout import write_idx, write_wav

SPEAKERS = ("anna", "ben", "carla", "dan", "eve")
PER_SPEAKER = 4  # recordings of each digit


def write_mnist(folder):
    """20 rows of each digit: 15 in train, 5 in t10k; every pixel's value is drawn."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 15), ("t10k", 5)):
        labels = np.repeat(np.arange(10), count).astype(np.uint8)
        images = rng.integers(0, 256, (len(labels), 28, 28)).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """200 images, 200 recordings of 500 to 1100 samples, 20 of each digit."""
    root = tmp_path_factory.mktemp("digits")
    write_mnist(root / "mnist")
    (root / "fsdd" / "recordings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for digit in range(10):
        for speaker in SPEAKERS:
            for i in range(PER_SPEAKER):
                samples = rng.integers(-9000, 9000, 500 + 200 * i)
                write_wav(root / "fsdd" / "recordings" / f"{digit}_{speaker}_{i}.wav", samples)
    return root


@pytest.fixture(scope="module")
def digits(folder):
    return load_digits(folder)


# --- Splits and pairs ---------------------------------------------------------------------------


def test_each_source_is_divided_eight_to_one_to_one(digits):
    for labels, splits in (
        (digits.image_labels, digits.image_splits),
        (digits.recording_labels, digits.recording_splits),
    ):
        for digit in range(10):
            assert Counter(splits[labels == digit]) == {"train": 16, "valid": 2, "test": 2}


def test_speaker_split_lets_no_voice_into_two_splits(folder):
    digits = load_digits(folder, split="speaker")
    homes = {(s, w) for s, w in zip(digits.speakers, digits.recording_splits, strict=True)}
    assert Counter(split for _, split in homes) == {"train": 3, "valid": 1, "test": 1}
    assert len(digits.speakers) == 200


def test_too_few_speakers_to_divide_are_told(tmp_path):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    for name in ("0_anna_0.wav", "0_ben_0.wav"):
        write_wav(tmp_path / "fsdd" / "recordings" / name, range(500))
    with pytest.raises(UsageError, match=r"2 speakers \(.*\), wanted at least 3"):
        load_digits(tmp_path, split="speaker")


def test_pairs_are_all_of_one_digit_and_each_comes_once(digits):
    pairs = Pairs(digits, "train")
    found = [pairs[n] for n in range(len(pairs))]
    wanted = {
        (i, j, int(digits.image_labels[i]))
        for i in np.flatnonzero(digits.image_splits == "train")
        for j in np.flatnonzero(digits.recording_splits == "train")
        if digits.image_labels[i] == digits.recording_labels[j]
    }
    assert len(found) == len(set(found)) == count_pairs(digits, "train")
    assert set(found) == wanted
    with pytest.raises(IndexError):
        pairs[len(pairs)]


def test_another_seed_divides_otherwise(folder, digits):
    again, other = load_digits(folder), load_digits(folder, seed=1)
    assert np.array_equal(again.image_splits, digits.image_splits)
    assert not np.array_equal(other.image_splits, digits.image_splits)
    assert not np.array_equal(other.recording_splits, digits.recording_splits)


# --- Examples -----------------------------------------------------------------------------------


def test_examples_of_an_epoch_are_every_pair_in_an_order_of_the_seed(digits):
    examples, other = Examples(digits, "valid", seed=3), Examples(digits, "valid", seed=4)
    order = [examples.number(k) for k in range(len(examples))]
    assert sorted(order) == list(range(count_pairs(digits, "valid")))
    assert order != sorted(order)
    assert order != [other.number(k) for k in range(len(other))]


def test_example_is_a_function_of_split_seed_and_place(digits):
    def example(k, seed=3, split="train", **noise):
        return Examples(digits, split, seed, **noise)[k]

    noise = {"image_snr": 0.25, "audio_snr": 0.5}
    first = Examples(digits, "train", 3, **noise, count=20)
    backwards = {k: first[k] for k in reversed(range(20))}
    for k in (0, 7, 19):
        for name, value in example(k, **noise).items():
            np.testing.assert_array_equal(value, backwards[k][name])
    assert not np.array_equal(example(7, seed=4, **noise)["image"], backwards[7]["image"])
    with pytest.raises(IndexError):
        first[20]


def test_noise_follows_the_pair_and_is_the_same_draw_at_every_ratio(digits):
    clean, loud, soft = (Examples(digits, "train", 5, snr, snr)[0] for snr in (np.inf, 0.25, 4))
    np.testing.assert_allclose(
        loud["image"] - clean["image"], 4 * (soft["image"] - clean["image"]), atol=1e-3
    )
    other = Examples(digits, "train", 5, 0.25, 0.25)
    draws = {other[k]["image"].std() for k in range(5)}
    assert len(draws) == 5


def test_example_is_the_pair_it_names(digits):
    examples = Examples(digits, "test")
    for k in range(5):
        image, recording, digit = examples.pairs[examples.number(k)]
        found = examples[k]
        assert digits.image_labels[image] == digits.recording_labels[recording] == digit
        assert found["label"] == digit
        np.testing.assert_array_equal(found["image"][..., 0], digits.images[image])
        sound = pad_front(digits.recordings[recording], digits.samples)
        np.testing.assert_array_equal(found["spectrogram"], log_spectrogram(sound))


def test_batch_has_the_shapes_and_dtypes_of_the_model(folder):
    digits = load_digits(folder, image_size=14, samples=800)
    inputs, labels = Examples(digits, "train").batch([4, 2])
    shapes = {name: (x.shape, x.dtype) for name, x in inputs.items()}
    assert shapes == {
        "image": ((2, 14, 14, 1), np.float32),
        "spectrogram": ((2, 3, 201), np.float32),
    }
    assert labels.shape == (2,)
    assert labels.dtype == np.int32
    assert digits.steps == 3


def test_half_size_image_is_the_mean_of_squares(folder, digits):
    small = load_digits(folder, image_size=14)
    squares = digits.images[0, 4:6, 8:10].astype(float)
    assert abs(small.images[0, 2, 4] - squares.mean()) <= 0.5


def test_recordings_are_padded_to_the_longest_or_cut_to_what_is_asked(folder, digits):
    # The longest has 1100 samples; 400 + 4 * 200 is the next whole number of columns.
    assert digits.samples == 1200
    assert digits.steps == 5
    short = load_digits(folder, samples=600)
    assert max(map(len, short.recordings)) == 600
    row = int(np.argmax([len(x) for x in digits.recordings]))
    np.testing.assert_array_equal(short.recordings[row], digits.recordings[row][:600])


def test_absent_signal_is_zero_and_leaves_the_other_alone(digits):
    clean, deaf = Examples(digits, "test")[0], Examples(digits, "test", audio_snr=0)[0]
    assert not deaf["spectrogram"].any()
    assert clean["spectrogram"].any()
    np.testing.assert_array_equal(deaf["image"], clean["image"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image_snr": -1.0}, "image_snr=-1.0"),
        ({"audio_snr": float("nan")}, "audio_snr=nan"),
        ({"count": 0}, "count=0"),
        ({"count": 10**6}, "count=1000000"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_settings_that_cannot_be_are_told(digits, wrong, said):
    with pytest.raises(UsageError, match=said):
        Examples(digits, "train", **wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"image_size": 10}, "divisor of 28"),
        ({"image_size": 0}, "divisor of 28"),
        ({"samples": 500}, "set 600"),
        ({"split": "voice"}, "one of example, speaker"),
    ],
)
def test_shapes_that_cannot_be_are_told(folder, wrong, said):
    with pytest.raises(UsageError, match=said):
        load_digits(folder, **wrong)


# --- Noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [4.0, 1.0, 0.25, 0.1])
def test_measured_ratio_of_powers_is_what_was_asked(snr):
    signal = np.sin(np.arange(200_000) / 7) * 100
    noise = add_white_noise(signal, snr, np.random.default_rng(0)) - signal
    measured = np.mean(signal**2) / np.mean(noise**2)
    assert measured == pytest.approx(snr, rel=0.02)
    assert abs(noise.mean()) < 0.02 * noise.std()
    # White: neighbours know nothing of each other.
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.01


def test_infinite_ratio_changes_nothing_and_silence_stays_silent():
    rng = np.random.default_rng(0)
    signal = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(add_white_noise(signal, np.inf, rng), signal)
    assert not add_white_noise(signal, 0, rng).any()
    assert not add_white_noise(np.zeros(5), 1, rng).any()


# --- Spectrogram --------------------------------------------------------------------------------


def test_full_scale_sine_reads_one_at_its_frequency():
    # Bin 50 of 201 up to 4000 Hz is 1000 Hz.
    waveform = np.sin(2 * np.pi * 1000 / 8000 * np.arange(1000)).astype(np.float32)
    found = log_spectrogram(waveform)
    assert found.shape == (4, 201)
    np.testing.assert_allclose(found[:, 50], 1, atol=1e-3)
    assert found.argmax(axis=1).tolist() == [50] * 4
    # Hann: the neighbours are at half the amplitude, log(1 + 1e8 / 4) / log(1e8); then nothing.
    np.testing.assert_allclose(found[:, 51], np.log(0.25e8) / np.log(1e8), atol=1e-3)
    assert found[:, 60:].max() < 0.01


def test_half_the_amplitude_is_six_decibels_of_eighty():
    waveform = np.sin(2 * np.pi * 1000 / 8000 * np.arange(400))
    full, half = log_spectrogram(waveform)[0, 50], log_spectrogram(waveform / 2)[0, 50]
    assert full - half == pytest.approx(6.02 / 80, abs=1e-4)


def test_padding_stands_in_front_and_is_silent():
    padded = pad_front(np.ones(300), 1000)
    assert padded.dtype == np.float32
    assert padded[:700].sum() == 0
    assert padded[700:].all()
    columns = log_spectrogram(padded)
    assert not columns[:2].any()  # samples 0 to 599
    assert columns[2:].any(axis=1).all()


def test_lengths_are_whole_numbers_of_columns():
    assert [count_steps(n) for n in (400, 600, 18400)] == [1, 2, 91]
    assert [whole_steps(n) for n in (1, 400, 401, 18262)] == [400, 400, 600, 18400]
    with pytest.raises(UsageError, match="set 400"):
        count_steps(200)


# --- Files that cannot be used ------------------------------------------------------------------


def damage_mnist(folder, kind):
    images = folder / "train-images-idx3-ubyte.gz"
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    if kind == "missing":
        images.unlink()
    elif kind == "cut gzip":
        images.write_bytes(images.read_bytes()[:-100])
    elif kind == "not gzip":
        images.write_bytes(b"<html>not found</html>")
    elif kind == "cut idx":
        write_idx(images, np.zeros((150, 28, 28), np.uint8), cut=1)
    elif kind == "magic":
        write_idx(labels, np.zeros(50, np.uint8), magic=2051)
    elif kind == "huge header":
        write_idx(images, np.zeros((1, 1, 1), np.uint8))
        images.write_bytes(gzip.compress(struct.pack(">4I", 2051, *3 * [2**32 - 1]) + b"0"))
    elif kind == "empty":
        write_idx(images, np.zeros((0, 28, 28), np.uint8))
    elif kind == "counts":
        write_idx(labels, np.zeros(49, np.uint8))
    elif kind == "labels":
        write_idx(labels, np.full(50, 10, np.uint8))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "no file .*train-images"),
        ("cut gzip", "train-images.*wanted a gzip file"),
        ("not gzip", "train-images.*wanted a gzip file"),
        ("cut idx", "117599 of the 117600 values"),
        ("magic", "magic number 2051 .*wanted 2049"),
        ("huge header", "header of 79228162458924105385300197375 values"),
        ("empty", "0 of the 0 values"),
        ("counts", "49 labels"),
        ("labels", "label 10"),
    ],
)
def test_unusable_mnist_is_told_with_where_to_get_it(tmp_path, kind, said):
    write_mnist(tmp_path / "mnist")
    read_mnist(tmp_path / "mnist")
    damage_mnist(tmp_path / "mnist", kind)
    with pytest.raises(UsageError, match=said) as told:
        read_mnist(tmp_path / "mnist")
    assert "https://" in str(told.value)


def test_wav_is_read_as_it_was_written(tmp_path):
    path = write_wav(tmp_path / "a.wav", [0, 16384, -32768])
    found = read_wav(path)
    assert found.dtype == np.float32
    assert found.tolist() == [0, 0.5, -1]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"rate": 16000}, "16000 Hz, 1 channels and 16 bits"),
        ({"channels": 2}, "8000 Hz, 2 channels and 16 bits"),
        ({"width": 1}, "8000 Hz, 1 channels and 8 bits"),
        ({"values": []}, "0 of 0 samples"),
    ],
)
def test_recording_of_another_kind_is_told(tmp_path, made, said):
    path = write_wav(tmp_path / "7_anna_0.wav", **{"values": [1, 2, 3, 4], **made})
    with pytest.raises(UsageError, match=f"{said} in .*7_anna_0.wav"):
        read_wav(path)


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_recording_cut_short_is_told(tmp_path, keep):
    path = write_wav(tmp_path / "7_anna_0.wav", range(100))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match=r"7_anna_0\.wav"):
        read_wav(path)


def test_folder_without_recordings_and_odd_names_are_told(tmp_path):
    with pytest.raises(UsageError, match="free-spoken-digit-dataset"):
        read_spoken(tmp_path)
    write_wav(tmp_path / "seven.wav", [1])
    with pytest.raises(UsageError, match="a name like 7_jackson_32"):
        read_spoken(tmp_path)


# --- The real data ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(data_root):
    if not (data_root / "digits").is_dir():
        pytest.skip(f"no digits in {data_root}")
    return load_digits(data_root / "digits")


def test_real_digits_have_the_published_counts(real):
    assert real.images.shape == (70000, 28, 28)
    # MNIST's 5923 + 980 zeros, 6742 + 1135 ones (its paper's table of both parts).
    assert np.bincount(real.image_labels)[:2].tolist() == [6903, 7877]
    assert np.bincount(real.recording_labels).tolist() == [300] * 10
    assert len(set(real.speakers)) == 6
    assert real.steps == 91


def test_real_pairs_are_as_many_as_the_paper_has_per_recording(real):
    # 11202076, 174490 and 175389 pairs with 2500 recordings; 3000 here.
    for split, paper in (("train", 11_202_076), ("valid", 174_490), ("test", 175_389)):
        assert count_pairs(real, split) == pytest.approx(paper * 1.2, rel=0.01)


def test_real_noise_has_the_power_that_was_asked(real):
    clean, noisy = (Examples(real, "train", 0, snr) for snr in (np.inf, 0.25))
    ratios = []
    for k in range(50):
        image = clean[k]["image"]
        ratios.append(np.mean(image**2) / np.mean((noisy[k]["image"] - image) ** 2))
    assert np.mean(ratios) == pytest.approx(0.25, rel=0.03)
