"""Fusion specs: the named variants, the vector, the text forms, and what is refused."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from fusion_keras.backbones.facts import Facts
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.fusion.spec import (
    JOINS,
    LAST,
    MAX_JUNCTIONS,
    MODALITIES,
    POOLS,
    TOKENS,
    VECTOR_SIZE,
    FusionSpec,
    Junction,
    decode,
    encode,
    format_junction,
    from_dict,
    parse_junctions,
    to_dict,
    validate,
)
from fusion_keras.fusion.variants import FROZEN, make_spec, modalities_of
from tests.support.backbones import facts
from tests.support.tiny import OF_TEXT_AND_IMAGES as VARIANTS

MOBILENET, VIT = {"image": 16}, {"image": 12, "image_scales": True}
TOPS = {"text": 12, "image": 16, "audio": 8, "tabular": 3}
PUBLISHED_DEPTHS = facts(12, 16)


def settings(**changes):
    """config.fusion with these settings changed."""
    fusion = get_config().fusion
    fusion.update(changes)
    return fusion


def junctions_of(variant, depths, **changes):
    """A variant's junctions as (text depth, image depth, join)."""
    found = make_spec(variant, settings(**changes), depths).junctions
    return [(j.depths.get("text"), j.depths.get("image"), j.join) for j in found]


# Variant -> its junctions for 12-layer BERT, as (text depth, image depth, join).
PUBLISHED = {
    "text": [(LAST, None, "concat")],
    "image": [(None, LAST, "concat")],
    "late": [(LAST, LAST, "concat")],
    "inter": [(4, 4, "linear"), (7, 7, "linear"), (8, 8, "attention")],
    "early": [(6, 6, "attention")],
    "late_score": [(LAST, None, "concat"), (None, LAST, "concat")],
    "hybrid": [(6, 6, "attention"), (LAST, LAST, "concat")],
    "input": [(0, 0, "attention")],
}
# The same for six layers of text; MobileNetV2's side stays.
HALVED = PUBLISHED | {
    "inter": [(2, 4, "linear"), (3, 7, "linear"), (4, 8, "attention")],
    "early": [(3, 6, "attention")],
    "hybrid": [(3, 6, "attention"), (LAST, LAST, "concat")],
}


def test_every_variant_has_its_published_depths_here():
    assert set(PUBLISHED) == set(HALVED) == set(VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("image", [MOBILENET, VIT], ids=["mobilenet", "vit"])
@pytest.mark.parametrize(("text", "expected"), [(12, PUBLISHED), (6, HALVED)], ids=["12", "6"])
def test_variant_has_the_depths_of_the_table(variant, image, text, expected):
    assert junctions_of(variant, facts(text, **image)) == expected[variant]


def test_vit_scales_with_its_own_number_of_layers():
    depths = facts(12, 6, image_scales=True)
    assert [j[:2] for j in junctions_of("inter", depths)] == [(4, 2), (7, 3), (8, 4)]
    assert [j[:2] for j in junctions_of("early", depths)] == [(6, 3)]


def test_early_is_four_attention_blocks_of_four_heads():
    (junction,) = make_spec("early", settings(), PUBLISHED_DEPTHS).junctions
    assert (junction.blocks, junction.heads) == (4, 4)
    *_, deepest = make_spec("inter", settings(), PUBLISHED_DEPTHS).junctions
    assert (deepest.blocks, deepest.heads) == (1, 4)


@pytest.mark.parametrize("blocks", [2, 4, 6, 8])
def test_the_ablation_is_a_number_of_blocks(blocks):
    (junction,) = make_spec("early", settings(blocks=blocks), PUBLISHED_DEPTHS).junctions
    assert junction.blocks == blocks


def test_the_joint_width_is_a_third_of_the_texts():
    def widths(text, **changes):
        known = {**facts(image=16), "text": Facts(6, width=text)}
        return {j.width for j in make_spec("inter", settings(**changes), known).junctions}

    assert (widths(768), widths(384), widths(0)) == ({256}, {128}, {256})
    # A multiple of the heads.
    assert (widths(128), widths(100, heads=8), widths(8, heads=3)) == ({40}, {32}, {3})
    assert widths(384, width=64) == {64}
    (alone,) = make_spec(
        "early", settings(modalities="image+audio"), facts(0, 16, audio=8)
    ).junctions
    assert alone.width == 256


def test_settings_reach_the_junctions():
    fusion = settings(width=24, heads=2, tokens="pooled", pool="cls", hidden=7, dropout=0.5)
    spec = make_spec("inter", fusion, facts(12, 16))
    assert [j.width for j in spec.junctions] == [24, 24, 24]
    assert spec.junctions[2] == Junction({"text": 8, "image": 8}, "attention", 24, 1, 2, "pooled")
    assert (spec.pool, spec.hidden, spec.dropout) == ("cls", 7, 0.5)
    (cross,) = make_spec("early", settings(junctions="6+6:cross", grid=5), facts(12, 16)).junctions
    assert cross == Junction({"text": 6, "image": 6}, "cross", 256, 1, 4, "sequence", 5)
    assert replace(cross, tokens="pooled", grid=0) in (
        make_spec(
            "early", settings(junctions="6+6:cross", tokens="pooled"), PUBLISHED_DEPTHS
        ).junctions
    )


def test_only_late_fusion_freezes_and_only_late_score_averages():
    specs = {v: make_spec(v, settings(), PUBLISHED_DEPTHS) for v in VARIANTS}
    assert {v for v, s in specs.items() if s.frozen} == {"late", "late_score"} == set(FROZEN)
    assert {v for v, s in specs.items() if s.decision == "score"} == {"late_score"}


def test_explicit_depths_are_never_rescaled():
    fusion = settings(junctions="4+7:linear, 6+last:concat,-+8:linear")
    for depths in (facts(12, 16), facts(6, 16), facts(6, 12, image_scales=True)):
        found = [
            (j.depths.get("text"), j.depths.get("image"))
            for j in make_spec("inter", fusion, depths).junctions
        ]
        assert found == [(4, 7), (6, LAST), (None, 8)]


def test_modalities_are_known_before_a_backbone_is_loaded():
    assert modalities_of("text", settings()) == ("text",)
    assert modalities_of("image", settings()) == ("image",)
    assert modalities_of("early", settings()) == ("text", "image")
    assert modalities_of("early", settings(junctions="-+3:linear")) == ("image",)


# --- Vector, dict, short form -----------------------------------------------------------------


def random_spec(rng) -> FusionSpec:
    """A valid spec: any join, depth, number of junctions, weights."""

    def depth(top, last):
        found = int(rng.integers(0, top + 1 + last))
        return LAST if found > top else found

    def junction():
        join = str(rng.choice(JOINS))
        tokens = str(rng.choice(TOKENS)) if join in ("attention", "cross") else ""
        last = tokens != "sequence"
        depths = [depth(TOPS[m], last) for m in MODALITIES]
        fewest = 2 if join == "cross" else 1
        count = len(MODALITIES)
        kept = rng.permutation(count)[: rng.integers(fewest, count + 1)]
        taps = {m: depths[i] for i, m in enumerate(MODALITIES) if i in kept}
        heads = int(rng.integers(1, 9)) if tokens else 0
        return Junction(
            taps,
            join,
            width=0 if join == "concat" else (heads or 1) * int(rng.integers(1, 65)),
            blocks=int(rng.integers(1, 9)) if tokens else 0,
            heads=heads,
            tokens=tokens,
            grid=int(rng.integers(1, 9)) if tokens == "sequence" else 0,
        )

    count = int(rng.integers(1, MAX_JUNCTIONS + 1))
    shares = rng.random(count)
    decision = str(rng.choice(["feature", "score"]))
    given = decision == "score" and rng.random() < 0.5
    return FusionSpec(
        tuple(junction() for _ in range(count)),
        pool=str(rng.choice(POOLS)),
        hidden=int(rng.integers(0, 512)),
        dropout=float(rng.random() * 0.99),
        decision=decision,
        weights=tuple((shares / shares.sum()).tolist()) if given else (),
        frozen=bool(rng.integers(2)),
    )


def some_specs() -> list[FusionSpec]:
    rng = np.random.default_rng(0)
    named = [make_spec(v, settings(), PUBLISHED_DEPTHS) for v in VARIANTS]
    weighted = make_spec("late_score", settings(weights=(0.25, 0.75)), PUBLISHED_DEPTHS)
    return [*named, weighted, *(random_spec(rng) for _ in range(400))]


def test_random_specs_are_valid_and_of_every_kind():
    specs = some_specs()
    for spec in specs:
        validate(spec, TOPS)
    assert {j.join for s in specs for j in s.junctions} == set(JOINS)
    several = [c for n in (2, 3, 4) for c in itertools.combinations(MODALITIES, n)]
    crossed = {tuple(j.depths) for s in specs for j in s.junctions if j.join == "cross"}
    assert crossed == set(several)
    assert {len(s.weights) for s in specs} == {0, 1, 2, 3, 4}


def test_vector_gives_back_exactly_the_spec():
    for spec in some_specs():
        vector = encode(spec)
        assert vector.shape == (VECTOR_SIZE,)
        assert vector.dtype == np.float64
        assert decode(vector) == spec


def test_different_specs_have_different_vectors():
    specs = set(some_specs())
    assert len({encode(spec).tobytes() for spec in specs}) == len(specs)


def test_vector_of_a_wrong_length_is_refused():
    with pytest.raises(UsageError, match=f"{VECTOR_SIZE} numbers"):
        decode(np.zeros(VECTOR_SIZE + 1))


def test_dict_is_plain_and_gives_back_the_spec():
    for spec in some_specs():
        assert from_dict(json.loads(json.dumps(to_dict(spec)))) == spec


def test_short_form_is_read_and_written():
    defaults = {
        "linear": Junction({}, "linear", 8),
        "concat": Junction({}, "concat"),
    }
    text = "4+4:linear, last+-:concat,-+0:linear"
    junctions = parse_junctions(text, defaults)
    assert junctions == (
        Junction({"text": 4, "image": 4}, "linear", 8),
        Junction({"text": LAST}, "concat"),
        Junction({"image": 0}, "linear", 8),
    )
    assert ", ".join(map(format_junction, junctions)) == "4+4:linear, last+-:concat, -+0:linear"


def test_short_form_has_audio_third():
    defaults = {"linear": Junction({}, "linear", 8)}
    text = "4+7+3:linear, -+-+last:linear, 2+-+0:linear"
    junctions = parse_junctions(text, defaults)
    assert [j.depths for j in junctions] == [
        {"text": 4, "image": 7, "audio": 3},
        {"audio": LAST},
        {"text": 2, "audio": 0},
    ]
    assert ", ".join(map(format_junction, junctions)) == text


def test_a_spec_of_a_version_without_audio_is_read_and_still_written_so():
    old = {"text": 4, "image": 4, "join": "linear", "width": 8, "blocks": 0, "heads": 0}
    old |= {"tokens": "", "grid": 0}
    spec = FusionSpec((Junction({"text": 4, "image": 4}, "linear", 8),))
    values = to_dict(spec)
    assert values["junctions"] == [old]
    assert from_dict(values) == spec


# Variant -> (text, image, audio) for six layers of text, MobileNetV2 and eight blocks of audio.
WITH_AUDIO = {
    "audio": [(None, None, LAST)],
    "late": [(LAST, LAST, LAST)],
    "inter": [(2, 4, 2), (3, 7, 4), (4, 8, 5)],
    "early": [(3, 6, 4)],
    "late_score": [(LAST, None, None), (None, LAST, None), (None, None, LAST)],
    "hybrid": [(3, 6, 4), (LAST, LAST, LAST)],
    "input": [(0, 0, 0)],
}


@pytest.mark.parametrize("variant", WITH_AUDIO)
def test_one_setting_brings_audio_to_a_variant_at_scaled_depths(variant):
    fusion = settings(modalities="text+image+audio")
    found = make_spec(variant, fusion, facts(6, 16, audio=8))
    depths = [
        (j.depths.get("text"), j.depths.get("image"), j.depths.get("audio"))
        for j in found.junctions
    ]
    assert depths == WITH_AUDIO[variant]
    assert modalities_of(variant, fusion) == found.modalities


def test_any_two_modalities_can_be_joined():
    fusion = settings(modalities="audio+image")
    (junction,) = make_spec("early", fusion, facts(0, 16, audio=8)).junctions
    assert junction.depths == {"image": 6, "audio": 4}


@pytest.mark.parametrize("named", ["text", "text+text", "text+sound", "", "text,image"])
def test_other_modalities_are_refused(named):
    with pytest.raises(UsageError, match=r"fusion.modalities is .*text\+image\+audio"):
        make_spec("late", settings(modalities=named), facts(6, 16, audio=8))


def test_parentheses_around_junctions_serve_sweeps():
    bare = settings(junctions="4+4:linear,8+8:attention")
    packed = settings(junctions="(4+4:linear,8+8:attention)")
    assert make_spec("inter", bare, PUBLISHED_DEPTHS) == make_spec(
        "inter", packed, PUBLISHED_DEPTHS
    )


@pytest.mark.parametrize(
    "text", ["4:linear", "4+4", "4+4:lineal", "a+4:linear", "4+4:linear,", "-1+4:add"]
)
def test_unreadable_junctions_show_the_form(text):
    with pytest.raises(UsageError, match=r"TEXT\+IMAGE:JOIN.*one of concat"):
        make_spec("inter", settings(junctions=text), PUBLISHED_DEPTHS)


# --- What is refused --------------------------------------------------------------------------

LINEAR = Junction({"text": 4, "image": 4}, "linear", 8)
ATTENTION = Junction(
    {"text": 4, "image": 4}, "attention", 8, blocks=1, heads=2, tokens="sequence", grid=4
)

REFUSED = {
    "text too deep": (
        FusionSpec((Junction({"text": 13, "image": 4}, "linear", 8),)),
        "text at depth 13.* 0 to 12",
    ),
    "image too deep": (
        FusionSpec((Junction({"text": 4, "image": 17}, "linear", 8),)),
        "image at depth 17.* 0 to 16",
    ),
    "negative depth": (
        FusionSpec((Junction({"text": -1, "image": 4}, "linear", 8),)),
        "depth -1.* 0 to 12",
    ),
    "depth of no kind": (
        FusionSpec((Junction({"text": "end", "image": 4}, "linear", 8),)),
        "depth end.* 0 to 12",
    ),
    "no junction": (FusionSpec(()), "0 junctions; 1 to 4"),
    "too many junctions": (FusionSpec((LINEAR,) * 5), "5 junctions; 1 to 4"),
    "no modality": (FusionSpec((Junction({}, "linear", 8),)), "no modality"),
    "unknown join": (FusionSpec((replace(LINEAR, join="mix"),)), "join is 'mix'; one of concat"),
    "cross of one": (
        FusionSpec((replace(ATTENTION, join="cross", taps={"text": 4}),)),
        "two modalities",
    ),
    "odd width": (FusionSpec((replace(ATTENTION, width=9),)), "width 9 is no multiple of its 2"),
    "no width": (FusionSpec((replace(LINEAR, width=0),)), "linear needs a width of at least 1"),
    "no blocks": (FusionSpec((replace(ATTENTION, blocks=0),)), "at least 1 block and 1 head"),
    "no heads": (FusionSpec((replace(ATTENTION, heads=0),)), "at least 1 block and 1 head"),
    "no grid": (FusionSpec((replace(ATTENTION, grid=0),)), "grid of 1 or more"),
    "unknown tokens": (FusionSpec((replace(ATTENTION, tokens="all"),)), "tokens is 'all'"),
    "idle blocks": (FusionSpec((replace(LINEAR, blocks=2),)), "linear makes no use of blocks"),
    "idle heads": (FusionSpec((replace(LINEAR, heads=2),)), "linear makes no use of heads"),
    "idle tokens": (FusionSpec((replace(LINEAR, tokens="sequence"),)), "no use of tokens"),
    "idle grid": (FusionSpec((replace(ATTENTION, tokens="pooled"),)), "makes no use of grid"),
    "idle width": (FusionSpec((replace(LINEAR, join="concat"),)), "concat makes no use of width"),
    "sequence of last": (
        FusionSpec((replace(ATTENTION, taps={"text": LAST}),)),
        "last is one vector",
    ),
    "unknown pool": (FusionSpec((LINEAR,), pool="max"), "pool is 'max'; one of mean, cls"),
    "unknown decision": (FusionSpec((LINEAR,), decision="vote"), "decision is 'vote'"),
    "full dropout": (FusionSpec((LINEAR,), dropout=1.0), "dropout is 1.0"),
    "negative hidden": (FusionSpec((LINEAR,), hidden=-1), "hidden width is -1"),
    "weights of features": (FusionSpec((LINEAR,), weights=(1.0,)), "drop the weights"),
    "weights too few": (
        FusionSpec((LINEAR, LINEAR), decision="score", weights=(1.0,)),
        "1 score weights were given for 2 junctions",
    ),
    "weights of no sum": (
        FusionSpec((LINEAR, LINEAR), decision="score", weights=(0.5, 0.4)),
        "sum to 1",
    ),
    "negative weight": (
        FusionSpec((LINEAR, LINEAR), decision="score", weights=(1.5, -0.5)),
        "at least 0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_impossible_spec_is_refused_with_its_cause(case):
    spec, words = REFUSED[case]
    with pytest.raises(UsageError, match=words):
        validate(spec, TOPS)


def test_a_missing_backbone_is_named():
    with pytest.raises(UsageError, match="there is no image backbone"):
        validate(FusionSpec((LINEAR,)), {"text": 12})


def test_unknown_variant_lists_the_known_ones():
    with pytest.raises(UsageError, match="'middle'; one of text, image, audio, tabular, late"):
        make_spec("middle", settings(), PUBLISHED_DEPTHS)
    with pytest.raises(UsageError, match="'middle'; one of text, image, audio, tabular, late"):
        modalities_of("middle", settings())


def test_weights_belong_to_late_score():
    spec = make_spec("late_score", settings(weights=(0.3, 0.7)), PUBLISHED_DEPTHS)
    assert spec.weights == (0.3, 0.7)
    with pytest.raises(UsageError, match="drop the weights"):
        make_spec("late", settings(weights=(0.3, 0.7)), PUBLISHED_DEPTHS)
