"""Who reads which setting: what nobody chosen reads is refused, for it would change nothing.

A source and an architecture each name what they read and others do not. What none of them names,
every run reads. The named variants of a fusion spec are one architecture: a setting of images is
no mistake for the text model of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import ARCHITECTURES, of_variant
from fusion_keras.setting_names import settings


def check_read(config: ConfigDict, fill: Callable[[ConfigDict], ConfigDict]) -> None:
    """Check that variant, data and recipe go together, and that no setting is left unread.

    Args:
        config: the config, its recipe filled in.
        fill: lets a recipe fill what is open; gives what a config has with nothing set.

    Raises:
        UsageError: an unknown source; digits with another variant than a C-LSTM, or the reverse;
            or a field that is set and that neither source nor variant reads.
    """
    source, architecture = config.data.source, of_variant(config.variant)
    architecture.check(config)
    reads = [*architecture.reads, *_of_source(architecture.sources[source])]
    plain = get_config()
    plain.variant, plain.recipe, plain.data.source = config.variant, config.recipe, source
    before = dict(settings(fill(plain)))
    for name, value in settings(config):
        if value == before[name] or _among(name, reads):
            continue
        if any(_among(name, other.reads) for other in ARCHITECTURES):
            raise UsageError(
                f"config.{name} is set, and {config.variant} reads no such setting: leave it out."
            )
        every = {n: fields for a in ARCHITECTURES for n, fields in a.sources.items()}
        sources = [other for other, fields in every.items() if _among(name, _of_source(fields))]
        if sources:
            raise UsageError(
                f"config.{name} is set, and the source {source} reads no such setting: leave it "
                f"out, or set config.data.source ({' or '.join(sources)} reads it)."
            )


def _of_source(fields: tuple[str, ...]) -> list[str]:
    return [f"data.{field}" for field in fields]


def _among(name: str, read: Sequence[str]) -> bool:
    """Whether a field, or a section that it lies in, is among these."""
    return any(name == one or name.startswith(f"{one}.") for one in read)
