"""Texts -> BERT token ids, with the Rust tokenizers alone (no TensorFlow, no transformers).

Equal to transformers' BertTokenizer on the same directory; `tests/test_tokens.py` compares
them on every sentence of the real data sets. A text that spells out "[SEP]" gets that
special token, there as here.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from fusion_keras.data.cache import cached_array, content_key
from fusion_keras.errors import UsageError

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The WordPiece tokenizer of a model directory.

    Taken from the first that is there: a Hugging Face `tokenizer.json`; `vocab.txt` with
    the options of `tokenizer_config.json`; the `assets/tokenizer/vocabulary.txt` of a
    keras-hub preset, lower-casing as its own `tokenizer.json` says. Truncation and padding
    saved in the file are switched off: `encode` decides on the length.

    Raises:
      UsageError: none of them is there, a file is damaged, or the vocabulary is not BERT's
        ([PAD] must be 0, because the models take 0 for padding).
    """
    directory = Path(directory)
    try:
        tokenizer = _from_directory(directory)
    except UsageError:
        raise
    # `tokenizers` reports a bad file with a bare Exception.
    except Exception as error:
        raise UsageError(
            f"got an unreadable tokenizer in {directory} ({error}), wanted the tokenizer.json or "
            "vocab.txt of a BERT model; copy the directory again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad, _, cls, sep = ids = [tokenizer.token_to_id(token) for token in _SPECIALS]
    problem = ""
    if None in ids:
        problem = "without " + ", ".join(
            t for t, i in zip(_SPECIALS, ids, strict=True) if i is None
        )
    elif pad != 0:
        problem = "where [PAD] is not 0"
    elif tokenizer.encode("").ids != [cls, sep]:
        problem = "that does not frame a text as [CLS] ... [SEP]"
    if problem:
        raise UsageError(
            f"got a tokenizer {problem} in {directory}, wanted BERT's; choose a BERT model."
        )
    return tokenizer


def encode(texts: list[str], tokenizer: Tokenizer, max_length: int) -> tuple[np.ndarray, int]:
    """Texts -> (int32 [N, max_length], how many were cut).

    A row is [CLS] ... [SEP] and then zeros. A longer text loses its end but keeps [SEP].

    Raises:
      UsageError: max_length leaves no room for a word.
    """
    if max_length < 3:
        raise UsageError(
            f"got max_length={max_length}, wanted at least 3: [CLS], one word piece and [SEP]."
        )
    token_ids = np.zeros((len(texts), max_length), np.int32)
    cut = 0
    for row, encoding in enumerate(tokenizer.encode_batch([_valid_utf8(t) for t in texts])):
        ids = encoding.ids
        if len(ids) > max_length:
            cut += 1
            ids = [*ids[: max_length - 1], ids[-1]]
        token_ids[row, : len(ids)] = ids
    return token_ids, cut


def cached_tokens(
    texts: list[str], directory: Path, max_length: int, folder: Path
) -> tuple[np.ndarray, int]:
    """What `encode` gives by the tokenizer of a directory, from the cache folder if it is there."""
    tokenizer = load_tokenizer(directory)

    def build(notes: dict) -> list[np.ndarray]:
        token_ids, notes["cut"] = encode(texts, tokenizer, max_length)
        return [token_ids]

    described = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    key = content_key("tokens", tokenizers.__version__, described, max_length, texts)
    token_ids, notes = cached_array(folder, key, (len(texts), max_length), np.int32, build)
    return token_ids, notes["cut"]


def _valid_utf8(text: str) -> str:
    """Half a surrogate pair, as broken JSON escapes leave it, becomes "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _from_directory(directory: Path) -> Tokenizer:
    saved = directory / "tokenizer.json"
    description = json.loads(saved.read_text(encoding="utf-8")) if saved.is_file() else {}
    if "model" in description:
        return Tokenizer.from_file(str(saved))
    vocabulary = directory / "vocab.txt"
    if vocabulary.is_file():
        options_file = directory / "tokenizer_config.json"
        options = (
            json.loads(options_file.read_text(encoding="utf-8")) if options_file.is_file() else {}
        )
        return _word_piece(
            vocabulary,
            lowercase=options.get("do_lower_case", True),
            strip_accents=options.get("strip_accents"),
            chinese=options.get("tokenize_chinese_chars", True),
        )
    vocabulary = directory / "assets" / "tokenizer" / "vocabulary.txt"
    if vocabulary.is_file():
        # keras-hub's tokenizer.json describes a Keras object.
        return _word_piece(vocabulary, description.get("config", {}).get("lowercase", True))
    raise UsageError(
        f"got {directory}, which has no tokenizer.json, vocab.txt or "
        "assets/tokenizer/vocabulary.txt; name the directory of a BERT model."
    )


def _word_piece(
    vocabulary: Path, lowercase: bool, strip_accents: bool | None = None, chinese: bool = True
) -> Tokenizer:
    """BERT's pipeline over a vocabulary file with one word piece per line."""
    tokenizer = Tokenizer(WordPiece.from_file(str(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = {token: tokenizer.token_to_id(token) for token in (*_SPECIALS, "[MASK]")}
    tokenizer.add_special_tokens([token for token, id_ in ids.items() if id_ is not None])
    if ids["[SEP]"] is not None and ids["[CLS]"] is not None:
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
        )
    return tokenizer
