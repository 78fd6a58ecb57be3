"""The runner `rtx`. NVIDIA's plug-in wants its driver; another one of its kind runs on any CPU."""

import json
import os
import shutil
import sys
import types

import onnxruntime
import pytest

from bench.edge import proof
from bench.edge.artifact import ArtifactError, read
from bench.edge.runners import rtx
from bench.edge.runners.engines import open_runner
from tests.support.golden import assert_golden

PLUG_IN = rtx.OnnxRuntimeRtx.package


@pytest.fixture
def folder(tiny_artifact, tmp_path):
    return shutil.copytree(tiny_artifact, tmp_path / "artifact")  # the cache is kept in it


class OnCpu(rtx.OnnxRuntimeRtx):
    """OpenVINO's plug-in, loaded, asked and checked by the same code."""

    asked, package = "OpenVINOExecutionProvider", "onnxruntime_ep_openvino"

    def _settings(self):
        # Where a CPU has bfloat16 (AMX), OpenVINO computes float32's files in it unless told.
        return {"load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "f32"}})}


@pytest.fixture
def on_cpu():
    plugin = pytest.importorskip(OnCpu.package, reason="onnxruntime-ep-openvino is not installed")
    rtx._register(onnxruntime, OnCpu.asked, plugin.get_library_path())
    if all(device.ep_name != OnCpu.asked for device in onnxruntime.get_ep_devices()):
        pytest.skip("OpenVINO's plug-in takes no processor of this vendor")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8_static"])
def test_a_plug_in_takes_every_node_and_answers_as_the_trained_model(on_cpu, folder, precision):
    meta = read(folder)
    for _ in range(2):  # a library is registered once a process
        with OnCpu(folder, meta, precision) as runner:
            parity, _ = proof.compare(runner.infer, folder, meta, precision, 1)
            assert runner.providers == [OnCpu.asked]
        assert parity["relative"] < parity["allowed"]


def test_nodes_that_a_plug_in_leaves_to_the_cpu_are_named(on_cpu, folder):
    with pytest.raises(ArtifactError, match=r"QAttention on CPUExecutionProvider"):
        OnCpu(folder, read(folder), "int8")
    with OnCpu(folder, read(folder), "int8", allow_fallback=True) as runner:
        assert set(runner.providers) == {OnCpu.asked, "CPUExecutionProvider"}


def test_without_the_package_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, PLUG_IN, None)
    with pytest.raises(ArtifactError, match=rf"{PLUG_IN} is not installed .*\[rtx,cpu\]"):
        open_runner("rtx", folder, read(folder), "fp32")


def test_a_library_that_cannot_be_loaded_is_one_sentence(folder, monkeypatch, tmp_path):
    nowhere = types.SimpleNamespace(get_library_path=lambda: str(tmp_path / "nothing.so"))
    monkeypatch.setitem(sys.modules, PLUG_IN, nowhere)
    with pytest.raises(ArtifactError, match=r"cannot load Nv.*nothing\.so.*NVIDIA's driver"):
        open_runner("rtx", folder, read(folder), "fp32")
    assert not (folder / "engines").exists()


def test_an_older_onnx_runtime_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, PLUG_IN, types.SimpleNamespace())
    name = "get_provider_graph_assignment_info"
    for kind in onnxruntime.InferenceSession.__mro__:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)
    with pytest.raises(ArtifactError, match=r"too old for Nv.* take 1\.24 or later"):
        open_runner("rtx", folder, read(folder), "fp32")


def test_nvidias_plug_in_without_a_driver_is_one_sentence(folder):
    pytest.importorskip(PLUG_IN, reason="the extra rtx is not installed")
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("a GPU is here")
    with pytest.raises(ArtifactError, match=r"cannot load Nv.*libcuda\.so.*NVIDIA's driver"):
        open_runner("rtx", folder, read(folder), "fp32")


@pytest.mark.gpu
def test_an_rtx_card_answers_as_the_trained_model(folder):
    pytest.importorskip(PLUG_IN, reason="the extra rtx is not installed")
    with open_runner("rtx", folder, read(folder), "fp32") as runner:
        assert_golden(runner, folder, tolerance=1e-3)
        assert runner.providers == ["NvTensorRTRTXExecutionProvider"]
    assert list((folder / "engines").glob("rtx-*-fp32/*"))
