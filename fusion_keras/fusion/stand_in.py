"""Learned stand-ins for the taps of a modality that is missing.

Modality dropout (Neverova et al. 2016, arXiv 1501.00102) shows a network zeros for what is
missing, or what its backbone says of nothing. Here one learned vector for each tap stands there
instead, like the mask tokens of Reza et al. 2025 (arXiv 2501.17823): the answer does not depend
on what stands in the input's place, and an exported graph can leave the backbone out.
"""

import keras
from keras import layers, ops

_register = keras.saving.register_keras_serializable(package="fusion_keras")


def present_name(modality: str) -> str:
    """The input, float32 [B, 1], that is 1 where the modality is there and 0 where it is not."""
    return f"present_{modality}"


def _there(present, rank: int):
    """[B, 1] -> bool [B, 1, ...] of a rank."""
    return ops.reshape(present, (-1, *[1] * (rank - 1))) > 0.5


@_register
class StandIn(layers.Layer):
    """A tap [B, ..., D], or where `present` [B, 1] is 0 one learned vector in every place."""

    def build(self, x_shape, present_shape):
        # Of a tap's size: through the layer normalisation behind it, a vector near zero
        # has gradients a thousand times larger.
        self.vector = self.add_weight(
            shape=(x_shape[-1],),
            initializer=keras.initializers.RandomNormal(stddev=0.5),
            name="vector",
        )

    def call(self, x, present):
        return ops.where(_there(present, len(x.shape)), x, ops.cast(self.vector, x.dtype))

    def compute_output_spec(self, x, present):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


@_register
class PresentMask(layers.Layer):
    """The padding mask int32 [B, T]; of a sentence that is missing, one token.

    Written without the length, which an exported graph may leave open.
    """

    def call(self, mask, present):
        none = ops.concatenate([mask[:, :1] * 0 + 1, mask[:, 1:] * 0], axis=1)
        return ops.where(_there(present, 2), mask, none)

    def compute_output_spec(self, mask, present):
        return keras.KerasTensor(mask.shape, dtype=mask.dtype)
