"""A sentence, or the cells that are joined into one -> token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError
from bench.edge.errors import InputError
from bench.edge.inputs.given import written

# What `predict` is given: a sentence as it stands; column -> cell; or what a command line has.
Given = str | Mapping[str, object] | Sequence[str] | None


def sentence(given: Given, spec: dict) -> str:
    """What of what is given goes to the tokenizer; None is "".

    Args:
        given: see `Given`. A command line has one sentence or, where the model's text is joined
            from columns, NAME=VALUE for each that is not empty.
        spec: `inputs` of `meta.json` for the tokens.

    Raises:
        InputError: no text, an empty one, which is none in training, too, several sentences, or a
            cell without a name or of a column that is not read.
    """
    if given is None:
        return ""
    found = given if isinstance(given, str) else _only(given, spec)
    if not found.strip():
        raise InputError(
            "The text is empty: give some, or leave it out where the model has learned to do "
            "without."
        )
    return found


def _only(given: Mapping[str, object] | Sequence[str], spec: dict) -> str:
    """The sentence among what a command line has, or of cells."""
    listed = isinstance(given, (list, tuple)) and all(isinstance(part, str) for part in given)
    if not (listed or isinstance(given, Mapping)):
        raise InputError(f"The text is {type(given).__name__}: a sentence is wanted.")
    columns = spec.get("columns", ())
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in columns]
        if unknown:
            raise InputError(
                f"The model's text has no column {unknown[0]!r}; "
                + (f"it has {', '.join(columns)}." if columns else "it is one sentence.")
            )
        return joined(given, spec)
    if columns:
        cells = [_named(word, columns) for word in given]
        if len(dict(cells)) < len(cells):
            raise InputError("--text names a column twice: give each once.")
        return joined(dict(cells), spec)
    if len(given) != 1:
        raise InputError(f"--text came {len(given)} times; the model takes one sentence.")
    return given[0]


def joined(cells: Mapping[str, object], spec: dict) -> str:
    """The text that training made of such cells: those that are empty or missing are left out."""
    parts = []
    for column in spec["columns"]:
        cell = written(cells.get(column))
        if cell and cell.casefold() not in spec["missing"]:
            parts.append(f"{column}: {cell}" if spec["names"] else cell)
    return spec["join"].join(parts)


def _named(word: str, columns: Sequence[str]) -> tuple[str, str]:
    # The longest first: a name may hold "=".
    for column in sorted(columns, key=len, reverse=True):
        if word.startswith(f"{column}="):
            return column, word[len(column) + 1 :]
    raise InputError(
        f"The model's text is joined from {', '.join(columns)}, and {word!r} begins with none "
        f'of them: give each as --text NAME=VALUE, as in --text "{columns[0]}=...".'
    )


class Tokens:
    """Sentences, or cells, -> int32 [1, T] of an artifact."""

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
        self.spec = meta["inputs"].get("token_ids", {})
        self.pad_id = self.spec.get("pad_id", 0)
        unknown = _unknown(self.tokenizer)
        # CLIP's writes any text; what it calls unknown is what ends one.
        self.unknown_id = None if unknown in self.tokenizer.encode("").ids else unknown

    def __call__(self, given: Given) -> np.ndarray:
        """Ids of one `sentence`, padded to the shortest length that holds it.

        A longer one than the longest loses its end, but keeps its last token, [SEP] or what the
        vocabulary calls it.
        """
        return self.noted(given)[0]

    def noted(self, given: Given) -> tuple[np.ndarray, str]:
        """The same, and what of the sentence the model does not get, in sentences; "" if all."""
        ids = self._ids(given)
        note, longest = self._note(ids), self.lengths[-1]
        if len(ids) > longest:
            ids = [*ids[: longest - 1], ids[-1]]
        length = next(size for size in self.lengths if size >= len(ids))
        padded = np.full((1, length), self.pad_id, np.int32)
        padded[0, : len(ids)] = ids
        return padded, note

    def _note(self, ids: list[int]) -> str:
        longest, notes = self.lengths[-1], []
        if len(ids) > longest:
            notes.append(
                f"the sentence is {len(ids)} tokens long and the model takes {longest}: its last "
                f"{len(ids) - longest} were left out. Give it in parts, or train with a larger "
                "config.data.max_length."
            )
        unknown = ids.count(self.unknown_id)
        if unknown:
            notes.append(
                f"{unknown} of the sentence's {len(ids) - 2} tokens are unknown to the model's "
                "vocabulary."
            )
        return " ".join(notes)

    def _ids(self, given: Given) -> list[int]:
        # Half a surrogate pair, as broken JSON escapes leave it, becomes "?".
        text = sentence(given, self.spec)
        return self.tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8")).ids


def _unknown(tokenizer) -> int | None:
    """The id that a tokenizer writes for what its vocabulary does not know."""
    if hasattr(tokenizer.model, "unk_token"):
        token = tokenizer.model.unk_token
        return None if token is None else tokenizer.token_to_id(token)
    # Unigram, which shows it nowhere else.
    return json.loads(tokenizer.to_str())["model"].get("unk_id")


def queries(folder: Path) -> list[str]:
    """The sentences of an artifact's `queries`."""
    return json.loads((folder / "texts.json").read_text(encoding="utf-8"))
