"""Reading an exported artifact: a folder with `meta.json` and what its hashes name.

Standard library and numpy only: this file goes to the device.
"""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np

from bench.edge.errors import BenchError
from bench.edge.files import digest

META = "meta.json"
FORMAT = "fusion_keras artifact 2"


class ArtifactError(BenchError):
    """The artifact cannot be used; the message says which file and what to do."""


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
        stated = meta.get("format", "an older format")
        whole = stated != FORMAT or meta["seal"] == seal_of(meta)
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{folder} is no artifact, it has no {META}: give a folder that `python -m export` "
            "wrote."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): copy the artifact again.") from None
    if stated != FORMAT:
        raise ArtifactError(f"{folder} is of {stated!r}, {FORMAT!r} is wanted: export it again.")
    if not whole:
        raise ArtifactError(f"{path} was changed since the export: copy the artifact again.")
    for name, sha256 in meta["files"].items():
        file = Path(folder) / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing: copy the artifact again.")
        try:
            same = digest(file) == sha256
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error.strerror}).") from None
        if not same:
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


def queries(folder: Path) -> dict[str, np.ndarray]:
    """Validation rows as the model takes them, name -> [N, ...]; sentences fully padded."""
    with np.load(Path(folder) / "queries.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def described(folder: Path, meta: dict) -> dict:
    """What a result and a report say of an artifact.

    Returns:
        path, seal, variant, seed, spec, dataset (its name), backbones (modality -> preset),
        classes, label_kind ("single" or "multi"), lengths, shapes, models (precision -> nodes,
        accuracy, allowed_loss: the share that the export allowed it to lose), allow_loss (points,
        where the user set that, or None), notes of the export, and test: ids (sha256 of the rows
        and their labels, in order), groups (a name for each row, or None), labels, and predicted
        (precision -> the class of each row), both as indices into classes; of several labels a row
        as text, "0 2", of which all must be right for the accuracy.
    """
    kind = meta.get("label_kind", "single")
    return {
        "path": str(folder),
        **{
            name: meta[name] for name in ("seal", "variant", "seed", "spec", "backbones", "classes")
        },
        "label_kind": kind,
        "dataset": meta["dataset"]["name"],
        "lengths": meta["lengths"],
        "shapes": meta["shapes"],
        "models": {
            name: {
                "nodes": model["nodes"],
                "accuracy": model["metrics"]["accuracy"],
                "allowed_loss": model.get("allowed_loss"),
            }
            for name, model in meta["models"].items()
        },
        # Artifacts of before have neither.
        "allow_loss": meta.get("allow_loss"),
        "notes": meta.get("notes", []),
        "test": _test(Path(folder) / "test.csv", list(meta["models"]), kind),
    }


def _test(path: Path, precisions: list[str], label_kind: str) -> dict:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    read = int if label_kind == "single" else str
    labels = [read(row["label"]) for row in rows]
    named = json.dumps([[row["id"], label] for row, label in zip(rows, labels, strict=True)])
    return {
        "ids": hashlib.sha256(named.encode()).hexdigest(),
        "groups": [row["group"] for row in rows] if rows and "group" in rows[0] else None,
        "labels": labels,
        "predicted": {name: [read(row[name]) for row in rows] for name in precisions},
    }
