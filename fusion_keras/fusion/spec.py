"""The fusion spec: a fusion architecture as a value.

A backbone is a list of taps, one tensor per depth. An architecture is a list of
junctions; each takes one tap per modality and joins them. What the junctions give is
concatenated and goes to one classification head. A spec encodes to a flat vector and
back exactly, so that a search can move in that space.

This file knows nothing of Keras: `graph.py` turns a spec into a model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.errors import UsageError

JOINS = ("concat", "linear", "add", "gate", "attention", "cross")
TOKENS = ("pooled", "sequence")
POOLS = ("mean", "cls")
DECISIONS = ("feature", "score")
MAX_JUNCTIONS = 4
LAST = "last"
# What the forms for files and flags name even where it is left out.
_ALWAYS_NAMED = MODALITIES[:2]

Depth = int | Literal["last"]


@dataclass(frozen=True)
class Junction:
    """One place where the modalities meet.

    Attributes:
        taps: (modality, depth) of each modality that takes part, in the order of MODALITIES;
            given as a mapping, in which None leaves one out. A depth is 0 for the embedding (of
            text) or the stem, k for the output of layer or block k, "last" for the published
            model's own pooled vector.
        join: "concat" (no parameters), "linear" (concatenate, then one dense layer),
            "add" (project, add), "gate" (gated multimodal unit), "attention"
            (self-attention blocks over the tokens of all modalities together) or
            "cross" (each modality's tokens attend to those of the others).
        width: units of the joint network; "concat" has none and ignores no field: it
            must then be 0.
        blocks: attention blocks ("attention" and "cross"; 0 otherwise).
        heads: attention heads (likewise).
        tokens: what attention sees: "pooled", one token per modality, or "sequence",
            every text token, a grid of image tokens and the sound along time. "" for joins of
            pooled vectors.
        grid: longest side of the grid of image tokens for "sequence", and the square root of
            the most tokens of sound; 0 otherwise.

    Raises:
        UsageError: a modality that there is not.
    """

    taps: tuple[tuple[str, Depth], ...]
    join: str
    width: int = 0
    blocks: int = 0
    heads: int = 0
    tokens: str = ""
    grid: int = 0

    def __post_init__(self):
        depths = dict(self.taps)
        unknown = [name for name in depths if name not in MODALITIES]
        if unknown:
            raise UsageError(
                f"A junction takes {unknown[0]!r}; some of {', '.join(MODALITIES)} are wanted."
            )
        ordered = ((name, depths.get(name)) for name in MODALITIES)
        object.__setattr__(self, "taps", tuple((n, d) for n, d in ordered if d is not None))

    @property
    def depths(self) -> dict[str, Depth]:
        """Modality -> depth, for the modalities that take part."""
        return dict(self.taps)


@dataclass(frozen=True)
class FusionSpec:
    """A whole fusion architecture.

    Attributes:
        junctions: 1 to 4 of them, in the order in which they are concatenated.
        pool: how a sequence tap becomes one vector: "mean" over the real tokens, or
            "cls", its first token. Feature maps are always averaged.
        hidden: units of the head's hidden layer; 0 for a linear head.
        dropout: rate in front of the head's last layer, in training.
        decision: "feature" (one head over all junctions) or "score" (one head for each
            junction, whose probabilities are averaged).
        weights: for "score": the junctions' weights, which sum to 1; () learns them.
        frozen: the backbones are fine-tuned first and then fixed; only what stands
            behind the taps trains.
        stand_ins: a learned vector for each tap stands in for a modality that is missing;
            the model then also takes which ones are there.
    """

    junctions: tuple[Junction, ...]
    pool: str = "mean"
    hidden: int = 0
    dropout: float = 0.1
    decision: str = "feature"
    weights: tuple[float, ...] = ()
    frozen: bool = False
    stand_ins: bool = False

    def depths(self, modality: str) -> list[Depth]:
        """The depths at which `modality` is tapped, each once, shallow first."""
        depths = {j.depths[modality] for j in self.junctions if modality in j.depths}
        return sorted(depths, key=lambda d: (d == LAST, 0 if d == LAST else d))

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that at least one junction takes."""
        return tuple(m for m in MODALITIES if self.depths(m))


def validate(spec: FusionSpec, num_depths: dict[str, int]) -> None:
    """Check a spec against the depths its backbones have.

    Args:
        spec: the architecture.
        num_depths: modality -> the greatest depth of its backbone, e.g.
            {"text": 12, "image": 16}.

    Raises:
        UsageError: names the junction, the field, what was got and what is possible.
    """
    if not 1 <= len(spec.junctions) <= MAX_JUNCTIONS:
        raise UsageError(
            f"The fusion spec has {len(spec.junctions)} junctions; 1 to {MAX_JUNCTIONS} are wanted."
        )
    _one_of("pool", spec.pool, POOLS)
    _one_of("decision", spec.decision, DECISIONS)
    if not 0 <= spec.dropout < 1:
        raise UsageError(f"The head's dropout is {spec.dropout}; a rate in [0, 1) is wanted.")
    if spec.hidden < 0:
        raise UsageError(f"The head's hidden width is {spec.hidden}; 0 or more is wanted.")
    _validate_weights(spec)
    if spec.stand_ins and len(spec.modalities) < 2:
        raise UsageError(
            f"Stand-ins are for what a model can do without, and this one takes "
            f"{' and '.join(spec.modalities)} alone: leave fusion.stand_ins off."
        )
    for i, junction in enumerate(spec.junctions):
        _validate_junction(i, junction, num_depths)


def _validate_weights(spec: FusionSpec) -> None:
    if not spec.weights:
        return
    if spec.decision != "score":
        raise UsageError('Score weights were given, but decision is "feature": drop the weights.')
    if len(spec.weights) != len(spec.junctions):
        raise UsageError(
            f"{len(spec.weights)} score weights were given for {len(spec.junctions)} junctions: "
            "give one for each, or none to learn them."
        )
    numbers = all(isinstance(weight, (int, float)) for weight in spec.weights)
    if not numbers or min(spec.weights) < 0 or abs(sum(spec.weights) - 1) > 1e-6:
        raise UsageError(
            f"Score weights {spec.weights} must be numbers of at least 0 that sum to 1."
        )


def _validate_junction(index: int, junction: Junction, num_depths: dict[str, int]) -> None:
    where = f"Junction {index} ({format_junction(junction)})"
    _one_of(f"{where}: join", junction.join, JOINS)
    _validate_depths(where, junction, num_depths)
    attends = junction.join in ("attention", "cross")
    if attends:
        _validate_attention(where, junction)
    if junction.join != "concat" and junction.width < 1:
        raise UsageError(f"{where}: {junction.join} needs a width of at least 1.")
    unused = {"width": junction.width} if junction.join == "concat" else {}
    if not attends:
        unused |= {"blocks": junction.blocks, "heads": junction.heads, "tokens": junction.tokens}
    if not attends or junction.tokens != "sequence":
        unused["grid"] = junction.grid
    idle = [name for name, value in unused.items() if value]
    if idle:
        raise UsageError(
            f"{where}: {junction.join} makes no use of {', '.join(idle)}: leave it out."
        )


def _validate_depths(where: str, junction: Junction, num_depths: dict[str, int]) -> None:
    if not junction.depths:
        raise UsageError(
            f"{where} takes no modality: give a depth for one of {', '.join(MODALITIES)}."
        )
    for modality, depth in junction.depths.items():
        if modality not in num_depths:
            raise UsageError(f"{where} taps {modality}, but there is no {modality} backbone.")
        top = num_depths[modality]
        if depth != LAST and not (isinstance(depth, int) and 0 <= depth <= top):
            raise UsageError(
                f"{where} taps {modality} at depth {depth}; "
                f"this {modality} backbone has depths 0 to {top}, or last."
            )


def _validate_attention(where: str, junction: Junction) -> None:
    if junction.join == "cross" and len(junction.depths) < 2:
        raise UsageError(f"{where}: cross-attention needs two modalities; use attention for one.")
    _one_of(f"{where}: tokens", junction.tokens, TOKENS)
    if junction.blocks < 1 or junction.heads < 1:
        raise UsageError(f"{where}: attention needs at least 1 block and 1 head.")
    if junction.width % junction.heads:
        raise UsageError(
            f"{where}: width {junction.width} is no multiple of its {junction.heads} heads."
        )
    if junction.tokens == "sequence":
        if LAST in junction.depths.values():
            raise UsageError(
                f"{where}: depth last is one vector, not a sequence; "
                "give a numbered depth, or tokens=pooled."
            )
        if junction.grid < 1:
            raise UsageError(f"{where}: a sequence of image tokens needs a grid of 1 or more.")


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{what} is {value!r}; one of {', '.join(choices)} is wanted.")


# --- The vector a search moves in ---------------------------------------------------------

_ABSENT, _LAST_CODE = -2, -1
# Of a junction, what stands behind the depth of each modality.
_JUNCTION_SLOTS = len(MODALITIES) + len(fields(Junction)) - 1
_SPEC_SLOTS = 6
VECTOR_SIZE = MAX_JUNCTIONS * (_JUNCTION_SLOTS + 1) + _SPEC_SLOTS


def encode(spec: FusionSpec) -> np.ndarray:
    """The spec as a float64 vector of length `VECTOR_SIZE`; `decode` inverts it exactly."""
    vector = np.full(VECTOR_SIZE, float(_ABSENT))
    for i, junction in enumerate(spec.junctions):
        start = i * _JUNCTION_SLOTS
        vector[start : start + _JUNCTION_SLOTS] = [
            *(_encode_depth(junction.depths.get(name)) for name in MODALITIES),
            JOINS.index(junction.join),
            junction.width,
            junction.blocks,
            junction.heads,
            TOKENS.index(junction.tokens) if junction.tokens else -1,
            junction.grid,
        ]
    start = MAX_JUNCTIONS * _JUNCTION_SLOTS
    vector[start : start + len(spec.weights)] = spec.weights
    vector[-_SPEC_SLOTS:] = [
        POOLS.index(spec.pool),
        spec.hidden,
        spec.dropout,
        DECISIONS.index(spec.decision),
        spec.frozen,
        spec.stand_ins,
    ]
    return vector


def decode(vector: np.ndarray) -> FusionSpec:
    """The spec that `encode` made this vector from.

    Raises:
        UsageError: the vector has another length than `VECTOR_SIZE`.
    """
    vector = np.asarray(vector, np.float64)
    if vector.shape != (VECTOR_SIZE,):
        raise UsageError(f"A spec vector has {VECTOR_SIZE} numbers; got shape {vector.shape}.")
    slots = vector[: MAX_JUNCTIONS * _JUNCTION_SLOTS].reshape(MAX_JUNCTIONS, _JUNCTION_SLOTS)
    junctions = []
    for row in slots:
        *depths, join, width, blocks, heads, tokens, grid = (int(v) for v in row)
        if join == _ABSENT:
            continue
        kind = TOKENS[tokens] if tokens >= 0 else ""
        taps = dict(zip(MODALITIES, map(_decode_depth, depths), strict=True))
        junctions.append(Junction(taps, JOINS[join], width, blocks, heads, kind, grid))
    start = MAX_JUNCTIONS * _JUNCTION_SLOTS
    weights = vector[start : start + MAX_JUNCTIONS]
    pool, hidden, dropout, decision, frozen, stand_ins = vector[-_SPEC_SLOTS:]
    return FusionSpec(
        tuple(junctions),
        pool=POOLS[int(pool)],
        hidden=int(hidden),
        dropout=float(dropout),
        decision=DECISIONS[int(decision)],
        weights=tuple(float(w) for w in weights if w != _ABSENT),
        frozen=bool(frozen),
        stand_ins=bool(stand_ins),
    )


def _encode_depth(depth: Depth | None) -> int:
    return _ABSENT if depth is None else _LAST_CODE if depth == LAST else depth


def _decode_depth(code: int) -> Depth | None:
    return {_ABSENT: None, _LAST_CODE: LAST}.get(code, code)


# --- JSON and the short text form ---------------------------------------------------------


def to_dict(spec: FusionSpec) -> dict:
    """The spec as plain JSON types, for `config.json`.

    A junction names text and image, and others only where they take part: its spec is equal to
    that of a version that knew no others.
    """
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    values["weights"] = list(spec.weights)
    values["junctions"] = [_junction_dict(j) for j in spec.junctions]
    return values


def _junction_dict(junction: Junction) -> dict:
    others = {f.name: getattr(junction, f.name) for f in fields(junction) if f.name != "taps"}
    return {**dict.fromkeys(_ALWAYS_NAMED), **junction.depths, **others}


def from_dict(values: dict) -> FusionSpec:
    """Inverse of `to_dict`."""
    values = dict(values)
    values["junctions"] = tuple(map(_junction_from, values["junctions"]))
    values["weights"] = tuple(values["weights"])
    return FusionSpec(**values)


def _junction_from(values: dict) -> Junction:
    taps = {name: values[name] for name in MODALITIES if name in values}
    return Junction(taps, **{name: x for name, x in values.items() if name not in taps})


def format_junction(junction: Junction) -> str:
    """The short form that `parse_junctions` reads: a depth of each modality in the order of
    MODALITIES, with `+` between them and `-` for one left out, then the join. Text and image
    always stand there, of the others none behind the last that takes part."""
    last = max((MODALITIES.index(name) for name in junction.depths), default=0)
    named = MODALITIES[: max(last + 1, len(_ALWAYS_NAMED))]
    return f"{'+'.join(str(junction.depths.get(name, '-')) for name in named)}:{junction.join}"


_SHORT = re.compile(r"((?:-|last|\d+)(?:\+(?:-|last|\d+))*):([a-z]+)")


def parse_junctions(text: str, defaults: dict[str, Junction]) -> tuple[Junction, ...]:
    """Read junctions from their short form, e.g. `4+4:linear, 8+8:attention`.

    Args:
        text: junctions separated by commas; depth of text, of image and, where they take part,
            of audio and the others in the order of MODALITIES, then the join. One pair of
            parentheses around them all is ignored: sweeps need it to tell these commas from
            their own.
        defaults: join -> a junction with that join's width, blocks, heads, ...

    Raises:
        UsageError: names the part that could not be read and shows the form.
    """
    junctions = []
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    for part in (p.strip() for p in text.split(",")):
        match = _SHORT.fullmatch(part)
        depths = match[1].split("+") if match else ()
        known = len(_ALWAYS_NAMED) <= len(depths) <= len(MODALITIES)
        if not known or match[2] not in defaults:
            raise UsageError(
                f"Could not read the junction {part!r}: wanted TEXT+IMAGE:JOIN or, with more of "
                f"{', '.join(MODALITIES)} in this order, TEXT+IMAGE+AUDIO:JOIN, for example "
                "4+4:linear, last+-:concat or 6+6+4:attention, "
                f"with JOIN one of {', '.join(defaults)}."
            )
        taps = {m: _read_depth(d) for m, d in zip(MODALITIES, depths, strict=False)}
        junctions.append(replace(defaults[match[2]], taps=taps))
    return tuple(junctions)


def _read_depth(written: str) -> Depth | None:
    if written == "-":
        return None
    return LAST if written == LAST else int(written)
