"""A run over several devices is the run of one: CPU devices that XLA makes of one processor."""

import pytest

from fusion_keras.errors import UsageError
from fusion_keras.training import devices
from fusion_keras.training.run import Run
from tests.support import compiled, tiny
from tests.support.same_runs import MOBILENET, assert_same, statistics

FOUR = compiled.fast(devices=4)
# A run that is killed when it has saved its first epoch.
KILLED = """
import os, runpy, sys
from fusion_keras.training import checkpoint
save = checkpoint.save
def killed(*arguments):
    save(*arguments)
    os._exit(9)
checkpoint.save = killed
runpy.run_module("fusion_keras.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("devices"))


@pytest.fixture
def trained(bench, entries, tmp_path):
    def train(name, devices, **changes) -> Run:
        flags = [*bench.flags(run=tmp_path / name, **changes), f"--devices={devices}"]
        done = entries.run("fusion_keras.train", *flags, environment=FOUR)
        assert done.returncode == 0, done.stderr
        assert ("shared by cpu:0, cpu:1, cpu:2" in done.stderr + done.stdout) == (devices == 4)
        return Run(tmp_path / name)

    return train


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"variant": "early"}, {"variant": "late"}, MOBILENET])
def test_four_devices_learn_what_one_does(trained, changes):
    one, four = (trained(f"over-{n}", n, **changes, train__epochs=4) for n in (1, 4))
    assert bool(statistics(one)) == (changes is MOBILENET)
    assert_same(four, one)


@pytest.mark.slow
def test_a_killed_run_goes_on_over_another_number_of_devices(bench, trained, entries, tmp_path):
    changes = {"variant": "inter", "train__epochs": 3, "train__accumulate": 2}
    flags = bench.flags(run=tmp_path / "killed", **changes)
    killed = entries.run("-c", KILLED, *flags, "--devices=4", environment=FOUR)
    assert killed.returncode == 9, killed.stderr
    assert_same(trained("killed", 2, **changes), trained("whole", 1, **changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "parts", "said"),
    [
        (6, 1, "a batch of 6 for 4 devices, wanted a multiple:"),
        (8, 4, "a batch of 8 in 4 parts for 4 devices, wanted a multiple of 16:"),
    ],
)
def test_devices_that_do_not_divide_a_batch_are_refused(
    size, parts, said, bench, entries, tmp_path
):
    changes = {"train__batch_size": size, "train__accumulate": parts}
    flags = bench.flags(run=tmp_path / "uneven", **changes)
    done = entries.run("fusion_keras.train", *flags, "--devices=all", environment=FOUR)
    assert done.returncode == 2
    assert f"got {said}" in done.stderr


@pytest.mark.parametrize("asked", ["0", "9", "some", "-1"])
def test_devices_that_there_are_not_are_a_sentence(asked):
    with pytest.raises(UsageError, match=rf"got --devices={asked}, wanted all, or 1 to 1: JAX"):
        devices.use(asked)
