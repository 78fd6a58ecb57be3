"""The configs that the points of a search change, with the parents and the teacher they share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from fusion_keras.config import copied, get_config
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.fusion.variants import FROZEN
from fusion_keras.searching.crew import Place
from fusion_keras.searching.request import Request
from fusion_keras.searching.space import VARIANT, key_of, variant_point
from fusion_keras.searching.trainee import train_whole
from fusion_keras.training import parents
from fusion_keras.training.plan import parent_config, plan_of
from fusion_keras.training.recipes import resolve

_log = logging.getLogger(__name__)


def outputs_of(base) -> str:
    """What the data ask of every model beside its architecture: its classes, and a score."""
    resolved = resolve(reference(base))
    classes = len(FUSION.check_data(resolved))
    return f"{classes} classes" + (" and a score" if resolved.regression else "")


def base_of(variant: str, request: Request, joint):
    """The config that a named variant is trained with: `joint` for one that trains backbones of
    several modalities, else `request.base`, whose models learn from the data alone."""
    return untaught(request.base) if _learns_alone(variant) else joint


def _learns_alone(variant: str) -> bool:
    return variant in MODALITIES or variant in FROZEN


def reference(base):
    """The config of the model that all others are held against while they are measured.

    It is `inter` of the same backbones, sizes and lengths: of a reference that takes a hundredth of
    their time most of a measurement is that of the clock and of the threads.
    """
    config = variant_point(VARIANT).config(untaught(base))
    config.parents = ()
    return config


def reference_key(base) -> str:
    """What it is known by."""
    return key_of(plan_of(resolve(reference(base))))


def untaught(base):
    """A config without teachers."""
    config = copied(base)
    config.teacher = get_config().teacher
    return config


def joint_base(request: Request, place: Place, seed: int, say: Callable[[str], None]):
    """The config that points of the space change: `request.base` with what all of them share.

    That are the teacher, and the runs of one modality that the recipe starts from: one of each,
    of the whole backbone, instead of one for each depth. They are trained first, as ordinary runs.

    Args:
        place: where they are trained.
        seed: of these and of what learns from them.
        say: told what is being done.

    Raises:
        UsageError: one could not be trained.
    """
    config = copied(request.base)
    config.seed = seed
    given = variant_point(VARIANT).config(untaught(config))
    resolved = resolve(given)
    wanted = set(resolved.parent.warm_start) & set(FUSION.backbones(resolved))
    if shared := wanted - set(parents.named(resolved)):
        read = [n for n in request.space.settings if n.partition(".")[0] in ("data", *shared)]
        if not read:  # else they would be other runs
            plan = plan_of(resolved)
            config.parents = (
                *config.parents,
                *(
                    str(_trained(request, place, f"{m}-parent", parent_config(given, plan, m), say))
                    for m in MODALITIES
                    if m in shared
                ),
            )
    if request.teacher:
        teacher = variant_point(request.teacher).config(untaught(request.base))
        teacher.seed = seed
        # One that is a teacher alone may stand beside a taught one of the same name.
        name = request.teacher + ("" if _learns_alone(request.teacher) else "-alone")
        config.teacher.runs = (str(_trained(request, place, name, teacher, say)),)
    return config


def _trained(request: Request, place: Place, name: str, config, say) -> Path:
    """The finished run of what others learn from."""
    folder = request.folder / "runs" / f"{name}-s{config.seed}"
    if not folder.is_dir():
        _log.info("First what the others learn from: %s", name)
    say(f"training {name} ...")
    train_whole(place, config, folder)
    return folder
