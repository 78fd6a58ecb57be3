"""Directories as timm writes them, of the PyTorch reference's networks, which bear timm's names."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import nn

from fusion_keras.backbones.efficientnet_lite import EfficientNetLiteBackbone
from fusion_keras.backbones.mobilenet_v3 import MobileNetV3Backbone
from fusion_keras.reference.efficientnet_lite import EfficientNetLite
from fusion_keras.reference.mobilenet_v3 import MobileNetV3
from tests.support.hf_encoders import randomise_settled

# pretrained_cfg of timm's published weights, as far as it is read.
IMAGENET = {
    "tag": "lamb_in1k",
    "custom_load": False,
    "input_size": [3, 224, 224],
    "fixed_input_size": False,
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "num_classes": 1000,
    "first_conv": "conv_stem",
    "classifier": "classifier",
}
_CLASSES = 3


@dataclass(frozen=True)
class TimmFamily:
    """As `image_families.Family`; fields are those of config.json.

    Attributes:
        network: of timm's names; its arguments are, but for image_shape, those of `ours`.
        slow: numbers of the unusual configurations, from 1, that are deep.
    """

    ours: type
    network: Callable[..., nn.Module]
    tiny: dict
    unusual: tuple
    depths: int
    width: int = 0
    slow: tuple = ()

    @property
    def name(self) -> str:
        """That of the first architecture."""
        return next(iter(self.ours.architectures))

    def build(self, fields: dict, headed: bool) -> nn.Module:
        """The network of an architecture and what model_args change of it, its weights random."""
        arguments = {"tf_padding": False, "batch_norm_eps": 1e-5}
        arguments |= self.ours.architectures[fields["architecture"]]
        changes = fields.get("model_args", {})
        if "pad_type" in changes:
            arguments["tf_padding"] = changes["pad_type"] == "same"
        arguments["batch_norm_eps"] = changes.get("bn_eps", arguments["batch_norm_eps"])
        made = randomise_settled(self.network(**arguments))
        made.fields, made.headed = fields, headed
        return made

    def save(self, model: nn.Module, path) -> None:
        """As timm's `save_for_hf`; a headed one as `transformers` saves its wrapper for timm."""
        path.mkdir(exist_ok=True, parents=True)
        tensors = dict(model.state_dict())
        size = model(torch.zeros(1, 3, 32, 32))["last"].shape[1]
        tensors |= {"classifier.weight": torch.zeros(_CLASSES, size)}
        tensors |= {"classifier.bias": torch.zeros(_CLASSES)}
        config = {"num_classes": _CLASSES, "pretrained_cfg": IMAGENET, **model.fields}
        if model.headed:
            tensors = {f"timm_model.{name}": x for name, x in tensors.items()}
            config["model_type"] = "timm_wrapper"
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps(config))

    def inner(self, model: nn.Module) -> nn.Module:
        """Itself: a head adds nothing to what is tapped."""
        return model

    def taps(self, model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        """Every tap, channels last, then the pooled vector."""
        found = model(x).values()
        return [y.permute(0, 2, 3, 1) if y.ndim == 4 else y for y in found]


TIMM_FAMILIES = [
    TimmFamily(
        MobileNetV3Backbone,
        MobileNetV3,
        {"architecture": "mobilenetv3_small_050"},
        (
            ({"architecture": "mobilenetv3_large_075", "model_args": {"bn_eps": 0.1}}, 64),
            # Odd sizes, of which strides meet the last column.
            ({"architecture": "tf_mobilenetv3_small_075"}, 45),
            ({"model_args": {"pad_type": "same", "bn_eps": 0.01}}, 37),
        ),
        depths=11,
        slow=(1, 3),
    ),
    TimmFamily(
        EfficientNetLiteBackbone,
        EfficientNetLite,
        {"architecture": "efficientnet_lite0"},
        (
            ({"model_args": {"pad_type": "same", "bn_eps": 0.1}}, 37),
            ({"architecture": "tf_efficientnet_lite0"}, 45),
            ({"architecture": "efficientnet_lite1"}, 64),
        ),
        depths=16,
        slow=(1, 3),
    ),
]


def family_of(architecture: str) -> TimmFamily:
    """The family of one of timm's architectures."""
    (family,) = (f for f in TIMM_FAMILIES if architecture in f.ours.architectures)
    return family
