"""DINOv2 (Oquab et al. 2023): a ViT whose encoder layers scale what they add (LayerScale)."""

import keras
from keras import ops

from fusion_keras.backbones.encoder import EncoderLayer
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.errors import UsageError

# The published checkpoints learned at 518 px; the published preprocessing gives 224.
_IMAGE_SIZE = 224


@keras.saving.register_keras_serializable(package="fusion_keras")
class ScaledEncoderLayer(EncoderLayer):
    """An encoder layer with LayerScale (Touvron et al. 2021, CaiT, section 2).

    What attention and feed-forward part give is multiplied by a learned vector [D] each before it
    is added.
    """

    def build(self, inputs_shape):
        """Adds the two vectors, which start at 1."""
        super().build(inputs_shape)
        shape = (inputs_shape[-1],)
        self.attention_scale = self.add_weight(
            shape=shape, initializer="ones", name="attention_scale"
        )
        self.feedforward_scale = self.add_weight(
            shape=shape, initializer="ones", name="feedforward_scale"
        )

    def _attend(self, *args, **more):
        x = super()._attend(*args, **more)
        return x * ops.cast(self.attention_scale, x.dtype)

    def _feed_forward(self, x):
        x = super()._feed_forward(x)
        return x * ops.cast(self.feedforward_scale, x.dtype)


@keras.saving.register_keras_serializable(package="fusion_keras")
class Dinov2Backbone(ViTBackbone):
    """DINOv2 without registers.

    As ViTBackbone but for LayerScale; the summary, the final LayerNorm's class token, is
    `transformers`' pooler_output. Of a Hugging Face directory the image size is 224 unless another
    is asked for: `transformers` interpolates the positions to whatever image it is given.
    """

    hub_class = None
    model_type = "dinov2"
    layer_class = ScaledEncoderLayer
    hf_layers = (
        "encoder.layer",
        (
            *(f"attention.attention.{x}" for x in ("query", "key", "value")),
            *("attention.output.dense", "norm1", "mlp.fc1", "mlp.fc2", "norm2"),
            *("layer_scale1", "layer_scale2"),
        ),
    )

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """The constructor's arguments for a Hugging Face config.json.

        Raises:
            UsageError: a feed-forward part of another kind, which the giant model has.
        """
        if config.get("use_swiglu_ffn", False):
            raise UsageError(
                "got use_swiglu_ffn in a DINOv2 config.json, wanted the feed-forward part of the "
                "small, base and large models; name one of these."
            )
        width = config.get("hidden_size", 768)
        defaults = {"layer_norm_eps": 1e-6, "patch_size": 14}
        mlp = {"intermediate_size": int(width * config.get("mlp_ratio", 4))}
        return super().arguments_of({**defaults, **config, **mlp})

    @classmethod
    def image_shape_of(cls, config: dict) -> tuple[int, int, int]:
        """(height, width, channels) of a config.json, Hugging Face's or of `save_to_preset`."""
        if "config" in config or "image_shape" in config:
            return super().image_shape_of(config)
        return _IMAGE_SIZE, _IMAGE_SIZE, config.get("num_channels", 3)
