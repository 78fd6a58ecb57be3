"""How long a draft takes on a device, by the bench's own method, beside a reference.

A search lasts hours, in which a machine has slow ones. Each draft takes turns with one and the same
reference graph, which takes about as long as drafts do (`base.reference`); what is kept is its
ratio to that, percentile by percentile. What it took is this ratio times the least that the
reference had ever taken when the search began: one scale for all models of a search.
Another machine measures where the bench is given one (--device): then nothing here stands still.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from fusion_keras import huge_pages
from fusion_keras.errors import MachineError, UsageError
from fusion_keras.files import digest, last_line, write
from fusion_keras.interrupts import end_with_parent
from fusion_keras.searching.crew import Crew

_TIMES, _INTERVAL = ("min", "p50", "p90"), "p90_interval"
# A graph that does the same for every query takes hardly longer at its 90th percentile than at the
# median: 1.1 to 1.4 times on a shared machine (twelve measurements of 9 ms). Beyond this others
# were at work, and it is measured anew; so many measurements at most.
_CALM, _TRIES = 1.5, 3
# Times that a new reference is measured by itself, before it is held against any model.
_SETTLING = 5
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
    found, before = _read(asked), _read(kept)
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


class Meter:
    """Measures drafts, each once.

    Attributes:
        folder: what is known of models with these outputs on this device, beside this reference;
            kept for later searches.
    """

    def __init__(
        self,
        cache: Path,
        outputs: str,
        reference: str,
        crew: Crew,
        there: Elsewhere | None = None,
        runner: str = "ort",
        scale: Path | None = None,
    ):
        """
        Args:
            cache: where all of it is kept.
            outputs: what models answer, beside their architecture, by which they are known.
            reference: the key of the model that all are held against.
            crew: stands still while one is measured on this machine.
            there: measures, instead of this machine.
            runner: of the bench.
            scale: a file that keeps what the reference takes, for one search; without it that is
                the least that is known at the time.
        """
        self._crew, self._one, self._there = crew, threading.Lock(), there
        self._runner, self._scale = runner, scale
        # Held against another reference they would not be comparable.
        self._beside = cache / "latency" / device(there, runner) / reference
        self.folder = self._beside / outputs.replace(" ", "_")

    def known(
        self, key: str, precisions: tuple[str, ...], wanted: Collection[str] = ()
    ) -> dict[str, dict] | None:
        """Precision -> what was measured before of a model: p50, p90, min in ms; p90_interval, 95 %
        of the 90th percentile, of which p90 is an upper estimate, by the turns of this measurement
        alone; peak_mb, of the process
        that answers, in MB; where the machine has sensors mj, of an inference, in mJ.

        Args:
            key, precisions: of the model.
            wanted: of these; None where one of them is not known.
        """
        kept, scale = _read(self.folder / f"{key}.json"), self._taken()
        found = {p: kept[p] for p in precisions if p in kept and set(wanted) <= set(kept[p])}
        complete = scale and len(found) == len(precisions)
        return {p: _scaled(ratios, scale) for p, ratios in found.items()} if complete else None

    def measured(
        self,
        key: str,
        draft: Path,
        precisions: tuple[str, ...],
        log: Path,
        make_reference: Callable[[Path], None],
        wanted: Collection[str] = (),
    ) -> dict:
        """As `known`, measured now.

        Args:
            key: of the model.
            draft: an artifact; precisions: of it.
            log: what the bench said.
            make_reference: writes the reference's artifact, at fp32 alone, where this device has
                none yet.
            wanted: what must be among it.

        Raises:
            UsageError: it could not be measured.
            MachineError: the device has no sensors for it, or is gone.
            EndedError: the crew has ended.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._one:
            times, anchor = self._beside_reference(draft, log, make_reference)
            scale = self._taken()
        found = {name: _scaled(times[(draft.name, name)], anchor, -1) for name in precisions}
        for ratios in found.values():
            lacking = sorted(set(wanted) - set(ratios))
            if lacking:
                flag = {"mj": "--budget_mj", "peak_mb": "--budget_mb"}[lacking[0]]
                raise MachineError(
                    f"{flag} is given, and {'the device' if self._there else 'this machine'} has "
                    "no sensors for it that the bench knows: leave it out, with another --workdir."
                )
        file = self.folder / f"{key}.json"
        write(file, _json({**_read(file), **found}))
        return {name: _scaled(ratios, scale) for name, ratios in found.items()}

    def _taken(self) -> dict[str, float]:
        """What the reference takes, for this search; empty where nobody has measured it."""
        kept = _read(self._scale) if self._scale else {}
        taken = kept or _read(self._beside / "reference.json")
        if self._scale and taken and not kept:
            write(self._scale, _json(taken))
        return taken

    def _beside_reference(
        self, draft: Path, log: Path, make_reference: Callable[[Path], None]
    ) -> tuple[dict[tuple[str, str], dict], dict[str, float]]:
        """As `_bench`, and what the reference took beside the draft."""
        reference, least = self._beside / "reference", self._beside / "reference.json"
        if not (reference / "meta.json").is_file():
            # What is left of one, say by a cleaner of caches, would be in the way of every draft.
            shutil.rmtree(reference, ignore_errors=True)
            make_reference(reference)
            least.unlink(missing_ok=True)
        if not least.is_file():
            # Else the first models would be held against how the machine is at the moment.
            try:
                alone = [self._undisturbed([reference], log) for _ in range(_SETTLING)]
            except MachineError:
                raise
            except UsageError as error:
                raise MachineError(
                    f"No model can be measured with {self._runner}: {error}"
                ) from None
            for times in alone:
                _keep_least(least, times[(reference.name, "fp32")])
        tries = []

        def unrest(times) -> float:
            anchor = times[(reference.name, "fp32")]
            return anchor["p90"] / anchor["p50"]

        for _ in range(_TRIES):
            try:
                tries.append(self._undisturbed([reference, draft], log))
            except MachineError:
                raise
            except UsageError:
                if not tries:
                    raise
                break
            if unrest(tries[-1]) <= _CALM:
                break
        times = min(tries, key=unrest)
        anchor = times[(reference.name, "fp32")]
        _keep_least(least, anchor)
        return times, anchor

    def _undisturbed(self, artifacts: list[Path], log: Path) -> dict[tuple[str, str], dict]:
        """As `_bench`, while the crew stands still."""
        with contextlib.nullcontext() if self._there else self._crew.quiet():
            self._crew.check()
            return _bench(artifacts, log, self._crew, self._there, self._runner)


def _scaled(of_one: dict, scale: dict[str, float], power: int = 1) -> dict:
    """What was measured of a model, its times multiplied by a scale, or with -1 divided by it."""
    found = of_one | {which: of_one[which] * scale[which] ** power for which in _TIMES}
    if _INTERVAL in of_one:
        found[_INTERVAL] = [x * scale["p90"] ** power for x in of_one[_INTERVAL]]
    if power > 0:
        # Of two scales one may have been luckier.
        for less, more in itertools.pairwise(_TIMES):
            found[more] = max(found[more], found[less])
    return found


def _keep_least(file: Path, anchor: dict[str, float]) -> None:
    """Of all measurements of the reference, the one that the machine's other work disturbed least,
    time by time; kept in a file."""
    known = _read(file)
    best = {which: min(anchor[which], known.get(which, anchor[which])) for which in _TIMES}
    write(file, _json(best))


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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("model name", "Model"))), "")


def _bench(
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
    measured = _read(target)
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
        kept = {which: times[which] for which in _TIMES}
        if times[_INTERVAL]:  # of five turns and more
            kept[_INTERVAL] = times[_INTERVAL]
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


def _read(file: Path) -> dict:
    """The values of a JSON file; none where it is not there or is damaged."""
    try:
        values = json.loads(file.read_text())
        return values if isinstance(values, dict) else {}
    except (OSError, ValueError):
        return {}


def _json(values: dict) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()
