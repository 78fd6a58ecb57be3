"""Processes side by side on one machine: which cores and which GPU each of them has."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusion_keras import interrupts
from fusion_keras.errors import UsageError

# What a training takes: cores below which a second one beside it gains little, and memory that
# full-size models need.
_CORES, _BYTES = 4, 8 << 30
# Of a GPU's memory, as JAX takes it for one process; the rest is CUDA's own.
_MEMORY = 0.9


@dataclass(frozen=True)
class Share:
    """What one of the processes has.

    Attributes:
        cores: numbers of them; all pools of threads (XLA, BLAS, decoding) are as large.
        gpu: number of it; "" where there is none to divide.
        memory: its share of that GPU's.
    """

    cores: tuple[int, ...]
    gpu: str = ""
    memory: float = _MEMORY

    def environment(self, of: Mapping[str, str]) -> dict[str, str]:
        """The environment of a process that has it."""
        if not self.gpu:
            return dict(of)
        more = {"CUDA_VISIBLE_DEVICES": self.gpu}
        return {**of, **more, "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{self.memory:.2f}"}

    def start(self, command: Sequence[str], log: Path) -> Process:
        """Start a program that has it and adds what it says to a file; it ends with this process.

        Raises:
            OSError: the file cannot be written, or there is no such program.
        """
        environment = interrupts.bound(self.environment(os.environ))
        with log.open("ab") as file, self.held():
            return Process(command, stdout=file, stderr=subprocess.STDOUT, env=environment)

    def take(self) -> None:
        """Have this process, which has one thread yet and no JAX that runs, keep to it."""
        os.environ.update(self.environment(os.environ))
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What is started inside has these cores, where the system can say so (Linux)."""
        if not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


class Process(subprocess.Popen):
    """A program on this machine. `cluster.Task` is one elsewhere.

    Attributes:
        where: the machine that runs it; "" for this one, None where none does yet.
    """

    where = ""


def shares(count: int) -> list[Share]:
    """A machine divided into as many parts.

    GPUs are divided where there are any: one for each process, or several processes on one. One
    process alone has all that there is.
    """
    cores, gpus = _cores(), _gpus()
    if count == 1:
        return [Share(tuple(cores))]
    parts = []
    for number in range(count):
        # More processes than cores share them in turn.
        own = cores[number::count] or [cores[number % len(cores)]]
        gpu = gpus[number % len(gpus)] if gpus else ""
        on_it = len(range(number % len(gpus), count, len(gpus))) if gpus else 1
        parts.append(Share(tuple(own), gpu, _MEMORY / on_it))
    return parts


@contextlib.contextmanager
def taken(count: int, gpu: str = "", memory: float = _MEMORY) -> Iterator[Share]:
    """A share of as many cores as nobody else has taken by this function on this machine.

    They are free again when the block or the process ends, however it ends. Where fewer are free
    than asked for, the share is of all cores.

    Args:
        count: cores.
        gpu, memory: as `Share` has them.
    """
    folder = Path(tempfile.gettempdir()) / f"fusion_keras-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    cores = _cores()
    with contextlib.ExitStack() as locks:
        own = []
        for core in cores:
            if len(own) == count:
                break
            lock = locks.enter_context((folder / str(core)).open("w"))
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                own.append(core)
        yield Share(tuple(own if len(own) == count else cores), gpu, memory)


def count_of(asked: str, wanted: int) -> int:
    """How many processes `--jobs` is.

    Args:
        asked: a number, or "auto": one for each GPU, else as many as cores and memory allow.
        wanted: how many there is work for.

    Raises:
        UsageError: neither.
    """
    if asked == "auto":
        most = len(_gpus()) or min(len(_cores()) // _CORES, _memory() // _BYTES)
        return max(1, min(most, wanted))
    if not asked.isdecimal() or not int(asked):
        raise UsageError(f"--jobs is {asked!r}; a number of at least 1, or auto, is wanted.")
    return min(int(asked), wanted)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> list[str]:
    """Numbers of the GPUs that CUDA shows."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number and number != "-1"]
    try:
        asked = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(asked.stdout.splitlines()) if line.startswith("GPU ")]
