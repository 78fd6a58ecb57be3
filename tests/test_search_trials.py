"""Real trials: models built, measured untrained, trained, scored; killed; and the test split left
alone."""

import csv
import json
import random
import signal
import subprocess
import time

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


def searched(bench, workdir, **changes) -> str:
    done = subprocess.run(
        command(bench, workdir, **changes), capture_output=True, text=True, timeout=900
    )
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
def test_a_search_that_is_killed_at_random_moments_ends_the_same(bench, undisturbed):
    workdir, rng = bench.folder / "killed", random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(
            command(bench, workdir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(5, 25))
        process.send_signal(signal.SIGKILL)
        process.wait()

    searched(bench, workdir)

    assert learned(workdir) == learned(undisturbed[0])


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
