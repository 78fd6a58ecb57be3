"""The trained model of a run by Keras on JAX and by PyTorch: what an export is measured against.

For a workstation only: this needs the training stack, and for PyTorch the repository's
`fusion_keras/reference`, which is the same architecture on Hugging Face's modules. What is carried
into it are the run's own weights, so all of them give the same answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError
from bench.edge.runners.base import Runner, only_fp32

Call = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class _Workstation(Runner):
    """The trained model of a run, before any export; takes every batch and length."""

    def _load(self):
        only_fp32(self)
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
        return keras_call(self.run, self.threads)


class Torch(_Workstation):
    """The reference in PyTorch, as it is."""

    compiled = False

    def _make(self):
        return torch_call(self.run, self.threads, self.compiled)


class TorchCompiled(Torch):
    """The reference in PyTorch, by torch.compile."""

    compiled = True


def keras_call(run: Path, threads: int) -> tuple[Call, list[str]]:
    """Keras on JAX, compiled anew for every shape: inputs -> outputs, and what it runs on.

    Raises:
        ArtifactError: not installed, another backend, threads, or no whole run.
    """
    if threads:
        raise ArtifactError("JAX takes no number of threads; leave it out for keras.")
    model = _model(run)
    import jax

    trainable = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    names = [x.name for x in model.inputs]

    @jax.jit
    def forward(trainable, rest, inputs):
        return model.stateless_call(trainable, rest, inputs, training=False)[0]

    def call(inputs):
        outputs = forward(trainable, rest, {name: inputs[name] for name in names})
        return {name: np.asarray(value) for name, value in outputs.items()}

    return call, [f"JAX {jax.default_backend()}"]


def torch_call(run: Path, threads: int, compiled: bool) -> tuple[Call, list[str]]:
    """The reference in PyTorch with the run's weights: inputs -> logits, and what it runs on.

    Raises:
        ArtifactError: not installed, no whole run, or a run with a score head.
    """
    with contextlib.suppress(ImportError):  # said below
        import fusion_keras.reference  # noqa: F401  (PyTorch, before what `_model` imports)
    model = _model(run)
    try:
        import torch

        from fusion_keras.errors import UsageError
        from fusion_keras.reference.build import of_run, scaling, tensors
    except ImportError as error:
        raise ArtifactError(
            f"The PyTorch reference is not installed here ({error}): pip install -e '.[torch]', "
            "on the workstation that trains."
        ) from None
    try:
        reference = of_run(run, model)
    except UsageError as error:
        raise ArtifactError(str(error)) from None
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reference = reference.to(device)
    forward = torch.compile(reference) if compiled else reference
    scale, offset = (x.to(device) for x in scaling(model))

    @torch.inference_mode()
    def call(inputs):
        given = tensors(reference, inputs, scale, offset, device)
        return {"logits": forward(**given).cpu().numpy()}

    return call, [f"PyTorch {device}"]


def _model(run: Path):
    """The run's Keras model, on JAX."""
    try:
        from fusion_keras.errors import UsageError
        from fusion_keras.training.restored import load_model
    except ImportError as error:
        raise ArtifactError(
            f"fusion_keras is not installed here ({error}): the runners keras and torch are for "
            "the workstation that trains."
        ) from None
    import keras

    if keras.backend.backend() != "jax":
        raise ArtifactError(
            f"Keras runs on {keras.backend.backend()}: unset KERAS_BACKEND, jax is wanted."
        )
    try:
        return load_model(Path(run))
    except UsageError as error:
        raise ArtifactError(str(error)) from None
