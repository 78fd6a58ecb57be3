"""Our models and their PyTorch reference, written twice, give the same logits."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    MobileNetV2Config,
    MobileNetV2Model,
    ViTConfig,
    ViTModel,
)

from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.mobilenet_v2 import MobileNetV2Backbone
from fusion_keras.backbones.presets import ImagePreset, TextPreset
from fusion_keras.backbones.vit import ViTBackbone
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.graph import build
from fusion_keras.fusion.state_dict import load_state_dict, state_dict
from fusion_keras.fusion.variants import VARIANTS, Depths, make_spec
from tests.hf_encoders import randomise, randomise_convolutions
from tests.reference.build import empty, filled, tensors

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE, LENGTH, CLASSES = 64, 10, 3
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
MODELS = {
    "text": (BertModel, BertConfig(**SMALL, num_hidden_layers=6, vocab_size=60)),
    "mobilenet": (MobileNetV2Model, MobileNetV2Config(depth_multiplier=0.35, image_size=SIZE)),
    "vit": (
        ViTModel,
        ViTConfig(**SMALL, num_hidden_layers=12, image_size=SIZE, patch_size=8),
    ),
}
BACKBONES = {"text": BertBackbone, "mobilenet": MobileNetV2Backbone, "vit": ViTBackbone}
JOINED = (
    "2+4:add,4+8:gate",
    "2+-:add,-+8:gate",
    "2+4:cross",
    "last+last:attention",
    "2+4:attention,-+3:linear,0+-:concat,-+6:attention",
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Name -> a directory of random weights, BatchNorm's statistics too."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, (kind, config) in MODELS.items():
        torch.manual_seed(0)
        model = kind(config)
        (randomise_convolutions if name == "mobilenet" else randomise)(model)
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def both(checkpoints):
    """(variant, vision, settings of the fusion) -> our graph, the reference."""
    presets = {n: backbone.from_preset(str(checkpoints / n)) for n, backbone in BACKBONES.items()}

    def both(variant, vision, **changes):
        fusion = get_config().fusion
        fusion.update({"width": 32, **changes})
        depths = Depths(6, 16) if vision == "mobilenet" else Depths(6, 12, image_scales=True)
        spec = make_spec(variant, fusion, depths)
        text = TextPreset(presets["text"], checkpoints)
        image = ImagePreset(presets[vision], SimpleNamespace(size=SIZE), 1 / 127.5, -1.0)
        graph = build(spec, text, image, num_classes=CLASSES)
        rng = np.random.default_rng(0)
        for weight in graph.fusion.weights:
            # Also biases and positions, which begin at zero.
            weight.assign(weight + rng.normal(0, 0.2, weight.shape))
        theirs = empty(
            spec,
            text if "text" in spec.modalities else None,
            image if "image" in spec.modalities else None,
            CLASSES,
        )
        return graph, spec, filled(theirs, state_dict(graph.model, spec)).eval()

    return both


def inputs(seed=0, rows=4):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(1, 60, (rows, LENGTH)).astype(np.int32)
    for row in range(rows):
        token_ids[row, 2 + 2 * row :] = 0
    images = rng.integers(0, 256, (rows, SIZE, SIZE, 3)).astype(np.uint8)
    return {"token_ids": token_ids, "image": images}


def logits_of(reference, values):
    with torch.no_grad():
        return reference(**tensors(reference, values, 1 / 127.5, -1.0)).numpy()


def assert_equal(graph, spec, reference):
    values = inputs()
    taken = {x.name: values[x.name] for x in graph.model.inputs}
    ours = np.asarray(graph.model(taken, training=False)["logits"])
    theirs = logits_of(reference, values)
    assert np.ptp(ours, axis=0).max() > 0.02  # that examples differ is what is compared
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("vision", ["mobilenet", "vit"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_equals_its_reference(both, variant, vision):
    assert_equal(*both(variant, vision))


@pytest.mark.parametrize("junctions", JOINED)
def test_every_join_equals_its_reference(both, junctions):
    changes = {"tokens": "pooled"} if "last" in junctions else {}
    assert_equal(*both("inter", "mobilenet", junctions=junctions, **changes))


@pytest.mark.parametrize("changes", [{"pool": "cls"}, {"hidden": 16}, {"blocks": 2}, {"grid": 3}])
def test_every_setting_of_the_fusion_equals_its_reference(both, changes):
    assert_equal(*both("inter", "vit", **changes))
    if "grid" in changes:
        assert_equal(*both("early", "mobilenet", **changes))


def test_given_weights_of_scores_equal_the_references(both):
    assert_equal(*both("late_score", "mobilenet", weights=(0.25, 0.75)))


@pytest.mark.parametrize(
    ("variant", "vision", "changes"),
    [("inter", "vit", {}), ("hybrid", "mobilenet", {"hidden": 16}), ("late_score", "vit", {})],
)
def test_weights_come_back_from_pytorch_as_they_went(both, variant, vision, changes):
    graph, spec, reference = both(variant, vision, **changes)
    before = [np.array(v) for v in graph.model.weights]
    for weight in graph.model.weights:
        weight.assign(weight * 0 + 7)
    arrays = {name: x.numpy() for name, x in reference.state_dict().items()}
    load_state_dict(graph.model, spec, arrays, "the reference")
    for weight, value in zip(graph.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)


def test_weights_of_another_model_are_refused_and_change_nothing(both):
    graph, spec, reference = both("inter", "vit")
    before = [np.array(v) for v in graph.model.weights]
    arrays = {name: x.numpy() for name, x in reference.state_dict().items()}
    name = "heads.0.1.weight"
    for changed, said in (
        ({n: x for n, x in arrays.items() if n != name}, f"lacks {name}"),
        ({**arrays, "more": arrays[name]}, "has more, which this model has not"),
        ({**arrays, name: arrays[name][:, 1:]}, rf"{name} of shape .* wanted"),
        ({**arrays, name: arrays[name] * np.nan}, f"{name} with values that are not finite"),
    ):
        with pytest.raises(UsageError, match=said):
            load_state_dict(graph.model, spec, changed, "x.safetensors")
    for weight, value in zip(graph.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
