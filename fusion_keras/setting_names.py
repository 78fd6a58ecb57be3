"""The settings by their whole names, and which one a mistyped name was meant for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.renamed import RENAMED

_GIVEN = re.compile(r"--?(?:no)?config\.([\w.]+)")


def settings(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted name, value) of every field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_names(argv: Sequence[str]) -> None:
    """Check that each `--config.NAME` of a command line is a setting.

    Raises:
        UsageError: the first that is none, by its whole name, with what it may be meant for.
    """
    known = [name for name, _ in settings(get_config())]
    taken = {*known, *_sections(known), *(f"data.{old}" for old in RENAMED)}
    for argument in argv:
        given = _GIVEN.match(argument)
        if given and given[1] not in taken:
            raise UsageError(
                f"--config.{given[1]} is no setting.{meant(given[1], known)} "
                "python -m fusion_keras.train --help_settings lists every setting."
            )


def _sections(known: Sequence[str]) -> set[str]:
    """All beginnings of the names, which end before a dot."""
    return {name[: dot.start()] for name in known for dot in re.finditer(r"\.", name)}


def meant(name: str, known: Sequence[str], prefix: str = "--config.") -> str:
    """A sentence with the settings of the same last word, else with those spelled alike."""
    last = name.rpartition(".")[2]
    alike = [other for other in known if other.rpartition(".")[2] == last][:4]
    alike = alike or difflib.get_close_matches(name, known, n=2, cutoff=0.75)
    return f" Is it {' or '.join(prefix + other for other in alike)}?" if alike else ""
