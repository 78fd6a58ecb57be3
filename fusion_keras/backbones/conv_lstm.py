"""The layers of the C-LSTM (Barnum et al. 2020, appendix A.1): an LSTM at every place of a map.

`fusion_keras.backbones.clstm` makes the three architectures of them, and says what the paper
leaves open.
"""

import keras
from keras import layers, ops

from fusion_keras.backbones import batch_last
from fusion_keras.backbones.batch_last import POOL, lstm_step
from fusion_keras.backbones.depthwise import on_jax_cpu

_register = keras.saving.register_keras_serializable(package="fusion_keras")


def convolve(x, kernel):
    """Convolve x [B, H, W, C] with kernel [k, k, C, D], padded to [B, H, W, D]."""
    return ops.conv(x, kernel, padding="same")


def _forget_at_first(shape, dtype=None):
    """Biases [4 U], one for the forget gate and zero for the others."""
    units = shape[0] // 4
    return ops.concatenate([ops.ones(units, dtype), ops.zeros(3 * units, dtype)])


def _each(function, x):
    """Apply a function of [N, H, W, C] to x [A, B, H, W, C], of which A or B is known."""
    outer, inner = x.shape[:2]
    y = function(ops.reshape(x, (-1, *x.shape[2:])))
    rows = (-1, inner) if outer is None else (outer, -1)
    return ops.reshape(y, (*rows, *y.shape[1:]))


def _pool(x):
    return ops.max_pool(x, (POOL, POOL), (POOL, POOL), padding="valid")


@_register
class ConvLSTM(layers.Layer):
    """An LSTM at every place of a map, with shared weights; then a 2 x 2 max pool.

    `vision` is one map [B, H, W, C] for all steps, with `audio` [B, T, F], the vector that
    every place sees at a step; or a map for each step [B, T, H, W, C], alone. Whatever does
    not depend on the hidden state is computed before the loop: one map's convolution once.

    Output: [B, H / 2, W / 2, U] behind the last step, or with `return_sequences`
    [B, T, H / 2, W / 2, U].
    """

    def __init__(self, units, kernel_size=3, return_sequences=False, **kwargs):
        super().__init__(**kwargs)
        self.units, self.kernel_size = units, kernel_size
        self.return_sequences = return_sequences

    def build(self, vision_shape, audio_shape=None):
        """Add the weights; the last axis of each holds the gates f, i, g, o."""
        window, gates = (self.kernel_size, self.kernel_size), 4 * self.units
        self.kernel = self.add_weight((*window, vision_shape[-1], gates), name="kernel")
        self.recurrent_kernel = self.add_weight(
            (*window, self.units, gates), "orthogonal", name="recurrent_kernel"
        )
        self.audio_kernel = None
        if audio_shape is not None:
            self.audio_kernel = self.add_weight((audio_shape[-1], gates), name="audio_kernel")
        self.bias = self.add_weight((gates,), _forget_at_first, name="bias")

    def call(self, vision, audio=None):
        """Run all steps."""
        if on_jax_cpu():
            weights = self.kernel, self.recurrent_kernel, self.audio_kernel, self.bias
            return batch_last.conv_lstm(weights, vision, audio, self.return_sequences)
        if audio is None:
            inputs = _each(lambda maps: convolve(maps, self.kernel), vision) + self.bias
            inputs, still = ops.moveaxis(inputs, 1, 0), None  # [T, B, H, W, 4 U]
            state = ops.zeros_like(inputs[0, ..., : self.units])
        else:
            still = convolve(vision, self.kernel) + self.bias  # [B, H, W, 4 U]
            heard = ops.matmul(audio, self.audio_kernel)  # [B, T, 4 U]
            inputs = ops.moveaxis(heard, 1, 0)[:, :, None, None, :]
            state = ops.zeros_like(still[..., : self.units])

        def step(carry, entering):
            hidden, cell = carry
            gates = convolve(hidden, self.recurrent_kernel) + entering
            gates = gates if still is None else gates + still
            hidden, cell = lstm_step(*ops.split(gates, 4, axis=-1), cell)
            return (hidden, cell), hidden if self.return_sequences else None

        (hidden, _), each = _loop(step, (state, state), inputs)
        if self.return_sequences:
            return ops.moveaxis(_each(_pool, each), 0, 1)
        return _pool(hidden)

    def get_config(self):
        """Return the arguments of the constructor."""
        own = ("units", "kernel_size", "return_sequences")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@_register
class PaddedConv2D(layers.Conv2D):
    """`keras.layers.Conv2D` with padding "same" and steps of one pixel, alone."""

    def __init__(self, filters, kernel_size, **kwargs):
        super().__init__(filters, kernel_size, **{**kwargs, "padding": "same"})

    def call(self, inputs):
        """Convolve inputs [B, H, W, C] to [B, H, W, D]."""
        if not on_jax_cpu():
            return super().call(inputs)
        x = ops.transpose(inputs, (3, 1, 2, 0))
        x = batch_last.convolve(x, batch_last.rows_of(self.kernel), self.kernel_size[0])
        x = x + ops.reshape(self.bias, (-1, 1, 1, 1))
        return self.activation(ops.transpose(x, (3, 1, 2, 0)))


@_register
class SquarePool(layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` of squares of POOL pixels a side."""

    def __init__(self, pool_size=POOL, **kwargs):
        super().__init__(pool_size, **kwargs)

    def call(self, inputs):
        """Pool inputs [B, H, W, C] to [B, H / 2, W / 2, C]."""
        if not on_jax_cpu():
            return super().call(inputs)
        x = batch_last.pool(ops.transpose(inputs, (3, 1, 2, 0)))
        return ops.transpose(x, (3, 1, 2, 0))


def _loop(step, carry, inputs):
    """Scan over axis 0 of inputs on JAX; elsewhere one copy of the step after another.

    A training step of `clstm_initial` at REDUCED takes 0.2 s scanned and 2.3 s unrolled, which
    also compiles for 21 s in place of 3 s (JAX on two cores, batch 32). In an exported graph a
    loop is the slower: `clstm_fc` 0.35 ms with tf2onnx's Loop, 0.23 ms unrolled (REDUCED,
    batch 1, one thread, ONNX Runtime 1.31); and of a TensorFlow loop over ConvLSTM's step
    tf2onnx 1.17 writes a Loop that ONNX Runtime refuses.
    """
    if keras.backend.backend() == "jax":
        return ops.scan(step, carry, inputs)
    outputs = []
    for t in range(inputs.shape[0]):
        carry, output = step(carry, inputs[t])
        outputs.append(output)
    return carry, None if outputs[0] is None else ops.stack(outputs)


@_register
class LSTM(layers.LSTM):
    """`keras.layers.LSTM`, unrolled where it is exported, as `ConvLSTM` is."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        """Run all steps: [B, T, F] -> [B, U], or [B, T, U] with return_sequences."""
        if on_jax_cpu() and initial_state is None and mask is None:
            weights = self.cell.kernel, self.cell.recurrent_kernel, self.cell.bias
            return batch_last.lstm(weights, sequences, self.return_sequences)
        self.unroll = keras.backend.backend() != "jax"
        return super().call(sequences, initial_state, mask, training)
