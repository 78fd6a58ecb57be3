"""From a resolved config to everything a training needs: presets, data set, spec, model."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import keras
import numpy as np

from fusion_keras.data.augment import AugmentSpec
from fusion_keras.data.cache import cache_dir
from fusion_keras.data.modalities import DROPS
from fusion_keras.data.pipeline import Change
from fusion_keras.data.records import SPLITS, Dataset
from fusion_keras.data.splits import halve
from fusion_keras.errors import UsageError
from fusion_keras.fusion.graph import Graph
from fusion_keras.modalities import MODALITY
from fusion_keras.modalities.augmentation import augmentation
from fusion_keras.training.plan import Plan

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, on what.

    Attributes:
        config: the resolved config.
        dataset: decoded, tokenised and split.
        rows: split -> int [n]; "train" is the part that this model learns on.
        arrays: input name -> [N, ...], with `label` and perhaps `score`; of drawn examples
            `data.picked.Column`s.
        spec: of its architecture.
        graph: freshly built, with pretrained weights where the presets have them.
        presets: modality -> its preset, of each that the spec takes; a C-LSTM has none.
    """

    config: object
    dataset: Dataset
    rows: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    spec: Any
    graph: Graph
    presets: Mapping[str, Any]

    @property
    def augment(self) -> AugmentSpec | None:
        values = self.config.augment.to_dict()
        return AugmentSpec(**values) if values.pop("enabled") else None

    @property
    def augmentation(self) -> Change | None:
        """What training changes in each batch."""
        spec = self.augment
        return None if spec is None else augmentation(spec, len(self.dataset.classes), self.presets)


def set_up_keras(config) -> None:
    """Seed everything random and set the precision, before any layer is made.

    Compiled programs are kept in the cache folder: a repeated or resumed run of the same
    shapes starts at once.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_dir(config.data.cache_dir) / "jax"))
    # Without the cache, on a full disk, training is only slower.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    # Also the many small ones: a backbone's initialisers are a hundred programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if config.dtype == "bfloat16" else config.dtype)


def prepare(plan: Plan, dataset: Dataset | None = None) -> Task:
    """Load data and presets, build the model.

    Args:
        plan: of the training.
        dataset: its data, where they have been read already.

    Raises:
        UsageError: whatever is wrong with the data or the presets.
    """
    config, spec, architecture = plan.config, plan.spec, plan.architecture
    set_up_keras(config)
    dataset = architecture.data(config) if dataset is None else dataset
    _log.debug("%s: %d rows", dataset.name, len(dataset))
    _check_stand_ins(config, dataset)
    regression = config.regression
    presets = architecture.presets(config, dataset.encodings)
    # The length is open: an exported model may take shorter inputs than training has.
    classes = len(dataset.classes)
    graph = architecture.build(spec, presets, num_classes=classes, regression=regression)
    for modality in map(MODALITY.get, presets):
        if config.train[f"{modality.name}_rate"] == 0:
            graph.model.get_layer(modality.part).trainable = False
    _log.debug("built %s: %d parameters", config.variant, graph.model.count_params())
    arrays = {"label": dataset.labels, **architecture.arrays(dataset, spec)}
    if regression:
        arrays["score"] = dataset.scores
    return Task(config, dataset, part_of_rows(plan, dataset), arrays, spec, graph, presets)


def _check_stand_ins(config, dataset: Dataset) -> None:
    """Raises UsageError where stand-ins would have no example to learn from."""
    drops = [config.augment[name] for name in DROPS.values()]
    if config.fusion.stand_ins and not any(drops) and not dataset.present:
        raise UsageError(
            f"config.fusion.stand_ins is set, but no row of {dataset.name} lacks a modality and "
            f"none is withheld in training: set --config.augment.{DROPS['image']}=0.3 or the like, "
            "or leave it off."
        )


def part_of_rows(plan: Plan, dataset: Dataset) -> dict[str, np.ndarray]:
    """Split -> int [n], its rows; of the training rows the part that the plan's model learns on."""
    rows, (part, share) = {split: dataset.rows(split) for split in SPLITS}, plan.part
    if part != "all":
        train = rows["train"]
        groups = [dataset.groups[r] for r in train] if dataset.groups else None
        halves = halve(dataset.labels[train], groups, plan.config.data.split_seed, share)
        rows["train"] = train[halves[0 if part == "first" else 1]]
    # Last, so that parents of either modality and their head divide the same rows.
    of_use = np.any([dataset.has(m) for m in plan.spec.modalities], axis=0)
    return {split: of_one[of_use[of_one]] for split, of_one in rows.items()}
