"""SigLIP's image tower (Zhai et al. 2023): a ViT without a class token, pooled by attention.

Its text tower is not there: it was trained without a mask, so that every token attends to the
padding, of which there is always so much that a text is 64 tokens long, and its pooled vector is of
the last of these, mostly a padded one. Taps whose padded places are left out, and artifacts of
shorter texts, would not be that model.
"""

import keras
from keras import layers, ops

from fusion_keras.backbones.clip import VisionTower
from fusion_keras.backbones.encoder import EncoderLayer, activation
from fusion_keras.errors import UsageError

# What `transformers` takes for the fields that a published config.json leaves out.
_DEFAULTS = {
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


@keras.saving.register_keras_serializable(package="fusion_keras")
class AttentionPooling(layers.Layer):
    """[B, T, D] -> [B, D]: a learned vector attends to all tokens, then a feed-forward part.

    heads, mlp_dim: of the attention, of the feed-forward part; hidden_act, layer_norm_eps: Hugging
    Face's.
    """

    dropout = 0  # of `EncoderLayer`, whose attention this is
    _attend = EncoderLayer._attend
    _scores = EncoderLayer._scores

    def __init__(self, heads: int, mlp_dim: int, hidden_act: str, layer_norm_eps: float, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.mlp_dim = heads, mlp_dim
        self.hidden_act, self.layer_norm_eps = hidden_act, layer_norm_eps

    def build(self, input_shape):
        """Adds the vector, [1, 1, D], and the layers."""
        width, dtype = input_shape[-1], self.dtype_policy
        self.probe = self.add_weight(
            shape=(1, 1, width), initializer=keras.initializers.RandomNormal(), name="probe"
        )
        self._self_attention_layer = layers.MultiHeadAttention(
            self.heads, width // self.heads, dtype=dtype, name="attention"
        )
        self._self_attention_layer.build((None, 1, width), input_shape, input_shape)
        self.norm = layers.LayerNormalization(
            epsilon=self.layer_norm_eps, dtype=dtype, name="layer_norm"
        )
        self.norm.build((None, width))
        self.wide = layers.Dense(
            self.mlp_dim, activation(self.hidden_act), dtype=dtype, name="wide"
        )
        self.wide.build((None, width))
        self.narrow = layers.Dense(width, dtype=dtype, name="narrow")
        self.narrow.build((None, self.mlp_dim))

    def call(self, tokens, training=None):
        """Returns [B, D]."""
        length, width = tokens.shape[1:]
        context = ops.reshape(tokens, (-1, width))  # [B * T, D]
        probe = ops.cast(self.probe[0], tokens.dtype)
        x = self._attend(probe, (1, 1), context, (-1, length), None, training)  # [B, D]
        return x + self.narrow(self.wide(self.norm(x)))

    def compute_output_shape(self, input_shape):
        """[B, D]."""
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        """Returns the arguments of the constructor."""
        own = ("heads", "mlp_dim", "hidden_act", "layer_norm_eps")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="fusion_keras")
class SiglipVisionBackbone(VisionTower):
    """SigLIP's image tower, and that of SigLIP 2 at a fixed size.

    A Hugging Face directory holds the tower alone, or all of SigLIP. The summary is
    `transformers`' pooler_output, the attention-pooling head's vector.
    """

    model_type = "siglip_vision_model"
    whole_type = "siglip"
    special_tokens = ()
    headed = True
    lacks_first = "SigLIP's image tower has no class token"
    defaults = _DEFAULTS

    def __init__(self, image_shape=(224, 224, 3), num_heads=12, mlp_dim=3072, **kwargs):
        """Builds the graph; arguments are those of `ViTBackbone`, activation and epsilon SigLIP's.

        Raises:
            UsageError: as `ViTBackbone`.
        """
        kwargs = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, **kwargs}
        self._head = (num_heads, mlp_dim, kwargs["hidden_act"], kwargs["layer_norm_eps"])
        super().__init__(image_shape, num_heads=num_heads, mlp_dim=mlp_dim, **kwargs)

    def _summarised(self, norm, layer, before, x):
        return AttentionPooling(*self._head, dtype=norm.dtype_policy, name="head")(x)

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """As `VisionTower.arguments_of`.

        Raises:
            UsageError: a tower without its head, which has no summary.
        """
        if not cls._tower(config).get("vision_use_head", True):
            raise UsageError(
                "got vision_use_head=false in a SigLIP config.json, wanted the tower with its "
                "attention-pooling head; name a published checkpoint."
            )
        return super().arguments_of(config)
