"""The bench, asked by a search: what a device is, and how long artifacts take there."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fusion_keras import huge_pages
from fusion_keras.errors import MachineError, UsageError
from fusion_keras.files import digest, last_line
from fusion_keras.interrupts import end_with_parent
from fusion_keras.searching.crew import Crew

# What is kept of a measurement.
TIMES, INTERVAL = ("min", "p50", "p90"), "p90_interval"
# What makes other graphs of the same model.
_PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnxscript", "onnxruntime")
_OF_RUNNER = {
    "openvino": ("openvino",),
    "ort-cuda": ("onnxruntime-gpu",),
    "ort-tensorrt": ("onnxruntime-gpu", "tensorrt"),
}


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Another machine that measures.

    Attributes:
        flags: of the bench, that say where and how.
        fingerprint: what machine it is and how it is set, as the bench says.
    """

    flags: tuple[str, ...]
    fingerprint: dict


def met(flags: Sequence[str], folder: Path, crew: Crew) -> Elsewhere:
    """Ask a device what it is.

    Args:
        folder: of a search, where it is written down for the next call.

    Raises:
        UsageError: it cannot be reached, or it is not what it was for this search.
    """
    asked, kept, log = (folder / f"device{end}" for end in (".now.json", ".json", ".log"))
    command = [sys.executable, "-m", "bench.device", "--fingerprint", f"--out={asked}", *flags]
    run(command, log, crew)
    found, before = read_values(asked), read_values(kept)
    if before and before != found:
        differ = sorted(name for name in {*before, *found} if before.get(name) != found.get(name))
        name = differ[0]
        raise UsageError(
            f"The device is not what it was when this search began ({', '.join(differ)}; {name} "
            f"was {before.get(name)}, is {found.get(name)}): set it as it was, or give another "
            "--workdir."
        )
    os.replace(asked, kept)
    return Elsewhere(tuple(flags), found)


def device(there: Elsewhere | None = None, runner: str = "ort") -> str:
    """What makes latencies comparable: the processor, its cores, and what makes and runs graphs.

    Args:
        there: the machine, where it is another one.
        runner: of the bench.
    """
    parts = [
        "ratios",
        platform.machine(),
        _processor(),
        str(os.cpu_count()),
        _allowed(runner),
        platform.python_version(),
    ]
    if there:
        parts = ["ratios", json.dumps(there.fingerprint, sort_keys=True)]
    for name in (*_PACKAGES, *_OF_RUNNER.get(runner, ())):
        try:
            parts.append(importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            parts.append("")
    if runner != "ort":
        parts.append(runner)
    exporter = importlib.util.find_spec("export")
    if exporter and exporter.origin:
        # What makes the graphs.
        parts += [digest(file) for file in sorted(Path(exporter.origin).parent.rglob("*.py"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _allowed(runner: str) -> str:
    """Of this machine, what this process may use: cores, a quota of their time, GPUs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    quota = ""
    with contextlib.suppress(OSError):
        quota = Path("/sys/fs/cgroup/cpu.max").read_text().strip()
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if runner.startswith("ort-") else ""
    return f"{cores} {quota} {gpus}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("model name", "Model"))), "")


def bench(
    artifacts: list[Path], log: Path, crew: Crew, there: Elsewhere | None, runner: str = "ort"
) -> dict[tuple[str, str], dict]:
    """(folder's name, precision) -> what `Meter.known` says, the times unscaled."""
    target = log.with_suffix(".json")
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "bench", *map(str, artifacts), "--precisions=all"]
    command += [f"--runners={runner}"]
    command += [f"--out={target}", "--replace", *(there.flags if there else ())]
    try:
        # 1: one contender was lost; which, the file says.
        run(command, log, crew, fine=(0, 1))
    except UsageError as error:
        raise MachineError(str(error)) if there else error from None
    measured = read_values(target)
    if there and measured.get("fingerprint", there.fingerprint) != there.fingerprint:
        raise MachineError(
            "The device was set otherwise, or exchanged, while the search went on: set it as it "
            "was, then type the same command."
        )
    found, contenders = {}, measured.get("contenders", [])
    if len(contenders) < len(artifacts):
        raise UsageError(f"bench failed ({last_line(log)}); all it said is in {log}")
    for contender in contenders:
        if contender["error"]:
            raise UsageError(f"it could not be measured: {contender['error']}")
        times = contender["latency"]
        name = Path(contender["artifact"]["path"]).name
        kept = {which: times[which] for which in TIMES}
        if times[INTERVAL]:  # of five turns and more
            kept[INTERVAL] = times[INTERVAL]
        if contender["peak_bytes"]:  # Linux tells it
            kept["peak_mb"] = contender["peak_bytes"] / 1e6
        if contender["power"]:
            kept["mj"] = 1e3 * contender["power"]["joules_per_inference"]
        found[(name, contender["precision"])] = kept
    return found


def run(command: list[str], log: Path, crew: Crew, fine: tuple[int, ...] = (0,)) -> None:
    """Run a process that measures to its end.

    Args:
        command: Python's, with `-m MODULE`.
        log: gets what it says.
        crew: that it is of.
        fine: exit codes that are no failure.

    Raises:
        UsageError: it failed; its own sentence, or its last line, and where its log is.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the one who asks, who decides what becomes of it.
            process_group=0,
            # A person who measures has no large pages either.
            env=huge_pages.without(os.environ),
            preexec_fn=end_with_parent,
        )
        try:
            with crew.member(process.pid, measures=True):
                code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if code not in fine:
        said = last_line(log).removeprefix("error: ")
        raise UsageError(f"{command[2]} failed ({said}); all it said is in {log}")


def read_values(file: Path) -> dict:
    """The values of a JSON file; none where it is not there or is damaged."""
    try:
        values = json.loads(file.read_text())
        return values if isinstance(values, dict) else {}
    except (OSError, ValueError):
        return {}
