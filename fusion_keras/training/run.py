"""The run directory: one finished training, or a `.partial` one that can be resumed.

A run is built in `<folder>.partial` and renamed to `<folder>` when all of it is there,
so a directory without the suffix is complete. Every file in it is written to a
temporary name first: a kill at any moment leaves the last complete state.

A complete run holds `config.json`, `model.keras`, `history.csv`, `metrics.json`,
`predictions.csv`, `golden.npz` and `tensorboard/`; late fusion also `parents/`.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fusion_keras import files
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.files import disk_errors
from fusion_keras.renamed import with_todays_names
from fusion_keras.training import processes

CHECKPOINT = "checkpoint.npz"
# Settings that change nothing in a run: where things are kept.
_WHEREABOUTS = ("data.cache_dir",)
_log = logging.getLogger(__name__)


class Run:
    """A run directory.

    Attributes:
        folder: where the run is when it is complete.
        partial: where it is until then.
        framework: what trains it: "keras"; "pytorch", the reference; or nothing, where trained
            weights were "ported" into it.
    """

    def __init__(self, folder: Path, framework: str = "keras"):
        if folder.name in ("", ".."):
            raise UsageError(f"got the run directory {str(folder)!r}, wanted one with a name.")
        self.folder, self.framework = folder, framework
        self.partial = folder.with_name(folder.name + ".partial")

    @property
    def complete(self) -> bool:
        return os.path.isdir(self.folder)

    @property
    def path(self) -> Path:
        """Where the files are now."""
        return self.folder if self.complete else self.partial

    @contextlib.contextmanager
    def open(self, config: ConfigDict):
        """Make or resume `.partial`, for this process alone, or for those that train together.

        Raises:
            UsageError: the folder cannot be written, another process holds it, or it
                belongs to another config.
        """
        if os.path.lexists(self.folder) and not self.complete:
            raise UsageError(
                f"got {self.folder} as the run directory, which is a file: give another name."
            )
        # Of processes that train together the first one holds it.
        with self._held() if processes.is_first() else contextlib.nullcontext():
            processes.wait()
            if self._begun:
                self._check_begun(config)
            processes.wait()
            yield self

    @contextlib.contextmanager
    def _held(self):
        """`.partial`, there and locked until this process ends or the block does."""
        with disk_errors(self.partial):
            self.partial.mkdir(parents=True, exist_ok=True)
            lock = (self.partial / "lock").open("w")
        with lock:
            try:
                # Released by the kernel when the process ends, however it ends.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    f"Another process is training {self.folder}: wait for it, or give another "
                    "--workdir."
                ) from None
            if self.complete:
                # It was renamed between this process's look and its lock.
                (self.partial / "lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    self.partial.rmdir()
                raise UsageError(f"Another process has just finished {self.folder}.")
            try:
                yield
            except UsageError:
                # A refused run leaves nothing, if nothing was written yet.
                if not any(path.name != "lock" for path in self.partial.iterdir()):
                    (self.partial / "lock").unlink()
                    self.partial.rmdir()
                raise

    def check_finished(self, config: ConfigDict) -> None:
        """Check that the complete run is what this config would train.

        Raises:
            UsageError: names the settings that differ.
        """
        differing = self._differing(config)
        if differing:
            raise UsageError(
                f"{self.folder} is a finished run with other settings ({differing}): to train "
                "these, give another --run, --workdir or --config.name."
            )

    def is_of(self, config: ConfigDict) -> bool:
        """Whether this is a complete run of exactly this resolved config; never raises."""
        try:
            finished = (self.folder / "metrics.json").is_file()
            if not finished or self.folder.suffix == ".partial":
                return False
            return not self._differing(config)
        except (UsageError, OSError, AttributeError):
            # Whatever else lies beside the runs.
            return False

    def check_together(self, config: ConfigDict) -> None:
        """Check that processes which train together were all given the first one's settings.

        Raises:
            UsageError: names those that differ.
        """
        ours = {"run": os.path.abspath(self.folder), **as_json(config)}
        differing = _listed(changes(processes.agreed(ours), ours))
        if differing:
            raise UsageError(
                f"This process was given other settings than the first one ({differing}): type the "
                "same command for each, but for --process."
            )

    @property
    def _begun(self) -> bool:
        """Whether something was learned already, which another command must not throw away."""
        learned = ("metrics.json", CHECKPOINT, "parents/*/metrics.json")
        described = (self.partial / "config.json").exists()
        return described and any(any(self.partial.glob(name)) for name in learned)

    def _check_begun(self, config: ConfigDict) -> None:
        differing = self._differing(config)
        if differing:
            raise UsageError(
                f"{self.partial} was begun with other settings ({differing}): "
                "repeat that command to resume it, remove the folder, or give another --workdir."
            )

    def check_data(self, fingerprint: str) -> None:
        """Check that a run that is resumed still learns from the same data.

        Raises:
            UsageError: the data has changed.
        """
        if self._begun:
            begun = self.read_json("config.json")["dataset"]["fingerprint"]
            if begun != fingerprint:
                raise UsageError(
                    f"The data has changed since {self.partial} was begun: restore it, or remove "
                    "the folder to start anew."
                )

    def check_learned_from(self, now: dict) -> None:
        """Check that a run that is resumed still learns from the same models and rows.

        Args:
            now: what `config.json` will say: teachers, directory of each -> sha256 of its model;
                parents_sha256, modality -> of the model of each that is kept elsewhere;
                unlabelled_sha256, of the table of unlabelled rows; asked_sha256, of what they and
                the recombined rows show. What there is none of is left out.

        Raises:
            UsageError: one has changed.
        """
        before = self.read_json("config.json") if self._begun else now
        for name, what in (
            ("teachers", "A teacher"),
            ("parents_sha256", "A parent"),
            ("unlabelled_sha256", "The table of unlabelled rows"),
            ("asked_sha256", "What the rows of the teacher show"),
        ):
            # Runs from before that was written down say nothing of it.
            if name in before and _sha256s(before[name]) != _sha256s(now.get(name)):
                raise UsageError(
                    f"{what} has changed since {self.partial} was begun: restore it, or remove the "
                    "folder to start anew."
                )

    def _differing(self, config: ConfigDict) -> str:
        described = self.read_json("config.json")
        old, framework = described.get("config", {}), described.get("framework", "keras")
        if framework != self.framework:
            return f"framework was {framework}, is {self.framework}"
        changed = changes(completed(old), as_json(config))
        if "teacher.runs" in changed and config.teacher.runs:
            # The same models may be at another place, or called from another folder.
            now = [files.digest_if_there(model) for model in teachers_models(config)]
            if now == _sha256s(described.get("teachers")):
                del changed["teacher.runs"]
        return _listed(changed)

    def finish(self) -> None:
        """Name the run complete."""
        processes.wait()
        if processes.is_first():
            with disk_errors(self.partial):
                (self.partial / CHECKPOINT).unlink(missing_ok=True)
                (self.partial / "lock").unlink(missing_ok=True)
                os.rename(self.partial, self.folder)
        processes.wait()

    def write_json(self, name: str, values: dict) -> None:
        self.write_bytes(name, (json.dumps(values, indent=2, allow_nan=True) + "\n").encode())

    def read_json(self, name: str) -> dict:
        return read_json(self.path / name)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file so that it is either whole or as it was.

        Of processes that train together the first one writes.
        """
        if not processes.is_first():
            return
        files.write(self.path / name, content)
        _log.debug("wrote %s, %d bytes", self.path / name, len(content))

    def write_rows(self, name: str, rows: Iterable[Sequence]) -> None:
        """As `write_bytes`, a CSV file; no more than a row of it is in memory at once."""
        if not processes.is_first():
            return
        path = self.path / name
        with (
            disk_errors(path),
            files.whole(path) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows(rows)
        _log.debug("wrote %s", path)

    def write_npz(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        if not processes.is_first():
            return
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self.write_bytes(name, buffer.getvalue())


def _sha256s(said):
    """Of models, wherever they are."""
    return list(said.values()) if isinstance(said, dict) else said


def teachers_models(config: ConfigDict) -> list[str]:
    """The file of each named teacher's model."""
    return [str(Path(folder) / "model.keras") for folder in config.teacher.runs]


def read_json(path: Path) -> dict:
    """Read a JSON file of a run.

    Raises:
        UsageError: it is not there or is cut short.
    """
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Could not read {path} ({error}): it is not a finished run, or it was damaged."
        ) from error
    return values


@contextlib.contextmanager
def corrupt_run_errors(folder: Path):
    """Turn whatever a file of a run lacks into a sentence.

    Around reading of what was written by a run; not around work that may fail of itself.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OSError) as error:
        raise UsageError(
            f"A file in {folder} is damaged or of another version "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}): copy or train the "
            "run again."
        ) from error


def as_json(config: ConfigDict) -> dict:
    """The config as plain JSON types; tuples become lists, as a file gives them back."""
    return json.loads(json.dumps(config.to_dict()))


def completed(config: dict) -> dict:
    """A run's config as this version has it: settings it is too old to have, today's names.

    The defaults of later settings change nothing.

    Args:
        config: of `config.json`, perhaps written before some settings existed.
    """
    return _filled(with_todays_names(config), as_json(get_config()))


def _filled(values: dict, defaults: dict) -> dict:
    def fill(name, default):
        if isinstance(default, dict) and isinstance(values.get(name, {}), dict):
            return _filled(values.get(name, {}), default)
        return values.get(name, default)

    return values | {name: fill(name, default) for name, default in defaults.items()}


def changes(old: dict, new: dict, prefix: str = "") -> dict[str, tuple]:
    """Dotted name -> (before, now) of each setting that differs between two nested dicts."""
    changed = {}
    for name in sorted(set(old) | set(new)):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            changed |= changes(a, b, f"{prefix}{name}.")
        elif a != b:
            changed[f"{prefix}{name}"] = (a, b)
    return changed


def worded(changed: dict[str, tuple]) -> list[str]:
    """What `changes` found, a phrase each."""
    return [f"{name} was {before!r}, is {now!r}" for name, (before, now) in changed.items()]


def _listed(changed: dict[str, tuple]) -> str:
    """The first few of them, but for those that change nothing."""
    phrases = worded({n: pair for n, pair in changed.items() if n not in _WHEREABOUTS})
    more = f"; and {len(phrases) - 4} more" if len(phrases) > 4 else ""
    return "; ".join(phrases[:4]) + more
