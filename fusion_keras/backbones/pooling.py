"""PyTorch's max pooling, padded alike at both ends of an axis, as XLA's CPU code runs it fast."""

import functools
import itertools

import keras
from keras import ops

from fusion_keras.backbones.depthwise import on_jax_cpu

# Below all that an activation gives (GELU's least value is -0.17, SiLU's -0.28), so that padding
# never wins; and float16 and int8 hold it, as they do not hold minus infinity.
_PADDING = -1.0


@keras.saving.register_keras_serializable(package="fusion_keras")
class MaxPool3x3(keras.layers.Layer):
    """The largest of 3 x 3 pixels at stride 2, padded by one: [B, H, W, C] -> [B, H', W', C].

    For what ReLU, GELU or SiLU gives. XLA's CPU code derives a pooling's gradient pixel by
    pixel; of the maximum of nine shifted slices it does so element by element, many at once.
    """

    def call(self, inputs):
        """Pool inputs [B, H, W, C]; H' and W' are half of H and W, rounded up."""
        around = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = ops.pad(inputs, around, constant_values=_PADDING)
        if not on_jax_cpu() or None in inputs.shape[1:]:
            return ops.max_pool(x, 3, 2, padding="valid", data_format="channels_last")
        height, width = (size - 2 for size in x.shape[1:3])
        slices = (
            x[:, i : i + height : 2, j : j + width : 2]
            for i, j in itertools.product(range(3), range(3))
        )
        return functools.reduce(ops.maximum, slices)

    def compute_output_shape(self, input_shape):
        """[B, H', W', C]."""
        batch, height, width, channels = input_shape
        return batch, (height + 1) // 2, (width + 1) // 2, channels
