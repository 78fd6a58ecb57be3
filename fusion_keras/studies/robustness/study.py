"""Accuracy of trained or exported models over a grid of damage to their inputs.

What is finished is kept in a JSON file, cell by cell: a cell is one model, one corruption and one
strength, and holds how often each row was answered rightly. The same command goes on where it
was stopped, and one that asks for more models, corruptions or strengths adds them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.corrupt import CORRUPTIONS
from fusion_keras.errors import UsageError
from fusion_keras.modalities import MODALITY
from fusion_keras.studies.robustness import report
from fusion_keras.studies.robustness.cells import (
    CLEAN,
    Store,
    cell_name,
    draws,
    fill,
    input_of,
)
from fusion_keras.studies.robustness.curves import curves_of, names_of
from fusion_keras.studies.robustness.load import load
from fusion_keras.studies.robustness.models import Contender

# What MultiBench takes for the reference of effective robustness, if it is there.
LATE = "late"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured; see the help of `python -m fusion_keras.robustness`.

    Attributes:
        models: runs and artifacts.
        runs: those that artifacts were exported from.
        out: the JSON file; .csv and .png lie beside it.
        precisions: of artifacts.
        corruptions: names, () for all that the models' inputs can suffer.
        strengths: "NAME:STRENGTH:STRENGTH", instead of a corruption's own.
        repeats: draws of a random corruption.
        seed: of the draws.
        split: train, valid or test.
        reference: the curve that effective robustness is against; "" for `late`, or the first.
    """

    models: tuple[Path, ...]
    out: Path = Path("robustness.json")
    runs: tuple[Path, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    corruptions: tuple[str, ...] = ()
    strengths: tuple[str, ...] = ()
    repeats: int = 3
    seed: int = 0
    split: str = "test"
    reference: str = ""


def measure(options: Options) -> dict:
    """Measure what is missing, write OUT.json, OUT.csv and OUT.png.

    Returns:
        What the JSON file holds.

    Raises:
        UsageError: whatever the user can fix.
    """
    _check(options)
    strengths = parse_strengths(options.strengths)
    _log.info("Restoring the models and their data.")
    contenders = load(options.models, options.runs, options.precisions, options.split)
    if options.precisions != Options.precisions and not any(c.precision for c in contenders):
        raise UsageError(
            f"--precisions is {','.join(options.precisions)}, and what was given are runs, which "
            "have but one: give an artifact with it, and its run as --runs."
        )
    grid = grid_of(options.corruptions, strengths, contenders)
    if not options.corruptions and "text_masking" not in grid and "text_dropping" in grid:
        why = _unsupported_reason("text_masking", contenders)
        _log.info("Left out: text_masking, %s.", why)
    models = _described(contenders)
    reference = _reference(options.reference, models)
    rows = contenders[0].rows
    store = Store(
        options.out, rows, split=options.split, seed=options.seed, repeats=options.repeats
    )
    fill(store, contenders, grid)
    cells = store.content["cells"]

    def correct(key: str, corruption: str, strength: float) -> np.ndarray:
        """As `curves.Correct`; a model without the input that suffers stays as it is."""
        of = next(c for c in contenders if c.key == key)
        if not strength or input_of(corruption) not in of.rows.inputs:
            return np.asarray(cells[key][CLEAN], float)
        counts = np.asarray(cells[key][cell_name(corruption, strength)], float)
        return counts / draws(corruption, options.repeats)

    curves = curves_of(models, grid, correct, rows.groups, reference)
    store.write(models=models, reference=reference, curves=curves)
    report.write(store.content, options.out)
    return store.content


def _check(options: Options) -> None:
    if options.repeats < 1:
        raise UsageError(f"--repeats is {options.repeats}; at least 1 is wanted.")
    if options.seed < 0:
        raise UsageError(f"--seed is {options.seed}; 0 or more is wanted.")
    if options.out.suffix != ".json":
        raise UsageError(f"--out is {options.out}; a file that ends in .json is wanted.")
    unknown = [name for name in options.corruptions if name not in CORRUPTIONS]
    if unknown:
        raise UsageError(f"Unknown corruption {unknown[0]!r}; there are {', '.join(CORRUPTIONS)}.")


def parse_strengths(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """("image_noise:0.1:1",) -> {"image_noise": (0.1, 1.0)}, ascending.

    Raises:
        UsageError: an unknown name, no number, or one without a meaning.
    """
    strengths = {}
    for text in texts:
        name, *numbers = text.split(":")
        if name not in CORRUPTIONS or not numbers:
            raise UsageError(
                f"--strengths is {text!r}; NAME:STRENGTH:STRENGTH is wanted, with a NAME of "
                f"{', '.join(CORRUPTIONS)}."
            )
        try:
            strengths[name] = tuple(sorted({float(number) for number in numbers}))
        except ValueError:
            raise UsageError(f"--strengths is {text!r}; numbers are wanted after the :.") from None
        CORRUPTIONS[name].check(name, strengths[name])
    return strengths


def grid_of(
    names: Sequence[str], strengths: dict[str, tuple[float, ...]], contenders: Sequence[Contender]
) -> dict[str, tuple[float, ...]]:
    """Corruption -> strengths, of those that at least one model can suffer.

    Raises:
        UsageError: one that was named cannot be suffered.
    """
    why = {name: _unsupported_reason(name, contenders) for name in CORRUPTIONS}
    for name in dict.fromkeys([*names, *strengths]):
        if why[name]:
            raise UsageError(f"{name} cannot be measured: {why[name]}.")
        if names and name not in names:
            raise UsageError(f"--strengths names {name}, which --corruptions leaves out.")
    return {
        name: tuple(map(float, strengths.get(name, CORRUPTIONS[name].strengths)))
        for name in names or (name for name in CORRUPTIONS if not why[name])
    }


def _unsupported_reason(name: str, contenders: Sequence[Contender]) -> str:
    takes = [c for c in contenders if input_of(name) in c.rows.inputs]
    if not takes:
        kind = MODALITY[CORRUPTIONS[name].modality].plural
        return f"none of the models takes {kind}"
    lacks = [c for c in takes if name == "text_masking" and c.rows.tokenizer.ids.mask is None]
    return f"the vocabulary of {lacks[0].path} has no token for a masked word" if lacks else ""


def _described(contenders: Sequence[Contender]) -> list[dict]:
    return [
        {
            **{name: getattr(c, name) for name in ("key", "variant", "seed", "precision")},
            "family": hashlib.sha256(c.family.encode()).hexdigest(),
            "path": str(c.path),
        }
        for c in contenders
    ]


def _reference(name: str, models: Sequence[dict]) -> str:
    """The name of a curve: what is asked for, or the first of late fusion, or the first."""
    names = names_of(models)
    if name and name not in names:
        known = ", ".join(dict.fromkeys(names))
        raise UsageError(f"--reference is {name!r}; one of the curves is wanted: {known}.")
    late = (n for n, m in zip(names, models, strict=True) if m["variant"] == LATE)
    return name or next(late, names[0])
