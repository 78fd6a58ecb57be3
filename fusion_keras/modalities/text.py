"""Text: sentences as token ids, encoded by BERT or another text encoder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from fusion_keras.backbones import backbone_weights
from fusion_keras.backbones.facts import Facts
from fusion_keras.backbones.presets import TextPreset, find_text, load_text
from fusion_keras.data.records import SPLITS, Dataset, Reading, Records
from fusion_keras.data.table import shortened
from fusion_keras.data.text_columns import TextColumns
from fusion_keras.data.tokens import (
    TextTokenizer,
    cached_tokens,
    casing_note,
    count_unknown,
    encode,
    letter_ids,
    load_tokenizer,
    told_apart,
)
from fusion_keras.errors import UsageError
from fusion_keras.modalities.base import Layers, Modality, digest

# English comes to 0.03 of the tokens, Russian with an English vocabulary to 0.7.
MANY_LETTERS = 0.3
# Rows that a plan reads, spread over the table: a fifth of a second.
_LOOKED_AT = 1000
_register = keras.saving.register_keras_serializable(package="fusion_keras")


@_register
class PaddingMask(layers.Layer):
    """int32 [B, T] token ids -> int32 [B, T], 1 for real tokens; padding has id `pad_id`."""

    def __init__(self, pad_id: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.pad_id = pad_id

    def call(self, token_ids):
        # CUDA compares no integers, but takes one from the other.
        apart = token_ids - self.pad_id if self.pad_id else token_ids
        return ops.cast(ops.not_equal(apart, 0), "int32")

    def get_config(self):
        return {**super().get_config(), "pad_id": self.pad_id}


@_register
class SegmentIds(layers.Layer):
    """int32 [B, T] token ids -> zeros: a single sentence has one segment."""

    def call(self, token_ids):
        return ops.zeros_like(token_ids)


@dataclasses.dataclass(frozen=True)
class TextReader:
    """Sentences -> token ids int32 [N, max_length], [CLS] ... [SEP] and then padding.

    Attributes:
        tokenizer: of the preset.
        max_unknown: greatest share of a split's tokens that may be unknown to its vocabulary.
        notes: what is to be said of the tokenizer.
    """

    tokenizer: TextTokenizer
    max_length: int
    max_unknown: float = 1.0
    notes: tuple[str, ...] = ()

    def require(self, records: Records) -> None:
        """There must be sentences, and the vocabulary must know those that a look takes in."""
        _check_texts(records)
        rows = np.arange(0, len(records), max(1, len(records) // _LOOKED_AT))
        some = [records.raw["text"][row] or "" for row in rows]
        token_ids, _ = encode(some, self.tokenizer, self.max_length)
        self._check("", records, rows, *count_unknown(token_ids, self.tokenizer))

    def read(self, records: Records, folder: Path) -> Reading:
        _check_texts(records)
        # A row without a text has no token that could be unknown.
        texts = [text or "" for text in records.raw["text"]]
        token_ids, cut = cached_tokens(texts, self.tokenizer, self.max_length, folder)
        notes = list(self.notes)
        if cut:
            notes.append(f"{cut} of {len(texts)} texts were cut to {self.max_length} tokens")
        unknown, tokens = count_unknown(token_ids, self.tokenizer)
        rows_of = {"unlabelled": np.arange(len(texts))}
        if records.splits is not None:
            rows_of = {s: np.flatnonzero(np.asarray(records.splits) == s) for s in SPLITS}
        for split, rows in rows_of.items():
            self._check(f"{split} ", records, rows, unknown[rows], tokens[rows])
        if unknown.any():
            shares = [f"{_share(unknown[r], tokens[r])} in {s}" for s, r in rows_of.items()]
            nothing = int(((unknown == tokens) & (tokens > 0)).sum())
            alone = f"; {nothing} texts are nothing else" if nothing else ""
            first = _first(records, np.arange(len(records)), unknown)
            token = self.tokenizer.tokenizer.id_to_token(self.tokenizer.ids.unknown)
            notes.append(
                f"unknown to the vocabulary, read as {token}: {', '.join(shares)} ({first}){alone}"
            )
        letters = np.isin(token_ids, letter_ids(self.tokenizer)).sum(axis=1)
        if letters.sum() > MANY_LETTERS * tokens.sum():
            first = _first(records, np.arange(len(records)), letters > MANY_LETTERS * tokens)
            notes.append(
                f"{_share(letters, tokens)} are single letters within a word ({first}): the "
                "vocabulary knows the letters of such words and not the words; a "
                "config.text.preset of their language would"
            )
        return Reading(token_ids, notes=tuple(notes))

    def _check(self, split: str, records: Records, rows, unknown, tokens) -> None:
        """Raises UsageError where too much is unknown; `unknown`, `tokens` are those of `rows`."""
        if unknown.sum() > self.max_unknown * tokens.sum():
            too_many = unknown > self.max_unknown * tokens
            token = self.tokenizer.tokenizer.id_to_token(self.tokenizer.ids.unknown)
            raise UsageError(
                f"got {_share(unknown, tokens)} of the {split}texts that the vocabulary does not "
                f"know and reads as {token} ({_first(records, rows, too_many)}), wanted at most "
                f"{self.max_unknown:.0%}: choose a config.text.preset that knows their language "
                "and script, or raise config.text.max_unknown."
            )


def _check_texts(records: Records) -> None:
    if not records.any_of("text"):
        raise UsageError(
            f"got the source {records.name!r} without texts, wanted some for this model; name "
            "their column (data.manifest.text_column), or choose variant=image or other "
            "--config.fusion.modalities."
        )


def _share(unknown: np.ndarray, tokens: np.ndarray) -> str:
    count, every = int(unknown.sum()), int(tokens.sum())
    return f"{count} of {every} tokens ({count / max(every, 1):.1%})"


def _first(records: Records, rows: np.ndarray, chosen: np.ndarray) -> str:
    row = int(rows[np.flatnonzero(chosen)[0]])
    where = records.origins[row] if records.origins else records.ids[row]
    return f"first {where}: {shortened(records.raw['text'][row])!r}"


def _check_fits(tokenizer: TextTokenizer, rows: int, pad_id: int, directory: Path) -> None:
    """Raises UsageError for an id that has no row in the embedding, as its vector would be NaN, or
    where the model takes another id for padding."""
    ids = tokenizer.vocabulary
    count = max(ids.values()) + 1
    if count > rows:
        beyond = min((t for t, index in ids.items() if index >= rows), key=ids.get)
        raise UsageError(
            f"got a tokenizer of {count} ids in {directory} ({beyond!r} is id {ids[beyond]}), and "
            f"an embedding of {rows} rows by its config.json; wanted a row for each id. Copy "
            "tokenizer and weights from one checkpoint; where tokens were added, call "
            "resize_token_embeddings(len(tokenizer)) in transformers and save the model again."
        )
    if tokenizer.ids.pad != pad_id:
        token = tokenizer.tokenizer.id_to_token(tokenizer.ids.pad)
        raise UsageError(
            f"got a tokenizer that pads with id {tokenizer.ids.pad} ({token!r}) in {directory}, "
            f"and a model that takes id {pad_id} for padding; wanted the same. Copy tokenizer and "
            "weights from one checkpoint, or set pad_token_id in its config.json."
        )


class Text(Modality):
    """Sentences."""

    name = "text"
    noun, plural = "sentence", "sentences"
    padded = True

    def reader(self, config) -> TextReader:
        preset, length, limit = config.text.preset, config.data.max_length, config.text.max_unknown
        source, directory = find_text(preset)
        longest = source.cls.longest_sequence(source.described)
        # [CLS], a word piece and [SEP] at least.
        if not 3 <= length <= longest:
            raise UsageError(
                f"config.data.max_length is {length}; {preset} takes 3 to {longest} tokens."
            )
        if not 0 <= limit <= 1:
            raise UsageError(
                f"config.text.max_unknown is {limit}; a share of the tokens, 0 to 1, is wanted."
            )
        tokenizer = load_tokenizer(directory)
        rows, pad_id = (
            of(source.described) for of in (source.cls.vocabulary_size_of, source.cls.pad_id_of)
        )
        if source.cls.any_padding:
            tokenizer = told_apart(tokenizer, directory)
            pad_id = tokenizer.ids.pad
        _check_fits(tokenizer, rows, pad_id, directory)
        note = casing_note(directory)
        return TextReader(tokenizer, length, limit, (note,) if note else ())

    def contents(self, dataset: Dataset) -> list[str]:
        # The sentences are there also where nothing reads them.
        return [
            "" if text is None else digest(text.encode("utf-8", "surrogatepass"))
            for text in dataset.raw["text"]
        ]

    def described(self, preset: TextPreset, config) -> dict:
        known = {"max_length": config.data.max_length, "pad_id": preset.backbone.pad_id}
        if config.data.source != "manifest":
            return known
        return known | TextColumns.of_settings(config.data.manifest).described()

    def files_of(self, preset: TextPreset) -> dict[str, bytes]:
        tokenizer = load_tokenizer(preset.tokenizer_dir).tokenizer
        return {"tokenizer.json": tokenizer.to_str(pretty=False).encode()}

    def one(self, given, reader: TextReader, described):
        if not isinstance(given, str):
            raise TypeError(f"got {type(given).__name__}, wanted a sentence")
        return encode([given], reader.tokenizer, reader.max_length)[0][0]

    def nothing(self, count, reader: TextReader, described):
        return encode([""] * count, reader.tokenizer, reader.max_length)[0]

    def write_raw(self, folder: Path, index: int, dataset: Dataset, row: int) -> None:
        path = folder / "texts.json"
        texts = json.loads(path.read_text()) if index else []
        path.write_text(json.dumps([*texts, dataset.raw["text"][row]], indent=1) + "\n")

    def emptied(self, values: np.ndarray, rows: np.ndarray, preset: TextPreset) -> np.ndarray:
        # Its first and last token side by side, [CLS] and [SEP].
        values, pad_id = values.copy(), preset.backbone.pad_id
        last = np.maximum((values != pad_id).sum(axis=1) - 1, 1)
        values[rows, 1] = values[np.arange(len(last)), last][rows]
        values[rows, 2:] = pad_id
        return values

    def facts(self, config) -> Facts:
        return find_text(config.text.preset)[0].facts

    def load(self, config, encoding: dict | None = None) -> TextPreset:
        return load_text(config.text.preset, config.text.dropout)

    def word_vectors(self, config) -> np.ndarray:
        """float32 [V, D]: what the preset embeds each token id as, wherever it stands."""
        embedding = self.load(config).backbone.get_layer("token_embedding").embeddings
        return np.asarray(embedding, np.float32)

    def placeholder(self, preset: TextPreset, length: int | None) -> keras.KerasTensor:
        return keras.Input((length,), dtype="int32", name=self.input)

    def feed(self, x, layer: Layers, part: keras.Model, preset: TextPreset | None = None):
        mask = layer("padding_mask", lambda name: PaddingMask(preset.backbone.pad_id, name=name))(x)
        fed = {"token_ids": x, "padding_mask": mask}
        if "segment_ids" in part.input:
            fed["segment_ids"] = layer("segment_ids", lambda name: SegmentIds(name=name))(x)
        return fed, mask

    def weights(self, part: keras.Model) -> dict:
        return backbone_weights.text(part)
