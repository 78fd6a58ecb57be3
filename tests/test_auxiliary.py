"""Heads and projections for teaching only: they move the backbones, and nothing of them is left."""

import functools

import keras
import numpy as np
import pytest

from fusion_keras.errors import UsageError
from fusion_keras.training import auxiliary, experiment, loop, teaching
from fusion_keras.training.experiment import train
from fusion_keras.training.losses import losses_of, targets_of_outputs
from fusion_keras.training.plan import make_plan
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import load_model, restore
from fusion_keras.training.task import prepare

STUDENT = {"variant": "inter", "fusion__junctions": "1+2:linear", "teacher__pairs": 1}


@pytest.fixture
def student(tiny, tiny_run):
    """Settings -> the config of a student of `tiny_run`."""
    runs = {"teacher__runs": (str(tiny_run),)}
    return lambda **changes: tiny.config(**{**runs, **STUDENT, **changes})


def taught(config):
    plan, dataset, lesson = lesson_of(config)
    return teaching.taught(prepare(plan, dataset), lesson)


def lesson_of(config):
    plan = make_plan(config)
    dataset = plan.architecture.data(plan.config)
    return plan, dataset, teaching.prepare(plan, dataset)


def test_a_head_stands_on_the_deepest_tap_of_its_modality_and_moves_nothing_else(student):
    task = taught(student(teacher__heads=0.5, text__dropout=0.0, fusion__dropout=0.0))
    assert experiment.lesson_of(taught(student())).model.name == "fusion_model"
    lesson = experiment.lesson_of(task)
    assert set(lesson.model.output) == {"logits", "taught_text", "taught_image"}
    rows = task.rows["train"][:8]
    labels = task.arrays["label"][rows]
    inputs = {x.name: np.asarray(task.arrays[x.name][rows]) for x in lesson.model.inputs}
    # The logits learn nothing here, and of the images neither does the head.
    targets = {name: np.zeros_like(labels) for name in lesson.model.output}
    targets["taught_text"] = labels
    losses = losses_of(lesson.model, task.config.train, temperature=2.0, heads=0.5)
    assert losses["loss_weights"] == {"logits": 1.0, "taught_text": 0.5, "taught_image": 0.5}
    lesson.model.compile(optimizer=keras.optimizers.Adam(1e-3), **losses)
    parts = [task.graph.model.get_layer(n) for n in ("text_backbone", "image_backbone", "fusion")]
    before = [part.get_weights() for part in parts]
    said = lesson.model.predict_on_batch(inputs)["taught_text"]
    first, *_ = lesson.model.train_on_batch(inputs, targets)
    loss = losses_of(task.graph.model, task.config.train, temperature=2.0)["loss"]["logits"]
    untaught = float(np.mean(loss(labels, said)))
    assert first == pytest.approx(0.5 * untaught, rel=1e-4)
    moved = [
        any((a != b).any() for a, b in zip(part.get_weights(), weights, strict=True))
        for part, weights in zip(parts, before, strict=True)
    ]
    assert moved == [True, False, False]
    for _ in range(10):
        lesson.model.train_on_batch(inputs, targets)
    said = lesson.model.predict_on_batch(inputs)["taught_text"]
    assert float(np.mean(loss(labels, said))) < untaught


def test_a_row_that_lacks_a_modality_does_not_teach_its_head():
    labels = np.ones((2, 2, 3), np.float32)
    there = {"present_text": np.array([[1.0], [0.0]]), "present_image": np.ones((2, 1))}
    names = ("logits", "taught_image", "taught_text")
    _, targets = targets_of_outputs(({**there}, labels), names)
    assert targets["logits"] is labels
    assert targets["taught_text"].tolist() == [np.ones((2, 3)).tolist(), np.zeros((2, 3)).tolist()]
    assert (targets["taught_image"] == labels).all()
    # Of models without stand-ins every row counts.
    _, targets = targets_of_outputs(({}, labels), names)
    assert all((targets[name] == labels).all() for name in names)
    batch = {"label": labels, "tap_text": np.full((2, 4), 2.0, np.float32)}
    _, targets = targets_of_outputs((there, batch), ("logits", "tap_text"))
    assert targets["tap_text"].tolist() == [[2.0] * 4, [0.0] * 4]


def test_taps_are_those_of_the_first_teacher_standardised(student, tiny_run, tmp_path):
    other = train(student(variant="text", fusion__junctions="", train__epochs=1), tmp_path / "text")
    runs = (str(tiny_run), str(other.folder))
    _, dataset, lesson = lesson_of(student(teacher__taps=0.5, teacher__runs=runs))
    assert set(lesson.taps) == {"text", "image"}
    task = restore(tiny_run)
    rows = {m: np.r_[dataset.rows("train"), n] for m, n in lesson.extra.numbers.items()}
    taps = task.graph.encoders.predict(
        {
            "token_ids": np.asarray(task.arrays["token_ids"][rows["text"]]),
            "image": np.asarray(task.arrays["image"][rows["image"]]),
        },
        verbose=0,
    )
    mask = taps["mask"][..., None]
    pooled = {
        "text": (taps["text_2"] * mask).sum(1) / mask.sum(1),
        "image": taps["image_2"].mean(1),
    }
    at = np.r_[dataset.rows("train"), len(dataset) + np.arange(len(lesson.extra))]
    for modality, x in pooled.items():
        given = lesson.taps[modality]
        assert given.shape == (len(dataset) + len(lesson.extra), 17)
        wanted = (x - x.mean(0)) / x.std(0)
        np.testing.assert_allclose(given[at, :-1], wanted, atol=2e-3)
        assert (given[at, -1] == 1).all()
        assert not np.delete(given, at, axis=0).any()
    # A text has no images to compare.
    _, _, lesson = lesson_of(student(teacher__taps=0.5, variant="text", fusion__junctions=""))
    assert set(lesson.taps) == {"text"}


def test_a_tap_that_is_compared_moves_its_backbone_alone(student):
    config = student(teacher__taps=0.5, text__dropout=0.0, fusion__dropout=0.0)
    task = taught(config)
    model = experiment.lesson_of(task).model
    assert set(model.output) == {"logits", "tap_text", "tap_image"}
    rows = task.rows["train"][:8]
    inputs = {x.name: np.asarray(task.arrays[x.name][rows]) for x in model.inputs}
    tap, image = task.arrays["tap_text"][rows], task.arrays["tap_image"][rows]
    # The share of the images' taps is 0, as of rows that lack them.
    targets = {"logits": np.zeros_like(task.arrays["label"][rows]), "tap_text": tap}
    targets["tap_image"] = image * np.r_[np.ones(16), 0].astype(np.float32)
    losses = losses_of(model, task.config.train, taps=0.5)
    assert losses["loss_weights"] == {"logits": 1.0, "tap_text": 0.25, "tap_image": 0.25}
    model.compile(optimizer=keras.optimizers.Adam(1e-3), **losses)
    parts = [task.graph.model.get_layer(n) for n in ("text_backbone", "image_backbone", "fusion")]
    before = [part.get_weights() for part in parts]
    error = np.mean((tap[:, :-1] - model.predict_on_batch(inputs)["tap_text"]) ** 2)
    first, *_ = model.train_on_batch(inputs, targets)
    assert first == pytest.approx(0.25 * float(error), rel=1e-4)
    moved = [
        any((a != b).any() for a, b in zip(part.get_weights(), weights, strict=True))
        for part, weights in zip(parts, before, strict=True)
    ]
    assert moved == [True, False, False]
    for _ in range(10):
        model.train_on_batch(inputs, targets)
    assert np.mean((tap[:, :-1] - model.predict_on_batch(inputs)["tap_text"]) ** 2) < error


def test_nothing_of_them_is_left(student, tmp_path):
    plain = train(student(train__epochs=1), tmp_path / "plain")
    further = {"teacher__heads": 1.0, "teacher__taps": 1.0}
    run = train(student(train__epochs=1, **further), tmp_path / "further")
    one, two = (r.read_json("config.json") for r in (plain, run))
    assert one["parameters"] == two["parameters"]
    assert one["spec"] == two["spec"]
    one, two = (load_model(r.folder) for r in (plain, run))
    assert set(two.output) == {"logits"}
    names = [[v.path for v in model.weights] for model in (one, two)]
    assert names[0] == names[1]
    pairs = list(zip(one.get_weights(), two.get_weights(), strict=True))
    assert all(a.shape == b.shape for a, b in pairs)
    assert any((a != b).any() for a, b in pairs)
    with np.load(run.folder / "golden.npz") as golden:
        assert [name for name in golden if name.startswith("output_")] == ["output_logits"]
    with (run.folder / "history.csv").open() as one, (plain.folder / "history.csv").open() as two:
        assert one.readline() == two.readline()


class Killed(BaseException):
    """Stands for a kill at one certain place; nothing may handle it."""


@pytest.mark.parametrize("further", [{}, {"teacher__heads": 0.5, "teacher__taps": 0.5}])
def test_a_taught_run_that_was_killed_ends_as_an_undisturbed_one(
    student, tmp_path, monkeypatch, further
):
    config = functools.partial(student, train__epochs=3, **further)
    undisturbed = train(config(), tmp_path / "undisturbed")
    save, calls = loop.checkpoint.save, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise Killed
        save(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop.checkpoint, "save", killed)
        with pytest.raises(Killed):
            train(config(), tmp_path / "run")
    assert (tmp_path / "run.partial" / "checkpoint.npz").exists()
    run = train(config(), tmp_path / "run")
    one, two = (load_model(r.folder).get_weights() for r in (run, undisturbed))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    one, two = ((r.folder / "predictions.csv").read_bytes() for r in (run, undisturbed))
    assert one == two


def test_a_backbone_that_does_not_learn_gets_no_head(student):
    task = taught(student(teacher__heads=0.5, train__image_rate=0.0))
    assert set(experiment.lesson_of(task).model.output) == {"logits", "taught_text"}


def test_heads_are_pooled_as_the_junctions_pool(student):
    task = taught(student(teacher__heads=0.5))
    model = auxiliary.with_outputs(task.graph, task.spec, 2, {})
    rows = task.rows["train"][:2]
    text = np.array(task.arrays["token_ids"][rows])
    text[:, 8:] = 0
    taps = task.graph.encoder("text").predict_on_batch({"token_ids": text})["text_1"]
    pooled = keras.Model(model.inputs, model.get_layer("taught_text_mean").output)
    inputs = {"token_ids": text, "image": np.asarray(task.arrays["image"][rows])}
    for vector, tokens, ids in zip(pooled.predict_on_batch(inputs), taps, text, strict=True):
        np.testing.assert_allclose(vector, tokens[ids > 0].mean(0), rtol=1e-4, atol=1e-5)


def test_heads_that_could_teach_nothing_are_refused(student):
    def refused(message, **changes):
        with pytest.raises(UsageError, match=message):
            resolve(student(teacher__heads=0.5, **changes))

    refused("heads is 0.5, and this text takes text alone", variant="text", fusion__junctions="")
    refused("inter takes text alone", fusion__junctions="1+-:linear")
    refused("backbones of this late are frozen", variant="late", fusion__junctions="")
    refused("backbones of this inter are frozen", train__text_rate=0.0, train__image_rate=0.0)
    refused("no teacher: name finished runs", teacher__runs=(), teacher__pairs=2)
    for name in ("heads", "taps"):
        with pytest.raises(UsageError, match=rf"teacher\.{name} is -1\.0; 0 or more"):
            resolve(student(**{f"teacher__{name}": -1.0}))


def test_taps_that_could_teach_nothing_are_refused(student, tmp_path):
    with pytest.raises(
        UsageError, match=r"taps is 0\.5, and the backbones of this late are frozen"
    ):
        resolve(student(teacher__taps=0.5, variant="late", fusion__junctions=""))
    text = {"variant": "text", "fusion__junctions": "", "train__epochs": 1}
    runs = (str(train(student(**text), tmp_path / "text").folder),)
    with pytest.raises(UsageError, match="has no backbone of what this run learns from"):
        make_plan(student(teacher__taps=0.5, teacher__runs=runs, train__text_rate=0.0))
