"""Where a preset's files are: a local directory, the Hugging Face hub, keras-hub's presets.

`resolve` brings them onto this machine; `FromPreset` reads what lies there. Nothing is
downloaded that the preset's name does not say.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import kagglehub
import keras_hub
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from fusion_keras.errors import UsageError

_HF = "hf://"
# What is fetched of a hub repository: never a pickle, never code.
_WANTED = (
    *("config.json", "model.safetensors", "preprocessor_config.json"),
    "processor_config.json",
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    *("model.weights.h5", "assets/tokenizer/vocabulary.txt"),
)
_OWNER_AND_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_SECONDS_TO_ANSWER = 5
_INSTEAD = (
    "connect once (the files are kept), or name a local directory that holds the preset's "
    "config.json and weights."
)


def resolve(preset: str) -> Path:
    """The local directory of a preset, downloaded if it is a hub's.

    Args:
        preset: a directory; "hf://owner/name"; or the name of a keras-hub preset.

    Raises:
        UsageError: there is no such preset, or it cannot be reached.
    """
    if preset.startswith(_HF):
        return _from_hugging_face(preset)
    directory = Path(preset).expanduser()
    if directory.is_dir():
        return directory
    if directory.is_file():
        raise UsageError(
            f"got preset {preset!r}, which is a file; wanted the directory that it lies in, with "
            f"config.json and weights: {directory.parent}."
        )
    hub = keras_hub.models.Backbone.presets
    if preset in hub:
        return _from_kaggle(preset, hub[preset]["kaggle_handle"])
    on_the_hub = f"{_HF}{preset}" if _OWNER_AND_NAME.fullmatch(preset) else f"{_HF}owner/name"
    raise UsageError(
        f"got preset {preset!r}, which is no directory and no known name; wanted a directory, "
        f"{on_the_hub} for the Hugging Face hub, or a preset that fusion_keras or keras-hub lists."
    )


def _from_hugging_face(preset: str) -> Path:
    try:
        return Path(
            huggingface_hub.snapshot_download(
                preset.removeprefix(_HF),
                allow_patterns=list(_WANTED),
                etag_timeout=_SECONDS_TO_ANSWER,
            )
        )
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise UsageError(
            f"got preset {preset!r}, which the Hugging Face hub does not have (or not for you); "
            f"wanted {_HF}owner/name of a public model, e.g. {_HF}google-bert/bert-base-uncased."
        ) from error
    # httpx, requests, the operating system and the hub each have their own way to say that
    # there is no network.
    except Exception as error:
        raise _unreachable(preset, "the Hugging Face hub", error) from error


def _from_kaggle(preset: str, handle: str) -> Path:
    try:
        return Path(kagglehub.model_download(handle.removeprefix("kaggle://")))
    except Exception as error:  # as above
        raise _unreachable(preset, "Kaggle, where keras-hub keeps it,", error) from error


def _unreachable(preset, where, error):
    reason = str(error).strip().split("\n")[0][:150]
    return UsageError(
        f"got preset {preset!r}, which is not on this machine, and {where} cannot be reached "
        f"({type(error).__name__}: {reason}); {_INSTEAD}"
    )


def read_json(path: Path) -> dict:
    """The object in a JSON file. Raises UsageError where it is missing or no object."""
    if not path.exists():
        raise UsageError(
            f"got {path.parent} without {path.name}, wanted a directory of Hugging Face, timm or "
            "save_to_preset; check the path."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(
            f"got {path}, which cannot be read ({error}); wanted a preset's JSON file, copy or "
            "download it again."
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"got {path} that holds no JSON object; copy or download it again.")
    return content


@contextlib.contextmanager
def describing(cls: type, directory: Path) -> Iterator[None]:
    """Inside, what Python says of a config.json with impossible values becomes a sentence.

    Args:
        cls: the backbone's class, whose config it should be.
        directory: of the file.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"got {directory / 'config.json'} that does not describe a {cls.__name__} "
            f"({type(error).__name__}: {reason}); copy it again from the model that the weights "
            "come from, or save the preset again."
        ) from error


class FromPreset:
    """Gives a backbone class `from_preset` for every kind of directory.

    The class has `from_hf(directory, ...)`; where keras-hub has the same architecture, it
    also sets `hub_class` and has `from_hub(keras-hub backbone, ...)`.

    Attributes:
        out_of: see `facts.Facts`.
        model_type: of Hugging Face's config.json; none where it has no such architecture.
        whole_type: likewise, of a larger model that holds this one; none where there is none.
    """

    hub_class = None
    out_of = 12
    lacks_first = ""
    model_type = ""
    whole_type = ""

    @classmethod
    def model_types(cls) -> tuple[str, ...]:
        """Every model_type of a config.json that this class reads."""
        return tuple(filter(None, (cls.model_type, cls.whole_type)))

    @classmethod
    def count_depths(cls, config: dict) -> int:
        """The greatest depth of what a config describes, without building it.

        Args:
            config: a preset's config.json, Hugging Face's or of `save_to_preset`, or arguments
                of the constructor.
        """
        if "num_depths" in vars(cls):
            return cls.num_depths
        saved = config.get("config", config)
        return saved.get("num_layers", config.get("num_hidden_layers", 12))

    @classmethod
    def width_of(cls, config: dict) -> int:
        """The width that all layers' outputs have, likewise; 0 where they differ."""
        saved = config.get("config", config)
        return saved.get("hidden_dim", config.get("hidden_size", 0))

    @classmethod
    def lacks_last(cls, directory: Path) -> str:
        """Why a preset's files have no depth `last`, the head of a sentence; "" where they do.

        Raises:
            UsageError: the files are missing or damaged.
        """
        return ""

    @staticmethod
    def image_shape_of(config: dict) -> tuple[int, int, int]:
        """(height, width, channels) of an image backbone, likewise."""
        saved = config.get("config", config)
        if "image_shape" in saved:
            return tuple(saved["image_shape"])
        size = config.get("image_size", 224)
        edges = [size, size] if isinstance(size, int) else size
        if not isinstance(edges, list) or [type(edge) for edge in edges] != [int, int]:
            raise ValueError(f"image_size {size!r}")
        return (*edges, config.get("num_channels", 3))

    @classmethod
    def from_preset(cls, preset: str, **kwargs):
        """Builds the backbone of a preset and loads its weights.

        Args:
            preset: as for `resolve`: a Hugging Face directory or id, a keras-hub name, or a
                directory written by `save_to_preset`, ours or keras-hub's.
            **kwargs: constructor arguments that replace the preset's.

        Raises:
            UsageError: unknown, unreachable, of another architecture, damaged.
        """
        directory = resolve(str(preset))
        config = read_json(directory / "config.json")
        name = config.get("registered_name")
        if name is None:
            with describing(cls, directory):
                if cls.count_depths(config) < 1:
                    raise ValueError("it has no layers")
                return cls.from_hf(directory, **kwargs)
        if name == f"fusion_keras>{cls.__name__}":
            return cls._from_saved(directory, config, **kwargs)
        if cls.hub_class is not None and name == f"keras_hub>{cls.hub_class.__name__}":
            source = _read_weights(directory, lambda: cls.hub_class.from_preset(str(directory)))
            return cls.from_hub(source, **{"dtype": None, **kwargs})
        raise UsageError(
            f"got a preset of {name!r} in {directory}, wanted one of {cls.__name__}; name a "
            "preset of that architecture."
        )

    @classmethod
    def _from_saved(cls, directory, config, **kwargs):
        with describing(cls, directory):
            # The precision is for the run to say, not for whoever saved the preset.
            backbone = cls.from_config({**config["config"], "dtype": None, **kwargs})
        file = directory / "model.weights.h5"
        _read_weights(directory, lambda: backbone.load_weights(file))
        return backbone


def _read_weights(directory, read):
    """read(), its errors turned into a sentence that names the file."""
    try:
        return read()
    except (OSError, KeyError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(
            f"got {directory / 'model.weights.h5'} that does not load ({reason}); wanted the "
            "whole weights file of this config.json, copy or download it again."
        ) from error
