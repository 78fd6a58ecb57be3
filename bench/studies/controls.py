"""What a taught training is held against: the same without its teacher, as long, and so with its
labels smoothed instead.

A teacher answers further rows, so a pass with it is longer. A control makes as many more passes,
and is as many times as patient.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from bench.edge.errors import BenchError

UNTAUGHT, SMOOTHED = "untaught", "smoothed"
_SMOOTHING = 0.1
OF_TEACHER = ("--teacher=", "--config.teacher.")


def names(taught: Path) -> dict[str, Path]:
    """UNTAUGHT and SMOOTHED -> where the control of a taught run goes."""
    return {
        kind: taught.with_name(taught.name.replace("-taught-", f"-{kind}-"))
        for kind in (UNTAUGHT, SMOOTHED)
    }


def flags(kind: str, given: list[str], taught: Path) -> list[str]:
    """The flags of a control, once the taught run is finished.

    Args:
        kind: UNTAUGHT or SMOOTHED.
        given: the flags of the taught training.
        taught: its directory, which says how long it was and over how many rows.

    Raises:
        BenchError: the run cannot be read.
    """
    config, times = _about(taught)
    train = config["train"]
    changed = {n: math.ceil(train[n] * times) for n in ("epochs", "patience") if train[n]}
    if kind == SMOOTHED:
        changed["label_smoothing"] = round(train["label_smoothing"] + _SMOOTHING, 6)
    own = {f"--config.train.{name}": value for name, value in changed.items()}
    kept = [f for f in given if not f.startswith(OF_TEACHER) and f.partition("=")[0] not in own]
    return [*kept, *(f"{flag}={value:g}" for flag, value in own.items())]


def is_alone(taught: Path) -> bool:
    """Whether the model trained alone, beside the taught one, is the untaught control: as long
    already, with its settings. Not where one of the two is still to come.

    Raises:
        BenchError: one of the two cannot be read.
    """
    alone = taught.with_name(taught.name.replace("-taught-", "-"))
    if not all((run / "config.json").is_file() for run in (taught, alone)):
        return False
    (mine, times), (theirs, _) = _about(taught), _about(alone)
    return times == 1 and {**mine, "teacher": theirs.get("teacher")} == theirs


def _about(run: Path) -> tuple[dict, float]:
    """(`config` of a finished run, how many times its own rows a pass has)."""
    try:
        about = json.loads((run / "config.json").read_text(encoding="utf-8"))
        rows = about["dataset"]["counts"]["train"]
        return about["config"], (rows + about.get("extra_rows", 0)) / rows
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(
            f"{run} cannot be read ({type(error).__name__}: {error}): remove it, and the study "
            "trains it again."
        ) from None
