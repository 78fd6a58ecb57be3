"""What the commands' flags have in common, and kinds of flags: functions of the text given."""

from __future__ import annotations

import argparse
import difflib
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from bench.edge import entry

_DAY = 86400.0


class Parser(argparse.ArgumentParser):
    """Takes hyphens for the underscores of a flag's name, and older names with a note."""

    def __init__(self, older: Mapping[str, str], **settings):
        shown = argparse.RawDescriptionHelpFormatter
        super().__init__(formatter_class=shown, allow_abbrev=False, **settings)
        self._older = older

    def error(self, message: str) -> NoReturn:
        """Without the usage, which would stand between the command and what is wrong with it."""
        unknown = re.match(r"unrecognized arguments: (--\w+)", message)
        known = list(self._option_string_actions)
        alike = difflib.get_close_matches(unknown[1], known, 1) if unknown else []
        meant = f"; is it {alike[0]}?" if alike else ""
        self.exit(2, f"error: {message}{meant} (--help has examples)\n")

    def parse_known_args(self, args=None, namespace=None):
        given = sys.argv[1:] if args is None else args
        options, rest = super().parse_known_args(spelled(given, self._older), namespace)
        if options.quiet and options.verbose:
            self.error("--quiet and --verbose are given: leave one of them out.")
        level = logging.DEBUG if options.verbose else logging.INFO
        level = entry.JSON if getattr(options, "json", False) else level
        logging.getLogger("bench").setLevel(logging.WARNING if options.quiet else level)
        return options, rest


def parser(
    command: str,
    description: str,
    *,
    json: str = "",
    older: Mapping[str, str] = {},
    **settings,
) -> Parser:
    """Of `python -m <command>`; the description is shown as it stands.

    Args:
        json: what `--json` prints; without it there is no such flag.
        older: names that flags had before -> today's.
    """
    made = Parser(older, prog=f"python -m {command}", description=description, **settings)
    add = made.add_argument
    if json:
        add("--json", action="store_true", help=f"print {json} as one JSON object")
    add("--quiet", action="store_true", help="show results and errors alone")
    add("--verbose", action="store_true", help="show every step")
    add("--version", action=_Version, nargs=0, help="show the version and stop")
    return made


class _Version(argparse.Action):
    def __call__(self, parser, *given):
        from importlib import metadata  # which takes its time

        try:
            print(f"fusion_keras {metadata.version('fusion_keras')}")
        except metadata.PackageNotFoundError:
            print("fusion_keras, a device's copy of its bench")
        parser.exit()


def spelled(arguments: Sequence[str], older: Mapping[str, str] = {}) -> list[str]:
    """Arguments with flags called as today: hyphens are underscores, older names are replaced.

    What follows `--` stays as it is. An older name of "" is that of what is no flag today. As
    `fusion_keras.cli.spelled`: neither room may import the other.
    """
    made, over = [], False
    for argument in arguments:
        flag = re.fullmatch(r"--([a-zA-Z][\w.-]*)(?:=(.*))?", argument, re.DOTALL)
        over = over or argument == "--"
        if not flag or over:
            made.append(argument)
            continue
        name, value = flag[1].replace("-", "_"), flag[2]
        today = older.get(name, name)
        if today != name:
            called = f"--{today}" if today else "given without its name"
            print(f"note: --{name} is now {called}", file=sys.stderr)
        if today:
            made.append(f"--{today}" if value is None else f"--{today}={value}")
        else:
            made += value.split(",") if value else []
    return made


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
