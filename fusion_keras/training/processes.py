"""One training by several processes, each with devices of its own, on one machine or on many.

Every process runs the same program (`jax.distributed`): it reads the data, takes its share of each
global batch, and evaluates for itself on its own devices. The first one writes the run, which all
must see under the same path; what an epoch's validation says is the first one's word, so that all
stop together. One that fails, is interrupted, dies or hangs ends all of them, with a sentence.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fusion_keras.errors import UsageError

# Seconds after which a process that has not come is missed, one that is silent taken for dead,
# and a step for hung; the first step of a training is compiled.
_COME, _SILENT, _STEP, _FIRST_STEP = 240, 60, 240, 1800
# JAX's own limits end a process with a stack trace, so they come later.
_LATER = 60
_BEAT = 1.0
# What a program ends with where another process has ended the training.
_ENDED = 1
_DAY_MS = 24 * 3600 * 1000


def _jax() -> ModuleType:
    # Of a run directory much is asked that wants no JAX, whose import takes longer.
    import jax

    return jax


class _Group:
    """The processes, by JAX's store of keys and values, which the first of them keeps."""

    def __init__(self):
        # Orbax and Flax use this client, too: JAX has no public name for it (0.10, 0.11).
        from jax._src.distributed import global_state

        self.client = global_state.client
        self.count, self.index = _jax().process_count(), _jax().process_index()
        self.numbers = itertools.count()
        # When this process last got on in a training, and how long the next step may take.
        self.moved: tuple[float, float] | None = None
        self.moves = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def name(self, index: int) -> str:
        return f"process {index} of {self.count}"

    def post(self, kind: str, value: object) -> None:
        key = f"fusion_keras/{kind}/{self.index}"
        self.client.key_value_set(key, json.dumps(value), allow_overwrite=True)

    def posted(self, kind: str) -> dict[int, Any]:
        """Process -> what it has posted."""
        found = self.client.key_value_dir_get(f"fusion_keras/{kind}/")
        return {int(key.rpartition("/")[2]): json.loads(value) for key, value in found}

    def end(self, reason: str) -> None:
        """Tell all others, and wait until they have heard, for they hear by the first one."""
        self.post("ended", reason)
        until = time.monotonic() + 10 * _BEAT
        while time.monotonic() < until and len(self.posted("heard")) < self.count - 1:
            time.sleep(_BEAT / 5)

    def _watch(self) -> None:
        heard: dict[int, tuple[int, float]] = {}
        # Without the first process nothing can be asked any more: JAX ends the others itself.
        with contextlib.suppress(_jax().errors.JaxRuntimeError):
            for beat in itertools.count():
                self.post("alive", (beat, self.moves))
                for index, reason in self.posted("ended").items():
                    if index != self.index:
                        self.post("heard", True)
                        if self.index == 0:
                            # JAX aborts whoever loses the first process: first they shall end.
                            time.sleep(5 * _BEAT)
                        self._stop(f"{self.name(index)} has ended: {reason}")
                alive, now = self.posted("alive"), time.monotonic()
                for index, (number, _) in alive.items():
                    if index not in heard or heard[index][0] != number:
                        heard[index] = number, now
                    elif now - heard[index][1] > _SILENT:
                        self._end(
                            f"{self.name(index)} has not been heard of for {_SILENT} seconds: it "
                            "was killed, or its machine or the network is down"
                        )
                moved = self.moved
                if moved and now - moved[0] > moved[1]:
                    behind = min(alive, key=lambda index: alive[index][1])
                    self._end(
                        f"training has not got on for {moved[1]:.0f} seconds; furthest behind is "
                        f"{self.name(behind)}"
                    )
                time.sleep(_BEAT)

    def _end(self, reason: str) -> None:
        self.end(reason)
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        # The main thread waits inside XLA, where no exception reaches it.
        sys.stderr.write(
            f"error: {reason[:1].upper()}{reason[1:]}. This process "
            f"({self.index} of {self.count}) ends with it; what was complete is kept, and the same "
            "commands go on from the last finished epoch.\n"
        )
        _leave(_ENDED)


_group: _Group | None = None


@contextlib.contextmanager
def joined(coordinator: str, count: int | None, index: int | None) -> Iterator[None]:
    """A context in which this process is one of several; with no coordinator it is alone.

    Before anything is computed by JAX.

    Args:
        coordinator: HOST:PORT of the first process, which listens there; or "auto" under Slurm,
            Open MPI or Kubernetes, which JAX knows to ask. "" for a process of its own.
        count, index: how many processes there are, and which one this is, from 0; None with "auto".

    Raises:
        UsageError: no such address, number or cluster, the others do not come, or the processes
            have unlike numbers of devices.
    """
    global _group
    if not coordinator:
        if count is not None or index is not None:
            raise UsageError(
                "--processes and --process say which one of several this is: --coordinator is "
                "wanted with them, HOST:PORT of the first."
            )
        yield
        return
    _initialize(coordinator, count, index)
    jax = _jax()
    if jax.device_count() != jax.process_count() * jax.local_device_count():
        raise UsageError(
            f"{jax.process_count()} processes have {jax.device_count()} devices, this one "
            f"{jax.local_device_count()}: each must have as many."
        )
    if jax.process_count() == 1:
        yield
        return
    _group = _Group()
    try:
        yield
    except BaseException as error:
        ours = "RESOURCE_EXHAUSTED" in str(error)  # this one is out of memory
        if isinstance(error, jax.errors.JaxRuntimeError) and not ours:
            # The exchange with another one failed, which is gone, as a rule: the watch tells which.
            time.sleep(_SILENT + 5 * _BEAT)
        # JAX would wait for the others at its end, and abort, for they end at once. What this one
        # has to say is said until then.
        interrupted = isinstance(error, KeyboardInterrupt)
        users = ours or isinstance(error, UsageError | MemoryError)
        atexit.register(_leave, 130 if interrupted else 2 if users else 1)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _group.end(_reason(error))
        raise
    finally:
        _group = None


def _initialize(coordinator: str, count: int | None, index: int | None) -> None:
    given: dict[str, Any] = {}
    if coordinator == "auto":
        if count is not None or index is not None:
            raise UsageError(
                "With --coordinator=auto the cluster says how many processes there are: leave out "
                "--processes and --process."
            )
    else:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise UsageError(
                f"got --coordinator={coordinator}, wanted HOST:PORT of the first process, or auto."
            )
        if count is None or index is None or not 0 <= index < count:
            raise UsageError(
                f"got --processes={count} --process={index}, wanted how many there are and which "
                "one this is, counted from 0."
            )
        given = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
        # Not on every address that the machine has.
        given["coordinator_bind_address"] = coordinator
        if index == 0:
            _check_free(host, int(port))
    missed = threading.Timer(_COME, _stop_alone, [coordinator, count])
    missed.start()
    try:
        _jax().distributed.initialize(
            **given,
            heartbeat_timeout_seconds=_SILENT + _LATER,
            initialization_timeout=_COME + _LATER,
        )
    except (ValueError, RuntimeError) as error:
        atexit.unregister(_jax().distributed.shutdown)
        raise UsageError(
            f"--coordinator={coordinator} cannot be used ({' '.join(str(error).split())[:300]}): "
            "give HOST:PORT with --processes and --process, or auto where Slurm, Open MPI or "
            "Kubernetes started this program."
        ) from None
    finally:
        missed.cancel()


def _check_free(host: str, port: int) -> None:
    try:
        socket.create_server((host.strip("[]"), port)).close()
    except OSError as error:
        reason = str(error)
        if error.errno == errno.EADDRINUSE:
            reason = "it is in use: by another program, or by a process that --process=0 was given"
        raise UsageError(
            f"The first process cannot listen at {host}:{port} ({reason}): wanted are an address "
            "of this machine, a port that nobody uses, and one --process=0."
        ) from None


def _stop_alone(coordinator: str, count: int | None) -> None:
    missing = "A process has" if count is None else f"At least one of {count} processes has"
    own = "" if count is None else f", each with its own --process from 0 to {count - 1}"
    sys.stderr.write(
        f"error: {missing} not come to --coordinator={coordinator} within {_COME} seconds: start "
        f"all of them{own}, with the same address, which all must reach.\n"
    )
    _leave(2)


def _leave(code: int) -> None:
    """End this process here, without what Python and JAX do at their end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    return str(error).rstrip(".") or type(error).__name__


def count() -> int:
    """How many processes train together."""
    return _group.count if _group else 1


def is_first() -> bool:
    """Whether this process writes the run; alone it does."""
    return _group is None or _group.index == 0


def share(batch_size: int) -> slice:
    """Which rows of a global batch are those of this process's devices."""
    if _group is None:
        return slice(None)
    rows = batch_size // _group.count
    return slice(_group.index * rows, (_group.index + 1) * rows)


def wait() -> None:
    """Until every process has come here."""
    if _group:
        _group.client.wait_at_barrier(f"fusion_keras/{next(_group.numbers)}", _DAY_MS)


def agreed(value: Any) -> Any:
    """The first process's value, of plain JSON types, in all of them."""
    if _group is None:
        return value
    key = f"fusion_keras/agreed/{next(_group.numbers)}"
    if is_first():
        _group.client.key_value_set(key, json.dumps(value))
    return json.loads(_group.client.blocking_key_value_get(key, _DAY_MS))


@contextlib.contextmanager
def training() -> Iterator[None]:
    """Steps are taken here: where `moved` is not called for minutes, a process hangs."""
    moved(first=True)
    try:
        yield
    finally:
        if _group:
            _group.moved = None


def moved(*, first: bool = False) -> None:
    """This process has taken a step, or a batch of an evaluation.

    Args:
        first: the next step is the first one, which is compiled.
    """
    if _group and (first or _group.moved):
        _group.moved = time.monotonic(), _FIRST_STEP if first else _STEP
        _group.moves += 1
