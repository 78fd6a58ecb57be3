"""The layers written for XLA's CPU code give their Keras originals' values and gradients."""

import textwrap

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from fusion_keras.backbones import depthwise, pointwise
from fusion_keras.backbones.convolution import Conv2D
from fusion_keras.backbones.depthwise import DepthwiseConv2D
from fusion_keras.backbones.pointwise import BatchNormalization, PointwiseConv2D
from tests.support.shared import slow_but

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _outputs_and_gradients(layer, weights, image, **options):
    """Output, d(loss)/d(image) and d(loss)/d(each weight) for a loss that weighs all alike."""
    if not layer.built:
        layer.build(image.shape)
    layer.set_weights(weights)
    values = [variable.value for variable in layer.trainable_variables]
    fixed = [variable.value for variable in layer.non_trainable_variables]

    def output(values, image):
        return layer.stateless_call(values, fixed, image, **options)[0]

    def loss(values, image):
        y = output(values, image)
        return jnp.sum(y * jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    by_values, by_image = jax.grad(loss, argnums=(0, 1))(values, jnp.asarray(image))
    return [np.asarray(x) for x in (output(values, image), by_image, *by_values)]


def _assert_same(ours, original, image, **options):
    original.build(image.shape)
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.5, 1.5, w.shape) for w in original.get_weights()]
    pairs = zip(
        _outputs_and_gradients(ours, weights, image, **options),
        _outputs_and_gradients(original, weights, image, **options),
        strict=True,
    )
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


def _image(*shape, mean=0.0):
    return np.random.default_rng(0).normal(mean, 1, shape).astype(np.float32)


@pytest.mark.parametrize("shape", slow_but([((3, 7, 10, 5),)], [((2, 8, 8, 3),), ((3, 7, 10, 5),)]))
@pytest.mark.parametrize(
    ("kernel", "strides"),
    slow_but([(3, 1), (3, 2), (7, 1)], [(3, 1), (3, 2), (5, 3), (7, 1), (7, 2)]),
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_slices_are_the_depthwise_convolution(shape, kernel, strides, padding):
    options = {"kernel_size": kernel, "strides": strides, "padding": padding}
    _assert_same(
        DepthwiseConv2D(**options), keras.layers.DepthwiseConv2D(**options), _image(*shape)
    )


@pytest.mark.parametrize("activation", ["relu6", "hard_silu"])
def test_what_stands_in_front_of_a_depthwise_convolution_is_worked_out_once(activation):
    def operations(kernel, function):
        layer = DepthwiseConv2D(kernel, padding="same", use_bias=False)
        image = _image(2, 16, 16, 8)
        layer.build(image.shape)
        compiled = jax.jit(lambda x: layer(function(2 * x + 1))).lower(image).compile()
        return compiled.cost_analysis()["flops"]

    chosen = keras.activations.get(activation)
    # Once for each kernel entry, a kernel of 25 would take more of them than one of 9.
    small, large = (operations(k, chosen) - operations(k, lambda x: x) for k in (3, 5))
    assert 0 < small == large


@pytest.mark.parametrize(
    ("shape", "kernel", "strides"),
    [
        # As one product, as a product of each image, and of several at a time.
        ((2, 3, 4, 5), 3, 1),
        ((3, 9, 11, 5), 3, 2),
        ((2, 70, 60, 24), 3, 1),
        ((4, 70, 30, 24), 3, 1),
        ((2, 23, 24, 3), 7, 2),
    ],
)
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_products_are_the_convolution(shape, kernel, strides, padding):
    options = {"kernel_size": kernel, "strides": strides, "padding": padding}
    _assert_same(Conv2D(6, **options), keras.layers.Conv2D(6, **options), _image(*shape))


def test_a_pointwise_convolution_is_the_matrix_product():
    image = _image(2, 5, 7, 4)
    _assert_same(PointwiseConv2D(6), keras.layers.Conv2D(6, 1), image)
    _assert_same(PointwiseConv2D(6, strides=2), keras.layers.Conv2D(6, 1, strides=2), image)


def test_moments_in_one_pass_are_the_moments():
    layer = BatchNormalization(momentum=0.0)
    image = _image(4, 6, 6, 3, mean=10.0)
    layer(image, training=True)  # momentum 0: the moving statistics become the batch's
    flat = image.astype(np.float64).reshape(-1, 3)
    np.testing.assert_allclose(layer.moving_mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, flat.var(0), rtol=1e-3)


def test_batch_normalization_has_keras_gradients():
    image = _image(4, 5, 5, 3)
    _assert_same(BatchNormalization(), keras.layers.BatchNormalization(), image, training=True)


def test_off_the_cpu_the_layers_are_the_ordinary_ones(monkeypatch):
    for module in (depthwise, pointwise):
        monkeypatch.setattr(module, "on_jax_cpu", lambda: False)
    image = _image(1, 8, 8, 4)
    for layer, wanted in ((DepthwiseConv2D(3), 4), (PointwiseConv2D(4), 1), (Conv2D(4, 3), 1)):
        layer.build(image.shape)
        graph = str(jax.make_jaxpr(layer.call)(image))
        assert f"feature_group_count={wanted}" in graph
        assert "custom" not in graph


def test_on_the_cpu_they_hold_no_convolution():
    image = _image(1, 8, 8, 4)
    for layer in (DepthwiseConv2D(3), PointwiseConv2D(4)):
        layer.build(image.shape)
        assert "conv_general_dilated" not in str(jax.make_jaxpr(layer.call)(image))


@pytest.mark.slow
def test_tensorflow_exports_a_plain_depthwise_convolution(convert, tmp_path):
    """A file saved on JAX, loaded on TensorFlow: the graph an exporter sees, and its values."""
    from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone

    backbone = MobileNetV2Backbone(0.1, image_shape=(32, 32, 3))
    image = _image(2, 32, 32, 3)
    backbone.save(tmp_path / "model.keras")
    np.save(tmp_path / "image.npy", image)
    np.save(tmp_path / "summary.npy", np.asarray(backbone(image, training=False)))
    script = """
        import collections, sys
        import numpy as np
        import tensorflow as tf
        import fusion_keras.backbones.mobilenet_v2
        import keras
        folder = sys.argv[1]
        model = keras.models.load_model(folder + "/model.keras", safe_mode=True)
        image = np.load(folder + "/image.npy")
        wanted = np.load(folder + "/summary.npy")
        np.testing.assert_allclose(model(image, training=False), wanted, atol=1e-4)
        spec = tf.TensorSpec((None, 32, 32, 3))
        graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec).graph
        counts = collections.Counter(op.type for op in graph.get_operations())
        assert counts["DepthwiseConv2dNative"] == 17, counts
        assert counts["Conv2D"] == 35, counts
        assert not [kind for kind in counts if "Call" in kind or "Slice" in kind], counts
    """
    done = convert.run("-c", textwrap.dedent(script), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
