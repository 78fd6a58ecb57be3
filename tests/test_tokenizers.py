"""Ids of tokenizers of every kind equal transformers', in training and on the device."""

import csv
import json

import numpy as np
import pytest
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from bench.edge.inputs.text import Tokens
from bench.edge.proof import fitted
from fusion_keras.config import get_config
from fusion_keras.data.tokens import (
    SpecialIds,
    count_unknown,
    encode,
    letter_ids,
    load_tokenizer,
    told_apart,
)
from fusion_keras.errors import UsageError
from fusion_keras.modalities import MODALITY
from tests.support.backbones import text_preset
from tests.support.shared import slow_but
from tests.support.text_families import (
    FAMILIES,
    SENTENCES,
    in_ten_scripts,
    write_tokenizer,
)

ODD = [
    " leading and  two  spaces ",
    "GOOD Day",
    "naïve café",
    "😀 好的 text",
    "\ufffd broken \u200b",
    "half a pair: \ud83d",
    "spelled out </s> and <pad> and [SEP] and <|endoftext|>",
    "it's; WE'LL\tsee   2024",
    "lovely " * 30,
]
KINDS = {
    "words": SpecialIds(pad=0, unknown=1, mask=4),
    "bytes": SpecialIds(pad=1, unknown=None, mask=4),
    "pieces": SpecialIds(pad=1, unknown=3, mask=4),
    "deberta": SpecialIds(pad=0, unknown=3, mask=63),
    "clip": SpecialIds(pad=587, unknown=None, mask=None),
}
LENGTH = 24


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """(its name, a directory that has one)."""
    folder = tmp_path_factory.mktemp(request.param)
    write_tokenizer(folder, request.param)
    # transformers wants to know the model.
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return request.param, folder


def test_the_special_tokens_are_found(kind):
    name, folder = kind
    assert load_tokenizer(folder).ids == KINDS[name]


def test_ids_are_transformers(kind):
    ids, cut = encode(["", "   ", *ODD, *SENTENCES], load_tokenizer(kind[1]), LENGTH)
    theirs = AutoTokenizer.from_pretrained(kind[1])
    # Rust takes no half of a surrogate pair.
    texts = ["", "   ", *ODD, *SENTENCES]
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    options = {"max_length": LENGTH, "truncation": True, "padding": "max_length"}
    np.testing.assert_array_equal(ids, theirs(texts, **options)["input_ids"])
    assert cut == sum(len(row) > LENGTH for row in theirs(texts)["input_ids"]) > 0


def test_the_device_gives_the_same_ids(kind):
    own = load_tokenizer(kind[1])
    spec = {"max_length": LENGTH, "pad_id": own.ids.pad}
    device = Tokens(kind[1], {"lengths": [8, LENGTH], "inputs": {"token_ids": spec}})
    ids, _ = encode(ODD + SENTENCES, own, LENGTH)
    for text, row in zip(ODD + SENTENCES, ids, strict=True):
        (got,) = device(text)
        assert len(got) in (8, LENGTH)
        np.testing.assert_array_equal(got, row[: len(got)])
        assert (row[len(got) :] == own.ids.pad).all()


@pytest.mark.parametrize("kind", slow_but(["words", "bytes"], KINDS))
def test_every_sentence_gives_transformers_ids_in_training_and_on_the_device(
    kind, data_root, tmp_path
):
    """All of CMU-MOSI, all tweets, and 200 pieces of text in ten scripts."""
    texts = in_ten_scripts()
    for table in ("mosi/label.csv", "tweets/manifest.csv"):
        with (data_root / table).open(encoding="utf-8", newline="") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    assert len(texts) == 200 + 2199 + 3000
    # The scripts of every second piece are met for the first time, as most are of a small model.
    write_tokenizer(tmp_path, kind, texts[:200:2] + texts[200:], more=3000)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    length = 64
    ids, cut = encode(texts, load_tokenizer(tmp_path), length)
    options = {"max_length": length, "truncation": True, "padding": "max_length"}
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    np.testing.assert_array_equal(ids, theirs(texts, **options)["input_ids"])
    spec = {"max_length": length, "pad_id": load_tokenizer(tmp_path).ids.pad}
    device = Tokens(tmp_path, {"lengths": [length], "inputs": {"token_ids": spec}})
    np.testing.assert_array_equal(ids, np.concatenate([device(text) for text in texts]))
    # The longest are cut, and the vocabulary is used.
    assert cut > 0
    assert len(np.unique(ids)) > 1000


def test_the_bench_cuts_sentences_to_the_shortest_length_that_holds_them(kind):
    own = load_tokenizer(kind[1])
    ids, _ = encode(["a day", "a"], own, LENGTH)
    pads = (ids == own.ids.pad).sum(axis=1).min()
    spec = {"max_length": LENGTH, "pad_id": own.ids.pad}
    lengths = [LENGTH - int(pads), LENGTH]
    meta = {"inputs": {"token_ids": spec}, "shapes": {"length": None}, "lengths": lengths}
    assert fitted({"token_ids": ids}, meta)["token_ids"].shape == (2, lengths[0])


def test_what_is_unknown_is_counted_alike(kind):
    own, text = load_tokenizer(kind[1]), "a 好 day"
    (unknown,), (tokens,) = count_unknown(encode([text], own, LENGTH)[0], own)
    assert (unknown > 0) == (KINDS[kind[0]].unknown is not None)
    device = Tokens(kind[1], {"lengths": [LENGTH], "inputs": {}})
    said = f"{unknown} of the sentence's {tokens} tokens are unknown"
    assert (said in device.noted(text)[1]) == bool(unknown)
    assert bool(len(letter_ids(own))) == (kind[0] == "words")


def test_a_withheld_sentence_is_the_empty_one(kind):
    own = load_tokenizer(kind[1])
    own = told_apart(own, kind[1]) if kind[0] == "clip" else own
    ids, _ = encode(["a good day", "", "lovely " * 30], own, LENGTH)
    empty = MODALITY["text"].emptied(ids, np.ones(3, bool), text_preset(own.ids.pad))
    np.testing.assert_array_equal(empty, np.tile(ids[1], (3, 1)))


def test_the_pad_token_may_have_any_name(tmp_path):
    tokenizer = write_tokenizer(tmp_path, "bytes")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": {"content": "a", "special": False}})
    )
    assert load_tokenizer(tmp_path).ids.pad == tokenizer.token_to_id("a")


def test_a_tokenizer_without_a_first_token_is_refused(tmp_path):
    tokenizer = write_tokenizer(tmp_path, "pieces")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert isinstance(tokenizer, Tokenizer)
    with pytest.raises(UsageError, match=r"does not frame a text .* or <s> \.\.\. </s>"):
        load_tokenizer(tmp_path)


def _config(folder, length=12):
    config = get_config()
    config.text.preset, config.data.max_length = str(folder), length
    return config


def test_a_model_that_pads_with_another_id_than_its_tokenizer_is_refused(tmp_path):
    rows = {"vocab_size": 320, "max_position_embeddings": 40}
    FAMILIES["roberta"].save(tmp_path, **rows)
    write_tokenizer(tmp_path, "bytes")
    assert MODALITY["text"].reader(_config(tmp_path)).tokenizer.ids.pad == 1
    with pytest.raises(UsageError, match="takes 3 to 38 tokens"):
        MODALITY["text"].reader(_config(tmp_path, 39))
    FAMILIES["roberta"].save(tmp_path, **rows, pad_token_id=0)
    with pytest.raises(
        UsageError, match=r"pads with id 1 \('<pad>'\).*takes id 0 for padding.*pad_token_id"
    ):
        MODALITY["text"].reader(_config(tmp_path))
