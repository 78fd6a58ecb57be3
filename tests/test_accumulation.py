"""A batch that is learned from in parts is learned from as a whole."""

import pytest

from fusion_keras.training.experiment import train
from tests.support import tiny
from tests.support.same_runs import assert_same
from tests.support.shared import slow_but

# All 40 rows in a batch, so that each epoch's loss is that of a step; nothing that parts change.
STEPS = {"train__batch_size": 40, "train__epochs": 20, "fusion__dropout": 0.0}
MIXED = {"augment__drop_text": 0.3, "augment__drop_image": 0.2, "augment__mixup": 0.3}
CASES = {
    "text": {},
    "image": {"variant": "image", "train__optimizer": "sgd", "train__momentum": 0.9},
    "mixed": {"variant": "inter", "fusion__junctions": "1+1:linear,2+2:attention", **MIXED},
    "stand_ins": {"variant": "early", "fusion__stand_ins": True, **MIXED},
    "late": {"variant": "late", "parent__epochs": 1},
    "regression": {"variant": "early", "regression": True},
    "taught": {"variant": "inter", "fusion__junctions": "1+1:linear", "teacher__heads": 0.3,
               "teacher__taps": 0.1, "recipe": "distil"},
}  # fmt: skip


@pytest.mark.parametrize("case", slow_but(["text"], CASES))
def test_twenty_steps_in_parts_are_twenty_steps(case, tiny, tmp_path, request):
    changes = {**STEPS, **CASES[case]}
    if case == "taught":
        changes["teacher__runs"] = (str(request.getfixturevalue("tiny_run")),)
    runs = []
    for parts in (1, 4):
        config = tiny.config(**changes, train__accumulate=parts)
        runs.append(train(config, tmp_path / str(parts)))
    assert len(read_losses(runs[0])) == 20
    assert_same(*reversed(runs))


def read_losses(run) -> list[float]:
    return [float(row["loss"]) for row in tiny.table(run, "history.csv")]
