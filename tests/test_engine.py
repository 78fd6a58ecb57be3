"""TensorRT engines: every call as the published bindings have it. No TensorRT runs here."""

import json
import os
import re
import sys
from pathlib import Path

import onnx.parser
import pytest

from bench.edge import engine
from bench.edge.artifact import read
from bench.engine import main as engine_main
from export.artifact import building, seal
from tests.support import tensorrt_api

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
graph (int32[1,LENGTH] token_ids, uint8[1,8,8,3] image) => (float[1,2] logits) {
  i = Cast <to = 1> (image)
  t = Cast <to = 1> (token_ids)
  it = ReduceSum <keepdims = 0> (i)
  tt = ReduceSum <keepdims = 0> (t)
  y = Add (it, tt)
  two = Constant <value_ints = [1, 2]> ()
  logits = Expand (y, two)
}
"""


def artifact(folder, length="T", lengths=(8, 16)):
    with building(folder) as partial:
        model = onnx.parser.parse_model(GRAPH.replace("LENGTH", length))
        models = {}
        for name in ("fp32", "fp16"):
            onnx.save(model, partial / f"{name}.onnx")
            models[name] = {"file": f"{name}.onnx"}
        seal(partial, {"models": models, "lengths": list(lengths)})
    return folder


@pytest.fixture(params=["10.3", "10.16", "11.1"])
def trt(request, monkeypatch):
    module = tensorrt_api.module(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


def test_an_engine_is_built_with_a_profile_for_each_bucket(trt, tmp_path, capsys):
    folder = artifact(tmp_path / "artifact")
    assert engine_main([str(folder), "--workspace=64"]) == 0
    (path,) = (folder / "engines").glob("*.engine")
    assert path.read_bytes() == b"a plan"
    assert path.name.startswith(f"fp16-trt{trt.__version__}-")
    assert str(path) in capsys.readouterr().out
    described = json.loads(path.with_suffix(".json").read_text())
    assert described["model"] == "fp16.onnx"
    shapes = [call for call in trt.calls if call[0] == "set_shape"]
    assert shapes == [
        ("set_shape", "token_ids", (1, 8), (1, 8), (1, 8)),
        ("set_shape", "token_ids", (1, 16), (1, 16), (1, 16)),
    ]
    assert ("set_memory_pool_limit", trt.MemoryPoolType.WORKSPACE, 64 << 20) in trt.calls
    assert ("clear_flag", trt.BuilderFlag.TF32) in trt.calls
    # EXPLICIT_BATCH is bit 0 of 10, STRONGLY_TYPED bit 1; 11 has nothing to ask for.
    assert ("create_network", 2 if trt.__version__.startswith("10") else 0) in trt.calls
    assert read(folder)["lengths"] == [8, 16], "an engine beside it does not harm the artifact"


def test_fixed_shapes_need_no_profile(trt, tmp_path):
    folder = artifact(tmp_path / "artifact", length="16", lengths=(16,))
    assert engine_main([str(folder), "--precision=fp32"]) == 0
    assert not {"set_shape", "add_optimization_profile"} & {c[0] for c in trt.calls}


def answering(folder, monkeypatch, program, said):
    """Put a program into the PATH that says only this."""
    file = folder / program
    file.write_text(f"#!/bin/sh\necho '{said}'\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_a_desktop_gpu_has_its_own_name_and_all_jetsons_one(tmp_path, monkeypatch):
    answering(tmp_path, monkeypatch, "nvidia-smi", "NVIDIA H200")
    assert engine.gpu_name() == "NVIDIA H200"
    answering(tmp_path, monkeypatch, "nvidia-smi", "Orin (nvgpu)")
    assert engine.gpu_name() != "Orin (nvgpu)"


def test_timings_are_kept_from_build_to_build(trt, tmp_path):
    folder, cache = artifact(tmp_path / "artifact"), tmp_path / "timings"
    for times in (1, 2):
        assert engine_main([str(folder), f"--timing_cache={cache}"]) == 0
        assert cache.read_bytes() == b"more timings " * times


def test_an_engine_is_kept_where_its_timings_cannot_be(trt, tmp_path, capsys):
    folder = artifact(tmp_path / "artifact")
    assert engine_main([str(folder), f"--timing_cache={tmp_path}"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert len(list((folder / "engines").glob("*.engine"))) == 1


def test_an_open_batch_has_a_range():
    shapes = {"token_ids": (-1, -1), "image": (-1, 8, 8, 3)}
    assert engine.profiles_of(shapes, [16, 32], 4) == [
        {
            "token_ids": ((1, length), (1, length), (4, length)),
            "image": ((1, 8, 8, 3), (1, 8, 8, 3), (4, 8, 8, 3)),
        }
        for length in (16, 32)
    ]
    only = {"image": (-1, 8, 8, 3)}
    assert len(engine.profiles_of(only, [], 4)) == 1


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("parse", "No importer registered for op: Frob"),
        ("timing cache", "another GPU"),
        ("build", "--workspace"),
        ("cuda", "no GPU"),
    ],
)
def test_what_tensorrt_refuses_is_one_sentence(tmp_path, monkeypatch, capsys, fails, said):
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_api.module("10.3", fails))
    folder = artifact(tmp_path / "artifact")
    assert engine_main([str(folder), f"--timing_cache={tmp_path / 'cache'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert not (folder / "engines").exists()


def test_a_tensorrt_without_strong_types_is_one_sentence(tmp_path, monkeypatch, capsys):
    trt = tensorrt_api.module("8.6")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    folder = artifact(tmp_path / "artifact")
    assert engine_main([str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: tensorrt 8.6.0 is too old: ")
    assert "JetPack 6.1" in error
    assert trt.calls == []
    assert not (folder / "engines").exists()


def tensorrt_users():
    """The modules of the bench and of the export that speak of TensorRT's bindings."""
    root = Path(__file__).parents[1]
    for path in sorted([*root.glob("bench/**/*.py"), *root.glob("export/**/*.py")]):
        if re.search(r"\btrt\.|\bimport tensorrt", path.read_text()):
            yield path


def test_nothing_that_tensorrt_11_has_removed_is_used_in_any_branch():
    users = list(tensorrt_users())
    assert {"engine.py", "trt.py", "compiler.py"} <= {path.name for path in users}
    used = {path.name: tensorrt_api.removed_in_11(path.read_text()) for path in users}
    assert not any(used.values()), used


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("if old: config.set_flag(trt.BuilderFlag.FP16)", ["BuilderFlag.FP16"]),
        (
            "from x import y\ny.IBuilderConfig.int8_calibrator = 1",
            ["IBuilderConfig.int8_calibrator"],
        ),
        ("size = engine.device_memory_size", ["ICudaEngine.device_memory_size"]),
        ("class C(trt.IInt8EntropyCalibrator2): pass", [".IInt8EntropyCalibrator2"]),
        ("trt.DataType.INT8, trt.BuilderFlag.TF32, config.get_timing_cache()", []),
    ],
)
def test_uses_of_what_was_removed_are_seen(code, found):
    assert tensorrt_api.removed_in_11(code) == found


def test_without_tensorrt_it_says_where_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert engine_main([str(artifact(tmp_path / "artifact"))]) == 2
    assert "JetPack" in capsys.readouterr().err


def test_int8_wants_the_calibrated_model(trt, tmp_path, capsys):
    assert engine_main([str(artifact(tmp_path / "artifact")), "--precision=int8"]) == 2
    assert "--precisions=int8_static" in capsys.readouterr().err
