"""Finished runs whose answers another run learns from: those that are named, and what they must
share with it.

`teaching` asks them. A teacher may be of any variant, with other backbones, image sizes and
lengths; it must know the same classes, and must not have learned from what the student is
validated and tested on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.files import digest
from fusion_keras.fusion.architectures import FUSION, of_values
from fusion_keras.training.run import corrupt_run_errors, read_json


def named(config) -> dict[Path, str]:
    """The runs of `config.teacher.runs`, each with the sha256 of its model.

    Raises:
        UsageError: one that is not a finished run, or whose model cannot be asked.
    """
    models = {}
    for folder in map(Path, config.teacher.runs):
        if not (folder / "metrics.json").is_file() or not (folder / "model.keras").is_file():
            raise UsageError(
                f"{folder} is not a finished run: --teacher wants the directories of finished runs."
            )
        if folder in models:
            raise UsageError(f"--teacher names {folder} twice: leave one of them out.")
        with corrupt_run_errors(folder):
            description = read_json(folder / "config.json")
            spec = description["spec"]
        if description.get("label_kind") == "multi":
            raise UsageError(
                f"The teacher {folder} answers with several labels a row, where one class "
                "is wanted: give a run of one label a row."
            )
        if of_values(spec) is not FUSION:
            raise UsageError(
                f"The teacher {folder} is a {of_values(spec).name}, which learns from other data: "
                "give a run of text, image, late, inter, early, ..."
            )
        models[folder] = digest(folder / "model.keras")
    return models


def rows_of(folder: Path, teacher: Dataset, student: Dataset) -> np.ndarray:
    """Where each of the student's rows stands in the teacher's data, int64 [N].

    Raises:
        UsageError: another order of classes, or a row that the teacher has not, has with another
            content, or has in another split.
    """
    if teacher.classes != student.classes:
        raise UsageError(
            f"The teacher {folder} has the classes {', '.join(teacher.classes)}, this run "
            f"{', '.join(student.classes)}: train the teacher on the same data."
        )
    place = {name: row for row, name in enumerate(teacher.ids)}
    rows = np.array([place.get(name, -1) for name in student.ids])
    unlike = [
        i for i, row in enumerate(rows) if row < 0 or _content(teacher, row) != _content(student, i)
    ]
    if unlike:
        raise UsageError(
            f"The teacher {folder} had {len(unlike)} of {len(student)} rows in another split, with "
            f"another content, or not at all (the first is {student.ids[unlike[0]]!r}): a student "
            "must not be tested on what its teacher knows; train the teacher on the same data."
        )
    return rows


def _content(dataset: Dataset, row: int) -> tuple:
    """What a row is, whatever a model reads of it."""
    return dataset.splits[row], dataset.raw["text"][row], int(dataset.labels[row])
