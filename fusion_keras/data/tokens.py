"""Texts -> token ids, with the Rust tokenizers alone (no TensorFlow, no transformers).

Equal to transformers' tokenizer on the same directory; `tests/test_tokens.py` compares
them on every sentence of the real data sets, `tests/test_tokenizers.py` those of other kinds than
BERT's. A text that spells out a special token ("[SEP]", "</s>") gets it, there as here.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from fusion_keras.data.cache import cached_array, content_key
from fusion_keras.errors import UsageError

# Of each text the tokenizer makes a kilobyte and more beside its ids.
_AT_ONCE = 8192
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# What tokenizers call the two that nothing in tokenizer.json tells, where no
# tokenizer_config.json does either.
_NAMES = {"pad_token": ("[PAD]", "<pad>"), "mask_token": ("[MASK]", "<mask>")}
# The files that a tokenizer is read from.
_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "assets/tokenizer/vocabulary.txt",
)  # fmt: skip
# How BERT's vocabularies write what is no text.
_SPECIAL = re.compile(r"\[\S+\]")


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The ids of tokens that are no words.

    Attributes:
        pad: stands behind shorter texts.
        unknown: of what the vocabulary does not know; None where every text can be written.
        mask: stands for a word that is hidden; None where there is none.
    """

    pad: int
    unknown: int | None = None
    mask: int | None = None


@dataclasses.dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer, of whichever kind, and the ids of its special tokens."""

    tokenizer: Tokenizer
    ids: SpecialIds

    @functools.cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id, of those that were added, too."""
        return self.tokenizer.get_vocab(with_added_tokens=True)


def load_tokenizer(directory: str | Path) -> TextTokenizer:
    """The tokenizer of a model directory.

    Taken from the first that is there: a Hugging Face `tokenizer.json`; `vocab.txt` with
    the options of `tokenizer_config.json`; the `assets/tokenizer/vocabulary.txt` of a
    keras-hub preset, lower-casing as its own `tokenizer.json` says. Where nothing says it, a
    vocabulary that has capitals keeps those of a text (see `casing_note`). Truncation and
    padding saved in the file are switched off: `encode` decides on the length.

    One that has not changed is the same object again: plans of many trainings ask for it.

    Raises:
      UsageError: none of them is there, a file is damaged, there is no token for padding, or a text
        is not framed by a first and a last token.
    """
    return _loaded(Path(directory), _state(directory))


def _state(directory: str | Path) -> tuple:
    """What tells whether one of the files has changed."""
    found = []
    for name in _FILES:
        with contextlib.suppress(OSError):
            status = (Path(directory) / name).stat()
            found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


@functools.lru_cache(maxsize=4)
def _loaded(directory: Path, state: tuple) -> TextTokenizer:
    try:
        tokenizer = _from_directory(directory)
    except UsageError:
        raise
    # `tokenizers` reports a bad file with a bare Exception.
    except Exception as error:
        raise UsageError(
            f"got an unreadable tokenizer in {directory} ({error}), wanted the tokenizer.json or "
            "vocab.txt of a text model; copy the directory again."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad, mask = (_special(tokenizer, kind, directory) for kind in _NAMES)
    problem = ""
    if pad is None:
        problem = (
            f"without a token for padding ({' or '.join(_NAMES['pad_token'])}, or the pad_token of "
            "tokenizer_config.json)"
        )
    elif not _frames(tokenizer):
        problem = "that does not frame a text as [CLS] ... [SEP] or <s> ... </s>"
    if problem:
        raise UsageError(
            f"got a tokenizer {problem} in {directory}, wanted that of a text encoder; choose "
            "another model."
        )
    unknown = _unknown(tokenizer)
    # CLIP's writes any text; what it calls unknown is what ends one.
    unknown = None if unknown in tokenizer.encode("").ids else unknown
    return TextTokenizer(tokenizer, SpecialIds(pad, unknown, mask))


def told_apart(tokenizer: TextTokenizer, directory: str | Path) -> TextTokenizer:
    """The same tokenizer, with an id for padding that no text has.

    CLIP's pad with what ends a text, or with "!". For models that do not read what stands at padded
    places: the id becomes that of the byte 0xFF, which UTF-8 has not. A vocabulary without bytes
    keeps its special token.

    Raises:
      UsageError: a tokenizer without such an id.
    """
    inner, pad = tokenizer.tokenizer, tokenizer.ids.pad
    # As byte-level vocabularies write that byte.
    unused = inner.token_to_id("\u00ff") if '"ByteLevel"' in inner.to_str() else None
    if unused is None:
        if pad not in inner.encode("").ids:
            return tokenizer
        raise UsageError(
            f"got a tokenizer in {directory} that pads with {inner.id_to_token(pad)!r}, which "
            "every text has, too, and has no token of the byte 0xFF, which none has; wanted a "
            "byte-level one, as CLIP's is, or a special token for padding."
        )
    return dataclasses.replace(tokenizer, ids=dataclasses.replace(tokenizer.ids, pad=unused))


def _special(tokenizer: Tokenizer, kind: str, directory: Path) -> int | None:
    """The id of a special token, called as tokenizer_config.json says or as is usual."""
    named = _json(directory / "tokenizer_config.json").get(kind)
    # Saved as a dict where it has options.
    named = named.get("content") if isinstance(named, dict) else named
    ids = [tokenizer.token_to_id(name) for name in ([named] if named else _NAMES[kind])]
    return next((i for i in ids if i is not None), None)


def _unknown(tokenizer: Tokenizer) -> int | None:
    """The id that the tokenizer writes for what its vocabulary does not know."""
    if hasattr(tokenizer.model, "unk_token"):
        token = tokenizer.model.unk_token
        return None if token is None else tokenizer.token_to_id(token)
    # Unigram, which shows it nowhere else.
    return json.loads(tokenizer.to_str())["model"].get("unk_id")


def _frames(tokenizer: Tokenizer) -> bool:
    """Whether a text has a first and a last token of its own, as the models read them."""
    frame, letter = tokenizer.encode("").ids, tokenizer.encode("a").ids
    return len(frame) == 2 and len(letter) > 2 and [letter[0], letter[-1]] == frame


def encode(texts: list[str], tokenizer: TextTokenizer, max_length: int) -> tuple[np.ndarray, int]:
    """Texts -> (int32 [N, max_length], how many were cut).

    A row is [CLS] ... [SEP], or what else frames a text, and then padding. A longer text loses its
    end but keeps its last token.

    Raises:
      UsageError: max_length leaves no room for a word.
    """
    if max_length < 3:
        raise UsageError(
            f"got max_length={max_length}, wanted at least 3: [CLS], one word piece and [SEP]."
        )
    token_ids = np.full((len(texts), max_length), tokenizer.ids.pad, np.int32)
    cut = 0
    encodings = tokenizer.tokenizer.encode_batch([_valid_utf8(t) for t in texts])
    for row, encoding in enumerate(encodings):
        ids = encoding.ids
        if len(ids) > max_length:
            cut += 1
            ids = [*ids[: max_length - 1], ids[-1]]
        token_ids[row, : len(ids)] = ids
    return token_ids, cut


def cached_tokens(
    texts: list[str], tokenizer: TextTokenizer, max_length: int, folder: Path
) -> tuple[np.ndarray, int]:
    """What `encode` gives, from the cache folder if it is there."""

    def build(notes: dict) -> Iterator[np.ndarray]:
        notes["cut"] = 0
        for start in range(0, len(texts), _AT_ONCE):
            piece = texts[start : start + _AT_ONCE]
            token_ids, cut = encode(piece, tokenizer, max_length)
            notes["cut"] += cut
            yield token_ids

    described = hashlib.sha256(tokenizer.tokenizer.to_str().encode()).hexdigest()
    library, pad = tokenizers.__version__, tokenizer.ids.pad
    key = content_key("tokens", library, described, pad, max_length, texts)
    token_ids, notes = cached_array(folder, key, (len(texts), max_length), np.int32, build)
    return token_ids, notes["cut"]


def count_unknown(token_ids: np.ndarray, tokenizer: TextTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of `encode`, int64 [N]: unknown tokens, and all but the first and the last."""
    pad, unknown = tokenizer.ids.pad, tokenizer.ids.unknown
    # No id is -1.
    counted = (token_ids == (-1 if unknown is None else unknown)).sum(axis=1)
    return counted, (token_ids != pad).sum(axis=1) - 2


def letter_ids(tokenizer: TextTokenizer) -> np.ndarray:
    """The ids of the word pieces that go on a word by a single letter; other kinds have none."""
    if not isinstance(tokenizer.tokenizer.model, WordPiece):
        return np.zeros(0, np.int64)
    pieces = tokenizer.tokenizer.get_vocab().items()
    return np.array(
        [i for piece, i in pieces if len(piece) == 3 and piece[:2] == "##" and piece[2].isalpha()],
        np.int64,
    )


def casing_note(directory: str | Path) -> str:
    """A sentence where nothing but the capitals of a vocabulary says that case matters, or ""."""
    return _noted(Path(directory), _state(directory))


@functools.lru_cache(maxsize=4)
def _noted(directory: Path, state: tuple) -> str:
    described = _described(directory)
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
        "assets/tokenizer/vocabulary.txt; name the directory of a text model (where it has another "
        "file, transformers' AutoTokenizer.from_pretrained(...).save_pretrained(...) writes the "
        "first)."
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
