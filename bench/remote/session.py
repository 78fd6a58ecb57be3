"""`--device=ssh://...`: a command of the bench on another machine, by OpenSSH.

What `bench.pack` packs, the artifacts and what else the command reads are copied into a folder
there, only what differs by its sha256; the command runs there as a process of its own, so that a
lost connection costs nothing: the same command finds it again. What it writes comes back.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from bench.edge import artifact, files
from bench.edge.elsewhere import Wanted
from bench.edge.entry import tell
from bench.edge.errors import BenchError
from bench.remote.connection import Address, Device, Job, address, each
from bench.remote.receiving import Receiving
from bench.remote.travelling import BENCH, travelling

# Runner -> the module it needs there and what `pip install` calls it.
_NEEDED = {
    "ort": ("onnxruntime", "onnxruntime"),
    "ort-cuda": ("onnxruntime", "onnxruntime-gpu"),
    "ort-tensorrt": ("onnxruntime", "onnxruntime-gpu"),
    "rtx": ("onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime onnxruntime-ep-nv-tensorrt-rtx"),
    "openvino": ("openvino", "openvino"),
    "openvino-bf16": ("openvino", "openvino"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "saved_model": ("tensorflow", "tensorflow"),
}


def run(wanted: Wanted, options: argparse.Namespace) -> int:
    """Run a command there, and bring what it writes.

    Args:
        options: checked; `device` and `ssh` say where and how.

    Returns:
        The command's exit code.

    Raises:
        BenchError: what hinders it, and what to do.
    """
    session = Session(wanted, options)
    session.prepare()
    return session.finish()


class Session:
    """One command on one device; see `run`."""

    def __init__(self, wanted: Wanted, options: argparse.Namespace):
        self._wanted, self._where = wanted, address(options.device)
        _check_kind(wanted, options)
        folders = _places(wanted.artifacts)
        metas = {folder: artifact.read(folder) for folder in folders}
        arguments = [wanted.command]
        arguments += [f"artifacts/{folders[folder]}" for folder in wanted.artifacts]
        arguments += _flags(options, {*wanted.writes, *wanted.updates, *wanted.left_out})
        arguments += wanted.words
        given = {flag: path for flag, path in wanted.updates.items() if path.is_file()}
        given |= {"stdin": wanted.stdin} if wanted.stdin else {}
        contents = {name: files.digest(path) for name, path in {**wanted.sends, **given}.items()}
        asked = [arguments, [meta["seal"] for meta in metas.values()], contents]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        self._job = _job(wanted, arguments, key, folders)
        self._sources, self._digests = _needed_there(folders, metas)
        for name, path in {**wanted.sends, **given}.items():
            there = name if name in wanted.sends else f"given/{key}/{name}"
            self._sources[there], self._digests[there] = path, contents[name]
        self._device = Device(self._where, options.ssh, key)

    def prepare(self) -> None:
        """Copy what is not there, unless it runs already."""
        host, called, needed = self._where.host, self._wanted.called, _modules(self._wanted)
        asked = {"files": self._digests, "gone": self._wanted.gone}
        found = self._device.ask("look", modules=list(needed), **asked)
        if found["state"] in ("running", "ended"):
            tell(f"Going on with the {called} that began on {host} at {found['began']}.")
        else:
            if found["state"] == "dead":
                tell(f"Before, {host} ended this {called} without a word: it begins anew.")
            _check_modules(found, needed, self._where, self._device)
            self._device.copy(found["differing"], self._sources)
        sys.stdout.flush()

    def start(self) -> None:
        """Let it run, and do not wait for it."""
        self._device.start(self._job)

    def stop(self) -> None:
        """End it there."""
        self._device.stop(self._job, Receiving(self._job.places))
        self._device.ask("forget")

    def finish(self) -> int:
        """Start it if need be, wait for its end, and bring what it wrote; its exit code."""
        edit, job = self._wanted.edit, self._job
        receiving = Receiving(job.places, edit and (lambda path: edit(path, job.ours)))
        followed = self._device.follow(job, receiving)
        self._device.ask("forget")
        named = ", ".join(map(str, receiving.arrived))
        kept = f" What was done is kept in {named}." if named else ""
        if followed.get("interrupted"):
            raise KeyboardInterrupt(f"Interrupted, there too.{kept}")
        rc = followed["rc"]
        if rc is None or rc > 128:
            # What a shell says of a process that a signal has ended.
            how = "restarted" if rc is None else f"signal {rc - 128}"
            raise BenchError(
                f"{self._where.host} ended the {self._wanted.called} without a word ({how}, out of "
                f"memory?): type the same command to begin it anew.{kept}"
            )
        return rc


def check(devices: str, ssh: str, runners: Sequence[str]) -> None:
    """See that devices can be reached and have what runners need; they may be at work.

    Raises:
        BenchError: what hinders it, and what to do.
    """
    needed = _modules(Wanted("", "", runners))
    for where in map(address, each(devices).values()):
        device = Device(where, ssh, "none")
        found = device.ask("look", modules=list(needed), files={})
        _check_modules(found, needed, where, device)


def _check_kind(wanted: Wanted, options: argparse.Namespace) -> None:
    for runner in wanted.runners:
        if runner not in _NEEDED:
            raise BenchError(
                f"--runners={runner} needs the training stack and runs here alone: leave it or "
                f"--device out; on a device there are {', '.join(_NEEDED)}."
            )
    if getattr(options, "run", None):
        raise BenchError(
            "--run names a folder of this machine, --device measures on another: "
            "leave one of them out."
        )


def _job(wanted: Wanted, arguments: list[str], key: str, folders: dict[Path, str]) -> Job:
    places = {f"jobs/{key}/wrote-{flag}": path for flag, path in wanted.writes.items()}
    places |= {f"given/{key}/{flag}": path for flag, path in wanted.updates.items()}
    named = {flag: f"jobs/{key}/wrote-{flag}" for flag in wanted.writes}
    named |= {flag: f"given/{key}/{flag}" for flag in wanted.updates}
    ours = {name: str(path) for name, path in places.items()}
    ours |= {f"artifacts/{place}": str(folder) for folder, place in folders.items()} | wanted.ours
    if wanted.fills:
        for folder, place in folders.items():
            places[f"artifacts/{place}/{wanted.fills}"] = folder / wanted.fills
    flags = [f"--{flag}={name}" for flag, name in named.items()]
    stdin = f"given/{key}/stdin" if wanted.stdin else ""
    # Before what may take any number of words.
    return Job([arguments[0], *flags, *arguments[1:]], stdin, places, _renaming(ours))


def _renaming(ours: dict[str, str]) -> Callable[[str], str]:
    """A text with our names instead of the device's; the longer name counts where two begin."""
    if not ours:
        return lambda text: text
    longest = sorted(ours, key=len, reverse=True)
    # Of a folder, which ends with "/", more follows.
    names = (re.escape(name) + ("" if name.endswith("/") else r"(?![\w-])") for name in longest)
    pattern = re.compile(rf"(?<![\w./-])({'|'.join(names)})")
    return lambda text: pattern.sub(lambda match: ours[match[1]], text)


def _places(artifacts: Sequence[Path]) -> dict[Path, str]:
    """Artifact -> its name there: its own, with its parent's where two have the same."""
    folders = list(dict.fromkeys(artifacts))
    resolved = {folder: folder.resolve() for folder in folders}
    places = {}
    for folder in folders:
        whole = resolved[folder]
        alike = {other for other in resolved.values() if other.name == whole.name}
        places[folder] = whole.name if len(alike) == 1 else f"{whole.parent.name}/{whole.name}"
    if len(set(places.values())) < len(set(resolved.values())):
        raise BenchError(
            "Two artifacts have the same name and the same parent's name: rename one of "
            f"{', '.join(map(str, folders))}."
        )
    return places


def _flags(options: argparse.Namespace, files: Collection[str]) -> list[str]:
    """Those that mean the same there, written out; `files`: those that name a file here."""
    here = ("artifact", "artifacts", "device", "ssh", "replace", "run", *files)
    given = []
    for name, value in vars(options).items():
        if name in here or value is None or value is False:
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else value
        given.append(f"--{name}" if value is True else f"--{name}={text}")
    return given


def _needed_there(
    places: dict[Path, str], metas: dict[Path, dict]
) -> tuple[dict[str, Path], dict[str, str]]:
    """Of every file that is needed there, by its name there and in the order of their journey: the
    file here, and its sha256."""
    sources = {f"bench/{path.as_posix()}": BENCH / path for path in travelling()}
    digests = {name: files.digest(path) for name, path in sources.items()}
    for folder, place in places.items():
        for name, sha256 in metas[folder]["files"].items():  # which `artifact.read` has checked
            sources[f"artifacts/{place}/{name}"] = folder / name
            digests[f"artifacts/{place}/{name}"] = sha256
        # Last, so that what has come in part is no artifact yet.
        name = f"artifacts/{place}/{artifact.META}"
        sources[name] = folder / artifact.META
        digests[name] = files.digest(sources[name])
    return sources, digests


def _modules(wanted: Wanted) -> dict[str, str]:
    """Module that is needed there -> what `pip install` calls it."""
    return {
        "numpy": "numpy",
        **dict(_NEEDED[runner] for runner in wanted.runners),
        **wanted.needs,
    }


def _check_modules(found: dict, needed: dict[str, str], where: Address, device: Device) -> None:
    if not found["missing"]:
        return
    packages = " ".join(needed[name] for name in found["missing"])
    python = shlex.quote(f"{where.folder}/.venv/bin/python")
    made = ""
    if not found["python"].endswith("/.venv/bin/python"):
        folder = shlex.quote(f"{where.folder}/.venv")
        made = f"python3 -m venv --system-site-packages {folder} && "
    typed = shlex.quote(f"{made}{python} -m pip install {packages}")
    raise BenchError(
        f"{found['python']} on {where.host} has no {' and no '.join(found['missing'])}: type "
        f"`{shlex.join(device.reach)} {typed}` (on a Jetson, JetPack and NVIDIA's "
        "wheels have them), then the same command."
    )
