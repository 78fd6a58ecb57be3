"""The contract of every family of image backbones: transformers' outputs at every tap, one way to
be named, loaded, saved, cut and prepared for.

ViT and MobileNetV2 have files of their own for what only they do.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2Model,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.deit import DeiTBackbone
from fusion_keras.backbones.dinov2 import Dinov2Backbone
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.presets import find_image, load_image
from fusion_keras.backbones.resnet import ResNetBackbone
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.data.images import ImageSpec
from fusion_keras.errors import UsageError
from tests.support.hf_encoders import (
    TOLERANCE,
    randomise,
    randomise_convolutions,
    worst_difference,
)
from tests.support.shared import slow_but

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


# --- The families -------------------------------------------------------------------------------


def _tokens(model, x, **options):
    """Hidden states and the final LayerNorm's class token of a ViT of any kind."""
    output = model(x, output_hidden_states=True, **options)
    return [*output.hidden_states, output.last_hidden_state[:, 0]]


def _blocks(model, x, blocks, stem):
    """What the stem and each block give, channels last, and the pooled output."""
    found = []
    for module in (stem, *blocks):
        module.register_forward_hook(lambda _m, _i, output: found.append(output.clone()))
    pooled = model(x).pooler_output
    return [*(y.permute(0, 2, 3, 1) for y in found), pooled.flatten(1)]


def _resnet(model, x):
    blocks = [layer for stage in model.encoder.stages for layer in stage.layers]
    return _blocks(model, x, blocks, model.embedder)


def _mobilenet(model, x):
    return _blocks(model, x, model.layer, model.conv_stem)


@dataclass(frozen=True)
class Family:
    """One architecture of transformers and ours.

    Attributes:
        ours, model, config: the classes.
        headed: transformers' classifier of it, whose file has the backbone under a prefix.
        tiny: fields of a config.json that builds in no time.
        unusual: changes of them, each with the image size that it is tried at.
        taps: (module, pixels [B, 3, H, W]) -> every tap, then the published pooled vector.
        randomise: draws every weight.
        free_size: whether the module takes an image of any size as it is.
    """

    ours: type
    model: type
    config: type
    headed: type
    tiny: dict
    unusual: tuple
    taps: Callable
    randomise: Callable = randomise
    free_size: bool = True
    depths: int = 2
    width: int = 0

    @functools.cached_property
    def name(self):
        return self.ours.model_type


_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
_VIT = {**_LAYERS, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
_DEEPER = {**_VIT, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
_interpolated = functools.partial(_tokens, interpolate_pos_encoding=True)
_RESNET = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24],
    "depths": [1, 2, 1],
    "layer_type": "basic",
}

FAMILIES = [
    Family(
        ViTBackbone,
        ViTModel,
        ViTConfig,
        ViTForImageClassification,
        _VIT,
        (
            (_DEEPER, 32),
            ({"hidden_act": "gelu_new", "layer_norm_eps": 0.1, "qkv_bias": False}, 32),
            ({"patch_size": 4, "image_size": 16}, 24),
        ),
        _interpolated,
        width=32,
    ),
    Family(
        DeiTBackbone,
        DeiTModel,
        DeiTConfig,
        DeiTForImageClassificationWithTeacher,
        _VIT,
        (
            (_DEEPER, 32),
            ({"hidden_act": "relu", "layer_norm_eps": 0.1, "qkv_bias": False}, 32),
            ({"patch_size": 4, "image_size": 16}, 24),
        ),
        _interpolated,
        width=32,
    ),
    Family(
        Dinov2Backbone,
        Dinov2Model,
        Dinov2Config,
        Dinov2ForImageClassification,
        {**_LAYERS, "mlp_ratio": 2, "image_size": 40, "patch_size": 8},
        (
            ({"num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 3}, 40),
            ({"hidden_act": "gelu_new", "layer_norm_eps": 0.1, "qkv_bias": False}, 32),
            ({"patch_size": 7, "image_size": 42, "layerscale_value": 0.1}, 28),
        ),
        _tokens,
        width=32,
    ),
    Family(
        ResNetBackbone,
        ResNetModel,
        ResNetConfig,
        ResNetForImageClassification,
        _RESNET,
        (
            ({"layer_type": "bottleneck", "hidden_sizes": [16, 16, 32], "depths": [2, 1, 1]}, 32),
            (
                {
                    "layer_type": "bottleneck",
                    "downsample_in_first_stage": True,
                    "downsample_in_bottleneck": True,
                    "hidden_act": "gelu",
                },
                32,
            ),
            # Odd sizes, of which strides meet the last column; a stage that does not widen.
            ({"hidden_sizes": [8, 8], "depths": [1, 3], "hidden_act": "silu"}, 45),
        ),
        _resnet,
        randomise_convolutions,
        depths=4,
    ),
    Family(
        MobileNetV2Backbone,
        MobileNetV2Model,
        MobileNetV2Config,
        MobileNetV2ForImageClassification,
        {"depth_multiplier": 0.1, "image_size": 32},
        (),  # tests/test_mobilenet_v2.py has them
        _mobilenet,
        randomise_convolutions,
        depths=16,
    ),
]
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def _saved(family, path, seed=0, headed=False, **fields):
    torch.manual_seed(seed)
    kind = family.headed if headed else family.model
    model = family.randomise(kind(family.config(**{**family.tiny, **fields})))
    model.save_pretrained(path)
    return model


def _images(size, rows=2):
    return np.random.default_rng(0).uniform(-1, 1, (rows, size, size, 3)).astype(np.float32)


def _ours(backbone, images):
    """Every tap and then the summary."""
    model = keras.Model(backbone.input, [*backbone.taps.values(), backbone.summary])
    # Compiled whole: op by op JAX would compile some hundred small programs.
    return [np.asarray(x) for x in jax.jit(functools.partial(model, training=False))(images)]


def _theirs(family, model, images):
    with torch.no_grad():
        found = family.taps(model, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return [x.numpy() for x in found]


# --- Outputs ------------------------------------------------------------------------------------

CASES = [
    pytest.param(family, fields, size, id=f"{family.name}-{number}")
    for family in FAMILIES
    for number, (fields, size) in enumerate([({}, 32), *family.unusual])
]


@pytest.mark.parametrize(("family", "fields", "size"), CASES)
def test_every_tap_and_the_summary_are_those_of_transformers(tmp_path, family, fields, size):
    model = _saved(family, tmp_path, **fields)
    backbone = family.ours.from_hf(tmp_path, image_shape=(size, size, 3))
    assert list(backbone.taps) == list(range(backbone.num_depths + 1))
    ours, theirs = _ours(backbone, _images(size)), _theirs(family, model, _images(size))
    assert worst_difference(ours, theirs) <= TOLERANCE


@each_family
def test_weights_under_a_classifiers_prefix_are_found(tmp_path, family):
    model = _saved(family, tmp_path, headed=True)
    backbone = family.ours.from_hf(tmp_path, image_shape=(32, 32, 3))
    inner = getattr(model, family.name)
    ours, theirs = _ours(backbone, _images(32)), _theirs(family, inner, _images(32))
    assert worst_difference(ours, theirs) <= TOLERANCE
