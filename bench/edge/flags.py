"""Kinds of flags, for argparse: each a function of the text that was given."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

_DAY = 86400.0


def parser(command: str, description: str, **settings) -> argparse.ArgumentParser:
    """Of `python -m <command>`; the description is shown as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **settings,
    )


def words(text: str) -> list[str]:
    """A comma-separated list."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise argparse.ArgumentTypeError("it is empty")
    return parts


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A list of known words."""

    def read(text: str) -> list[str]:
        for word in words(text):
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return words(text)

    return read


def paths(text: str) -> list[Path]:
    """A list of folders or files."""
    return [Path(word) for word in words(text)]


def file(text: str) -> Path:
    """A path that can be a file's."""
    if not Path(text).name or Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a file")
    return Path(text)


def folders(text: str) -> list[Path]:
    """A comma-separated list of folders, each once."""
    return [Path(part) for part in dict.fromkeys(text.split(",")) if part]


def positive(text: str) -> int:
    """A number of at least 1."""
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return value


def numbers(least: int) -> Callable[[str], list[int]]:
    """A list of numbers from `least` on."""

    def read(text: str) -> list[int]:
        parts = words(text)
        if not all(part.isdecimal() and int(part) >= least for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers from {least} on")
        return [int(part) for part in parts]

    return read


def rates(text: str) -> list[float]:
    """A list of numbers from 0 on."""
    try:
        values = [float(part) for part in words(text)]
    except ValueError:
        values = []
    if not values or not all(math.isfinite(value) and value >= 0 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of rates")
    return values


def seconds(text: str) -> float:
    """A time above 0, of up to a day."""
    value, *more = rates(text)
    if more or not 0 < value <= _DAY:
        raise argparse.ArgumentTypeError(f"{text!r} is no time of up to a day")
    return value


def share(text: str) -> float:
    """A number between 0 and 1."""
    value, *more = rates(text)
    if more or not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return value


def points(text: str) -> float:
    """A share in hundredths, 0 to 100."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is no number of points from 0 to 100")
    return value


def milliseconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of milliseconds above 0")
    return value
