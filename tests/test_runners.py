"""Every engine that runs here answers as the trained model does; the others are called rightly."""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bench.edge import proof
from bench.edge.artifact import ArtifactError, golden, read
from bench.edge.engine import engine_name, gpu_name
from bench.edge.runners import cuda, engines, workstation
from bench.edge.runners.engines import open_runner
from bench.edge.runners.openvino import _library
from bench.edge.runners.ort import OnnxRuntimeCuda
from tests.support import tensorrt_api
from tests.support.golden import assert_golden

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # PyTorch for CUDA where no GPU is: among tests TensorFlow is there first.
    pytest.mark.filterwarnings("ignore:CUDA initialization:UserWarning"),
]


@pytest.fixture(scope="module")
def meta(tiny_artifact):
    return read(tiny_artifact)


def need_openvino():
    """Skips without it; importing it is for the runner to do."""
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")


def test_openvino_tells_nobody_that_it_is_used(tiny_artifact):
    need_openvino()
    program = """
import json, os, pathlib, sys, time
from bench.edge.runners.engines import open_runner
from bench.edge.runners.openvino import _library
os.register_at_fork(before=lambda: print("a fork"))
folder = pathlib.Path(sys.argv[1])
meta = json.loads((folder / "meta.json").read_text())
with open_runner("openvino", folder, meta, "fp32"):
    time.sleep(1)  # it would be another thread that forks
print(sys.modules["openvino_telemetry"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tiny_artifact], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "None\n"


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("ort", "CPUExecutionProvider"),
        ("openvino", "OpenVINO CPU f32"),
        ("saved_model", "TensorFlow CPU"),
        ("keras", "JAX cpu"),
        ("torch", "PyTorch cpu"),
    ],
)
def test_it_answers_as_the_trained_model(name, provider, tiny_artifact, meta, tiny_run):
    if name == "openvino":
        need_openvino()
    with open_runner(name, tiny_artifact, meta, "fp32", run=tiny_run) as runner:
        assert_golden(runner, tiny_artifact)
        assert list(runner.providers) == [provider]
        assert (runner.device_ms, runner.build_seconds) == (None, None)


def test_openvino_answers_with_one_thread(tiny_artifact, meta):
    need_openvino()
    with open_runner("openvino", tiny_artifact, meta, "fp32", threads=1) as runner:
        assert_golden(runner, tiny_artifact)


@pytest.mark.parametrize("precision", ["fp16", "int8_static"])
def test_openvino_takes_lower_precisions_of_its_own_kind(precision, tiny_artifact, meta):
    need_openvino()
    with open_runner("openvino", tiny_artifact, meta, precision) as runner:
        parity, _ = proof.compare(runner.infer, tiny_artifact, meta, precision, 1)

    assert parity["relative"] < parity["allowed"]


def test_openvino_says_in_what_it_calculates(tiny_artifact, meta):
    need_openvino()
    openvino = _library()
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(ArtifactError, match="This CPU has no bfloat16"):
            open_runner("openvino-bf16", tiny_artifact, meta, "fp32")
        return
    with open_runner("openvino-bf16", tiny_artifact, meta, "fp32") as runner:
        parity, _ = proof.compare(runner.infer, tiny_artifact, meta, "fp32", 1, runner.tolerance)
        assert list(runner.providers) == ["OpenVINO CPU bf16"]

    assert 1e-4 < parity["relative"] < parity["allowed"] == 0.25


def test_openvino_takes_no_dynamic_int8(tiny_artifact, meta):
    need_openvino()
    with pytest.raises(ArtifactError, match=r"OpenVINO .* refuses .*model\.int8\.onnx"):
        open_runner("openvino", tiny_artifact, meta, "int8")


@pytest.mark.slow
def test_compiled_pytorch_answers_as_the_trained_model(tiny_artifact, meta, tiny_run):
    script = (
        "import sys\nfrom pathlib import Path\nfrom bench.edge.artifact import read\n"
        "from bench.edge.runners.engines import open_runner\n"
        "from tests.support.golden import assert_golden\n"
        "folder, run = map(Path, sys.argv[1:])\n"
        "with open_runner('torch-compiled', folder, read(folder), 'fp32', run=run) as runner:\n"
        "    assert_golden(runner, folder)\n"
    )
    # Of its own: what it compiles with and what TensorFlow brings do not fit into one process.
    subprocess.run([sys.executable, "-c", script, str(tiny_artifact), str(tiny_run)], check=True)


@pytest.mark.parametrize("name", ["keras", "torch"])
def test_the_trained_model_itself_takes_any_batch(name, tiny_artifact, meta, tiny_run):
    with open_runner(name, tiny_artifact, meta, "fp32", run=tiny_run) as runner:
        assert_golden(runner, tiny_artifact, batch=4)


def test_a_lower_precision_is_another_graph(tiny_artifact, meta):
    inputs = {name: x[:1] for name, x in golden(tiny_artifact)[0].items()}
    with (
        open_runner("ort", tiny_artifact, meta, "fp32", threads=1) as full,
        open_runner("ort", tiny_artifact, meta, "int8") as low,
    ):
        one, two = full.infer(inputs)["logits"], low.infer(inputs)["logits"]
    assert one.shape == two.shape
    assert not np.array_equal(one, two)


def test_a_short_sentence_runs_at_its_own_length(tiny_artifact, meta):
    inputs = {name: x[:1] for name, x in golden(tiny_artifact)[0].items()}
    inputs["token_ids"] = inputs["token_ids"][:, :6]
    there = importlib.util.find_spec("openvino")
    for name in ("ort", *(["openvino"] if there else []), "saved_model"):
        with open_runner(name, tiny_artifact, meta, "fp32") as runner:
            assert runner.infer(inputs)["logits"].shape == (1, 2)


@pytest.mark.parametrize("name", ["ort", "saved_model"])
def test_another_batch_than_the_graphs_is_one_sentence(name, tiny_artifact, meta):
    inputs = {name: x[:3] for name, x in golden(tiny_artifact)[0].items()}
    with open_runner(name, tiny_artifact, meta, "fp32") as runner:
        with pytest.raises(ArtifactError, match=r"\[3, 12\].*'batch': 1.*--batch"):
            runner.infer(inputs)
        with pytest.raises(ArtifactError, match="image is missing"):
            runner.infer({"token_ids": inputs["token_ids"][:1]})
    fixed = {**meta, "shapes": {"batch": 1, "length": 6}}
    with (
        open_runner(name, tiny_artifact, fixed, "fp32") as runner,
        pytest.raises(ArtifactError, match=r"\[1, 12\].*'length': 6"),
    ):
        runner.infer({name: x[:1] for name, x in inputs.items()})


def test_what_an_engine_raises_is_one_sentence(tiny_artifact, meta):
    inputs = {name: x[:1] for name, x in golden(tiny_artifact)[0].items()}
    inputs["image"] = inputs["image"].astype(np.float32)
    with (
        open_runner("ort", tiny_artifact, meta, "fp32") as runner,
        pytest.raises(ArtifactError, match=r"OnnxRuntime failed: .*expected: \(tensor\(uint8\)\)"),
    ):
        runner.infer(inputs)


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("onnx", "fp32", "no runner 'onnx', only ort, ort-cuda"),
        ("saved_model", "int8", "fp32 only"),
        ("keras", "int8", "fp32 only"),
        ("keras", "fp32", "--run=RUN"),
        ("torch", "fp32", "--run=RUN"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(name, precision, said, tiny_artifact, meta):
    with pytest.raises(ArtifactError, match=said):
        open_runner(name, tiny_artifact, meta, precision)


def test_a_precision_that_was_not_exported_is_one_sentence(tiny_artifact, meta):
    less = {**meta, "models": {"fp32": meta["models"]["fp32"]}}
    with pytest.raises(ArtifactError, match=r"has no fp16 model, only fp32: .*--precisions=fp16"):
        open_runner("ort", tiny_artifact, less, "fp16")


@pytest.mark.parametrize(
    ("name", "library"),
    [("ort", "onnxruntime"), ("saved_model", "tensorflow"), ("tensorrt", "tensorrt")],
)
def test_a_missing_engine_is_one_sentence(name, library, tiny_artifact, meta, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ArtifactError, match=f"{library} is not installed here"):
        open_runner(name, tiny_artifact, meta, "fp32")


def test_a_missing_run_is_one_sentence(tiny_artifact, meta, tmp_path):
    with pytest.raises(ArtifactError, match=r"not a finished run: it has no model\.keras"):
        open_runner("keras", tiny_artifact, meta, "fp32", run=tmp_path)
    with pytest.raises(ArtifactError, match="no number of threads"):
        workstation.keras_call(tmp_path, 2)


def test_a_damaged_graph_is_one_sentence(tiny_artifact, meta, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"ONNX Runtime .* refuses"):
        open_runner("ort", tmp_path, meta, "fp32")


@pytest.mark.parametrize(
    ("version", "precision", "pattern"),
    [("1.18.1", "fp16", False), ("1.18.1", "fp32", True), ("1.19.2", "fp16", True)],
)
def test_an_onnx_runtime_that_errs_at_fp16_plans_no_memory(
    version, precision, pattern, tiny_artifact, meta, monkeypatch
):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", version)
    with open_runner("ort", tiny_artifact, meta, precision) as runner:
        assert runner.session.get_session_options().enable_mem_pattern == pattern


# --- Providers of ONNX Runtime ----------------------------------------------------------------


class Azure(OnnxRuntimeCuda):
    """A provider that every build has and that takes no node: all of them fall back."""

    asked, device = "AzureExecutionProvider", "cpu"

    def _settings(self):
        return {}


def test_nodes_that_fell_back_are_named(tiny_artifact, meta):
    with pytest.raises(ArtifactError) as raised:
        Azure(tiny_artifact, meta, "fp32")
    said = str(raised.value)
    assert "nodes do not run on AzureExecutionProvider" in said
    assert "MatMul on CPUExecutionProvider" in said


def test_an_allowed_fall_back_is_told_and_bound_memory_is_used_again(tiny_artifact, meta):
    with Azure(tiny_artifact, meta, "fp32", allow_fallback=True) as runner:
        assert_golden(runner, tiny_artifact)
        assert runner.providers == ["CPUExecutionProvider"]
        inputs = {name: x[:1] for name, x in golden(tiny_artifact)[0].items()}
        first = runner.infer(inputs)["logits"]
        kept = first.copy()
        runner.infer({name: x[1:2] for name, x in golden(tiny_artifact)[0].items()})
        np.testing.assert_array_equal(first, kept)
        inputs["token_ids"] = inputs["token_ids"][:, :6]
        assert runner.infer(inputs)["logits"].shape == (1, 2)
        assert len(runner._bindings) == 2, "one for each length"


def test_libraries_that_pip_brought_are_loaded_before_a_session(tiny_artifact, meta, monkeypatch):
    import onnxruntime

    asked = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: asked.append("cuda"))
    with Azure(tiny_artifact, meta, "fp32", allow_fallback=True):
        assert asked == ["cuda"]


def test_an_older_onnx_runtime_refuses_what_falls_back(tiny_artifact, meta, monkeypatch):
    import onnxruntime

    monkeypatch.delattr(onnxruntime, "preload_dlls")
    name = "get_provider_graph_assignment_info"
    for kind in onnxruntime.InferenceSession.__mro__:
        if name in vars(kind):
            monkeypatch.delattr(kind, name)
    with pytest.raises(ArtifactError, match="fallback to CPU EP has been explicitly disabled"):
        Azure(tiny_artifact, meta, "fp32")
    with Azure(tiny_artifact, meta, "fp32", allow_fallback=True) as runner:
        assert_golden(runner, tiny_artifact)


@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt"])
def test_a_provider_that_is_not_built_in_says_what_to_install(name, tiny_artifact, meta):
    import onnxruntime

    if engines.RUNNERS[name].asked in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has it")
    with pytest.raises(ArtifactError, match="install onnxruntime-gpu"):
        open_runner(name, tiny_artifact, meta, "fp32")


# --- CUDA -------------------------------------------------------------------------------------


def test_without_the_cuda_runtime_it_says_where_to_get_it(monkeypatch):
    monkeypatch.setattr(cuda, "_places", lambda: ["libnothing.so"])
    with pytest.raises(ArtifactError, match=r"libcudart\.so.*JetPack"):
        cuda.load()


def real_library():
    try:
        return cuda.load()
    except ArtifactError:
        pytest.skip("no CUDA runtime here")


def test_every_function_of_the_real_library_is_declared():
    library = real_library()
    for name, arguments in cuda.SIGNATURES.items():
        function = getattr(library, name)
        assert (tuple(function.argtypes), function.restype) == (arguments, ctypes.c_int)
    # cudaErrorMemoryAllocation is 2.
    assert library.cudaGetErrorString(2) == b"out of memory"


def test_a_machine_without_a_gpu_is_told_by_the_real_library():
    real_library()
    if os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/nvhost-gpu"):
        pytest.skip("a GPU is here")
    with pytest.raises(ArtifactError, match="CUDA does not work here, cudaStreamCreate says: "):
        cuda.Cuda()


class Cudart:
    """The CUDA runtime in this machine's memory: what it is given must be as declared."""

    def __init__(self):
        self.memory, self.made, self.copies = {}, [], []

    def __getattr__(self, name):
        arguments = cuda.SIGNATURES[name]

        def call(*given):
            for kind, value in zip(arguments, given, strict=True):
                kind.from_param(value)
            return getattr(self, f"_{name}")(*given) or 0

        return call

    def cudaGetErrorString(self, code):
        return b"out of memory"

    def _cudaMalloc(self, pointer, size):
        if size > 1 << 30:
            return 2
        memory = ctypes.create_string_buffer(size)
        pointer._obj.value = ctypes.addressof(memory)
        self.memory[pointer._obj.value] = memory

    _cudaMallocHost = _cudaMalloc

    def _cudaFree(self, address):
        del self.memory[address]

    _cudaFreeHost = _cudaFree

    def _cudaStreamCreate(self, pointer):
        pointer._obj.value = 1000 + len(self.made)
        self.made.append(pointer._obj.value)

    _cudaEventCreate = _cudaStreamCreate

    def _cudaStreamDestroy(self, made):
        self.made.remove(made)

    _cudaEventDestroy = _cudaStreamDestroy

    def _cudaMemcpyAsync(self, to, source, size, kind, stream):
        for address in (to, source):
            assert size <= len(self.memory[address]), "past the end"
        assert stream in self.made
        self.copies.append((kind, size))
        ctypes.memmove(to, source, size)

    def _cudaEventRecord(self, event, stream):
        assert {event, stream} <= set(self.made)

    def _cudaStreamSynchronize(self, stream):
        assert stream in self.made

    def _cudaEventElapsedTime(self, milliseconds, start, end):
        milliseconds._obj.value = 1.25 if start != end else -1


@pytest.fixture
def cudart(monkeypatch):
    library = Cudart()
    monkeypatch.setattr(cuda, "load", lambda: library)
    return library


def test_full_memory_is_one_sentence_and_nothing_is_left_behind(cudart):
    gpu = cuda.Cuda()
    gpu.device(16)
    gpu.pinned((2, 3), np.float16)[...] = 1
    with pytest.raises(ArtifactError, match=r"cudaMalloc says: out of memory \(2\)"):
        gpu.device(1 << 31)
    gpu.close()
    assert (cudart.memory, cudart.made) == ({}, [])


# --- TensorRT ---------------------------------------------------------------------------------

TENSORS = {"token_ids": np.int64, "image": np.uint8}


def summed(inputs):
    """A network of sums, in fp16."""
    tokens, image = inputs["token_ids"], inputs["image"]
    logits = [tokens.sum(1), image.reshape(len(image), -1).max(1)]
    return {"logits": np.stack(logits, 1).astype(np.float16)}


@pytest.fixture(params=["10.3", "10.16", "11.1"])
def trt(request, monkeypatch):
    engine = {"inputs": TENSORS, "outputs": {"logits": np.float16}, "run": summed, "profiles": 2}
    module = tensorrt_api.module(request.param, engine=engine)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


ENGINE_META = {
    "models": {"fp16": {"file": "fp16.onnx"}, "int8": {"file": "i.onnx"}},
    "files": {"fp16.onnx": "the digest"},
    "lengths": [4, 8],
    "shapes": {"batch": None, "length": None},
    "inputs": {"token_ids": {}, "image": {}},
}


def put_engine(folder, version, **changes):
    path = folder / "engines" / engine_name("fp16", version, gpu_name())
    described = {"precision": "fp16", "tensorrt": version, "gpu": gpu_name(), "build_seconds": 2.5}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a plan")
    described = {**described, "sha256": "the digest", **changes}
    path.with_suffix(".json").write_text(json.dumps(described))


def examples(rows, length):
    rng = np.random.default_rng(rows)
    return {
        "token_ids": rng.integers(0, 90, (rows, length)).astype(np.int32),
        "image": rng.integers(0, 256, (rows, 2, 2, 3)).astype(np.uint8),
    }


def test_an_engine_gets_the_inputs_and_its_outputs_come_back(trt, cudart, tmp_path):
    put_engine(tmp_path, trt.__version__)
    with open_runner("tensorrt", tmp_path, ENGINE_META, "fp16") as runner:
        assert runner.providers == [f"TensorRT {trt.__version__}"]
        assert runner.build_seconds == 2.5
        for rows, length in ((1, 8), (2, 4), (1, 8)):
            inputs = examples(rows, length)
            found = runner.infer(inputs)["logits"]
            np.testing.assert_array_equal(found, summed(inputs)["logits"])
            assert runner.device_ms == 1.25
        kept = found.copy()
        runner.infer(examples(1, 8) | {"image": np.zeros((1, 2, 2, 3), np.uint8)})
        np.testing.assert_array_equal(found, kept, "answers are the caller's own")
    # int64 [1, 8] and uint8 [1, 2, 2, 3] go there, fp16 [1, 2] comes back.
    assert cudart.copies[:3] == [(1, 64), (1, 12), (2, 4)]
    calls = [call[:2] for call in trt.calls if call[0] == "set_optimization_profile_async"]
    assert [index for _, index in calls] == [1, 0], "profile i is of length i; each set up once"
    assert (cudart.memory, cudart.made) == ({}, []), "all is freed"


def test_what_the_engine_does_not_take_is_one_sentence(trt, cudart, tmp_path):
    put_engine(tmp_path, trt.__version__)
    with open_runner("tensorrt", tmp_path, ENGINE_META, "fp16") as runner:
        with pytest.raises(ArtifactError, match=r"5 tokens came; the engine takes \[4, 8\]"):
            runner.infer(examples(1, 5))
        trt.fails = "shape"
        with pytest.raises(ArtifactError, match="--max_batch"):
            runner.infer(examples(9, 4))


def test_a_refused_plan_is_one_sentence(trt, cudart, tmp_path):
    put_engine(tmp_path, trt.__version__)
    trt.fails = "plan"
    with pytest.raises(ArtifactError, match=r"refuses .*\.engine"):
        open_runner("tensorrt", tmp_path, ENGINE_META, "fp16")
    assert (cudart.memory, cudart.made) == ({}, [])


@pytest.mark.parametrize(
    "changes", [{"tensorrt": "8.6"}, {"gpu": "another"}, {"sha256": "x"}, {"precision": "fp32"}]
)
def test_an_engine_of_something_else_is_not_taken(trt, tmp_path, changes):
    put_engine(tmp_path, trt.__version__, **changes)
    with pytest.raises(ArtifactError, match=r"python -m bench\.engine .* --precision=fp16"):
        open_runner("tensorrt", tmp_path, ENGINE_META, "fp16")


def test_dynamic_int8_has_no_engine(trt, tmp_path):
    with pytest.raises(ArtifactError, match="int8_static, not int8"):
        open_runner("tensorrt", tmp_path, ENGINE_META, "int8")


# --- On a GPU ---------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["ort-cuda", "ort-tensorrt", "tensorrt"])
def test_a_gpu_answers_as_the_trained_model(name, tiny_artifact, meta, tmp_path):
    folder = shutil.copytree(tiny_artifact, tmp_path / "artifact")  # engines are kept in it
    if name == "tensorrt":
        built = [sys.executable, "-m", "bench.engine", str(folder), "--precision=fp32"]
        subprocess.run(built, check=True)
    with open_runner(name, folder, meta, "fp32", allow_fallback=True) as runner:
        assert_golden(runner, folder, tolerance=1e-3)
        for found in (runner.device_ms, runner.build_seconds):
            assert (found is not None) == (name == "tensorrt")
