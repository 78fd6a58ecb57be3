"""A depthwise convolution that XLA's CPU code runs fast.

XLA lowers a grouped convolution on the CPU to a loop over the groups: 8 to 40 times slower
than the same sum written as shifted slices of the image, each times one row of the kernel.
Weights, names and values are those of `keras.layers.DepthwiseConv2D`, and everywhere but
on JAX's CPU the layer *is* that convolution, so exported graphs hold a plain one.
"""

import functools
import itertools
import math

import keras
from keras import ops

# Sums of so many entries of a kernel XLA compiles as one; of 7x7 at once they take it 12 s, each
# row of them in a loop 1 s, and run as fast.
_AT_ONCE = 25


@functools.cache
def on_jax_cpu() -> bool:
    """True on the JAX backend where it has no device but CPUs."""
    if keras.backend.backend() != "jax":
        return False
    return all(device.startswith("cpu") for device in keras.distribution.list_devices())


def sliceable(layer, x) -> bool:
    """Whether a convolution of images x [B, H, W, C] may be made of slices, and had better be."""
    return (
        on_jax_cpu()
        and layer.data_format == "channels_last"
        and tuple(layer.dilation_rate) == (1, 1)
        and all(k >= s for k, s in zip(layer.kernel_size, layer.strides, strict=True))
        and None not in x.shape[1:]
    )


def finished(layer, x):
    """The sums x [B, H', W', D] of a convolution, with its bias and its activation."""
    if layer.use_bias:
        x = x + layer.bias
    return x if layer.activation is None else layer.activation(x)


def zeros_around(sizes, window, strides, padding) -> list[tuple[int, int]]:
    """Zeros before and after each axis; SAME as TensorFlow counts it, the odd one after."""
    if padding == "valid":
        return [(0, 0) for _ in sizes]
    totals = [
        max((-(-size // stride) - 1) * stride + kernel - size, 0)
        for size, kernel, stride in zip(sizes, window, strides, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]


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
    around = zeros_around(x.shape[1:3], kernel.shape[:2], strides, padding)

    # Derived from the slices, the kernel's gradient is nine reductions that each stream both
    # tensors from memory, and the image's computes all that XLA fuses into its upstream
    # nine times over.
    @ops.custom_gradient
    def convolve(x, kernel):
        def gradients(upstream):
            by_x = _image_gradient(upstream, kernel, x.shape[1:3], strides, around)
            by_kernel = _kernel_gradient(x, upstream, kernel.shape[:2], strides, around)
            return by_x, ops.cast(ops.reshape(by_kernel, kernel.shape), kernel.dtype)

        terms = (
            pixels * kernel[i, j, :, 0]
            for (i, j), pixels in shifted(x, kernel.shape[:2], strides, around)
        )
        return functools.reduce(ops.add, terms), gradients

    return convolve(x, kernel)


def shifted(x, window, strides, around):
    """Yield ((i, j), the pixels of x that kernel entry (i, j) meets [..., H', W', C])."""
    x = ops.pad(x, (*((0, 0) for _ in x.shape[:-3]), *around, (0, 0)))
    *_, height, width, _ = x.shape
    for i, j in itertools.product(*map(range, window)):
        bottom, end = height - window[0] + i + 1, width - window[1] + j + 1
        yield (i, j), x[..., i : bottom : strides[0], j : end : strides[1], :]


def _kernel_gradient(x, upstream, window, strides, around):
    """Sum pixel times upstream over all images, as many at a time as the cache holds.

    Returns:
        float32 [KH * KW, C].
    """

    def sums(images, change, window, around):
        """[entries of the window, C] of images [N, H, W, C] and change [N, H', W', C]."""
        products = (pixels * change for _, pixels in shifted(images, window, strides, around))
        return ops.stack([ops.sum(ops.cast(p, "float32"), axis=(0, 1, 2)) for p in products])

    def add_images(total, pair):
        images, change = pair
        if math.prod(window) <= _AT_ONCE:
            return total + sums(images, change, window, around), None
        images = ops.pad(images, ((0, 0), *around, (0, 0)))
        count, _, width, channels = images.shape
        reached = (count, (change.shape[1] - 1) * strides[0] + 1, width, channels)

        def row(_, down):
            met = ops.slice(images, (0, down, 0, 0), reached)
            return None, sums(met, change, (1, window[1]), ((0, 0), (0, 0)))

        _, rows = ops.scan(row, None, ops.arange(window[0], dtype="int32"))
        return total + ops.reshape(rows, total.shape), None

    zero = ops.zeros((window[0] * window[1], x.shape[-1]), "float32")
    together = images_in_cache(x.shape)
    if together == x.shape[0]:
        return add_images(zero, (x, upstream))[0]
    x, upstream = (ops.reshape(t, (-1, together, *t.shape[1:])) for t in (x, upstream))
    return ops.scan(add_images, zero, (x, upstream))[0]


def images_in_cache(shape) -> int:
    """The largest divisor of the batch whose float32 images [B, H, W, C] fit a megabyte."""
    batch, size = shape[0], 4 * math.prod(shape[1:])
    return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * size <= 2**20))


def _image_gradient(upstream, kernel, sizes, strides, around):
    """Scatter upstream [B, H', W', C] back onto the image [B, H, W, C].

    Pixel p of the padded image meets kernel entry i at output (p - i) / stride. Pixels that leave
    the same remainder meet the same entries, so each remainder is a convolution of its own.
    """
    *_, channels = upstream.shape
    window = kernel.shape[:2]
    phases = [
        -(-(size + sum(zeros)) // step)
        for size, zeros, step in zip(sizes, around, strides, strict=True)
    ]
    reach = [(length - 1) // step for length, step in zip(window, strides, strict=True)]
    ahead = [
        (most, max(phase - length, 0))
        for most, phase, length in zip(reach, phases, upstream.shape[1:3], strict=True)
    ]
    spread = ops.pad(upstream, ((0, 0), *ahead, (0, 0)))

    def phase(down, right):
        terms = (
            spread[
                :, reach[0] - m : reach[0] - m + phases[0], reach[1] - n : reach[1] - n + phases[1]
            ]
            * kernel[down + m * strides[0], right + n * strides[1], :, 0]
            for m, n in itertools.product(
                range(-(-(window[0] - down) // strides[0])),
                range(-(-(window[1] - right) // strides[1])),
            )
        )
        return functools.reduce(ops.add, terms)

    rows = [
        ops.stack([phase(down, right) for right in range(strides[1])], axis=3)
        for down in range(strides[0])
    ]
    padded = ops.stack(rows, axis=2)  # [B, Q, strides[0], R, strides[1], C]
    padded = ops.reshape(padded, (-1, phases[0] * strides[0], phases[1] * strides[1], channels))
    (top, _), (left, _) = around
    return padded[:, top : top + sizes[0], left : left + sizes[1]]


@keras.saving.register_keras_serializable(package="fusion_keras")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with shifted slices instead on JAX's CPU.

    The slices serve what MobileNetV2 uses: channels last, depth multiplier 1, no dilation
    and an image size known when the graph is built; anything else is convolved as usual.
    """

    def call(self, inputs):
        """Convolve inputs [B, H, W, C] to [B, H', W', C]."""
        if self.depth_multiplier != 1 or not sliceable(self, inputs):
            return super().call(inputs)
        kernel = ops.convert_to_tensor(self.kernel)
        x = depthwise_by_slices(inputs, kernel, self.strides, self.padding)
        return finished(self, x)
