"""Right, before fast: what a model answers here, compared with the artifact's golden outputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.edge.artifact import ArtifactError, golden


class WrongOutputs(ArtifactError):
    """What a model answers here is not what it answered at the export; by how much."""


def compare(
    infer: Callable[[dict], dict],
    folder: Path,
    meta: dict,
    precision: str,
    batch: int,
    tolerance: dict[str, float] | None = None,
) -> tuple[dict, float]:
    """How near answers are to the golden ones; and the seconds of the first inference.

    Args:
        infer: name -> array [batch, ...], to outputs.
        tolerance: the bounds, `relative` and `cosine`; None for those of the export's ladder for
            this precision.

    Returns:
        Of the logits: "relative" difference, "allowed", "cosine".

    Raises:
        WrongOutputs: the outputs are not the artifact's.
    """
    inputs, outputs = golden(folder)
    rows, first = len(outputs["logits"]), None
    answers = {name: [] for name in outputs}
    for at in range(0, rows, batch):
        taken = np.arange(at, at + batch) % rows
        feed = fitted({name: x[taken] for name, x in inputs.items()}, meta)
        start = time.perf_counter()
        answer = infer(feed)
        first = first or time.perf_counter() - start
        for name, parts in answers.items():
            parts.append(np.asarray(answer[name], np.float64)[: rows - at])
    if tolerance is None:
        tolerance = next(r for r in meta["ladder"] if r["name"] == precision)["tolerance"]
    compared = {
        name: _compared(name, np.concatenate(parts), outputs[name].astype(np.float64), tolerance)
        for name, parts in answers.items()
    }
    return compared["logits"], first


def _compared(name: str, answer: np.ndarray, expected: np.ndarray, tolerance: dict) -> dict:
    if answer.shape != expected.shape:
        raise WrongOutputs(f"{name} are {answer.shape} where {expected.shape} is wanted.")
    max_abs = float(np.abs(answer - expected).max())
    relative = max_abs / max(1.0, float(np.abs(expected).max()))
    cosine = float((answer * expected).sum() / (np.linalg.norm(answer) * np.linalg.norm(expected)))
    # Written so that a nan does not hold.
    if not (relative <= tolerance["relative"] and cosine >= tolerance["cosine"]):
        raise WrongOutputs(
            f"{name} differ from the artifact's golden ones by up to {relative:.2g} of the "
            f"largest ({tolerance['relative']:.2g} is allowed), their cosine is {cosine:.6g} "
            f"({tolerance['cosine']:.6g} is)."
        )
    return {"relative": relative, "allowed": tolerance["relative"], "cosine": cosine}


def fitted(feed: dict[str, np.ndarray], meta: dict) -> dict[str, np.ndarray]:
    """Sentences cut to the smallest length of the artifact that holds them all."""
    if "token_ids" not in feed or meta["shapes"]["length"]:
        return feed
    ids = feed["token_ids"]
    # Artifacts of before there were others had 0.
    pad_id = meta["inputs"]["token_ids"].get("pad_id", 0)
    longest = int((ids != pad_id).sum(axis=1).max())
    length = next(size for size in meta["lengths"] if size >= longest)
    return {**feed, "token_ids": np.ascontiguousarray(ids[:, :length])}
