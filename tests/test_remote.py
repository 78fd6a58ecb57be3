"""A measurement on another machine: a real sshd on loopback stands for the device."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.device import main as profiled
from bench.edge import artifact, files, results
from bench.edge.errors import BenchError
from bench.remote import connection, session, there
from tests.support import fake_runner, sshd
from tests.support.sshd import needs_sshd


@pytest.fixture
def fake(tmp_path):
    """An artifact that is whole, of which no engine knows anything."""
    return fake_runner.write_artifact(tmp_path / "fake", {})


def refused(capsys, *arguments) -> str:
    """The one sentence that a command ends with."""
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    return error


# --- What is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ssh://Orin", ("", "Orin", None, "fusion_keras_bench")),
        ("ssh://a@orin:2222/", ("a", "orin", 2222, "fusion_keras_bench")),
        ("ssh://a@orin/my%20bench/x", ("a", "orin", None, "my bench/x")),
        ("ssh://a@orin//data/bench", ("a", "orin", None, "/data/bench")),
        ("ssh://a@[::1]:22", ("a", "::1", 22, "fusion_keras_bench")),
    ],
)
def test_a_device_is_read_as_it_is_typed(text, wanted):
    assert connection.address(text) == connection.Address(*wanted)


@pytest.mark.parametrize(
    "text",
    [
        *("orin", "http://orin", "ssh:orin", "ssh://", "ssh://orin:x", "ssh://orin:99999"),
        *("ssh://-oProxyCommand=x", "ssh://-l@orin", "ssh://a b@orin", "ssh://orin/../etc"),
        "ssh://orin?x=1",
    ],
)
def test_what_is_no_device_is_refused(text):
    with pytest.raises(BenchError, match=r"give ssh://USER@HOST\[:PORT\]\[/DIR\]"):
        connection.address(text)


def test_a_password_is_refused():
    with pytest.raises(BenchError, match="use a key") as refusal:
        connection.address("ssh://a:secret@orin")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--run=runs/x", "--run names a folder of this machine"),
        ("--runners=keras", "needs the training stack and runs here alone"),
        ("--ssh=no-such-program", "no-such-program cannot be run"),
        ("--ssh=", "--ssh is empty"),
    ],
)
def test_flags_that_do_not_go_with_a_device_are_refused(fake, capsys, flag, said):
    assert said in refused(capsys, fake, "--device=ssh://orin", flag)


def test_flags_go_on_as_they_were_meant():
    from bench.__main__ import _parser

    given = ["a", "--precisions=fp32,int8", "--hz=0,5", "--threads=1,2", "--allow_fallback"]
    given += ["--timeout=30", "--margin=0.05", "--inputs=data", "--profile=full", "--seed=3"]
    here = ["--out=x.json", "--replace", "--device=ssh://orin", "--ssh=ssh -F x"]
    options = vars(_parser().parse_args([*given, *here]))
    read = vars(
        _parser().parse_args(["a", *session._flags(_parser().parse_args([*given, *here]), ["out"])])
    )
    local = ("out", "replace", "device", "ssh")
    assert {n: v for n, v in read.items() if n not in local} == {
        n: v for n, v in options.items() if n not in local
    }
    assert [read[n] for n in local] == [None, False, None, "ssh"]


def test_a_device_s_copy_knows_no_devices(fake, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bench.remote.session", None)
    assert "this is a device's copy" in refused(capsys, fake, "--device=ssh://orin")


# --- What can go wrong on the way ---------------------------------------------------------------


def test_a_device_that_is_off_is_one_sentence(fake, capsys):
    error = refused(capsys, fake, "--device=ssh://127.0.0.1:1", "--ssh=ssh -F none")
    assert "127.0.0.1 cannot be reached (ssh: connect to host 127.0.0.1 port 1:" in error


@needs_sshd
def test_another_host_key_is_one_sentence(device, fake, capsys):
    device.known("other")
    error = refused(capsys, fake, *device.flags)
    assert "has another host key than the one known here" in error
    (device.folder / "known_hosts").write_text("")
    assert "is not known here" in refused(capsys, fake, *device.flags)
    assert not (device.home / "bench").exists()


@needs_sshd
def test_no_permission_is_one_sentence(device, fake, capsys):
    (device.folder / "user.pub").write_text((device.folder / "other.pub").read_text())
    error = refused(capsys, fake, *device.flags)
    assert "does not let you in" in error
    assert "ssh-copy-id" in error


@needs_sshd
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'case "$2" in *split*) echo 3.8.10;; *) exit 1;; esac',
            "has Python 3.8.10, 3.10 or newer",
        ),
        ("exit 127", "has no python3, 3.10 or newer"),
    ],
)
def test_a_python_that_does_not_do_is_one_sentence(device, fake, capsys, script, said):
    device.python(script)
    assert said in refused(capsys, fake, *device.flags)


@needs_sshd
def test_missing_packages_are_named_with_what_to_type(device, fake, capsys):
    device.python(f'exec {sys.executable} -S "$@"')
    error = refused(capsys, fake, *device.flags)
    assert "has no numpy and no onnxruntime: type `ssh -F " in error
    assert "-m pip install numpy onnxruntime" in error
    assert not (device.home / "bench").exists()


@needs_sshd
def test_a_second_measurement_at_the_same_time_is_one_sentence(device, fake, capsys):
    with (device.folder / "tmp" / there.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "Another measurement or build is running on 127.0.0.1" in refused(
            capsys, fake, *device.flags
        )


@needs_sshd
@pytest.mark.slow
def test_a_full_disk_is_one_sentence(tmp_path, fake, capsys):
    folder = tmp_path / "sshd"
    folder.mkdir()
    with sshd.Sshd(folder, largest_file="4") as device:
        assert "The disk of 127.0.0.1 is full (" in refused(capsys, fake, *device.flags)
        assert not list(device.home.rglob("*.partial"))


@needs_sshd
@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_one_sentence(device, fake, capsys):
    (device.home / "bench").write_text("a file")
    assert "give another DIR in --device" in refused(capsys, fake, *device.flags)


@needs_sshd
@pytest.mark.slow
def test_a_copy_cut_half_way_goes_on_with_what_is_not_there(device, fake, capsys):
    (fake / "big.bin").write_bytes(bytes(200_000_000))
    meta = json.loads((fake / "meta.json").read_text())
    meta["files"]["big.bin"] = files.digest(fake / "big.bin")
    meta["seal"] = artifact.seal_of(meta)
    (fake / "meta.json").write_text(json.dumps(meta))
    place = device.home / "artifacts" / "fake"

    def cut() -> None:
        while not (place / "big.bin.partial").exists():
            time.sleep(0.001)
        device.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    error = refused(capsys, fake, *device.flags)
    cutter.join()
    assert "was lost" in error
    assert "stays there: type the same command to go on" in error
    assert (place / "golden.npz").exists()
    assert not (place / "big.bin").exists()
    until = time.monotonic() + 10  # the other end learns of it, and lets go of the lock
    while (place / "big.bin.partial").exists() and time.monotonic() < until:
        time.sleep(0.05)
    target = device.folder / "x.json"
    assert main([str(fake), *device.flags, f"--out={target}"]) == 1  # it has no model
    assert "Copied to 127.0.0.1: 2 files, 200.0 MB" in capsys.readouterr().out
    assert (place / "big.bin").stat().st_size == 200_000_000
    assert results.read(target)["contenders"][0]["complete"] is False


# --- Measurements -------------------------------------------------------------------------------


# `python -m bench`; of a pytest in a shell's background SIGINT is ignored, and would be here, too.
_BENCH = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("bench", run_name="__main__", alter_sys=True)
"""


def typed(device, folder, *flags) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", _BENCH, str(folder), *device.flags, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job(device):
    """The folder of the one measurement there, once it runs."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = list((device.home / "jobs").glob("*/pid"))
        if found and found[0].read_text() and (found[0].parent / "wrote-out").exists():
            return found[0].parent
        time.sleep(0.05)
    raise AssertionError("it never began")


@needs_sshd
@pytest.mark.slow
def test_results_are_those_of_a_measurement_by_hand(device, tiny_artifact, tmp_path, capsys):
    flags = ["--precisions=fp32,int8"]
    here, there_ = tmp_path / "here.json", tmp_path / "there.json"
    assert main([str(tiny_artifact), *flags, f"--out={here}"]) == 0
    capsys.readouterr()
    assert main([str(tiny_artifact), *flags, *device.flags, f"--out={there_}"]) == 0
    said = capsys.readouterr().out
    assert "Copied to 127.0.0.1: " in said
    assert f"Results: {there_}" in said
    local, remote = results.read(here), results.read(there_)
    assert remote["fingerprint"] == local["fingerprint"]  # it is the same machine
    assert remote["method"] == local["method"]
    for ours, theirs in zip(local["contenders"], remote["contenders"], strict=True):
        assert theirs["name"] == ours["name"]
        assert theirs["complete"]
        assert theirs["parity"] == pytest.approx(ours["parity"])
        assert theirs["artifact"]["seal"] == ours["artifact"]["seal"]
        assert theirs["latency"]["count"] >= 64
    # Nothing is left but the copy.
    assert not list((device.home / "jobs").iterdir())
    assert {path.name for path in device.home.iterdir()} == {".venv", "artifacts", "bench", "jobs"}
    # The second copies nothing, and after a change that file alone.
    again = tmp_path / "again.json"
    assert main([str(tiny_artifact), *device.flags, f"--out={again}"]) == 0
    assert "Copied" not in capsys.readouterr().out
    (device.home / "bench" / "edge" / "files.py").write_text("cut sh")
    assert main([str(tiny_artifact), *device.flags, f"--out={again}", "--replace"]) == 0
    assert "Copied to 127.0.0.1: 1 files" in capsys.readouterr().out


@needs_sshd
@pytest.mark.slow
def test_a_profile_of_the_device_comes_by_the_same_way(device, tmp_path, capsys):
    target = tmp_path / "profile.json"
    flags = ["--runner=ort", "--name=loopback", f"--out={target}"]
    assert profiled([*flags, *device.flags]) == 0
    assert f"Next: python -m bench.floor ARTIFACT --device={target}" in capsys.readouterr().out
    profile = json.loads(target.read_text())
    assert profile["device"] == "loopback"
    assert profile["matrix_gflops"]["fp32"] > 0
    assert not (device.home / "artifacts").exists()


@needs_sshd
@pytest.mark.slow
def test_a_lost_connection_costs_nothing(device, tiny_artifact, tmp_path):
    target = tmp_path / "x.json"
    first = typed(device, tiny_artifact, f"--out={target}")
    running = job(device)
    pid = (running / "pid").read_text()
    device.cut()
    _, error = first.communicate(timeout=60)
    cut = time.time()
    assert first.returncode == 2, error
    assert "The connection to 127.0.0.1 was lost" in error.splitlines()[-1]
    assert "goes on there: type the same command to go on with it" in error.splitlines()[-1]
    assert not target.exists()
    assert (running / "pid").read_text() == pid
    second = typed(device, tiny_artifact, f"--out={target}")
    out, error = second.communicate(timeout=120)
    assert second.returncode == 0, error
    assert "Going on with the measurement that began on 127.0.0.1 at " in out
    measured = results.read(target)
    assert all(c["complete"] for c in measured["contenders"])
    assert time.mktime(time.strptime(measured["when"][:19], "%Y-%m-%dT%H:%M:%S")) <= cut
    assert not running.exists()


@needs_sshd
@pytest.mark.slow
def test_this_process_killed_costs_nothing_and_ctrl_c_ends_it_there(
    device, tiny_artifact, tmp_path
):
    target = tmp_path / "x.json"
    flags = (f"--out={target}", "--profile=full")
    first = typed(device, tiny_artifact, *flags)
    running = job(device)
    first.kill()
    first.communicate()
    second = typed(device, tiny_artifact, *flags)
    assert second.stdout.readline().startswith("Going on with the measurement that began on")
    # Not before it follows: what the device has printed comes at once.
    while "1 contender" not in second.stdout.readline():
        pass
    os.kill(second.pid, signal.SIGINT)
    _, error = second.communicate(timeout=60)
    assert second.returncode == 130, error
    assert f"Interrupted, there too. What was done is kept in {target}." in error
    with (device.folder / "tmp" / there.LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert json.loads(target.read_text())["contenders"][0]["complete"] is False
    assert not running.exists()


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["all", "python"])
def test_a_measurement_that_dies_there_frees_the_device(alone, device, tiny_artifact, tmp_path):
    """With all that it started; and by itself, as where there is no memory left."""
    target = tmp_path / "x.json"
    first = typed(device, tiny_artifact, f"--out={target}", "--profile=full")
    running = job(device)
    with (device.folder / "tmp" / there.LOCK).open() as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid = int((running / "pid").read_text())
        if alone:
            (python,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            os.kill(int(python), signal.SIGKILL)
        else:
            os.killpg(pid, signal.SIGKILL)
        _, error = first.communicate(timeout=60)
        assert first.returncode == 2
        how = "signal 9, out of memory?" if alone else "restarted, out of memory?"
        assert f"ended the measurement without a word ({how})" in error
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
