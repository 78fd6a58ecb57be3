"""Runs that start from others: late fusion freezes them, other variants go on training."""

import shutil

import numpy as np
import pytest

from fusion_keras.errors import UsageError
from fusion_keras.training import adopted
from fusion_keras.training import parents as parental
from fusion_keras.training.experiment import begin, train
from fusion_keras.training.plan import Plan, make_plan
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import load_model
from fusion_keras.training.run import CHECKPOINT, Run
from fusion_keras.training.task import prepare
from tests.support import tiny
from tests.support.tiny import table


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("late"))


@pytest.fixture(scope="module")
def text(bench) -> Run:
    return train(bench.config(), bench.folder / "text")


@pytest.fixture(scope="module")
def image(bench) -> Run:
    return train(bench.config(variant="image"), bench.folder / "image")


@pytest.fixture(scope="module")
def late(bench) -> Run:
    """The published late fusion: trains its parents on one half, its head on the other."""
    config = bench.config(variant="late", recipe="paper", train__batch_size=4, parent__epochs=2)
    return train(config, bench.folder / "late")


def test_late_fusion_trains_parents_and_head_on_two_halves(late):
    assert (late.folder / "model.keras").is_file()
    counts = [late.read_json("config.json")["dataset"]["counts"]]
    for modality in ("text", "image"):
        parent = Run(late.folder / "parents" / modality)
        found = parent.read_json("config.json")
        assert found["config"]["data"]["part"] == "first"
        counts.append(found["dataset"]["counts"])
        assert found["config"]["train"]["epochs"] == 2
    # `halve` gives disjoint parts; together they are all of the training rows.
    assert counts[0]["train"] + counts[1]["train"] == 40
    assert counts[1] == counts[2]
    assert counts[0]["test"] == 16
    head = late.read_json("config.json")["config"]
    assert head["data"]["part"] == "all"
    assert head["train"]["learning_rate"] == 1e-3


def test_late_fusion_keeps_its_parents_weights(late):
    model = load_model(late.folder)
    for modality in ("text", "image"):
        parent = load_model(late.folder / "parents" / modality)
        part = f"{modality}_backbone"
        pairs = zip(
            model.get_layer(part).get_weights(), parent.get_layer(part).get_weights(), strict=True
        )
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)


def test_late_fusion_takes_finished_runs(bench, text, image):
    parents = (str(text.folder), str(image.folder))
    config = bench.config(variant="late", fusion__junctions="1+1:linear", parents=parents)
    run = train(config, bench.folder / "late of runs")
    assert not (run.folder / "parents").exists()
    # A junction in the middle takes only the layers before it.
    ours = load_model(run.folder).get_layer("text_backbone")
    theirs = load_model(text.folder).get_layer("text_backbone")
    assert len(ours.layers) < len(theirs.layers)
    for layer in ours.layers:
        for a, b in zip(
            layer.get_weights(), theirs.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_averaged_scores_are_those_of_the_parents(bench, text, image):
    parents = (str(text.folder), str(image.folder))
    config = bench.config(variant="late_score", parents=parents, fusion__weights=(0.25, 0.75))
    run = train(config, bench.folder / "late_score")
    ours, texts, images = (table(r, "predictions.csv") for r in (run, text, image))
    for mean, a, b in zip(ours, texts, images, strict=True):
        wanted = 0.25 * float(a["p_positive"]) + 0.75 * float(b["p_positive"])
        assert float(mean["p_positive"]) == pytest.approx(wanted, abs=1e-5)


def test_parents_of_another_split_are_refused(bench, text, image, tmp_path):
    def swap(lines):
        lines[0][3], lines[-1][3] = lines[-1][3], lines[0][3]

    path = tiny.write_manifest(tmp_path, change=swap)
    parents = (str(text.folder), str(image.folder))
    config = bench.config(variant="late", parents=parents, data__path=path)
    with pytest.raises(UsageError, match=r"2 of 72 rows in another split.*'r0'"):
        train(config, tmp_path / "run")


def weights(run: Run, part: str) -> list[np.ndarray]:
    return load_model(run.folder).get_layer(part).get_weights()


# A rate of nearly zero: what a run starts from is still there at its end.
STILL = {"train__image_rate": 1e-12, "train__text_rate": 1e-12, "train__epochs": 1}


@pytest.mark.slow
def test_a_joint_run_starts_from_the_runs_it_is_given(bench, text, image):
    parents = (str(image.folder), str(text.folder))  # in any order
    config = bench.config(variant="inter", fusion__junctions="2+2:linear", parents=parents, **STILL)
    run = train(config, bench.folder / "inter of runs")
    for modality, parent in (("text", text), ("image", image)):
        part = load_model(run.folder).get_layer(f"{modality}_backbone")
        theirs = load_model(parent.folder).get_layer(f"{modality}_backbone")
        for layer in part.layers:
            pairs = zip(
                layer.get_weights(), theirs.get_layer(layer.name).get_weights(), strict=True
            )
            for a, b in pairs:
                np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_recipe_best_trains_the_images_first_and_goes_on_training_them(bench):
    changes = {"recipe": "best", "fusion__junctions": "1+1:linear", "parent__epochs": 1}
    config = bench.config(variant="inter", **changes)
    run = train(config, bench.folder / "best")
    assert [p.name for p in (run.folder / "parents").iterdir()] == ["image"]
    parent = Run(run.folder / "parents" / "image").read_json("config.json")
    assert (parent["variant"], parent["config"]["fusion"]["junctions"]) == ("image", "-+1:concat")
    assert parent["dataset"]["counts"] == run.read_json("config.json")["dataset"]["counts"]
    ours, theirs = (
        weights(run, "image_backbone"),
        weights(Run(run.folder / "parents" / "image"), "image_backbone"),
    )
    assert any((a != b).any() for a, b in zip(ours, theirs, strict=False))


def test_a_parent_with_too_few_layers_is_refused(bench, image, tmp_path):
    short = train(bench.config(fusion__junctions="0+-:concat"), tmp_path / "short")
    parents = (str(short.folder), str(image.folder))
    config = bench.config(variant="inter", fusion__junctions="1+1:linear", parents=parents)
    with pytest.raises(UsageError, match="fewer layers than this run taps"):
        train(config, tmp_path / "run")


def test_a_parent_that_is_named_leaves_the_others_to_the_recipe(bench, text):
    named = bench.config(recipe="best", variant="inter", parents=(str(text.folder),))
    assert {m: isinstance(p, Plan) for m, p in make_plan(named).parents.items()} == {
        "text": False,
        "image": True,
    }


@pytest.mark.slow
def test_a_run_beside_it_that_is_the_parent_is_not_trained_again(bench, tmp_path):
    text = train(bench.config(), tmp_path / "anything")
    other = train(bench.config(seed=1, variant="image"), tmp_path / "other seed")
    late = train(bench.config(variant="late", parent__epochs=2), tmp_path / "late")
    assert late.read_json("config.json")["parents"] == {"text": str(text.folder)}
    assert [p.name for p in (late.folder / "parents").iterdir()] == ["image"]
    pairs = zip(weights(late, "text_backbone"), weights(text, "text_backbone"), strict=True)
    assert all((a == b).all() for a, b in pairs)
    assert other.complete


@pytest.mark.slow
def test_parents_that_a_run_beside_it_has_trained_are_not_trained_again(bench, tmp_path):
    changes = {"variant": "late", "parent__epochs": 1}
    first = train(bench.config(train__epochs=1, **changes), tmp_path / "first")
    second = train(bench.config(train__epochs=2, **changes), tmp_path / "second")
    inside = {m: str(first.folder / "parents" / m) for m in ("text", "image")}
    assert second.read_json("config.json")["parents"] == inside
    assert not (second.folder / "parents").exists()


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_the_parents_that_it_has_trained(bench, tmp_path):
    config = bench.config(variant="late", train__epochs=1, parent__epochs=1)
    run = Run(tmp_path / "late")
    with run.open(resolve(config)):
        begin(make_plan(config), run)
    train(bench.config(train__epochs=1), tmp_path / "text")
    train(config, run.folder)
    assert run.read_json("config.json")["parents"] == {}
    assert {p.name for p in (run.folder / "parents").iterdir()} == {"text", "image"}


@pytest.mark.parametrize("augmented", [True, False])
def test_a_head_learns_from_augmented_images_if_there_are_any(bench, augmented):
    task = prepare(make_plan(bench.config(variant="late", augment__enabled=augmented)))
    arrays, rows = adopted.features(task)
    train = task.rows["train"]
    for split in ("valid", "test"):
        np.testing.assert_array_equal(rows[split], task.rows[split])
    if not augmented:
        np.testing.assert_array_equal(rows["train"], train)
        return
    assert len(rows["train"]) == adopted.DRAWS * len(train)
    assert not set(rows["train"]) & set(range(len(task.dataset)))
    for name, same in (("label", True), ("text_last", True), ("image_last", False)):
        seen = arrays[name][rows["train"]].reshape(adopted.DRAWS, *arrays[name][train].shape)
        assert all((draw == arrays[name][train]).all() == same for draw in seen), name


@pytest.mark.parametrize(
    ("junctions", "parents"),
    [
        ("1+1:linear,1+2:linear", {"image": "-+2:concat"}),
        ("1+last:concat,1+2:linear", {"image": ""}),
        # Nothing can be learned ahead: images are tapped before the first layer, or not at all.
        ("1+0:linear", {}),
        ("1+-:linear", {}),
    ],
)
def test_a_parent_is_cut_behind_the_deepest_tap(bench, junctions, parents):
    config = bench.config(recipe="best", variant="inter", fusion__junctions=junctions)
    found = make_plan(config).parents
    assert {m: plan.config.fusion.junctions for m, plan in found.items()} == parents


def test_a_parent_may_have_called_the_data_another_name(bench, text):
    config = resolve(bench.config(variant="inter", data__name="mine", parents=(str(text.folder),)))
    assert parental.named(config) == {"text": text.folder}


def rename(lines):
    """The same names, labels and splits, but two test sentences change places with others."""
    lines[2][0], lines[4][0] = lines[4][0], lines[2][0]


def test_rows_of_the_same_name_are_known_by_their_content(bench, text, image, tmp_path):
    path = tiny.write_manifest(tmp_path, change=rename)
    parents = (str(text.folder), str(image.folder))
    config = bench.config(variant="late", parents=parents, data__path=path)
    with pytest.raises(UsageError, match="2 of 72 rows in another split, with another text"):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_a_run_beside_it_on_other_rows_is_no_parent(bench, tmp_path):
    path = tiny.write_manifest(tmp_path / "data")
    changes = {"data__path": path, "train__epochs": 1, "parent__epochs": 1}
    train(bench.config(**changes), tmp_path / "runs" / "text")
    tiny.write_manifest(tmp_path / "data", change=rename)
    late = train(bench.config(variant="late", **changes), tmp_path / "runs" / "late")
    assert {p.name for p in (late.folder / "parents").iterdir()} == {"text", "image"}


@pytest.mark.slow
def test_a_run_beside_it_on_other_labels_is_no_parent_and_a_changed_parent_ends_it(bench, tmp_path):
    def relabel(lines):
        lines[2][2], lines[3][2] = lines[3][2], lines[2][2]

    path = tiny.write_manifest(tmp_path / "data")
    changes = {"data__path": path, "train__epochs": 1, "parent__epochs": 1}
    text = train(bench.config(**changes), tmp_path / "runs" / "text")
    tiny.write_manifest(tmp_path / "data", change=relabel)
    late = train(bench.config(variant="late", **changes), tmp_path / "runs" / "late")
    assert {p.name for p in (late.folder / "parents").iterdir()} == {"text", "image"}
    named = (str(text.folder), str(late.folder / "parents" / "image"))
    config = bench.config(variant="late", parents=named, **changes)
    run = Run(tmp_path / "named")
    with run.open(resolve(config)):
        begin(make_plan(config), run)
    (run.partial / CHECKPOINT).touch()
    (text.folder / "model.keras").write_bytes(b"another")
    with pytest.raises(UsageError, match="A parent has changed since"):
        train(config, run.folder)


@pytest.mark.parametrize("content", ["[]", "{}", "not json"])
def test_what_else_lies_beside_a_run_does_no_harm(tmp_path, content):
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.json").write_text("{}")
    (other / "config.json").write_text(content)
    assert not Run(other).is_of(resolve(tiny.get_config()))


@pytest.mark.slow
def test_averaged_scores_want_parents_as_they_are_published(bench, image, tmp_path):
    other = train(bench.config(fusion__junctions="last+-:linear"), tmp_path / "text")
    parents = (str(other.folder), str(image.folder))
    with pytest.raises(UsageError, match=r"fusion\.junctions"):
        train(bench.config(variant="late_score", parents=parents), tmp_path / "run")


def test_the_architecture_is_checked_before_parents_are_trained(bench, tmp_path):
    with pytest.raises(UsageError, match="depths 0 to 2"):
        train(bench.config(variant="late", fusion__junctions="9+1:concat"), tmp_path / "run")
    assert not (tmp_path / "run.partial" / "parents").exists()


@pytest.mark.parametrize("name", ["config.json", "splits.csv"])
def test_damaged_files_of_a_parent_end_with_a_sentence(bench, text, image, tmp_path, name):
    copy = tmp_path / "text"
    shutil.copytree(text.folder, copy)
    (copy / name).write_text("{}" if name == "config.json" else "id\n")
    config = bench.config(variant="late", parents=(str(copy), str(image.folder)))
    with pytest.raises(UsageError, match="damaged"):
        train(config, tmp_path / "run")
