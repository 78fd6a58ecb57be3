"""The contract of every family of image backbones: transformers' outputs at every tap, one way to
be named, loaded, saved, cut and prepared for.

ViT and MobileNetV2 have files of their own for what only they do. Of families that are timm's and
not transformers' the outputs are the PyTorch reference's; `tests/test_timm.py` has timm's own.
"""

import functools
import io
import itertools
import json

import jax
import keras
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextImageProcessorPil,
    ConvNextV2Config,
    DeiTImageProcessorPil,
    EfficientNetConfig,
    EfficientNetImageProcessorPil,
    ResNetConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.presets import find_image, load_image
from fusion_keras.data.images import decode
from fusion_keras.errors import UsageError
from fusion_keras.fusion.describe import count_macs
from tests.support.hf_encoders import TOLERANCE, worst_difference
from tests.support.image_families import EFFICIENTNET, FAMILIES
from tests.support.shared import slow_but

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def _saved(family, path, seed=0, headed=False, **fields):
    torch.manual_seed(seed)
    model = family.build({**family.tiny, **fields}, headed)
    family.save(model, path)
    return model


def _images(size, rows=2):
    return np.random.default_rng(0).uniform(-1, 1, (rows, size, size, 3)).astype(np.float32)


def _ours(backbone, images):
    """Every tap and then the summary."""
    model = keras.Model(backbone.input, [*backbone.taps.values(), backbone.summary])
    # Compiled whole: op by op JAX would compile some hundred small programs.
    return [np.asarray(x) for x in jax.jit(functools.partial(model, training=False))(images)]


def _theirs(family, model, images):
    with torch.no_grad():
        found = family.taps(model, torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return [x.numpy() for x in found]


# --- Outputs ------------------------------------------------------------------------------------

CASES = [
    pytest.param(
        family,
        fields,
        size,
        id=f"{family.name}-{number}",
        marks=[pytest.mark.slow] if number in family.slow else [],
    )
    for family in FAMILIES
    for number, (fields, size) in enumerate([({}, 32), *family.unusual])
]


@pytest.mark.parametrize(("family", "fields", "size"), CASES)
def test_every_tap_and_the_summary_are_those_of_pytorch(tmp_path, family, fields, size):
    model = _saved(family, tmp_path, **fields)
    backbone = family.ours.from_hf(tmp_path, image_shape=(size, size, 3))
    assert list(backbone.taps) == list(range(backbone.num_depths + 1))
    ours, theirs = _ours(backbone, _images(size)), _theirs(family, model, _images(size))
    assert worst_difference(ours, theirs) <= TOLERANCE


# Fields of published checkpoints, those of B0's stages being transformers' defaults.
_PLAIN = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}
_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
_PER_STAGE = [name for name, value in EFFICIENTNET.items() if isinstance(value, list)]
_STAGES = {name: list(getattr(EfficientNetConfig(), name)) for name in _PER_STAGE}
PUBLISHED = {
    "resnet-18": ("resnet", {**_PLAIN, "depths": [2, 2, 2, 2]}),
    "resnet-50": ("resnet", ResNetConfig().to_dict()),
    "convnext-tiny": ("convnext", ConvNextConfig().to_dict()),
    "convnextv2-atto": (
        "convnextv2",
        ConvNextV2Config(hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2]).to_dict(),
    ),
    "efficientnet-b0": (
        "efficientnet",
        {**_STAGES, "width_coefficient": 1.0, "hidden_dim": 1280, "image_size": 224},
    ),
    "mobilenetv3_small_100": ("mobilenetv3_small_050", {"architecture": "mobilenetv3_small_100"}),
    "mobilenetv3_large_100": ("mobilenetv3_small_050", {"architecture": "mobilenetv3_large_100"}),
    "tf_mobilenetv3_large_075": (
        "mobilenetv3_small_050",
        {"architecture": "tf_mobilenetv3_large_075"},
    ),
    "efficientnet_lite0": ("efficientnet_lite0", {}),
    "tf_efficientnet_lite0": ("efficientnet_lite0", {"architecture": "tf_efficientnet_lite0"}),
    "deit-small-distilled": (
        "deit",
        {**_SMALL, "intermediate_size": 1536, "image_size": 224, "patch_size": 16},
    ),
    "clip-vit-base-patch32": ("clip_vision_model", CLIPVisionConfig().to_dict()),
    "clip-vit-base-patch16": ("clip_vision_model", CLIPVisionConfig(patch_size=16).to_dict()),
    "siglip-base-patch16-224": ("siglip_vision_model", SiglipVisionConfig().to_dict()),
    "dinov2-small": ("dinov2", {**_SMALL, "mlp_ratio": 4, "image_size": 518, "patch_size": 14}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tap_of_the_published_sizes(tmp_path, name):
    kind, fields = PUBLISHED[name]
    (family,) = (f for f in FAMILIES if f.name == kind)
    model = _saved(family, tmp_path, **fields)
    backbone, images = load_image(str(tmp_path)).backbone, _images(224)
    assert backbone.input.shape == (None, 224, 224, 3)
    worst = worst_difference(_ours(backbone, images), _theirs(family, model, images))
    print(f"{name}, worst relative difference of {len(backbone.taps) + 1} taps: {worst:.2e}")
    assert worst <= TOLERANCE


@each_family
def test_weights_under_a_classifiers_prefix_are_found(tmp_path, family):
    model = _saved(family, tmp_path, headed=True)
    backbone = family.ours.from_hf(tmp_path, image_shape=(32, 32, 3))
    ours = _ours(backbone, _images(32))
    theirs = _theirs(family, family.inner(model), _images(32))
    assert worst_difference(ours, theirs) <= TOLERANCE
    facts = find_image(str(tmp_path), 32)[0].facts
    assert (facts.num_depths, facts.width) == (family.depths, family.width)


# --- The contract -------------------------------------------------------------------------------


@each_family
def test_a_directory_is_known_by_its_model_type_and_described_before_it_is_loaded(tmp_path, family):
    _saved(family, tmp_path)
    source, spec, _ = find_image(str(tmp_path), 32)
    assert source.cls is family.ours
    facts, backbone = source.facts, load_image(str(tmp_path), 32).backbone
    assert type(backbone) is family.ours
    assert facts.num_depths == backbone.num_depths == family.depths
    assert facts.width == family.width
    assert facts.lacks_last == ""
    assert spec.size == 32
    assert backbone.input.shape == (None, 32, 32, 3)


@each_family
def test_a_saved_preset_gives_the_same_model_at_its_size_and_at_another(tmp_path, family):
    _saved(family, tmp_path / "hf")
    backbone = family.ours.from_hf(tmp_path / "hf", image_shape=(32, 32, 3), name="mine")
    backbone.save_to_preset(str(tmp_path / "own"))
    again = load_image(str(tmp_path / "own")).backbone
    assert type(again) is family.ours
    assert again.get_config() == backbone.get_config()
    facts = find_image(str(tmp_path / "own"))[0].facts
    assert (facts.num_depths, facts.width) == (family.depths, family.width)
    for got, wanted in zip(again.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=got.path)
    larger = load_image(str(tmp_path / "own"), 48).backbone
    assert larger.input.shape == (None, 48, 48, 3)
    assert larger.summary.shape == backbone.summary.shape


@each_family
def test_a_cut_holds_what_its_depth_needs_and_nothing_behind_it(tmp_path, family):
    _saved(family, tmp_path)
    backbone = family.ours.from_hf(tmp_path, image_shape=(32, 32, 3))
    held = [
        {v.path for v in cut(backbone, [depth]).weights} for depth in range(backbone.num_depths + 1)
    ]
    everything = {v.path for v in cut(backbone, ["last"]).weights}
    for shallow, deep in itertools.pairwise(held):
        assert shallow < deep
    assert held[-1] <= everything == {v.path for v in backbone.weights}


@each_family
def test_a_saved_cut_model_loads_in_safe_mode(tmp_path, family):
    _saved(family, tmp_path)
    backbone = family.ours.from_hf(tmp_path, image_shape=(32, 32, 3))
    model = cut(backbone, [0, 2, "last"], name="front")
    model.save(tmp_path / "front.keras")
    again = keras.saving.load_model(tmp_path / "front.keras", safe_mode=True)
    for got, wanted in zip(again.weights, model.weights, strict=True):
        np.testing.assert_array_equal(got, wanted, err_msg=got.path)


@each_family
def test_the_dtype_reaches_every_layer(tmp_path, family):
    _saved(family, tmp_path)
    backbone = family.ours.from_hf(tmp_path, image_shape=(32, 32, 3), dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in backbone.layers[1:]} == {"bfloat16"}
    assert {tap.dtype for tap in (*backbone.taps.values(), backbone.summary)} == {"bfloat16"}


def _edit(name, **fields):
    def edit(directory):
        path = directory / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


def _without_a_tensor(directory):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    del tensors[sorted(tensors)[0]]
    save_file(tensors, path)


def _as_integers(directory):
    path = directory / "model.safetensors"
    save_file({name: array.astype(np.int8) for name, array in load_file(path).items()}, path)


BROKEN = {
    "cut short": (
        lambda d: (d / "model.safetensors").write_bytes(b"0123456789"),
        "cannot be read as safetensors",
    ),
    "pickled": (
        lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"),
        "only the pickled pytorch_model.bin",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), r"got no model\.safetensors in"),
    "no config": (
        lambda d: (d / "config.json").unlink(),
        r"got .* without config\.json, wanted a dir",
    ),
    "in shards": (
        lambda d: (d / "model.safetensors").rename(d / "model-00001-of-00002.safetensors"),
        r"in 1 files such as model-00001.*max_shard_size",
    ),
    "quantised": (_as_integers, r"got I8 for '.*save the model as it was before"),
    "a tensor less": (_without_a_tensor, r"got no tensor '.*' in .*model\.safetensors"),
    "another family": (
        _edit("config.json", model_type="swin"),
        r"type 'swin' in .*wanted one of vit, mobilenet_v2, resnet, deit, efficientnet, dinov2, "
        "clip_vision_model, clip, siglip_vision_model, siglip, mobilenetv3_small_050, .*"
        "convnext, convnextv2",
    ),
}


@each_family
@pytest.mark.parametrize("harm", BROKEN)
def test_a_broken_directory_is_one_sentence(tmp_path, family, harm):
    _saved(family, tmp_path)
    change, message = BROKEN[harm]
    change(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_image(str(tmp_path), 32)


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("resnet", {"layer_type": "wide"}, "got layer_type 'wide', wanted 'basic' or"),
        ("resnet", {"depths": [1, 2]}, r"hidden_sizes \[8, 16, 24\] and depths \[1, 2\], wanted"),
        ("resnet", {"hidden_act": "tanh"}, "hidden_act 'tanh', wanted one of gelu"),
        ("resnet", {"hidden_sizes": [8, 16, 32]}, r"got shape \[24, 16, 3, 3\] for"),
        ("efficientnet", {"strides": [1, 2]}, "3 kernel_sizes, 3 in_channels, .* 2 strides"),
        ("efficientnet", {"strides": [1, 2, 3]}, r"strides \[1, 2, 3\], wanted 1 or 2"),
        ("efficientnet", {"pooling_type": "max"}, "pooling_type 'max'.* wanted 'mean'"),
        ("convnext", {"patch_size": [4, 2]}, r"got patch_size \[4, 2\], wanted one square edge"),
        ("convnext", {"hidden_sizes": [8]}, r"hidden_sizes \[8\] and depths \[1, 2, 1\], wanted"),
        ("convnext", {"num_stages": 2}, r"num_stages 2 and depths \[1, 2, 1\] in .*as many"),
        ("convnext", {"patch_size": 16}, "32 x 32 image for a ConvNeXt of 3 .* at least 64 pixels"),
        ("convnextv2", {"hidden_act": "tanh"}, "hidden_act 'tanh', wanted one of gelu"),
        ("convnextv2", {"hidden_sizes": [8, 16, 32]}, r"got shape \[24, 16, 2, 2\] for"),
        ("deit", {"patch_size": [8, 4]}, r"patch_size \[8, 4\].*one square edge"),
        ("dinov2", {"use_swiglu_ffn": True}, "use_swiglu_ffn in a DINOv2"),
        ("clip_vision_model", {"attention_dropout": 0.1}, "got attention_dropout 0.1 in"),
        ("clip_vision_model", {"hidden_act": "mish"}, "hidden_act 'mish', wanted one of"),
        ("siglip_vision_model", {"vision_use_head": False}, "vision_use_head=false in"),
        ("dinov2", {"image_size": 48}, r"shape \[1, 26, 32\].*wanted \[1, 37, 32\]"),
        (
            "mobilenetv3_small_050",
            {"architecture": "mobilenetv3_rw"},
            "'mobilenetv3_rw' in .*wanted",
        ),
        (
            "efficientnet_lite0",
            {"architecture": "efficientnet_b0"},
            "'efficientnet_b0' in .*wanted",
        ),
        ("mobilenetv3_small_050", {"model_args": {"act_layer": "relu"}}, "act_layer='relu' in"),
        (
            "mobilenetv3_small_050",
            {"model_args": {"global_pool": "max"}},
            "global_pool 'max'.*'avg'",
        ),
        ("mobilenetv3_small_050", {"model_args": {"pad_type": "valid"}}, "pad_type='valid' in"),
        (
            "mobilenetv3_small_050",
            {"architecture": "mobilenetv3_small_075"},
            r"got shape \[8, 16, 1, 1\] for 'blocks\.0\.0\.conv_pw\.weight'",
        ),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(tmp_path, family, fields, message):
    (chosen,) = (f for f in FAMILIES if f.name == family)
    _saved(chosen, tmp_path)
    _edit("config.json", **fields)(tmp_path)
    with pytest.raises(UsageError, match=message):
        load_image(str(tmp_path), 32)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("vit", {"image_size": None}),
        ("vit", {"image_size": [64]}),
        ("vit", {"image_size": "64"}),
        ("vit", {"num_hidden_layers": 0}),
        ("vit", {"patch_size": 0}),
        ("vit", {"hidden_size": "64"}),
        ("resnet", {"depths": 3}),
        ("resnet", {"embedding_size": "a"}),
    ],
)
def test_a_config_of_other_types_is_one_sentence(tmp_path, family, fields):
    (chosen,) = (f for f in FAMILIES if f.name == family)
    _saved(chosen, tmp_path)
    _edit("config.json", **fields)(tmp_path)
    with pytest.raises(UsageError, match=r"config\.json that does not describe a .*copy it again"):
        load_image(str(tmp_path), 32)


# --- Published sizes and preprocessing ----------------------------------------------------------

# transformers' own counts, or timm's (1.0.31) without the classifier, BatchNorm's statistics added;
# without a mask token, and without the poolers that their classifiers leave out.
PARAMETERS = {
    "resnet_18": 11_176_512 + 9600,
    "resnet_34": 21_284_672 + 17_024,
    "resnet_50": 23_508_032 + 53_120,
    "convnext_tiny": 27_820_128,
    "convnext_v2_atto": 3_387_400,
    "convnext_v2_femto": 4_848_240,
    "convnext_v2_pico": 8_553_280,
    "convnext_v2_nano": 14_982_800,
    "efficientnet_b0": 4_007_548 + 42_016,
    "mobilenet_v3_small_0.5": 1_593_224 - 1_025_000 + 6496,
    "mobilenet_v3_small_0.75": 2_041_872 - 1_025_000 + 9680,
    "mobilenet_v3_small_1.0": 2_542_856 - 1_025_000 + 12_112,
    "mobilenet_v3_large_0.75": 3_993_528 - 1_281_000 + 19_088,
    "mobilenet_v3_large_1.0": 5_483_032 - 1_281_000 + 24_400,
    "efficientnet_lite0": 4_652_008 - 1_281_000 + 42_016,
    "deit_tiny": 5_524_416,
    "deit_small": 21_665_664,
    "deit_tiny_distilled": 5_524_800,
    "deit_small_distilled": 21_666_432,
    "dinov2_small": 21_628_800,
    "siglip_b16": 92_884_224,
    "clip_vit_b32": 87_456_000 + 768 * 512,  # with the projection
    "clip_vit_b16": 85_799_424 + 768 * 512,
}


@pytest.mark.parametrize("name", slow_but(["resnet_18"], PARAMETERS))
def test_published_architectures_have_the_published_size(name):
    backbone = load_image(f"random:{name}").backbone
    assert backbone.count_params() == PARAMETERS[name]


# Of `last` with a classifier of 1000 classes, in millions: those of Howard et al. 2019, table 3,
# but of small 0.5, which is not in it, and of large 1.0, for which it says 219. Of Lite0 those of
# timm's convolutions; Google's page says 407, timm's table 400. Of ConvNeXt those of Liu et al.
# 2022, table 1, and of Woo et al. 2023, table 11.
MULTIPLY_ADDS = {
    "mobilenet_v3_small_0.5": 24.2,
    "mobilenet_v3_small_0.75": 44,
    "mobilenet_v3_small_1.0": 56,
    "mobilenet_v3_large_0.75": 155,
    "mobilenet_v3_large_1.0": 217,
    "efficientnet_lite0": 385,
    "convnext_tiny": 4470,
    "convnext_v2_atto": 550,
    "convnext_v2_femto": 780,
    "convnext_v2_pico": 1370,
    "convnext_v2_nano": 2450,
}


@pytest.mark.parametrize("name", slow_but(["mobilenet_v3_small_0.5"], MULTIPLY_ADDS))
def test_published_architectures_have_the_published_multiply_adds(name):
    backbone = load_image(f"random:{name}").backbone
    found = count_macs(cut(backbone, ["last"])) + 1000 * backbone.summary.shape[-1]
    assert found / 1e6 == pytest.approx(MULTIPLY_ADDS[name], rel=0.015)


# Of `last`, worked out by hand: P patches and the class token in every layer but the last, whose
# queries and feed-forward part are of the class token only.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "patch"), [("clip_vit_b32", 32), ("clip_vit_b16", 16)])
def test_published_towers_have_the_multiply_adds_worked_out_by_hand(name, patch):
    width, patches = 768, (224 // patch) ** 2
    tokens = patches + 1
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    final = (2 * tokens + 10) * width**2 + 2 * tokens * width
    wanted = patches * 3 * patch**2 * width + 11 * layer + final
    projected = wanted + width * 512
    assert count_macs(cut(load_image(f"random:{name}").backbone, ["last"])) == projected


_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# The preprocessor_config.json of the published checkpoints, whom it is of, and how transformers
# reads it. The ones without a distillation token are ViTs.
PREPROCESSORS = {
    "resnet": (
        ConvNextImageProcessorPil,
        {"crop_pct": 0.875, "resample": 3, "size": 224, **_IMAGENET},
    ),
    "convnext": (
        ConvNextImageProcessorPil,
        {"crop_pct": 0.875, "resample": 3, "size": 224, **_IMAGENET},
    ),
    "convnextv2": (
        ConvNextImageProcessorPil,
        {"crop_pct": 0.875, "resample": 3, "size": {"shortest_edge": 224}, **_IMAGENET},
    ),
    "deit": (
        DeiTImageProcessorPil,
        {"crop_size": 224, "do_center_crop": True, "resample": 3, "size": 256, **_IMAGENET},
    ),
    "vit": (
        DeiTImageProcessorPil,
        {"crop_size": 224, "do_center_crop": True, "resample": 3, "size": 256, **_IMAGENET},
    ),
    "dinov2": (
        BitImageProcessorPil,
        {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "resample": 3,
            "size": {"shortest_edge": 256},
            **_IMAGENET,
        },
    ),
    "clip_vision_model": (
        CLIPImageProcessorPil,
        {
            "crop_size": 224,
            "do_center_crop": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": 224,
        },
    ),
    "siglip_vision_model": (
        SiglipImageProcessorPil,
        {
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 3,
            "size": {"height": 224, "width": 224},
        },
    ),
    "efficientnet": (
        EfficientNetImageProcessorPil,
        {
            "crop_size": {"height": 289, "width": 289},
            "do_center_crop": False,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.47853944, 0.4732864, 0.47434163],
            "include_top": True,
            "resample": 0,
            "rescale_offset": False,
            "size": {"height": 224, "width": 224},
        },
    ),
}


def _pixels(preset, image):
    """What the backbone takes of an image, float [S, S, 3]."""
    file = io.BytesIO()
    image.save(file, "PNG")
    pixels = decode(file.getvalue(), preset.image_spec)
    return pixels * np.array(preset.scale) + np.array(preset.offset)


@pytest.mark.parametrize("name", PREPROCESSORS)
def test_a_published_preprocessor_file_gives_the_pixels_of_transformers(tmp_path, name):
    (family,) = (f for f in FAMILIES if f.name == name)
    processor, content = PREPROCESSORS[name]
    _saved(family, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    preset = load_image(str(tmp_path), 224)
    given = dict(content)
    if name in ("resnet", "convnext", "clip_vision_model"):
        # The class knows no bare number; its hub reader makes this of it.
        given["size"] = {"shortest_edge": 224}
    for width, height in ((300, 200), (181, 401), (97, 31)):
        values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(values)
        theirs = processor(**given)(image, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(_pixels(preset, image), theirs.transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize(
    "content",
    [
        {"crop_pct": None, "size": {"shortest_edge": 384}},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
        {"crop_pct": 0.95, "size": {"shortest_edge": 224}},
    ],
)
def test_convnexts_own_way_to_crop_is_that_of_transformers(tmp_path, content):
    (family,) = (f for f in FAMILIES if f.name == "convnext")
    _saved(family, tmp_path)
    content = {"resample": 3, **_IMAGENET, **content}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    preset = load_image(str(tmp_path), content["size"]["shortest_edge"])
    given = {n: v for n, v in content.items() if v is not None and n != "image_processor_type"}
    for width, height in ((300, 200), (181, 401)):
        values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        image = Image.fromarray(values)
        made = ConvNextImageProcessorPil(**given)(image, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(_pixels(preset, image), made.transpose(1, 2, 0), atol=1e-5)


def test_images_of_a_pair_are_prepared_as_its_processor_says(tmp_path):
    (family,) = (f for f in FAMILIES if f.name == "clip_vision_model")
    _saved(family, tmp_path)
    before = load_image(str(tmp_path), 224)
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 224}}
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps({"image_processor": halves}))
    assert load_image(str(tmp_path), 224).offset == -1.0
    file.write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert load_image(str(tmp_path), 224).offset == before.offset


@pytest.mark.parametrize("name", [n for n in PREPROCESSORS if n != "vit"])
def test_without_the_file_a_family_is_prepared_as_its_published_checkpoints(tmp_path, name):
    (family,) = (f for f in FAMILIES if f.name == name)
    _saved(family, tmp_path)
    without = load_image(str(tmp_path), 224)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[name][1]))
    with_it = load_image(str(tmp_path), 224)
    assert without.image_spec == with_it.image_spec
    assert (without.scale, without.offset) == (with_it.scale, with_it.offset)
