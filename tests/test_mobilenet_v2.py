"""MobileNetV2 gives transformers' outputs on the same weights, at every tap."""

import functools
import json

import jax
import keras
import numpy as np
import pytest
import torch
from transformers import MobileNetV2Config, MobileNetV2ForImageClassification, MobileNetV2Model

from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.errors import UsageError
from tests.support.hf_encoders import randomise_convolutions
from tests.support.shared import slow_but

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOLERANCE = 1e-4  # of the tap's largest value


def _reference(seed=0, head=False, **fields):
    """A randomly initialised transformers model with random BatchNorm statistics too."""
    torch.manual_seed(seed)
    kind = MobileNetV2ForImageClassification if head else MobileNetV2Model
    return randomise_convolutions(kind(MobileNetV2Config(**fields)))


def _all_taps(backbone, images):
    """Every tap and then the summary, numpy, channels last."""
    outputs = [*backbone.taps.values(), backbone.summary]
    model = keras.Model(backbone.input, outputs)
    # Compiled whole: op by op JAX would compile some hundred small programs.
    return [np.asarray(x) for x in jax.jit(functools.partial(model, training=False))(images)]


def _all_reference_taps(model, images):
    """The same of the transformers model: its stem, its 16 layers, its pooled output."""
    found = []
    hook = model.conv_stem.register_forward_hook(lambda _m, _i, output: found.append(output))
    with torch.no_grad():
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        output = model(x, output_hidden_states=True)
    hook.remove()
    maps = [x.numpy().transpose(0, 2, 3, 1) for x in (*found, *output.hidden_states)]
    return [*maps, output.pooler_output.numpy()]


def _assert_same_taps(backbone, model, images):
    ours, theirs = _all_taps(backbone, images), _all_reference_taps(model, images)
    assert len(ours) == len(theirs) == 18
    for depth, (got, wanted) in enumerate(zip(ours, theirs, strict=True)):
        assert got.shape == wanted.shape, depth
        scale = np.abs(wanted).max()
        assert scale > 0.1, f"tap {depth} proves nothing: its values have faded"
        worst = np.abs(got - wanted).max() / scale
        assert worst <= TOLERANCE, f"tap {depth}: {worst}"


def _images(size, count=2, seed=0):
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, height, width, 3)).astype(np.float32)


TINY = {"depth_multiplier": 0.1, "image_size": 32}


@pytest.fixture
def tiny(tmp_path):
    """A tiny checkpoint directory and the model it was saved from."""
    model = _reference(**TINY)
    model.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny", model


EVERY_TAP = [
    ({}, 32),
    ({"tf_padding": False}, 32),
    # An odd size: SAME then pads both ends alike, and strides meet their last column.
    ({"image_size": [45, 37]}, (45, 37)),
    ({"tf_padding": False, "image_size": [45, 37]}, (45, 37)),
    ({"first_layer_is_expansion": False, "expand_ratio": 4, "layer_norm_eps": 0.01}, 32),
    ({"finegrained_output": False, "depth_divisible_by": 4, "min_depth": 12}, 32),
]


@pytest.mark.parametrize(("fields", "size"), slow_but(EVERY_TAP[3:5], EVERY_TAP))
def test_every_tap_is_that_of_transformers(tmp_path, fields, size):
    model = _reference(**{**TINY, **fields})
    model.save_pretrained(tmp_path)
    _assert_same_taps(MobileNetV2Backbone.from_hf(tmp_path), model, _images(size))


def test_a_checkpoint_with_a_task_head_loads_from_behind_its_prefix(tmp_path):
    model = _reference(head=True, **TINY)
    model.save_pretrained(tmp_path)
    _assert_same_taps(MobileNetV2Backbone.from_hf(tmp_path), model.mobilenet_v2, _images(32))


def test_another_image_size_than_the_checkpoints(tiny):
    directory, model = tiny
    backbone = MobileNetV2Backbone.from_hf(directory, image_shape=(64, 64, 3))
    _assert_same_taps(backbone, model, _images(64))


@pytest.mark.slow
def test_every_tap_of_mobilenet_v2_1_4_at_full_size(tmp_path):
    # google/mobilenet_v2_1.4_224's architecture; weights and BN statistics are random.
    model = _reference(depth_multiplier=1.4, image_size=224)
    model.save_pretrained(tmp_path)
    _assert_same_taps(MobileNetV2Backbone.from_hf(tmp_path), model, _images(224))


@pytest.mark.parametrize(
    ("depth_multiplier", "parameters"), [(1.0, 2_257_984), (1.4, 4_363_712), (0.35, 410_208)]
)
def test_parameter_count(depth_multiplier, parameters):
    assert MobileNetV2Backbone(depth_multiplier).count_params() == parameters


def test_initial_weights_are_he_normal_and_follow_the_seed():
    def kernels(seed):
        keras.utils.set_random_seed(seed)
        backbone = MobileNetV2Backbone(image_shape=(32, 32, 3))
        names = ("layer.15.conv_3x3.convolution", "layer.15.reduce_1x1.convolution")
        return [backbone.get_layer(name).get_weights()[0] for name in names]

    depthwise, pointwise = kernels(0)
    assert depthwise.std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert pointwise.std() == pytest.approx((2 / 960) ** 0.5, rel=0.05)
    assert not np.array_equal(depthwise, kernels(1)[0])
    np.testing.assert_array_equal(depthwise, kernels(0)[0])


def test_taps_are_numbered_from_the_stem():
    backbone = MobileNetV2Backbone()
    assert list(backbone.taps) == list(range(backbone.num_depths + 1))
    assert backbone.taps[0].shape == (None, 112, 112, 16)
    assert backbone.taps[4].shape == (None, 28, 28, 32)
    assert backbone.taps[16].shape == (None, 7, 7, 320)
    assert backbone.summary.shape == (None, 1280)


def test_preset_and_keras_file_round_trips(tmp_path):
    backbone = MobileNetV2Backbone(0.1, image_shape=(32, 32, 3), tf_padding=False, min_depth=12)
    images = _images(32)
    before = _all_taps(backbone, images)[-1]
    backbone.save_to_preset(str(tmp_path / "preset"))
    backbone.save(tmp_path / "backbone.keras")
    for again in (
        MobileNetV2Backbone.from_preset(str(tmp_path / "preset")),
        keras.models.load_model(tmp_path / "backbone.keras", safe_mode=True),
    ):
        assert isinstance(again, MobileNetV2Backbone)
        assert again.get_config() == backbone.get_config()
        np.testing.assert_allclose(_all_taps(again, images)[-1], before, atol=1e-6)


def test_the_dtype_reaches_every_layer():
    backbone = MobileNetV2Backbone(0.1, image_shape=(32, 32, 3), dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in backbone.layers[1:]} == {"bfloat16"}
    assert backbone.summary.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("argument", "value", "named"),
    [
        ("output_stride", 16, "got output_stride 16, wanted 32"),
        ("hidden_act", "swish", "got hidden_act 'swish'"),
        ("depth_multiplier", 0, "got depth_multiplier 0"),
        ("image_shape", (224, 224), r"got image_shape \(224, 224\)"),
    ],
)
def test_an_architecture_that_cannot_be_is_named(argument, value, named):
    with pytest.raises(UsageError, match=named):
        MobileNetV2Backbone(**{argument: value})


def _edit_config(directory, **fields):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _cut_short(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _pickled(directory):
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _without_a_tensor(directory):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    del tensors["layer.2.expand_1x1.normalization.running_var"]
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (_cut_short, "cannot be read as safetensors"),
        (_pickled, "only the pickled pytorch_model.bin"),
        (_without_a_tensor, "no tensor 'layer.2.expand_1x1.normalization.running_var'"),
        (lambda d: (d / "model.safetensors").unlink(), "got no model.safetensors"),
        (lambda d: (d / "config.json").unlink(), "without a config.json"),
        (lambda d: (d / "config.json").write_text("{"), "not valid JSON"),
        (lambda d: _edit_config(d, model_type="vit"), "got model_type 'vit'"),
        (lambda d: _edit_config(d, depth_multiplier=0.5), r"got shape \[8, 3, 3, 3\] for"),
        (lambda d: _edit_config(d, output_stride=8), "got output_stride 8"),
    ],
)
def test_a_bad_checkpoint_directory_is_named(tiny, harm, named):
    directory, _ = tiny
    harm(directory)
    with pytest.raises(UsageError, match=named):
        MobileNetV2Backbone.from_hf(directory)


@pytest.mark.slow
def test_the_imagenet_weights_and_their_top_1(weights_root, data_root):
    from PIL import Image
    from transformers import MobileNetV2ImageProcessor

    directory = weights_root / "mobilenet_v2_1.0_224"
    if not directory.is_dir():
        pytest.skip(f"no ImageNet weights at {directory}")
    model = MobileNetV2ForImageClassification.from_pretrained(directory).eval()
    paths = sorted((data_root / "tweets" / "images").iterdir())[:20]
    photos = [Image.open(path).convert("RGB") for path in paths]
    pixels = MobileNetV2ImageProcessor()(photos, return_tensors="pt")["pixel_values"]
    images = np.ascontiguousarray(pixels.numpy().transpose(0, 2, 3, 1))

    backbone = MobileNetV2Backbone.from_hf(directory)
    _assert_same_taps(backbone, model.mobilenet_v2, images[:4])

    kernel, bias = (x.detach().numpy() for x in (model.classifier.weight, model.classifier.bias))
    ours = np.asarray(backbone(images, training=False)) @ kernel.T + bias
    with torch.no_grad():
        theirs = model(pixels).logits.numpy()
    assert len(set(theirs.argmax(-1))) > 5  # the photos are told apart at all
    np.testing.assert_array_equal(ours.argmax(-1), theirs.argmax(-1))
