"""What the entry modules share: flags, teaching help, and errors as one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import app, flags, logging

from fusion_keras.errors import UsageError

CONFIG_FILE = Path(__file__).with_name("config.py")


def run(main: Callable[[], None], help_text: str) -> None:
    """Run an entry module's `main`; the process ends with a sentence, not a traceback.

    Exit codes: 0 done, 2 the user can mend it, 130 interrupted.
    """
    if any(a in ("--help", "-h", "-help") for a in sys.argv[1:]):
        print(help_text)
        sys.exit(0)
    logging.set_verbosity(logging.ERROR)
    try:
        app.run(lambda argv: _guarded(main), flags_parser=_parse)
    except KeyboardInterrupt:
        _stop("Interrupted. The same command goes on from the last finished epoch.", 130)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        _stop(f"{_first_lines(error)} (--help lists every setting)")
    except UsageError as error:
        _stop(str(error))
    if len(rest) > 1:
        _stop(f"Could not understand {rest[1]!r}: settings are given as --name=value.")
    return rest


def _first_lines(error: BaseException) -> str:
    # A KeyError shows its message quoted, and ml_collections adds "Did you mean" lines.
    text = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(text).split())


def _guarded(main) -> None:
    try:
        main()
    except UsageError as error:
        _stop(str(error))
    except MemoryError:
        _stop("Out of memory: lower --config.train.batch_size or --config.image.size.")


def _stop(message: str, code: int = 2) -> None:
    print(f"error: {message}" if code == 2 else message, file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def quiet_native_logs():
    """Keep TensorFlow's start-up lines off the terminal while keras-hub brings it in.

    Its C++ code logs CPU features and missing CUDA drivers to file descriptor 2 before any
    setting can stop it. Python's own errors are raised, not printed, so none is lost.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def settings_help() -> str:
    """Every setting of the config with its default and meaning, from the config file."""
    lines, group = [], None
    for section, name, value, comment in _settings():
        if section != group:
            group = section
            lines.append(f"\n{section.upper() or 'RUN'}")
        flag = f"--config.{section}.{name}" if section else f"--config.{name}"
        lines.append(f"  {flag}={value}")
        lines += [f"      {line}" for line in comment]
    return "\n".join(lines)


def _settings() -> Iterator[tuple[str, str, str, list[str]]]:
    """(section, field, default, comment lines) in the order of the config file."""
    comment: list[str] = []
    for line in CONFIG_FILE.read_text().splitlines():
        field = re.fullmatch(r"    (\w+)\.(\w+) = (.+)", line)
        if line.startswith("    # "):
            comment.append(line[6:])
        elif field and not field[3].startswith("_"):
            section = "" if field[1] == "config" else field[1]
            default = "(recipe)" if field[3].startswith("placeholder") else field[3]
            yield section, field[2], default, comment
            comment = []
        else:
            comment = []
