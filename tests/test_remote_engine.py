"""Engines that are built on another machine: a real sshd on loopback, and a TensorRT that is
known; or, where it is installed, NVIDIA's own compiler."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx.parser
import pytest

from bench.edge.engine import engine_name, gpu_name
from bench.engine import main
from export.artifact import building, seal
from tests.support.sshd import needs_sshd

pytestmark = needs_sshd
GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
graph (float[1,4] image) => (float[1,4] logits) {
  logits = Relu (image)
}
"""
KNOWN = """
import os, sys, time
sys.path.append({root!r})
from tests.support import tensorrt_api
known = tensorrt_api.module("10.3", fails=open({fails!r}).read())
globals().update(vars(known))

def Builder(logger):
    while os.path.exists({wait!r}):
        time.sleep(0.05)
    return known.Builder(logger)
"""
# What differs in TensorRT-RTX: it compiles for a GPU that is named, where there is none.
REAL = """
from tensorrt_rtx import *
import tensorrt_rtx as rtx
__version__ = rtx.__version__

class Builder(rtx.Builder):
    def create_builder_config(self):
        config = super().create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
        return config
"""


@pytest.fixture
def folder(tmp_path):
    with building(tmp_path / "late") as partial:
        onnx.save(onnx.parser.parse_model(GRAPH), partial / "fp16.onnx")
        seal(partial, {"models": {"fp16": {"file": "fp16.onnx"}}, "lengths": []})
    return tmp_path / "late"


@pytest.fixture
def fails(device):
    """A file that says how the device's TensorRT fails; without it, none is installed."""
    return device.folder / "fails"


@pytest.fixture
def waits(device):
    """While this file is there, a build goes on."""
    return device.folder / "waits"


@pytest.fixture
def trt(device, fails, waits):
    fails.write_text("")
    root = str(Path(__file__).parents[1])
    installed(device, KNOWN.format(root=root, fails=str(fails), wait=str(waits)))


def installed(device, code: str) -> None:
    """Make this the device's module tensorrt."""
    (device.folder / "modules").mkdir()
    (device.folder / "modules" / "tensorrt.py").write_text(code)
    device.python(f'PYTHONPATH={device.folder / "modules"} exec {sys.executable} "$@"')


def asked(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_an_engine_stays_there_and_comes_here(device, trt, folder, tmp_path, capsys):
    timings = tmp_path / "orin.timings"
    flags = [folder, f"--timing_cache={timings}", *device.flags]
    assert asked(*flags) == 0
    said = capsys.readouterr().out
    assert "Copied to 127.0.0.1: " in said
    name = engine_name("fp16", "10.3.0", gpu_name())
    assert f"Engine: {folder / 'engines' / name}" in said
    for place in (folder, device.home / "artifacts" / "late"):
        assert (place / "engines" / name).read_bytes() == b"a plan"
        described = json.loads((place / "engines" / name).with_suffix(".json").read_text())
        assert described["model"] == "fp16.onnx"
    assert timings.read_bytes() == b"more timings "
    # The second build begins with the timings of the first, which alone are copied.
    assert asked(*flags) == 0
    assert "Copied to 127.0.0.1: 1 files" in capsys.readouterr().out
    assert timings.read_bytes() == b"more timings " * 2
    assert not list((device.home / "jobs").iterdir())
    assert not list((device.home / "given").iterdir())


@pytest.mark.parametrize(
    ("how", "said"),
    [("cuda", "TensorRT finds no GPU that it can use"), ("build", "could not build")],
)
def test_what_the_builder_says_there_is_said_here(device, trt, fails, folder, capsys, how, said):
    fails.write_text(how)
    assert asked(folder, *device.flags) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error
    assert not (folder / "engines").exists()


def test_a_device_without_tensorrt_is_one_sentence(device, folder, capsys):
    assert asked(folder, *device.flags) == 2
    assert "127.0.0.1 has no tensorrt: type `ssh " in capsys.readouterr().err
    assert not (device.home / "artifacts").exists()


def test_a_build_outlives_the_connection(device, trt, waits, folder, capsys):
    waits.touch()

    def cut() -> None:
        while not list((device.home / "jobs").glob("*/pid")):
            time.sleep(0.02)
        device.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    assert asked(folder, *device.flags) == 2
    cutter.join()
    error = capsys.readouterr().err
    assert "was lost" in error
    assert "it goes on there: type the same command to go on with it" in error
    # Another command finds the device at work, the same one finds its build.
    assert asked(folder, "--workspace=64", *device.flags) == 2
    assert "Another measurement or build is running on 127.0.0.1" in capsys.readouterr().err
    waits.unlink()
    assert asked(folder, *device.flags) == 0
    assert "Going on with the build that began on 127.0.0.1 at " in capsys.readouterr().out
    assert len(list((folder / "engines").glob("*.engine"))) == 1


def test_a_place_here_that_cannot_be_written_loses_nothing(device, trt, folder, capsys):
    (folder / "engines").write_text("a file")
    assert asked(folder, *device.flags) == 2
    assert "cannot be written" in capsys.readouterr().err
    (folder / "engines").unlink()
    assert asked(folder, *device.flags) == 0
    assert "Going on with the build that began" in capsys.readouterr().out
    assert len(list((folder / "engines").glob("*.engine"))) == 1


@pytest.mark.slow
def test_nvidias_own_compiler_builds_there(device, folder, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")
    installed(device, REAL)
    timings = tmp_path / "timings"
    command = [sys.executable, "-m", "bench.engine", folder, f"--timing_cache={timings}"]
    subprocess.run([*command, *device.flags], check=True)
    (built,) = (folder / "engines").glob("*.engine")
    there = device.home / "artifacts" / "late" / "engines" / built.name
    assert there.read_bytes() == built.read_bytes()
    assert built.stat().st_size > 1000
