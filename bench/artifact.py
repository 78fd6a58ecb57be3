"""Reading an exported artifact: a folder with `meta.json` and what its hashes name.

Standard library and numpy only: this file goes to the device.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

META = "meta.json"
FORMAT = "fusion_keras artifact 1"


class ArtifactError(Exception):
    """The artifact cannot be used; the message says which file and what to do."""


def digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()


def seal_of(meta: dict) -> str:
    """sha256 of everything in `meta.json` but the seal itself, as plain JSON."""
    plain = {name: value for name, value in meta.items() if name != "seal"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> dict:
    """The checked `meta.json` of an artifact.

    Raises:
        ArtifactError: not an artifact, or a file is missing, cut short or changed.
    """
    path = Path(folder) / META
    try:
        meta = json.loads(path.read_text())
        whole = meta["seal"] == seal_of(meta)
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} is no artifact, it has no {META}: give a folder that `python -m export` "
            "wrote."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): copy the artifact again.") from None
    if not whole:
        raise ArtifactError(f"{path} was changed since the export: copy the artifact again.")
    for name, wanted in meta["files"].items():
        file = Path(folder) / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing: copy the artifact again.")
        if digest(file) != wanted:
            raise ArtifactError(
                f"{file} is not the file that was exported: it is cut short or was changed. Copy "
                "the artifact again."
            )
    return meta


def golden(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, outputs) of a few real examples, name -> [N, ...]; the outputs are JAX's."""
    with np.load(Path(folder) / "golden.npz", allow_pickle=False) as arrays:
        split = {
            kind: {n.removeprefix(kind): arrays[n] for n in arrays.files if n.startswith(kind)}
            for kind in ("input_", "output_")
        }
    return split["input_"], split["output_"]
