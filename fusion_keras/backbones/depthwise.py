"""A 3x3 depthwise convolution that XLA's CPU code runs fast.

XLA lowers a grouped convolution on the CPU to a loop over the groups: 8 to 40 times slower
than the same sum written as shifted slices of the image, each times one row of the kernel.
Weights, names and values are those of `keras.layers.DepthwiseConv2D`, and everywhere but
on JAX's CPU the layer *is* that convolution, so exported graphs hold a plain one.
"""

import functools

import keras
from keras import ops


@functools.cache
def _slices_are_faster() -> bool:
    """True on the JAX backend when its default device is a CPU."""
    if keras.backend.backend() != "jax":
        return False
    return all(device.startswith("cpu") for device in keras.distribution.list_devices())


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under TensorFlow's SAME rule (more of them after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def depthwise_by_slices(x, kernel, strides: tuple[int, int], padding: str):
    """Depthwise convolution as a sum of shifted slices, each times one kernel row.

    Args:
        x: float tensor [B, H, W, C] with static H and W.
        kernel: float tensor [KH, KW, C, 1].
        strides: (vertical, horizontal).
        padding: "same" (TensorFlow's rule) or "valid".

    Returns:
        Tensor [B, H', W', C], equal to `keras.ops.depthwise_conv` up to rounding.
    """
    rows, columns = kernel.shape[:2]
    down, right = strides
    if padding == "same":
        pads = (
            _same_padding(x.shape[1], rows, down),
            _same_padding(x.shape[2], columns, right),
        )
        x = ops.pad(x, ((0, 0), *pads, (0, 0)))
    height = (x.shape[1] - rows) // down + 1
    width = (x.shape[2] - columns) // right + 1
    total = None
    for i in range(rows):
        for j in range(columns):
            bottom, end = i + (height - 1) * down + 1, j + (width - 1) * right + 1
            term = x[:, i:bottom:down, j:end:right, :] * kernel[i, j, :, 0]
            total = term if total is None else total + term
    return total


@keras.saving.register_keras_serializable(package="fusion_keras")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with shifted slices instead on JAX's CPU.

    The slices serve what MobileNetV2 uses: channels last, depth multiplier 1, no dilation
    and an image size known when the graph is built; anything else is convolved as usual.
    """

    def call(self, inputs):
        """Convolve inputs [B, H, W, C] to [B, H', W', C]."""
        usual = (
            not _slices_are_faster()
            or self.data_format != "channels_last"
            or self.depth_multiplier != 1
            or tuple(self.dilation_rate) != (1, 1)
            or None in inputs.shape[1:]
        )
        if usual:
            return super().call(inputs)
        x = depthwise_by_slices(inputs, self.kernel, self.strides, self.padding)
        if self.use_bias:
            x = x + self.bias
        return x if self.activation is None else self.activation(x)
