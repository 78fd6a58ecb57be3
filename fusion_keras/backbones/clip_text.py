"""CLIP's text tower (Radford et al. 2021, section 2.4): causal, and read where a text ends.

A token sees those before it alone, so that padding, which stands behind the text, is seen by none.
The summary is of the token that ends the text, the first of its kind.
"""

import keras
from keras import layers, ops

from fusion_keras.backbones.text_encoder import FIELDS, TextEncoder
from fusion_keras.errors import UsageError

# As `text_encoder.FIELDS`; without dropout, which the published models have not.
_FIELDS = {
    "vocab_size": ("vocabulary_size", 49408),
    "num_hidden_layers": FIELDS["num_hidden_layers"],
    "num_attention_heads": ("num_heads", 8),
    "hidden_size": ("hidden_dim", 512),
    "intermediate_size": ("intermediate_dim", 2048),
    "max_position_embeddings": ("max_sequence_length", 77),
    "hidden_act": ("hidden_act", "quick_gelu"),
    "layer_norm_eps": ("layer_norm_eps", 1e-5),
    "pad_token_id": ("pad_id", 1),
    "eos_token_id": ("end_id", 49407),
}
_register = keras.saving.register_keras_serializable(package="fusion_keras")


def _first(values, count):
    """The first `count` of a table, cut as `PositionEmbedding` does."""
    return ops.slice(ops.convert_to_tensor(values), (0,), (count,))


@_register
class CausalMask(layers.Layer):
    """Tokens [B, T] -> int32 [1, T, T]: a token (second axis) sees itself and those before it.

    longest: T at most.
    """

    def __init__(self, longest: int, **kwargs):
        super().__init__(**kwargs)
        self.longest = longest

    def call(self, token_ids):
        """Returns the mask."""
        places = _first(ops.arange(self.longest, dtype="float32"), ops.shape(token_ids)[1])
        return ops.cast(places[None, None, :] <= places[None, :, None], "int32")

    def compute_output_spec(self, token_ids):
        """The shape and dtype that `call` gives."""
        length = token_ids.shape[1]
        return keras.KerasTensor((1, length, length), "int32")

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "longest": self.longest}


@_register
class UpToEnd(layers.Layer):
    """Token ids [B, T] -> int32 [B, T], 1 up to the first token that ends the text.

    longest: T at most.
    end_id: of that token; 2 means whatever id is the highest of the row, as `transformers` reads
        it: configs of before its pull request 24773 say 2 and mean 49407, their last id.
    """

    def __init__(self, longest: int, end_id: int, **kwargs):
        super().__init__(**kwargs)
        self.longest, self.end_id = longest, end_id

    def call(self, token_ids):
        """Returns the mask."""
        end = ops.max(token_ids, axis=1, keepdims=True) if self.end_id == 2 else self.end_id
        # CUDA compares no integers, but takes one from the other.
        others = ops.cast(ops.not_equal(token_ids - end, 0), "float32")
        places = _first(ops.arange(self.longest, dtype="float32"), ops.shape(token_ids)[1])[None]
        # Of the ends the one with most behind it, [B, 1]. TensorFlow's argmax would be operators
        # on bits, which TensorRT has not.
        behind = ops.max((1 - others) * (self.longest - places), axis=1, keepdims=True)
        return ops.cast(places <= self.longest - behind, "int32")

    def compute_output_spec(self, token_ids):
        """The shape and dtype that `call` gives."""
        return keras.KerasTensor(token_ids.shape, "int32")

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "longest": self.longest, "end_id": self.end_id}


@_register
class LastOf(layers.Layer):
    """[tokens [B, T, D], mask int32 [B, T] of 1s and then 0s] -> the last token of the 1s."""

    def call(self, inputs):
        """Returns [B, 1, D]."""
        tokens, mask = inputs
        behind = ops.pad(mask[:, 1:], ((0, 0), (0, 1)))
        alone = ops.cast(mask - behind, tokens.dtype)[..., None]
        return ops.sum(tokens * alone, axis=1, keepdims=True)

    def get_config(self):
        """Without it Keras refuses to save a layer whose dtype is a policy, as presets give it."""
        return super().get_config()


@_register
class CLIPTextBackbone(TextEncoder):
    """CLIP's text tower. A Hugging Face directory holds it alone, or all of CLIP.

    Its summary is `transformers`' text_embeds, behind CLIP's projection, where the directory has
    that (`text_projection`), and so stands in one space with `CLIPVisionBackbone`'s of the same
    directory; else the pooler_output.
    """

    model_types = ("clip_text_model", "clip")
    prefix = "text_model"
    fields = _FIELDS
    attention_dropout = "attention_dropout"
    pre_norm = True
    any_padding = True
    lacks_first = "the first token of a causal model sees no other"

    def __init__(
        self,
        *args,
        dropout=0.0,
        num_segments=0,
        pooler=False,
        end_id=49407,
        projection_dim=None,
        **kwargs,
    ):
        """Builds the graph.

        Args:
            *args, dropout, num_segments, pooler, **kwargs: as `TextEncoder`; there is no pooler.
            end_id: of the token that ends a text, see `UpToEnd`.
            projection_dim: width of CLIP's projection; None: there is none.

        Raises:
            UsageError: as `TextEncoder`, or several ids that end a text.
        """
        if not isinstance(end_id, int):
            raise UsageError(
                f"got eos_token_id {end_id} of CLIP's text tower, wanted one id; choose another "
                "checkpoint, or set it in its config.json."
            )
        self.end_id, self.projection_dim = end_id, projection_dim
        super().__init__(*args, dropout=dropout, num_segments=num_segments, pooler=pooler, **kwargs)

    def _seen(self, inputs, x):
        mask = CausalMask(self._longest(), name="causal_mask")(inputs["token_ids"])
        return {"padding_mask": mask}

    def _read(self, layer, before, inputs, seen):
        text = UpToEnd(self._longest(), self.end_id, name="up_to_end")(inputs["token_ids"])
        asking = LastOf(dtype=layer.dtype_policy, name="end")([before, text])
        return layer(before, padding_mask=text, asking=asking)

    def _longest(self) -> int:
        return self.position_embedding.sequence_length

    def _pooled(self, x, dtype):
        if self.projection_dim is None:
            return x
        return layers.Dense(
            self.projection_dim, use_bias=False, dtype=dtype, name="text_projection"
        )(x)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "end_id": self.end_id,
            "projection_dim": self.projection_dim,
        }

    @classmethod
    def arguments_of(cls, config: dict) -> dict:
        """As `TextEncoder.arguments_of`.

        Raises:
            UsageError: attention_dropout, which here would be of other parts too.
        """
        if config.get("model_type") == "clip":
            config = {**config.get("text_config", {}), "model_type": cls.model_types[0]}
        if config.get("attention_dropout"):
            raise UsageError(
                f"got attention_dropout {config['attention_dropout']} in a config.json of "
                f"{cls.model_types[0]}, wanted 0, as published; set it to 0 there."
            )
        return super().arguments_of(config)

    @classmethod
    def _found(cls, weights):
        shape = weights.shape("text_projection.weight")
        return {"projection_dim": shape and shape[0]}
