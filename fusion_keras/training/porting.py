"""Weights that come from PyTorch, or go there, as safetensors: no pickle, no PyTorch needed."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from fusion_keras.backbones.hf_files import Weights, kind_of
from fusion_keras.backbones.sources import read_json as read_source
from fusion_keras.errors import UsageError
from fusion_keras.files import digest, disk_errors, write
from fusion_keras.fusion.architectures import of_spec, of_values
from fusion_keras.fusion.spec import from_dict
from fusion_keras.fusion.state_dict import load_state_dict, state_dict
from fusion_keras.training import multi_label
from fusion_keras.training.evaluate import predict
from fusion_keras.training.experiment import describe, write_results
from fusion_keras.training.plan import plan_of
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import config_of, load_model
from fusion_keras.training.run import Run, corrupt_run_errors, read_json
from fusion_keras.training.task import Task, prepare

_log = logging.getLogger(__name__)
# Hugging Face's model_type, which is also what a classifier's file puts before the backbone's names
# -> the linear head on the backbone's `last`. The others' heads have a layer more.
_HEADS = {
    **dict.fromkeys(
        (
            *("bert", "albert", "vit", "deit", "mobilenet_v2", "efficientnet"),
            *("convnext", "convnextv2"),
        ),
        "classifier",
    ),
    "resnet": "classifier.1",
}


def to_pytorch(folder: Path, target: Path) -> int:
    """Write a run's weights as the PyTorch reference's state dict.

    Args:
        folder: a complete run.
        target: the .safetensors file; one that is there is replaced.

    Returns:
        How many tensors were written, float32.

    Raises:
        UsageError: no complete run, or the file cannot be written.
    """
    model = load_model(folder)
    values = read_json(folder / "config.json")
    with corrupt_run_errors(folder):
        of_values(values["spec"]).refuse(values["variant"], "port")
        spec = from_dict(values["spec"])
    arrays = {n: np.ascontiguousarray(x) for n, x in state_dict(model, spec).items()}
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    write(target, save(arrays, {"format": "pt"}))
    return len(arrays)


def from_pytorch(folder: Path, weights: Path, target: Path) -> Run:
    """A run like another one, with the weights of a state dict, evaluated anew.

    Args:
        folder: the run whose settings and architecture it has.
        weights: a .safetensors file with the names of `state_dict`.
        target: the new run.

    Raises:
        UsageError: the file is damaged or of another model, or the run's data is not there.
    """
    if not (folder / "metrics.json").exists():
        raise UsageError(f"{folder} is not a finished run: give the directory of one.")
    try:
        arrays = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"{weights} cannot be read as safetensors ({error}): give the file that "
            "safetensors.torch.save_file wrote."
        ) from error

    def fill(task: Task) -> None:
        of_spec(task.spec).refuse(task.config.variant, "port")
        load_state_dict(task.graph.model, task.spec, arrays, str(weights))

    return _ported(config_of(folder), target, weights, fill)


def from_classifier(config, folder: Path, target: Path) -> Run:
    """A run of one modality with the weights of a fine-tuned Hugging Face classifier.

    Its classes are matched with the data's by name; a classifier that has only LABEL_0,
    LABEL_1, ... is taken to have them in the data's order.

    Args:
        config: the config as given; its variant, text or image, names the modality. The preset
            of that modality becomes `folder`.
        folder: with config.json, model.safetensors and a tokenizer or preprocessor.
        target: the new run.

    Raises:
        UsageError: not a classifier, other classes, or settings that it has not.
    """
    modality = config.variant
    if modality not in ("text", "image") or config.fusion.junctions or config.fusion.hidden:
        raise UsageError(
            "A classifier becomes a run of --variant=text or image with a linear head on the whole "
            "backbone: leave out fusion.junctions and fusion.hidden."
        )
    if config.regression:
        raise UsageError("A classifier gives no score: leave config.regression off.")
    multi_label.refuse(config, "classifier")
    config[modality].preset = str(folder)
    described = read_source(folder / "config.json")
    kind = kind_of(described)
    problem = described.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise UsageError(
            f"{folder} was trained for {problem}; a classifier with one class a row is wanted."
        )
    if kind not in _HEADS:
        raise UsageError(
            f"{folder} holds a {kind!r}; one of {', '.join(_HEADS)} is wanted, whose published "
            "classifiers have a linear head."
        )
    return _ported(
        resolve(config),
        target,
        folder / "model.safetensors",
        functools.partial(_fill_head, folder=folder, described=described),
    )


def _fill_head(task: Task, folder: Path, described: dict) -> None:
    """Set the head from a classifier; the backbone is the task's preset."""
    order = class_order(labels_of(described), task.dataset.classes, folder)
    layer = task.graph.fusion.get_layer("logits")
    kind = described["model_type"]
    weights, head = Weights(folder, kind), _HEADS[kind]
    size, classes = layer.kernel.shape
    layer.kernel.assign(weights.get(f"{head}.weight", (classes, size))[order].T)
    layer.bias.assign(weights.get(f"{head}.bias", (classes,))[order])


def labels_of(described: dict) -> list[str]:
    """The labels of a classifier's config.json, in its order."""
    # transformers leaves out two labels without names.
    unnamed = {i: f"LABEL_{i}" for i in range(described.get("num_labels", 2))}
    names = described.get("id2label") or unnamed
    return [str(names[key]) for key in sorted(names, key=int)]


def class_order(theirs: list[str], ours: list[str], source: Path) -> list[int]:
    """For each class of the data, which output of the classifier it is.

    Raises:
        UsageError: other classes, or another number of them.
    """
    lowered = [name.lower() for name in theirs]
    if sorted(lowered) == sorted(name.lower() for name in ours):
        return [lowered.index(name.lower()) for name in ours]
    unnamed = all(re.fullmatch(r"label_\d+", name) for name in lowered)
    if len(theirs) != len(ours) or not unnamed:
        some = ", ".join(theirs[:5]) + (", ..." if len(theirs) > 5 else "")
        raise UsageError(
            f"{source} tells {some} apart, the data {', '.join(ours)}: name the classes alike, in "
            "its id2label or in --config.data.manifest.classes."
        )
    _log.warning(
        "note: %s does not name its classes; taken in the order %s", source, ", ".join(ours)
    )
    return list(range(len(ours)))


def _ported(config, target: Path, source: Path, fill: Callable[[Task], None]) -> Run:
    run = Run(target, "ported")
    if run.complete:
        raise UsageError(f"{target} is there already: give another --out.")
    weights_digest = _sha256(source)
    with run.open(config):
        task = prepare(plan_of(config))
        fill(task)
        describe(run, task, {}, ported={"from": str(source), "sha256": weights_digest})
        outputs = functools.partial(predict, task.graph.model, task.arrays)
        write_results(run, task, 0, outputs)
        run.finish()
    return run


def _sha256(path: Path) -> str:
    try:
        return digest(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): check the path.") from error
