"""The method, on an engine with known delays: what is counted, what is refused, what survives."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bench.edge import method as methods
from bench.edge import results, worker
from bench.edge.artifact import ArtifactError, read
from bench.edge.errors import BenchError
from bench.edge.measure import measure
from bench.edge.method import Contender, Method, Profile, check, names
from tests.support.fake_runner import open_runner, write_artifact

# Milliseconds that starting a query and reading clocks may add to the fastest one.
SLACK = 1.0


@pytest.fixture(autouse=True)
def short(monkeypatch):
    # No second of warm-up: then it has 24 queries, however noisy the machine is.
    monkeypatch.setitem(
        methods.PROFILES, "quick", Profile(queries=80, seconds=0.1, rounds=10, warm_up=0)
    )


@pytest.fixture
def contender(tmp_path):
    def make(name="a", lengths=(4, 8), behaviour=None, **fields):
        folder = write_artifact(tmp_path / name, behaviour or {}, lengths)
        return Contender(name, folder, read(folder), **fields)

    return make


def run(tmp_path, *contenders, **changes):
    target = tmp_path / "results" / "one.json"
    found = measure(list(contenders), Method(**changes), target, open_runner=open_runner)
    assert results.read(target) == {"format": results.FORMAT, **json.loads(json.dumps(found))}
    return found


def samples(entry):
    return [s for block in entry["blocks"] for s in block["samples"]]


def test_every_query_is_counted_once_and_the_warm_up_not_at_all(contender, tmp_path):
    behaviour = {"delay": 0.003, "first": 0.2, "slow_until": 12}
    (entry,) = run(tmp_path, contender(behaviour=behaviour))["contenders"]
    assert entry["complete"]
    assert entry["error"] is None
    assert len(entry["blocks"]) == 10
    assert [len(b["settling"]) for b in entry["blocks"]] == [3] * 10
    assert entry["latency"]["count"] == len(samples(entry)) == 80
    assert 3 <= entry["latency"]["min"] < 3 + SLACK
    assert max(entry["warm_up"]) > 29
    assert 0.2 <= entry["seconds"]["first_inference"] < 0.4
    assert entry["providers"] == ["FakeProvider"]
    assert entry["parity"]["relative"] == 0
    assert entry["peak_bytes"] > 1e6
    assert set(entry["stages"]) == {"tokens", "inference", "all"}
    assert entry["stages"]["all"]["min"] >= entry["stages"]["inference"]["min"] >= 3
    assert entry["power"] is None


def test_seconds_count_as_well_as_queries(contender, tmp_path, monkeypatch):
    profile = Profile(queries=10, seconds=0.5, rounds=5, warm_up=1)
    monkeypatch.setitem(methods.PROFILES, "quick", profile)
    (entry,) = run(tmp_path, contender(behaviour={"delay": 0.002}))["contenders"]
    assert sum(samples(entry)) >= 450
    assert entry["latency"]["count"] > 5 * 10


def test_contenders_take_turns_and_a_slower_one_is_found(contender, tmp_path):
    pair = (contender("a", behaviour={"delay": 0.006}), contender("b", behaviour={"delay": 0.003}))
    found = run(tmp_path, *pair)
    starts = sorted((b["start"], e["name"]) for e in found["contenders"] for b in e["blocks"])
    order = "".join(name for _, name in starts)
    rounds = [order[i : i + 2] for i in range(0, len(order), 2)]
    assert set(rounds) == {"ab", "ba"}
    (ratio,) = found["ratios"]
    assert (ratio["first"], ratio["second"], ratio["verdict"]) == (0, 1, "slower")
    assert ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert ratio["ratio"] > 1.4


def test_a_wrong_output_is_refused_before_anything_is_timed(contender, tmp_path):
    found = run(tmp_path, contender("right"), contender("wrong", behaviour={"wrong": 0.01}))
    right, wrong = found["contenders"]
    assert right["complete"]
    assert not wrong["complete"]
    assert "outputs are wrong, nothing was timed" in wrong["error"]
    assert (wrong["blocks"], wrong["latency"]["count"]) == ([], 0)


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"dies_at": 75}, "killed (SIGKILL)"),
        ({"hangs_at": 75}, "silent for 3 s"),
        ({"raises_at": 75}, "RuntimeError: the engine is broken"),
    ],
)
def test_a_runner_that_is_lost_ends_in_a_sentence_and_keeps_its_samples(
    contender, tmp_path, behaviour, said
):
    found = run(tmp_path, contender("good"), contender("bad", behaviour=behaviour), timeout=3)
    good, bad = found["contenders"]
    assert good["complete"]
    assert said in bad["error"]
    assert not bad["complete"]
    # Three golden queries, 24 of warm-up, four turns of 3 + 8.
    assert bad["latency"]["count"] == 32


def test_a_runner_that_cannot_be_opened_says_why(contender, tmp_path):
    found = run(tmp_path, contender(behaviour={"refuses": "no GPU here."}))
    assert found["contenders"][0]["error"] == "no GPU here."
    assert found["ratios"] == []


def test_sentences_come_at_their_own_length_or_padded(contender, tmp_path):
    seen = {}
    for inputs in ("data", "padded"):
        log = tmp_path / f"{inputs}.log"
        run(tmp_path, contender(inputs, behaviour={"log": str(log)}, inputs=inputs))
        seen[inputs] = [int(line) for line in log.read_text().split()]
    # Of three sentences, golden ones as queries, one fits into four tokens.
    timed = slice(3, 3 + 24 + 80)
    assert np.mean(np.array(seen["data"][timed]) == 4) == pytest.approx(1 / 3, abs=0.05)
    assert set(seen["padded"][timed]) == {8}


def test_paced_queries_count_from_their_arrival(contender, tmp_path, monkeypatch):
    profile = Profile(queries=20, seconds=0.1, rounds=2, warm_up=1)
    monkeypatch.setitem(methods.PROFILES, "quick", profile)
    idle = contender("idle", behaviour={"delay": 0.002}, hz=50.0)
    late = contender("late", behaviour={"delay": 0.02}, hz=100.0)
    found = run(tmp_path, idle, late)["contenders"]
    assert found[0]["latency"]["p50"] < 10
    # Twice as many arrive as can be served: each waits at least 10 ms longer than the last.
    for block in found[1]["blocks"]:
        assert np.diff(block["samples"]).min() > 9.5
    assert results.outpaced(found[0]) == ""
    assert "late does not keep up with 100 queries a second" in results.outpaced(found[1])


def test_queries_are_put_together_one_at_a_time(contender, monkeypatch):
    monkeypatch.setattr(worker, "queries", lambda folder: {"image": np.zeros((64, 1 << 16), "u1")})
    tracemalloc.start()
    try:
        feeds = worker.Feeds(contender(batch=16), seed=0)
        assert [feeds()["image"].shape for _ in range(64)] == [(16, 1 << 16)] * 64
        # 4 MB of rows, and a query or two of 1 MB.
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_who_is_lost_behind_the_last_round_has_been_timed(contender, tmp_path):
    # Three golden queries, 24 of warm-up, ten turns of 3 + 8; the stages lose it.
    (entry,) = run(tmp_path, contender(behaviour={"dies_at": 140}))["contenders"]
    assert (entry["complete"], entry["error"]) == (True, None)
    assert entry["latency"]["count"] == 80
    assert "killed (SIGKILL)" in entry["stages"]["skipped"]


def test_stages_that_fail_take_nothing_from_what_was_timed(contender, tmp_path):
    (entry,) = run(tmp_path, contender(behaviour={"texts": []}))["contenders"]
    assert entry["complete"]
    assert entry["latency"]["count"] == 80
    assert entry["stages"]["skipped"]


def test_a_round_begins_with_the_same_queries_for_all(contender, tmp_path):
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    pair = [
        contender(log.stem, behaviour={"log": str(log), "delay": delay})
        for log, delay in zip(logs, (0.002, 0.012), strict=True)
    ]
    found = run(tmp_path, *pair)["contenders"]
    sizes = [len(entry["blocks"][0]["samples"]) for entry in found]
    assert sizes == [8, 8]
    timed = []
    for log in logs:
        lengths = [int(line) for line in log.read_text().split()][3 + 24 :]
        # Settling queries go on from wherever the last turn ended.
        timed.append([lengths[i + 3 : i + 11] for i in range(0, 10 * 11, 11)])
    assert timed[0] == timed[1]
    assert len({tuple(turn) for turn in timed[0]}) > 1


def test_two_interrupts_leave_no_process_and_all_samples(tmp_path):
    process, target = _started(tmp_path)
    children = _children(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    (entry,) = results.read(target)["contenders"]
    assert entry["latency"]["count"] > 0
    assert _all_end(children)


def test_a_planted_delay_is_part_of_the_time(contender, tmp_path):
    slow = contender("slow", behaviour={"delay": 0.004}, slow_by=0.5)
    (entry,) = run(tmp_path, slow)["contenders"]
    assert 6 <= entry["latency"]["min"] < 6 + SLACK


def _started(tmp_path) -> tuple[subprocess.Popen, Path]:
    """A long measurement in a process of its own, some rounds old; and its file."""
    folder = write_artifact(tmp_path / "a", {"delay": 0.002})
    target = tmp_path / "out.json"
    script = tmp_path / "script.py"
    script.write_text(
        "import signal; from pathlib import Path; from bench.edge import measure, method\n"
        "from bench.edge.artifact import read; from tests.support.fake_runner import open_runner\n"
        "if __name__ == '__main__':\n"
        # A shell starts what runs in its background with interrupts switched off.
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    measure._WRITE_EVERY = 0\n"
        "    method.PROFILES['quick'] = method.Profile(10000, 100, 1000, 0)\n"
        f"    folder, target = Path({str(folder)!r}), Path({str(target)!r})\n"
        "    contender = method.Contender('a', folder, read(folder))\n"
        "    measure.measure([contender], method.Method(), target, open_runner=open_runner)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if target.exists() and len(results.read(target)["contenders"][0]["blocks"]) > 3:
            return process, target
        time.sleep(0.05)
    process.kill()
    raise AssertionError("it never got to its fourth round")


def _children(process) -> list[str]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    assert found.stdout
    return found.stdout.split()


def test_what_was_measured_outlives_a_kill_of_the_bench(tmp_path):
    process, target = _started(tmp_path)
    children = _children(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (entry,) = results.read(target)["contenders"]
    assert len(entry["blocks"]) > 3
    assert not entry["complete"]
    assert _all_end(children)


def _all_end(children: list[str]) -> bool:
    """Whether all are gone in ten seconds: the system ends them after their parent, not with it."""
    until = time.monotonic() + 10
    while any(_alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(_alive(pid) for pid in children)


def _alive(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_names_say_in_what_contenders_differ(tmp_path):
    base = {"runner": "ort", "batch": 1, "threads": 0, "inputs": "data", "hz": 0.0}
    a = {**base, "folder": tmp_path / "inter", "precision": "fp32"}
    assert names([a, {**a, "precision": "int8"}]) == ["inter fp32", "inter int8"]
    assert names([a, a, a]) == ["inter fp32", "inter fp32 (2)", "inter fp32 (3)"]
    assert names([a, {**a, "batch": 8}]) == ["inter fp32 batch 1", "inter fp32 batch 8"]
    other = {**a, "folder": tmp_path / "x" / "inter"}
    assert names([a, other])[1] == "x/inter fp32"
    paced = {**a, "hz": 10.0}
    assert names([a, paced]) == ["inter fp32 back to back", "inter fp32 at 10 Hz"]


def test_what_an_artifact_lacks_is_refused_before_anything_starts(contender):
    made = contender()
    with pytest.raises(ArtifactError, match=r"has no int4; it has fp32"):
        check(dataclasses.replace(made, precision="int4"))
    with pytest.raises(ArtifactError, match="--threads means nothing to tensorrt"):
        check(dataclasses.replace(made, runner="tensorrt", threads=2))
    fixed = {**made.meta, "shapes": {"batch": 1, "length": 8}}
    with pytest.raises(ArtifactError, match="data and padded are the same"):
        check(dataclasses.replace(made, meta=fixed, inputs="padded"))
    with pytest.raises(ArtifactError, match=r"batches of 1, got --batches=4.*--dynamic"):
        check(dataclasses.replace(made, meta=fixed, batch=4))


def test_a_full_disk_is_a_sentence(contender, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(BenchError, match=r"one\.json cannot be written"):
        run(tmp_path, contender())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "fusion_keras results 0"}'])
def test_a_damaged_file_of_results_is_a_sentence(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(results.ResultsError, match=r"x\.json"):
        results.read(tmp_path / "x.json")
