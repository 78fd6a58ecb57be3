"""ONNX Runtime: its providers for the CPU, for CUDA and for TensorRT."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections import Counter

import numpy as np

from bench.edge import machine
from bench.edge.artifact import ArtifactError
from bench.edge.runners.base import Runner, brief, library

# Of a session, where `machine.cuts_off_sums`.
EXACT_SUMS = ("session.x64quantprecision", "1")
# A session is to tell which provider took which node, from 1.24 on.
RECORD = ("session.record_ep_graph_assignment_info", "1")


class OnnxRuntime(Runner):
    """ONNX Runtime on the CPU, its settings as they are but for the threads, and for exact
    sums of int8 where the processor cuts them off.

    Attributes:
        session: its own, which any number of threads may run.
    """

    asked = "CPUExecutionProvider"

    def _load(self):
        self._ort = library("onnxruntime", "pip install onnxruntime")
        path = self._file()
        options = self._ort.SessionOptions()
        options.log_severity_level = 4  # its errors are raised, too
        options.intra_op_num_threads = self.threads
        if self.precision == "fp16" and _version(self._ort) < (1, 19):
            # 1.18 answers fp16 wrongly on the CPU from a session's second inference on, with it.
            options.enable_mem_pattern = False
        exact = self.precision.startswith("int8") and machine.cuts_off_sums()
        try:
            self.session = (exact and self._exact(path, options)) or self._open(path, options)
        except ArtifactError:
            raise
        except Exception as error:  # its errors have no common class
            raise ArtifactError(
                f"ONNX Runtime {self._ort.__version__} refuses {path} on {self.asked}: "
                f"{brief(error)}"
            ) from None
        self._outputs = [output.name for output in self.session.get_outputs()]
        self._inputs = [value.name for value in self.session.get_inputs()]

    def _exact(self, path, options):
        """A session that sums exactly; None for a graph in which two nodes share a weight."""
        options.add_session_config_entry(*EXACT_SUMS)
        with contextlib.suppress(Exception):
            return self._open(path, options)
        options.add_session_config_entry(EXACT_SUMS[0], "0")
        return None

    def _open(self, path, options):
        self.providers = [self.asked]
        return self._ort.InferenceSession(path, options, providers=[self.asked])

    def _used(self, session) -> list[str]:
        """The providers that took nodes, the most nodes first.

        The session was opened with RECORD.

        Raises:
            ArtifactError: another one than was asked for took some, and that is not allowed.
        """
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
        given = {name: inputs[name] for name in self._inputs}
        return dict(zip(self._outputs, self.session.run(self._outputs, given), strict=True))

    def _cache(self, engine: str):
        """A folder beside the artifact for what an engine makes of this graph, made if need be.

        Engines know graphs by their names, not by their weights, and make one level of folders.
        """
        cache = self.folder / "engines" / f"{engine}-{self.meta['seal'][:12]}-{self.precision}"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(
                f"{cache}, where engines are kept, cannot be made: {error.strerror}."
            ) from None
        return cache

    def close(self):
        self.session = None


_EXACT = {"use_tf32": "0"}


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

    def _load(self):
        if self.precision == "fp32":
            no_tf32()
        super()._load()

    def _settings(self) -> dict[str, str]:
        return dict(_EXACT)

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
            options.add_session_config_entry(*RECORD)
        elif not self.allow_fallback:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            chain = chain[:1]
        self._preload()
        session = ort.InferenceSession(path, options, providers=chain)
        if self.asked not in session.get_providers():
            raise ArtifactError(
                f"ONNX Runtime cannot start {self.asked} here: check that nvidia-smi sees a GPU, "
                "and that the CUDA, cuDNN and TensorRT it was built for are installed."
            )
        self.providers = self._used(session) if tells else session.get_providers()
        return session

    def _preload(self) -> None:
        """Load what the provider is linked to from where pip puts it, which no loader searches."""
        if hasattr(self._ort, "preload_dlls"):  # from 1.21 on
            self._ort.preload_dlls()

    def _infer(self, inputs):
        shapes = tuple(inputs[name].shape for name in self._inputs)
        if shapes not in self._bindings:
            self._bindings[shapes] = self._bind(inputs)
        binding, given, taken = self._bindings[shapes]
        for name, value in given.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
        self.session.run_with_iobinding(binding)
        return {name: np.array(value.numpy()) for name, value in taken.items()}

    def _bind(self, inputs):
        """Memory on the device for inputs and outputs of these shapes.

        The outputs' shapes are the graph's to know: it runs once for them.
        """
        binding = self.session.io_binding()
        given = {name: self._memory(inputs[name]) for name in self._inputs}
        for name, value in given.items():
            value.update_inplace(np.ascontiguousarray(inputs[name]))
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self.device)
        self.session.run_with_iobinding(binding)
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
    fallbacks = (("CUDAExecutionProvider", _EXACT),)

    def _preload(self):
        super()._preload()
        with contextlib.suppress(ImportError):  # on a device it is a library of the system
            importlib.import_module("tensorrt")

    def _settings(self):
        return {
            "trt_fp16_enable": str(self.precision == "fp16"),
            "trt_int8_enable": str(self.precision.startswith("int8")),
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(self._cache("ort")),
        }


def _version(ort) -> tuple[int, int]:
    major, minor = ort.__version__.split(".")[:2]
    return int(major), int(minor)


def no_tf32() -> None:
    """Keep NVIDIA's libraries from rounding fp32 products to 10 bits of mantissa, from here on.

    `bench.engine` has it off, too; the providers for TensorRT have no option of their own for it
    (onnxruntime #26029).
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


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
