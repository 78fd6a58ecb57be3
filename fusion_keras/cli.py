"""What the entry modules share: flags, teaching help, and errors as one sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

import fusion_keras
from fusion_keras import terminal
from fusion_keras.errors import UsageError
from fusion_keras.interrupts import Interrupts, end_with_starter
from fusion_keras.renamed import RenamedSetting
from fusion_keras.setting_names import check_names

_MEMORY = (
    "Out of memory: lower --config.train.batch_size or --config.image.size, or learn from each "
    "batch in parts (--config.train.accumulate=4)."
)
INTERRUPTED = "Interrupted. The same command goes on from the last finished epoch."
# At the end of every command's help.
_COMMON = """  --quiet, --verbose  show results and errors alone, or every step
  -h, --help, --version
"""
_COMMON_SETTINGS = "  --help_settings     every setting, --config.*, with its default and meaning\n"
CONFIG_FILE = Path(__file__).with_name("config.py")
_log = logging.getLogger(__name__)


def run(
    main: Callable[..., None],
    help_text: str,
    interrupted: str | Callable[[], str] = INTERRUPTED,
    *,
    takes_names: bool = False,
    progress_on_stdout: bool = False,
    older: Mapping[str, str] = {},
    settings: Callable[[], str] | None = None,
) -> None:
    """Run an entry module's `main`; the process ends with a sentence, not a traceback.

    `interrupted` is what is said after Ctrl-C, or a function that tells it once the flags are
    known. With `takes_names`, what is no flag goes to `main` as a list. Progress is shown on
    stderr, or with `progress_on_stdout` among the results. `older` has names that flags had before
    -> today's. `settings` writes what `--help_settings` shows; without it there are none.

    Exit codes: 0 done, 1 nobody reads the output any more, 2 the user can fix it, 130 interrupted.
    """
    end_with_starter()
    sys.argv[1:] = spelled(sys.argv[1:], older)
    told = _told(help_text, settings)
    if told is not None:
        with until_nobody_reads():
            print(told)
        sys.exit(0)
    absl_logging.set_verbosity(absl_logging.ERROR)
    define_verbosity(flags.FLAGS)
    # A terminated process ends as an interrupted one: in order, with a sentence.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def begin(*names: list[str]) -> None:
        terminal.show(_level(), on_stdout=progress_on_stdout)
        main(*names)

    with Interrupts() as interrupts:
        try:
            if takes_names:
                app.run(lambda argv: guarded(lambda: begin(argv[1:])), flags_parser=_flags)
            else:
                app.run(lambda argv: guarded(begin), flags_parser=_parse)
        except KeyboardInterrupt:
            _stop_interrupted(interrupted)
        except ImportError:
            # An interrupt while an extension loads.
            if not interrupts.pending:
                raise
            _stop_interrupted(interrupted)


def _told(help_text: str, settings: Callable[[], str] | None) -> str | None:
    """What is shown instead of what the command does; None where nothing was asked for."""
    given = sys.argv[1:]
    if "--version" in given:
        return f"fusion_keras {fusion_keras.__version__}"
    if settings and "--help_settings" in given:
        return "SETTINGS, in any experiment file or as flags\n" + settings()
    if any(a in ("--help", "-h", "-help") for a in given):
        return help_text + _COMMON + (_COMMON_SETTINGS if settings else "")
    return None


def spelled(arguments: Sequence[str], older: Mapping[str, str] = {}) -> list[str]:
    """Arguments with flags called as today: hyphens are underscores, older names are replaced.

    What follows `--` stays as it is. An older name of "" is that of what is no flag today. As
    `bench.edge.flags.spelled`: neither room may import the other.
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


def only(names: list[str], what: str) -> str | None:
    """The one thing that a command acts on; None where none was given.

    Raises:
        UsageError: several were.
    """
    if len(names) > 1:
        raise UsageError(f"Got {' and '.join(names)}: one {what} is wanted.")
    return names[0] if names else None


def define_verbosity(values: flags.FlagValues) -> None:
    """The flags `--quiet` and `--verbose`, unless they are there already."""
    if "quiet" not in values:
        flags.DEFINE_bool("quiet", False, "Show results and errors alone.", flag_values=values)
        flags.DEFINE_bool("verbose", False, "Show every step.", flag_values=values)


def _level() -> int:
    """What of the log is shown.

    Raises:
        UsageError: as little and as much as there is.
    """
    if flags.FLAGS.quiet and flags.FLAGS.verbose:
        raise UsageError("--quiet and --verbose are given: leave one of them out.")
    if flags.FLAGS.quiet:
        return logging.WARNING
    return logging.DEBUG if flags.FLAGS.verbose else logging.INFO


def _stop_interrupted(interrupted: str | Callable[[], str]) -> None:
    stop(interrupted() if callable(interrupted) else interrupted, 130)


def _flags(argv: list[str]) -> list[str]:
    """Set the flags; what is left of the command line, its name first."""
    try:
        return flags.FLAGS(argv)
    except Exception as error:
        stop(parsing_sentence(error))


def _parse(argv: list[str]) -> list[str]:
    rest = _flags(argv)
    if len(rest) > 1:
        stop(f"Could not understand {rest[1]!r}: settings are given as --name=value.")
    return rest


def define_config(default: Path = CONFIG_FILE) -> flags.FlagHolder:
    """The flags `--config` and `--config.*`. A mistyped field already shows here."""
    show_notes()
    sys.argv[1:] = spelled(sys.argv[1:])
    try:
        check_names(sys.argv)
        return config_flags.DEFINE_config_file("config", str(default))
    except Exception as error:
        stop(parsing_sentence(error))


def show_notes() -> None:
    """Show once each what a setting is called now; other warnings stay as they are."""
    show, printed = warnings.showwarning, set()

    def shown(message, category, *place, **more):
        if not issubclass(category, RenamedSetting):
            show(message, category, *place, **more)
        elif str(message) not in printed:
            printed.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    warnings.showwarning = shown
    warnings.filterwarnings("always", category=RenamedSetting)


def read_config(holder: flags.FlagHolder):
    """The config of `define_config`; a file that could not be read shows only here."""
    try:
        holder.value.items()
    except OSError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(f"The --config file cannot be read: {reason}.") from error
    return holder.value


def parsing_sentence(error: Exception) -> str:
    """What a user can fix of an error in flags, or in an experiment file."""
    if isinstance(error, UsageError):
        return str(error)
    kind = ""
    if isinstance(error, (AttributeError, KeyError)):
        kind = "Unknown setting: "
    elif not isinstance(error, (flags.Error, TypeError, ValueError, OSError)):
        # An experiment file is Python: it can fail in any way.
        kind = f"The --config file fails with {type(error).__name__}: "
    # ml_collections nests its errors, and puts "Did you mean" on a line of its own.
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    said = _number_wanted(" ".join(str(text).split()))
    settings = ", --help_settings every setting" if "config" in flags.FLAGS else ""
    return f"{kind}{said} (--help lists the flags{settings})"


def _number_wanted(said: str) -> str:
    """Python's words for what is no number, in ours."""
    said = re.sub(
        r"invalid literal for int\(\) with base 10: (.*)", r"got \1, wanted a whole number", said
    )
    return re.sub(r"could not convert string to float: (.*)", r"got \1, wanted a number", said)


def guarded(main: Callable[[], None]) -> None:
    """Call `main`; what the user can fix becomes a sentence and exit code 2."""
    try:
        with until_nobody_reads():
            main()
    except UsageError as error:
        _log.debug("What this sentence comes of:", exc_info=True)
        stop(str(error))
    except MemoryError:
        stop(_MEMORY)
    except RuntimeError as error:
        # How XLA says that the accelerator's memory is full.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        stop(_MEMORY)


@contextlib.contextmanager
def until_nobody_reads() -> Iterator[None]:
    """End the program quietly, with exit code 1, where what reads stdout has gone: `| head`.

    As Python's documentation of `signal` advises (Note on SIGPIPE): what is left to write, and is
    written when Python ends, goes nowhere.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise  # another pipe, to a process of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has gone."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        return False  # no file
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def stop(message: str, code: int = 2) -> None:
    """End the program with a sentence."""
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
    """(dotted section, field, default, comment lines) in the order of the config file."""
    comment: list[str] = []
    for line in CONFIG_FILE.read_text().splitlines():
        field = re.fullmatch(r"    ([\w.]+)\.(\w+) = (.+)", line)
        if line.startswith("    # "):
            comment.append(line[6:])
        elif field and not field[3].startswith(("_", "ConfigDict")):
            section = "" if field[1] == "config" else field[1]
            default = "(recipe)" if field[3].startswith("placeholder") else field[3]
            yield section, field[2], default, comment
            comment = []
        else:
            comment = []
