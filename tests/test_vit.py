"""ViT gives transformers' outputs on the same weights, at every tap and image size."""

import json

import keras
import keras_hub
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.vit import ViTBackbone, interpolate_positions
from fusion_keras.errors import UsageError
from tests.support.hf_encoders import TOLERANCE, all_taps, randomise, worst_difference

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}


def _images(height=32, width=32, rows=2):
    return np.random.default_rng(0).uniform(-1, 1, (rows, height, width, 3)).astype(np.float32)


def _reference_taps(model, images, **options):
    """Every hidden state and the published summary: the final LayerNorm's class token."""
    with torch.no_grad():
        output = model(
            torch.from_numpy(images.transpose(0, 3, 1, 2).copy()),
            output_hidden_states=True,
            **options,
        )
    return [*(x.numpy() for x in output.hidden_states), output.last_hidden_state[:, 0].numpy()]


def _saved(path, kind=ViTModel, **fields):
    model = randomise(kind(ViTConfig(**{**TINY, **fields})))
    model.save_pretrained(path)
    return model


@pytest.fixture
def tiny(tmp_path):
    """A tiny checkpoint directory and the model it was saved from."""
    return tmp_path / "tiny", _saved(tmp_path / "tiny")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"layer_norm_eps": 0.1},
        {"qkv_bias": False},
    ],
    ids=str,
)
def test_every_tap_equals_transformers_under_the_same_config(tmp_path, fields):
    model = _saved(tmp_path, **fields)
    ours = all_taps(ViTBackbone.from_preset(str(tmp_path)), _images())
    assert len(ours) == 3 + 2
    assert worst_difference(ours, _reference_taps(model, _images())) <= TOLERANCE


def test_each_config_field_changes_the_outputs(tiny):
    wanted = all_taps(ViTBackbone.from_hf(tiny[0]), _images())
    for change in ({"hidden_act": "gelu_new"}, {"layer_norm_eps": 0.1}):
        got = all_taps(ViTBackbone.from_hf(tiny[0], **change), _images())
        assert worst_difference(got, wanted) > TOLERANCE, change


def test_weights_under_a_task_models_prefix_are_found(tmp_path):
    model = _saved(tmp_path, kind=ViTForImageClassification)
    ours = all_taps(ViTBackbone.from_hf(tmp_path), _images())
    assert worst_difference(ours, _reference_taps(model.vit, _images())) <= TOLERANCE


@pytest.mark.parametrize(("height", "width"), [(48, 48), (24, 56), (16, 16)])
def test_another_image_size_interpolates_positions_as_transformers_does(tiny, height, width):
    directory, model = tiny
    backbone = ViTBackbone.from_preset(str(directory), image_shape=(height, width, 3))
    images = _images(height, width)
    wanted = _reference_taps(model, images, interpolate_pos_encoding=True)
    assert worst_difference(all_taps(backbone, images), wanted) <= TOLERANCE


def test_bicubic_weights_reproduce_what_is_constant():
    table = np.ones((1 + 3 * 5, 2), np.float32)
    np.testing.assert_allclose(interpolate_positions(table, (3, 5), (7, 4)), 1.0, atol=1e-6)


@pytest.mark.slow
def test_full_size_vit_base(tmp_path):
    model = _saved(tmp_path, **ViTConfig().to_dict())
    images = _images(224, 224)
    ours = all_taps(ViTBackbone.from_hf(tmp_path), images)
    worst = worst_difference(ours, _reference_taps(model, images))
    print(f"vit-base-patch16-224, worst relative difference of 14 taps: {worst:.2e}")
    assert worst <= TOLERANCE


def test_an_image_that_patches_do_not_cover_is_refused(tiny):
    with pytest.raises(UsageError, match=r"30 x 32 image.*multiples of 8"):
        ViTBackbone.from_hf(tiny[0], image_shape=(30, 32, 3))


def test_own_preset_directory_gives_the_same_model(tiny, tmp_path):
    backbone = ViTBackbone.from_hf(tiny[0], layer_norm_eps=1e-3, hidden_act="relu")
    backbone.save_to_preset(tmp_path / "own")
    wanted = all_taps(backbone, _images())
    for again in (
        ViTBackbone.from_preset(str(tmp_path / "own")),
        keras_hub.models.Backbone.from_preset(str(tmp_path / "own")),
    ):
        assert worst_difference(all_taps(again, _images()), wanted) == 0
    larger = ViTBackbone.from_preset(str(tmp_path / "own"), image_shape=(48, 48, 3))
    assert larger.taps[3].shape == (None, 1 + 36, 32)


def test_keras_hub_preset_directory_gives_the_same_model(tmp_path):
    hub = keras_hub.models.ViTBackbone((32, 32, 3), 8, 2, 4, 32, 64, layer_norm_epsilon=1e-3)
    rng = np.random.default_rng(0)
    hub.set_weights([w + 0.3 * rng.normal(size=w.shape) for w in hub.get_weights()])
    hub.save_to_preset(tmp_path)
    backbone = ViTBackbone.from_preset(str(tmp_path))
    wanted = hub(_images(), training=False)
    np.testing.assert_allclose(backbone(_images(), training=False), wanted, atol=1e-5)


def test_keras_hub_vit_without_patch_bias_is_refused():
    hub = keras_hub.models.ViTBackbone((16, 16, 3), 8, 1, 2, 8, 16, use_patch_bias=False)
    with pytest.raises(UsageError, match="biases"):
        ViTBackbone.from_hub(hub)


def test_cut_model_survives_saving_in_safe_mode(tiny, tmp_path):
    model = cut(ViTBackbone.from_hf(tiny[0]), [0, 2, "last"], name="front")
    model.save(tmp_path / "front.keras")
    again = keras.saving.load_model(tmp_path / "front.keras", safe_mode=True)
    for got, wanted in zip(again(_images()), model(_images()), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_cut_holds_only_what_its_depths_need(tiny):
    names = {layer.name for layer in cut(ViTBackbone.from_hf(tiny[0]), [1]).layers}
    assert "transformer_layer_0" in names
    assert not names & {"transformer_layer_1", "layer_norm"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "deit"}, "'deit'.*wanted 'vit'"),
        ({"hidden_act": "sigmoid"}, "'sigmoid'.*wanted one of gelu"),
        ({"patch_size": [8, 4]}, "one square edge"),
        ({"image_size": 64}, r"shape \[1, 17, 32\].*wanted \[1, 65, 32\]"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(tiny, change, message):
    path = tiny[0] / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError, match=message):
        ViTBackbone.from_preset(str(tiny[0]))


def test_a_missing_tensor_is_named(tiny):
    path = tiny[0] / "model.safetensors"
    tensors = load_file(path)
    del tensors["layernorm.bias"]
    save_file(tensors, path)
    with pytest.raises(UsageError, match=r"'layernorm.bias' in .*model\.safetensors"):
        ViTBackbone.from_preset(str(tiny[0]))
