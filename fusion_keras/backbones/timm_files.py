"""Checkpoint directories of timm: config.json with an architecture's name, model.safetensors.

The hub's repositories of timm hold them, and `timm.models.save_for_hf` writes them. Those that
`transformers` saved of its wrapper for timm have the tensors under "timm_model.".
"""

from pathlib import Path
from typing import ClassVar

from fusion_keras.backbones.backbone_weights import convolutions
from fusion_keras.backbones.hf_files import Weights, read_config
from fusion_keras.backbones.layouts import fill
from fusion_keras.backbones.sources import FromPreset
from fusion_keras.errors import UsageError

# Of a config's model_args those that training alone reads, or that the tensors' shapes tell.
_IGNORED = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "bn_momentum")


class FromTimm(FromPreset):
    """`FromPreset` for a class whose checkpoints are timm's, and whose layers bear its names.

    Such a class takes image_shape, tf_padding and batch_norm_eps, and says with `depths_of` how
    many blocks arguments of its constructor describe.

    Attributes:
        architectures: timm's name of each that the class can be -> arguments of the constructor.
    """

    architectures: ClassVar[dict[str, dict]] = {}

    @classmethod
    def model_types(cls) -> tuple[str, ...]:
        """The architectures."""
        return tuple(cls.architectures)

    @classmethod
    def count_depths(cls, config: dict) -> int:
        """The number of blocks of what a config describes; see `FromPreset`."""
        named = config.get("architecture")
        return cls.depths_of(cls.architectures[named] if named else config.get("config", config))

    @classmethod
    def width_of(cls, config: dict) -> int:
        """0: the stages differ."""
        return 0

    @staticmethod
    def image_shape_of(config: dict) -> tuple[int, int, int]:
        """(height, width, channels) of what a config describes; see `FromPreset`."""
        if "architecture" not in config:
            return FromPreset.image_shape_of(config)
        channels, *edges = config.get("pretrained_cfg", {}).get("input_size", (3, 224, 224))
        return (*edges, channels)

    @classmethod
    def from_hf(cls, directory: str | Path, image_shape=None, **kwargs):
        """Build from config.json and load model.safetensors of a directory of timm.

        Args:
            directory: holds both files.
            image_shape: (height, width, channels); None takes the checkpoint's own.
            **kwargs: constructor arguments that replace the architecture's.

        Raises:
            UsageError: another architecture, changes of it that this class has not, or weights
                that are missing, pickled, cut short or of other shapes.
        """
        config = read_config(directory, cls.model_types())
        arguments = {**cls.architectures[config["architecture"]], **_changes(config, directory)}
        shape = image_shape or cls.image_shape_of(config)
        backbone = cls(**{**arguments, "image_shape": shape, **kwargs})
        fill(convolutions(backbone), Weights(directory, prefix="timm_model"))
        return backbone


def _changes(config: dict, directory) -> dict:
    """What config.json's model_args change of the architecture, as arguments of ours."""
    given, changes = dict(config.get("model_args") or {}), {}
    if (pooling := given.pop("global_pool", "avg")) != "avg":
        raise UsageError(
            f"got global_pool {pooling!r} in {directory}, wanted 'avg', the published models' own."
        )
    if (epsilon := given.pop("bn_eps", None)) is not None:
        changes["batch_norm_eps"] = epsilon
    padding = given.pop("pad_type", None)
    if padding in ("", "same"):
        changes["tf_padding"] = padding == "same"
    elif padding is not None:
        given["pad_type"] = padding
    if unknown := sorted(set(given) - set(_IGNORED)):
        raise UsageError(
            f"got model_args {', '.join(f'{n}={given[n]!r}' for n in unknown)} in {directory}, "
            "wanted the architecture as timm has it, at most with another bn_eps or pad_type ('' "
            "or 'same')."
        )
    return changes
