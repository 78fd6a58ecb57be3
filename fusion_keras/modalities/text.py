"""Text: sentences as token ids, encoded by BERT."""

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
from fusion_keras.data.records import Dataset, Reading, Records
from fusion_keras.data.tokens import cached_tokens, load_tokenizer
from fusion_keras.errors import UsageError
from fusion_keras.modalities.base import Layers, Modality, digest

_register = keras.saving.register_keras_serializable(package="fusion_keras")


@_register
class PaddingMask(layers.Layer):
    """int32 [B, T] token ids -> int32 [B, T], 1 for real tokens; padding has id 0."""

    def call(self, token_ids):
        return ops.cast(ops.not_equal(token_ids, 0), "int32")


@_register
class SegmentIds(layers.Layer):
    """int32 [B, T] token ids -> zeros: a single sentence has one segment."""

    def call(self, token_ids):
        return ops.zeros_like(token_ids)


@dataclasses.dataclass(frozen=True)
class TextReader:
    """Sentences -> token ids int32 [N, max_length], [CLS] ... [SEP] and then zeros."""

    tokenizer_dir: Path
    max_length: int

    def require(self, records: Records) -> None:
        """Every source has sentences."""

    def read(self, records: Records, folder: Path) -> Reading:
        texts = [text or "" for text in records.raw["text"]]
        token_ids, cut = cached_tokens(texts, self.tokenizer_dir, self.max_length, folder)
        note = f"{cut} of {len(texts)} texts were cut to {self.max_length} tokens"
        return Reading(token_ids, notes=(note,) if cut else ())


class Text(Modality):
    """Sentences."""

    name = "text"
    noun, plural = "sentence", "sentences"
    padded = True

    def reader(self, config) -> TextReader:
        source, tokenizer_dir = find_text(config.text.preset)
        length, longest = config.data.max_length, source.cls.longest_sequence(source.described)
        # [CLS], a word piece and [SEP] at least.
        if not 3 <= length <= longest:
            raise UsageError(
                f"config.data.max_length is {length}; {config.text.preset} takes 3 to {longest} "
                "tokens."
            )
        return TextReader(tokenizer_dir, length)

    def contents(self, dataset: Dataset) -> list[str]:
        # The sentences are there also where nothing reads them.
        return [
            "" if text is None else digest(text.encode("utf-8", "surrogatepass"))
            for text in dataset.raw["text"]
        ]

    def described(self, preset: TextPreset, config) -> dict:
        return {"max_length": config.data.max_length, "pad_id": 0}

    def files_of(self, preset: TextPreset) -> dict[str, bytes]:
        tokenizer = load_tokenizer(preset.tokenizer_dir)
        return {"tokenizer.json": tokenizer.to_str(pretty=False).encode()}

    def write_raw(self, folder: Path, index: int, dataset: Dataset, row: int) -> None:
        path = folder / "texts.json"
        texts = json.loads(path.read_text()) if index else []
        path.write_text(json.dumps([*texts, dataset.raw["text"][row]], indent=1) + "\n")

    def emptied(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        # Its first and last token side by side, [CLS] and [SEP].
        values = values.copy()
        last = np.maximum((values != 0).sum(axis=1) - 1, 1)
        values[rows, 1] = values[np.arange(len(last)), last][rows]
        values[rows, 2:] = 0
        return values

    def facts(self, config) -> Facts:
        return find_text(config.text.preset)[0].facts

    def load(self, config, encoding: dict | None = None) -> TextPreset:
        return load_text(config.text.preset, config.text.dropout)

    def placeholder(self, preset: TextPreset, length: int | None) -> keras.KerasTensor:
        return keras.Input((length,), dtype="int32", name=self.input)

    def feed(self, x, layer: Layers, preset: TextPreset | None = None):
        mask = layer("padding_mask", lambda name: PaddingMask(name=name))(x)
        segments = layer("segment_ids", lambda name: SegmentIds(name=name))(x)
        return {"token_ids": x, "segment_ids": segments, "padding_mask": mask}, mask

    def weights(self, part: keras.Model) -> dict:
        return backbone_weights.text(part)
