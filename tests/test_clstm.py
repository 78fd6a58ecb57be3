"""The C-LSTM computes the paper's equations, place by place and step by step."""

import functools
from itertools import pairwise

import jax
import keras
import numpy as np
import pytest
from keras import ops

from fusion_keras.backbones import batch_last, clstm, conv_lstm
from fusion_keras.backbones.clstm import ARCHITECTURES, FULL, REDUCED, Sizes, build_clstm
from fusion_keras.errors import UsageError
from tests.support.shared import slow_but

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = Sizes(image=5, steps=3, bins=4, units=2, hidden=6, classes=3)

each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def inputs_of(sizes, count=2, seed=0):
    rng = np.random.default_rng(seed)
    edge = sizes.image
    return {
        "image": rng.uniform(0, 255, (count, edge, edge, 1)).astype(np.float32),
        "spectrogram": rng.uniform(0, 1, (count, sizes.steps, sizes.bins)).astype(np.float32),
    }


@functools.cache
def random_model(architecture):
    """A model all of whose weights, biases too, are far from zero; not to be changed."""
    model = build_clstm(architecture, TINY)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


def outputs_of(model, inputs):
    return model.predict(inputs, verbose=0)


# --- The equations, in plain loops --------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def patch(maps, row, column, size):
    """[size * size * C] around a place of [H, W, C], zeros outside."""
    before = (size - 1) // 2
    found = np.zeros((size, size, maps.shape[-1]))
    for i in range(size):
        for j in range(size):
            y, x = row + i - before, column + j - before
            if 0 <= y < maps.shape[0] and 0 <= x < maps.shape[1]:
                found[i, j] = maps[y, x]
    return found.ravel()


def cell_step(terms, bias, cell):
    """h_t and c_t of one cell from pairs (vector, its matrix [n, 4 U]); f, i, g, o in turn."""
    total = bias + sum(vector @ matrix for vector, matrix in terms)
    f, i, g, o = total.reshape(4, -1)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(cell), cell


def loop_conv_lstm(weights, vision, audio=None):
    """[T, H, W, U]: figure 5, for one example; vision [H, W, C] or [T, H, W, C], audio [T, F]."""
    kernel, recurrent, *rest = weights
    audio_kernel, bias = rest if len(rest) == 2 else (None, *rest)
    maps = vision if audio is None else [vision] * len(audio)
    height, width = maps[0].shape[:2]
    units, size = bias.size // 4, kernel.shape[0]
    hidden = np.zeros((height, width, units))
    cell = np.zeros_like(hidden)
    found = []
    for t, seen in enumerate(maps):
        before = hidden.copy()
        for y in range(height):
            for x in range(width):
                terms = [
                    (patch(seen, y, x, size), kernel.reshape(-1, 4 * units)),
                    (patch(before, y, x, size), recurrent.reshape(-1, 4 * units)),
                ]
                if audio is not None:
                    terms.append((audio[t], audio_kernel))
                hidden[y, x], cell[y, x] = cell_step(terms, bias, cell[y, x])
        found.append(hidden.copy())
    return np.array(found)


def loop_lstm(weights, audio):
    """[T, U] of one example; Keras orders the gates i, f, g, o."""
    kernel, recurrent, bias = (
        np.concatenate([w[..., n : 2 * n], w[..., :n], w[..., 2 * n :]], -1)
        for w in weights
        for n in [w.shape[-1] // 4]
    )
    hidden = cell = np.zeros(bias.size // 4)
    found = []
    for column in audio:
        hidden, cell = cell_step([(column, kernel), (hidden, recurrent)], bias, cell)
        found.append(hidden)
    return np.array(found)


def relu_conv(weights, maps):
    kernel, bias = weights
    height, width = maps.shape[:2]
    flat = kernel.reshape(-1, bias.size)
    values = [[patch(maps, y, x, 3) @ flat + bias for x in range(width)] for y in range(height)]
    return np.maximum(np.array(values), 0)


def pool(maps):
    """[H, W, C] -> [H // 2, W // 2, C], the largest of each square."""
    height, width = maps.shape[0] // 2, maps.shape[1] // 2
    squares = maps[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
    return squares.max(axis=(1, 3))


def reference(model, architecture, image, audio):
    """Logits [T, classes] of one example, after every step."""
    w = {layer.name: [np.float64(x) for x in layer.get_weights()] for layer in model.layers}
    image = image / 255
    if architecture == "clstm_initial":
        maps = [pool(h) for h in loop_conv_lstm(w["clstm1"], image, audio)]
        features = [pool(h).ravel() for h in loop_conv_lstm(w["clstm2"], maps)]
    elif architecture == "clstm_second":
        seen, heard = pool(relu_conv(w["visual1"], image)), loop_lstm(w["audio1"], audio)
        features = [pool(h).ravel() for h in loop_conv_lstm(w["clstm2"], seen, heard)]
    else:
        seen = pool(relu_conv(w["visual2"], pool(relu_conv(w["visual1"], image)))).ravel()
        heard = loop_lstm(w["audio2"], loop_lstm(w["audio1"], audio))
        features = [np.concatenate([seen, h]) for h in heard]
    (kernel, bias), (last, last_bias) = w["hidden"], w["logits"]
    return np.array([np.maximum(x @ kernel + bias, 0) @ last + last_bias for x in features])


@each_architecture
def test_logits_after_every_step_are_those_of_the_equations(architecture):
    model, inputs = random_model(architecture), inputs_of(TINY)
    found = outputs_of(clstm.with_steps(model, architecture, TINY), inputs)
    wanted = [
        reference(model, architecture, *example)
        for example in zip(inputs["image"], inputs["spectrogram"], strict=True)
    ]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in pairwise(np.swapaxes(wanted, 0, 1)))
    np.testing.assert_allclose(found["steps"], wanted, atol=1e-5)
    # Training sees the last step alone.
    np.testing.assert_allclose(found["logits"], found["steps"][:, -1])
    np.testing.assert_allclose(outputs_of(model, inputs)["logits"], found["logits"], atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_convolution_by_products_is_the_convolution(size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 7, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3, 4)).astype(np.float32)
    rows = kernel.reshape(-1, 4).T
    found = np.asarray(batch_last.convolve(x.transpose(3, 1, 2, 0), rows, size))
    wanted = np.asarray(ops.conv(x, kernel, padding="same")).transpose(3, 1, 2, 0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# --- Cost and weights ---------------------------------------------------------------------------


def test_image_is_convolved_once_and_the_state_at_every_step(monkeypatch):
    kernels = []

    def counted(x, kernel, convolve=conv_lstm.convolve):
        kernels.append(tuple(kernel.shape))
        return convolve(x, kernel)

    def unrolled(step, carry, inputs):
        for entering in inputs:
            carry, _ = step(carry, entering)
        return carry, None

    layer = conv_lstm.ConvLSTM(2)
    image, audio = np.ones((1, 4, 4, 3), np.float32), np.ones((1, 6, 5), np.float32)
    layer.build(image.shape, audio.shape)
    scanned = jax.jit(lambda *x: layer(*x))(image, audio)
    monkeypatch.setattr(conv_lstm, "on_jax_cpu", lambda: False)
    monkeypatch.setattr(conv_lstm, "convolve", counted)
    monkeypatch.setattr(conv_lstm, "_loop", unrolled)
    found = jax.jit(lambda *x: layer(*x))(image, audio)
    np.testing.assert_allclose(found, scanned, atol=1e-6)
    assert kernels == [(3, 3, 3, 8)] + 6 * [(3, 3, 2, 8)]


@pytest.mark.parametrize("audio", [True, False])
@pytest.mark.parametrize("return_sequences", slow_but([True], [True, False]))
def test_with_the_batch_last_a_layer_has_the_values_and_gradients_of_other_devices(
    audio, return_sequences, monkeypatch
):
    """Image of odd sides; of equal states, as in a blank image, the first has the gradient."""
    rng = np.random.default_rng(0)
    layer = conv_lstm.ConvLSTM(2, return_sequences=return_sequences)
    shape = (2, 5, 7, 1) if audio else (2, 3, 5, 7, 1)
    image = rng.normal(size=shape).astype(np.float32)
    image[0] = 0
    inputs = (image, rng.normal(size=(2, 3, 4)).astype(np.float32)) if audio else (image,)
    layer.build(*(x.shape for x in inputs))

    def gradients():
        def loss(weights, *inputs):
            outputs = layer.stateless_call(weights, [], *inputs)[0]
            return ops.sum(outputs * ops.cos(ops.arange(outputs.size).reshape(outputs.shape)))

        weights = [w.value for w in layer.weights]
        argnums = tuple(range(1 + len(inputs)))
        return jax.jit(jax.value_and_grad(loss, argnums))(weights, *inputs)

    found = jax.tree.leaves(gradients())
    monkeypatch.setattr(conv_lstm, "on_jax_cpu", lambda: False)
    wanted = jax.tree.leaves(gradients())
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_places_and_steps_share_the_weights_of_a_layer():
    def shapes(edge, steps):
        layer = conv_lstm.ConvLSTM(2)
        layer.build((None, edge, edge, 1), (None, steps, 5))
        return {w.name: tuple(w.shape) for w in layer.weights}

    wanted = {"kernel": (3, 3, 1, 8), "recurrent_kernel": (3, 3, 2, 8), "bias": (8,)}
    assert shapes(4, 3) == shapes(28, 91) == {**wanted, "audio_kernel": (5, 8)}


@pytest.mark.parametrize(
    ("architecture", "count"),
    [
        # 3 x 3 x (1 + 64) x 256 + 201 x 256 + 256, 3 x 3 x 128 x 256 + 256
        ("clstm_initial", 201_472 + 295_168 + (7 * 7 * 64 + 1) * 128 + 129 * 10),
        # 9 x 64 + 64, (201 + 64 + 1) x 256, 3 x 3 x 128 x 256 + 64 x 256 + 256
        ("clstm_second", 640 + 68_096 + 311_552 + (7 * 7 * 64 + 1) * 128 + 129 * 10),
        # 640, 9 x 64 x 64 + 64, 68 096, (64 + 64 + 1) x 256
        ("clstm_fc", 640 + 36_928 + 68_096 + 33_024 + (7 * 7 * 64 + 64 + 1) * 128 + 129 * 10),
    ],
)
def test_full_size_has_the_papers_layers(architecture, count):
    assert build_clstm(architecture, FULL).count_params() == count


def test_forget_gate_starts_open():
    layer = conv_lstm.ConvLSTM(2)
    layer.build((None, 4, 4, 1), (None, 3, 5))
    assert np.asarray(layer.bias).tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("architecture", slow_but(["clstm_fc"], ARCHITECTURES))
def test_every_weight_learns_from_the_last_step(architecture):
    model, inputs = build_clstm(architecture, TINY), inputs_of(TINY, count=4)
    before = random_model(architecture).get_weights()
    model.set_weights(before)
    model.compile("sgd", {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    model.train_on_batch(inputs, np.array([0, 1, 2, 0]))
    for variable, old in zip(model.weights, before, strict=True):
        assert not np.array_equal(np.asarray(variable), old), variable.path


def test_bytes_and_floats_of_one_image_give_one_answer():
    model, inputs = random_model("clstm_initial"), inputs_of(TINY)
    inputs["image"] = inputs["image"].round()
    as_bytes = {**inputs, "image": inputs["image"].astype(np.uint8)}
    found = [outputs_of(model, x)["logits"] for x in (inputs, as_bytes)]
    np.testing.assert_array_equal(*found)


@each_architecture
def test_model_survives_saving_in_safe_mode(architecture, tmp_path):
    model, inputs = random_model(architecture), inputs_of(TINY)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    wanted = outputs_of(model, inputs)["logits"]
    np.testing.assert_array_equal(outputs_of(again, inputs)["logits"], wanted)
    timed = clstm.with_steps(again, architecture, TINY)
    np.testing.assert_allclose(outputs_of(timed, inputs)["logits"], wanted, atol=1e-6)


def test_unknown_architecture_and_tiny_image_are_told():
    with pytest.raises(UsageError, match="'late', wanted one of clstm_initial, clstm_second"):
        build_clstm("late", TINY)
    with pytest.raises(UsageError, match="at least 4 pixels a side"):
        build_clstm("clstm_fc", Sizes(image=3))


# --- Export -------------------------------------------------------------------------------------

_CONVERT = """
import sys, keras, onnx, tensorflow as tf, tf2onnx
import fusion_keras.backbones.clstm
model = keras.saving.load_model(sys.argv[1], safe_mode=True)
call = tf.function(
    lambda image, spectrogram: model({"image": image, "spectrogram": spectrogram}),
    autograph=False,
)
signature = [tf.TensorSpec((2, *model.input[n].shape[1:]), name=n) for n in model.input]
proto, _ = tf2onnx.convert.from_function(call, input_signature=signature, opset=18)
onnx.save(proto, sys.argv[2])
"""


@pytest.mark.slow
@each_architecture
def test_onnx_of_the_reduced_model_gives_the_outputs_of_jax(convert, architecture, tmp_path):
    import onnx
    import onnxruntime

    model, inputs = build_clstm(architecture, REDUCED), inputs_of(REDUCED)
    model.save(tmp_path / "model.keras")
    files = [str(tmp_path / "model.keras"), str(tmp_path / "model.onnx")]
    done = convert.run("-c", _CONVERT, *files)
    assert done.returncode == 0, done.stderr
    assert "Loop" not in {node.op_type for node in onnx.load(files[1]).graph.node}
    session = onnxruntime.InferenceSession(files[1], providers=["CPUExecutionProvider"])
    (found,) = session.run(None, inputs)
    np.testing.assert_allclose(found, outputs_of(model, inputs)["logits"], atol=1e-5)
