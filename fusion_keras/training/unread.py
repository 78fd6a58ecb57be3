"""Who reads which setting: what nobody chosen reads is refused, for it would change nothing.

A source and an architecture each name what they read and others do not. What none of them names,
every run reads. The named variants of a fusion spec are one architecture: a setting of images is
no mistake for the text model of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ml_collections import ConfigDict

from fusion_keras.config import get_config
from fusion_keras.data import digit_set
from fusion_keras.data.load import SOURCES, source_of
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.errors import UsageError
from fusion_keras.fusion.variants import AUDIO_VISUAL

DIGITS = "digits"
_OF_SOURCE = {
    **{name: [f"data.{field}" for field in source.reads] for name, source in SOURCES.items()},
    DIGITS: [f"data.{field}" for field in digit_set.READS],
}
_OF_ARCHITECTURE = {
    "fusion spec": [
        *("regression", "parents", "fusion", "parent", "augment", "train.score_loss"),
        *("data.max_length", "data.part", "data.part_share", "data.split_seed"),
        *MODALITIES,
        *(f"train.{modality}_rate" for modality in MODALITIES),
    ],
    "C-LSTM": ["clstm"],
}


def check_read(config: ConfigDict, fill: Callable[[ConfigDict], ConfigDict]) -> None:
    """Check that variant, data and recipe go together, and that no setting is left unread.

    Args:
        config: the config, its recipe filled in.
        fill: lets a recipe fill what is open; gives what a config has with nothing set.

    Raises:
        UsageError: an unknown source; digits with another variant than a C-LSTM, or the reverse;
            or a field that is set and that neither source nor variant reads.
    """
    clstm, source = config.variant in AUDIO_VISUAL, config.data.source
    _check_together(config, clstm)
    readers = _OF_ARCHITECTURE["C-LSTM" if clstm else "fusion spec"]
    plain = get_config()
    plain.variant, plain.recipe, plain.data.source = config.variant, config.recipe, source
    before = dict(_fields(fill(plain)))
    for name, value in _fields(config):
        if value == before[name] or _among(name, readers) or _among(name, _OF_SOURCE[source]):
            continue
        if any(_among(name, read) for read in _OF_ARCHITECTURE.values()):
            raise UsageError(
                f"config.{name} is set, and {config.variant} reads no such setting: leave it out."
            )
        sources = [other for other, read in _OF_SOURCE.items() if _among(name, read)]
        if sources:
            raise UsageError(
                f"config.{name} is set, and the source {source} reads no such setting: leave it "
                f"out, or set config.data.source ({' or '.join(sources)} reads it)."
            )


def _check_together(config: ConfigDict, clstm: bool) -> None:
    source = config.data.source
    if clstm and source != DIGITS:
        raise UsageError(
            f"{config.variant} takes images and sound, and data.source is {source!r}: start from "
            "--config=configs/digits_small.py, or configs/digits.py for the full size."
        )
    if source == DIGITS and not clstm:
        raise UsageError(
            f"data.source is 'digits', which has no sentences for {config.variant}: one of "
            f"{', '.join(AUDIO_VISUAL)} is wanted as --variant."
        )
    if clstm and config.recipe != DIGITS:
        raise UsageError(
            f"config.recipe is {config.recipe!r}; {config.variant} is trained with recipe digits, "
            "whose settings --config.train.* changes."
        )
    if source != DIGITS:
        source_of(source)


def _among(name: str, read: list[str]) -> bool:
    """Whether a field, or a section that it lies in, is among these."""
    return any(name == one or name.startswith(f"{one}.") for one in read)


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
