"""How much a trained model leans on each modality: its accuracy when that one is shuffled.

Permutation importance (Breiman 2001, Random Forests, section 10; Fisher, Rudin and
Dominici 2019, arXiv 1801.01489, section 3) with a modality in the place of a feature. The
rows of one modality are shuffled among the examples of a split: what it tells is
gone, how its inputs look is not.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import of_spec
from fusion_keras.metrics import paired_bootstrap
from fusion_keras.training.evaluate import predict, right
from fusion_keras.training.restored import restore
from fusion_keras.training.run import read_json
from fusion_keras.training.task import Task

_log = logging.getLogger(__name__)


def correct_when_shuffled(task: Task, split: str, repeats: int, seed: int) -> dict[str, np.ndarray]:
    """Which predictions are right with each modality shuffled, and with none.

    Shuffled among the rows that have it: what a row lacks it neither gets nor gives.

    The encoders run once: shuffling pairs their outputs anew, and only what stands behind
    them runs again.

    Args:
        task: data and trained model.
        split: train, valid or test.
        repeats: shuffles of each modality.
        seed: of the shuffles.

    Returns:
        "" -> bool [1, n] as it is; modality -> bool [repeats, n].
    """
    rows = task.rows[split]
    labels = task.dataset.labels[rows]
    taps = predict(task.graph.encoders, task.arrays, rows)

    def correct(inputs) -> np.ndarray:
        logits = predict(task.graph.fusion, inputs, np.arange(len(rows)))["logits"]
        return right(logits, labels)

    answers = {"": correct(taps)[None]}
    rng = np.random.default_rng(seed)
    for modality in task.spec.modalities:
        # The padding mask goes where its sentence goes.
        moved = set(task.graph.encoder(modality).output)
        orders = [_shuffled(task.dataset.has(modality)[rows], rng) for _ in range(repeats)]
        answers[modality] = np.stack(
            [correct({n: x[o] if n in moved else x for n, x in taps.items()}) for o in orders]
        )
    return answers


def _shuffled(there: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int [n]: an order of rows in which those that are not there stay."""
    order, held = np.arange(len(there)), np.flatnonzero(there)
    order[held] = held[rng.permutation(len(held))]
    return order


def measure(folders: list[Path], split: str, repeats: int, seed: int) -> dict:
    """What shuffling each modality costs, over runs of one architecture.

    Returns:
        "accuracy", "majority", the share of rows with the most frequent labels, and modality ->
        {"accuracy", "difference", "low", "high", "p_value"}, the paired difference of the accuracy
        as it is minus that with the modality shuffled.

    Raises:
        UsageError: no runs, an unknown split, or runs that cannot be averaged.
    """
    if not folders:
        raise UsageError("Give the directories of finished runs: RUN ...")
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}; at least 1 is wanted.")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; 0 or more is wanted.")
    answers, known = [], None
    for folder in folders:
        _log.info("%s", folder)
        task = restore(folder)
        of_spec(task.spec).refuse(task.config.variant, "reliance")
        if split not in task.rows:
            raise UsageError(f"Unknown split {split!r}; one of {', '.join(task.rows)} is wanted.")
        rows = task.rows[split]
        now = (task.dataset.fingerprint, task.spec)
        if known not in (None, now):
            raise UsageError(
                f"{folder} has other data or another architecture than {folders[0]}: give runs "
                "that differ in nothing but the seed."
            )
        known = now
        groups = None if task.dataset.groups is None else [task.dataset.groups[r] for r in rows]
        answers.append(correct_when_shuffled(task, split, repeats, seed))
    whole = np.stack([a[""].mean(axis=0) for a in answers])  # [runs, n]
    counts = np.unique(task.dataset.labels[rows], axis=0, return_counts=True)[1]
    results = {"accuracy": float(whole.mean()), "majority": float(counts.max() / len(rows))}
    for modality in (m for m in MODALITIES if m in answers[0]):
        shuffled = np.stack([a[modality].mean(axis=0) for a in answers])
        difference = paired_bootstrap(whole, shuffled, groups=groups)
        results[modality] = {"accuracy": float(shuffled.mean()), **difference}
    return results


def report(results: dict, folders: list[Path], split: str, repeats: int) -> list[RenderableType]:
    """What `measure` found, as a table, and what to do next."""
    description, runs = read_json(folders[0] / "config.json"), len(folders)
    table = Table(
        "shuffled",
        "subset accuracy" if description.get("label_kind") == "multi" else "accuracy",
        "what it costs",
        title=f"{description['variant']} on {description['dataset']['name']}, {split}",
        caption=f"{runs} {'run' if runs == 1 else 'runs'}, {repeats} shuffles each; 95 % bootstrap "
        "intervals",
    )
    table.add_row("nothing", f"{100 * results['accuracy']:.1f} %", "")
    for modality in (m for m in MODALITIES if m in results):
        r = results[modality]
        interval = "" if math.isnan(r["low"]) else f" [{100 * r['low']:.1f}, {100 * r['high']:.1f}]"
        table.add_row(
            modality, f"{100 * r['accuracy']:.1f} %", f"{100 * r['difference']:.1f}{interval}"
        )
    notes = []
    if results["accuracy"] <= results["majority"]:
        notes.append(
            "note: as it is the model is right no more often than one that gives every row the "
            f"most frequent labels ({100 * results['majority']:.1f} %): it has little to lose"
        )
    return [
        table,
        *notes,
        "Next: compare variants and seeds: python -m fusion_keras.sweep with the settings that it "
        "was trained with, --variant=A,B and --seed=0,1,2",
    ]
