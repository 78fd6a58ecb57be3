"""Ranks that no objective decides alone, and the area that a front dominates."""

import numpy as np
import pytest

from fusion_keras.searching import rungs


def test_ranks_are_those_of_fronts_taken_away_one_by_one():
    points = np.array([[1, 4], [2, 2], [4, 1], [3, 3], [4, 4], [2, 2]], float)

    assert rungs.ranks(points).tolist() == [0, 0, 0, 1, 2, 0]


def test_ranks_agree_with_optuna_on_many_points():
    from optuna.study._multi_objective import _fast_non_domination_rank

    points = np.random.default_rng(0).normal(size=(200, 2)).round(1)

    assert rungs.ranks(points).tolist() == _fast_non_domination_rank(points).tolist()


@pytest.mark.parametrize(
    ("epochs", "looked"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 4]), (5, [1, 2, 5]), (12, [3, 6, 12])]
)
def test_rungs_are_a_quarter_a_half_and_all(epochs, looked):
    assert rungs.rungs(epochs) == looked


def test_the_first_goes_on_and_the_worse_half_does_not():
    others = [(0.5, 1.0), (0.6, 0.8), (0.9, 2.0)]

    assert rungs.goes_on((9.0, 9.0), [])
    assert rungs.goes_on((0.4, 3.0), others)  # the best of one objective
    assert not rungs.goes_on((0.95, 2.1), others)  # behind all of them


def test_the_hypervolume_is_the_area_under_the_stairs():
    points = np.array([[1, 2], [2, 1], [2, 2], [5, 0]], float)

    # [1, 3] x [2, 3] and [2, 3] x [1, 2]; the last one lies beyond the reference.
    assert rungs.hypervolume(points, (3, 3)) == pytest.approx(2 + 1)
    assert rungs.hypervolume(np.zeros((0, 2)), (3, 3)) == 0


def test_the_hypervolume_agrees_with_optuna():
    from optuna._hypervolume import compute_hypervolume

    points = np.random.default_rng(1).uniform(size=(50, 2))

    ours = rungs.hypervolume(points, (0.9, 0.8))

    inside = points[(points < (0.9, 0.8)).all(-1)]
    assert ours == pytest.approx(compute_hypervolume(inside, np.array([0.9, 0.8])))
