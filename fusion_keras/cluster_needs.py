"""What a training takes of a node of a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fusion_keras.errors import UsageError

# What a training takes of its node where nothing else is said.
_CPUS, _GIGABYTES = 4, 8.0


@dataclass(frozen=True)
class Address:
    """A cluster, and what a training takes of a node there, as Ray counts it.

    Attributes:
        of: HOST:PORT of its head, or "auto": the cluster that this machine belongs to, else one of
            this machine alone.
        cpus: None for 4, or as many as the largest node has.
        gpus: None for 1 where the cluster has any; a fraction lets several share one.
        gigabytes: of memory; None for 8, or as many as the largest node has.
    """

    of: str
    cpus: int | None = None
    gpus: float | None = None
    gigabytes: float | None = None


def check(address: Address) -> None:
    """Raises UsageError for what no node can be asked for."""
    # Written so that a nan is refused.
    if address.cpus is not None and not address.cpus >= 1:
        raise UsageError(f"--num_cpus is {address.cpus}; at least 1 is wanted.")
    if address.gigabytes is not None and not 0 < address.gigabytes < math.inf:
        raise UsageError(f"--memory_gb is {address.gigabytes:g}; more than 0 is wanted.")
    gpus = address.gpus or 0.0
    if not (0 <= gpus <= 1 or gpus.is_integer()) or gpus < 0:
        raise UsageError(
            f"--num_gpus is {gpus:g}; a part of one, say 0.5, or a whole number is wanted."
        )


def filled(needs: Address, nodes: list[dict[str, float]]) -> Address:
    """With what is open decided by what the nodes have."""

    def most(name: str) -> float:
        return max((node.get(name, 0.0) for node in nodes), default=0.0)

    cpus, gpus, gigabytes = needs.cpus, needs.gpus, needs.gigabytes
    if cpus is None:
        cpus = min(_CPUS, int(most("CPU"))) or _CPUS
    if gpus is None:
        gpus = float(most("GPU") > 0)
    if gigabytes is None:
        gigabytes = min(_GIGABYTES, math.floor(most("memory") / 1e8) / 10) or _GIGABYTES
    return Address(needs.of, cpus, gpus, gigabytes)


def room(node: dict[str, float], needs: Address) -> int:
    """How many trainings a node has room for."""
    taken = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.gigabytes * 1e9}
    return int(min(node.get(name, 0) / much for name, much in taken.items() if much))
