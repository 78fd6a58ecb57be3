"""Late fusion: parents fine-tuned alone, then frozen; only the head trains.

The frozen parts run once: the head trains on their cached outputs, so its 100 epochs
cost seconds (Willis and Bakos 2025, section 3.3.1).
"""

from __future__ import annotations

import copy
import csv
from pathlib import Path

import keras
import numpy as np

from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.fusion.graph import part_name
from fusion_keras.training.evaluate import predict
from fusion_keras.training.run import as_json, differences, read_json
from fusion_keras.training.task import Task


def parent_config(config, given, modality: str):
    """The config of the unimodal run that a late fusion starts from.

    Args:
        config: late fusion's config before its recipe filled it, so that each parent gets
            its own variant's recipe. What `config.train` sets by hand is for the head.
        given: the same after the recipe, for the share of the data.
        modality: "text" or "image".
    """
    parent = copy.deepcopy(config)
    parent.variant, parent.parents = modality, ()
    parent.fusion.junctions, parent.fusion.weights = "", ()
    for name in parent.train:
        if name not in ("batch_size", "score_loss"):
            parent.train[name] = None
    parent.train.epochs = config.late.parent_epochs
    if given.late.parent_share < 1:
        parent.data.part, parent.data.part_share = "first", given.late.parent_share
    return parent


def head_config(config):
    """The late fusion's own config: its head learns on what the parents did not see."""
    config = copy.deepcopy(config)
    if not config.parents and config.late.parent_share < 1:
        config.data.part, config.data.part_share = "second", config.late.parent_share
    return config


def check(config) -> None:
    """Check what only late fusion restricts.

    Raises:
        UsageError: the average of scores is given other junctions than its parents have.
    """
    if config.variant == "late_score" and config.fusion.junctions:
        raise UsageError(
            "late_score averages what two whole models say and takes no "
            "--config.fusion.junctions: leave them out, or choose --variant=late."
        )


def check_parent(folder: Path, modality: str, config) -> None:
    """Check that a finished run can be the parent for a modality.

    Raises:
        UsageError: it is not finished, another variant, or made with another backbone,
            image size or data set than the late fusion asks for.
    """
    if not (folder / "model.keras").exists():
        raise UsageError(
            f"{folder} is no finished run: --parents wants the directory of a finished text run "
            "and that of a finished image run, in this order."
        )
    theirs = read_json(folder / "config.json")["config"]
    if theirs["variant"] != modality:
        raise UsageError(
            f"{folder} is a run of variant {theirs['variant']!r}; {modality!r} is wanted here. "
            "Give --parents=TEXT_RUN,IMAGE_RUN."
        )
    ours = as_json(config)
    sections = [modality, "data"]
    if config.variant == "late_score":
        sections.append("fusion.hidden")
    pairs = [({s: _shared(theirs, s)}, {s: _shared(ours, s)}) for s in sections]
    differing = [phrase for old, new in pairs for phrase in differences(old, new)]
    if differing:
        raise UsageError(
            f"The parent {folder} differs from this run in {'; '.join(differing)}: train the "
            "parent with the same settings."
        )


def _shared(config: dict, section: str):
    """What a parent and its late fusion must have in common of a section of the config."""
    if section == "fusion.hidden":
        return config["fusion"]["hidden"]
    values = config[section]
    if section != "data":
        return values
    # The rows themselves are compared once they are read: another spelling of a path, or
    # fewer bad rows, makes no other data.
    free = ("path", "raw_dir", "frames_dir", "cache_dir", "max_skipped", "part", "part_share")
    return {name: value for name, value in values.items() if name not in free}


def check_rows(folder: Path, dataset: Dataset) -> None:
    """Check that a parent had these classes, and each of these rows in the same split.

    A row that the parent trained on must not be one that late fusion is tested on.

    Raises:
        UsageError: another order of classes, or another split.
    """
    classes = read_json(folder / "config.json")["classes"]
    if classes != list(dataset.classes):
        raise UsageError(
            f"The parent {folder} has the classes {', '.join(classes)}, this run "
            f"{', '.join(dataset.classes)}: train the parent on the same data."
        )
    with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
        theirs = {row["id"]: row["split"] for row in csv.DictReader(file)}
    moved = [i for i, s in zip(dataset.ids, dataset.splits, strict=True) if theirs.get(i) != s]
    if moved:
        raise UsageError(
            f"The parent {folder} had {len(moved)} of {len(dataset)} rows in another split, or "
            f"not at all (the first is {moved[0]!r}): train the parent on the same data."
        )


def adopt(task: Task, parent: keras.Model, modality: str) -> None:
    """Copy a parent's trained part into the late fusion's model and freeze it."""
    part = task.graph.model.get_layer(part_name(modality))
    trained = parent.get_layer(part_name(modality))
    # Layer by layer: a junction may tap less of the backbone than the parent has.
    for layer in part.layers:
        layer.set_weights(trained.get_layer(layer.name).get_weights())
    part.trainable = False
    if task.spec.decision == "score":
        _adopt_head(task, parent, modality)


def _adopt_head(task: Task, parent: keras.Model, modality: str) -> None:
    """Late fusion of scores averages the parents' own probabilities: their heads too."""
    fusion = task.graph.fusion
    index = next(i for i, j in enumerate(task.spec.junctions) if modality in j.depths)
    names = {"head_hidden": f"head{index}_hidden", "logits": f"head{index}_logits"}
    for theirs, ours in names.items():
        if theirs == "head_hidden" and not task.spec.hidden:
            continue
        layer = fusion.get_layer(ours)
        layer.set_weights(parent.get_layer("fusion").get_layer(theirs).get_weights())
        layer.trainable = False


def features(task: Task) -> dict[str, np.ndarray]:
    """The frozen parts' outputs for every row, with the targets: what the head trains on."""
    outputs = predict(task.graph.encoders, task.arrays, np.arange(len(task.dataset)))
    targets = {name: task.arrays[name] for name in ("label", "score") if name in task.arrays}
    return {**outputs, **targets}
