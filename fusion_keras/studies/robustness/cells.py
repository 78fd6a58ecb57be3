"""The cells of a robustness measurement: computed once, kept in a JSON file as they come.

A cell is one model, one corruption and one strength, and holds in how many draws each row was
answered rightly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fusion_keras import files, terminal
from fusion_keras.data.corrupt import CORRUPTIONS, MISSING, corrupted, present
from fusion_keras.data.tokens import encode
from fusion_keras.errors import UsageError
from fusion_keras.interrupts import Interrupts
from fusion_keras.modalities import MODALITY
from fusion_keras.studies.robustness.models import Contender, Rows
from fusion_keras.training.run import changes, worded

FORMAT = "fusion_keras robustness 1"

# Where a model's right answers to the undamaged rows are.
CLEAN = "clean"


def input_of(corruption: str) -> str:
    """The input of a model that a corruption reaches in the end."""
    return MODALITY[CORRUPTIONS[corruption].modality].input


def cell_name(corruption: str, strength: float) -> str:
    """What the file calls a cell."""
    return f"{corruption} {strength!r}"


def draws(corruption: str, repeats: int) -> int:
    """How often a corruption is drawn: what has no chance in it, once."""
    return repeats if CORRUPTIONS[corruption].random else 1


class Store:
    """The JSON file: what was measured under which settings.

    Attributes:
        content: format, settings, rows (count, groups, majority) and cells: model -> cell ->
            how many draws each row was answered rightly in; in the end also models, curves, ...
    """

    def __init__(self, path: Path, rows: Rows, *, split: str, seed: int, repeats: int):
        """Go on with the file, if it is there.

        Raises:
            UsageError: it was measured with other settings, or is no such file.
        """
        self.path = path
        self.content = {
            "format": FORMAT,
            "settings": {
                "dataset": rows.name,
                "split": split,
                "rows": rows.digest,
                "seed": seed,
                "repeats": repeats,
            },
            "rows": _described(rows),
            "cells": {},
        }
        if path.exists():
            self.content["cells"] = self._before()

    @property
    def settings(self) -> dict:
        return self.content["settings"]

    def _before(self) -> dict:
        try:
            before = json.loads(self.path.read_text())
            format_, settings = before["format"], before["settings"]
            cells = {key: dict(held) for key, held in before["cells"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            format_, settings, cells = None, {}, {}
        if format_ != FORMAT:
            raise UsageError(
                f"{self.path} is there and holds no robustness of this version: give another "
                "--out, or remove it."
            )
        if changed := worded(changes(settings, self.settings)):
            raise UsageError(
                f"{self.path} was measured with other settings ({'; '.join(changed)}): give "
                "another --out, or remove it."
            )
        return cells

    def has(self, key: str, cell: str) -> bool:
        return cell in self.content["cells"].get(key, {})

    def add(self, key: str, cell: str, counts: np.ndarray) -> None:
        self.content["cells"].setdefault(key, {})[cell] = counts.tolist()

    def write(self, **more) -> None:
        """Write the file so that it is whole or as it was; `more` joins what it holds."""
        self.content |= more
        with files.disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        files.write(self.path, (json.dumps(self.content, allow_nan=False) + "\n").encode())


def _described(rows: Rows) -> dict:
    shares = np.bincount(rows.labels) / len(rows.labels)
    return {
        "count": len(rows.labels),
        "groups": None if rows.groups is None else len(set(rows.groups)),
        "majority": [rows.classes[shares.argmax()], float(shares.max())],
    }


def fill(store: Store, contenders: Sequence[Contender], grid: dict[str, tuple[float, ...]]) -> None:
    """Compute every cell that is not in the store, and write it as soon as it is there.

    Args:
        grid: corruption -> strengths, without 0; all are measured undamaged, too.
    """
    grid_cells = [(CLEAN, "", 0.0)]
    grid_cells += [(cell_name(n, s), n, s) for n, strengths in grid.items() for s in strengths]
    missing = {
        cell: [
            c
            for c in contenders
            if not store.has(c.key, cell) and (not n or input_of(n) in c.rows.inputs)
        ]
        for cell, n, _ in grid_cells
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=terminal.console())
    with bar as progress, Interrupts() as interrupts:
        task = progress.add_task("", total=sum(map(len, missing.values())))
        for cell, name, strength in grid_cells:
            progress.update(task, description=cell)
            counts = _counts(missing[cell], name, strength, store.settings)
            for key, rightly in counts.items():
                store.add(key, cell, rightly)
            if counts:
                store.write()
            progress.advance(task, len(missing[cell]))
            interrupts.check()


def _counts(contenders, name: str, strength: float, settings: dict) -> dict[str, np.ndarray]:
    """Key of a model -> in how many draws each row is right, int [n]."""
    totals: dict[str, np.ndarray] = {}
    for repeat in range(draws(name, settings["repeats"]) if name else 1):
        made: dict[str, dict] = {}
        for contender in {c.key: c for c in contenders}.values():
            rows = contender.rows
            changed = {}
            if name:
                same = _same(rows, name)
                if same not in made:
                    made[same] = damaged(rows, name, strength, settings["seed"], repeat)
                changed = made[same]
            right = (contender.classes(changed) == rows.labels).astype(int)
            totals[contender.key] = totals.get(contender.key, 0) + right
    return totals


def _same(rows: Rows, name: str) -> str:
    """Equal for rows that a corruption changes alike."""
    array = rows.inputs[input_of(name)]
    is_told = MISSING.get(name) in rows.inputs
    digest = hashlib.sha256(f"{array.shape} {is_told}".encode())
    digest.update(np.ascontiguousarray(array))
    if is_told:
        digest.update(np.ascontiguousarray(rows.inputs[MISSING[name]]))
    if input_of(name) == "token_ids":
        digest.update(rows.tokenizer.tokenizer.to_str().encode())
    return digest.hexdigest()


def damaged(
    rows: Rows, name: str, strength: float, seed: int, repeat: int
) -> dict[str, np.ndarray]:
    """The one input that a corruption changes, damaged: its name -> [n, ...].

    A model that takes what is missing as an input is told so, and keeps the others.
    """
    at = input_of(name)
    if (presence := MISSING.get(name)) in rows.inputs:
        kept = present(name, len(rows.labels), strength, seed, repeat)
        return {presence: kept * rows.inputs[presence]}
    if CORRUPTIONS[name].of == "text":
        texts = corrupted(name, rows.texts, strength, seed, repeat)
        return {at: encode(texts, rows.tokenizer, rows.inputs[at].shape[1])[0]}
    if CORRUPTIONS[name].of == "waveform":
        noisy = corrupted(name, rows.waveforms(), strength, seed, repeat)
        return {at: np.stack([rows.log_mel(waveform) for waveform in noisy])}
    special = rows.tokenizer.ids if at == "token_ids" else None
    return {at: corrupted(name, rows.inputs[at], strength, seed, repeat, special)}
