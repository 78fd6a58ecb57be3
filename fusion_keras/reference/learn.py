"""Training of the reference in PyTorch: our batches, our initial weights, its own arithmetic.

What is compared with is a training loop as PyTorch's users write it: eager, on the CPU or on
the first GPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from fusion_keras import terminal
from fusion_keras.data.pipeline import steps_per_epoch, train_batches
from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.fusion.state_dict import load_state_dict
from fusion_keras.modalities import MODALITY
from fusion_keras.reference import optimizers
from fusion_keras.reference.build import present, twin
from fusion_keras.reference.model import Reference
from fusion_keras.training.adopted import DRAWS
from fusion_keras.training.evaluate import validation_metrics
from fusion_keras.training.experiment import Framework, Predict, lesson_of
from fusion_keras.training.loop import Lesson, epoch_line, history_csv, selection_key
from fusion_keras.training.run import Run
from fusion_keras.training.task import Task

_BATCH = 64
_log = logging.getLogger(__name__)
# Inputs name -> array of one batch -> logits [B, C].
Forward = Callable[[dict[str, np.ndarray]], torch.Tensor]


def fit(run: Run, task: Task) -> tuple[int, Predict]:
    """Train the task's model in PyTorch; it ends with the best epoch's weights.

    Raises:
        UsageError: a setting that the reference has not, or the loss is no longer finite.
    """
    config = task.config
    if config.regression or config.dtype != "float32":
        raise UsageError(
            "The PyTorch reference is for classes and float32: leave out --config.regression and "
            "--dtype."
        )
    torch.manual_seed(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, taken = twin(
        task.spec,
        task.graph.model,
        task.presets,
        num_classes=len(task.dataset.classes),
        device=device,
    )

    def whole(inputs):
        return model(**taken(inputs))

    if not task.spec.frozen:
        best = _learn(run, replace(lesson_of(task), model=model), whole, config)
    elif task.spec.decision == "score" and task.spec.weights:
        best = 0  # nothing is left to learn
    else:
        # An average of scores has its parents' own heads.
        model.heads.requires_grad_(task.spec.decision != "score")

        def taps_of(inputs):
            return _flat(task, *model.taps(taken(inputs)["inputs"]))

        arrays, rows = _features(task, taps_of)

        def head(inputs):
            tensors = {name: torch.from_numpy(x).to(device) for name, x in inputs.items()}
            return model.fuse(*_nested(task, tensors), present(inputs, device))

        withheld = task.augmentation if task.spec.stand_ins else None
        best = _learn(run, Lesson(model, arrays, rows, task.dataset, withheld), head, config)
    values = {name: x.cpu().numpy() for name, x in model.state_dict().items()}
    load_state_dict(task.graph.model, task.spec, values, "the trained reference")
    return best, lambda rows: {"logits": _logits(model, whole, task.arrays, rows)}


PYTORCH = Framework("pytorch", fit)


def _learn(run: Run, lesson: Lesson, forward: Forward, config) -> int:
    """Train the lesson's model, a Reference; gives the best epoch, whose weights it then has."""
    train, seed, label_kind = config.train, config.seed, lesson.dataset.label_kind
    model, arrays, rows = lesson.model, lesson.arrays, lesson.rows
    steps = steps_per_epoch(len(rows["train"]), train.batch_size)
    optimizer, scheduler = optimizers.make_optimizer(train, model, steps * train.epochs)
    batches = iter(
        train_batches(
            arrays,
            rows["train"],
            train.batch_size,
            seed,
            train.epochs,
            augmentation=lesson.augmentation,
        )
    )
    history, best_key, best_epoch, best = [], [], 0, {}
    with terminal.progress_bar(f"{config.variant} s{seed}, PyTorch") as progress:
        bar = progress.add_task("", total=train.epochs * steps)
        for epoch in range(1, train.epochs + 1):
            started = time.perf_counter()
            losses = []
            optimizers.train_mode(model, train)
            for _ in range(steps):
                batch = next(batches)
                losses.append(step(forward, *batch, train, optimizer, scheduler, label_kind))
                progress.update(bar, advance=1, description=f"epoch {epoch}")
            line = {
                "epoch": epoch,
                "seconds": round(time.perf_counter() - started, 3),
                "loss": float(np.mean(losses)),
            }
            logits = _logits(model, forward, arrays, rows["valid"])
            line |= _validated(lesson.dataset, logits, rows["valid"])
            if not all(map(math.isfinite, (line["loss"], line["valid_nll"]))):
                raise UsageError(f"Training diverged in epoch {epoch}: lower the rates.")
            history.append(line)
            run.write_bytes("history.csv", history_csv(history))
            _log.info("%s", epoch_line(line))
            key = selection_key(train.select, line)
            if not best or key > best_key:
                best_key, best_epoch = key, epoch
                best = {name: x.clone() for name, x in model.state_dict().items()}
            if train.patience and epoch - best_epoch >= train.patience:
                break
    model.load_state_dict(best)
    return best_epoch


def _validated(dataset: Dataset, logits: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    scores = validation_metrics({"logits": logits}, dataset, rows)
    return {f"valid_{name}": value for name, value in scores.items()}


def step(
    forward: Forward, inputs, targets, train, optimizer, scheduler, label_kind: str = "single"
) -> float:
    """One step of training, and its loss before it.

    Args:
        inputs, targets: a batch as `train_batches` gives it.
        train: the resolved `config.train`.
        label_kind: "single" or "multi".
    """
    optimizer.zero_grad()
    total = 0.0
    for first in range(train.accumulate):
        # The rows of `accumulation.InParts`, for BatchNorm's statistics are of each part.
        rows = slice(first, None, train.accumulate)
        part = {name: values[rows] for name, values in inputs.items()}
        loss = _loss(forward(part), targets[rows], train.label_smoothing, label_kind)
        (loss / train.accumulate).backward()
        total += loss.item()
    optimizers.step(optimizer, scheduler, train)
    return total / train.accumulate


def _loss(logits: torch.Tensor, targets, smoothing: float, label_kind: str) -> torch.Tensor:
    # Mixed labels are shares of each class, float [B, C].
    labels = torch.from_numpy(np.asarray(targets)).to(logits.device)
    if label_kind == "multi":
        shares = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return binary_cross_entropy_with_logits(logits, shares)
    labels = labels if labels.is_floating_point() else labels.long()
    return cross_entropy(logits, labels, label_smoothing=smoothing)


@torch.inference_mode()
def _logits(model: Reference, forward: Forward, arrays, rows: np.ndarray) -> np.ndarray:
    model.eval()
    inputs = {name: x for name, x in arrays.items() if name != "label"}
    parts = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    logits = [forward({n: np.asarray(x[part]) for n, x in inputs.items()}) for part in parts]
    return torch.cat(logits).cpu().numpy()


# --- Frozen parts: their taps, computed once --------------------------------------------------


def _flat(task: Task, taps: dict, mask) -> dict[str, torch.Tensor]:
    """Tap name -> [B, ...], as far as a junction takes it; and the mask."""
    flat = {
        MODALITY[modality].tap(depth): tapped[depth]
        for modality, tapped in taps.items()
        for depth in task.spec.depths(modality)
    }
    return flat | ({} if mask is None else {"mask": mask})


def _nested(task: Task, flat: dict[str, torch.Tensor]) -> tuple[dict, torch.Tensor | None]:
    taps = {
        m: {d: flat[MODALITY[m].tap(d)] for d in task.spec.depths(m)} for m in task.spec.modalities
    }
    return taps, flat.get("mask")


@torch.inference_mode()
def _features(task: Task, taps_of) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """As `adopted.features`: the same rows, under the same augmentation."""

    def features(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        slices = [slice(i, i + _BATCH) for i in range(0, count, _BATCH)]
        parts = [taps_of({n: np.asarray(x[s]) for n, x in inputs.items()}) for s in slices]
        return {n: torch.cat([p[n] for p in parts]).cpu().numpy() for n in parts[0]}

    inputs = {n: x for n, x in task.arrays.items() if n != "label"}
    presence = {n: x for n, x in inputs.items() if n.startswith("present_")}
    arrays = {**features(inputs), **presence, "label": task.arrays["label"]}
    rows = dict(task.rows)
    changed = [MODALITY[m] for m in task.spec.modalities if MODALITY[m].augmented]
    if task.augment is None or not changed:
        return arrays, rows
    train, rng, draws = rows["train"], np.random.default_rng(task.config.seed), []
    for _ in range(DRAWS):
        seen = {n: x[train] for n, x in inputs.items()}
        seen |= {m.input: m.augment(seen[m.input], task.augment, rng) for m in changed}
        drawn = features(seen)
        same = {n: arrays[n][train] for n in ("label", *presence)}
        draws.append({**drawn, **same})
    rows["train"] = len(task.dataset) + np.arange(DRAWS * len(train))
    return {n: np.concatenate([x, *(d[n] for d in draws)]) for n, x in arrays.items()}, rows
