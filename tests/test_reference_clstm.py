"""The C-LSTMs and their PyTorch reference: logits, gradients, a training, weights both ways."""

import functools

import jax
import numpy as np
import pytest
import torch

from configs.digits_small import get_config
from fusion_keras.backbones.clstm import ARCHITECTURES, Sizes
from fusion_keras.errors import UsageError
from fusion_keras.fusion import audio_visual
from fusion_keras.fusion.audio_visual import ClstmSpec
from fusion_keras.fusion.state_dict import load_state_dict, state_dict, weights
from fusion_keras.reference import optimizers
from fusion_keras.reference.build import twin
from fusion_keras.reference.learn import step
from fusion_keras.training.losses import losses_of
from fusion_keras.training.optimizers import make_optimizer
from fusion_keras.training.recipes import resolve
from tests.support.pairs import called, one_thread  # noqa: F401
from tests.support.shared import slow_but

TINY = Sizes(image=9, steps=4, bins=5, units=3, hidden=6, classes=3)
ROWS = 6

each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def made(architecture, scale=0.4):
    """(spec, model) all of whose weights, biases too, are far from zero."""
    spec = ClstmSpec(architecture, TINY)
    model = audio_visual.build(spec).model
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, scale, w.shape) for w in model.get_weights()])
    return spec, model


def batch(seed=0):
    """As drawn: noise may leave 0 to 255."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(-50, 300, (ROWS, TINY.image, TINY.image, 1)).astype(np.float32)
    sound = rng.uniform(0, 2, (ROWS, TINY.steps, TINY.bins)).astype(np.float32)
    return {"image": image, "spectrogram": sound}, np.arange(ROWS, dtype=np.int32) % TINY.classes


@functools.cache
def train_settings():
    return resolve(get_config()).train


@each_architecture
def test_logits_equal_pytorchs(architecture):
    spec, model = made(architecture)
    reference, taken = twin(spec, model, {}, num_classes=TINY.classes)
    inputs, _ = batch()
    with torch.no_grad():
        theirs = reference(**taken(inputs)).numpy()
    assert np.ptp(theirs, axis=0).min() > 1e-2, "the examples are not told apart"
    np.testing.assert_allclose(called(model, inputs)["logits"], theirs, rtol=0, atol=1e-5)


@each_architecture
def test_every_gradient_equals_pytorchs(architecture):
    spec, model = made(architecture)
    inputs, labels = batch()
    reference, taken = twin(spec, model, {}, num_classes=TINY.classes)
    torch.nn.functional.cross_entropy(
        reference(**taken(inputs)), torch.from_numpy(labels).long()
    ).backward()
    theirs = {n: p.grad.numpy() for n, p in reference.named_parameters() if p.requires_grad}

    cross_entropy = losses_of(model, train_settings())["loss"]["logits"]

    fixed = [v.value for v in model.non_trainable_variables]

    def loss(values):
        logits = model.stateless_call(values, fixed, inputs, training=True)[0]["logits"]
        return cross_entropy(labels, logits).mean()

    found = jax.jit(jax.grad(loss))([v.value for v in model.trainable_variables])
    by_id = {id(v): x for v, x in zip(model.trainable_variables, found, strict=True)}
    ours = {
        name: weight.to_pytorch(*(np.asarray(by_id[id(v)]) for v in weight.variables))
        for name, weight in weights(model, spec).items()
        if weight.variables
    }
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        layer = name.partition(".")[0]
        largest = max(np.abs(g).max() for n, g in theirs.items() if n.startswith(layer + "."))
        assert largest > 1e-4, f"no gradient reaches {layer}"
        np.testing.assert_allclose(ours[name], x, rtol=0, atol=1e-3 * largest, err_msg=name)


@pytest.mark.parametrize("architecture", slow_but(["clstm_fc"], ARCHITECTURES))
def test_twenty_steps_of_adam_lose_what_pytorchs_lose(architecture):
    spec, model = made(architecture)
    train = train_settings()
    assert (train.optimizer, train.learning_rate) == ("adam", 1e-3)
    reference, taken = twin(spec, model, {}, num_classes=TINY.classes)
    optimizer, scheduler = optimizers.make_optimizer(train, reference, 20)
    model.compile(optimizer=make_optimizer(train, model, 20), **losses_of(model, train))
    ours, theirs = [], []
    for number in range(20):
        inputs, labels = batch(number % 2)
        ours.append(float(model.train_on_batch(inputs, {"logits": labels})))
        theirs.append(
            step(lambda x: reference(**taken(x)), inputs, labels, train, optimizer, scheduler)
        )
    assert abs(theirs[-1] - theirs[1]) > 0.005, "nothing was learned"
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@each_architecture
def test_weights_come_back_from_pytorch_as_they_went(architecture):
    spec, model = made(architecture)
    arrays = state_dict(model, spec)
    count = sum(x.size for n, x in arrays.items() if not n.endswith("bias_hh_l0"))
    assert count == model.count_params()
    _, other = made(architecture, scale=0.1)
    load_state_dict(other, spec, arrays, "the weights")
    for before, after in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_second_bias_of_pytorchs_lstm_is_refused_before_anything_changes():
    spec, model = made("clstm_fc")
    before = model.get_weights()
    arrays = {name: x + 1 for name, x in state_dict(model, spec).items()}
    with pytest.raises(UsageError, match=r"audio1.bias_hh_l0 is not zero.*add it to bias_ih_l0"):
        load_state_dict(model, spec, arrays, "the weights")
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
