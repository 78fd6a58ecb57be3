"""CLIP's image tower (Radford et al. 2021, section 2.4): a ViT with one LayerNorm more."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import keras
from keras import layers

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.errors import UsageError

# What `transformers` takes for the fields that a published config.json leaves out.
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


class VisionTower(ViTBackbone):
    """The image tower of a model of images and texts, whose config.json may be of both.

    Class attributes:
        defaults: what `transformers` takes for the fields that a published config.json leaves out.
    """

    hub_class = None
    hf_prefix = "vision_model"
    defaults: Mapping[str, object] = MappingProxyType({})

    def hf_tensors(self) -> dict:
        """Hugging Face's name of each tensor -> our weight."""
        return backbone_weights.tower(self)

    @classmethod
    def _tower(cls, config: dict) -> dict:
        """The tower's own fields, of whichever kind of config."""
        if "model_type" not in config:
            return config
        return {**cls.defaults, **config.get("vision_config", config)}

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """The constructor's arguments for a Hugging Face config.json.

        Raises:
            UsageError: attention_dropout, which here would be of other parts too.
        """
        tower = cls._tower(config)
        if tower.get("attention_dropout"):
            raise UsageError(
                f"got attention_dropout {tower['attention_dropout']} in a config.json of "
                f"{cls.model_type}, wanted 0, as published; set it to 0 there."
            )
        return {**super().arguments_of(tower), "image_shape": cls.image_shape_of(config)}

    @classmethod
    def count_depths(cls, config: dict) -> int:
        """As `FromPreset.count_depths`."""
        return super().count_depths(cls._tower(config))

    @classmethod
    def width_of(cls, config: dict) -> int:
        """As `FromPreset.width_of`."""
        return super().width_of(cls._tower(config))

    @classmethod
    def image_shape_of(cls, config: dict) -> tuple[int, int, int]:
        """As `FromPreset.image_shape_of`."""
        return super().image_shape_of(cls._tower(config))


@keras.saving.register_keras_serializable(package="fusion_keras")
class CLIPVisionBackbone(VisionTower):
    """As ViTBackbone, with a LayerNorm before the encoder and no bias of the patches.

    Tap 0 is behind that LayerNorm. A Hugging Face directory holds the tower alone, or all of CLIP,
    whose text tower is left. The summary is the post-LayerNorm's class token: `transformers`'
    pooler_output; where the directory has CLIP's projection (`visual_projection`) it is behind
    that, image_embeds, as `CLIPTextBackbone`'s is.
    """

    model_type = "clip_vision_model"
    whole_type = "clip"
    defaults = _DEFAULTS
    patch_bias = False
    pre_norm = True

    def __init__(self, *args, projection_dim=None, **kwargs):
        """Builds the graph.

        Args:
            *args, **kwargs: as `ViTBackbone`.
            projection_dim: width of CLIP's projection; None: there is none.
        """
        self.projection_dim = projection_dim
        self.headed = projection_dim is not None
        super().__init__(*args, **kwargs)

    def _summarised(self, norm, layer, before, x):
        x = super()._summarised(norm, layer, before, x)
        if self.projection_dim is None:
            return x
        return layers.Dense(
            self.projection_dim, use_bias=False, dtype=norm.dtype_policy, name="visual_projection"
        )(x)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "projection_dim": self.projection_dim}

    @classmethod
    def from_hf(cls, directory, image_shape=None, **kwargs) -> "CLIPVisionBackbone":
        """As `ViTBackbone.from_hf`; the tensors say whether there is a projection."""
        read_config(Path(directory), cls.model_types())
        shape = Weights(Path(directory), cls.hf_prefix).shape("visual_projection.weight")
        kwargs = {"projection_dim": shape and shape[0], **kwargs}
        return super().from_hf(directory, image_shape, **kwargs)
