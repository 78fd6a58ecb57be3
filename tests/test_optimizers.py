"""Optimisers against PyTorch's, the rates of parts, and the schedule by hand."""

import keras
import numpy as np
import pytest
import torch
from keras import layers

from fusion_keras.backbones.presets import load_image, load_text
from fusion_keras.config import get_config
from fusion_keras.fusion.graph import build
from fusion_keras.fusion.variants import make_spec
from fusion_keras.training.optimizers import SGD, Adam, AdamW, WarmupDecay, make_optimizer
from fusion_keras.training.recipes import resolve
from tests.support.backbones import facts

STEPS = 5


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def steps_of_ours(optimizer, start: dict, decay: float, decays, rates=None, size=1.0):
    """Values after STEPS of fixed gradients of a size; `start` is name -> array."""
    variables = [keras.Variable(value, name=name) for name, value in start.items()]
    factors = [1.0] * len(variables) if rates is None else rates
    by_id = {id(v): factor for v, factor in zip(variables, factors, strict=True)}
    optimizer.configure(by_id, decay, decays)
    optimizer.build(variables)
    for step in range(STEPS):
        drawn = (size * draw(*v.shape, seed=step + 1) for v in variables)
        gradients = [keras.ops.convert_to_tensor(x) for x in drawn]
        optimizer.apply(gradients, variables)
    return {v.name: np.asarray(v) for v in variables}


def steps_of_torch(make, start: dict, factor=None, size=1.0):
    """The same with PyTorch; `make` takes name -> parameter, `factor` a step, of the rate."""
    parameters = {name: torch.nn.Parameter(torch.tensor(v)) for name, v in start.items()}
    optimizer = make(parameters)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor or (lambda step: 1.0))
    for step in range(STEPS):
        for parameter in parameters.values():
            parameter.grad = torch.tensor(size * draw(*parameter.shape, seed=step + 1))
        optimizer.step()
        scheduler.step()
    return {name: p.detach().numpy() for name, p in parameters.items()}


def assert_equal(ours, theirs, start):
    for name, value in ours.items():
        assert np.abs(value - start[name]).max() > 1e-3, "nothing has moved"
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=1e-6)


def everywhere(variable):
    return True


def test_sgd_with_momentum_and_decay_is_pytorchs():
    start = {"kernel": draw(7)}
    ours = steps_of_ours(SGD(0.05, momentum=0.9), start, 0.1, everywhere)
    theirs = steps_of_torch(
        lambda p: torch.optim.SGD(p.values(), lr=0.05, momentum=0.9, weight_decay=0.1), start
    )
    assert_equal(ours, theirs, start)


def test_sgd_follows_a_falling_rate_at_once_as_pytorchs_does():
    start = {"kernel": draw(7)}
    ours = steps_of_ours(SGD(WarmupDecay(0.05, STEPS, 0.0, "linear"), momentum=0.9), start, 0, None)
    theirs = steps_of_torch(
        lambda p: torch.optim.SGD(p.values(), lr=0.05, momentum=0.9),
        start,
        factor=lambda step: 1 - step / STEPS,
    )
    assert_equal(ours, theirs, start)


@pytest.mark.parametrize("beta_2", [0.999, 0.0])
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_gradients_as_small_as_epsilon_move_a_weight_as_far_as_in_pytorch(kind, beta_2):
    start = {"kernel": draw(7)}
    settings = {"epsilon": 1e-4, "beta_2": beta_2}
    made = {"Adam": Adam, "AdamW": AdamW}[kind](0.01, **settings)
    ours = steps_of_ours(made, start, 0.0, everywhere, size=1e-4)

    def make(p):
        more = {"eps": 1e-4, "betas": (0.9, beta_2), "weight_decay": 0.0}
        return getattr(torch.optim, kind)(p.values(), lr=0.01, **more)

    theirs = steps_of_torch(make, start, size=1e-4)
    assert_equal(ours, theirs, start)
    # The rearranged form's epsilon, which Keras's own has, would be seen here.
    keras_own = keras.Variable(start["kernel"])
    plain = keras.optimizers.Adam(0.01, **settings)
    for step in range(STEPS):
        plain.apply([keras.ops.convert_to_tensor(1e-4 * draw(7, seed=step + 1))], [keras_own])
    if beta_2:
        assert np.abs(np.asarray(keras_own) - theirs["kernel"]).max() > 1e-3


def test_adam_with_decay_is_pytorchs():
    start = {"kernel": draw(7)}
    ours = steps_of_ours(Adam(0.01, epsilon=1e-8), start, 0.1, everywhere)
    theirs = steps_of_torch(
        lambda p: torch.optim.Adam(p.values(), lr=0.01, eps=1e-8, weight_decay=0.1), start
    )
    assert_equal(ours, theirs, start)


def test_adamw_is_pytorchs_with_decay_on_matrices_only():
    start = {"kernel": draw(3, 2), "bias": draw(2)}
    ours = steps_of_ours(AdamW(0.01, epsilon=1e-8), start, 0.1, lambda v: len(v.shape) > 1)

    def make(p):
        groups = [{"params": p["kernel"], "weight_decay": 0.1}, {"params": p["bias"]}]
        return torch.optim.AdamW(groups, lr=0.01, eps=1e-8, weight_decay=0.0)

    assert_equal(ours, steps_of_torch(make, start), start)


def test_rates_of_variables_are_pytorchs_parameter_groups():
    start = {"old": draw(4), "new": draw(4)}
    ours = steps_of_ours(SGD(0.05, momentum=0.9), start, 0.1, everywhere, rates=[0.1, 1.0])

    def make(p):
        groups = [{"params": p["old"], "lr": 0.005}, {"params": p["new"]}]
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.1)

    assert_equal(ours, steps_of_torch(make, start), start)


# --- The optimiser of a config ------------------------------------------------------------------


def train_settings(**changes):
    config = get_config()
    config.recipe = "paper"
    config.train.update(changes)
    return resolve(config).train


@pytest.fixture(scope="module")
def model():
    text, image = load_text("tiny_bert"), load_image("tiny_vit")
    fusion = get_config().fusion
    fusion.width, fusion.heads = 8, 2
    spec = make_spec("inter", fusion, facts(6, 12, image_scales=True))
    return build(spec, {"text": text, "image": image}, num_classes=2, sequence_length=4).model


def moves(model, optimizer, gradient):
    """Name of the part -> every variable's largest move in one step of equal gradients."""
    before = [np.array(v) for v in model.trainable_variables]
    optimizer.apply([keras.ops.full(v.shape, gradient) for v in model.trainable_variables])
    parts = {id(v): layer.name for layer in model.layers for v in layer.trainable_variables}
    moved = {"text_backbone": [], "image_backbone": [], "fusion": []}
    for variable, old in zip(model.trainable_variables, before, strict=True):
        moved[parts[id(variable)]].append(np.abs(np.array(variable) - old).max())
    return moved


def test_each_part_moves_with_its_own_rate(model):
    train = train_settings(
        learning_rate=0.5, text_rate=0.125, image_rate=0.25, momentum=0.0, weight_decay=0.0
    )
    moved = moves(model, make_optimizer(train, model, steps=10), gradient=1.0)
    for part, rate in {"text_backbone": 0.125, "image_backbone": 0.25, "fusion": 0.5}.items():
        assert moved[part]
        np.testing.assert_allclose(moved[part], rate, rtol=1e-5)


def test_the_whole_gradient_is_clipped(model):
    train = train_settings(
        learning_rate=1.0, text_rate=1.0, image_rate=1.0, momentum=0.0, weight_decay=0.0,
        clip_norm=2.0,
    )  # fmt: skip
    before = [np.array(v) for v in model.trainable_variables]
    moves(model, make_optimizer(train, model, steps=10), gradient=3.0)
    after = [np.array(v) for v in model.trainable_variables]
    squares = sum(
        np.square(b - a, dtype="float64").sum() for a, b in zip(before, after, strict=True)
    )
    np.testing.assert_allclose(np.sqrt(squares), 2.0, rtol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_adamw_leaves_biases_and_norms_alone_and_sgd_decays_all(name):
    inputs = keras.Input((4, 6))
    x = layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    x = layers.LayerNormalization(name="norm")(layers.Dense(5, name="dense")(x))
    small = keras.Model(inputs, x)
    for variable in small.trainable_variables:
        variable.assign(np.ones(variable.shape))
    train = train_settings(optimizer=name, learning_rate=0.1, momentum=0.0, weight_decay=0.5)
    optimizer = make_optimizer(train, small, steps=10)
    optimizer.apply([keras.ops.zeros(v.shape) for v in small.trainable_variables])
    values = {v.path: float(np.array(v).flat[0]) for v in small.trainable_variables}
    decayed = {path for path, value in values.items() if value < 0.99}
    kernels = {path for path in values if path.endswith("kernel")}
    assert len(kernels) == 5
    assert decayed == (kernels if name == "adamw" else set(values))
    if name == "adamw":
        np.testing.assert_allclose([values[p] for p in decayed], 1 - 0.1 * 0.5, rtol=1e-6)


# --- The schedule -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "half", "last"),
    [
        ("constant", 2.0, 2.0),
        ("linear", 1.0, 2.0 / 80),
        ("cosine", 1.0, 1.0 * (1 + np.cos(np.pi * 79 / 80))),
    ],
)
def test_schedule_warms_up_peaks_and_decays(shape, half, last):
    # 100 steps, of which 20 warm up: then 80 of decay.
    schedule = WarmupDecay(peak=2.0, steps=100, warmup=0.2, shape=shape)
    values = {0: 0.1, 9: 1.0, 19: 2.0, 20: 2.0, 60: half, 99: last}
    for step, value in values.items():
        np.testing.assert_allclose(float(schedule(step)), value, rtol=1e-4, err_msg=str(step))


@pytest.mark.parametrize(("shape", "end"), [("constant", 3.0), ("linear", 0.0), ("cosine", 0.0)])
def test_schedule_ends_where_its_shape_says(shape, end):
    schedule = WarmupDecay(peak=3.0, steps=10, warmup=0.1, shape=shape)
    np.testing.assert_allclose(float(schedule(10)), end, atol=1e-6)
    np.testing.assert_allclose(float(schedule(1000)), end, atol=1e-6)


def test_schedule_without_warm_up_decays_from_the_first_step():
    schedule = WarmupDecay(peak=1.0, steps=4, warmup=0.0, shape="linear")
    np.testing.assert_allclose([float(schedule(s)) for s in range(5)], [1, 0.75, 0.5, 0.25, 0])


def test_schedule_is_made_again_from_its_config():
    schedule = WarmupDecay(peak=2.0, steps=50, warmup=0.3, shape="cosine")
    again = WarmupDecay.from_config(schedule.get_config())
    assert [float(again(s)) for s in range(50)] == [float(schedule(s)) for s in range(50)]


def test_the_schedule_drives_every_part(model):
    train = train_settings(
        learning_rate=0.5, text_rate=0.125, image_rate=0.25, momentum=0.0, weight_decay=0.0,
        schedule="linear", warmup=0.4,
    )  # fmt: skip
    moved = moves(model, make_optimizer(train, model, steps=10), gradient=1.0)
    # The first of four steps of warm-up.
    np.testing.assert_allclose(moved["fusion"], 0.5 / 4, rtol=1e-5)
    np.testing.assert_allclose(moved["text_backbone"], 0.125 / 4, rtol=1e-5)
