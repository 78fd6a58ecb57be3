"""Runs and artifacts to models that are measured.

An artifact holds no data set: its run has it, and the artifact says of which run it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from fusion_keras.errors import UsageError
from fusion_keras.files import digest
from fusion_keras.fusion.architectures import of_spec
from fusion_keras.studies.robustness.models import (
    KEPT_BYTES,
    Classes,
    Contender,
    Rows,
    keras_classes,
    onnx_classes,
    rows_of,
)
from fusion_keras.training import multi_label
from fusion_keras.training.restored import restore
from fusion_keras.training.run import as_json, corrupt_run_errors, read_json
from fusion_keras.training.task import Task

_ARTIFACT = "fusion_keras artifact"


def load(
    folders: Sequence[Path], runs: Sequence[Path], precisions: Sequence[str], split: str
) -> list[Contender]:
    """The models of runs and artifacts, in their order; of an artifact, one a precision.

    Args:
        folders: of either kind.
        runs: those that artifacts were exported from; `folders` need not be repeated.
        precisions: of artifacts.
        split: train, valid or test.

    Raises:
        UsageError: one cannot be read, or two have unlike rows; an artifact's run is not there.
    """
    if not folders:
        raise UsageError(
            "Give directories of finished runs, or artifacts: python -m fusion_keras.robustness RUN"
        )
    folders = list(dict.fromkeys(folders))
    digests = {_digest(run / "model.keras"): run for run in [*runs, *folders] if not _is(run)}
    tasks: dict[Path, Task] = {}

    def task_of(run: Path) -> Task:
        if run not in tasks:
            tasks[run] = restore(run)
            of_spec(tasks[run].spec).refuse(tasks[run].config.variant, "robustness")
            multi_label.refuse(tasks[run].config, "robustness")
        return tasks[run]

    contenders, room = [], KEPT_BYTES // len(folders)
    for path in folders:
        if _is(path):
            meta = _meta(path)
            run = digests.get(meta["model_sha256"])
            if run is None:
                raise UsageError(
                    f"The data of {path} are those of the run that it was exported from, which is "
                    f"not among those given ({', '.join(map(str, digests.values())) or 'none'}): "
                    "name it, --runs=RUN."
                )
            rows = rows_of(task_of(run), split)
            contenders += [_artifact(path, meta, p, task_of(run), rows) for p in precisions]
        else:
            task = task_of(path)
            rows = rows_of(task, split)
            key = _digest(path / "model.keras")
            classes = keras_classes(task, rows, room)
            contenders.append(_contender(key, path, task, "", rows, classes))
    first = contenders[0]
    for other in contenders[1:]:
        if other.rows.digest != first.rows.digest:
            raise UsageError(
                f"{other.path} and {first.path} have other {split} rows: give models of one "
                "data set and one split."
            )
    return contenders


def _is(folder: Path) -> bool:
    """Whether this is an artifact."""
    return (folder / "meta.json").is_file()


def _digest(path: Path) -> str:
    try:
        return digest(path)
    except OSError:
        raise UsageError(
            f"{path.parent} is neither a finished run nor an artifact: it has no {path.name} that "
            "can be read, and no meta.json."
        ) from None


def _contender(
    key, path, task: Task, precision: str, rows: Rows, classes: Classes, variant: str = ""
) -> Contender:
    """`variant`: of an artifact, which may lack what its run has."""
    config = as_json(task.config)
    config["data"].pop("cache_dir")
    same = {n: value for n, value in config.items() if n not in ("seed", "name", "parents")}
    variant, seed = variant or config["variant"], config["seed"]
    family = json.dumps([same, variant, precision], sort_keys=True)
    return Contender(key, path, variant, seed, precision, family, rows, classes)


def _meta(folder: Path) -> dict:
    """An artifact's description, as far as it is wanted here.

    Raises:
        UsageError: it is damaged or of another version.
    """
    meta = read_json(folder / "meta.json")
    with corrupt_run_errors(folder):
        if not str(meta["format"]).startswith(_ARTIFACT):
            raise ValueError(f"its format is {meta['format']!r}")
        _ = meta["model_sha256"] + "", [model["file"] for model in meta["models"].values()]
        _ = meta["files"].items(), meta["variant"] + "", dict(meta["inputs"])
    return meta


def _artifact(folder: Path, meta: dict, precision: str, task: Task, rows: Rows) -> Contender:
    if precision not in meta["models"]:
        raise UsageError(f"{folder} has no {precision}; it has {', '.join(meta['models'])}.")
    file = folder / meta["models"][precision]["file"]
    key = _digest(file)
    if meta["files"].get(file.name) != key:
        raise UsageError(
            f"{file} is not the file that was exported: it is cut short or was changed. Copy the "
            "artifact again."
        )
    # One without a modality has not its inputs either: what damages them it does not take.
    rows = dataclasses.replace(rows, inputs={n: rows.inputs[n] for n in meta["inputs"]})
    classes = onnx_classes(file, rows)
    return _contender(key, folder, task, precision, rows, classes, meta["variant"])
