"""A depthwise convolution that XLA's CPU code runs fast.

XLA lowers a grouped convolution on the CPU to a loop over the groups: 8 to 40 times slower
than the same sum written as shifted slices of the image, each times one row of the kernel.
Weights, names and values are those of `keras.layers.DepthwiseConv2D`, and everywhere but
on JAX's CPU the layer *is* that convolution, so exported graphs hold a plain one.
"""

import functools

import keras
from keras import ops


@functools.cache
def on_jax_cpu() -> bool:
    """True on the JAX backend where it has no device but CPUs."""
    if keras.backend.backend() != "jax":
        return False
    return all(device.startswith("cpu") for device in keras.distribution.list_devices())


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under TensorFlow's SAME rule (more of them after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _shifted(x, window, strides, padding):
    """Yield (i, j, the pixels of x that kernel entry (i, j) meets [..., H', W', C])."""
    (rows, columns), (down, right) = window, strides
    *batch, height, width, _ = x.shape
    if padding == "same":
        pads = _same_padding(height, rows, down), _same_padding(width, columns, right)
        x = ops.pad(x, (*((0, 0) for _ in batch), *pads, (0, 0)))
        height, width = height + sum(pads[0]), width + sum(pads[1])
    for i in range(rows):
        for j in range(columns):
            bottom, end = height - rows + i + 1, width - columns + j + 1
            yield i, j, x[..., i:bottom:down, j:end:right, :]


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
    window = kernel.shape[:2]
    constant = ops.stop_gradient(kernel)
    total = None
    for i, j, pixels in _shifted(x, window, strides, padding):
        term = pixels * constant[i, j, :, 0]
        total = term if total is None else total + term

    # Derived from the sum above, the kernel's gradient would be nine reductions over the
    # whole batch, each streaming both tensors from memory: four times slower than image
    # by image, where they stay in the cache. The image's gradient is best as derived.
    @ops.custom_gradient
    def with_kernel_gradient(y, x, kernel):
        def gradients(upstream):
            by_kernel = _kernel_gradient(x, upstream, window, strides, padding)
            return upstream, ops.zeros_like(x), ops.cast(by_kernel, kernel.dtype)

        return y, gradients

    return with_kernel_gradient(total, ops.stop_gradient(x), kernel)


def _kernel_gradient(x, upstream, window, strides, padding):
    """Sum pixel times upstream over the images, one at a time: float32 [KH, KW, C, 1]."""

    def add_image(total, pair):
        image, change = pair  # [H, W, C], [H', W', C]
        rows = [
            ops.sum(ops.cast(pixels * change, "float32"), axis=(0, 1))
            for _, _, pixels in _shifted(image, window, strides, padding)
        ]
        return total + ops.stack(rows), None

    zero = ops.zeros((window[0] * window[1], x.shape[-1]), "float32")
    total, _ = ops.scan(add_image, zero, (x, upstream))
    return ops.reshape(total, (*window, x.shape[-1], 1))


@keras.saving.register_keras_serializable(package="fusion_keras")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with shifted slices instead on JAX's CPU.

    The slices serve what MobileNetV2 uses: channels last, depth multiplier 1, no dilation
    and an image size known when the graph is built; anything else is convolved as usual.
    """

    def call(self, inputs):
        """Convolve inputs [B, H, W, C] to [B, H', W', C]."""
        usual = (
            not on_jax_cpu()
            or self.data_format != "channels_last"
            or self.depth_multiplier != 1
            or tuple(self.dilation_rate) != (1, 1)
            or None in inputs.shape[1:]
        )
        if usual:
            return super().call(inputs)
        kernel = ops.convert_to_tensor(self.kernel)
        x = depthwise_by_slices(inputs, kernel, self.strides, self.padding)
        if self.use_bias:
            x = x + self.bias
        return x if self.activation is None else self.activation(x)
