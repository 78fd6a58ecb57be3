"""Our models and their PyTorch reference, written twice, give the same taps and logits."""

import csv
import functools

import numpy as np
import pytest
import torch

from fusion_keras.backbones.presets import load_image, load_text
from fusion_keras.data.images import decode
from fusion_keras.data.tokens import encode, load_tokenizer
from fusion_keras.errors import UsageError
from fusion_keras.fusion.state_dict import load_state_dict
from tests.support.pairs import (
    VISION,
    called,
    differences,
    extreme_images,
    make_family,
    make_pair,
    one_thread,  # noqa: F401
    our_outputs,
    their_outputs,
    tiny_batch,
    tiny_image,
    tiny_text,
)
from tests.support.shared import slow_but
from tests.support.tiny import OF_TEXT_AND_IMAGES as VARIANTS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE, LENGTH, ROWS = 64, 10, 9
TOLERANCE = 1e-4  # of the tap's largest magnitude
JOINED = (
    "2+4:add,4+8:gate",
    "2+-:add,-+8:gate",
    "2+4:cross",
    "last+last:attention",
    "2+4:attention,-+3:linear,0+-:concat,-+6:attention",
)

# Either kind of taps, and each way to fuse them.
QUICK = (
    ("late", "vit"),
    ("inter", "mobilenet"),
    ("early", "vit"),
    ("late_score", "vit"),
)


@functools.cache
def tiny_presets(vision: str):
    return tiny_text(), tiny_image(vision, SIZE, layers=6)


def tiny(variant, vision, **changes):
    return make_pair(variant, *tiny_presets(vision), **{"width": 32, **changes})


def inputs() -> dict:
    """Sentences from none, [CLS][SEP], to one that fills, or was cut to, the length."""
    values = tiny_batch(ROWS, SIZE, LENGTH)
    assert (values["token_ids"][:, 2] == 0).any()
    assert values["token_ids"][:, -1].any()
    values["image"][:4] = extreme_images(SIZE)
    return values


def assert_equal(pair):
    values = inputs()
    found = differences(our_outputs(pair, values), their_outputs(pair, values))
    worst = max(found, key=found.get)
    assert found[worst] <= TOLERANCE, f"{worst}: {found[worst]:.2g}"


@pytest.mark.parametrize(
    ("variant", "vision"),
    slow_but(QUICK, [(variant, vision) for variant in VARIANTS for vision in VISION]),
)
def test_a_variant_equals_its_reference(variant, vision):
    assert_equal(tiny(variant, vision))


@pytest.mark.parametrize("junctions", slow_but(JOINED[:2], JOINED))
def test_every_join_equals_its_reference(junctions):
    changes = {"tokens": "pooled"} if "last" in junctions else {}
    assert_equal(tiny("inter", "mobilenet", junctions=junctions, **changes))


@pytest.mark.parametrize(
    "changes",
    slow_but([{"pool": "cls"}], [{"pool": "cls"}, {"hidden": 16}, {"blocks": 2}, {"grid": 3}]),
)
def test_every_setting_of_the_fusion_equals_its_reference(changes):
    assert_equal(tiny("inter", "vit", **changes))
    if "grid" in changes:
        assert_equal(tiny("early", "mobilenet", **changes))


@pytest.mark.slow
def test_given_weights_of_scores_equal_the_references():
    assert_equal(tiny("late_score", "mobilenet", weights=(0.25, 0.75)))


@pytest.mark.parametrize(
    ("variant", "vision", "changes"),
    slow_but(
        [("inter", "vit", {})],
        [("inter", "vit", {}), ("hybrid", "mobilenet", {"hidden": 16}), ("late_score", "vit", {})],
    ),
)
def test_weights_come_back_from_pytorch_as_they_went(variant, vision, changes):
    pair = tiny(variant, vision, **changes)
    graph, spec, reference = pair.graph, pair.spec, pair.reference()
    before = [np.array(v) for v in graph.model.weights]
    for weight in graph.model.weights:
        weight.assign(weight * 0 + 7)
    arrays = {name: x.numpy() for name, x in reference.state_dict().items()}
    load_state_dict(graph.model, spec, arrays, "the reference")
    for weight, value in zip(graph.model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)


def test_weights_of_another_model_are_refused_and_change_nothing():
    pair = tiny("inter", "vit")
    graph, spec, reference = pair.graph, pair.spec, pair.reference()
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


# --- The published sizes ------------------------------------------------------------------------


def real_inputs(data_root, text, image, length=26) -> dict:
    """Sentences and faces of CMU-MOSI, one cut and one empty, and images of nothing real."""
    with (data_root / "mosi_fer" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        lines = sorted(csv.DictReader(file), key=lambda line: len(line["text"]))
    chosen = [lines[0], lines[500], lines[1500], lines[-1]]
    texts = [*(line["text"] for line in chosen), "", *(line["text"] for line in chosen[1:])]
    token_ids, cut = encode(texts, load_tokenizer(text.tokenizer_dir), length)
    assert cut == 2
    assert (token_ids[4] != 0).sum() == 2
    folder = data_root / "mosi_fer"
    faces = np.stack([decode(folder / line["image"], image.image_spec) for line in chosen])
    return {
        "token_ids": token_ids,
        "image": np.concatenate([faces, extreme_images(image.image_spec.size)]),
    }


@pytest.mark.large
@pytest.mark.slow
@pytest.mark.parametrize("preset", ["random:mobilenet_v2_1.4", "random:vit_base"])
def test_every_variant_of_the_published_sizes_equals_its_reference(preset, data_root):
    torch.set_num_threads(2)
    text, image = load_text("random:bert_base", 0.0), load_image(preset)
    family = make_family(text, image, num_classes=2)
    values = real_inputs(data_root, text, image)
    taps = called(family.encoders, values)
    worst = {}
    for variant, pair in family.pairs.items():
        taken = {name: taps[name] for name in pair.graph.fusion.input}
        ours = {n: x for n, x in taken.items() if n != "mask"} | called(pair.graph.fusion, taken)
        found = differences(ours, their_outputs(pair, values))
        logits = found.pop("logits")
        print(f"{variant} {preset}: logits {logits:.1e}, taps {max(found.values()):.1e}")
        worst[variant] = max(logits, *found.values())
    assert max(worst.values()) <= TOLERANCE, worst
