"""TensorRT, on the engines that `bench.engine` builds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError
from bench.edge.engine import MODELS, gpu_name
from bench.edge.runners.base import Runner, brief, library
from bench.edge.runners.cuda import Cuda


class TensorRT(Runner):
    """An engine of `bench.engine`, on TensorRT 10 or 11.

    `device_ms` is the engine alone, without the copies: what trtexec calls GPU Compute Time.
    """

    def _load(self):
        trt = library(
            "tensorrt",
            "a Jetson has it with JetPack, in the system's Python or a venv made with "
            "--system-site-packages; elsewhere: pip install tensorrt",
        )
        path, described = _engine_file(self.folder, self.meta, self.precision, trt.__version__)
        self.build_seconds = described.get("build_seconds")
        self._cuda, self._ready = Cuda(), {}
        try:
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        except (OSError, TypeError) as error:  # TypeError: as it reports that CUDA does not start
            self._cuda.close()
            raise ArtifactError(f"TensorRT cannot load {path}: {brief(error)}") from None
        if self._engine is None:
            self.close()
            raise ArtifactError(
                f"TensorRT {trt.__version__} refuses {path}; its messages stand above. Build it "
                "again with python -m bench.engine."
            )
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        modes = {n: engine.get_tensor_mode(n) for n in names}
        self._dtypes = {n: np.dtype(trt.nptype(engine.get_tensor_dtype(n))) for n in names}
        self._inputs = [n for n in names if modes[n] == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if modes[n] == trt.TensorIOMode.OUTPUT]
        self.providers = [f"TensorRT {trt.__version__}"]

    def _infer(self, inputs):
        shapes = tuple(tuple(inputs[name].shape) for name in self._inputs)
        if shapes not in self._ready:
            self._ready[shapes] = self._prepare(dict(zip(self._inputs, shapes, strict=True)))
        context, arrays, addresses = self._ready[shapes]
        cuda = self._cuda
        for name in self._inputs:
            np.copyto(arrays[name], inputs[name], casting="same_kind")
            cuda.to_device(addresses[name], arrays[name])
        cuda.begin()
        done = context.execute_async_v3(cuda.stream)
        cuda.end()
        for name in self._outputs:
            cuda.to_host(arrays[name], addresses[name])
        cuda.wait()
        if not done:
            raise ArtifactError("TensorRT could not run the engine; its messages stand above.")
        self.device_ms = cuda.milliseconds()
        return {name: arrays[name].copy() for name in self._outputs}

    def _prepare(self, shapes: dict[str, tuple[int, ...]]):
        """A context, pinned arrays and device addresses of all tensors, for these input shapes."""
        context = self._engine.create_execution_context()
        if context is None:
            raise ArtifactError("TensorRT cannot make a context: the GPU's memory is full.")
        profile = self._profile(shapes)
        try:
            fits = context.set_optimization_profile_async(profile, self._cuda.stream)
        except RuntimeError:  # as the bindings say no
            fits = False
        self._cuda.wait()
        if not (fits and all(context.set_input_shape(n, s) for n, s in shapes.items())):
            given = {n: list(s) for n, s in shapes.items()}
            raise ArtifactError(
                f"The engine was not built for {given}: build it with python -m bench.engine "
                "--max_batch=N."
            )
        arrays, addresses = {}, {}
        for name, dtype in self._dtypes.items():
            arrays[name] = self._cuda.pinned(tuple(context.get_tensor_shape(name)), dtype)
            addresses[name] = self._cuda.device(arrays[name].nbytes)
            context.set_tensor_address(name, addresses[name])
        return context, arrays, addresses

    def _profile(self, shapes) -> int:
        """`bench.engine` makes one for each length of sentences, in their order."""
        if self._engine.num_optimization_profiles < 2:
            return 0
        lengths, length = self.meta["lengths"], shapes["token_ids"][1]
        if length not in lengths:
            raise ArtifactError(
                f"Sentences of {length} tokens came; the engine takes {lengths}: pad them."
            )
        return lengths.index(length)

    def close(self):
        # TensorRT wants them gone in this order, and all before the memory.
        self._ready = {}
        self._engine = None
        self._runtime = None
        self._cuda.close()


def _engine_file(folder: Path, meta: dict, precision: str, version: str) -> tuple[Path, dict]:
    """The newest engine of this model for this TensorRT and this GPU, and what its JSON says."""
    asked = next((ours for ours, model in MODELS.items() if model == precision), None)
    if asked is None:
        raise ArtifactError(
            f"TensorRT runs {', '.join(MODELS.values())}, not {precision}: name one of those."
        )
    model = meta["models"].get(precision, {}).get("file")
    gpu = gpu_name()
    fitting = {
        "precision": asked,
        "tensorrt": version,
        "gpu": gpu,
        "sha256": meta["files"].get(model),
    }
    described = sorted((folder / "engines").glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(described):
        about = json.loads(path.read_text())
        engine = path.with_suffix(".engine")
        if engine.is_file() and all(about.get(name) == value for name, value in fitting.items()):
            return engine, about
    raise ArtifactError(
        f"{folder} has no {asked} engine of its model for TensorRT {version} on {gpu}: build it "
        f"with python -m bench.engine {folder} --precision={asked}."
    )
