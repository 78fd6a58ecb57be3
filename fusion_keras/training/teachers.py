"""Finished runs whose answers another run learns from: those that are named, and what they must
share with it.

`teaching` asks them. A teacher may be of any variant, with other backbones, image sizes and
lengths; it must know the same classes, and must not have learned from what the student is
validated and tested on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fusion_keras.data.modalities import INPUT_OF, MODALITIES
from fusion_keras.data.records import Dataset
from fusion_keras.data.text_columns import TextColumns
from fusion_keras.data.unlabelled import Unlabelled, read_unlabelled
from fusion_keras.errors import UsageError
from fusion_keras.files import digest
from fusion_keras.fusion.architectures import FUSION, of_values
from fusion_keras.fusion.variants import FROZEN
from fusion_keras.training.run import corrupt_run_errors, read_json

if TYPE_CHECKING:
    from fusion_keras.training.task import Task


def named(config, classes: tuple[str, ...]) -> dict[Path, str]:
    """The runs of `config.teacher.runs`, each with the sha256 of its model.

    Args:
        classes: of the student.

    Raises:
        UsageError: one that is not a finished run, whose model cannot be asked, or that knows other
            classes; or a file of unlabelled rows without any that could be asked about.
    """
    models: dict[Path, str] = {}
    taken = set(FUSION.modalities(config)) if config.teacher.unlabelled else set()
    for folder in map(Path, config.teacher.runs):
        if not (folder / "metrics.json").is_file() or not (folder / "model.keras").is_file():
            said = "is not a finished run: --teacher wants the directories of finished runs."
            if (folder / "golden.npz").is_file() and (folder / "meta.json").is_file():
                said = (
                    "is an artifact, which does not say what rows its model has learned from: give "
                    "the run that it was exported from."
                )
            raise UsageError(f"{folder} {said}")
        if folder.resolve() in (other.resolve() for other in models):
            raise UsageError(f"--teacher names {folder} twice: leave one of them out.")
        with corrupt_run_errors(folder):
            description = read_json(folder / "config.json")
            spec, theirs = description["spec"], tuple(description["classes"])
            inputs = {m for m in MODALITIES if INPUT_OF[m] in description["inputs"]}
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
        _check_classes(folder, theirs, classes)
        learning = {m for m in FUSION.modalities(config) if config.train[f"{m}_rate"]}
        if config.teacher.taps and not models and not inputs & learning:
            raise UsageError(
                f"config.teacher.taps is {config.teacher.taps}, and the teacher {folder} has no "
                "backbone of what this run learns from: name another one first, or leave it out."
            )
        taken |= inputs
        models[folder] = digest(folder / "model.keras")
    if config.teacher.unlabelled:
        unlabelled_of(config, [m for m in MODALITIES if m in taken])
    return models


def described(folder: Path) -> str:
    """What a teacher is, wherever it is and of whatever seed: its variant, recipe and backbones."""
    about = read_json(folder / "config.json")
    with corrupt_run_errors(folder):
        config = about["config"]
        taken = [m for m in MODALITIES if INPUT_OF[m] in about["inputs"] and "preset" in config[m]]
        presets = [Path(config[m]["preset"]).name for m in taken]
        variant = about.get("variant", config["variant"])
        return f"{variant}, {config['recipe']}: {', '.join(presets)}"


def unlabelled_of(config, taken: Sequence[str], evaluated: Sequence[str] = ()) -> Unlabelled:
    """The rows of `config.teacher.unlabelled`; see `read_unlabelled`.

    Args:
        taken: modalities that the student or a teacher takes.
        evaluated: the sentences of validation and test.
    """
    manifest, readers = config.data.manifest, FUSION.readers(config)
    return read_unlabelled(
        config.teacher.unlabelled,
        taken,
        TextColumns.of_settings(manifest),
        {"image": manifest.image_column, "audio": manifest.audio_column},
        evaluated,
        readers["tabular"].columns if "tabular" in readers else (),
        encoding=manifest.encoding,
        encoding_flag="--config.data.manifest.encoding",
    )


def rows_of(folder: Path, teacher: Dataset, student: Dataset) -> np.ndarray:
    """Where each of the student's rows stands in the teacher's data, int64 [N].

    Raises:
        UsageError: another order of classes, or a row that the teacher has not, has with another
            content, or has in another split.
    """
    _check_classes(folder, teacher.classes, student.classes)
    place = {name: row for row, name in enumerate(teacher.ids)}
    rows = np.array([place.get(name, -1) for name in student.ids])
    unlike = [i for i, row in enumerate(rows) if row < 0 or not _same(teacher, row, student, i)]
    if unlike:
        raise UsageError(
            f"The teacher {folder} had {len(unlike)} of {len(student)} rows in another split, with "
            f"another content, or not at all (the first is {student.ids[unlike[0]]!r}): a student "
            "must not be tested on what its teacher knows; train the teacher on the same data."
        )
    return rows


def _check_classes(folder: Path, theirs: tuple[str, ...], own: tuple[str, ...]) -> None:
    if theirs != own:
        raise UsageError(
            f"The teacher {folder} has the classes {', '.join(theirs)}, this run {', '.join(own)}: "
            "train the teacher on the same data."
        )


def _same(teacher: Dataset, row: int, student: Dataset, own: int) -> bool:
    """Whether two rows are one, whatever a model reads of it."""
    if _content(teacher, row) != _content(student, own):
        return False
    for modality in ("image", "audio"):
        pair = (teacher, row), (student, own)
        files = [data.raw[modality][n] for data, n in pair if modality in data.raw]
        # Of what is drawn the rest of the row tells; a table without files has none to compare.
        if len(files) < 2 or not all(isinstance(file, Path) for file in files):
            continue
        if files[0] != files[1] and digest(files[0]) != digest(files[1]):
            return False
    return True


def _content(dataset: Dataset, row: int) -> tuple:
    return dataset.splits[row], dataset.raw["text"][row], int(dataset.labels[row])


def learned(run: Path, task: Task) -> np.ndarray:
    """The training rows that a teacher or its parents may know by heart, int64 [n].

    Those of its part of the data (`config.data.part`), where its parents had the same; else all.
    """
    data, whole = task.config.data, task.dataset.rows("train")
    # One that has learned from all rows need not be asked for its parents, which may be gone.
    if data.part == "all" or (task.config.variant in FROZEN and task.config.parent.share < 1):
        return whole
    keys = ("part", "part_share", "split_seed")
    with corrupt_run_errors(run):
        parents = read_json(run / "config.json")["parents"]
    for parent in map(Path, parents.values()):
        with corrupt_run_errors(parent):
            theirs = read_json(parent / "config.json")["config"]["data"]
            if any(theirs.get(key) != data[key] for key in keys):
                return whole
    return task.rows["train"]
