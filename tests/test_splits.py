"""The seeded split: proportions, no leakage, the same answer for the same seed."""

import dataclasses
import hashlib

import numpy as np
import pytest

from fusion_keras.data.records import SPLITS, Records
from fusion_keras.data.splits import (
    STANDARD_MOSI_COUNTS,
    STANDARD_MOSI_FOLDS,
    assign_splits,
    check_records,
    halve,
)
from fusion_keras.errors import UsageError


@pytest.fixture
def videos():
    """2000 rows of three unequal classes in 90 groups of unlike size and class mix."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 40, 90)
    mixes = rng.dirichlet((2.0, 1.0, 3.0), 90)
    labels = [rng.choice(3, size, p=mix) for size, mix in zip(sizes, mixes, strict=True)]
    groups = np.repeat([f"video{i}" for i in range(90)], sizes)
    order = rng.permutation(len(groups))
    return np.concatenate(labels)[order], groups[order].tolist()


def _shares(labels, rows):
    return np.bincount(labels[rows], minlength=labels.max() + 1) / np.sum(rows)


def test_rows_that_stand_alone_are_split_in_proportion():
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    splits = np.array(assign_splits(labels, None, (0.7, 0.1, 0.2), seed=3))
    for split, fraction in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        counts = np.bincount(labels[splits == split], minlength=3)
        assert np.abs(counts - fraction * np.array([700, 250, 50])).max() <= 1


@pytest.mark.parametrize("seed", range(3))
def test_no_group_is_divided_and_proportions_hold(videos, seed):
    labels, groups = videos
    splits = np.array(assign_splits(labels, groups, seed=seed))
    for group in set(groups):
        assert len(set(splits[np.array(groups) == group])) == 1
    for split, fraction in zip(SPLITS, (0.7, 0.1, 0.2), strict=True):
        assert np.mean(splits == split) == pytest.approx(fraction, abs=0.01)
        whole = _shares(labels, np.ones(len(labels), bool))
        assert _shares(labels, splits == split) == pytest.approx(whole, abs=0.03)


def test_the_seed_decides(videos):
    labels, groups = videos
    for names in (groups, None):
        assert assign_splits(labels, names, seed=1) == assign_splits(labels, names, seed=1)
        assert assign_splits(labels, names, seed=1) != assign_splits(labels, names, seed=2)


def test_the_split_of_groups_does_not_hang_on_the_order_of_rows(videos):
    labels, groups = videos
    splits = assign_splits(labels, groups, seed=1)
    assert assign_splits(labels[::-1], groups[::-1], seed=1) == splits[::-1]


def test_the_split_is_the_same_on_every_machine():
    splits = assign_splits(np.arange(200) % 2, None, seed=0)
    digest = hashlib.sha256(" ".join(splits).encode()).hexdigest()
    assert digest == "fb39c1a406e8504a36322e3d59f993613ef645f0275187160027bae10e84424e"


def test_halves_are_disjoint_complete_and_stratified(videos):
    labels, groups = videos
    first, second = halve(labels, groups, seed=0)
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    assert len(first) == pytest.approx(len(labels) / 2, rel=0.01)
    assert np.bincount(labels[first]) == pytest.approx(np.bincount(labels[second]), rel=0.1)
    again = halve(labels, groups, seed=0)
    assert np.array_equal(again[0], first)
    assert not np.array_equal(halve(labels, groups, seed=1)[0], first)


def test_a_part_may_have_another_share(videos):
    labels, groups = videos
    first, _ = halve(labels, groups, seed=0, fraction=0.8)
    assert len(first) == pytest.approx(0.8 * len(labels), rel=0.01)


def test_shares_that_are_none_are_refused():
    for fractions in ((0.7, 0.3), (0.7, 0.2, 0.2), (1.0, 0.1, -0.1)):
        with pytest.raises(UsageError, match="three positive shares"):
            assign_splits(np.arange(9) % 2, None, fractions)
    for fraction in (0.0, 1.0, 2.0):
        with pytest.raises(UsageError, match="strictly between 0 and 1"):
            halve(np.arange(9) % 2, None, 0, fraction)


def test_too_few_groups_are_refused():
    with pytest.raises(UsageError, match="got 2 groups, wanted at least 3"):
        assign_splits(np.array([0, 1, 0]), ["a", "a", "b"])
    # One group holds nearly all rows: three parts of a kind cannot come of it.
    groups = ["a"] * 97 + ["b", "c", "d"]
    splits = assign_splits(np.arange(100) % 2, groups)
    assert set(splits) == set(SPLITS)


def test_the_standard_folds():
    assert {split: len(ids) for split, ids in STANDARD_MOSI_FOLDS.items()} == {
        "train": 52,
        "valid": 10,
        "test": 31,
    }
    assert len(frozenset.union(*STANDARD_MOSI_FOLDS.values())) == 93
    assert sum(STANDARD_MOSI_COUNTS.values()) == 2199


@pytest.fixture
def records():
    return Records(
        name="set",
        ids=list("abcdef"),
        splits=["train", "train", "valid", "valid", "test", "test"],
        raw={"text": ["t"] * 6},
        labels=np.array([0, 1] * 3, np.int32),
        classes=("no", "yes"),
    )


def test_sound_records_pass_unchanged(records):
    assert check_records(records).notes == ()


def test_a_class_that_only_training_has_is_noted_once(records):
    odd = dataclasses.replace(records, labels=np.array([0, 1, 0, 0, 0, 1], np.int32))
    checked = check_records(check_records(odd))
    assert checked.notes == ("set: the valid split has no row of class yes",)


def test_records_that_cannot_be_trained_on_are_refused(records):
    with pytest.raises(UsageError, match="no train row of class yes"):
        check_records(dataclasses.replace(records, labels=np.array([0, 0, 1, 1, 1, 1], np.int32)))
    with pytest.raises(UsageError, match=r"id 'a' twice \(row 0 and row 5\)"):
        check_records(dataclasses.replace(records, ids=list("abcdea")))
    with pytest.raises(UsageError, match="got no test rows"):
        check_records(records.select([0, 1, 2, 3]))
