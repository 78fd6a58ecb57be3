"""Sound files of every kind, good and bad, and the log-mel energies that are made of them."""

import csv
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from fusion_keras.data.log_mel import BANDS, count_frames, fit, log_mel, mel_filters
from fusion_keras.data.records import SkipLog
from fusion_keras.data.sound import BadSound, decode, decode_all
from fusion_keras.errors import UsageError
from tests.support.loading import load_dataset
from tests.support.mosi_layout import write_clip, write_layout
from tests.support.tiny import tone, write_wav

FACE = np.full((48, 48, 3), 90, np.uint8)


def strongest(waveform) -> int:
    """The band with the most energy in the middle of a waveform."""
    energies = log_mel(waveform)
    return int(energies[len(energies) // 2].argmax())


def band_of(hertz: float) -> int:
    """The band whose middle on HTK's mel scale is nearest."""
    mel = 2595 * np.log10(1 + np.array([125.0, 7500.0, hertz]) / 700)
    return round((mel[2] - mel[0]) / (mel[1] - mel[0]) * (BANDS + 1)) - 1


# --- Log-mel --------------------------------------------------------------------------------


def test_every_filter_is_a_triangle_between_125_and_7500_hertz():
    filters = mel_filters()
    assert filters.shape == (257, 64)
    assert (filters.max(0) > 0.6).all()
    assert filters.max() <= 1
    heard = np.flatnonzero(filters.any(axis=1)) * 16000 / 512
    assert 125 < heard.min() < 170
    assert 7400 < heard.max() < 7500


@pytest.mark.parametrize("hertz", [200, 440, 1000, 3000, 7000])
def test_a_tone_is_loudest_in_its_own_band(hertz):
    assert abs(strongest(tone(hertz, 0.2)) - band_of(hertz)) <= 1


def test_silence_is_0_full_scale_is_1_and_each_20_decibels_a_quarter():
    assert log_mel(np.zeros(800)).max() == 0
    loud = 2 * tone(1000, 0.2)
    assert log_mel(loud).max() == pytest.approx(1, abs=0.01)
    peaks = [log_mel(loud * level).max() for level in (1, 0.1, 0.01)]
    np.testing.assert_allclose(np.diff(peaks), -0.25, atol=0.001)
    clipped = log_mel(np.sign(loud))
    assert clipped.min() >= 0
    assert clipped.max() == 1


def test_windows_are_25_ms_long_and_10_ms_apart():
    assert count_frames(4.0) == 398 == len(log_mel(np.zeros(64000)))
    click = np.zeros(1600)
    click[800] = 1  # in the windows that begin at 480, 640 and, where the taper is 0, at 800
    heard = np.flatnonzero(log_mel(click).any(axis=1)) * 160
    assert heard.tolist() == [480, 640]


def test_a_long_clip_keeps_its_middle_and_a_short_one_stands_in_front_of_silence():
    np.testing.assert_array_equal(fit(np.arange(9.0), 3), [3, 4, 5])
    np.testing.assert_array_equal(fit(np.arange(1.0, 3.0), 4), [1, 2, 0, 0])


# --- Files ------------------------------------------------------------------------------------


def test_a_wav_file_is_read_sample_by_sample(tmp_path):
    samples = tone(440, 0.1)
    path = write_wav(tmp_path / "a.wav", samples)
    np.testing.assert_allclose(decode(path), samples, atol=2 / 32768)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_another_rate_is_resampled(tmp_path, rate):
    found = decode(write_wav(tmp_path / "a.wav", tone(1000, 0.5, rate), rate))
    assert len(found) == pytest.approx(8000, abs=40)
    assert abs(strongest(found) - band_of(1000)) <= 1
    assert np.abs(found[2000:6000]).max() == pytest.approx(0.5, abs=0.02)


def test_stereo_is_averaged(tmp_path):
    left, right = tone(1000, 0.2), 0.5 * tone(1000, 0.2)
    found = decode(write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1)))
    np.testing.assert_allclose(found, (left + right) / 2, atol=2 / 32768)
    opposite = decode(write_wav(tmp_path / "b.wav", np.stack([left, -left], axis=1)))
    assert np.abs(opposite).max() < 1e-3


def test_the_track_of_an_mp4_is_found_beside_its_pictures(tmp_path):
    write_clip(tmp_path / "a.mp4", FACE, tone(1000, 0.8))
    found = decode(tmp_path / "a.mp4")
    assert len(found) == pytest.approx(12800, abs=2048)
    assert abs(strongest(found) - band_of(1000)) <= 1


def encoded(path, codec, kind, samples) -> bytes:
    """A file of one track, as FFmpeg writes it."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format=kind, layout="mono")
        frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return path.read_bytes()


def bad_files(folder) -> dict:
    """Name -> (a file that cannot be used, what is said of it)."""
    good = write_wav(folder / "good.wav", tone(440, 2.0)).read_bytes()
    write_clip(folder / "mute.mp4", FACE)
    write_clip(folder / "whole.mp4", FACE, tone(440, 0.8))
    noise = np.random.default_rng(0).normal(0, 0.1, 48000).clip(-1, 1)
    flac = encoded(folder / "whole.flac", "flac", "s16", (noise * 32767).astype(np.int16))
    mp3 = encoded(folder / "whole.mp3", "mp3", "fltp", noise.astype(np.float32))
    content = {
        "empty.wav": (b"", "not a readable sound file"),
        "text.wav": (b"no sound at all", "not a readable sound file"),
        "header.wav": (good[:44], "cut off at 44 of 64044 bytes"),
        "silent.wav": (b"RIFF" + (36).to_bytes(4, "little") + good[8:40] + bytes(4), "is empty"),
        "cut.wav": (good[: len(good) // 2], "cut off at 32022 of 64044 bytes"),
        "cut.flac": (flac[: len(flac) // 2], "not a readable sound file"),
        "cut.mp3": (mp3[: len(mp3) // 2], r"cut off at 1\.\d+ of 3\.\d+ s"),
        "cut.mp4": ((folder / "whole.mp4").read_bytes()[:900], "not a readable sound file"),
        "mute.mp4": ((folder / "mute.mp4").read_bytes(), "no sound track"),
        "blip.wav": (write_wav(folder / "x.wav", tone(440, 0.02)).read_bytes(), "0.020 s of sound"),
        "page.png": (None, "no sound track"),
    }
    for name, (data, _) in content.items():
        if data is not None:
            (folder / name).write_bytes(data)
    Image.fromarray(FACE).save(folder / "page.png")
    return {name: said for name, (_, said) in content.items()} | {"gone.wav": "no such file"}


def test_what_cannot_be_used_is_said_in_few_words(tmp_path):
    for name, said in bad_files(tmp_path).items():
        with pytest.raises(BadSound, match=said):
            decode(tmp_path / name)


def test_bad_files_are_skipped_each_with_a_sentence(tmp_path):
    bad = bad_files(tmp_path)
    paths = [tmp_path / "good.wav", *(tmp_path / name for name in bad)]
    origins = [f"x.csv line {i + 2}" for i in range(len(paths))]
    skips = SkipLog("x.csv", limit=1.0, total=len(paths))
    for _ in range(2):  # decoded, then from the cache
        skips.entries.clear()
        audio, usable = decode_all(paths, 1.0, tmp_path / "cache", skips, origins)
        assert usable.tolist() == [True] + [False] * len(bad)
        assert len(skips.entries) == len(bad)
        assert skips.entries[0].startswith(f"x.csv line 3: sound {tmp_path / 'empty.wav'}: not a")
    assert audio.shape == (len(paths), 98, 64)
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio[0], log_mel(fit(decode(paths[0]), 16000)))
    assert not audio[1:].any()


def test_a_bad_file_without_a_log_ends_the_run(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.wav: no such file, wanted a readable sound"):
        decode_all([tmp_path / "gone.wav"], 1.0, tmp_path / "cache")


def test_a_changed_file_and_another_length_are_decoded_anew(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(440, 0.5))
    first, _ = decode_all([path], 1.0, tmp_path / "cache")
    assert decode_all([path], 0.5, tmp_path / "cache")[0].shape == (1, 48, 64)
    write_wav(path, tone(3000, 0.5))
    second, _ = decode_all([path], 1.0, tmp_path / "cache")
    assert first[0, 20].argmax() != second[0, 20].argmax()


# --- Data sets --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory):
    return tiny.beside(tmp_path_factory.mktemp("sound"))


def data_of(bench, **changes):
    return bench.config(**bench.with_sound(**changes)).data


def test_a_manifest_names_sounds_in_a_column(bench):
    dataset = load_dataset(data_of(bench), seconds=0.5)
    assert dataset.inputs["audio"].shape == (72, 48, 64)
    assert dataset.raw["audio"][3] == bench.folder / "data" / "3.wav"
    labels = np.array(dataset.labels)
    heard = dataset.inputs["audio"].mean(axis=1).argmax(axis=1)
    assert heard[labels == 0].max() < heard[labels == 1].min()
    silent = load_dataset(data_of(bench))
    assert "audio" not in silent.inputs
    assert silent.fingerprint != dataset.fingerprint


def test_an_unusable_sound_takes_its_row_out_of_images_too(bench, tmp_path):
    from fusion_keras.data.images import ImageSpec

    table = data_of(bench).path
    with open(table, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    (bench.folder / "data" / "broken.wav").write_bytes(b"RIFF")
    lines[5]["audio"], lines[9]["audio"] = "broken.wav", "missing.wav"
    path = bench.folder / "data" / "bad.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    changes = {"data__path": path, "data__max_skipped": 0.05}
    dataset = load_dataset(data_of(bench, **changes), image_spec=ImageSpec(8), seconds=0.5)
    assert len(dataset) == 70 == len(dataset.inputs["audio"]) == len(dataset.inputs["image"])
    assert not {"r5", "r9"} & set(dataset.ids)
    whole = load_dataset(data_of(bench), image_spec=ImageSpec(8), seconds=0.5)
    kept = [whole.ids.index(name) for name in dataset.ids]
    np.testing.assert_array_equal(dataset.inputs["audio"], whole.inputs["audio"][kept])
    np.testing.assert_array_equal(dataset.inputs["image"], whole.inputs["image"][kept])
    said = " ".join(dataset.notes)
    assert "bad.csv line 11: no sound file 'missing.wav'" in said
    assert "broken.wav: not a readable sound file" in said
    with pytest.raises(UsageError, match="1 unusable of 72 rows"):
        load_dataset(data_of(bench, data__path=path), image_spec=ImageSpec(8), seconds=0.5)


@pytest.mark.parametrize(
    "changes", [{"data__manifest__audio_column": ""}, {"data__source": "demo"}]
)
def test_a_source_without_sound_is_a_sentence(bench, changes):
    with pytest.raises(UsageError, match="without sound, wanted sound for this variant"):
        load_dataset(data_of(bench, **changes), seconds=0.5)


def test_an_unknown_column_of_sounds_is_a_sentence(bench):
    with pytest.raises(UsageError, match="'music'"):
        load_dataset(data_of(bench, data__manifest__audio_column="music"), seconds=0.5)


def mosi(folder) -> dict:
    """Settings of clips whose sound is high where the sentence is not negative."""
    for digit, hertz in ((0, 500), (9, 3000)):
        write_wav(folder / "fsdd" / f"{digit}_someone_0.wav", tone(hertz, 0.6, 8000), 8000)
    Image.fromarray(FACE).save(folder / "face.png")
    rows = [(f"v{split}_{i}", split, i) for split in ("train", "valid", "test") for i in (0, 1)]
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "text", "image", "score"])
        writer.writerows([n, s, "a sentence", "face.png", 1.0 if i else -1.0] for n, s, i in rows)
    label = write_layout(folder / "manifest.csv", folder / "mosi", 2, folder / "fsdd")
    raw = {"data__mosi__raw_dir": folder / "mosi" / "Raw"}
    return {"data__source": "mosi", "data__path": label, "data__manifest__audio_column": "", **raw}


def test_the_clips_of_mosi_bring_their_own_sound(bench, tmp_path):
    settings = mosi(tmp_path)
    dataset = load_dataset(data_of(bench, **settings), seconds=0.5)
    assert dataset.ids[:2] == ["vtrain_0", "vtrain_1"]
    heard = dataset.inputs["audio"][:, 20].argmax(axis=1)
    assert [abs(h - band_of(3000 if label else 500)) <= 1 for h, label in zip(
        heard, dataset.labels, strict=True)] == [True] * 6  # fmt: skip
    (settings["data__mosi__raw_dir"] / "vtest" / "1.mp4").write_bytes(b"no clip")
    changed = data_of(bench, **settings, data__max_skipped=0.2)
    left = load_dataset(changed, seconds=0.5)
    assert left.ids == dataset.ids[:5]
    assert "label.csv line 7: sound" in " ".join(left.notes)


def test_ready_frames_have_no_sound(bench, tmp_path):
    settings = mosi(tmp_path) | {"data__mosi__raw_dir": "", "data__mosi__frames_dir": tmp_path}
    with pytest.raises(UsageError, match=r"'mosi' without sound.*data\.mosi\.raw_dir"):
        load_dataset(data_of(bench, **settings), seconds=0.5)
