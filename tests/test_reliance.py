"""Shuffling a modality: what it changes, what it leaves, and who may be averaged."""

import json
import shutil

import numpy as np
import pytest

from fusion_keras.errors import UsageError
from fusion_keras.studies import reliance
from fusion_keras.training import restored
from fusion_keras.training.experiment import train
from fusion_keras.training.run import read_json
from tests.support import tiny


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("reliance"))


@pytest.fixture(scope="module")
def early(bench):
    """Trained with a rate at which two epochs are enough to tell dark from bright."""
    changes = {"fusion__junctions": "1+1:attention", "train__learning_rate": 1e-2}
    return train(bench.config(variant="early", **changes), bench.folder / "early").folder


@pytest.fixture(scope="module")
def task(early):
    return restored.restore(early)


def test_a_restored_run_predicts_what_it_predicted(early, task):
    correct = reliance.correct_when_shuffled(task, "test", 1, 0)[""].mean()
    found = read_json(early / "metrics.json")["splits"]["test"]["metrics"]["accuracy"]["value"]
    assert correct == pytest.approx(found)


def test_the_same_seed_shuffles_alike(task):
    first, again = (reliance.correct_when_shuffled(task, "test", 3, 5) for _ in range(2))
    for modality, correct in first.items():
        np.testing.assert_array_equal(correct, again[modality])
    assert first["text"].shape == (3, 16)


def test_a_modality_that_tells_nothing_costs_nothing(task):
    same = np.repeat(task.arrays["image"][:1], len(task.dataset), axis=0)
    blind = reliance.Task(**{**vars(task), "arrays": {**task.arrays, "image": same}})
    found = reliance.correct_when_shuffled(blind, "test", 3, 0)
    np.testing.assert_array_equal(found["image"], np.repeat(found[""], 3, axis=0))


def test_all_that_a_model_uses_when_shuffled_leaves_chance(early):
    whole = reliance.measure([early], "test", 50, 0)
    # The images tell the classes without fail, and the model has learned to look at them.
    assert whole["accuracy"] > 0.9
    # 8 and 8 of two classes: each shuffle is right in half of the rows on average.
    used = max(("text", "image"), key=lambda m: whole[m]["difference"])
    assert whole[used]["difference"] > 0.15
    low, high = whole[used]["low"], whole[used]["high"]
    assert low <= whole[used]["difference"] <= high


def test_a_model_that_has_little_to_lose_is_named(early):
    results = reliance.measure([early], "test", 1, 0)
    assert results["majority"] == 0.5
    said = " ".join(map(str, reliance.report(results, [early], "test", 1)))
    assert "little to lose" not in said
    said = " ".join(map(str, reliance.report({**results, "accuracy": 0.5}, [early], "test", 1)))
    assert "most frequent labels (50.0 %): it has little to lose" in said


def test_runs_of_other_modalities_are_not_averaged(bench, early):
    alone = train(bench.config(fusion__junctions="0+-:concat"), bench.folder / "alone").folder
    with pytest.raises(UsageError, match="differ in nothing but the seed"):
        reliance.measure([early, alone], "test", 1, 0)


@pytest.mark.parametrize(
    ("runs", "split", "repeats", "said"),
    [
        ((), "test", 1, "RUN \\.\\.\\."),
        (("nowhere",), "test", 1, "not a finished run"),
        (("early",), "dev", 1, "one of train, valid, test"),
        (("early",), "test", 0, "at least 1"),
    ],
)
def test_what_cannot_be_measured_is_said(bench, early, runs, split, repeats, said):
    with pytest.raises(UsageError, match=said):
        reliance.measure([bench.folder / run for run in runs], split, repeats, 0)


def test_settings_of_another_version_are_named(early, tmp_path):
    copy = tmp_path / "old"
    shutil.copytree(early, copy)
    description = read_json(copy / "config.json")
    description["config"]["fusion"]["knob"] = 1
    (copy / "config.json").write_text(json.dumps(description))
    with pytest.raises(UsageError, match=r"not those of this version.*knob"):
        restored.restore(copy)
