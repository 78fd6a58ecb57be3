"""One training by two processes with two devices each is the training of one process."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from fusion_keras.errors import UsageError
from fusion_keras.training import processes
from fusion_keras.training.run import Run
from tests.support import compiled, tiny
from tests.support.entries import Entries
from tests.support.same_runs import MOBILENET, assert_same, statistics

TWO = compiled.fast(devices=2)
# A program that does something to itself when it has saved, or would have, so many epochs.
AFTER = """
import os, runpy, signal, sys, time
from fusion_keras.training import checkpoint, processes
save, left = checkpoint.save, [{epochs}]
def saved(*arguments):
    save(*arguments)
    left[0] -= 1
    if not left[0] and processes._group.index == {index}:
        {then}
checkpoint.save = saved
{more}
runpy.run_module("fusion_keras.train", run_name="__main__", alter_sys=True)
"""
# Each process has data of its own.
OTHER = """
import runpy
from fusion_keras.data.records import Dataset
from fusion_keras.training import processes
Dataset.fingerprint = property(lambda dataset: str(processes._group.index))
runpy.run_module("fusion_keras.train", run_name="__main__", alter_sys=True)
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
HANG = "time.sleep(600)"
FAIL = "raise __import__('fusion_keras.errors').errors.UsageError('the disk is full')"


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("processes"))


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return server.getsockname()[1]


@pytest.fixture
def together(bench, entries, tmp_path):
    """Train in two processes at once, each with two devices; what became of each of them.

    `second` are flags of the second one alone.
    """

    def train(name, program="", second=(), **changes):
        flags = bench.flags(run=tmp_path / name, **changes)
        flags += [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
        named = ("-c", program) if program else ("fusion_keras.train",)
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(closing(Entries(entries.folder))) for _ in range(2)]
            threads = stack.enter_context(ThreadPoolExecutor())
            done = [
                threads.submit(client.run, *named, *flags, *more, f"--process={i}", environment=TWO)
                for i, (client, more) in enumerate(zip(clients, ((), second), strict=True))
            ]
            return [future.result() for future in done]

    return train


@pytest.fixture
def alone(bench, entries, tmp_path):
    def train(name, **changes) -> Run:
        flags = bench.flags(run=tmp_path / name, **changes)
        done = entries.run("fusion_keras.train", *flags, environment=compiled.fast())
        assert done.returncode == 0, done.stderr
        return Run(tmp_path / name)

    return train


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "early"},
        {"variant": "late"},
        # Statistics of eight rows, as in whole batches.
        {**MOBILENET, "train__batch_size": 16, "train__accumulate": 2},
        {"variant": "inter", "train__accumulate": 2},
        # Left out by CI, whose time they would take: of early and late they have nothing new.
        pytest.param({"variant": "hybrid"}, marks=pytest.mark.large),
        pytest.param({"variant": "late_score"}, marks=pytest.mark.large),
        {"variant": "input"},
    ],
)
def test_two_processes_learn_what_one_does(together, alone, tmp_path, changes):
    changes = {**changes, "train__epochs": 4}
    first, second = together("together", **changes)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "Each batch is shared by 4 devices of 2 processes." in first.stderr
    # The other one has nothing to say; threads of Gloo write into each other's lines.
    gloo = re.compile(r"\[Gloo\]|peer ranks|^$")
    assert [line for line in second.stdout.splitlines() if not gloo.search(line)] == []
    assert "epoch" not in second.stderr
    one = alone("alone", **changes)
    assert bool(statistics(one)) == (changes.get("variant") == "image")
    assert_same(Run(tmp_path / "together"), one)


@pytest.mark.slow
def test_what_a_teacher_said_may_be_kept_by_one_process_alone(together, alone, tmp_path):
    """As where each machine has a cache of its own: the other one asks it."""
    teacher = alone("teacher", variant="text", train__epochs=2)
    changes = {"variant": "early", "train__epochs": 3, "teacher__runs": (str(teacher.folder),)}
    one = alone("alone", **changes)
    elsewhere = [f"--config.data.cache_dir={tmp_path / 'elsewhere'}"]
    first, second = together("together", second=elsewhere, **changes)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert_same(Run(tmp_path / "together"), one)


@pytest.mark.slow
def test_killed_they_go_on_as_one_process(together, alone, bench, tmp_path):
    changes = {"variant": "late", "train__epochs": 3}
    program = AFTER.format(epochs=1, index=1, then=KILL, more="processes._SILENT = 5")
    first, second = together("killed", program, **changes)
    assert second.returncode == -9
    assert first.returncode == 1, first.stderr
    assert "Process 1 of 2 has not been heard of for 5 seconds" in first.stderr
    assert_same(alone("killed", **changes), alone("whole", **changes))


@pytest.mark.slow
def test_one_that_hangs_ends_both(together):
    more = "processes._STEP = 3"
    program = AFTER.format(epochs=1, index=1, then=HANG, more=more)
    for done in together("hangs", program, variant="text", train__epochs=3):
        assert done.returncode == 1, done.stderr
        assert "raining has not got on for 3 seconds; furthest behind is process" in done.stderr
        assert "go on from the last finished epoch" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_the_mistake_of_one_is_told_by_both(together, index):
    program = AFTER.format(epochs=1, index=index, then=FAIL, more="")
    done = together("fails", program, variant="text", train__epochs=3)
    assert done[index].returncode == 2
    assert done[index].stderr.count("error: the disk is full") == 1
    assert done[1 - index].returncode == 1
    assert f"error: Process {index} of 2 has ended: the disk is full" in done[1 - index].stderr


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_an_interrupt_of_one_ends_both_at_once(bench, tmp_path, index):
    """As whole programs: what Python and JAX do at their end is part of it."""
    then = "os.kill(os.getpid(), signal.SIGINT)"
    program = AFTER.format(epochs=1, index=index, then=then, more="")
    flags = bench.flags(run=tmp_path / "run", variant="text", train__epochs=50)
    flags += [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    environment = {**os.environ, **TWO}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, *flags, f"--process={i}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    began = time.monotonic()
    said = [process.communicate()[0] for process in started]
    assert time.monotonic() - began < processes._SILENT, said
    assert started[index].returncode == 130, said[index]
    assert started[1 - index].returncode == 1, said[1 - index]
    assert "Interrupted. The same command goes on" in said[index]
    assert f"Process {index} of 2 has ended: it was interrupted" in said[1 - index]
    assert "Fatal" not in "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--seed=1", "seed was 0, is 1"),
        ("--run=elsewhere/run", "run was "),
    ],
)
def test_other_settings_of_one_are_refused_by_both(together, tmp_path, flag, sentence):
    first, second = together("other", second=[flag], variant="text")
    assert second.returncode == 2, second.stderr
    assert f"other settings than the first one ({sentence}" in second.stderr
    assert first.returncode == 1
    assert "error: Process 1 of 2 has ended: This process was given other settings" in first.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_other_data_of_one_are_refused_by_both(together):
    """As where each machine has a copy of its own, under the same path."""
    first, second = together("data", OTHER, variant="text")
    assert second.returncode == 2, second.stderr
    assert "This process reads other data than the first one (data)" in second.stderr
    assert "error: Process 1 of 2 has ended: This process reads other data" in first.stderr


@pytest.mark.slow
def test_uneven_batches_are_refused_by_both(together):
    for done in together("uneven", variant="text", train__batch_size=6):
        assert done.returncode in (1, 2)
        assert "a batch of 6 for 4 devices, wanted a multiple" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("", 2, 0), "--coordinator is wanted with them"),
        (("here", 2, 0), "got --coordinator=here, wanted HOST:PORT"),
        (("here:1", None, None), "got --processes=None --process=None"),
        (("here:1", 2, 2), "got --processes=2 --process=2"),
        (("auto", 2, 0), "leave out --processes and --process"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(given, said):
    with pytest.raises(UsageError, match=re.escape(said)), processes.joined(*given):
        pass


def test_alone_a_process_is_the_first_and_waits_for_nobody():
    with processes.joined("", None, None):
        assert processes.is_first()
        assert processes.count() == 1
        processes.wait()
        assert processes.agreed({"loss": 1.5}) == {"loss": 1.5}
        assert list(range(8))[processes.share(8)] == list(range(8))
