"""The terminal, which belongs to the entries: results are printed, progress is logged and drawn.

Libraries log what they do to the logger of their module, draw bars on `console()`, and return
their results. Nobody sees any of it before an entry has called `show`.
"""

from __future__ import annotations

import logging

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# The loggers of our packages.
_PACKAGES = ("fusion_keras", "export")


def _new_console(**options) -> Console:
    # Names of files and data may hold brackets, which are no markup.
    return Console(markup=False, highlight=False, **options)


_progress = _new_console(stderr=True)


class _Lines(logging.Handler):
    """What is logged, as lines above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        _progress.print(self.format(record), soft_wrap=True)


_LINES = _Lines()


def show(level: int = logging.INFO, *, on_stdout: bool = False) -> None:
    """Show what is logged from a level on, and bars if that is INFO or below.

    Args:
        level: of `logging`.
        on_stdout: there instead of stderr.
    """
    global _progress
    _progress = _new_console(stderr=not on_stdout)
    for name in _PACKAGES:
        logger = logging.getLogger(name)
        logger.setLevel(level)
        # absl has a handler of its own on the root.
        logger.propagate = False
        logger.addHandler(_LINES)  # once, however often it is called


def console() -> Console:
    """Where bars are drawn; where progress is not logged, one that shows nothing."""
    logged = logging.getLogger(_PACKAGES[0]).isEnabledFor(logging.INFO)
    return _progress if logged else _new_console(quiet=True)


def moves() -> bool:
    """Whether somebody sees a bar move."""
    return console().is_terminal and not console().quiet


def print_results(*results: RenderableType) -> None:
    """Print sentences and tables on stdout."""
    out = _new_console()
    for result in results:
        out.print(result, soft_wrap=isinstance(result, str))


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} a second,")


def progress_bar(title: str, unit: str = "steps", rate: bool = False) -> Progress:
    """A bar over the steps of a training, or other units, with the time that is left.

    Args:
        rate: whether it shows how many there are a second.
    """
    return Progress(
        TextColumn(title, style="bold", markup=False),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        *([_Rate()] if rate else []),
        TimeElapsedColumn(),
        TextColumn("gone,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console(),
    )


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
