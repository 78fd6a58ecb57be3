"""The 1x1 convolution and the BatchNorm around it, as XLA's CPU code runs them fast, and LayerNorm.

All keep the weights, names and values of the Keras layers they derive from.
"""

import keras
from keras import ops

from fusion_keras.backbones.depthwise import on_jax_cpu


@keras.saving.register_keras_serializable(package="fusion_keras")
class PointwiseConv2D(keras.layers.Conv2D):
    """A 1x1 `keras.layers.Conv2D`, on JAX's CPU a matrix product over all pixels.

    XLA's CPU code derives a 1x1 convolution's gradients as convolutions with kernels as
    large as the image: five times slower than the two matrix products they are.
    """

    def __init__(self, filters, kernel_size=1, **kwargs):
        super().__init__(filters, kernel_size, **kwargs)

    def call(self, inputs):
        """Map inputs [B, H, W, C] to [B, H, W, filters]."""
        usual = (
            not on_jax_cpu()
            or self.data_format != "channels_last"
            or tuple(self.kernel_size) != (1, 1)
            or self.groups != 1
            or None in inputs.shape[1:]
        )
        if usual:
            return super().call(inputs)
        down, across = self.strides
        if (down, across) != (1, 1):
            inputs = inputs[:, ::down, ::across]
        _, height, width, channels = inputs.shape
        pixels = ops.reshape(inputs, (-1, channels))
        x = ops.matmul(pixels, ops.reshape(self.kernel, (channels, self.filters)))
        x = ops.reshape(x, (-1, height, width, self.filters))
        if self.use_bias:
            x = x + self.bias
        return x if self.activation is None else self.activation(x)


@keras.saving.register_keras_serializable(package="fusion_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that reads its input once, not twice, for its moments.

    The variance is the mean square less the squared mean, as in Flax. The difference
    loses digits where a channel's mean is hundreds of its deviations.
    """

    def _moments(self, inputs, mask):
        """Return mean and variance [C] of inputs [B, H, W, C]."""
        if mask is not None:
            return super()._moments(inputs, mask)
        mean = ops.mean(inputs, self._reduction_axes)
        square = ops.mean(ops.square(inputs), self._reduction_axes)
        return mean, ops.maximum(square - ops.square(mean), 0.0)


@keras.saving.register_keras_serializable(package="fusion_keras")
class PixelLayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the channels, on a matrix of all pixels.

    Between convolutions tf2onnx moves transposes into the arithmetic of a norm, which then is no
    LayerNormalization again: a matrix has no transposes.
    """

    def call(self, inputs):
        """Normalise inputs [B, H, W, C]."""
        _, height, width, channels = inputs.shape
        x = super().call(ops.reshape(inputs, (-1, channels)))
        return ops.reshape(x, (-1, height, width, channels))
