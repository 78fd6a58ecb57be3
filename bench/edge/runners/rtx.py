"""TensorRT-RTX through ONNX Runtime, for a workstation with an RTX card.

NVIDIA's provider is a library that an ONNX Runtime of the CPU loads at run time:
nvidia.github.io/TensorRT-RTX-EP-ABI (installation, integration guide, provider options), and
onnxruntime.ai/docs/execution-providers/plugin-ep-libraries. Its release 0.5.0 brings TensorRT-RTX
1.7.1 with it, wants ONNX Runtime 1.24 or later, and takes GPUs of compute capability 8.6, 8.9 and
12.0 on.
"""

from __future__ import annotations

import functools

from bench.edge.artifact import ArtifactError
from bench.edge.runners.base import brief, library
from bench.edge.runners.ort import RECORD, OnnxRuntime, no_tf32


class OnnxRuntimeRtx(OnnxRuntime):
    """ONNX Runtime that hands the graph to TensorRT-RTX; it copies inputs and outputs by itself.

    Types stand in the graph: there is no precision to ask for. A node that falls back to the CPU is
    an error, unless it is allowed. What TensorRT-RTX compiles for this GPU is kept beside the
    artifact, for the next process.
    """

    asked = "NvTensorRTRTXExecutionProvider"
    package = "onnxruntime_ep_nv_tensorrt_rtx"

    def _load(self):
        if self.precision == "fp32":
            no_tf32()
        super()._load()

    def _open(self, path, options):
        device = self._device(
            library(self.package, "pip install -e '.[rtx,cpu]', without the extra gpu")
        )
        options.add_session_config_entry(*RECORD)
        options.add_provider_for_devices([device], self._settings())
        session = self._ort.InferenceSession(path, options)
        self.providers = self._used(session)
        return session

    def _settings(self) -> dict[str, str]:
        return {"nv_runtime_cache_path": str(self._cache("rtx"))}

    def _device(self, plugin):
        """The first device of the provider; it takes one."""
        ort = self._ort
        if not hasattr(ort.InferenceSession, "get_provider_graph_assignment_info"):
            raise ArtifactError(
                f"ONNX Runtime {ort.__version__} is too old for {self.asked}: take 1.24 or later."
            )
        try:
            _register(ort, self.asked, plugin.get_library_path())
        except Exception as error:  # its errors have no common class
            raise ArtifactError(
                f"ONNX Runtime {ort.__version__} cannot load {self.asked} ({brief(error)}): it "
                "wants NVIDIA's driver and a GeForce or RTX card of the 30 series or later; check "
                "that nvidia-smi sees one."
            ) from None
        devices = [device for device in ort.get_ep_devices() if device.ep_name == self.asked]
        if not devices:
            raise ArtifactError(
                f"{self.asked} finds no GPU that it takes: check that nvidia-smi sees a GeForce or "
                "RTX card of the 30 series or later; on others take ort-cuda."
            )
        return devices[0]


@functools.cache
def _register(ort, name: str, path: str) -> None:
    """Once a process: a second time is an error."""
    ort.register_execution_provider_library(name, path)
