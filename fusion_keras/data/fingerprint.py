"""The fingerprint of what is trained on, by which a run knows its data again; kept in the cache.

What it is kept under is of the same content, read where it is small: of rows that are picked the
array that they are picked of and their numbers, and of an array of the cache the digest that was
compared when it was opened. So nothing has to be known of files, and what has changed is not found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.cache import cached_array, content_key, known_digest
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.data.picked import Column, Picked
from fusion_keras.errors import UsageError

_ROWS_AT_ONCE = 4096


def fingerprint(
    fields: Sequence,
    inputs: Mapping[str, np.ndarray | Column | Picked],
    present: Mapping[str, np.ndarray],
    folder: Path | None = None,
) -> str:
    """sha256 over fields and inputs, as hexadecimal digits.

    Args:
      fields: what does not depend on the model, as JSON types.
      inputs: modality -> [N, ...].
      present: modality -> bool [N], see `records.Dataset`.
      folder: the cache folder; None computes it anew. Where it cannot be written nothing is kept.
    """
    described = json.dumps(fields).encode()
    if folder is None:
        return _computed(described, inputs, present)

    def build(notes: dict) -> Iterator[np.ndarray]:
        found = _computed(described, inputs, present)
        yield np.frombuffer(bytes.fromhex(found), np.uint8)[None]

    contents = {m: [_content(x), _content(present.get(m))] for m, x in inputs.items()}
    key = content_key("fingerprint 1", hashlib.sha256(described).hexdigest(), contents)
    try:
        kept, _ = cached_array(folder, key, (1, 32), np.uint8, build)
    except UsageError:
        return _computed(described, inputs, present)
    return kept[0].tobytes().hex()


def _computed(described: bytes, inputs: Mapping, present: Mapping) -> str:
    digest = hashlib.sha256(described)
    # Images and texts count also where they are not read; others where they are, so that the
    # fingerprint without them is that of the versions that knew none.
    for modality in ("image", "text", *(m for m in MODALITIES if m not in ("image", "text"))):
        if modality in inputs:
            values = inputs[modality]
            digest.update(str(values.shape).encode())
            for start in range(0, len(values), _ROWS_AT_ONCE):
                digest.update(np.ascontiguousarray(values[start : start + _ROWS_AT_ONCE]))
            if modality in present:
                digest.update(present[modality])
        elif modality in ("image", "text"):
            digest.update(b"none")
    return digest.hexdigest()


def _content(values: np.ndarray | Picked | None):
    """What tells these values from all others, as JSON types."""
    if values is None:
        return None
    if isinstance(values, Picked):
        return [*map(_content, values.arrays), _content(values.numbers)]
    if known := known_digest(values):
        return known
    digest = hashlib.sha256(np.ascontiguousarray(values)).hexdigest()
    return [values.dtype.str, values.shape, digest]
