"""OpenVINO on the CPU: x86 boxes and ARM boards."""

from __future__ import annotations

import os
import sys

from bench.edge.artifact import ArtifactError
from bench.edge.runners.base import Runner, brief, library

_OUTPUTS = ("logits", "score")


class OpenVino(Runner):
    """OpenVINO on the artifact's own graph, one query at a time, in the graph's precision.

    It would round float32 where the CPU has bfloat16, if it were not told not to. Each length is
    compiled for itself, at its first inference: fixed shapes are faster. It fuses the pairs of
    int8_static, and takes no dynamic int8, whose operators are ONNX Runtime's.
    """

    arithmetic = "f32"

    def _load(self):
        self._openvino = _library()
        self._core, path = self._openvino.Core(), self._file()
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self.arithmetic,
            **({"INFERENCE_NUM_THREADS": self.threads} if self.threads else {}),
        }
        if 1 in (self.threads, len(os.sched_getaffinity(0))):
            # With one thread 2026.4.1 ends the process when it fuses attention.
            self._settings["SNIPPETS_MODE"] = "DISABLE"
        self._requests = {}
        try:
            self._model = self._core.read_model(path)
            compiled = self._compile(self._model)
        except Exception as error:  # of several kinds
            raise ArtifactError(
                f"OpenVINO {self._openvino.__version__} refuses {path}: {brief(error)}"
            ) from None
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != self.arithmetic:
            raise ArtifactError(f"OpenVINO calculates in {used}, where {self.arithmetic} is asked.")
        self.providers = [f"OpenVINO CPU {used}"]
        self._names = [_name(value, self.meta["inputs"]) for value in self._model.inputs]

    def _compile(self, model):
        return self._core.compile_model(model, "CPU", self._settings)

    def _infer(self, inputs):
        shapes = tuple(inputs[name].shape for name in self._names)
        if shapes not in self._requests:
            model = self._model.clone()
            model.reshape(dict(zip(self._names, map(list, shapes), strict=True)))
            self._requests[shapes] = self._compile(model).create_infer_request()
        request = self._requests[shapes]
        answers = request.infer({n: inputs[n] for n in self._names}, share_inputs=True)
        return {_name(value, _OUTPUTS): array for value, array in answers.items()}

    def close(self):
        self._requests, self._model = {}, None


def _name(value, known) -> str:
    """The one of a value's names that the artifact has for it."""
    return next(name for name in value.get_names() if name in known)


class OpenVinoBfloat16(OpenVino):
    """The same in bfloat16, where the CPU has it: the float32 graph, products rounded to 8 bits."""

    arithmetic = "bf16"
    # Three bits fewer than fp16, whose bar is 0.05 and 0.999.
    tolerance = {"relative": 0.25, "cosine": 0.99}  # noqa: RUF012

    def _load(self):
        openvino = _library()
        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ArtifactError("This CPU has no bfloat16: take the runner openvino.")
        super()._load()


def _library():
    """OpenVINO without its telemetry, which it can do without.

    When it is imported, 2026.4.1 forks a process that tells Google Analytics so. Nobody was asked,
    and a process that is forked disturbs what is measured.
    """
    sys.modules.setdefault("openvino_telemetry", None)
    return library("openvino", "pip install -e '.[openvino]'")
