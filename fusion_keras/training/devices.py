"""Data-parallel training: a step over several devices, of one process or of several.

Each device has all weights and a slice of the global batch (`keras.distribution.DataParallel`).
XLA computes what one device would: gradients and BatchNorm statistics are those of the whole batch,
and dropout is drawn for it, so a run does not depend on how many devices it had, but for rounding.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import keras

from fusion_keras.errors import UsageError
from fusion_keras.training import processes

_log = logging.getLogger(__name__)


def use(asked: str) -> None:
    """Train over so many devices from here on: called once, before any model is built.

    Args:
        asked: a number, or "all": of JAX's default kind, GPUs where there are any. Several
            processes train over all that they have.

    Raises:
        UsageError: no number, or more than there are.
    """
    if processes.count() > 1:
        if asked not in ("1", "all"):
            raise UsageError(
                f"got --devices={asked} with --coordinator, wanted all: processes train over every "
                "device that they see (CUDA_VISIBLE_DEVICES)."
            )
        asked = "all"
    if asked == "1":
        return
    found = keras.distribution.list_devices()
    wanted = len(found) if asked == "all" else int(asked) if asked.isdecimal() else 0
    if not 0 < wanted <= len(found):
        raise UsageError(
            f"got --devices={asked}, wanted all, or 1 to {len(found)}: JAX finds "
            f"{', '.join(found)}. It makes N of the CPU with "
            "XLA_FLAGS=--xla_force_host_platform_device_count=N."
        )
    names = ", ".join(found[:wanted])
    if processes.count() > 1:
        names = f"{wanted} devices of {processes.count()} processes"
    _log.info("Each batch is shared by %s.", names)
    # Batches come as the rows of this process already.
    parallel = keras.distribution.DataParallel(devices=found[:wanted], auto_shard_dataset=False)
    keras.distribution.set_distribution(parallel)


def count() -> int:
    """How many devices share a batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.num_model_replicas


@contextlib.contextmanager
def by_itself() -> Iterator[None]:
    """What a process does here wants no other one: its models are on a device of its own.

    The weights of a shared model are made by all processes together, which one of them that has
    its answers from a cache does not take part in. Of one process the devices stay shared.
    """
    shared = keras.distribution.distribution()
    if processes.count() == 1 or shared is None:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(shared)


def check_batch(size: int, parts: int) -> None:
    """Every device has as many rows of a batch, and of each of its parts.

    Raises:
        UsageError: they do not divide it.
    """
    if size % count():
        raise UsageError(
            f"got a batch of {size} for {count()} devices, wanted a multiple: set "
            "--config.train.batch_size or --devices."
        )
    if size % (count() * parts):
        raise UsageError(
            f"got a batch of {size} in {parts} parts for {count()} devices, wanted a multiple of "
            f"{count() * parts}: set --config.train.batch_size, --config.train.accumulate or "
            "--devices."
        )
