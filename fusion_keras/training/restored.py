"""A complete run, back in memory: its settings, its data, its trained model."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import keras

import fusion_keras.fusion.graph  # noqa: F401  (registers the layers of saved models)
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError
from fusion_keras.renamed import with_todays_names
from fusion_keras.training.plan import plan_of
from fusion_keras.training.run import corrupt_run_errors, read_json
from fusion_keras.training.task import Task, prepare


def config_of(folder: Path):
    """The config that a run was trained with, its recipe filled in.

    Raises:
        UsageError: no run, or one of another version, with other settings than there are now.
    """
    try:
        values = with_todays_names(read_json(folder / "config.json")["config"])
        config = config_of_values(values)
        # Older runs were trained without this limit.
        config.text.max_unknown = values["text"].get("max_unknown", 1.0)
        if config.fusion.stand_ins and "incomplete" not in values["data"]:
            # Before there was a choice, rows that lack a modality were skipped.
            config.data.incomplete = "skip"
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"The settings in {folder / 'config.json'} are not those of this version "
            f"({' '.join(str(error).split())}): use the version that trained the run."
        ) from error
    return config


def config_of_values(values: dict):
    """The config whose JSON, see `run.as_json`, this is."""
    config = get_config()
    config.update(_tuples(values))
    return config


def _tuples(values):
    """JSON has no tuples, and the config no lists."""
    if isinstance(values, dict):
        return {name: _tuples(value) for name, value in values.items()}
    return tuple(_tuples(v) for v in values) if isinstance(values, list) else values


def restore(folder: Path, in_float32: bool = False) -> Task:
    """A complete run's data and trained model, as they were when its training ended.

    Args:
        folder: of the run.
        in_float32: see `load_model`.

    Raises:
        UsageError: the run is not complete, or the data or the presets have changed.
    """
    if not (folder / "metrics.json").exists():
        raise UsageError(f"{folder} is not a finished run: give the directory of one.")
    config = config_of(folder)
    if in_float32:
        config.dtype = "float32"
    task = prepare(plan_of(config))
    if task.dataset.fingerprint != read_json(folder / "config.json")["dataset"]["fingerprint"]:
        raise UsageError(f"The data has changed since {folder} was trained: restore the data.")
    model = load_model(folder)
    with corrupt_run_errors(folder):
        task.graph.model.set_weights(model.get_weights())
    return task


def load_model(folder: Path, in_float32: bool = False) -> keras.Model:
    """The trained model of a run directory, in safe mode.

    Args:
        folder: of the run.
        in_float32: calculate in float32, also where the run did in bfloat16; its weights are
            float32 in any case.

    Raises:
        UsageError: there is none, or the file is damaged.
    """
    path = folder / "model.keras"
    if not path.is_file():
        raise UsageError(f"{folder} is not a finished run: it has no {path.name}.")
    if not zipfile.is_zipfile(path):
        raise UsageError(
            f"The model {path} cannot be read: it is cut short or damaged. Train the run again, or "
            "copy the file again."
        )
    try:
        if in_float32 and _in_half(path):
            return _in_float32(path)
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"The model {path} cannot be read ({reason}): it is damaged. Train the run again, or "
            "copy the file again."
        ) from error


def _in_half(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return b'"mixed_bfloat16"' in archive.read("config.json")


def _in_float32(path: Path) -> keras.Model:
    """The model of a .keras file, each of its layers with another policy."""
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / path.name
        with zipfile.ZipFile(path) as given, zipfile.ZipFile(changed, "w") as archive:
            for name in given.namelist():
                content = given.read(name)
                if name == "config.json":
                    for policy in (b'"mixed_bfloat16"', b'"bfloat16"'):
                        content = content.replace(policy, b'"float32"')
                archive.writestr(name, content)
        return keras.saving.load_model(changed, compile=False, safe_mode=True)
