"""The audio encoder: taps, sizes, initial weights, and how a preset becomes one."""

import keras
import numpy as np
import pytest

from fusion_keras.backbones.audio_cnn import AudioCnnBackbone
from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.presets import load_audio
from fusion_keras.errors import UsageError
from fusion_keras.fusion.describe import count_macs
from tests.support.pairs import called


@pytest.fixture(scope="module")
def backbone():
    return AudioCnnBackbone(frames=98)


def test_taps_halve_time_and_frequency_together(backbone):
    shapes = {depth: tuple(tap.shape[1:]) for depth, tap in backbone.taps.items()}
    assert shapes[0] == (49, 32, 8)
    assert shapes[2] == (25, 16, 16)
    assert shapes[4] == (13, 8, 16)
    assert shapes[8] == (4, 2, 80)
    assert list(shapes) == list(range(backbone.num_depths + 1))
    assert tuple(backbone.summary.shape[1:]) == (640,)


def test_four_seconds_have_the_golden_size():
    backbone = load_audio("audio_cnn", 4.0).backbone
    assert backbone.input.shape == (None, 398, 64)
    assert (backbone.count_params(), count_macs(backbone)) == (153616, 25802432)


def test_what_lies_behind_a_tap_is_cut(backbone):
    # The stem: 3 x 3 x 1 x 16, 3 x 3 x 16, 16 x 8, and four numbers of each BatchNorm's channels.
    assert cut(backbone, [0]).count_params() == 144 + 144 + 128 + 4 * (16 + 16 + 8)


def test_a_random_encoder_keeps_its_inputs_apart(backbone):
    rng = np.random.default_rng(0)
    sounds = rng.random((8, 98, 64), np.float32)
    model = keras.Model({"audio": backbone.input}, {"summary": backbone.summary})
    summary = called(model, {"audio": sounds}, training=True)["summary"]
    assert 0.1 < summary.std() < 10
    assert np.linalg.matrix_rank(summary - summary.mean(0), tol=1e-3) == 7


def test_a_saved_encoder_comes_back_for_clips_of_another_length(backbone, tmp_path):
    backbone.save_to_preset(tmp_path / "audio")
    preset = load_audio(str(tmp_path / "audio"), 0.5)
    assert (preset.seconds, preset.backbone.input.shape) == (0.5, (None, 48, 64))
    for ours, theirs in zip(preset.backbone.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("preset", "seconds", "said"),
    [
        ("tiny_bert", 1.0, "for the audio backbone, wanted a preset of that kind, e.g. audio_cnn"),
        ("wav2vec2", 1.0, "'wav2vec2', wanted one of"),
        ("audio_cnn", 0.01, "clips of 0.01 seconds, wanted 0.025 to 600"),
    ],
)
def test_another_preset_or_length_is_a_sentence(preset, seconds, said):
    with pytest.raises(UsageError, match=said):
        load_audio(preset, seconds)


def test_a_directory_of_hugging_face_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(UsageError, match=r"'wav2vec2' .*wanted one of whisper;"):
        load_audio(str(tmp_path), 1.0)
    with pytest.raises(UsageError, match="save_to_preset"):
        AudioCnnBackbone.from_preset(str(tmp_path))
