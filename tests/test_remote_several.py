"""Several machines at a time: two real sshd on loopback."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from bench.__main__ import main
from bench.edge import results
from bench.remote import connection
from bench.study import main as study_main
from tests.support import fake_runner, sshd
from tests.support.sshd import needs_sshd

_BENCH = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("bench", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def other(tmp_path):
    folder = tmp_path / "other"
    folder.mkdir()
    with sshd.Sshd(folder) as started:
        yield started


@pytest.fixture
def fake(tmp_path):
    return fake_runner.write_artifact(tmp_path / "fake", {})


def flags(*devices) -> list[str]:
    """Of one command for several: each knows its own key and is let in by its own."""
    folder = devices[0].folder
    keys = "\n".join(f"IdentityFile {device.folder / 'user'}" for device in devices)
    known = " ".join(str(device.folder / "known_hosts") for device in devices)
    config = (folder / "ssh_config").read_text()
    config = config.replace(f"IdentityFile {folder}/user", keys)
    (folder / "both").write_text(config.replace(f"{folder}/known_hosts", known))
    named = ",".join(device.flags[0].removeprefix("--device=") for device in devices)
    return [f"--device={named}", f"--ssh=ssh -F {folder / 'both'}"]


def name(device) -> str:
    return f"127.0.0.1-{device.port}"


def test_each_machine_is_named_once():
    assert list(connection.each("ssh://a@orin/x, ssh://b@[::1]:22")) == ["orin", "-1-22"]
    with pytest.raises(connection.BenchError, match="names orin twice"):
        connection.each("ssh://a@orin/x,ssh://b@orin/y")


def test_several_want_a_name_of_the_results(fake, capsys):
    assert main([str(fake), "--device=ssh://a,ssh://b"]) == 2
    assert "Several devices want --out=OUT.json" in capsys.readouterr().err


@needs_sshd
def test_each_has_its_own_results_and_one_that_is_off_holds_none_up(
    device, other, fake, tmp_path, capsys
):
    command = [str(fake), *flags(device, other), f"--out={tmp_path / 'x.json'}"]
    device.process.terminate()
    device.process.wait()
    ours, theirs = (tmp_path / f"x-{name(which)}.json" for which in (device, other))
    assert main(command) == 2
    error = capsys.readouterr().err
    assert f"{name(device)}: 127.0.0.1 cannot be reached" in error
    assert f"error: No results of {name(device)}: why stands above." in error
    measured = results.read(theirs)
    assert measured["fingerprint"]["cores"]
    assert len(measured["contenders"]) == 1
    assert not ours.exists()
    # The same command measures what is not there.
    device.start()
    assert main(command) == 1  # the artifact has no model
    said = capsys.readouterr().out
    assert f"{name(other)}: measured before, {theirs}" in said
    assert results.read(theirs)["when"] == measured["when"]
    assert results.read(ours)["when"] > measured["when"]
    assert main([*command, "--seed=5"]) == 2
    assert f"{ours} is there, of another measurement" in capsys.readouterr().err


@needs_sshd
def test_a_study_sees_its_devices_before_it_trains(device, tmp_path, capsys):
    device.python(f'exec {sys.executable} -S "$@"')
    assert study_main([f"--workdir={tmp_path / 'study'}", *device.flags]) == 2
    assert "has no numpy and no onnxruntime: type" in capsys.readouterr().err
    assert not (tmp_path / "study" / "runs").exists()


@needs_sshd
@pytest.mark.slow
def test_two_are_at_work_at_the_same_time_and_ctrl_c_ends_both(
    device, other, tiny_artifact, tmp_path
):
    # Two machines have two locks; here it is a file in each one's own folder.
    out = tmp_path / "x.json"
    command = [sys.executable, "-c", _BENCH, str(tiny_artifact), *flags(device, other)]
    process = subprocess.Popen(
        [*command, f"--out={out}", "--profile=full"], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while not all(list(d.home.glob("jobs/*/wrote-out")) for d in (device, other)):
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert not [*device.home.glob("jobs/*"), *other.home.glob("jobs/*")]
    kept = list(tmp_path.glob("x-*.json"))
    assert len(kept) == 2
    for path in kept:
        assert json.loads(path.read_text())["contenders"][0]["complete"] is False
