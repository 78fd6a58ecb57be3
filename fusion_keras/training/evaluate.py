"""Predictions of a model on a split, and their metrics."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import keras
import numpy as np

from fusion_keras import metrics
from fusion_keras.data.pipeline import eval_batches
from fusion_keras.data.records import Dataset
from fusion_keras.label_sums import THRESHOLD
from fusion_keras.training import devices, processes

BATCH = 64


def predict(
    model: keras.Model, arrays: Mapping[str, np.ndarray], indices: np.ndarray, batch: int = BATCH
) -> dict[str, np.ndarray]:
    """Run the model over rows, in their order.

    Args:
        model: outputs a dict of tensors [B, ...].
        arrays: the model's inputs, each [N, ...]; labels and scores among them are left out.
        indices: int [n], which rows.

    Returns:
        Output name -> float32 [n, ...].
    """
    parts = []
    shared, answers = devices.count(), model.predict_on_batch
    if processes.count() > 1:
        shared, answers = 1, _local_answers(model)
    size = -(-min(batch, len(indices)) // shared) * shared
    for inputs, count in eval_batches(arrays, indices, size):
        outputs = answers(inputs)
        processes.moved()
        parts.append({name: np.asarray(x[:count], np.float32) for name, x in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Model -> what it is compiled to.
_compiled: weakref.WeakKeyDictionary[keras.Model, Any] = weakref.WeakKeyDictionary()


def _local_answers(model: keras.Model) -> Callable[[dict], dict]:
    """What gives a batch's outputs on a device of this process alone, with the weights as they are.

    Keras's `predict` is a step that all processes must take, and answers for its own rows only.
    """
    if model not in _compiled:
        # By a reference that does not keep the model, whose key this is.
        own = weakref.proxy(model)
        _compiled[model] = jax.jit(
            lambda trained, others, inputs: own.stateless_call(
                trained, others, inputs, training=False
            )[0]
        )
    kinds = (model.trainable_variables, model.non_trainable_variables)
    weights = [[v.value.addressable_data(0) for v in variables] for variables in kinds]
    return lambda inputs: _compiled[model](*weights, inputs)


def probabilities(logits: np.ndarray, label_kind: str = "single") -> np.ndarray:
    """Logits [n, C] -> float64 [n, C]: softmax, or of several labels a row a sigmoid for each."""
    shifted = np.asarray(logits, np.float64)
    if label_kind == "multi":
        return np.exp(-np.logaddexp(0, -shifted))
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def right(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool [n]: whether the class is answered, or of several labels a row each of them.

    Args:
        logits: [n, C].
        labels: int [n], or 0 and 1 [n, C].
    """
    if labels.ndim == 1:
        return logits.argmax(-1) == labels
    return ((probabilities(logits, "multi") > THRESHOLD) == labels).all(axis=1)


def _known(outputs: dict[str, np.ndarray], dataset: Dataset, rows: np.ndarray) -> dict:
    """The keyword arguments of `metrics` for these rows."""
    known = {}
    if dataset.scores is not None:
        known["scores"] = dataset.scores[rows]
        if "score" in outputs:
            known["predicted_scores"] = outputs["score"][:, 0]
    return known


def validation_metrics(outputs, dataset: Dataset, rows: np.ndarray) -> dict[str, float]:
    """Every metric of a split, without intervals; of several labels those of all together."""
    probs = probabilities(outputs["logits"], dataset.label_kind)
    if dataset.label_kind == "multi":
        return metrics.label_metrics(probs, dataset.labels[rows])
    known = _known(outputs, dataset, rows)
    return metrics.classification_metrics(probs, dataset.labels[rows], **known)


def split_metrics(outputs, dataset: Dataset, rows: np.ndarray) -> dict:
    """Every metric of a split with its interval, and the confusion matrix; of several labels a row
    the metrics and the matrix of each."""
    probs = probabilities(outputs["logits"], dataset.label_kind)
    labels = dataset.labels[rows]
    groups = None if dataset.groups is None else [dataset.groups[r] for r in rows]
    if dataset.label_kind == "multi":
        return _label_metrics(probs, labels, groups, dataset.classes)
    summary = metrics.summarise(probs, labels, groups=groups, **_known(outputs, dataset, rows))
    matrix = metrics.confusion_matrix(labels, probs.argmax(-1), len(dataset.classes))
    return {
        "count": len(rows),
        "metrics": {name: _finite(values) for name, values in summary.items()},
        "confusion": matrix.tolist(),
    }


def _label_metrics(probs, labels, groups, classes) -> dict:
    whole, each = metrics.summarise_labels(probs, labels, groups=groups)
    given = (probs > THRESHOLD).astype(int)
    return {
        "count": len(labels),
        "metrics": {name: _finite(values) for name, values in whole.items()},
        "threshold": THRESHOLD,
        "labels": {
            name: {
                "count": int(labels[:, k].sum()),
                "metrics": {metric: _finite(values) for metric, values in each[k].items()},
                # Rows: has it not, has it; columns: is not given it, is given it.
                "confusion": metrics.confusion_matrix(
                    labels[:, k].astype(int), given[:, k], 2
                ).tolist(),
            }
            for k, name in enumerate(classes)
        },
    }


def _metrics_of_some(outputs, dataset: Dataset, rows: np.ndarray, chosen: np.ndarray) -> dict:
    """`split_metrics` of the rows that are chosen, bool [n]."""
    some = {name: values[chosen] for name, values in outputs.items()}
    return split_metrics(some, dataset, rows[chosen])


def pattern_metrics(outputs, dataset: Dataset, rows: np.ndarray) -> dict:
    """A split by what its rows lack.

    Returns:
        "patterns" -> "complete", "without image", ... -> what `split_metrics` gives of these rows;
        empty where every row is complete.
    """
    lacking = np.array([dataset.lacking(row) for row in rows])
    if not lacking.astype(bool).any():
        return {}
    patterns = {}
    for name in sorted(set(lacking.tolist())):
        scored = _metrics_of_some(outputs, dataset, rows, lacking == name)
        patterns[f"without {name}" if name else "complete"] = scored
    return {"patterns": patterns}


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no nan: an undefined metric is null."""
    return {k: None if math.isnan(v) else float(v) for k, v in values.items()}


def unshared_metrics(outputs, dataset: Dataset, rows: np.ndarray) -> dict:
    """A split without the rows whose content is in another split too.

    Returns:
        "unshared" -> what `split_metrics` gives of the other rows (of none their count alone), and
        "shared", modality -> how many rows share it; empty where no row shares anything.
    """
    found = {m: shared[rows] for m, shared in dataset.shared.items() if shared[rows].any()}
    if not found:
        return {}
    alone = ~np.any(list(found.values()), axis=0)
    scored = _metrics_of_some(outputs, dataset, rows, alone) if alone.any() else {"count": 0}
    counts = {modality: int(shared.sum()) for modality, shared in found.items()}
    return {"unshared": {"shared": counts, **scored}}


def prediction_rows(
    dataset: Dataset, outputs: dict[str, dict], rows: dict[str, np.ndarray]
) -> Iterator[list]:
    """A header, and cells for each evaluated row: id, split, group, target, prediction,
    probabilities.

    Several labels stand as a JSON list in the order of the classes.
    """
    regression = any("score" in predicted for predicted in outputs.values())
    head = ["id", "split", "group", "target", "predicted", *(f"p_{c}" for c in dataset.classes)]
    yield head + (["score", "predicted_score"] if regression else [])
    for split, predicted in outputs.items():
        probs = probabilities(predicted["logits"], dataset.label_kind)
        for i, row in enumerate(rows[split]):
            group = dataset.groups[row] if dataset.groups is not None else ""
            names = _answers(dataset, row, probs[i])
            line = [dataset.ids[row], split, group, *names, *(f"{p:.7g}" for p in probs[i])]
            if regression:
                line += [f"{dataset.scores[row]:.7g}", f"{predicted['score'][i, 0]:.7g}"]
            yield line


def _answers(dataset: Dataset, row: int, probs: np.ndarray) -> list[str]:
    """What is true of a row and what is predicted, by name."""
    if dataset.label_kind == "single":
        return [dataset.classes[dataset.labels[row]], dataset.classes[probs.argmax()]]
    named = [
        [name for name, is_given in zip(dataset.classes, given, strict=True) if is_given]
        for given in (dataset.labels[row], probs > THRESHOLD)
    ]
    return [json.dumps(names, ensure_ascii=False) for names in named]
