"""A convolution over all channels that XLA's CPU code learns fast.

XLA's own gradient of the kernel reaches a third of what its products do where maps are large and
channels few, and so does all of it where a map is a few pixels. Weights, names and values are those
of `keras.layers.Conv2D`, and everywhere but on JAX's CPU the layer *is* that convolution.
"""

import keras
from keras import ops

from fusion_keras.backbones.depthwise import (
    finished,
    images_in_cache,
    shifted,
    sliceable,
    zeros_around,
)

# Of at most so many pixels a map is convolved as one product, all of its gradients, too.
_FEW = 16


def by_patches(x, kernel, strides: tuple[int, int], around):
    """The convolution as one product: a row for each pixel that comes out.

    Args:
        x: float tensor [B, H, W, C] with static H and W.
        kernel: float tensor [KH, KW, C, D].
        strides: (vertical, horizontal).
        around: zeros before and after H and W.

    Returns:
        Tensor [B, H', W', D].
    """
    patches = ops.concatenate([p for _, p in shifted(x, kernel.shape[:2], strides, around)], -1)
    return ops.matmul(patches, ops.reshape(kernel, (-1, kernel.shape[-1])))


def learned(y, x, kernel, strides: tuple[int, int], around):
    """y, a convolution of x, from which the kernel learns; the image learns from y itself.

    Args:
        y: float tensor [B, H', W', D]; the rest as in `by_patches`.
    """

    @ops.custom_gradient
    def same(y, x, kernel):
        def gradients(upstream):
            by_kernel = _kernel_gradient(x, upstream, kernel.shape[:2], strides, around)
            by_kernel = ops.cast(ops.reshape(by_kernel, kernel.shape), kernel.dtype)
            return upstream, ops.zeros_like(x), by_kernel

        return y, gradients

    return same(y, ops.stop_gradient(x), kernel)


def _kernel_gradient(x, upstream, window, strides, around):
    """The products of every pixel and the upstream it meets, summed over as many images at a time
    as the cache holds.

    Returns:
        float32 [KH, KW * C, D].
    """
    (top, bottom), sides = around

    def add_images(total, pair):
        images, change = pair
        images = ops.pad(images, ((0, 0), (top, bottom), (0, 0), (0, 0)))
        # [k, H, W', KW * C]: what each output column meets of every row.
        across = shifted(images, (1, window[1]), (1, strides[1]), ((0, 0), sides))
        rows = ops.concatenate([pixels for _, pixels in across], -1)
        change = ops.reshape(change, (-1, change.shape[-1]))
        met = shifted(rows, (window[0], 1), (strides[0], 1), ((0, 0), (0, 0)))
        flat = (ops.reshape(r, (change.shape[0], -1)) for _, r in met)
        sums = [ops.matmul(ops.transpose(r), change) for r in flat]
        return total + ops.cast(ops.stack(sums), "float32"), None

    batch, _, width, channels = x.shape
    zero = ops.zeros((window[0], window[1] * channels, upstream.shape[-1]), "float32")
    together = images_in_cache((batch, x.shape[1], width, window[1] * channels))
    if together == batch:
        return add_images(zero, (x, upstream))[0]
    x, upstream = (ops.reshape(t, (-1, together, *t.shape[1:])) for t in (x, upstream))
    return ops.scan(add_images, zero, (x, upstream))[0]


@keras.saving.register_keras_serializable(package="fusion_keras")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with gradients of its own on JAX's CPU.

    They serve channels last, one group, no dilation and an image size known when the graph is
    built; anything else is convolved as usual.
    """

    def call(self, inputs):
        """Convolve inputs [B, H, W, C] to [B, H', W', D]."""
        plain = self.groups == 1 and self.padding in ("same", "valid")
        if not (plain and sliceable(self, inputs)):
            return super().call(inputs)
        kernel = ops.convert_to_tensor(self.kernel)
        around = zeros_around(inputs.shape[1:3], self.kernel_size, self.strides, self.padding)
        _, height, width, _ = self.compute_output_shape(inputs.shape)
        if height * width <= _FEW:
            x = by_patches(inputs, kernel, self.strides, around)
        else:
            fixed = ops.stop_gradient(kernel)
            x = ops.conv(inputs, fixed, self.strides, self.padding, "channels_last")
            x = learned(x, inputs, kernel, self.strides, around)
        return finished(self, x)
