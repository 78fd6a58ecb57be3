"""The loops of the C-LSTM with the batch as the last axis, which XLA's CPU code runs fast.

Gates and patches then lie one behind the other in memory, and all that is done element by element
runs over long rows; with the channels last, as everywhere else, a row is as short as a layer has
units. Values are those of `conv_lstm`'s layers on other devices.
"""

from keras import ops

POOL = 2


def conv_lstm(weights, vision, audio=None, return_sequences=False):
    """`ConvLSTM` over all steps.

    Args:
        weights: kernel [k, k, C, 4 U], recurrent_kernel [k, k, U, 4 U], audio_kernel [F, 4 U] or
            None, bias [4 U]; the gates are f, i, g, o.
        vision: [B, H, W, C] with audio [B, T, F]; or [B, T, H, W, C] alone.

    Returns:
        The pooled state behind the last step [B, H / 2, W / 2, U], or behind each
        [B, T, H / 2, W / 2, U].
    """
    kernel, recurrent, audio_kernel, bias = weights
    bias = ops.reshape(bias, (-1, 1, 1, 1))
    if audio is None:
        # One product for what enters and what is remembered.
        kernel = rows_of(ops.concatenate([kernel, recurrent], axis=2))
        size, inputs = recurrent.shape[0], ops.transpose(vision, (1, 4, 2, 3, 0))
    else:
        seen = ops.transpose(vision, (3, 1, 2, 0))
        still = convolve(seen, rows_of(kernel), kernel.shape[0]) + bias
        kernel, size = rows_of(recurrent), recurrent.shape[0]
        heard = ops.transpose(ops.matmul(audio, audio_kernel), (1, 2, 0))
        inputs = heard[:, :, None, None, :]  # [T, 4 U, 1, 1, B]

    def step(carry, entering):
        hidden, cell = carry
        if audio is None:
            gates = convolve(ops.concatenate([entering, hidden]), kernel, size) + bias
        else:
            gates = convolve(hidden, kernel, size) + entering + still
        hidden, cell = lstm_step(*ops.split(gates, 4), cell)
        return (hidden, cell), pool(hidden) if return_sequences else None

    first = inputs[0] if audio is None else still
    state = ops.zeros((recurrent.shape[2], *first.shape[1:]), first.dtype)
    (hidden, _), each = ops.scan(step, (state, state), inputs)
    if return_sequences:
        return ops.transpose(each, (4, 0, 2, 3, 1))
    return ops.transpose(pool(hidden), (3, 1, 2, 0))


def lstm(weights, sequences, return_sequences=False):
    """`keras.layers.LSTM` over all steps; what enters is one product in front of the loop.

    Args:
        weights: kernel [F, 4 U], recurrent_kernel [U, 4 U], bias [4 U]; the gates are i, f, g, o.
        sequences: [B, T, F].

    Returns:
        The state behind the last step [B, U], or behind each [B, T, U].
    """
    kernel, recurrent, bias = weights
    inputs = ops.transpose(ops.matmul(sequences, kernel) + bias, (1, 2, 0))  # [T, 4 U, B]
    recurrent = ops.transpose(recurrent)

    def step(carry, entering):
        hidden, cell = carry
        gates = ops.matmul(recurrent, hidden) + entering
        enter, forget, change, leave = ops.split(gates, 4)
        hidden, cell = lstm_step(forget, enter, change, leave, cell)
        return (hidden, cell), hidden if return_sequences else None

    state = ops.zeros((recurrent.shape[1], inputs.shape[2]), inputs.dtype)
    (hidden, _), each = ops.scan(step, (state, state), inputs)
    return ops.transpose(each, (2, 0, 1)) if return_sequences else ops.transpose(hidden)


def lstm_step(forget, enter, change, leave, cell):
    """One step from the summed inputs of the gates f, i, g, o and c_{t-1}, all of one shape.

    Returns (h_t, c_t), the paper's figure 5: c_t = f c_{t-1} + i g, h_t = o tanh(c_t).
    """
    cell = ops.sigmoid(forget) * cell + ops.sigmoid(enter) * ops.tanh(change)
    return ops.sigmoid(leave) * ops.tanh(cell), cell


def convolve(x, rows, size):
    """Convolve x [C, H, W, B] with a kernel of one size as `rows_of` makes it; padded [D, H, W, B].

    A product of all patches: XLA's CPU code runs a convolution inside a loop, and derives its
    gradients, far more slowly.
    """
    height, width = x.shape[1:3]
    around = ((size - 1) // 2, size // 2)
    padded = ops.pad(x, ((0, 0), around, around, (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
    patches = ops.reshape(ops.concatenate(shifted), (rows.shape[1], -1))
    return ops.reshape(ops.matmul(rows, patches), (rows.shape[0], *x.shape[1:]))


def rows_of(kernel):
    """[k, k, C, D] -> [D, k * k * C]."""
    return ops.transpose(ops.reshape(kernel, (-1, kernel.shape[-1])))


def pool(x):
    """The largest of each square of four, [C, H, W, B] -> [C, H / 2, W / 2, B].

    Of equal ones the first has the gradient, as in every framework's max pool; `ops.maximum`
    would share it out.
    """
    height, width = (length // POOL for length in x.shape[1:3])
    x = x[:, : POOL * height, : POOL * width]
    x = ops.reshape(x, (x.shape[0], height, POOL, width, POOL, -1))
    return _first_largest(*(_first_largest(x[:, :, i, :, 0], x[:, :, i, :, 1]) for i in (0, 1)))


def _first_largest(a, b):
    return ops.where(b > a, b, a)
