"""Texts -> BERT token ids, with the Rust tokenizers alone (no TensorFlow, no transformers).

Equal to transformers' BertTokenizer on the same directory; `tests/test_tokens.py` compares
them on every sentence of the real data sets. A text that spells out "[SEP]" gets that
special token, there as here.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from fusion_keras.data.cache import cached_array, content_key
from fusion_keras.errors import UsageError

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# How BERT's vocabularies write what is no text.
_SPECIAL = re.compile(r"\[\S+\]")


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The WordPiece tokenizer of a model directory.

    Taken from the first that is there: a Hugging Face `tokenizer.json`; `vocab.txt` with
    the options of `tokenizer_config.json`; the `assets/tokenizer/vocabulary.txt` of a
    keras-hub preset, lower-casing as its own `tokenizer.json` says. Where nothing says it, a
    vocabulary that has capitals keeps those of a text (see `casing_note`). Truncation and
    padding saved in the file are switched off: `encode` decides on the length.

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
    texts: list[str], tokenizer: Tokenizer, max_length: int, folder: Path
) -> tuple[np.ndarray, int]:
    """What `encode` gives, from the cache folder if it is there."""

    def build(notes: dict) -> list[np.ndarray]:
        token_ids, notes["cut"] = encode(texts, tokenizer, max_length)
        return [token_ids]

    described = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    key = content_key("tokens", tokenizers.__version__, described, max_length, texts)
    token_ids, notes = cached_array(folder, key, (len(texts), max_length), np.int32, build)
    return token_ids, notes["cut"]


def count_unknown(token_ids: np.ndarray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of `encode`, int64 [N]: tokens that are [UNK], and all but [CLS] and [SEP]."""
    unknown = (token_ids == tokenizer.token_to_id("[UNK]")).sum(axis=1)
    return unknown, (token_ids != 0).sum(axis=1) - 2


def letter_ids(tokenizer: Tokenizer) -> np.ndarray:
    """The ids of the word pieces that go on a word by a single letter."""
    pieces = tokenizer.get_vocab().items()
    return np.array(
        [i for piece, i in pieces if len(piece) == 3 and piece[:2] == "##" and piece[2].isalpha()],
        np.int64,
    )


def casing_note(directory: str | Path) -> str:
    """A sentence where nothing but the capitals of a vocabulary says that case matters, or ""."""
    described = _described(Path(directory))
    if isinstance(described, Path) or described.lowercase is not None:
        return ""
    capitals = _capitals(described.vocabulary)
    if not capitals:
        return ""
    return (
        f"{described.vocabulary.name} is taken for a cased vocabulary, so texts keep their "
        f"capitals: nothing beside it says so, but {len(capitals)} of its entries have some "
        f"(first {capitals[0]!r}); to lower-case texts, write {described.stated_by}"
    )


def _valid_utf8(text: str) -> str:
    """Half a surrogate pair, as broken JSON escapes leave it, becomes "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclasses.dataclass(frozen=True)
class _WordPieces:
    """A vocabulary file, one word piece a line, and what is said of BERT's pipeline over it.

    lowercase: None where nothing says it; stated_by: what would.
    """

    vocabulary: Path
    stated_by: str
    lowercase: bool | None
    strip_accents: bool | None = None
    chinese: bool = True


def _described(directory: Path) -> Path | _WordPieces:
    """What describes a directory's tokenizer: a whole tokenizer.json, or a vocabulary."""
    saved = directory / "tokenizer.json"
    description = _json(saved)
    if "model" in description:
        return saved
    vocabulary = directory / "vocab.txt"
    if vocabulary.is_file():
        options = _json(directory / "tokenizer_config.json")
        return _WordPieces(
            vocabulary,
            '{"do_lower_case": true} into tokenizer_config.json',
            lowercase=options.get("do_lower_case"),
            strip_accents=options.get("strip_accents"),
            chinese=options.get("tokenize_chinese_chars", True),
        )
    vocabulary = directory / "assets" / "tokenizer" / "vocabulary.txt"
    if vocabulary.is_file():
        # keras-hub's tokenizer.json describes a Keras object.
        lowercase = description.get("config", {}).get("lowercase")
        return _WordPieces(vocabulary, '"lowercase": true into tokenizer.json', lowercase)
    raise UsageError(
        f"got {directory}, which has no tokenizer.json, vocab.txt or "
        "assets/tokenizer/vocabulary.txt; name the directory of a BERT model."
    )


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _from_directory(directory: Path) -> Tokenizer:
    described = _described(directory)
    if isinstance(described, Path):
        return Tokenizer.from_file(str(described))
    return _word_piece(described)


def _word_piece(described: _WordPieces) -> Tokenizer:
    """BERT's pipeline over a vocabulary."""
    vocabulary, lowercase = described.vocabulary, described.lowercase
    tokenizer = Tokenizer(WordPiece.from_file(str(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=not _capitals(vocabulary) if lowercase is None else lowercase,
        strip_accents=described.strip_accents,
        handle_chinese_chars=described.chinese,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ids = {token: tokenizer.token_to_id(token) for token in (*_SPECIALS, "[MASK]")}
    tokenizer.add_special_tokens([token for token, id_ in ids.items() if id_ is not None])
    if ids["[SEP]"] is not None and ids["[CLS]"] is not None:
        tokenizer.post_processor = processors.BertProcessing(
            ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
        )
    return tokenizer


def _capitals(vocabulary: Path) -> list[str]:
    """The entries that no lower-cased text has; special tokens, in brackets, are not among them."""
    entries = vocabulary.read_text(encoding="utf-8").split("\n")
    return [e for e in map(str.strip, entries) if e != e.lower() and not _SPECIAL.fullmatch(e)]
