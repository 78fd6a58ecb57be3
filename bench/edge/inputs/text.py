"""A sentence -> token ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError


class Tokens:
    """Sentences -> int32 [1, T] of an artifact."""

    def __init__(self, folder: Path, meta: dict):
        from tokenizers import Tokenizer

        path = Path(folder) / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more special
            raise ArtifactError(f"{path} cannot be read ({error}).") from None
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.lengths = meta["lengths"]

    def __call__(self, text: str | None) -> np.ndarray:
        """Ids of one sentence, padded with 0 to the shortest length that holds it; None is "".

        A longer one than the longest loses its end, but keeps its last token, [SEP].
        """
        ids = self._ids(text)
        longest = self.lengths[-1]
        if len(ids) > longest:
            ids = [*ids[: longest - 1], ids[-1]]
        length = next(size for size in self.lengths if size >= len(ids))
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(ids)] = ids
        return padded

    def note(self, text: str | None) -> str:
        """What of a sentence the model does not get, said in a sentence; empty if it gets all."""
        count, longest = len(self._ids(text)), self.lengths[-1]
        if count <= longest:
            return ""
        return (
            f"the sentence is {count} tokens long and the model takes {longest}: its last "
            f"{count - longest} were left out. Give it in parts, or train with a larger "
            "config.data.max_length."
        )

    def _ids(self, text: str | None) -> list[int]:
        # Half a surrogate pair, as broken JSON escapes leave it, becomes "?".
        text = text or ""
        return self.tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8")).ids


def queries(folder: Path) -> list[str]:
    """The sentences of an artifact's `queries`."""
    return json.loads((folder / "texts.json").read_text(encoding="utf-8"))
