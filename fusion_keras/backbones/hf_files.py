"""Read a local Hugging Face checkpoint directory: config.json and model.safetensors.

Only safetensors are read: a pickled `pytorch_model.bin` runs code from the file when it
is opened, so it is refused with the command that converts it.
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from fusion_keras.errors import UsageError

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
# As safetensors calls them.
_FLOATS = ("F32", "F16", "BF16", "F64")


def read_config(directory: Path, model_type: str | tuple[str, ...]) -> dict:
    """Return config.json of `directory`, whose `kind_of` must be `model_type`, or one of them.

    Raises:
        UsageError: the directory or the file is missing, is no JSON object, or names
            another model type or architecture.
    """
    path = Path(directory) / _CONFIG
    if not path.is_file():
        raise UsageError(
            f"got {directory} without a {_CONFIG}, wanted a Hugging Face checkpoint directory; "
            "check the path."
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(
            f"got {path} that is not valid JSON ({error}), wanted a Hugging Face config; "
            "copy the file again."
        ) from error
    kind = kind_of(config) if isinstance(config, dict) else None
    wanted = (model_type,) if isinstance(model_type, str) else model_type
    if kind not in wanted:
        raise UsageError(
            f"got model_type {kind!r} in {path}, wanted {' or '.join(map(repr, wanted))}; "
            "name a checkpoint of that kind."
        )
    return config


def kind_of(config: dict) -> str | None:
    """What a config.json says that it is of: Hugging Face's model_type, or timm's architecture."""
    kind = config.get("model_type")
    return config.get("architecture") if kind in (None, "timm_wrapper") else kind


def _weights_path(directory: Path) -> Path:
    """Return the safetensors file of `directory`, or say what is there instead."""
    path = Path(directory) / _WEIGHTS
    if path.is_file():
        return path
    if pickled := sorted(Path(directory).glob("*.bin")):
        raise UsageError(
            f"got only the pickled {pickled[0].name} in {directory}, wanted {_WEIGHTS} (a pickle "
            "runs code when opened); convert it with transformers' save_pretrained or timm's "
            "save_for_hf(..., safe_serialization=True) where you trust it."
        )
    if shards := sorted(Path(directory).glob("model-*-of-*.safetensors")):
        raise UsageError(
            f"got the weights of {directory} in {len(shards)} files such as {shards[0].name}, "
            f"wanted one {_WEIGHTS}, which transformers' save_pretrained(..., "
            "max_shard_size='100GB') writes."
        )
    raise UsageError(f"got no {_WEIGHTS} in {directory}, wanted the checkpoint's weights there.")


class Weights:
    """The named tensors of one model.safetensors, read one at a time.

    A name is looked up as it is and, failing that, behind `prefix` + ".": checkpoints with
    a task head carry their backbone under the model's name. Early conversions, such as
    google-bert/bert-base-uncased, still have TensorFlow's names of a LayerNorm.
    """

    def __init__(self, directory: Path, prefix: str):
        """Open the file. Raises UsageError where it is absent, pickled or cut short."""
        self._path = _weights_path(directory)
        self._prefix = prefix
        try:
            self._file = safe_open(self._path, framework="numpy")
        except (SafetensorError, OSError) as error:
            raise UsageError(
                f"got {self._path} that cannot be read as safetensors ({error}), wanted a whole "
                "file; copy or download it again."
            ) from error
        self._names = set(self._file.keys())

    def __contains__(self, name: str) -> bool:
        return self._found(name) is not None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of tensor `name`; None where there is none."""
        full = self._found(name)
        return None if full is None else tuple(self._file.get_slice(full).get_shape())

    def _found(self, name: str) -> str | None:
        early = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        early = early.replace("LayerNorm.bias", "LayerNorm.beta")
        for known in (name, early):
            for full in (known, f"{self._prefix}.{known}"):
                if full in self._names:
                    return full
        return None

    def get(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return tensor `name` as float32 of the given shape.

        Raises:
            UsageError: the tensor is missing, or has another shape or integers for values.
        """
        full = self._found(name)
        if full is None:
            raise UsageError(
                f"got no tensor {name!r} in {self._path}, wanted one of shape {list(shape)}; "
                "the weights and config.json are of different models."
            )
        tensor = self._file.get_slice(full)
        # Without their scales, quantised weights would be read as other values.
        if tensor.get_dtype() not in _FLOATS:
            raise UsageError(
                f"got {tensor.get_dtype()} for {full!r} in {self._path}, wanted one of "
                f"{', '.join(_FLOATS)}; save the model as it was before it was quantised."
            )
        stored = tuple(tensor.get_shape())
        if stored != tuple(shape):
            raise UsageError(
                f"got shape {list(stored)} for {full!r} in {self._path}, wanted {list(shape)}; "
                "the weights and config.json are of different models."
            )
        return self._file.get_tensor(full).astype(np.float32)
