"""Settings that a variant never reads: setting one is refused, for it would change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.variants import AUDIO_VISUAL

DIGITS = "digits"
# What only the C-LSTMs read: whole sections, with a dot, and fields.
_CLSTM_ONLY = (
    "clstm.",
    "data.split",
    "data.image_snr",
    "data.audio_snr",
    "data.train_pairs",
    "data.valid_pairs",
    "data.test_pairs",
)
# What they share with the others, of the sections that are otherwise not theirs.
_SHARED = ("data.source", "data.name", "data.path", "data.split_seed", "data.cache_dir")
_OTHERS_ONLY = (
    "regression", "parents", "data.", "text.", "image.", "audio.", "fusion.", "parent.", "augment.",
    "train.text_rate", "train.image_rate", "train.audio_rate", "train.score_loss",
)  # fmt: skip


def check_read(config: ConfigDict, fill: Callable[[ConfigDict], ConfigDict]) -> None:
    """Check that variant, data and recipe go together, and that no setting is left unread.

    Args:
        config: the config, its recipe filled in.
        fill: lets a recipe fill what is open; gives what a config has with nothing set.

    Raises:
        UsageError: digits with another variant than a C-LSTM, or the reverse; or a field that
            is set and means nothing to this variant.
    """
    ours, source = config.variant in AUDIO_VISUAL, config.data.source
    if ours and source != DIGITS:
        raise UsageError(
            f"{config.variant} takes images and sound, and data.source is {source!r}: start from "
            "--config=configs/digits_small.py, or configs/digits.py for the full size."
        )
    if source == DIGITS and not ours:
        raise UsageError(
            f"data.source is 'digits', which has no sentences for {config.variant}: one of "
            f"{', '.join(AUDIO_VISUAL)} is wanted as --variant."
        )
    if ours and config.recipe != DIGITS:
        raise UsageError(
            f"config.recipe is {config.recipe!r}; {config.variant} is trained with recipe digits, "
            "whose settings --config.train.* changes."
        )
    plain = get_config()
    plain.variant, plain.recipe, plain.data.source = config.variant, config.recipe, source
    before = dict(_fields(fill(plain)))
    for name, value in _fields(config):
        if value != before[name] and not _reads(ours, name):
            raise UsageError(
                f"config.{name} is set, and {config.variant} reads no such setting: leave it out."
            )


def _reads(ours: bool, name: str) -> bool:
    clstm = _among(name, _CLSTM_ONLY)
    if ours:
        return clstm or name in _SHARED or not _among(name, _OTHERS_ONLY)
    return not clstm


def _among(name: str, listed: tuple[str, ...]) -> bool:
    return name in listed or name.split(".")[0] + "." in listed


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
