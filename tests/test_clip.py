"""What only CLIP's towers do: padding that is no token, one directory that is both of a pair."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers

from export import doctor
from fusion_keras.backbones.cut import cut
from fusion_keras.backbones.presets import find_image, find_text, load_image, load_text
from fusion_keras.config import get_config
from fusion_keras.data.tokens import encode, load_tokenizer, told_apart
from fusion_keras.errors import UsageError
from fusion_keras.fusion.describe import count_macs
from fusion_keras.fusion.variants import make_spec
from fusion_keras.modalities import MODALITY
from tests.support.hf_encoders import TOLERANCE, randomise, worst_difference
from tests.support.text_families import FAMILIES, write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TEXTS = ["a good day", "", "a <|endoftext|> day", "lovely " * 30]
LENGTH = 20


def save_clip(path, pad: str = "<|endoftext|>"):
    """All of a tiny CLIP with its tokenizer; returns transformers' model and the tokenizer."""
    tokenizer = write_tokenizer(path, "clip")
    settings = path / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "pad_token": pad}))
    sizes = {"num_hidden_layers": 6, "num_attention_heads": 4, "hidden_size": 32}
    sizes["intermediate_size"] = 64
    text = {
        **sizes,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.token_to_id("<|startoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|endoftext|>"),
    }
    image = {**sizes, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=24)
    model = randomise(transformers.CLIPModel(config))
    model.save_pretrained(path)
    return model, tokenizer


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(a directory of all of CLIP, transformers' model, the tokenizer)."""
    folder = tmp_path_factory.mktemp("clip")
    return folder, *save_clip(folder)


def _reader(folder):
    config = get_config()
    config.text.preset, config.data.max_length = str(folder), LENGTH
    return MODALITY["text"].reader(config)


@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_padding_is_a_byte_that_no_text_has(tmp_path, pad):
    save_clip(tmp_path, pad)
    reader = _reader(tmp_path)
    own = reader.tokenizer.ids.pad
    assert own == load_text(str(tmp_path)).backbone.pad_id
    assert own != load_tokenizer(tmp_path).ids.pad
    texts = [*TEXTS, "y\u00ff \u00ff\u00ff"]
    ids, _ = encode(texts, reader.tokenizer, LENGTH)
    assert own not in encode(["!"], reader.tokenizer, 3)[0]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    given = theirs(texts, max_length=LENGTH, truncation=True, padding="max_length")
    real = np.array(given["attention_mask"]) == 1
    np.testing.assert_array_equal(ids != own, real)
    np.testing.assert_array_equal(ids[real], np.array(given["input_ids"])[real])


def test_one_directory_gives_both_vectors_of_its_pair(clip):
    folder, model, _ = clip
    text, image = load_text(str(folder)).backbone, load_image(str(folder)).backbone
    reader = _reader(folder)
    ids, _ = encode(TEXTS, reader.tokenizer, LENGTH)
    pixels = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    fed = {"token_ids": ids, "padding_mask": (ids != text.pad_id).astype(np.int32)}
    ours = [
        np.asarray(jax.jit(lambda x, b=b: cut(b, ["last"])(x, training=False))(x))
        for b, x in ((text, fed), (image, pixels))
    ]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    given = theirs(
        TEXTS, max_length=LENGTH, truncation=True, padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        texts = model.get_text_features(**given).pooler_output
        images = model.get_image_features(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    assert worst_difference(ours, [texts.numpy(), images.pooler_output.numpy()]) <= TOLERANCE
    assert ours[0].shape[1] == ours[1].shape[1] == 24
    assert find_text(str(folder))[0].facts.num_depths == 6
    assert find_image(str(folder))[0].facts.num_depths == 6


def test_the_first_token_is_not_taken_for_all(clip):
    fusion = get_config().fusion
    facts = {"text": find_text(str(clip[0]))[0].facts, "image": find_image(str(clip[0]))[0].facts}
    fusion.pool = "cls"
    assert make_spec("late", fusion, facts).pool == "cls"
    with pytest.raises(UsageError, match=r"pool is 'cls'.*of text.*causal.*fusion\.pool=mean"):
        make_spec("inter", fusion, facts)


def test_a_tower_alone_has_no_projection(tmp_path):
    FAMILIES["clip"].save(tmp_path)
    backbone = FAMILIES["clip"].cls.from_hf(tmp_path)
    assert backbone.summary.shape[-1] == 32
    assert "text_projection" not in {layer.name for layer in backbone.layers}


def test_a_tokenizer_without_an_unused_id_is_refused(tmp_path):
    FAMILIES["clip"].save(tmp_path, vocab_size=320)
    write_tokenizer(tmp_path, "pieces")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "</s>"}))
    with pytest.raises(UsageError, match=r"pads with '</s>', which every text has.*byte 0xFF"):
        _reader(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    tokenizer = load_tokenizer(tmp_path)
    assert told_apart(tokenizer, tmp_path) is tokenizer


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_dropout": 0.1}, "got attention_dropout 0.1 in"),
        ({"eos_token_id": [3, 4]}, r"eos_token_id \[3, 4\].*wanted one id"),
        ({"hidden_act": "mish"}, "hidden_act 'mish', wanted one of"),
        ({"hidden_size": 24}, r"got shape \[60, 32\] for .*wanted \[60, 24\]"),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(tmp_path, fields, message):
    FAMILIES["clip"].save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    with pytest.raises(UsageError, match=message):
        FAMILIES["clip"].cls.from_hf(tmp_path)


def test_the_text_tower_has_the_multiply_adds_worked_out_by_hand():
    backbone = load_text("random:tiny_clip_text").backbone
    width, tokens = 32, 10
    layer = 12 * tokens * width**2 + 2 * tokens**2 * width
    final = (2 * tokens + 10) * width**2 + 2 * tokens * width
    found = count_macs(cut(backbone, ["last"]), tokens)
    assert found == 5 * layer + final + width * 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "image"),
    [("late", ""), ("inter", ""), ("early", ""), ("hybrid", "random:tiny_siglip")],
)
def test_the_pair_is_trained_exported_and_answers(variant, image, tiny, tmp_path, entries):
    preset = tmp_path / "clip"
    save_clip(preset)
    place = tiny.beside(tmp_path / "bench")
    run, out = tmp_path / "run", tmp_path / "artifact"
    sizes = {"text__preset": preset, "image__preset": image or preset, "data__max_length": 20}
    flags = place.flags(variant=variant, run=run, **sizes, train__epochs=1)
    done = entries.run("fusion_keras.train", *flags)
    assert done.returncode == 0, done.stderr
    asked = ("--precisions=fp16,int8", "--buckets=15")
    done = entries.run("export", f"--run={run}", f"--out={out}", *asked)
    assert done.returncode == 0, done.stderr
    meta = json.loads((out / "meta.json").read_text())
    assert meta["inputs"]["token_ids"]["pad_id"] == load_text(str(preset)).backbone.pad_id
    assert {"fp32", "fp16", "int8", "15 tokens"} <= {rung["name"] for rung in meta["ladder"]}
    assert all(rung["holds"] for rung in meta["ladder"])
    for model in meta["models"].values():
        assert doctor.examine(doctor.load(out / model["file"])) == []
    shown = place.folder / "data" / "0.png"
    answered = entries.run("bench.predict", str(out), "--text=a good day", f"--image={shown}")
    assert answered.returncode == 0, answered.stderr
    assert "positive" in answered.stdout
