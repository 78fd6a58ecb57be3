"""What training changes in a batch: images, what is withheld, what is mixed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fusion_keras.data.augment import AugmentSpec, missing, mix
from fusion_keras.data.pipeline import TARGETS
from fusion_keras.modalities import MODALITY

Batch = dict[str, np.ndarray]


def augmentation(spec: AugmentSpec, classes: int) -> Callable[[Batch, np.random.Generator], None]:
    """What `data.pipeline.train_batches` does to each batch, in place.

    Args:
        spec: how far each change may go.
        classes: C, of mixed labels float [B, C]; not read of labels that are [B, C] already.
    """

    def change(batch: Batch, rng: np.random.Generator) -> None:
        taken = [m for m in MODALITY.values() if m.input in batch]
        for modality in taken:
            batch[modality.input] = modality.augment(batch[modality.input], spec, rng)
        # Who shows nothing but an image.
        alone = _withheld(batch, spec, rng)
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


def _withheld(batch: Batch, spec: AugmentSpec, rng: np.random.Generator) -> np.ndarray:
    """Take a modality from some examples; returns bool [B], who has no sentence."""
    count = len(batch["label"])
    optional = [m for m in MODALITY.values() if m.present in batch]
    taken = optional or [m for m in MODALITY.values() if m.input in batch]
    without = missing(count, [m.name for m in taken], spec, rng)
    for modality in taken:
        rows = without[modality.name]
        if optional:
            batch[modality.present] = 1 - rows[:, None].astype(np.float32)
        elif rows.any():
            batch[modality.input] = modality.emptied(batch[modality.input], rows)
    return without.get("text", np.ones(count, bool))
