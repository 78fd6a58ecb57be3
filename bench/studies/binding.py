"""The flags that a study hands on to its trainings, and that bind its folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from bench.edge import files
from bench.studies.study import StudyError


def only_of_training(handed_on: list[str], known: tuple[str, ...]) -> None:
    """Check that what is handed on are flags that training has.

    Raises:
        StudyError: names the first that is not.
    """
    for flag in handed_on:
        if not flag.startswith(known):
            raise StudyError(
                f"{flag} is no flag of the study; what it hands on to the training begins with "
                f"{' or '.join(known)} (variants and seeds are --variants and --seeds)."
            )


def same_study(
    place: Path, handed_on: list[str], taught: Sequence[str] = (), keep: bool = True
) -> None:
    """Keep two studies out of one folder.

    Flags bind a study once there is a run that was begun with them: what is wrong with a flag is
    often found out later than it is written down.

    Args:
        taught: further flags of the taught trainings, --teacher first; none without a teacher.
        keep: whether the settings are written there, for the next one.

    Raises:
        StudyError: the folder holds one with other settings of the training.
    """
    file, asked = place / "study.json", [*handed_on, *taught]
    try:
        before = json.loads(file.read_text()) if file.is_file() else asked
    except ValueError:
        raise StudyError(f"{file} is damaged: remove it, or give --workdir another name.") from None
    begun = [run.name for run in place.glob("*/*-s*") if run.is_dir()]
    if not begun:
        before = asked
    elif not any("-taught-" in name for name in begun):
        own = list(itertools.takewhile(lambda f: not f.startswith("--teacher="), before))
        before = [*own, *taught]
    if before != asked:
        gone = [flag for flag in before if flag not in asked]
        new = [flag for flag in asked if flag not in before]
        raise StudyError(
            f"{place} holds a study with {' '.join(gone) or 'fewer flags'}, got "
            f"{' '.join(new) or 'none of them'}: repeat that command, or give --workdir another "
            "name."
        )
    if keep:
        files.write(file, json.dumps(asked) + "\n")
