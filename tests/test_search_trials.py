"""Real trials: models built, measured untrained, trained, scored; killed; and the test split left
alone."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fusion_keras.searching import trial as trials
from fusion_keras.searching.study import OBJECTIVES
from tests.support import tiny

COUNT = 4
SPACE = """
def get_space():
    return {
        "junctions": (1, 2),
        "taps.text": (0, 1, 2),
        "taps.image": (0, 1, 2),
        "joins": ("concat", "linear", "attention"),
        "fusion.blocks": (1, 4),
    }
"""


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    made = tiny.beside(tmp_path_factory.mktemp("search"))
    (made.folder / "space.py").write_text(SPACE)
    return made


def command(bench, workdir, **changes):
    flags = [f for f in bench.flags(**changes) if not f.startswith("--variant")]
    own = [f"--workdir={workdir}", f"--space={bench.folder / 'space.py'}", f"--trials={COUNT}"]
    own += ["--named=early,late", "--finalists=0", "--budget_ms=1000"]
    return tiny.command("search", *own, *flags)


def searched(bench, workdir, jobs=1, **changes) -> str:
    flags = [*command(bench, workdir, **changes), f"--jobs={jobs}"]
    done = subprocess.run(flags, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outcomes(workdir) -> dict[str, trials.Outcome]:
    found = [trials.read(folder) for folder in sorted((workdir / "trials").iterdir())]
    return {outcome.key: outcome for outcome in found}


def learned(workdir) -> dict:
    """Key -> what became of it, but for times."""
    return {
        k: (o.state, o.history and o.history[-1]["valid_nll"], o.nll)
        for k, o in outcomes(workdir).items()
    }


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
    trained = [o for o in found.values() if o.state == trials.TRAINED]
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
        searched(bench, wanted, jobs=jobs)
    for _ in range(4):
        process = subprocess.Popen(
            [*command(bench, workdir), f"--jobs={jobs}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(5, 25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        ended(process.pid)

    searched(bench, workdir, jobs=jobs)

    assert learned(workdir) == learned(wanted)


def ended(session: int) -> None:
    """All processes of it, also those that stood still while another was measured."""
    end = time.monotonic() + 60
    while left := [pid for pid in pids() if session_of(pid) == session]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def pids() -> list[int]:
    return [int(place.name) for place in Path("/proc").iterdir() if place.name.isdecimal()]


def session_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return None


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
    assert {o.state for o in found if not o.named} == {trials.FAILED}
    assert all("Training diverged" in o.reason for o in found if not o.named)
    assert "failed" in printed
