"""Learned stand-ins: what is missing has no say, what is there goes as it went."""

import jax
import numpy as np
import pytest

from fusion_keras.data.augment import AugmentSpec
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.data.pipeline import train_batches
from fusion_keras.errors import UsageError
from fusion_keras.fusion.graph import rebuilt
from fusion_keras.fusion.spec import decode, encode, from_dict, to_dict
from fusion_keras.fusion.state_dict import load_state_dict, state_dict
from fusion_keras.fusion.variants import VARIANTS
from fusion_keras.modalities.augmentation import augmentation
from fusion_keras.reference.build import tensors
from fusion_keras.studies.robustness import cells, models
from fusion_keras.studies.robustness.load import load
from fusion_keras.training.experiment import train
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import load_model, restore
from tests.support import tiny
from tests.support.pairs import make_pair, tiny_image, tiny_text
from tests.support.shared import slow_but

JOINT = [v for v in VARIANTS if v not in MODALITIES]
N = 4


@pytest.fixture(scope="module")
def backbones():
    return tiny_text(), tiny_image("mobilenet", 32)


@pytest.fixture(scope="module")
def make(backbones):
    made = {}

    def make(variant, **changes):
        key = (variant, *changes.items())
        if key not in made:
            made[key] = make_pair(variant, *backbones, stand_ins=True, **changes)
        return made[key]

    return make


def _inputs(seed=0, **present):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(1, 60, (N, 8)).astype(np.int32)
    token_ids[1, 3:] = 0
    there = {f"present_{m}": np.ones((N, 1), np.float32) for m in ("text", "image")}
    there |= {f"present_{m}": np.full((N, 1), x, np.float32) for m, x in present.items()}
    return {"token_ids": token_ids, "image": rng.integers(0, 256, (N, 32, 32, 3), "uint8"), **there}


def _logits(model, inputs):
    return np.asarray(model.predict_on_batch(inputs)["logits"])


@pytest.mark.parametrize("variant", slow_but(("inter", "late_score"), JOINT))
def test_a_missing_modality_has_no_say_and_one_that_is_there_has(make, variant):
    model = make(variant).graph.model
    for missing, name in (("text", "token_ids"), ("image", "image")):
        inputs = _inputs(**{missing: 0})
        other = inputs | {name: _inputs(seed=1)[name]}
        np.testing.assert_allclose(_logits(model, inputs), _logits(model, other), atol=1e-6)
        there = {f"present_{missing}": np.ones((N, 1), np.float32)}
        assert np.abs(_logits(model, inputs | there) - _logits(model, other | there)).max() > 1e-3


@pytest.mark.parametrize("variant", slow_but(["inter"], ["inter", "late_score"]))
def test_what_is_all_there_is_answered_as_without_stand_ins(make, backbones, variant):
    pair = make(variant)
    plain = make_pair(variant, *backbones)
    arrays = {n: x for n, x in state_dict(pair.graph.model, pair.spec).items() if "stand" not in n}
    load_state_dict(plain.graph.model, plain.spec, arrays, "the one with stand-ins")
    inputs = _inputs()
    wanted = _logits(plain.graph.model, {n: inputs[n] for n in ("token_ids", "image")})
    np.testing.assert_allclose(_logits(pair.graph.model, inputs), wanted, atol=1e-6)


def test_rows_of_a_batch_may_lack_different_ones(make):
    model = make("inter").graph.model
    mixed = _inputs()
    mixed["present_text"][0], mixed["present_image"][1] = 0, 0
    found = _logits(model, mixed)
    for row, missing in ((0, {"text": 0}), (1, {"image": 0}), (2, {})):
        np.testing.assert_allclose(found[row], _logits(model, _inputs(**missing))[row], atol=1e-6)


@pytest.mark.parametrize("variant", slow_but(["inter"], ["late", "late_score", "inter", "input"]))
def test_it_equals_the_reference(make, variant):
    pair = make(variant)
    inputs = _inputs()
    inputs["present_text"][0], inputs["present_image"][1] = 0, 0
    given = tensors(pair.reference(), inputs, 1 / 127.5, -1.0)
    wanted = pair.reference()(**given).detach().numpy()
    np.testing.assert_allclose(_logits(pair.graph.model, inputs), wanted, rtol=1e-4, atol=1e-5)


def test_the_spec_says_so_and_an_older_one_has_none(make):
    spec = make("inter").spec
    assert spec.stand_ins
    assert decode(encode(spec)) == spec
    values = to_dict(spec)
    assert from_dict(values) == spec
    del values["stand_ins"]
    assert not from_dict(values).stand_ins


def test_a_model_of_one_modality_has_nothing_to_stand_in_for(backbones):
    with pytest.raises(UsageError, match="this one takes text"):
        make_pair("text", *backbones, stand_ins=True)


@pytest.mark.parametrize("changes", [{"augment__enabled": False}, {"recipe": "demo"}])
def test_stand_ins_that_no_example_would_train_are_refused(tmp_path, changes):
    config = tiny.Bench(tmp_path).config(variant="late", fusion__stand_ins=True, **changes)
    with pytest.raises(UsageError, match="nothing is withheld"):
        resolve(config)


def test_training_withholds_each_at_its_rate_and_never_both():
    count = 4000
    arrays = {
        "label": np.zeros(count, np.int32),
        "present_text": np.ones((count, 1), np.float32),
        "present_image": np.ones((count, 1), np.float32),
        "text_last": np.arange(count, dtype=np.float32)[:, None],
    }
    spec = AugmentSpec(drop_text=0.3, drop_image=0.1)
    batches = list(
        train_batches(arrays, np.arange(count), count, 0, 1, augmentation=augmentation(spec, 1, {}))
    )
    ((inputs, _),) = batches
    text, image = inputs["present_text"][:, 0] == 0, inputs["present_image"][:, 0] == 0
    assert text.mean() == pytest.approx(0.3, abs=0.03)
    assert image.mean() == pytest.approx(0.1, abs=0.02)
    assert not (text & image).any()
    assert set(inputs["text_last"][:, 0]) == set(range(count))  # taps stay as they are


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory):
    return tiny.beside(tmp_path_factory.mktemp("stand_in"))


@pytest.fixture(scope="module")
def late(bench):
    changes = {"augment__drop_text": 0.3, "augment__drop_image": 0.3, "augment__enabled": True}
    config = bench.config(variant="late", fusion__stand_ins=True, fusion__dropout=0.0, **changes)
    return train(config, bench.folder / "late")


@pytest.mark.slow
def test_a_trained_run_comes_back_with_its_stand_ins(late):
    task = restore(late.folder)
    model = load_model(late.folder)
    graph = rebuilt(model, task.spec)
    arrays = {n: np.asarray(task.arrays[n][:N]) for n in (x.name for x in model.inputs)}
    arrays["present_text"] = np.zeros((N, 1), np.float32)
    np.testing.assert_allclose(_logits(graph.model, arrays), _logits(model, arrays), atol=1e-6)
    names = {n for n in state_dict(model, task.spec) if n.startswith("stand_ins")}
    assert names == {"stand_ins.text_last", "stand_ins.image_last"}


@pytest.mark.slow
def test_robustness_tells_the_model_what_is_missing(late):
    (contender,) = load([late.folder], [], [], "test")
    rows = contender.rows
    found = cells.damaged(rows, "image_missing", 0.5, seed=0, repeat=0)
    assert set(found) == {"present_image"}
    grey = models.dataclasses.replace(rows, inputs={"image": rows.inputs["image"]})
    pixels = cells.damaged(grey, "image_missing", 0.5, seed=0, repeat=0)["image"]
    went = (pixels == 127).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(found["present_image"][:, 0] == 0, went)
    assert 0 < went.sum() < len(went)
    nothing = {"image": np.zeros_like(rows.inputs["image"])}
    told = {"present_image": np.zeros_like(rows.inputs["present_image"])}
    np.testing.assert_array_equal(contender.classes(told | nothing), contender.classes(told))


def test_gradients_reach_a_stand_in_only_where_it_stands(make):
    fusion = make("inter").graph.fusion
    vector = fusion.get_layer("text_2_stand_in").vector
    index = next(i for i, v in enumerate(fusion.trainable_variables) if v is vector)
    rng = np.random.default_rng(0)
    taps = {x.name: rng.normal(size=(N, *(n or 8 for n in x.shape[1:]))) for x in fusion.inputs}
    taps = {n: np.ones(x.shape, "int32") if n == "mask" else x for n, x in taps.items()}
    there = taps | {f"present_{m}": np.ones((N, 1), np.float32) for m in ("text", "image")}

    def total(values, inputs):
        fixed = [v.value for v in fusion.non_trainable_variables]
        return fusion.stateless_call(values, fixed, inputs)[0]["logits"][:, 0].sum()

    gradient = jax.jit(jax.grad(total))
    values = [v.value for v in fusion.trainable_variables]
    missing = there | {"present_text": np.zeros((N, 1), np.float32)}
    assert not np.asarray(gradient(values, there)[index]).any()
    assert np.asarray(gradient(values, missing)[index]).any()
