"""Searches that are killed at random moments, and what they must have found all the same.

`python -m tests.support.killed_search 20 DIR [JOBS]` searches undisturbed, then again with so many
kills, and says what each left behind; a minute a kill.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import optuna

from fusion_keras.searching.outcome import Outcome, read
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


def command(bench, workdir, jobs=1, count=COUNT, **changes) -> list[str]:
    (bench.folder / "space.py").write_text(SPACE)
    flags = [f for f in bench.flags(**changes) if not f.startswith("--variant")]
    own = [f"--workdir={workdir}", f"--space={bench.folder / 'space.py'}", f"--trials={count}"]
    own += ["--named=early,late", "--finalists=0", "--budget_ms=1000", f"--jobs={jobs}"]
    return tiny.command("search", *own, *flags)


def searched(*asked, **changes) -> str:
    done = subprocess.run(command(*asked, **changes), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def outcomes(workdir) -> dict[str, Outcome]:
    found = [read(folder) for folder in sorted((workdir / "trials").iterdir())]
    return {outcome.key: outcome for outcome in found}


def learned(workdir) -> dict:
    """Key -> what became of it, but for times."""
    return {
        k: (o.state, o.history and o.history[-1]["valid_nll"], o.nll)
        for k, o in outcomes(workdir).items()
    }


def killed(rng: random.Random, seconds: tuple[float, float], *asked, **changes) -> dict[str, int]:
    """Kill a search somewhere between so many seconds, with all of its processes.

    Returns:
        Key -> the epochs that are there, of each training that was cut off.
    """
    process = subprocess.Popen(
        command(*asked, **changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(*seconds))
    process.kill()
    process.wait()
    ended(process.pid)
    found = {}
    for file in (asked[1] / "trials").glob("*/run.partial/history.csv"):
        if not (file.parent.parent / "outcome.json").is_file():
            with file.open(newline="") as lines:
                found[file.parent.parent.name] = len(list(csv.reader(lines))) - 1
    return found


def assert_same(workdir: Path, wanted: Path) -> None:
    """The same trials, the same front, and nothing that was left running."""
    assert learned(workdir) == learned(wanted)
    fronts = [json.loads((folder / "front.json").read_text()) for folder in (workdir, wanted)]
    assert fronts[0] == fronts[1]
    told = [asked_of(folder) for folder in (workdir, wanted)]
    assert all(trial.state.is_finished() for trial in told[0])
    drawn = [[(t.params, t.state, t.user_attrs.get("key")) for t in asked] for asked in told]
    assert drawn[0] == drawn[1]


def asked_of(folder: Path) -> list:
    """Optuna's trials."""
    url = f"sqlite:///{folder / 'search.db'}"
    return optuna.load_study(study_name="fusion_keras", storage=url).trials


def ended(session: int) -> None:
    """All processes of it, also those that stood still while another was measured."""
    end = time.monotonic() + 60
    while left := [pid for pid in _pids() if _session_of(pid) == session]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def stands_still(session: int) -> bool:
    """Whether one of its processes does (SIGSTOP)."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T" and _session_of(pid) == session:
                return True
    return False


def _pids() -> list[int]:
    return [int(place.name) for place in Path("/proc").iterdir() if place.name.isdecimal()]


def _session_of(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getsid(pid)
    return None


def main() -> None:
    kills, folder, jobs = int(sys.argv[1]), Path(sys.argv[2]), int((*sys.argv[3:], 1)[0])
    bench = tiny.Bench(folder) if (folder / "cache").is_dir() else tiny.Bench.make(folder)
    rng = random.Random(0)
    wanted, workdir = folder / "undisturbed", folder / "killed"
    asked, changes = (jobs, 6), {"train__epochs": 8}
    start = time.monotonic()
    searched(bench, wanted, *asked, **changes)
    print(f"undisturbed: {time.monotonic() - start:.0f} s", flush=True)
    before: dict[str, int] = {}
    for number in range(kills):
        there = killed(rng, (10, 110), bench, workdir, *asked, **changes)
        ended = sum(1 for _ in (workdir / "trials").glob("*/outcome.json"))
        print(f"kill {number + 1}: {ended} trials ended, epochs of others {there}", flush=True)
        for key, epochs in before.items():
            lost = epochs - there.get(key, epochs)
            assert lost <= 0, f"{key} lost {lost} epochs that were there"
        before = there
    searched(bench, workdir, *asked, **changes)
    assert_same(workdir, wanted)
    print("the same trials, the same front, none left running")


if __name__ == "__main__":
    main()
