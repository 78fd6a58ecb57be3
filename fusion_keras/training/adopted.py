"""What a run takes over of its parents, runs of one modality each.

Late fusion freezes what its parents have learned, and only its head trains: the frozen
parts run once, and 100 epochs of the head on their cached outputs cost seconds (Willis and
Bakos 2025, section 3.3.1). Other variants go on training what they have taken over: each
modality has then been learned at its own pace.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from fusion_keras.data.pipeline import TARGETS
from fusion_keras.errors import UsageError
from fusion_keras.modalities import MODALITY
from fusion_keras.training.evaluate import predict
from fusion_keras.training.task import Task

# Augmented images of each training row that a head over frozen parts sees.
DRAWS = 4


def adopt(task: Task, parent: keras.Model, modality: str) -> None:
    """Copy a parent's trained part into the model; late fusion freezes it.

    Raises:
        UsageError: the parent's backbone is cut before the deepest tap of this model.
    """
    name = MODALITY[modality].part
    part = task.graph.model.get_layer(name)
    trained = {layer.name: layer for layer in parent.get_layer(name).layers}
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
    trusts the images more than they deserve. So of every modality that is augmented.

    Returns:
        Arrays (the inputs of the head, `label`, perhaps `score`), each [N + DRAWS * n, ...],
        the task's N rows first; and split -> int, its rows in them.
    """
    count = len(task.arrays["label"])
    outputs = predict(task.graph.encoders, task.arrays, np.arange(count))
    targets = {name: task.arrays[name] for name in TARGETS if name in task.arrays}
    arrays, rows = {**outputs, **targets}, dict(task.rows)
    changed = [m for m in task.spec.modalities if MODALITY[m].augmented]
    if task.augment is None or not changed:
        return arrays, rows
    train = rows["train"]
    drawn = augmented_taps(task, changed, train)
    seen = [{n: x[train] for n, x in arrays.items()} | taps for taps in drawn]
    rows["train"] = count + np.arange(DRAWS * len(train))
    return {n: np.concatenate([x, *(s[n] for s in seen)]) for n, x in arrays.items()}, rows


def augmented_taps(
    task: Task, modalities: list[str], rows: np.ndarray
) -> Iterator[dict[str, np.ndarray]]:
    """DRAWS times, the taps of these modalities for these rows under augmentation."""
    encoders = {m: task.graph.encoder(m) for m in modalities}
    rng = np.random.default_rng(task.config.seed)
    for _ in range(DRAWS):
        taps = {}
        for modality, encoder in encoders.items():
            name = MODALITY[modality].input
            values = MODALITY[modality].augment(task.arrays[name][rows], task.augment, rng)
            taps |= predict(encoder, {name: values}, np.arange(len(rows)))
        yield taps
