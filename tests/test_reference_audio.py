"""The reference of models with sound: its outputs, gradients, statistics and weights are ours."""

import functools

import numpy as np
import pytest
import torch

from fusion_keras.backbones.presets import AudioPreset
from fusion_keras.backbones.whisper import WhisperBackbone
from fusion_keras.config import copied, get_config
from fusion_keras.fusion.state_dict import load_state_dict
from fusion_keras.fusion.variants import VARIANTS
from fusion_keras.reference import optimizers
from fusion_keras.training.recipes import resolve
from tests.support.gradients import LABELS, check
from tests.support.gradients import ROWS as BATCH
from tests.support.pairs import (
    called,
    differences,
    in_pytorch,
    make_family,
    make_pair,
    one_thread,  # noqa: F401
    our_outputs,
    quick_jit,
    their_outputs,
    tiny_audio,
    tiny_batch,
    tiny_image,
    tiny_sounds,
    tiny_text,
    torch_gradients,
    torch_inputs,
)
from tests.support.shared import slow_but

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE, FRAMES, ROWS = 32, 46, 6
TOLERANCE = 1e-4  # of the tap's largest magnitude
ALL = "text+image+audio"
WITH_SOUND = [v for v in VARIANTS if v not in ("text", "image", "tabular")]
JOINED = {
    "sequence": ("1+2+3:cross,2+-+1:cross,-+2+4:cross", "1+1+1:add,2+2+2:gate,-+2+8:attention"),
    "pooled": ("last+last+last:attention,1+2+3:cross", "2+-+0:gate,last+last+last:linear"),
}


@functools.cache
def presets():
    return tiny_text(2), tiny_image("vit", SIZE, layers=2), tiny_audio(FRAMES)


def pair_of(variant, **changes):
    _encoders()  # whose weights are drawn once more when they are made
    return make_pair(variant, *presets(), **{"width": 16, "modalities": ALL, **changes})


@functools.cache
def family():
    return make_family(*presets(), ("audio", "inter"), width=16, modalities=ALL)


@functools.cache
def whisper_family():
    sizes = {"num_layers": 2, "num_heads": 4, "hidden_dim": 32, "intermediate_dim": 64}
    whisper = AudioPreset(WhisperBackbone(FRAMES, **sizes), FRAMES / 100)
    made = ("audio", "late", "inter", "early")
    return make_family(*presets()[:2], whisper, made, width=16, modalities=ALL)


def whisper_inputs(rows) -> dict:
    return {**tiny_batch(rows, SIZE), "audio": tiny_sounds(rows, FRAMES, bands=80)}


def inputs(rows=ROWS, frames=FRAMES) -> dict:
    return {**tiny_batch(rows, SIZE), "audio": tiny_sounds(rows, frames)}


def settle(pair, values):
    """Give BatchNorm the statistics of these inputs, as at the end of a training.

    With others, eight blocks make all sounds one, and little is compared.
    """
    reference = pair.reference().train()
    for part in reference.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        reference(**torch_inputs(reference, values))
    arrays = {name: x.numpy() for name, x in reference.state_dict().items()}
    load_state_dict(pair.graph.model, pair.spec, arrays, "the settled reference")


@functools.cache
def _encoders():
    """All backbones, whole, compiled once for the weights and the statistics of the day."""
    model = family().encoders

    def run(trainable, fixed, values):
        return model.stateless_call(trainable, fixed, values, training=False)[0]

    compiled, lists = quick_jit(run), (model.trainable_variables, model.non_trainable_variables)
    return lambda values: compiled(*([v.value for v in variables] for variables in lists), values)


def our_parts(pair, values) -> dict[str, np.ndarray]:
    """As `our_outputs`, of our backbones and, compiled by itself, our fusion."""
    given = {n: values[n] for n in ("token_ids", "image", "audio")}
    found = {**_encoders()(given), **{n: x for n, x in values.items() if n.startswith("present_")}}
    taken = {x.name: np.asarray(found[x.name]) for x in pair.graph.fusion.inputs}
    taps = {name: taken[name] for name in pair.graph.taps()}
    return {**taps, **called(pair.graph.fusion, taken)}


def assert_equal(pair, values, ours=our_parts):
    settle(pair, values)
    found = differences(ours(pair, values), their_outputs(pair, values))
    worst = max(found, key=found.get)
    print(f"{worst}: {found[worst]:.1e}, logits {found['logits']:.1e}")
    assert found[worst] <= TOLERANCE, f"{worst}: {found[worst]:.2g}"


@pytest.mark.parametrize("variant", slow_but(("audio", "inter", "early"), WITH_SOUND))
def test_a_variant_with_sound_equals_its_reference(variant):
    assert_equal(pair_of(variant), inputs())


def test_variants_with_whisper_equal_their_reference():
    made, values = whisper_family(), whisper_inputs(ROWS)
    taps = called(made.encoders, {n: values[n] for n in ("token_ids", "image", "audio")})
    for variant, pair in made.pairs.items():
        taken = {x.name: taps[x.name] for x in pair.graph.fusion.inputs}
        ours = {n: taken[n] for n in pair.graph.taps()} | called(pair.graph.fusion, taken)
        found = differences(ours, their_outputs(pair, values))
        worst = max(found, key=found.get)
        print(f"{variant}, {worst}: {found[worst]:.1e}")
        assert found[worst] <= TOLERANCE, f"{variant}, {worst}: {found[worst]:.2g}"


@pytest.mark.parametrize(
    ("tokens", "junctions"),
    slow_but(
        [("pooled", JOINED["pooled"][0])], [(t, j) for t, listed in JOINED.items() for j in listed]
    ),
)
def test_every_join_with_sound_equals_its_reference(tokens, junctions):
    assert_equal(pair_of("inter", tokens=tokens, junctions=junctions), inputs())


@pytest.mark.parametrize("modalities", slow_but(["text+audio"], ["text+audio", "image+audio"]))
def test_sound_with_one_other_equals_its_reference(modalities):
    assert_equal(pair_of("inter", modalities=modalities, pool="cls", hidden=8), inputs())


@pytest.mark.parametrize("frames", [1, 52])
def test_clips_of_every_length_are_padded_alike(frames):
    pair = make_pair("audio", None, None, tiny_audio(frames))
    assert_equal(pair, {"audio": tiny_sounds(ROWS, frames)}, our_outputs)


@pytest.mark.parametrize("variant", slow_but(["inter"], ["inter", "late_score"]))
def test_stand_ins_of_three_equal_the_references(variant):
    pair, values = pair_of(variant, stand_ins=True), inputs()
    for row, modality in enumerate(("text", "image", "audio")):
        there = np.ones((ROWS, 1), np.float32)
        there[[row, 3 + row % 2]] = 0  # the fourth and the fifth row lack two and one
        values[f"present_{modality}"] = there
    assert_equal(pair, values)
    assert any(name.startswith("stand_ins.audio_") for name in pair.weights)


@pytest.mark.parametrize(
    ("variant", "changes"),
    [("hybrid", {"stand_ins": True}), ("inter", {"junctions": "1+1+1:gate"})],
)
def test_weights_come_back_from_pytorch_as_they_went(variant, changes):
    pair = pair_of(variant, **changes)
    model, reference = pair.graph.model, pair.reference()
    before = [np.array(v) for v in model.weights]
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 7.0, np.float32))
    arrays = {name: x.numpy() for name, x in reference.state_dict().items()}
    load_state_dict(model, pair.spec, arrays, "the reference")
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value, err_msg=weight.path)


# --- Training -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["audio", "inter"])
def test_every_gradient_equals_pytorchs(variant):
    worst = check(family(), variant, inputs(BATCH), LABELS)
    print(f"{variant}: {worst:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["audio", "late", "inter", "early"])
def test_every_gradient_with_whisper_equals_pytorchs(variant):
    worst = check(whisper_family(), variant, whisper_inputs(BATCH), LABELS)
    print(f"{variant}: {worst:.1e}")


@pytest.mark.slow
def test_a_step_moves_the_statistics_of_sound_as_pytorch_does():
    values, pair = inputs(BATCH), family().pairs["audio"]
    _, _, after = family().step("audio", values, np.eye(3)[LABELS])
    reference, counts = pair.reference(), {}
    for name, part in reference.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.register_forward_hook(
                lambda _, given, x, name=name: counts.update({name: x.numel() // x.shape[1]})
            )
    torch_gradients(reference, values, LABELS)
    state, ours = reference.state_dict(), in_pytorch(pair, after)
    assert len(counts) == 3 + 3 * 8 + 1
    for name, count in counts.items():
        mean, variance = f"{name}.running_mean", f"{name}.running_var"
        np.testing.assert_allclose(ours[mean], state[mean], rtol=1e-4, atol=1e-5)
        # PyTorch keeps n / (n - 1) of a batch's variance.
        before = 0.9 * pair.weights[variance].read()
        wanted = before + (ours[variance] - before) * count / (count - 1)
        np.testing.assert_allclose(wanted, state[variance], rtol=1e-4)
        assert np.abs(wanted - before).max() > 1e-3, f"{name} has not moved"


def test_sound_learns_with_its_own_rate_or_not_at_all():
    config = get_config()
    config.recipe, config.variant, config.fusion.modalities = "best", "inter", ALL
    settings = copied(resolve(config)).train
    reference = pair_of("inter").reference()
    optimizer, _ = optimizers.make_optimizer(settings, reference, 10)
    rates = {id(p): g["initial_lr"] for g in optimizer.param_groups for p in g["params"]}
    assert {rates[id(p)] for p in reference.audio.parameters()} == {settings.audio_rate}
    assert {rates[id(p)] for p in reference.junctions.parameters()} == {settings.learning_rate}
    assert settings.audio_rate != settings.learning_rate
    settings.audio_rate = 0.0
    optimizers.train_mode(reference, settings)
    assert optimizers.frozen_parts(reference, settings) == [reference.audio]
    assert reference.training
    assert not reference.audio.training
