"""Points of a search, and the space they are of: settings that stand for a fusion spec and its
inputs. A precision is no dimension: one training gives each of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusion_keras.config import copied
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.files import digest
from fusion_keras.fusion.spec import (
    FusionSpec,
    Junction,
    format_junction,
    to_dict,
)
from fusion_keras.training.plan import Plan, plan_of
from fusion_keras.training.recipes import resolve

# What shapes a model or its inputs. All else is the same for every point of a search.
SETTINGS = (
    *("fusion.width", "fusion.blocks", "fusion.heads", "fusion.tokens", "fusion.grid"),
    *("fusion.pool", "fusion.hidden", "data.max_length", "text.preset", "image.preset"),
    *("image.size", "audio.preset", "audio.seconds", "tabular.preset"),
)
# Who reads them: joins that attend, and joins that have a width.
_OF_ATTENTION = ("fusion.blocks", "fusion.heads", "fusion.tokens", "fusion.grid")
_ATTENDS = ("attention", "cross")
# The variant whose recipe a point has; its junctions are given by hand.
VARIANT = "inter"


@dataclass(frozen=True)
class Point:
    """One place in a space.

    Attributes:
        name: short, as people read it.
        settings: dotted name -> value, on top of the search's config. Equal for equal models.
    """

    name: str
    settings: Mapping[str, Any]

    def config(self, base):
        """The config that is trained: `base` with these settings."""
        config = copied(base)
        for name, value in self.settings.items():
            section, _, field = name.rpartition(".")
            (config[section] if section else config)[field] = value
        return config


@dataclass(frozen=True)
class Space:
    """What may vary; see `space_file`.

    Attributes:
        dimensions: name -> values, in the order in which they are drawn.
    """

    dimensions: Mapping[str, tuple]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that a junction joins."""
        return tuple(m for m in MODALITIES if f"taps.{m}" in self.dimensions)

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings among the dimensions."""
        return tuple(name for name in SETTINGS if name in self.dimensions)

    def digest(self) -> str:
        """Equal for equal spaces."""
        return _digest({name: list(values) for name, values in self.dimensions.items()})

    def drawn(self, trial, flat: bool = False) -> Point:
        """A point whose coordinates an Optuna trial suggests.

        Args:
            trial: of `optuna`.
            flat: draw each dimension, also those that this point does not read: for samplers that
                only know the dimensions that all trials have.
        """
        dims = self.dimensions

        def draw(name: str, values: tuple):
            numbers = all(type(value) is int for value in values)
            even = numbers and list(values) == list(range(values[0], values[-1] + 1))
            if even and len(values) > 1:
                return trial.suggest_int(name, values[0], values[-1])
            return trial.suggest_categorical(name, values)

        count = draw("junctions", dims["junctions"])
        chosen = []
        for i in range(max(dims["junctions"]) if flat else count):
            taps = {m: draw(f"{m}_{i}", dims[f"taps.{m}"]) for m in self.modalities}
            chosen.append((taps, draw(f"join_{i}", dims["joins"])))
        chosen = chosen[:count]
        joins, values = [join for _, join in chosen], {}
        for name in self.settings:
            # What says which tokens there are stands before what says how many.
            if flat or name in self._read_by(joins, values):
                values[name] = draw(name, dims[name])
        return self.point(chosen, {name: values[name] for name in self._read_by(joins, values)})

    def coordinates(self, spec: FusionSpec, config) -> dict[str, Any] | None:
        """What a trial would have to suggest for a spec; None where it lies outside.

        What is no dimension is not looked at: another model may be there (see `key_of`).

        Args:
            spec: of a named variant.
            config: its resolved config.
        """
        values, settings = {"junctions": len(spec.junctions)}, {}
        for i, junction in enumerate(spec.junctions):
            values |= {f"{m}_{i}": junction.depths.get(m, "-") for m in self.modalities}
            values[f"join_{i}"] = junction.join
            if junction.join != "concat":
                settings.setdefault("fusion.width", junction.width)
            if junction.join in _ATTENDS:
                for name in _OF_ATTENTION:
                    settings.setdefault(name, getattr(junction, name.partition(".")[2]))
        for name in self._read_by([junction.join for junction in spec.junctions], settings):
            section, _, field = name.partition(".")
            values[name] = settings.get(name, config[section][field])
        inside = all(value in self.dimensions[_dimension(name)] for name, value in values.items())
        plain = inside and not spec.frozen and set(spec.modalities) <= set(self.modalities)
        return values if plain else None

    def point(self, chosen: Sequence[tuple[Mapping, str]], values: Mapping[str, Any]) -> Point:
        """The point of junctions and settings, equal for equal models: the order of junctions and
        a junction that is there twice say nothing.

        Args:
            chosen: of each junction its taps, modality -> depth or "-", and its join.
            values: setting -> value, of those that it reads.
        """
        made = {
            format_junction(Junction({m: d for m, d in taps.items() if d != "-"}, join))
            for taps, join in chosen
        }
        junctions = ",".join(sorted(made, key=_in_order))
        said = [str(value) for value in values.values()]
        return Point(
            " ".join([junctions, *said]),
            {"variant": VARIANT, "fusion.junctions": junctions, **values},
        )

    def _read_by(self, joins: Sequence[str], values: Mapping[str, Any]) -> list[str]:
        """The settings that a model with these joins and these values of others reads."""
        unread = set()
        if all(join == "concat" for join in joins):
            unread.add("fusion.width")
        if not any(join in _ATTENDS for join in joins):
            unread.update(_OF_ATTENTION)
        if values.get("fusion.tokens") == "pooled":
            unread.add("fusion.grid")
        return [name for name in self.settings if name not in unread]


def _dimension(coordinate: str) -> str:
    """`text_0` -> `taps.text`, `join_0` -> `joins`."""
    head, _, number = coordinate.rpartition("_")
    if not number.isdigit():
        return coordinate
    return "joins" if head == "join" else f"taps.{head}"


def _in_order(junction: str) -> tuple:
    """Shallow ones first."""
    depths = junction.partition(":")[0].split("+")
    return ([(not d.isdigit(), int(d) if d.isdigit() else 0) for d in depths], junction)


def variant_point(variant: str) -> Point:
    """A named variant, which a space may hold or not."""
    return Point(variant, {"variant": variant, "fusion.junctions": ""})


def plan_at(point: Point, base) -> Plan:
    """The plan of a point; nothing is loaded, and no table is read.

    Raises:
        UsageError: there is no such model.
    """
    return plan_of(resolve(point.config(base)))


def key_of(plan: Plan) -> str:
    """Equal for equal models on equal inputs, whatever they are called: 16 hexadecimal digits."""
    config, taken = plan.config, plan.spec.modalities
    inputs: dict[str, Any] = {m: _preset(config[m].preset) for m in taken}
    inputs |= {"image.size": config.image.size} if "image" in taken else {}
    inputs |= {"max_length": config.data.max_length} if "text" in taken else {}
    inputs |= {"seconds": config.audio.seconds} if "audio" in taken else {}
    return _digest({"spec": to_dict(plan.spec), "inputs": inputs})[:16]


def _preset(preset: str) -> str:
    """What a preset is known by: a directory, which may be called alike elsewhere, by content."""
    config = Path(preset).expanduser() / "config.json"
    return f"sha256 {digest(config)}" if config.is_file() else preset


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
