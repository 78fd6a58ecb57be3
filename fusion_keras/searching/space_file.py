"""What a file says that a search may vary, checked against the backbones at hand.

It is a mapping, in a file of Python that ends in `get_space()`:

    junctions       how many there may be, e.g. (1, 2, 3)
    joins           of each, e.g. ("linear", "attention")
    taps.MODALITY   depths, e.g. taps.text = (1, 2, 3), or "all"
    SETTING         values of a setting that shapes the model or its inputs, e.g. fusion.width
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion_keras.config import copied, get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.fusion.spec import JOINS, MAX_JUNCTIONS
from fusion_keras.searching.space import SETTINGS, VARIANT, Point, Space, plan_at
from fusion_keras.setting_names import meant, settings

# Values of a dimension, each of which is checked in a model.
_MOST = 1000


def of_file(path: Path, config) -> Space:
    """The space that a file describes.

    Raises:
        UsageError: it cannot be read, or names what there is not.
    """
    try:
        content = runpy.run_path(str(path))
        described = dict(content["get_space"]()) if "get_space" in content else None
    except OSError as error:
        raise UsageError(f"The --space file {path} cannot be read ({error.strerror}).") from None
    except (Exception, SystemExit) as error:  # a file of Python can fail in any way
        raise UsageError(
            f"The --space file {path} fails: {type(error).__name__}: {error}"
        ) from None
    if described is None:
        raise UsageError(f"The --space file {path} has no get_space(), which gives name -> values.")
    return checked(described, config, str(path))


def default(config) -> Space:
    """The space without a file: every depth of the backbones at hand, and what joins them."""
    facts = FUSION.facts(_joint(config))
    # A sixth, a third and two thirds of the text's, multiples of the heads.
    whole = facts["text"].width if "text" in facts else 768
    described = {
        "junctions": (1, 2, 3),
        **{f"taps.{m}": "all" for m in facts},
        "joins": ("concat", "linear", "add", "gate", "attention", "cross"),
        "fusion.width": tuple(max(whole // part, 1) * 4 for part in (24, 12, 6)),
        "fusion.blocks": (1, 2, 4),
        "fusion.tokens": ("pooled", "sequence"),
        "fusion.grid": (2, 4, 7),
    }
    return checked(described, config, "the default space")


def checked(described: Mapping[str, Any], config, where: str) -> Space:
    """A space of what a file says.

    Raises:
        UsageError: a dimension that there is not, without values, or with one that cannot be.
    """
    facts = FUSION.facts(_joint(config))
    tops = {m: _deepest(m, described, config, facts[m]) for m in facts}
    known = ("junctions", "joins", *(f"taps.{m}" for m in facts), *SETTINGS)
    for name in described:
        if name not in known:
            raise UsageError(
                f"{where} varies {name}, which is no dimension.{_instead(str(name), known)}"
            )
    described = {"junctions": (1,), "joins": ("attention",), **described}
    described |= {f"taps.{m}": described.get(f"taps.{m}", "all") for m in facts}
    dimensions = {}
    for name in (n for n in known if n in described):
        values, modality = described[name], name.removeprefix("taps.")
        if name.startswith("taps.") and values == "all":
            values = range(tops[modality] + 1)
        plain = isinstance(values, Sequence) and not isinstance(values, str)
        if plain and len(values) > _MOST:
            raise UsageError(f"{where}: {name} has {len(values)} values; {_MOST} are the most.")
        if not plain or not all(isinstance(value, (str, int, float)) for value in values):
            raise UsageError(f"{where}: {name} is {values!r}; a list of values is wanted.")
        values = tuple(dict.fromkeys(values))
        if not values:
            raise UsageError(f"{where}: {name} has no values; at least one is wanted.")
        _check(where, name, values, tops)
        dimensions[name] = values
    space = Space(dimensions)
    _check_settings(where, space, config)
    return space


def _deepest(modality: str, described: Mapping[str, Any], config, facts) -> int:
    """The greatest depth of a modality's backbones, of all presets that are tried."""
    presets = described.get(f"{modality}.preset", ())
    if isinstance(presets, str) or not isinstance(presets, Sequence):
        return facts.num_depths  # which is refused in a moment
    tops = [facts.num_depths]
    for preset in presets:
        joint = _joint(config)
        joint[modality].preset = str(preset)
        tops.append(FUSION.facts(joint)[modality].num_depths)
    return max(tops)


def _check_settings(where: str, space: Space, config) -> None:
    """Check each value of a setting in a model that reads it: one that fits nowhere would never be.

    Raises:
        UsageError: of a value, with any of its partner's: a width is a multiple of the heads.
    """
    depths = {m: [d for d in space.dimensions[f"taps.{m}"] if d != "-"] for m in space.modalities}
    taps = {m: min(of_one, default="-") for m, of_one in depths.items()}
    for name in space.settings:
        partner = {"fusion.width": "fusion.heads", "fusion.heads": "fusion.width"}.get(name)
        beside = [{partner: v} for v in space.dimensions.get(partner, ())] or [{}]
        for value in space.dimensions[name]:
            refused = [
                said
                for more in beside
                if (
                    said := _refusal(
                        space.point([(taps, "attention")], {name: value, **more}), config
                    )
                )
            ]
            if len(refused) == len(beside):
                raise UsageError(f"{where}: {name} has {value!r}: {refused[0]}")


def _refusal(point: Point, config) -> str:
    """Why a model cannot be built; "" where it can."""
    try:
        plan_at(point, config)
    except UsageError as error:
        return str(error)
    return ""


def _check(where: str, name: str, values: tuple, tops: Mapping[str, int]) -> None:
    modality = name.removeprefix("taps.")
    if name == "junctions":
        known: tuple = tuple(range(1, MAX_JUNCTIONS + 1))
    elif name == "joins":
        known = JOINS
    elif modality in tops:
        known = (*range(tops[modality] + 1), "-")
    else:
        section, _, field = name.partition(".")
        kind = type(get_config()[section][field])
        wrong = [v for v in values if type(v) is not kind]
        if wrong:
            raise UsageError(f"{where}: {name} has {wrong[0]!r}; {kind.__name__}s are wanted.")
        return
    # 2.0 and True equal numbers, and are no depths.
    wrong = [v for v in values if v not in known or isinstance(v, (float, bool))]
    if wrong:
        said = ", ".join(map(str, known)) if len(known) < 8 else f"{known[0]} to {known[-2]}, or -"
        raise UsageError(f"{where}: {name} has {wrong[0]!r}; some of {said} are wanted.")


def _instead(name: str, known: Sequence[str]) -> str:
    if name in dict(settings(get_config())):
        return " It is a setting of the training, the same for every point: give it as a flag."
    return meant(name, known, "") or f" There are {', '.join(known)}."


def _joint(config):
    joint = copied(config)
    joint.variant = VARIANT
    joint.fusion.junctions = ""
    return joint
