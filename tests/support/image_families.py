"""The families of image backbones: transformers' classes and ours, what is built of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    ConvNextV2Model,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    DeiTModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2Model,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    EfficientNetModel,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2Model,
    ResNetConfig,
    ResNetForImageClassification,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from fusion_keras.backbones.clip import CLIPVisionBackbone
from fusion_keras.backbones.convnext import ConvNextBackbone, ConvNextV2Backbone
from fusion_keras.backbones.deit import DeiTBackbone
from fusion_keras.backbones.dinov2 import Dinov2Backbone
from fusion_keras.backbones.efficientnet import EfficientNetBackbone
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.resnet import ResNetBackbone
from fusion_keras.backbones.siglip import SiglipVisionBackbone
from fusion_keras.backbones.vit import ViTBackbone
from tests.support.hf_encoders import randomise, randomise_convolutions
from tests.support.timm_families import TIMM_FAMILIES


def _tokens(model, x, **options):
    """Hidden states and the final LayerNorm's class token of a ViT of any kind."""
    output = model(x, output_hidden_states=True, **options)
    return [*output.hidden_states, output.last_hidden_state[:, 0]]


def _pooled(model, x):
    """Hidden states and the published pooled vector of a tower, projected in the whole of CLIP."""
    tower = getattr(model, "vision_model", model)
    output = tower(x, output_hidden_states=True, interpolate_pos_encoding=True)
    pooled = output.pooler_output
    projection = getattr(model, "visual_projection", None)
    return [*output.hidden_states, pooled if projection is None else projection(pooled)]


def _clip(config):
    """All of CLIP, with a tiny text tower."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 99}
    text |= {"num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return CLIPModel(CLIPConfig(vision_config=config.to_dict(), text_config=text))


def _siglip(config):
    """All of SigLIP, with a tiny text tower."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 99}
    text |= {"num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return SiglipModel(SiglipConfig(vision_config=config.to_dict(), text_config=text))


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


def _convnext(model, x):
    blocks = [layer for stage in model.encoder.stages for layer in stage.layers]
    return _blocks(model, x, blocks, model.embeddings)


def _efficientnet(model, x):
    return _blocks(model, x, model.encoder.blocks, model.embeddings)


def _mobilenet(model, x):
    return _blocks(model, x, model.layer, model.conv_stem)


@dataclass(frozen=True)
class Family:
    """One architecture of transformers and ours.

    Attributes:
        ours, model, config: the classes.
        headed: transformers' model that holds it, whose file has the backbone under a prefix.
        tiny: fields of a config.json that builds in no time.
        unusual: changes of them, each with the image size that it is tried at.
        taps: (module, pixels [B, 3, H, W]) -> every tap, then the published pooled vector.
        randomise: draws every weight.
        depths, width: what is known of it before it is loaded.
        slow: numbers of the unusual configurations, from 1, that take long.
    """

    ours: type
    model: type
    config: type
    headed: Callable
    tiny: dict
    unusual: tuple
    taps: Callable
    randomise: Callable = randomise
    depths: int = 2
    width: int = 0
    slow: tuple = ()

    @functools.cached_property
    def name(self):
        return self.ours.model_type

    def build(self, fields, headed):
        kind = self.headed if headed else self.model
        return self.randomise(kind(self.config(**fields)))

    def save(self, model, path):
        model.save_pretrained(path)

    def inner(self, model):
        return model if hasattr(model, "vision_model") else model.base_model


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
_CONVNEXT = {
    "num_stages": 3,
    "hidden_sizes": [8, 16, 24],
    "depths": [1, 2, 1],
    "image_size": 32,
}
_TWO_STAGES = {"num_stages": 2, "hidden_sizes": [8, 8], "depths": [2, 1]}
EFFICIENTNET = {
    "width_coefficient": 0.25,
    "depth_coefficient": 1.0,
    "hidden_dim": 320,
    "image_size": 32,
    "kernel_sizes": [3, 5, 3],
    "in_channels": [32, 16, 24],
    "out_channels": [16, 24, 40],
    "strides": [1, 2, 2],
    "num_block_repeats": [1, 2, 1],
    "expand_ratios": [1, 6, 4],
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
        CLIPVisionBackbone,
        CLIPVisionModel,
        CLIPVisionConfig,
        _clip,
        _VIT,
        (
            (_DEEPER, 32),
            ({"hidden_act": "gelu", "layer_norm_eps": 0.1}, 32),
            ({"patch_size": 4, "image_size": 16}, 24),
        ),
        _pooled,
        width=32,
    ),
    Family(
        SiglipVisionBackbone,
        SiglipVisionModel,
        SiglipVisionConfig,
        _siglip,
        _VIT,
        (
            (_DEEPER, 32),
            ({"hidden_act": "relu", "layer_norm_eps": 0.1, "num_attention_heads": 2}, 32),
            ({"patch_size": 4, "image_size": 16}, 24),
        ),
        _pooled,
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
        EfficientNetBackbone,
        EfficientNetModel,
        EfficientNetConfig,
        EfficientNetForImageClassification,
        EFFICIENTNET,
        (
            ({"depth_coefficient": 1.5, "num_block_repeats": [1, 2, 1], "hidden_act": "relu"}, 32),
            ({"width_coefficient": 0.9, "hidden_dim": 1152, "batch_norm_eps": 0.1}, 48),
            # Odd sizes, padded evenly in the first strided block.
            ({"depthwise_padding": [1], "squeeze_expansion_ratio": 0.5, "depth_divisor": 4}, 45),
        ),
        _efficientnet,
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
    Family(
        ConvNextBackbone,
        ConvNextModel,
        ConvNextConfig,
        ConvNextForImageClassification,
        _CONVNEXT,
        (
            # No layer scale; a stage that does not widen.
            ({"layer_scale_init_value": 0.0, **_TWO_STAGES}, 32),
            ({"hidden_act": "relu", "layer_norm_eps": 0.1, "drop_path_rate": 0.2}, 48),
            # Odd sizes, whose last rows no patch reaches.
            ({"patch_size": 3, "depths": [1, 1, 3], "hidden_act": "gelu_new"}, 53),
        ),
        _convnext,
        depths=4,
    ),
    Family(
        ConvNextV2Backbone,
        ConvNextV2Model,
        ConvNextV2Config,
        ConvNextV2ForImageClassification,
        _CONVNEXT,
        (
            (_TWO_STAGES, 32),
            # Channels that ReLU leaves nothing of.
            ({"hidden_act": "relu", "layer_norm_eps": 0.1, "drop_path_rate": 0.2}, 32),
            ({"patch_size": 3, "depths": [1, 1, 3], "hidden_act": "silu"}, 53),
        ),
        _convnext,
        depths=4,
    ),
    *TIMM_FAMILIES,
]
