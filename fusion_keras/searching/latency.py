"""How long a draft takes on this machine, by the bench's own method, beside a reference.

A search lasts hours, in which a machine has slow ones. Each draft takes turns with one and the same
reference graph; what is kept is its ratio to that, times what the reference took the first time.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fusion_keras.errors import UsageError
from fusion_keras.files import last_line, write

# What makes other graphs of the same model.
_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnxscript", "onnxruntime")
# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


class Meter:
    """Measures drafts, each once.

    Attributes:
        folder: what is known of this device, kept for later searches.
    """

    def __init__(self, cache: Path):
        self.folder = cache / "latency" / device()

    def known(self, key: str, precisions: tuple[str, ...]) -> dict[str, dict] | None:
        """Precision -> p50, p90, min in ms, of a model that was measured before."""
        try:
            kept = json.loads((self.folder / f"{key}.json").read_text())
            return {name: kept[name] for name in precisions}
        except (OSError, ValueError, KeyError):
            return None

    def measured(
        self,
        key: str,
        draft: Path,
        precisions: tuple[str, ...],
        log: Path,
        make_reference: Callable[[Path], None],
    ) -> dict:
        """As `known`, measured now.

        Args:
            key: of the model.
            draft: an artifact; precisions: of it.
            log: what the bench said.
            make_reference: writes an artifact at fp32 alone, where this device has none yet.

        Raises:
            UsageError: it could not be measured.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        reference, first = self.folder / "reference", self.folder / "reference.json"
        if not first.is_file():
            make_reference(reference)
        times = _bench([reference, draft], log)
        anchor = times[(reference.name, "fp32")]
        if not first.is_file():
            write(first, _json(anchor))
        scale = json.loads(first.read_text())["p50"] / anchor["p50"]
        found = {
            name: {which: ms * scale for which, ms in times[(draft.name, name)].items()}
            for name in precisions
        }
        write(self.folder / f"{key}.json", _json({**found, "scale": scale}))
        return found


def device() -> str:
    """What makes latencies comparable: the processor, its cores, and what makes and runs graphs."""
    parts = [platform.machine(), _processor(), str(os.cpu_count()), platform.python_version()]
    for name in _PACKAGES:
        try:
            parts.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            parts.append("")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("model name", "Model"))), "")


def _bench(artifacts: list[Path], log: Path) -> dict[tuple[str, str], dict]:
    """(folder's name, precision) -> p50, p90, min in ms."""
    target = log.with_suffix(".json")
    command = [sys.executable, "-m", "bench", *map(str, artifacts), "--precision=all"]
    # 1: one contender was lost; which, the file says.
    run([*command, f"--out={target}", "--replace"], log, fine=(0, 1))
    found = {}
    for contender in json.loads(target.read_text())["contenders"]:
        if contender["error"]:
            raise UsageError(f"it could not be measured: {contender['error']}")
        times = contender["latency"]
        name = Path(contender["artifact"]["path"]).name
        kept = {which: times[which] for which in ("p50", "p90", "min")}
        found[(name, contender["precision"])] = kept
    return found


def run(command: list[str], log: Path, fine: tuple[int, ...] = (0,)) -> None:
    """Run a process to its end.

    Raises:
        UsageError: it failed; its own sentence, or its last line, and where its log is.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        done = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
        )
    if done.returncode not in fine:
        said = last_line(log).removeprefix("error: ")
        raise UsageError(f"{command[2]} failed ({said}); all it said is in {log}")


def _end_with_parent() -> None:
    """Ask Linux to end this process with the one that started it, however that ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _json(values: dict) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
