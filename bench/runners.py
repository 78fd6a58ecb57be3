"""One contract for every engine: a context manager that answers a dict of arrays with another.

    with open_runner("ort", folder, read(folder), "int8") as runner:
        outputs = runner.infer(inputs)

An engine is imported by the runner that needs it, and by nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np

from bench import workstation
from bench.artifact import ArtifactError
from bench.cuda import Cuda
from bench.engine import MODELS, gpu_name


class Runner:
    """What all have in common; ready for `infer` once it is made.

    Attributes:
        providers: what the engine really uses.
        device_ms: the last call's time by the GPU's own events, None where there are none.
    """

    providers: tuple[str, ...] | list[str] = ()
    device_ms: float | None = None

    def __init__(
        self,
        folder: Path,
        meta: dict,
        precision: str,
        *,
        threads: int = 0,
        allow_fallback: bool = False,
        run: Path | None = None,
    ):
        """Load.

        Args:
            folder: the artifact.
            meta: what `bench.artifact.read` says of it.
            precision: one of its models.
            threads: of the CPU; 0 leaves the engine its default.
            allow_fallback: let nodes run elsewhere than on the provider that was asked for.
            run: the run that was exported; for runners that do not read the artifact's graph.

        Raises:
            ArtifactError: the engine is not installed, finds no GPU, or refuses.
        """
        self.folder, self.meta, self.precision = Path(folder), meta, precision
        self.threads, self.allow_fallback, self.run = threads, allow_fallback, run
        self._load()

    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs float32 name -> [B, ...] of token_ids int32 [B, T] and image uint8 [B, S, S, 3].

        Raises:
            ArtifactError: an input is missing, the graph has other shapes, or the engine fails.
        """
        self._check(inputs)
        try:
            return self._infer(inputs)
        except ArtifactError:
            raise
        except Exception as error:  # engines raise whatever they like
            raise ArtifactError(f"{type(self).__name__} failed: {_brief(error)}") from error

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the engine holds."""

    def _check(self, inputs) -> None:
        """That the graph takes these shapes: an open axis is None in the artifact."""
        batch, length = self.meta["shapes"]["batch"], self.meta["shapes"]["length"]
        for name in self.meta["inputs"]:
            if name not in inputs:
                raise ArtifactError(f"The input {name} is missing; got {', '.join(inputs)}.")
            shape = inputs[name].shape
            if (batch and shape[0] != batch) or (
                name == "token_ids" and length and shape[1] != length
            ):
                raise ArtifactError(
                    f"{name} has shape {list(shape)}, but {self.folder} was exported for "
                    f"{self.meta['shapes']}: give it that, or export with another --batch, with "
                    "--buckets or --dynamic."
                )

    def _file(self) -> Path:
        model = self.meta["models"].get(self.precision)
        if model is None:
            raise ArtifactError(
                f"{self.folder} has no {self.precision} model, only "
                f"{', '.join(self.meta['models'])}: export it with "
                f"--precisions={self.precision}."
            )
        return self.folder / model["file"]


# --- ONNX Runtime ---------------------------------------------------------------------------------


class OnnxRuntime(Runner):
    """ONNX Runtime on the CPU, its settings as they are but for the threads."""

    asked = "CPUExecutionProvider"

    def _load(self):
        self._ort = _library("onnxruntime", "pip install onnxruntime")
        path = self._file()
        options = self._ort.SessionOptions()
        options.log_severity_level = 4  # its errors are raised, too
        options.intra_op_num_threads = self.threads
        try:
            self._session = self._open(path, options)
        except ArtifactError:
            raise
        except Exception as error:  # its errors have no common class
            raise ArtifactError(
                f"ONNX Runtime {self._ort.__version__} refuses {path} on {self.asked}: "
                f"{_brief(error)}"
            ) from None
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._inputs = [value.name for value in self._session.get_inputs()]

    def _open(self, path, options):
        self.providers = [self.asked]
        return self._ort.InferenceSession(path, options, providers=[self.asked])

    def _infer(self, inputs):
        given = {name: inputs[name] for name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, given), strict=True))

    def close(self):
        self._session = None


class OnnxRuntimeCuda(OnnxRuntime):
    """ONNX Runtime on the GPU; `infer` copies inputs to it and outputs back, as a user must.

    A node that the provider leaves to another one is an error, unless it is allowed. From 1.24 on
    a session tells which provider took which node
    (`session.record_ep_graph_assignment_info`); before, `session.disable_cpu_ep_fallback` makes
    it refuse. Both: onnxruntime_session_options_config_keys.h.
    """

    asked = "CUDAExecutionProvider"
    fallbacks = ()
    device = "cuda"

    def _settings(self) -> dict[str, str]:
        """TF32 would round fp32 products to 10 bits of mantissa; `bench.engine` has it off, too."""
        return {"use_tf32": "0"}

    def _open(self, path, options):
        ort = self._ort
        if self.asked not in ort.get_available_providers():
            raise ArtifactError(
                f"This ONNX Runtime {ort.__version__} has no {self.asked}, only "
                f"{', '.join(ort.get_available_providers())}: install onnxruntime-gpu (on a "
                "Jetson, NVIDIA's wheel) in place of onnxruntime."
            )
        self._bindings = {}
        chain = [(self.asked, self._settings()), *self.fallbacks]
        tells = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")
        if tells:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        elif not self.allow_fallback:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            chain = chain[:1]
        session = ort.InferenceSession(path, options, providers=chain)
        if self.asked not in session.get_providers():
            raise ArtifactError(
                f"ONNX Runtime cannot start {self.asked} here: check that nvidia-smi sees a GPU, "
                "and that the CUDA, cuDNN and TensorRT it was built for are installed."
            )
        self.providers = self._used(session) if tells else session.get_providers()
        return session

    def _used(self, session) -> list[str]:
        """The providers that took nodes, the most nodes first."""
        taken = [
            (part.ep_name, node)
            for part in session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
        others = [(name, node) for name, node in taken if name != self.asked]
        if others and not self.allow_fallback:
            raise ArtifactError(fallen_back(self.asked, others, len(taken)))
        return [name for name, _ in Counter(name for name, _ in taken).most_common()]

    def _infer(self, inputs):
        shapes = tuple(inputs[name].shape for name in self._inputs)
        if shapes not in self._bindings:
            self._bindings[shapes] = self._bind(inputs)
        binding, given, taken = self._bindings[shapes]
        for name, value in given.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
        self._session.run_with_iobinding(binding)
        return {name: np.array(value.numpy()) for name, value in taken.items()}

    def _bind(self, inputs):
        """Memory on the device for inputs and outputs of these shapes.

        The outputs' shapes are the graph's to know: it runs once for them.
        """
        binding = self._session.io_binding()
        given = {name: self._memory(inputs[name]) for name in self._inputs}
        for name, value in given.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device)
        self._session.run_with_iobinding(binding)
        found = zip(self._outputs, binding.get_outputs(), strict=True)
        taken = {name: self._memory(value.numpy()) for name, value in found}
        binding.clear_binding_outputs()
        for name, value in taken.items():
            binding.bind_ortvalue_output(name, value)
        return binding, given, taken

    def _memory(self, array: np.ndarray):
        """Of an array's shape and type, on the device."""
        make = self._ort.OrtValue.ortvalue_from_shape_and_type
        return make(list(array.shape), array.dtype, self.device, 0)

    def close(self):
        self._bindings = {}
        super().close()


class OnnxRuntimeTensorRT(OnnxRuntimeCuda):
    """ONNX Runtime that hands the graph to TensorRT, what it refuses to CUDA.

    Engines are kept beside the artifact: else each process would build its own, for minutes.
    """

    asked = "TensorrtExecutionProvider"
    fallbacks = ("CUDAExecutionProvider",)

    def _settings(self):
        return {
            "trt_fp16_enable": str(self.precision == "fp16"),
            "trt_int8_enable": str(self.precision.startswith("int8")),
            "trt_engine_cache_enable": "True",
            # It knows graphs by their names, not by their weights.
            "trt_engine_cache_path": str(
                self.folder / "engines" / f"ort-{self.meta['seal'][:12]}-{self.precision}"
            ),
        }


def fallen_back(asked: str, others: list, count: int) -> str:
    """A sentence on nodes that another provider took.

    Args:
        asked: the provider that should have.
        others: (provider, node with name and op_type).
        count: nodes in all.
    """
    operators = Counter(f"{node.op_type} on {name}" for name, node in others)
    listed = ", ".join(f"{many} {what}" for what, many in operators.most_common(6))
    names = ", ".join(repr(node.name) for _, node in others[:4] if node.name)
    return (
        f"{len(others)} of {count} nodes do not run on {asked}: {listed}"
        f"{f' (such as {names})' if names else ''}. Allow the fall-back to measure it all the "
        "same, or export with fixed shapes or in another precision."
    )


# --- TensorRT -------------------------------------------------------------------------------------


class TensorRT(Runner):
    """An engine of `bench.engine`, on TensorRT 10 or 11.

    `device_ms` is the engine alone, without the copies: what trtexec calls GPU Compute Time.
    """

    def _load(self):
        trt = _library(
            "tensorrt",
            "a Jetson has it with JetPack, in the system's Python or a venv made with "
            "--system-site-packages; elsewhere: pip install tensorrt",
        )
        path = _engine_file(self.folder, self.meta, self.precision, trt.__version__)
        self._cuda, self._ready = Cuda(), {}
        try:
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
            self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        except (OSError, TypeError) as error:  # TypeError: as it reports that CUDA does not start
            self._cuda.close()
            raise ArtifactError(f"TensorRT cannot load {path}: {_brief(error)}") from None
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
        fits = context.set_optimization_profile_async(self._profile(shapes), self._cuda.stream)
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


def _engine_file(folder: Path, meta: dict, precision: str, version: str) -> Path:
    """The newest engine of this model for this TensorRT and this GPU."""
    asked = next((ours for ours, model in MODELS.items() if model == precision), None)
    if asked is None:
        raise ArtifactError(
            f"TensorRT runs {', '.join(MODELS.values())}, not {precision}: name one of those."
        )
    model = meta["models"].get(precision, {}).get("file")
    gpu = gpu_name()
    wanted = {
        "precision": asked,
        "tensorrt": version,
        "gpu": gpu,
        "sha256": meta["files"].get(model),
    }
    described = sorted((folder / "engines").glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(described):
        found = json.loads(path.read_text())
        engine = path.with_suffix(".engine")
        if engine.is_file() and all(found.get(name) == value for name, value in wanted.items()):
            return engine
    raise ArtifactError(
        f"{folder} has no {asked} engine of its model for TensorRT {version} on {gpu}: build it "
        f"with python -m bench.engine {folder} --precision={asked}."
    )


# --- TensorFlow, Keras, PyTorch -------------------------------------------------------------------


class SavedModel(Runner):
    """The artifact's SavedModel by TensorFlow, its serving signature."""

    def _load(self):
        _only_fp32(self)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        tf = self._tf = _library("tensorflow", "pip install tensorflow")
        try:
            if self.threads:
                tf.config.threading.set_intra_op_parallelism_threads(self.threads)
            self._model = tf.saved_model.load(str(self.folder / "saved_model"))
            self._serve = self._model.signatures["serving_default"]
        except RuntimeError as error:
            raise ArtifactError(f"TensorFlow cannot set the threads any more: {error}") from None
        except (OSError, KeyError, ValueError) as error:
            raise ArtifactError(
                f"TensorFlow {tf.__version__} refuses {self.folder / 'saved_model'}: "
                f"{_brief(error)}"
            ) from None
        self._inputs = list(self._serve.structured_input_signature[1])
        gpus = tf.config.list_physical_devices("GPU")
        self.providers = [f"TensorFlow {'GPU' if gpus else 'CPU'}"]

    def _infer(self, inputs):
        given = {name: self._tf.constant(inputs[name]) for name in self._inputs}
        return {name: value.numpy() for name, value in self._serve(**given).items()}

    def close(self):
        self._model = self._serve = None


class _Workstation(Runner):
    """The trained model of a run, before any export; takes every batch and length."""

    def _load(self):
        _only_fp32(self)
        if self.run is None:
            raise ArtifactError(
                f"{type(self).__name__} measures the run itself, not its artifact: give --run=RUN."
            )
        self._call, self.providers = self._make()

    def _check(self, inputs):
        pass

    def _infer(self, inputs):
        return self._call(inputs)

    def close(self):
        self._call = None


class Keras(_Workstation):
    """Keras on JAX, compiled."""

    def _make(self):
        return workstation.keras_call(self.run, self.threads)


class Torch(_Workstation):
    """The reference in PyTorch, as it is."""

    compiled = False

    def _make(self):
        return workstation.torch_call(self.run, self.threads, self.compiled)


class TorchCompiled(Torch):
    """The reference in PyTorch, by torch.compile."""

    compiled = True


RUNNERS = {
    "ort": OnnxRuntime,
    "ort-cuda": OnnxRuntimeCuda,
    "ort-tensorrt": OnnxRuntimeTensorRT,
    "tensorrt": TensorRT,
    "saved_model": SavedModel,
    "keras": Keras,
    "torch": Torch,
    "torch-compiled": TorchCompiled,
}


def open_runner(name: str, folder: Path, meta: dict, precision: str, **settings) -> Runner:
    """A loaded runner; `settings` as `Runner` takes them.

    Raises:
        ArtifactError: no such runner, or it cannot be loaded.
    """
    if name not in RUNNERS:
        raise ArtifactError(f"There is no runner {name!r}, only {', '.join(RUNNERS)}.")
    return RUNNERS[name](folder, meta, precision, **settings)


def _only_fp32(runner: Runner) -> None:
    if runner.precision != "fp32":
        raise ArtifactError(
            f"{type(runner).__name__} runs fp32 only, not {runner.precision}: lower precisions "
            "are in the ONNX files."
        )


def _library(name: str, remedy: str):
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise ArtifactError(f"{name} is not installed here ({error}): {remedy}.") from None


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
