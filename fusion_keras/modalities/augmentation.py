"""What training changes in a batch: images, what is withheld, what is mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fusion_keras.data.augment import AugmentSpec, missing, mix
from fusion_keras.data.incomplete import filled
from fusion_keras.data.pipeline import TARGETS
from fusion_keras.modalities import MODALITY

Batch = dict[str, np.ndarray]


def augmentation(
    spec: AugmentSpec, classes: int, presets: Mapping[str, Any]
) -> Callable[[Batch, np.random.Generator], None]:
    """What `data.pipeline.train_batches` does to each batch, in place.

    Args:
        spec: how far each change may go.
        classes: C, of mixed labels float [B, C]; not read of labels that are [B, C] already.
        presets: modality -> its preset, as far as there are any.
    """

    def change(batch: Batch, rng: np.random.Generator) -> None:
        taken = [m for m in MODALITY.values() if m.input in batch]
        for modality in taken:
            values = batch[modality.input]
            if modality.present in batch:
                # BatchNorm shall see no black images.
                values = filled(values, batch[modality.present][:, 0] > 0)
            batch[modality.input] = modality.augment(values, spec, rng)
        # Who shows nothing but an image.
        alone = _withheld(batch, spec, rng, presets)
        # A mixed label is of a mixed image; nothing else is mixed.
        if spec.mixup and {m.name for m in taken} in ({"image"}, {"text", "image"}):
            labels = batch["label"]
            one = np.eye(classes, dtype=np.float32)
            batch["label"] = one[labels] if labels.ndim == 1 else labels.astype(np.float32)
            images = batch["image"]
            targets = {name: batch[name][alone] for name in TARGETS if name in batch}
            images[alone], targets = mix(images[alone], targets, spec, rng)
            for name, mixed in targets.items():
                batch[name][alone] = mixed

    return change


def _withheld(
    batch: Batch, spec: AugmentSpec, rng: np.random.Generator, presets: Mapping[str, Any]
) -> np.ndarray:
    """Take a modality from some examples; returns bool [B], who has no sentence.

    An example that came without one loses no further. One that teachers alone answer is put
    together of several rows: what is left of it would say nothing of their answer.
    """
    count = len(batch["label"])
    optional = [m for m in MODALITY.values() if m.present in batch]
    taken = optional or [m for m in MODALITY.values() if m.input in batch]
    without = missing(count, [m.name for m in taken], spec, rng)
    if batch["label"].ndim == 3:  # shares of the loss by the label and by the teachers
        labelled = batch["label"][:, 0].any(axis=-1)
        without = {name: rows & labelled for name, rows in without.items()}
    if optional:
        complete = np.all([batch[m.present][:, 0] > 0 for m in optional], axis=0)
        for modality in optional:
            kept = 1 - (without[modality.name] & complete)[:, None].astype(np.float32)
            batch[modality.present] = kept * batch[modality.present]
            without[modality.name] = batch[modality.present][:, 0] == 0
    else:
        for modality in taken:
            rows = without[modality.name]
            if rows.any():
                values, preset = batch[modality.input], presets.get(modality.name)
                batch[modality.input] = modality.emptied(values, rows, preset)
    return without.get("text", np.ones(count, bool))
