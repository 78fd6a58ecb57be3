"""Processes side by side: cores and GPUs are divided, each has its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fusion_keras import jobs
from fusion_keras.errors import UsageError


@pytest.fixture
def machine(monkeypatch):
    def of(cores, gpus="", gibibytes=64):
        monkeypatch.setattr(jobs, "_cores", lambda: list(range(cores)))
        monkeypatch.setattr(jobs, "_memory", lambda: gibibytes << 30)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)

    return of


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_core_is_of_one_process(machine, count):
    machine(cores=8)

    found = jobs.shares(count)

    assert sorted(core for share in found for core in share.cores) == list(range(8))
    assert len(found) == count
    assert {share.environment({"A": "b"}) == {"A": "b"} for share in found} == {True}


def test_more_processes_than_cores_share_them(machine):
    machine(cores=2)

    assert [share.cores for share in jobs.shares(3)] == [(0,), (1,), (0,)]


def test_each_process_has_a_gpu_or_a_part_of_its_memory(machine):
    machine(cores=8, gpus="0,3")

    def said(count):
        found = (share.environment({}) for share in jobs.shares(count))
        return [(e["CUDA_VISIBLE_DEVICES"], e["XLA_PYTHON_CLIENT_MEM_FRACTION"]) for e in found]

    assert said(2) == [("0", "0.90"), ("3", "0.90")]
    assert said(3) == [("0", "0.45"), ("3", "0.90"), ("0", "0.45")]


@pytest.mark.parametrize(
    ("asked", "cores", "gpus", "gibibytes", "count"),
    [
        ("3", 2, "", 4, 3),
        ("20", 2, "", 4, 12),
        ("auto", 2, "", 64, 1),
        ("auto", 16, "", 64, 4),
        ("auto", 16, "", 20, 2),
        ("auto", 16, "0,1,2", 64, 3),
        ("auto", 64, "-1", 640, 12),
    ],
)
def test_auto_is_one_for_each_gpu_or_as_many_as_fit(machine, asked, cores, gpus, gibibytes, count):
    machine(cores, gpus, gibibytes)

    assert jobs.count_of(asked, 12) == count


@pytest.mark.parametrize("asked", ["0", "-1", "two", "1.5", ""])
def test_other_counts_are_refused(asked):
    with pytest.raises(UsageError, match=r"--jobs is .*; a number of at least 1, or auto"):
        jobs.count_of(asked, 2)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="wants Linux")
def test_what_is_started_inside_has_these_cores_and_what_starts_it_has_all():
    before = os.sched_getaffinity(0)
    core = min(before)
    code = "import os; print(sorted(os.sched_getaffinity(0)))"

    with jobs.Share((core,)).held():
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert said.stdout.strip() == f"[{core}]"
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(sys.platform != "linux", reason="wants Linux")
def test_what_is_started_ends_with_what_starts_it(tmp_path):
    entry = (
        "import os, time; from fusion_keras import interrupts; interrupts.end_with_starter(); "
        "assert 'FUSION_KERAS_STARTER' not in os.environ; "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    starts = f"""
import os, sys, time
from pathlib import Path
from fusion_keras import jobs
log = Path({str(tmp_path / "log")!r})
jobs.Share((min(os.sched_getaffinity(0)),)).start([sys.executable, "-c", {entry!r}], log)
while not log.read_text().strip():
    time.sleep(0.05)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", starts]).returncode == -signal.SIGKILL
    child = Path(f"/proc/{int((tmp_path / 'log').read_text())}")
    until = time.monotonic() + 10
    while child.exists() and "zombie" not in (child / "status").read_text():
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.05)
