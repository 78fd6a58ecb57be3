"""The nodes' end of `cluster`: what Ray calls there."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fusion_keras
from fusion_keras import files, interrupts, jobs

# A run that was begun so often and whose node or process died each time is not begun again.
ATTEMPTS = 4
# Exit code of a training that could not begin there, whatever it is.
LOST = 75  # EX_TEMPFAIL of sysexits.h
# A file in a run on a node that another one of the driver's may replace.
_COPY = ".copy_of_the_driver"
# Seconds between two looks at what a training says.
LOOK = 1.0


@dataclass(frozen=True)
class Sent:
    """A finished run on its way to a node: its object in Ray's store, and `model_of` it."""

    packed: object
    model: str


@dataclass(frozen=True)
class Work:
    """A training as a node is told of it.

    Attributes:
        name: the run's, among those of the driver.
        arguments: of Python.
        here: where the driver is; its relative paths are relative to this.
        run: the run directory.
        mark, token: a file of the driver, and what stands in it.
        cpus, gpus: what it takes of the node.
        sent: run directory -> what is sent of it, of runs that it may need.
    """

    name: str
    arguments: tuple[str, ...]
    here: Path
    run: Path
    mark: Path
    token: str
    cpus: int
    gpus: float
    sent: dict[Path, Sent]


class Board:
    """What trainings say, until the driver takes it."""

    def __init__(self):
        self._attempts: dict[str, int] = {}
        self._said: dict[str, tuple[str, bytes]] = {}

    def begun(self, name: str) -> int:
        """How often a training was begun, this time included."""
        self._attempts[name] = self._attempts.get(name, 0) + 1
        return self._attempts[name]

    def say(self, name: str, where: str, said: bytes) -> None:
        self._said[name] = (where, self._said.get(name, ("", b""))[1] + said)

    def taken(self) -> dict[str, tuple[str, bytes]]:
        """Name -> (host, what it said since the last time)."""
        said, self._said = self._said, {}
        return said


def seen(mark: Path, token: str) -> tuple[str, bool]:
    """(version of fusion_keras, whether this node sees the driver's files)."""
    return fusion_keras.__version__, _sees(mark, token)


def _sees(mark: Path, token: str) -> bool:
    try:
        return mark.read_text() == token
    except OSError:
        return False


def carried_out(work: Work, board) -> tuple[int, bytes, bytes | None]:
    """Train.

    Never by `ray.get`: Ray lends the cores of a task that waits in it to the next one, and does not
    ask for them back.

    Returns:
        exit code; the last words that were not said to the board yet; and the run, packed, where
        the driver does not see it.
    """
    attempt, host = board.begun.remote(work.name).future().result(), socket.gethostname()

    def say(said: bytes) -> None:
        if said:
            board.say.remote(work.name, host, said)

    again = "" if attempt == 1 else f", attempt {attempt}: its node or its process had died"
    say(f"Begun on {host}{again}\n".encode())
    if attempt > ATTEMPTS:
        killed = "its process or its node died each time, perhaps out of memory"
        return 1, f"error: It was begun {ATTEMPTS} times, and {killed}.\n".encode(), None
    shared = _sees(work.mark, work.token)
    try:
        work.here.mkdir(parents=True, exist_ok=True)
        work.run.parent.mkdir(parents=True, exist_ok=True)
        for folder, sent in work.sent.items():
            if not shared:
                _receive(sent, folder)
    except FileExistsError as error:
        return LOST, f"error: {host} {error}\n".encode(), None
    except OSError as error:
        sentence = (
            f"error: {host} does not see the driver's files, and cannot keep its own at the same "
            f"path ({error}): share the folder, or give a --workdir that can be made there.\n"
        )
        return LOST, sentence.encode(), None
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "") if work.gpus else ""
    memory = 0.9 * min(1.0, work.gpus or 1.0)
    with (
        jobs.taken(work.cpus, gpu, memory) as share,
        tempfile.NamedTemporaryFile() as log,
        open(log.name, "rb") as reading,  # a position of its own
    ):
        code = _trained(work, share, log, lambda: say(reading.read()))
        packed = None if shared or code else packed_run(work.run)
        if packed and not (work.run / "metrics.json").is_file():
            # Others start from finished runs; a checkpoint that goes home is of no use here.
            shutil.rmtree(work.run, ignore_errors=True)
        elif packed:
            (work.run / _COPY).touch()
        return code, reading.read(), packed


def _receive(sent: Sent, folder: Path) -> None:
    """A run of the driver's at its path, in place of an older copy, which it may be there from
    before.

    Raises:
        FileExistsError: a run stands there that is no copy of a driver's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(folder.parent, os.O_RDONLY)
    try:
        # Several trainings of a node may want it at once.
        fcntl.flock(held, fcntl.LOCK_EX)
        if model_of(folder) == sent.model:
            return
        packed = sent.packed.future().result()
        with tempfile.TemporaryDirectory(prefix=".leaving.", dir=folder.parent) as place:
            if folder.exists():
                if not (folder / _COPY).is_file():
                    raise FileExistsError(
                        f"has a run of its own at {folder}, another one than the driver's, which "
                        "this training may need: move it away there, or give another --workdir."
                    )
                os.rename(folder, Path(place) / folder.name)
            unpack(packed, folder)
            (folder / _COPY).touch()
    finally:
        os.close(held)


def _trained(work: Work, share: jobs.Share, log, look: Callable[[], None]) -> int:
    with share.held():
        process = subprocess.Popen(
            [sys.executable, *work.arguments],
            cwd=work.here,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=interrupts.bound(share.environment(os.environ)),
        )
    try:
        while process.poll() is None:
            time.sleep(LOOK)
            look()
        return process.returncode
    finally:
        # Cancelled: Ray raises KeyboardInterrupt here.
        process.terminate()
        process.wait()


def model_of(folder: Path) -> str:
    """sha256 of a run's model; "" without one."""
    model = folder / "model.keras"
    return files.digest(model) if model.is_file() else ""


def packed_run(folder: Path) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(folder, ".", filter=lambda f: None if f.name.endswith(_COPY) else f)
        return file.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Whole, or not at all; as it is where another process was faster."""
    with tempfile.TemporaryDirectory(prefix=".arriving.", dir=folder.parent) as place:
        partial = Path(place) / folder.name
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(partial, filter="data")
        try:
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():
                raise
