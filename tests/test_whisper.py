"""Whisper's encoder: transformers' outputs at every tap, its front end, and the way to a device."""

import json

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from bench.edge.artifact import read
from bench.edge.predictor import Predictor
from export import doctor
from fusion_keras import api
from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.families import AUDIO
from fusion_keras.backbones.named import ARCHITECTURES, WEIGHTS
from fusion_keras.backbones.presets import find_audio, load_audio
from fusion_keras.backbones.whisper import WhisperBackbone
from fusion_keras.config import get_config
from fusion_keras.data import log_mel, whisper_mel
from fusion_keras.errors import UsageError
from fusion_keras.fusion.describe import count_macs
from fusion_keras.fusion.variants import make_spec
from fusion_keras.studies.robustness import cells
from fusion_keras.studies.robustness.load import load
from tests.support.hf_encoders import TOLERANCE, all_taps, randomise, worst_difference
from tests.support.shared import slow_but
from tests.support.tiny import tone, write_wav

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = {
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "encoder_ffn_dim": 64,
    "max_source_positions": 25,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 60,
    "max_target_positions": 8,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1),
    "begin_suppress_tokens": None,
}
UNUSUAL = (
    {"encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 48},
    {"activation_function": "relu", "d_model": 24, "max_source_positions": 9},
    {"activation_function": "gelu_new", "scale_embedding": True, "encoder_attention_heads": 1},
)


def save(path, kind=WhisperModel, **fields):
    """A directory with a tiny checkpoint; returns transformers' model of it."""
    model = randomise(kind(WhisperConfig(**{**TINY, **fields})))
    model.save_pretrained(path)
    return model


def sounds(frames, rows=3):
    """What the front end gives of noise, about, float32 [B, F, 80]."""
    return np.random.default_rng(0).uniform(0, 2.5, (rows, frames, 80)).astype(np.float32)


def their_taps(encoder, values):
    """What enters the first layer of transformers' encoder, what each gives, the final mean."""
    found = []

    def keep(_module, given, given_back):
        found.extend([given[0], given_back] if not found else [given_back])

    hooks = [layer.register_forward_hook(keep) for layer in encoder.layers]
    with torch.no_grad():
        published = torch.tensor(values + whisper_mel.SILENCE).transpose(1, 2)
        found.append(encoder(published).last_hidden_state.mean(1))
    for hook in hooks:
        hook.remove()
    return [x.numpy() for x in found]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    return folder, save(folder)


@pytest.fixture(scope="module")
def backbone(saved):
    return WhisperBackbone.from_hf(saved[0])


# --- Against transformers -----------------------------------------------------------------------


def test_every_tap_is_transformers(backbone, saved):
    ours, theirs = all_taps(backbone, sounds(50)), their_taps(saved[1].encoder, sounds(50))
    assert len(ours) == 2 + 2
    assert worst_difference(ours, theirs) <= TOLERANCE
    assert backbone.count_params() == sum(x.numel() for x in saved[1].encoder.parameters())


@pytest.mark.parametrize("number", range(3))
def test_the_config_decides(number, tmp_path):
    model = save(tmp_path, **UNUSUAL[number])
    backbone = WhisperBackbone.from_preset(str(tmp_path))
    values = sounds(2 * model.config.max_source_positions)
    theirs = their_taps(model.encoder, values)
    assert worst_difference(all_taps(backbone, values), theirs) <= TOLERANCE


@pytest.mark.parametrize(
    "kind", slow_but([], [WhisperForConditionalGeneration, WhisperForAudioClassification])
)
def test_the_encoder_is_found_in_what_holds_it(kind, tmp_path):
    model = save(tmp_path, kind)
    encoder = model.encoder if kind is WhisperForAudioClassification else model.model.encoder
    ours = all_taps(load_audio(str(tmp_path), 0.5).backbone, sounds(50))
    assert worst_difference(ours, their_taps(encoder, sounds(50))) <= TOLERANCE


def test_a_short_clip_has_the_first_of_the_positions(saved):
    preset = load_audio(str(saved[0]), 0.2)
    assert preset.backbone.input.shape == (None, 20, 80)
    config = WhisperConfig(**{**TINY, "max_source_positions": 10})
    short, tensors = WhisperEncoder(config).eval(), saved[1].encoder.state_dict()
    tensors["embed_positions.weight"] = tensors["embed_positions.weight"][:10]
    short.load_state_dict(tensors)
    ours = all_taps(preset.backbone, sounds(20))
    assert worst_difference(ours, their_taps(short, sounds(20))) <= TOLERANCE


def test_random_positions_are_whispers_sinusoids():
    encoder = WhisperEncoder(WhisperConfig(**TINY))
    ours = WhisperBackbone(50, 1, 4, 32, 64).get_layer("embed_positions").positions
    np.testing.assert_allclose(ours, encoder.embed_positions.weight.detach(), atol=1e-5)


@pytest.mark.large
@pytest.mark.slow
@pytest.mark.parametrize("name", ["whisper_tiny", "whisper_base"])
def test_full_size(name, tmp_path):
    sizes = ARCHITECTURES[name][1]
    layers, heads, width = (sizes[n] for n in ("num_layers", "num_heads", "hidden_dim"))
    fields = {"d_model": width, "encoder_layers": layers, "encoder_attention_heads": heads}
    fields |= {"encoder_ffn_dim": 4 * width, "max_source_positions": 1500}
    model = save(tmp_path, **fields)
    values = sounds(3000, rows=2)
    ours = all_taps(load_audio(str(tmp_path), 30.0).backbone, values)
    worst = worst_difference(ours, their_taps(model.encoder, values))
    print(f"{name}, worst relative difference: {worst:.2e}")
    assert worst <= TOLERANCE


# --- Sizes and presets --------------------------------------------------------------------------

# Of the published encoders, with positions for 30 s; multiply-adds of 4 s.
PUBLISHED = {
    "whisper_tiny": (8_208_384, 1_663_795_200),
    "whisper_base": (20_590_592, 4_227_072_000),
}


@pytest.mark.parametrize("name", slow_but(["whisper_tiny"], PUBLISHED))
def test_published_architectures_have_the_published_size(name):
    backbone = load_audio(f"random:{name}", 4.0).backbone
    width, depth, positions = backbone.summary.shape[-1], backbone.num_depths, 200
    parameters, macs = PUBLISHED[name]
    assert backbone.count_params() == parameters - (1500 - positions) * width
    stem = 2 * positions * 3 * 80 * width + positions * 3 * width**2
    layer = 12 * positions * width**2 + 2 * positions**2 * width
    assert count_macs(backbone) == macs == stem + depth * layer


def test_every_whisper_of_a_name_has_an_architecture():
    named = {n for n in WEIGHTS if ARCHITECTURES.get(n, (None,))[0] in AUDIO}
    assert named == {n + more for n in PUBLISHED for more in ("", "_en")}


def test_what_a_config_says_is_what_is_built(backbone, saved, tmp_path):
    backbone.save_to_preset(tmp_path)
    for folder in (saved[0], tmp_path):
        source = find_audio(str(folder))
        assert source.cls is WhisperBackbone
        assert (source.facts.num_depths, source.facts.width) == (2, 32)
    assert WhisperBackbone.count_depths(ARCHITECTURES["whisper_base"][1]) == 6


def test_own_preset_gives_the_same_model_for_clips_no_longer_than_its_own(backbone, tmp_path):
    backbone.save_to_preset(tmp_path)
    again = load_audio(str(tmp_path), 0.5).backbone
    assert again.get_config() == {**backbone.get_config(), "name": again.name}
    assert worst_difference(all_taps(again, sounds(50)), all_taps(backbone, sounds(50))) == 0
    shorter = load_audio(str(tmp_path), 0.3).backbone
    assert shorter.taps[2].shape == (None, 15, 32)
    with pytest.raises(UsageError, match=r"clips of 0\.51 seconds for a Whisper .* for 0\.5"):
        load_audio(str(tmp_path), 0.51)


def test_what_lies_behind_the_deepest_tap_is_gone_and_the_rest_is_saved(backbone, tmp_path):
    model = cut(backbone, [0, 1], name="front")
    assert not {layer.name for layer in model.layers} & {"transformer_layer_1", "layer_norm"}
    model.save(tmp_path / "front.keras")
    again = keras.saving.load_model(tmp_path / "front.keras", safe_mode=True)
    for got, wanted in zip(again(sounds(50)), all_taps(backbone, sounds(50)), strict=False):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_the_first_position_is_not_taken_for_all():
    fusion = get_config().fusion
    fusion.modalities, fusion.pool = "text+audio", "cls"
    facts = {"text": find_audio("tiny_audio").facts, "audio": find_audio("tiny_whisper").facts}
    with pytest.raises(UsageError, match=r"of audio.*no class token.*fusion\.pool=mean"):
        make_spec("inter", fusion, facts)


# --- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_mel_bins": 128}, "got num_mel_bins 128 in .* wanted 80"),
        ({"attention_dropout": 0.1}, "got attention_dropout 0.1 .* wanted 0"),
        ({"encoder_layerdrop": 0.1}, "got encoder_layerdrop 0.1"),
        ({"activation_function": "mish"}, "hidden_act 'mish', wanted one of"),
        ({"encoder_layers": 3}, "no tensor 'encoder.layers.2"),
        ({"model_type": "wav2vec2"}, "'wav2vec2' .*audio backbone, wanted one of whisper"),
    ],
)
def test_another_encoder_is_refused_by_what_differs(fields, message, saved, tmp_path):
    config = json.loads((saved[0] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
    (tmp_path / "model.safetensors").symlink_to(saved[0] / "model.safetensors")
    with pytest.raises(UsageError, match=message):
        load_audio(str(tmp_path), 0.5)


def test_weights_that_are_pickled_or_missing_are_named(saved, tmp_path):
    (tmp_path / "config.json").symlink_to(saved[0] / "config.json")
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UsageError, match=r"only the pickled pytorch_model\.bin"):
        load_audio(str(tmp_path), 0.5)
    tensors = load_file(saved[0] / "model.safetensors")
    # Whether it comes with a decoder does not matter.
    kept = {name: x for name, x in tensors.items() if "decoder" not in name}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors")
    load_audio(str(tmp_path), 0.5)
    del kept["encoder.conv2.bias"]
    save_file(kept, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"no tensor 'encoder\.conv2\.bias'"):
        load_audio(str(tmp_path), 0.5)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.51, r"clips of 0\.51 seconds for a Whisper"),
        (30.02, "wanted 30 at most"),
        (0.01, "0.025"),
    ],
)
def test_clips_that_it_has_no_positions_for_are_refused(saved, seconds, said):
    with pytest.raises(UsageError, match=said):
        load_audio(str(saved[0]), seconds)


# --- The front end ------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [400, 16123, 64000])
def test_energies_are_those_of_transformers(samples):
    waveform = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    waveform[: samples // 3] *= 1e-4
    theirs = WhisperFeatureExtractor()(
        waveform, sampling_rate=16000, max_length=samples, return_tensors="np"
    )["input_features"][0].T
    ours = whisper_mel.log_mel(waveform)
    assert len(ours) == whisper_mel.count_frames(samples / 16000)
    np.testing.assert_allclose(ours + whisper_mel.SILENCE, theirs, atol=1e-5)


def test_silence_is_zero_in_every_front_end():
    for front_end in (log_mel.VGGISH, whisper_mel.WHISPER):
        made = front_end.described(0.5)
        silent = front_end.log_mel(np.zeros(8000, np.float32))
        assert silent.shape == (made["frames"], made["bands"])
        assert not silent.any()


# --- From training to a device ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    ["audio", *(pytest.param(v, marks=pytest.mark.large) for v in ("late", "inter", "early"))],
)
def test_a_variant_is_trained_exported_and_asked(tiny, entries, tmp_path, variant):
    bench = tiny.beside(tmp_path / "bench")
    changes = bench.with_sound(variant=variant, audio__preset="tiny_whisper")
    run, artifact = tmp_path / "run", tmp_path / "artifact"
    done = entries.run("fusion_keras.train", *bench.flags(run=run, **changes))
    assert done.returncode == 0, done.stderr
    flags = (str(run), f"--out={artifact}", "--precisions=fp16,int8,int8_static")
    done = entries.run("export", *flags)
    assert done.returncode == 0, done.stderr
    meta = read(artifact)
    rungs = ["keras", "saved_model", "fp32", "fp16", "int8", "int8_static"]
    assert [rung["name"] for rung in meta["ladder"]] == rungs
    assert all(rung["holds"] for rung in meta["ladder"])
    assert meta["inputs"]["audio"]["method"] == "whisper"
    for model in meta["models"].values():
        assert doctor.examine(doctor.load(artifact / model["file"])) == []
    asked = {"audio": write_wav(tmp_path / "a.wav", tone(440, 0.4))}
    if variant != "audio":
        asked |= {"text": "a good day", "image": bench.folder / "data" / "1.png"}
    for precision in ("fp32", "int8"):
        assert Predictor(artifact, precision).predict(**asked).label in ("negative", "positive")
    # The run's own front end hears what the device's does.
    (ours,) = api.Run.load(run).predict([asked])
    theirs = Predictor(artifact, "fp32").predict(**asked).probabilities
    assert ours.probabilities == pytest.approx(theirs, abs=1e-4)
    (contender,) = load([run], [], [], "test")
    rows = contender.rows
    again = np.stack([rows.log_mel(waveform) for waveform in rows.waveforms()])
    np.testing.assert_array_equal(again, rows.inputs["audio"])
    noisy = cells.damaged(rows, "audio_noise", 1.0, seed=0, repeat=0)["audio"]
    assert noisy.mean() > again.mean() + 0.1
