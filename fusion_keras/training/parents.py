"""Runs of one modality that others start from.

Late fusion freezes what its parents have learned, and only its head trains: the frozen
parts run once, and 100 epochs of the head on their cached outputs cost seconds (Willis and
Bakos 2025, section 3.3.1). Other variants go on training what they have taken over: each
modality has then been learned at its own pace.
"""

from __future__ import annotations

import copy
import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from fusion_keras.config import copied, get_config
from fusion_keras.data.augment import augment
from fusion_keras.data.modalities import DROPS, MODALITIES
from fusion_keras.data.pipeline import TARGETS
from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.fusion.graph import part_name
from fusion_keras.fusion.spec import LAST, Depth, Junction, format_junction
from fusion_keras.fusion.variants import FROZEN, modalities_of
from fusion_keras.training.evaluate import predict
from fusion_keras.training.run import as_json, completed, damage, differences, read_json
from fusion_keras.training.task import Task, spec_of

# Augmented images of each training row that a head over frozen parts sees.
DRAWS = 4


def to_train(given) -> dict[str, str]:
    """The parents that a run must train first, as none was named.

    A parent of a run that goes on training is cut behind the deepest tap of that run: layers
    behind it would take their share of the learning with them.

    Args:
        given: the resolved config.

    Returns:
        Modality -> the junction of its parent, in short form; "" for the whole backbone.
    """
    if given.parents:
        return {}
    # Junctions given by hand may leave a modality out.
    taken = modalities_of(given.variant, given.fusion)
    frozen = given.variant in FROZEN
    wanted = [m for m in taken if frozen or m in given.parent.warm_start]
    if not wanted:
        return {}
    # Its mistakes are told before hours of training of parents.
    spec = spec_of(given)
    if frozen:
        return dict.fromkeys(wanted, "")
    deepest = {m: spec.depths(m)[-1] for m in wanted}
    # Before the first layer there is nothing to learn ahead.
    return {m: _alone(m, depth) for m, depth in deepest.items() if depth != 0}


def _alone(modality: str, depth: Depth) -> str:
    if depth == LAST:
        return ""
    alone = {m: depth if m == modality else None for m in MODALITIES}
    return format_junction(Junction(join="concat", **alone))


def named(given) -> dict[str, Path]:
    """Modality -> the finished run that `config.parents` names for it.

    Raises:
        UsageError: not one run of each modality, or fewer for a variant that goes on training;
            or a run that does not fit this one.
    """
    folders = {}
    taken = modalities_of(given.variant, given.fusion)
    for folder in map(Path, given.parents):
        modality = _variant(folder)
        if modality not in MODALITIES or modality in folders:
            kind = "a second one" if modality in folders else "a run"
            raise UsageError(
                f"--parents names {folder}, {kind} of variant {modality!r}; one run of each of "
                f"{', '.join(taken)} is wanted."
            )
        _check_settings(folder, modality, given)
        folders[modality] = folder
    missing = [m for m in taken if m not in folders]
    if given.variant in FROZEN and folders and missing:
        raise UsageError(
            f"--parents names no {missing[0]} run; {given.variant} needs one run of each of "
            f"{', '.join(taken)}."
        )
    return folders


def parent_config(config, given, modality: str, junction: str):
    """The config of a unimodal run that another one starts from.

    Args:
        config: the other one's config before its recipe filled it, so that the parent gets
            its own variant's recipe. What `config.train` sets by hand is not for the parent.
        given: the same after the recipe, for the share of the data.
        modality: one of MODALITIES.
        junction: where its backbone is cut, as `to_train` gives it.
    """
    parent, plain = copy.deepcopy(config), get_config()
    parent.variant, parent.parents = modality, ()
    parent.fusion.junctions, parent.fusion.weights = junction, ()
    # It has nothing that could be withheld.
    parent.fusion.stand_ins = False
    for name in DROPS.values():
        parent.augment[name] = plain.augment[name]
    for name in parent.train:
        if name not in ("batch_size", "score_loss"):
            parent.train[name] = None
    parent.train.epochs = config.parent.epochs
    # It has no parents of its own.
    parent.parent.warm_start, parent.parent.epochs = (), None
    if given.variant in FROZEN and given.parent.share < 1:
        parent.data.part, parent.data.part_share = "first", given.parent.share
    return parent


def head_config(config):
    """The config for a run's own data: a late fusion's head learns on what its parents,
    trained on the way, did not see."""
    config = copied(config)
    if config.variant in FROZEN and not config.parents and config.parent.share < 1:
        config.data.part, config.data.part_share = "second", config.parent.share
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


def _variant(folder: Path) -> str:
    if not (folder / "model.keras").exists():
        raise UsageError(
            f"{folder} is no finished run: --parents wants the directories of finished runs of "
            f"{', '.join(MODALITIES)} alone."
        )
    with damage(folder):
        return read_json(folder / "config.json")["config"]["variant"]


def _check_settings(folder: Path, modality: str, config) -> None:
    """Refuse a parent made with another backbone, image size or data set."""
    with damage(folder):
        theirs = completed(read_json(folder / "config.json")["config"])
    ours = as_json(config)
    sections = [modality, "data"]
    if config.variant == "late_score":
        sections += ["fusion.hidden", "fusion.junctions"]
    with damage(folder):
        pairs = [({s: _shared(theirs, s)}, {s: _shared(ours, s)}) for s in sections]
        differing = [phrase for old, new in pairs for phrase in differences(old, new)]
    if differing:
        raise UsageError(
            f"The parent {folder} differs from this run in {'; '.join(differing)}: train the "
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
        "part_share",
    }  # fmt: skip
    return _without(values, free)


def _without(values: dict, names: set[str]) -> dict:
    kept = {name: value for name, value in values.items() if name not in names}
    return {n: _without(v, names) if isinstance(v, dict) else v for n, v in kept.items()}


def row_contents(dataset: Dataset, modality: str) -> list[str]:
    """A digest of each row's sentence, decoded image or sound; "" where it has none."""
    if modality == "text":
        return [_digest(text.encode("utf-8", "surrogatepass")) for text in dataset.texts]
    decoded = {"image": dataset.images, "audio": dataset.audio}[modality]
    if decoded is None:
        return [""] * len(dataset)
    return [_digest(np.ascontiguousarray(row).data) for row in decoded]


def _digest(content) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def check_rows(folder: Path, modality: str, dataset: Dataset) -> None:
    """Check that a parent had these classes, and each of these rows in the same split.

    A row that the parent trained on must not be one that this run is tested on. Rows are
    known by name and by what stands in them: `line7` is another row in another file.

    Raises:
        UsageError: another order of classes, other rows, or another split.
    """
    with damage(folder):
        classes = read_json(folder / "config.json")["classes"]
        with (folder / "splits.csv").open(newline="", encoding="utf-8") as file:
            theirs = {row["id"]: (row["split"], row[modality]) for row in csv.DictReader(file)}
    if classes != list(dataset.classes):
        raise UsageError(
            f"The parent {folder} has the classes {', '.join(classes)}, this run "
            f"{', '.join(dataset.classes)}: train the parent on the same data."
        )
    ours = zip(dataset.splits, row_contents(dataset, modality), strict=True)
    moved = [i for i, row in zip(dataset.ids, ours, strict=True) if theirs.get(i) != row]
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


def adopt(task: Task, parent: keras.Model, modality: str) -> None:
    """Copy a parent's trained part into the model; late fusion freezes it.

    Raises:
        UsageError: the parent's backbone is cut before the deepest tap of this model.
    """
    part = task.graph.model.get_layer(part_name(modality))
    trained = {layer.name: layer for layer in parent.get_layer(part_name(modality)).layers}
    missing = [layer.name for layer in part.layers if layer.name not in trained]
    if missing:
        raise UsageError(
            f"The {modality} parent was trained with fewer layers than this run taps (it has no "
            f"{missing[0]}): train it with junctions as deep, or with none given."
        )
    # Layer by layer: a junction may tap less of the backbone than the parent has.
    for layer in part.layers:
        layer.set_weights(trained[layer.name].get_weights())
    if not task.spec.frozen:
        return
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


def features(task: Task) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What a frozen model's head trains on: the frozen parts' outputs.

    With augmentation, a training row has the features of several augmented images and none
    of the image as it is: its parent has learned that one by heart, and a head that sees it
    trusts the images more than they deserve.

    Returns:
        Arrays (the inputs of the head, `label`, perhaps `score`), each [N + DRAWS * n, ...],
        the N rows of the data set first; and split -> int, its rows in them.
    """
    outputs = predict(task.graph.encoders, task.arrays, np.arange(len(task.dataset)))
    targets = {name: task.arrays[name] for name in TARGETS if name in task.arrays}
    arrays, rows = {**outputs, **targets}, dict(task.rows)
    if task.augment is None or "image" not in task.arrays:
        return arrays, rows
    train = rows["train"]
    seen = [{n: x[train] for n, x in arrays.items()} | drawn for drawn in _augmented(task, train)]
    rows["train"] = len(task.dataset) + np.arange(DRAWS * len(train))
    return {n: np.concatenate([x, *(s[n] for s in seen)]) for n, x in arrays.items()}, rows


def _augmented(task: Task, rows: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """DRAWS times, the image taps of these rows under augmentation."""
    encoders = task.graph.encoders
    taps = {n: x for n, x in encoders.output.items() if n.startswith("image_")}
    encoder = keras.Model({"image": encoders.input["image"]}, taps, name="image_encoder")
    rng = np.random.default_rng(task.config.seed)
    for _ in range(DRAWS):
        images = np.stack([augment(task.arrays["image"][r], task.augment, rng) for r in rows])
        arrays = {"image": images, "label": task.arrays["label"][rows]}
        yield predict(encoder, arrays, np.arange(len(rows)))
