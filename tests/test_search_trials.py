"""Real trials: models built, measured untrained, trained, scored; killed; and the test split left
alone."""

import csv
import json
import random
import subprocess
import sys
import time

import pytest

from fusion_keras.searching.outcome import FAILED, TRAINED
from fusion_keras.searching.study import OBJECTIVES
from tests.support import tiny
from tests.support.killed_search import (
    COUNT,
    assert_same,
    command,
    ended,
    killed,
    learned,
    outcomes,
    searched,
    stands_still,
)


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def undisturbed(bench):
    """A search, and what it printed; the latencies that it measured are kept for the others."""
    workdir = bench.folder / "undisturbed"
    return workdir, searched(bench, workdir)


@pytest.mark.slow
def test_every_trial_is_measured_and_the_front_is_shown(undisturbed):
    workdir, printed = undisturbed
    found = outcomes(workdir)

    assert len(found) == COUNT
    assert all(set(o.latency) == {"fp32", "int8"} for o in found.values())
    trained = [o for o in found.values() if o.state == TRAINED]
    assert all(abs(o.nll["fp32"] - o.valid["nll"]) < 1e-3 for o in trained)
    # Late has parents, whose weights are frozen.
    assert {o.named for o in trained} >= {"early", "late"}
    assert "front" in printed
    assert OBJECTIVES[1] in (workdir / "report.html").read_text()
    # What only a training needs is gone.
    assert not list(workdir.rglob("*.keras"))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_that_is_killed_at_random_moments_ends_the_same(jobs, bench, undisturbed):
    workdir, rng = bench.folder / f"killed-{jobs}", random.Random(0)
    wanted = undisturbed[0]
    if jobs > 1:
        wanted = bench.folder / "undisturbed-2"
        searched(bench, wanted, jobs)
    before = {}
    for _ in range(4):
        there = killed(rng, (5, 25), bench, workdir, jobs)
        assert all(there.get(key, epochs) >= epochs for key, epochs in before.items())
        before = there

    searched(bench, workdir, jobs)

    assert_same(workdir, wanted)


@pytest.mark.slow
def test_with_garbled_test_labels_a_search_finds_the_same(bench, undisturbed):
    table = bench.folder / "data" / "garbled.csv"
    with (bench.folder / "data" / "manifest.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for number, line in enumerate(line for line in lines if line["split"] == "test"):
        line["label"] = ("negative", "positive")[number % 3 == 0]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    workdir = bench.folder / "garbled"

    searched(bench, workdir, data__path=table)

    assert learned(workdir) == learned(undisturbed[0])
    fronts = [json.loads((w / "front.json").read_text()) for w in (workdir, undisturbed[0])]
    assert fronts[0] == fronts[1]


@pytest.mark.slow
def test_a_limit_that_this_machine_does_not_measure_ends_the_search(bench):
    workdir = bench.folder / "energy"
    flags = [*command(bench, workdir), "--budget_mj=5"]

    done = subprocess.run(flags, capture_output=True, text=True, timeout=900)

    assert done.returncode == 2
    assert "--budget_mj is given, and this machine has no sensors for it" in done.stderr


@pytest.mark.slow
def test_a_model_that_cannot_be_trained_is_kept_with_its_reason(bench):
    workdir = bench.folder / "diverging"

    printed = searched(bench, workdir, train__learning_rate=1e30, train__clip_norm=0.0)

    found = outcomes(workdir).values()
    assert {o.state for o in found if not o.named} == {FAILED}
    assert all("Training diverged" in o.reason for o in found if not o.named)
    assert "failed" in printed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_stands_still_ends_with_a_search_that_is_killed(bench, tmp_path):
    """While a draft is measured, what trains it stands still; it would hold the run for ever."""
    changes = {"data__cache_dir": tmp_path}  # nothing is measured yet
    process = subprocess.Popen(
        command(bench, tmp_path / "search", **changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not stands_still(process.pid):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    ended(process.pid)
