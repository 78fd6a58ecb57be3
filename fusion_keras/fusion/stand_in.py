"""Learned stand-ins for the taps of a modality that is missing.

Modality dropout (Neverova et al. 2016, arXiv 1501.00102) shows a network zeros for what is
missing, or what its backbone says of nothing. Here one learned vector for each tap stands there
instead, like the mask tokens of Reza et al. 2025 (arXiv 2501.17823): the answer does not depend
on what stands in the input's place, and an exported graph can leave the backbone out.
"""

import keras
from keras import layers, ops

_register = keras.saving.register_keras_serializable(package="fusion_keras")


@_register
class StandIn(layers.Layer):
    """A tap [B, ..., D], or where `present` [B, 1] is 0 one learned vector in every place.

    Sums of products, exact for 0 and 1: of a choice tf2onnx makes casts and products, too.
    """

    def build(self, x_shape, present_shape):
        # Of a tap's size: through the layer normalisation behind it, a vector near zero
        # has gradients a thousand times larger.
        self.vector = self.add_weight(
            shape=(x_shape[-1],),
            initializer=keras.initializers.RandomNormal(stddev=0.5),
            name="vector",
        )

    def call(self, x, present):
        kept = ops.cast(ops.reshape(present, (-1, *[1] * (len(x.shape) - 1))), x.dtype)
        return kept * x + (1 - kept) * ops.cast(self.vector, x.dtype)

    def compute_output_spec(self, x, present):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


@_register
class PresentMask(layers.Layer):
    """The padding mask int32 [B, T]; of a sentence that is missing, one token.

    Written without the length, which an exported graph may leave open.
    """

    def call(self, mask, present):
        kept = ops.cast(present, mask.dtype)
        first = kept * mask[:, :1] + (1 - kept)
        return ops.concatenate([first, kept * mask[:, 1:]], axis=1)

    def compute_output_spec(self, mask, present):
        return keras.KerasTensor(mask.shape, dtype=mask.dtype)
