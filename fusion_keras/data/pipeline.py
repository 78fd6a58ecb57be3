"""Batches for training and evaluation, through Grain.

A batch is a pure function of (seed, step): a training run that was killed goes on from step
k with exactly the batches that an undisturbed one would have seen.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

from fusion_keras.data.modalities import TAP_OF
from fusion_keras.errors import UsageError

# What a batch is compared with; everything else is an input of the model.
TARGETS = ("label", "score", *TAP_OF.values())
# Changes a batch, name -> [B, ...], in place.
Change = Callable[[dict[str, np.ndarray], np.random.Generator], None]

# Pillow works outside the GIL, so that threads share the augmentation; beyond eight they
# would mostly wait for it. Two finished batches a thread hide an uneven step.
# Of the cores that this process may use.
_THREADS = min(
    8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)
_READ = grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=2 * _THREADS)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """How many full batches an epoch has; the rest of each shuffled epoch is left out.

    Raises:
      UsageError: not even one.
    """
    if batch_size < 1:
        raise UsageError(f"got batch_size={batch_size}, wanted at least 1")
    if rows < batch_size:
        raise UsageError(
            f"got {rows} rows to train on, wanted at least one batch of {batch_size}; lower "
            "the batch size or add data."
        )
    return rows // batch_size


def train_batches(
    arrays: Mapping[str, np.ndarray],
    indices: np.ndarray,
    batch_size: int,
    seed: int,
    epochs: int,
    start_step: int = 0,
    augmentation: Change | None = None,
) -> grain.IterDataset:
    """Shuffled full batches over all epochs.

    For `model.fit(batches, steps_per_epoch=..., shuffle=False)`: only when it is told the
    steps does `fit` read one iterator through all its epochs, and it warns of its own shuffle.

    Args:
      arrays: name -> [N, ...]: "label", if wanted "score", and any inputs ("token_ids",
        "image" uint8 [N, S, S, 3], ...), which pass through as they are.
      indices: int [n], the rows to train on.
      seed: with the step, it decides order and augmentation; 0 <= seed < 2**32.
      start_step: how many batches to leave out, to resume.
      augmentation: see `modalities.augmentation`; None changes nothing.

    Returns:
      of (inputs {name: [B, ...]}, targets), see `split_targets`; epochs * (n // B)
      - start_step elements. Mixed labels are float [B, C], others int [B], or of several labels a
      row 0 and 1 [B, C]. The rows left over differ from epoch to epoch.

    Raises:
      UsageError: fewer rows than one batch.
    """
    steps = steps_per_epoch(len(indices), batch_size)
    _check_lengths(arrays)
    indices = np.asarray(indices)

    # Of the epoch that is being read and of the next, into which reading ahead reaches. Drawn at
    # once: Grain's `shuffle` can be asked for any row by itself, at 4 us a row.
    @functools.lru_cache(maxsize=2)
    def shuffled(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, 0, epoch)).permutation(indices)

    def gather(step: int, rng: np.random.Generator):
        epoch, place = divmod(step, steps)
        batch = _rows(arrays, shuffled(epoch)[place * batch_size : (place + 1) * batch_size])
        if augmentation is not None:
            augmentation(batch, rng)
        return split_targets(batch)

    # A batch is one gather, and its generator is Grain's own for (seed, step), whichever thread
    # asks and wherever the slice begins. Not that of the order.
    draws = int(np.random.SeedSequence((seed, 4)).generate_state(1)[0])
    batches = grain.MapDataset.range(epochs * steps).random_map(gather, seed=draws)
    return batches[start_step:].to_iter_dataset(_READ)


def eval_batches(
    arrays: Mapping[str, np.ndarray], indices: np.ndarray, batch_size: int
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """Yields (inputs, count) over `indices` in their order, never augmented.

    Every batch has batch_size rows, so that nothing is compiled twice: the last one is
    filled up with the first row again, and only its first `count` rows count.

    Args:
      arrays: name -> [N, ...]; labels and scores may be among them, and are left out.

    Raises:
      UsageError: no rows.
    """
    arrays = {name: value for name, value in arrays.items() if name not in TARGETS}
    _check_lengths(arrays)
    indices = np.asarray(indices)
    if len(indices) == 0:
        raise UsageError("got no rows to evaluate, wanted at least one; check the split.")

    def gather(step: int):
        rows = indices[step * batch_size : (step + 1) * batch_size]
        padded = np.full(batch_size, indices[0])
        padded[: len(rows)] = rows
        return _rows(arrays, padded), len(rows)

    steps = -(-len(indices) // batch_size)
    return iter(grain.MapDataset.range(steps).map(gather).to_iter_dataset(_READ))


def split_targets(
    batch: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], np.ndarray | dict[str, np.ndarray]]:
    """(inputs, targets): targets is the labels alone, or of several {"label", "score", ...}."""
    inputs = {name: value for name, value in batch.items() if name not in TARGETS}
    targets = {name: batch[name] for name in TARGETS if name in batch}
    return inputs, targets if len(targets) > 1 else targets["label"]


def _rows(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    # np.asarray: a slice of a memory map shall be an ordinary array for the backend.
    return {name: np.asarray(value[rows]) for name, value in arrays.items()}


def _check_lengths(arrays: Mapping[str, np.ndarray]):
    lengths = {name: len(value) for name, value in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays need equal lengths, got {lengths}")
