"""TensorFlow, on the SavedModel of an artifact."""

from __future__ import annotations

import os

from bench.edge.artifact import ArtifactError
from bench.edge.runners.base import Runner, brief, library, only_fp32


class SavedModel(Runner):
    """The artifact's SavedModel by TensorFlow, its serving signature."""

    def _load(self):
        only_fp32(self)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        tf = self._tf = library("tensorflow", "pip install tensorflow")
        try:
            if self.threads:
                tf.config.threading.set_intra_op_parallelism_threads(self.threads)
            self._model = tf.saved_model.load(str(self.folder / "saved_model"))
            self._serve = self._model.signatures["serving_default"]
        except RuntimeError as error:
            raise ArtifactError(f"TensorFlow cannot set the threads any more: {error}") from None
        except (OSError, KeyError, ValueError) as error:
            raise ArtifactError(
                f"TensorFlow {tf.__version__} refuses {self.folder / 'saved_model'}: {brief(error)}"
            ) from None
        self._inputs = list(self._serve.structured_input_signature[1])
        gpus = tf.config.list_physical_devices("GPU")
        self.providers = [f"TensorFlow {'GPU' if gpus else 'CPU'}"]

    def _infer(self, inputs):
        given = {name: self._tf.constant(inputs[name]) for name in self._inputs}
        return {name: value.numpy() for name, value in self._serve(**given).items()}

    def close(self):
        self._model = self._serve = None
