"""A training as a plan: made and checked before any data is decoded or any weight is loaded.

    config as given -> plan -> task (data, model) -> fit -> run

What is wrong with a config is told here, in seconds: for a sweep, of all its runs before the
first one starts.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import FrozenConfigDict

from fusion_keras.config import copied, get_config
from fusion_keras.data.modalities import DROPS
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architecture import Architecture
from fusion_keras.fusion.architectures import keeps_incomplete, of_variant
from fusion_keras.fusion.spec import LAST, Depth, Junction, format_junction
from fusion_keras.fusion.variants import FROZEN
from fusion_keras.training import parents, teachers
from fusion_keras.training.recipes import resolve

PARTS = ("all", "first", "second")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be trained.

    Attributes:
        config: the resolved config, as the run's `config.json` has it.
        spec: of its architecture.
        part: which part of the training rows this model learns on, and the share of the first.
        parents: modality -> what it starts from: the directory of a finished run, or the plan of
            one to train first.
        teachers: the finished runs that it learns from, each with the sha256 of its model.
    """

    config: FrozenConfigDict
    spec: Any
    part: tuple[str, float]
    parents: Mapping[str, Path | Plan]
    teachers: Mapping[Path, str] = dataclasses.field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        return of_variant(self.config.variant)


def make_plan(config, framework: str = "keras") -> Plan:
    """Plan a training.

    Args:
        config: as given; its recipe fills what is open.
        framework: what trains, "keras" or "pytorch".

    Raises:
        UsageError: whatever is wrong with the settings, the presets' files, the parents that are
            named, or the file of rows, as far as it is known without decoding; or Keras is not on
            JAX.
    """
    # Keras chooses once, when it is imported; it may have been before this package.
    loaded = sys.modules.get("keras")
    backend = loaded.backend.backend() if loaded else os.environ["KERAS_BACKEND"]
    if backend != "jax":
        raise UsageError(
            f"Keras runs on {backend!r}, and jax is wanted: unset KERAS_BACKEND, and import "
            "fusion_keras before keras."
        )
    resolved = resolve(config)
    plan = plan_of(resolved)
    plan.architecture.refuse(resolved.variant, framework)
    classes = plan.architecture.check_data(resolved)
    if resolved.variant == "late_score" and resolved.fusion.junctions:
        raise UsageError(
            "late_score averages what two whole models say and takes no "
            "--config.fusion.junctions: leave them out, or choose --variant=late."
        )
    named = parents.named(resolved)
    missing = {m: at for m, at in _missing(plan).items() if m not in named}
    if missing and _divides(resolved) and resolved.data.part != "all":
        raise UsageError(
            f"config.data.part is {resolved.data.part}, and {resolved.variant} divides the rows "
            f"between its parents and its head itself (config.parent.share is "
            f"{resolved.parent.share:g}): leave part out, or set --config.parent.share=1."
        )
    check_teaching(resolved, framework)
    return dataclasses.replace(
        plan,
        teachers=teachers.named(resolved, classes) if resolved.teacher.runs else {},
        parents={
            **named,
            **{
                m: make_plan(parent_config(config, plan, m, at), framework)
                for m, at in missing.items()
            },
        },
    )


def check_teaching(resolved, framework: str) -> None:
    """Raises UsageError where a teacher is named for what none can teach."""
    if not resolved.teacher.runs:
        return
    if resolved.regression:
        raise UsageError(
            "--teacher is given and config.regression is set: a teacher's answers are of classes. "
            "Leave one of them out."
        )
    if framework != "keras":
        raise UsageError(
            f"--teacher is given with --framework={framework}, whose training knows no teacher: "
            "leave one of them out."
        )


def plan_of(resolved) -> Plan:
    """The plan of a resolved config, its parents left out: they have done their part, or are not
    wanted.

    Raises:
        UsageError: settings or presets that cannot be.
    """
    architecture = of_variant(resolved.variant)
    spec = architecture.spec(resolved)
    architecture.readers(resolved)
    part, share = resolved.data.part, resolved.data.part_share
    if part not in PARTS:
        raise UsageError(f"config.data.part is {part!r}; all, first or second is wanted.")
    if _divides(resolved) and not resolved.parents:
        # What its parents, trained on the way, do not see.
        part, share = "second", resolved.parent.share
    return Plan(resolved, spec, (part, share), {})


def _divides(resolved) -> bool:
    """Whether parents learn on one part of the training rows and their head on the other."""
    return resolved.variant in FROZEN and resolved.parent.share < 1


def _missing(plan: Plan) -> dict[str, str]:
    """The parents to train first: modality -> the junction of its parent; "" for a whole backbone.

    A parent of a run that goes on training is cut behind the deepest tap of that run: layers
    behind it would take their share of the learning with them.
    """
    config, frozen = plan.config, plan.config.variant in FROZEN
    # Junctions given by hand may leave a modality out.
    taken = plan.architecture.backbones(config)
    learned_ahead = [m for m in taken if frozen or m in config.parent.warm_start]
    if frozen:
        return dict.fromkeys(learned_ahead, "")
    deepest = {m: plan.spec.depths(m)[-1] for m in learned_ahead}
    # Before the first layer there is nothing to learn ahead.
    return {m: _alone(m, depth) for m, depth in deepest.items() if depth != 0}


def _alone(modality: str, depth: Depth) -> str:
    if depth == LAST:
        return ""
    return format_junction(Junction({modality: depth}, "concat"))


def parent_config(config, plan: Plan, modality: str, junction: str = ""):
    """The config of a unimodal run that another one starts from.

    Args:
        config: the other one's config before its recipe filled it, so that the parent gets
            its own variant's recipe. What `config.train` sets by hand is not for the parent.
        plan: of the other one.
        modality: of the parent.
        junction: where its backbone is cut; "" where it is whole.
    """
    parent, plain = copied(config), get_config()
    parent.variant, parent.parents = modality, ()
    parent.fusion.junctions, parent.fusion.weights = junction, ()
    # It has nothing that could be withheld.
    parent.fusion.stand_ins = False
    read = plan.architecture.sources[config.data.source]
    if keeps_incomplete(plan.config) and "incomplete" in read:
        # It leaves out rows that lack its modality, and is given the same ones otherwise.
        parent.data.incomplete = "keep"
    for name in DROPS.values():
        parent.augment[name] = plain.augment[name]
    for name in parent.train:
        if name not in ("batch_size", "accumulate", "score_loss"):
            parent.train[name] = None
    parent.train.epochs = config.parent.epochs
    parent.teacher = plain.teacher
    # It has no parents of its own.
    parent.parent.warm_start, parent.parent.epochs = (), None
    if _divides(plan.config):
        parent.data.part, parent.data.part_share = "first", plan.config.parent.share
    return parent
