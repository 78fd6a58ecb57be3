"""Runs of one modality that others start from: those that are named or stand beside, and what they
must share.

`adopted` takes over what they have learned.
"""

from __future__ import annotations

import csv
from pathlib import Path

from fusion_keras.config import copied
from fusion_keras.data.incomplete import CHOICES
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.files import digest_if_there
from fusion_keras.fusion.architectures import of_variant
from fusion_keras.fusion.variants import FROZEN
from fusion_keras.modalities import MODALITY
from fusion_keras.training.run import (
    Run,
    as_json,
    changes,
    completed,
    corrupt_run_errors,
    read_json,
    worded,
)


def named(config) -> dict[str, Path]:
    """Modality -> the finished run that `config.parents` names for it.

    Raises:
        UsageError: not one run of each modality, or fewer for a variant that goes on training;
            or a run that does not fit this one.
    """
    folders = {}
    taken = of_variant(config.variant).backbones(config)
    for folder in map(Path, config.parents):
        modality = _variant(folder)
        if modality not in MODALITIES or modality in folders:
            kind = "a second one" if modality in folders else "a run"
            raise UsageError(
                f"--parents names {folder}, {kind} of variant {modality!r}; one run of each of "
                f"{', '.join(taken)} is wanted."
            )
        _check_settings(folder, modality, config)
        folders[modality] = folder
    missing = [m for m in taken if m not in folders]
    if config.variant in FROZEN and folders and missing:
        raise UsageError(
            f"--parents names no {missing[0]} run; {config.variant} needs one run of each of "
            f"{', '.join(taken)}."
        )
    return folders


def beside(config, run: Run) -> Path | None:
    """A complete run beside this one, or the parent of one, that was trained with exactly this
    config, resolved, on the table as it is now: another may have had other labels, or rows that are
    not there any more."""
    folders = [path for path in sorted(run.folder.parent.glob("*")) if path.is_dir()]
    inner = [path for folder in folders for path in sorted(folder.glob("parents/*"))]
    there = [*folders, *(path for path in inner if path.parents[1].suffix != ".partial")]
    now = digest_if_there(config.data.path)
    # What becomes of rows that lack a modality shows in the rows, which are compared then.
    configs = [copied(config) for _ in CHOICES]
    for same, choice in zip(configs, CHOICES, strict=True):
        same.data.incomplete = choice

    def fits(folder: Path) -> bool:
        candidate = Run(folder, run.framework)
        if not any(candidate.is_of(same) for same in configs):
            return False
        return candidate.read_json("config.json")["dataset"].get("table_sha256", "") == now

    return next(filter(fits, there), None)


def _variant(folder: Path) -> str:
    if not (folder / "model.keras").exists():
        raise UsageError(
            f"{folder} is not a finished run: --parents wants the directories of finished runs of "
            f"{', '.join(MODALITIES)} alone."
        )
    with corrupt_run_errors(folder):
        return read_json(folder / "config.json")["config"]["variant"]


def _check_settings(folder: Path, modality: str, config) -> None:
    """Refuse a parent made with another backbone, image size or data set."""
    with corrupt_run_errors(folder):
        theirs = completed(read_json(folder / "config.json")["config"])
    ours = as_json(config)
    sections = [modality, "data"]
    if config.variant == "late_score":
        sections += ["fusion.hidden", "fusion.junctions"]
    with corrupt_run_errors(folder):
        changed = {}
        for section in sections:
            parts = [{section: _shared(values, section)} for values in (theirs, ours)]
            changed |= changes(*parts)
    if changed:
        raise UsageError(
            f"The parent {folder} differs from this run in {'; '.join(worded(changed))}: train the "
            "parent with the same settings."
        )


def _shared(config: dict, section: str):
    """What a parent and its late fusion must have in common of a section of the config."""
    if section.startswith("fusion."):
        return config["fusion"][section.removeprefix("fusion.")]
    values = config[section]
    if section != "data":
        return values
    # The rows themselves are compared once they are read: another name or spelling of a path,
    # or fewer bad rows, makes no other data.
    free = {
        "path", "name", "raw_dir", "frames_dir", "audio_column", "cache_dir", "max_skipped", "part",
        "part_share", "incomplete",
    }  # fmt: skip
    return _without(values, free)


def _without(values: dict, names: set[str]) -> dict:
    kept = {name: value for name, value in values.items() if name not in names}
    return {n: _without(v, names) if isinstance(v, dict) else v for n, v in kept.items()}


def check_rows(folder: Path, modality: str, dataset: Dataset) -> None:
    """Check that a parent had these classes, and each of these rows in the same split.

    A row that the parent trained on must not be one that this run is tested on. Rows are
    known by name and by what stands in them: `line7` is another row in another file. Of a row
    without the modality the parent need not know.

    Raises:
        UsageError: another order of classes, other rows, or another split.
    """
    with corrupt_run_errors(folder):
        classes = read_json(folder / "config.json")["classes"]
        with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
            theirs = {row["id"]: (row["split"], row[modality]) for row in csv.DictReader(file)}
    if classes != list(dataset.classes):
        raise UsageError(
            f"The parent {folder} has the classes {', '.join(classes)}, this run "
            f"{', '.join(dataset.classes)}: train the parent on the same data."
        )
    contents, has = MODALITY[modality].contents(dataset), dataset.has(modality)
    moved = [
        name
        for name, split, content, there in zip(
            dataset.ids, dataset.splits, contents, has, strict=True
        )
        if theirs.get(name, None if there else (split, "")) != (split, content)
    ]
    if moved:
        raise UsageError(
            f"The parent {folder} had {len(moved)} of {len(dataset)} rows in another split, with "
            f"another {modality}, or not at all (the first is {moved[0]!r}): train the parent on "
            "the same data."
        )


def has_rows(folder: Path, modality: str, dataset: Dataset) -> bool:
    """Whether `check_rows` has nothing against this parent."""
    try:
        check_rows(folder, modality, dataset)
    except UsageError:
        return False
    return True
