"""The named variants: published fusion depths, scaled to the backbones at hand.

Every variant is a `FusionSpec` value. Depths are written for 12-layer backbones and for
MobileNetV2's 16 blocks, as the paper has them (Willis and Bakos 2025, section 3.3), and
scale with the number of encoder layers, or of a convolutional network's blocks: a six-layer BERT
gives `inter` (2, 4), (3, 7), (4, 8), a ResNet-18, of 8 blocks, (4, 2), (7, 3), (8, 4).
MobileNetV2, ResNet-34 and ResNet-50 have 16 blocks and take the published ones. The encoder of
sound, the paper has none, scales as text does: its 8 blocks give 2, 4 and 5.
Depths given explicitly are taken as they are. Which modalities a named variant joins is for
`config.fusion.modalities` to say; the paper's are text and image.

What section 3.3 leaves open, and what we chose:
- How a tap becomes a vector: the mean over real tokens, or over the feature map. At a
  middle layer [CLS] has not gathered the sentence yet.
- What stands in front of a join: layer normalisation of each tap. The linear
  bottlenecks of MobileNetV2 and the normalised states of BERT differ in scale.
- The joint width: a third of the text's, 256 beside BERT-base. On an Orin the published early
  fusion spends about half a millisecond behind the taps (its table 5 against six layers of BERT),
  which full-width attention over every token would not fit. It scales with the text, so that
  fusing early saves time at every size: four blocks of 256 over every token cost more than the
  layer of MiniLM, 384 wide, that `early` saves over `inter`.
- What attention sees: text tokens and an at most 4 x 4 grid of image tokens, at the
  joint width; `input`, which taps before any features exist, gets a 7 x 7 grid. Sound, of
  which the paper has none: its map averaged over frequency, in at most 16 (49) tokens along
  time.
- Activation of the "linear function": none, it is linear.
- The head: dropout and one dense layer, "the same" for late, intermediate and early.
- What "late" concatenates: each published model's own pooled vector (BERT's pooler,
  MobileNetV2's pooled last convolution, ViT's normalised class token).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

from fusion_keras.backbones.facts import Facts
from fusion_keras.errors import UsageError
from fusion_keras.fusion.spec import (
    LAST,
    MODALITIES,
    FusionSpec,
    Junction,
    format_junction,
    parse_junctions,
    validate,
)

# The joint width beside no text.
WIDTH = 256
# Longest side of the grid of image tokens; before any features exist, a finer one.
GRID, INPUT_GRID = 4, 7


def _at(depth: int, fusion, facts: Mapping[str, Facts]) -> dict[str, int]:
    """The depths that stand for `depth` of 12, of the modalities that are joined."""

    def scaled(modality: str) -> int:
        known = facts.get(modality, Facts(0))
        return depth * known.num_depths // known.out_of

    return {modality: scaled(modality) for modality in joined(fusion)}


def joined(fusion) -> tuple[str, ...]:
    """The modalities that `config.fusion.modalities` names, in the order of MODALITIES.

    Raises:
        UsageError: not two or more of them, each once.
    """
    named = [m.strip() for m in fusion.modalities.split("+")]
    if len(named) < 2 or len(set(named)) < len(named) or not set(named) <= set(MODALITIES):
        raise UsageError(
            f"config.fusion.modalities is {fusion.modalities!r}; two or more of "
            f"{', '.join(MODALITIES)} are wanted, as in text+image+audio. One alone is a variant."
        )
    return tuple(m for m in MODALITIES if m in named)


def _width(fusion, facts: Mapping[str, Facts]) -> int:
    """The joint width: as it is set, else a third of the text's, else `WIDTH`."""
    if fusion.width or "text" not in facts or not facts["text"].width:
        return fusion.width or WIDTH
    heads = max(fusion.heads, 1)
    return max(facts["text"].width // 3 // heads, 1) * heads


def _joins(fusion, facts: Mapping[str, Facts]) -> dict[str, Junction]:
    """Join -> a junction with the settings of `config.fusion`, depths still open."""
    wide = {"width": _width(fusion, facts)}
    attends = {
        **wide,
        "heads": fusion.heads,
        "tokens": fusion.tokens,
        "grid": (fusion.grid or GRID) if fusion.tokens == "sequence" else 0,
    }
    return {
        "concat": Junction((), "concat"),
        "linear": Junction((), "linear", **wide),
        "add": Junction((), "add", **wide),
        "gate": Junction((), "gate", **wide),
        "attention": Junction((), "attention", blocks=fusion.blocks or 1, **attends),
        "cross": Junction((), "cross", blocks=fusion.blocks or 1, **attends),
    }


def _alone(modality: str, joins, facts, fusion):
    return (replace(joins["concat"], taps={modality: LAST}),)


def _late(joins, facts, fusion):
    return (replace(joins["concat"], taps=dict.fromkeys(joined(fusion), LAST)),)


def _inter(joins, facts, fusion):
    return (
        replace(joins["linear"], taps=_at(4, fusion, facts)),
        replace(joins["linear"], taps=_at(7, fusion, facts)),
        replace(joins["attention"], taps=_at(8, fusion, facts)),
    )


def _early_attention(joins, fusion):
    return replace(joins["attention"], blocks=fusion.blocks or 4)


def _early(joins, facts, fusion):
    return (replace(_early_attention(joins, fusion), taps=_at(6, fusion, facts)),)


def _late_score(joins, facts, fusion):
    return tuple(replace(joins["concat"], taps={m: LAST}) for m in joined(fusion))


def _hybrid(joins, facts, fusion):
    return _early(joins, facts, fusion) + _late(joins, facts, fusion)


def _input(joins, facts, fusion):
    junction = replace(_early_attention(joins, fusion), taps=_at(0, fusion, facts))
    return (replace(junction, grid=junction.grid and (fusion.grid or INPUT_GRID)),)


VARIANTS: dict[str, Callable] = {
    **{modality: functools.partial(_alone, modality) for modality in MODALITIES},
    "late": _late,
    "inter": _inter,
    "early": _early,
    "late_score": _late_score,
    "hybrid": _hybrid,
    "input": _input,
}
FROZEN = ("late", "late_score")


def modalities_of(variant: str, fusion) -> tuple[str, ...]:
    """The modalities a variant takes, known before any backbone is loaded.

    Raises:
        UsageError: unknown variant, or junctions that cannot be read.
    """
    return FusionSpec(_junctions(variant, fusion, {})).modalities


def _junctions(variant: str, fusion, facts: Mapping[str, Facts]) -> tuple[Junction, ...]:
    if variant not in VARIANTS:
        raise UsageError(f"Unknown variant {variant!r}; one of {', '.join(VARIANTS)} is wanted.")
    joins = _joins(fusion, facts)
    if fusion.junctions:
        return parse_junctions(fusion.junctions, joins)
    return VARIANTS[variant](joins, facts, fusion)


def make_spec(variant: str, fusion, facts: Mapping[str, Facts]) -> FusionSpec:
    """The spec of a named variant, or of `fusion.junctions` where those are given.

    Args:
        variant: a key of `VARIANTS`.
        fusion: `config.fusion`: modalities, junctions, width, blocks, heads, tokens, grid,
            pool, hidden, dropout, weights, stand_ins.
        facts: modality -> what is known of its backbone, of those that the variant takes.

    Raises:
        UsageError: unknown variant, or a depth or a setting that does not exist, also `last` of
            weights without a pooler, and `pool` of a first token that says nothing.
    """
    junctions = _junctions(variant, fusion, facts)
    spec = FusionSpec(
        junctions,
        pool=fusion.pool,
        hidden=fusion.hidden,
        dropout=fusion.dropout,
        decision="score" if variant == "late_score" else "feature",
        weights=tuple(fusion.weights),
        frozen=variant in FROZEN,
        stand_ins=fusion.stand_ins,
    )
    if variant in MODALITIES and spec.modalities != (variant,):
        raise UsageError(
            f"The junctions {fusion.junctions!r} take {' and '.join(spec.modalities)}, but the "
            f"variant is {variant!r}: choose one that takes more, such as --variant=inter."
        )
    validate(spec, {modality: known.num_depths for modality, known in facts.items()})
    for modality, known in facts.items():
        if known.lacks_last and LAST in spec.depths(modality):
            raise UsageError(_without_last(variant, spec, modality, known))
        if known.lacks_first and fusion.pool == "cls" and _pooled(spec, modality):
            raise UsageError(
                f"config.fusion.pool is 'cls', which takes the first token of {modality} for all, "
                f"and {known.lacks_first}: choose --config.fusion.pool=mean."
            )
    return spec


def _pooled(spec: FusionSpec, modality: str) -> bool:
    """Whether a junction makes one vector of a modality's tokens."""
    depths = [j.depths.get(modality) for j in spec.junctions if j.tokens != "sequence"]
    return any(depth not in (None, LAST) for depth in depths)


def _without_last(variant: str, spec: FusionSpec, modality: str, known: Facts) -> str:
    instead = "choose a variant that taps layers, such as inter or early"
    if not spec.frozen:
        own = [
            replace(j, taps={**j.depths, modality: known.num_depths})
            if j.depths.get(modality) == LAST
            else j
            for j in spec.junctions
        ]
        junctions = ",".join(map(format_junction, own))
        instead = f"tap its last layer, --config.fusion.junctions='{junctions}'"
    return (
        f"{variant} taps {modality} at depth {LAST}, the published model's own pooled vector, and "
        f"{known.lacks_last}: {instead}, or take a checkpoint that has it."
    )
