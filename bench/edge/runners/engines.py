"""Every runner by its name.

    with open_runner("ort", folder, read(folder), "int8") as runner:
        outputs = runner.infer(inputs)

No engine is imported before its runner is made.
"""

from __future__ import annotations

from pathlib import Path

from bench.edge.artifact import ArtifactError
from bench.edge.runners.base import Runner
from bench.edge.runners.openvino import OpenVino, OpenVinoBfloat16
from bench.edge.runners.ort import OnnxRuntime, OnnxRuntimeCuda, OnnxRuntimeTensorRT
from bench.edge.runners.rtx import OnnxRuntimeRtx
from bench.edge.runners.saved_model import SavedModel
from bench.edge.runners.trt import TensorRT
from bench.edge.runners.workstation import Keras, Torch, TorchCompiled

RUNNERS = {
    "ort": OnnxRuntime,
    "ort-cuda": OnnxRuntimeCuda,
    "ort-tensorrt": OnnxRuntimeTensorRT,
    "rtx": OnnxRuntimeRtx,
    "openvino": OpenVino,
    "openvino-bf16": OpenVinoBfloat16,
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
