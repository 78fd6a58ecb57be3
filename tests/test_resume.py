"""A run that was killed, at any moment, goes on and ends as if nothing had happened."""

import contextlib
import csv
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from fusion_keras.errors import UsageError
from fusion_keras.interrupts import Interrupts
from fusion_keras.training import experiment, loop
from fusion_keras.training.experiment import train
from fusion_keras.training.run import Run
from tests.support import tiny

EPOCHS = 5
# With dropout, a schedule and momentum, all of which a resumed run must take up again.
CHANGES = {"fusion__junctions": "0+-:concat", "train__epochs": EPOCHS}
# As many as a process needs to be met at work.
LONG = {**CHANGES, "train__epochs": 30}
SECONDS_TO_START = 120


@pytest.fixture(scope="module")
def bench(tiny, tmp_path_factory) -> tiny.Bench:
    return tiny.beside(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def undisturbed(bench) -> Run:
    return train(bench.config(**CHANGES), bench.folder / "undisturbed")


def start(bench, folder) -> subprocess.Popen:
    command = tiny.command("train", *bench.flags(run=folder, **LONG))
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def epochs(folder: Path) -> list[int]:
    """The epochs in history.csv so far."""
    if not (folder / "history.csv").exists():
        return []
    with (folder / "history.csv").open(newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


def stop_in_epoch(process, run: Run, after: int, number: int) -> str:
    """Signal the process once history.csv has more than `after` epochs; its stderr."""
    give_up = time.monotonic() + SECONDS_TO_START
    while len(epochs(run.partial)) <= after:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.send_signal(number)
    said = process.communicate()[1]
    assert not run.complete
    assert after < len(epochs(run.partial)) < LONG["train__epochs"]
    return said


def assert_same(run: Run, other: Run):
    """Equal metrics, predictions and history, but for the seconds."""
    one, two = run.read_json("metrics.json"), other.read_json("metrics.json")
    assert one["best_epoch"] == two["best_epoch"]
    for split in ("valid", "test"):
        for name, values in one["splits"][split]["metrics"].items():
            for kind, value in values.items():
                wanted = two["splits"][split]["metrics"][name][kind]
                assert value == pytest.approx(wanted, abs=1e-6), (split, name, kind)
    tables = []
    for folder in (run.folder, other.folder):
        with (folder / "history.csv").open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
        tables.append([[v for k, v in row.items() if k != "seconds"] for row in rows])
    np.testing.assert_allclose(*tables, atol=1e-6)


@pytest.mark.slow
def test_a_run_killed_twice_ends_as_an_undisturbed_one(bench, tmp_path):
    undisturbed = train(bench.config(**LONG), tmp_path / "undisturbed")
    run = Run(bench.folder / "killed")
    stop_in_epoch(start(bench, run.folder), run, after=0, number=signal.SIGKILL)
    stop_in_epoch(start(bench, run.folder), run, len(epochs(run.partial)) + 3, signal.SIGKILL)
    # The second process went on and did not start anew.
    begun = len(epochs(run.partial))
    # What a kill in the middle of writing leaves behind.
    for name in (".new.checkpoint.npz", ".new.history.csv", ".new.model.keras"):
        (run.partial / name).write_bytes(b"half")
    process = start(bench, run.folder)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert f"Resuming after epoch {begun} of {LONG['train__epochs']}" in said
    assert epochs(run.folder) == list(range(1, LONG["train__epochs"] + 1))
    assert_same(run, undisturbed)
    assert not run.partial.exists()
    assert not [p.name for p in run.folder.iterdir() if p.name.startswith(".")]
    assert not (run.folder / "checkpoint.npz").exists()


@pytest.mark.slow
def test_an_interrupted_run_says_how_to_go_on(bench):
    run = Run(bench.folder / "interrupted")
    process = start(bench, run.folder)
    said = stop_in_epoch(process, run, after=0, number=signal.SIGTERM)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1].startswith("Interrupted. The same command goes on")
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_keras_swallows_is_not_lost(number):
    previous = signal.signal(number, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            interrupts.check()
            with contextlib.suppress(KeyboardInterrupt):  # as Keras's bare except does
                os.kill(os.getpid(), number)
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, previous)


def test_an_interrupt_lost_before_training_ends_it_at_once(bench, tmp_path, monkeypatch):
    describe = experiment.describe

    def interrupted(*arguments, **more):
        describe(*arguments, **more)
        with contextlib.suppress(KeyboardInterrupt):  # as in a callback of the collector
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(experiment, "describe", interrupted)
    # A shell starts what runs in its background with interrupts switched off.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts(), pytest.raises(KeyboardInterrupt):
            train(bench.config(**CHANGES), tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "run.partial" / "history.csv").exists()


class Killed(BaseException):
    """Stands for a kill at one certain place; nothing may handle it."""


def killed_at(monkeypatch, owner, name, call=0):
    """Make a function of a module or class fall dead at its call number `call`."""
    real, calls = getattr(owner, name), []

    def function(*args, **kwargs):
        calls.append(name)
        if len(calls) == call + 1:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, function)


# Each write of the loop and of the results may be the last that a process does.
@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (loop.checkpoint, "save", 3),
        # Between the checkpoint of the last epoch and its line of history.
        (loop, "history_csv", EPOCHS - 1),
        (experiment, "write_results", 0),
        (experiment, "save_model", 0),
        (Run, "finish", 0),
    ],
    ids=["checkpoint", "history of the last epoch", "results", "model", "renaming"],
)
def test_a_kill_between_two_files_loses_nothing(
    bench, undisturbed, tmp_path, monkeypatch, owner, name, call
):
    with monkeypatch.context() as patched:
        killed_at(patched, owner, name, call)
        with pytest.raises(Killed):
            train(bench.config(**CHANGES), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train(bench.config(**CHANGES), tmp_path / "run")
    assert_same(run, undisturbed)
    assert epochs(run.folder) == list(range(1, EPOCHS + 1))
    assert not run.partial.exists()


@pytest.mark.slow
def test_late_fusion_killed_while_a_parent_trains_goes_on(bench, tmp_path, monkeypatch):
    config = bench.config(variant="late", parent__epochs=3)
    # In a folder of its own: its parents would be taken, were they beside.
    undisturbed = train(config, tmp_path / "undisturbed" / "run")
    with monkeypatch.context() as patched:
        # Three epochs of the text parent, then the second one of the image parent.
        killed_at(patched, loop.checkpoint, "save", call=4)
        with pytest.raises(Killed):
            train(config, tmp_path / "run")
    parents = tmp_path / "run.partial" / "parents"
    assert {p.name for p in parents.iterdir()} == {"text", "image.partial"}
    run = train(config, tmp_path / "run")
    assert_same(run, undisturbed)
    assert {p.name for p in (run.folder / "parents").iterdir()} == {"text", "image"}


def begin(bench, folder, monkeypatch, epochs: int) -> Run:
    """A run that was killed after so many whole epochs."""
    with monkeypatch.context() as patched:
        killed_at(patched, loop.checkpoint, "save", call=epochs)
        with pytest.raises(Killed):
            train(bench.config(**CHANGES), folder)
    return Run(folder)


@pytest.fixture
def begun(bench, tmp_path, monkeypatch) -> Run:
    return begin(bench, tmp_path / "run", monkeypatch, epochs=1)


def test_where_nothing_was_learned_yet_other_settings_may_begin(bench, tmp_path, monkeypatch):
    run = begin(bench, tmp_path / "run", monkeypatch, epochs=0)
    train(bench.config(**{**CHANGES, "train__epochs": 1}, seed=1), run.folder)
    assert run.read_json("config.json")["seed"] == 1


def test_a_begun_run_is_not_mixed_with_other_settings(bench, begun):
    with pytest.raises(UsageError, match=r"begun with other settings \(seed was 0, is 1\)"):
        train(bench.config(**CHANGES, seed=1), begun.folder)


def test_a_begun_run_is_not_mixed_with_other_data(bench, begun):
    manifest = bench.folder / "data" / "manifest.csv"
    content = manifest.read_text()
    try:
        manifest.write_text(content.replace('number 7"', 'number seven"'))
        with pytest.raises(UsageError, match=r"data has changed since"):
            train(bench.config(**CHANGES), begun.folder)
    finally:
        manifest.write_text(content)


def test_one_run_directory_takes_one_process(bench, begun):
    config = experiment.resolve(bench.config(**CHANGES))
    with begun.open(config), pytest.raises(UsageError, match=r"Another process is training"):
        train(bench.config(**CHANGES), begun.folder)


def test_a_refused_run_leaves_no_folder(bench, tmp_path):
    with pytest.raises(UsageError, match="batch"):
        train(bench.config(**CHANGES, train__batch_size=1000), tmp_path / "run")
    assert not list(tmp_path.glob("run*"))
