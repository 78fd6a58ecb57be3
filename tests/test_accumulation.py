"""A batch that is learned from in parts is learned from as a whole."""

import jax
import keras
import numpy as np
import pytest
import torch
from keras import layers

from fusion_keras.reference import optimizers
from fusion_keras.reference.learn import step
from fusion_keras.training import loop
from fusion_keras.training.accumulation import in_parts
from fusion_keras.training.experiment import train
from fusion_keras.training.plan import make_plan
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import Run
from tests.support import compiled
from tests.support.same_runs import assert_same
from tests.support.shared import slow_but
from tests.support.tiny import table

# All 40 rows in a batch, so that each epoch's loss is that of a step; pairs make three. No dropout.
STEPS = {"train__batch_size": 40, "train__epochs": 20, "fusion__dropout": 0.0}
CASES = {
    # No Adam, to which all gradients are as large, and nothing clipped.
    "image": {
        "variant": "image",
        "train__optimizer": "sgd",
        "train__clip_norm": 0.0,
        "train__learning_rate": 0.01,
        "train__image_rate": 0.01,
    },
    "withheld": {
        "variant": "early",
        "regression": True,
        "fusion__stand_ins": True,
        "augment__drop_text": 0.3,
        "augment__drop_image": 0.2,
        "augment__mixup": 0.3,
    },
    "taught": {
        "variant": "inter",
        "recipe": "distil",
        "train__patience": 0,
        "parent__warm_start": (),
        "fusion__junctions": "1+1:linear",
        "teacher__heads": 0.3,
        "teacher__taps": 0.1,
    },
}


@pytest.mark.parametrize("case", slow_but(["image"], CASES))
def test_twenty_steps_in_parts_are_twenty_steps(case, tiny, entries, tmp_path, request):
    changes, runs = {**STEPS, **CASES[case]}, []
    if case == "taught":
        changes["teacher__runs"] = f"('{request.getfixturevalue('tiny_run')}',)"
    for parts in (1, 4):
        run = Run(tmp_path / str(parts))
        flags = tiny.flags(run=run.folder, train__accumulate=parts, **changes)
        done = entries.run("fusion_keras.train", *flags, environment=compiled.fast())
        assert done.returncode == 0, done.stderr
        runs.append(run)
    whole, parts = runs
    losses = [float(line["loss"]) for line in table(whole, "history.csv")]
    assert len(losses) == 20
    assert losses[-1] < losses[0] / 2
    assert_same(parts, whole)


def test_killed_in_parts_it_goes_on(tiny, tmp_path, monkeypatch):
    # With dropout, whose state each part moves on.
    config = tiny.config(train__epochs=3, train__accumulate=4)
    undisturbed = train(config, tmp_path / "undisturbed")
    save, saved = loop.checkpoint.save, []

    def killed(*arguments):
        save(*arguments)
        saved.append(arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop.checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    assert len(saved) == 1
    assert_same(train(config, tmp_path / "run"), undisturbed)


def test_parents_have_the_batch_and_its_parts(tiny):
    plan = make_plan(tiny.config(variant="late", train__accumulate=4))
    for parent in plan.parents.values():
        assert (parent.config.train.batch_size, parent.config.train.accumulate) == (8, 4)


# --- One step -------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(3, 2, (8, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0, 0, 1])


def after_a_step(rows, labels, parts: int, *stack) -> keras.Model:
    """A model of a stack of layers, whose last one gives the logits, after one step of SGD."""
    x = start = keras.Input(rows.shape[1:], name="rows")
    for layer in stack:
        x = layer(x)
    model = in_parts(keras.Model({"rows": start}, {"logits": x}), parts)
    model.compile("sgd", {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    model.train_on_batch({"rows": rows}, {"logits": labels})
    return model


def moved(before, of_parts, momentum=0.9):
    """A moving statistic behind all the parts."""
    for value in of_parts:
        before = momentum * before + (1 - momentum) * value
    return before


def test_statistics_of_batch_norm_are_of_each_part():
    norm = layers.BatchNormalization(momentum=0.9)
    after_a_step(ROWS, LABELS, 4, norm, layers.Dense(2))
    parts = [ROWS[i::4] for i in range(4)]
    np.testing.assert_allclose(norm.moving_mean, moved(0.0, [x.mean(0) for x in parts]), rtol=1e-5)
    np.testing.assert_allclose(
        norm.moving_variance, moved(1.0, [x.var(0) for x in parts]), rtol=1e-5
    )


def test_pytorch_learns_from_the_same_parts(tiny):
    norm, seen, after = torch.nn.BatchNorm1d(3), [], []
    dense = torch.nn.Linear(3, 2)

    def forward(inputs):
        rows = torch.from_numpy(inputs["rows"])
        norm(rows)
        seen.append(len(rows))
        return dense(rows)

    before = {name: value.clone() for name, value in dense.state_dict().items()}
    for parts in (1, 4):
        dense.load_state_dict(before)
        norm.reset_running_stats()
        settings = resolve(tiny.config(train__accumulate=parts, train__optimizer="sgd")).train
        learning = optimizers.make_optimizer(settings, dense, 10)
        loss = step(forward, {"rows": ROWS}, LABELS, settings, *learning)
        after.append(np.concatenate([[loss], *(p.detach().ravel() for p in dense.parameters())]))
    assert seen == [8, 2, 2, 2, 2]
    np.testing.assert_allclose(after[1], after[0], rtol=1e-5)
    assert not np.allclose(after[0][1:], np.concatenate([v.ravel() for v in before.values()]))
    wanted = moved(0.0, [ROWS[i::4].mean(0) for i in range(4)])
    np.testing.assert_allclose(norm.running_mean, wanted, rtol=1e-5)


def test_dropout_is_drawn_for_each_part():
    ones, zeros = np.ones((8, 64), np.float32), np.zeros(8, int)
    dense = layers.Dense(2, kernel_initializer="zeros", use_bias=False)
    after_a_step(ones, zeros, 8, layers.Dropout(0.5), dense)
    # Each part, a row, moves a weight by a whole step or, where its unit is dropped, not at all.
    moves = np.abs(np.asarray(dense.kernel)[:, 0])
    shares = np.rint(8 * moves / moves.max())
    assert len(set(shares)) > 3


def test_a_step_in_parts_needs_less_memory():
    rows, labels = np.zeros((1024, 32), np.float32), np.zeros(1024, int)
    needed = []
    for parts in (1, 4):
        stack = [layers.Dense(32, "tanh") for _ in range(12)]
        model = after_a_step(rows, labels, parts, *stack, layers.Dense(2))
        variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        state = tuple([v.value for v in kind] for kind in variables)
        lowered = jax.jit(model.train_step).lower(state, ({"rows": rows}, {"logits": labels}))
        needed.append(lowered.compile().memory_analysis().temp_size_in_bytes)
    # A quarter of the activations, and the sum of gradients.
    assert needed[1] < needed[0] / 2
