"""Reading run directories: what was trained, how, and which test rows it answers rightly.

A run holds `config.json`, `metrics.json`, `predictions.csv` and, where something was trained,
`history.csv`, as `fusion_keras/training/run.py` has it. One of the PyTorch reference holds the
same, and says `"framework": "pytorch"` in its `config.json`.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.report.front import Model
from bench.report.gather import ReportError

OURS, PYTORCH = "keras", "pytorch"
MODALITIES = ("text", "image", "audio", "tabular")
FILES = ("config.json", "metrics.json", "predictions.csv")
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, csv.Error)
# Where things are kept, how they are called, and the seed: what two seeds may differ in.
_FREE = ("seed", "name", "parents", "variant")
# Settings of teaching which earlier runs do not say are off.
_LATER = {"heads": 0.0, "taps": 0.0, "edits": 0.0}
# How a table is read shows in its rows, which are compared.
_FREE_DATA = (
    *("name", "path", "raw_dir", "frames_dir", "cache_dir"),
    *("max_skipped", "missing", "encoding", "join_classes", "label_kind", "label_separator"),
)


@dataclass(frozen=True, eq=False)
class Run:
    """One finished training.

    Attributes:
        framework: OURS or PYTORCH.
        settings: its config as text, equal where only seeds and places differ.
        recipe: of that config.
        artifact: dataset, variant, seed, backbones, spec and test, as
            `bench.edge.artifact.described` has them; test rows are ordered by their ids.
        correct: bool [N], whether each test row is answered rightly.
        parameters: numbers that its model stores, embeddings and all; None where not said.
        seconds: of its own epochs, and of those of the parents trained inside it; None
            where there were none.
        rows, extra: training rows, and those that only a teacher answers.
        epochs: the passes over both that were made. Rows and these are None where not said.
        teachers: the folder of each run that it learned from -> the sha256 of its model.
        metrics: of the test split, by their names in `metrics.json`.
    """

    path: Path
    framework: str
    settings: str
    recipe: str
    artifact: dict
    correct: np.ndarray
    parameters: int | None
    seconds: tuple[float | None, float | None]
    rows: int | None = None
    extra: int = 0
    epochs: int | None = None
    teachers: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Family:
    """Every training of one architecture in one way by one framework: its seeds, ascending.

    called: what it is called in its variant's place, so that no row of the variant's is its own.
    """

    runs: list[Run]
    called: str = ""

    @cached_property
    def model(self) -> Model:
        artifact = self.runs[0].artifact
        artifact = {**artifact, "variant": self.called or artifact["variant"]}
        return Model(artifact, "fp32", {r.artifact["seed"]: r.correct for r in self.runs})


def read_all(places: Iterable[Path]) -> list[Run]:
    """Every finished run in these folders, once.

    Raises:
        ReportError: see `find` and `read`.
    """
    folders = {run.resolve(): run for place in places for run in find(place)}
    return [read(run) for run in folders.values()]


def find(place: Path) -> list[Path]:
    """Complete run directories in a folder, or the folder itself; not the parents inside a run.

    Raises:
        ReportError: there is none.
    """
    folders = _complete(place) if place.is_dir() else []
    if not folders:
        raise ReportError(
            f"{place} holds no finished run ({', '.join(FILES)}): give the folder that training "
            "wrote."
        )
    return folders


def _complete(place: Path) -> list[Path]:
    if place.suffix == ".partial":
        return []
    if all((place / name).is_file() for name in FILES):
        return [place]
    return [run for inner in sorted(place.iterdir()) if inner.is_dir() for run in _complete(inner)]


def read(folder: Path) -> Run:
    """One finished run.

    Raises:
        ReportError: a file of it cannot be read, or is laid out otherwise.
    """
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        test, correct = _test(folder / "predictions.csv")
        artifact = {name: about[name] for name in ("variant", "seed", "spec")}
        artifact |= {"dataset": about["dataset"]["name"], "backbones": _backbones(about)}
        artifact["label_kind"] = about.get("label_kind", "single")
        return Run(
            path=folder,
            framework=about.get("framework", OURS),
            settings=_settings(about, artifact["backbones"]),
            recipe=about["config"]["recipe"],
            artifact={**artifact, "test": test},
            correct=correct,
            parameters=about.get("parameters"),
            seconds=(
                _seconds([folder / "history.csv"]),
                _seconds(sorted(folder.glob("parents/*/history.csv"))),
            ),
            rows=about["dataset"].get("counts", {}).get("train"),
            extra=about.get("extra_rows", 0),
            epochs=_epochs(folder / "history.csv"),
            teachers=about.get("teachers", {}),
            metrics=_metrics(folder / "metrics.json"),
        )
    except OSError as error:
        raise ReportError(f"{error.filename} cannot be read ({error.strerror}).") from None
    except _BROKEN as error:
        raise ReportError(
            f"{folder} is not laid out as a run is ({type(error).__name__}: {error}): train it "
            "again, or take it out."
        ) from None


def _backbones(about: dict) -> dict[str, str]:
    if "architecture" in about["spec"]:
        return {}  # a C-LSTM
    junctions = about["spec"]["junctions"]
    taken = [m for m in MODALITIES if any(j.get(m) is not None for j in junctions)]
    return {m: about["config"][m]["preset"] for m in taken}


def _settings(about: dict, backbones: dict[str, str]) -> str:
    config = about["config"]
    unused = [modality for modality in MODALITIES if modality not in backbones]
    kept = {name: value for name, value in config.items() if name not in (*_FREE, *unused)}
    teacher = kept.pop("teacher", {"runs": []})
    if teacher["runs"]:
        kept["teacher"] = {**_LATER, **teacher, "runs": len(teacher["runs"])}
        # Where teachers and their rows are is free; what they are is not. Earlier runs say nothing
        # of it.
        kept["teacher"] |= {"models": about["taught_by"]} if "taught_by" in about else {}
        kept["teacher"]["unlabelled"] = about.get("unlabelled_sha256", teacher["unlabelled"])
    kept["data"] = {n: v for n, v in _flat(config["data"]).items() if n not in _FREE_DATA}
    return json.dumps(kept, sort_keys=True)


def _flat(data: dict) -> dict:
    """`config.data` as runs had it before it had sections, so that such runs are of one family."""
    flat = {name: value for name, value in data.items() if not isinstance(value, dict)}
    for section, values in data.items():
        if isinstance(values, dict):
            prefix = "demo_" if section == "demo" else ""
            flat |= {prefix + name: value for name, value in values.items()}
    return flat


def _test(path: Path) -> tuple[dict, np.ndarray]:
    """(`test` of `bench.edge.artifact.described` without predictions, bool [N] right or wrong)."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    if not rows:
        raise ValueError("predictions.csv has no row of the test split")
    rows.sort(key=lambda row: row["id"])
    named = json.dumps([[row["id"], row["target"]] for row in rows])
    groups = [row["group"] for row in rows]
    test = {
        "ids": hashlib.sha256(named.encode()).hexdigest(),
        "groups": groups if any(groups) else None,
        "labels": [row["target"] for row in rows],
    }
    return test, np.array([row["target"] == row["predicted"] for row in rows])


def _epochs(history: Path) -> int | None:
    if not history.is_file():
        return None
    with history.open(newline="", encoding="utf-8") as file:
        return sum(1 for _ in csv.DictReader(file))


def _metrics(path: Path) -> dict[str, float]:
    splits = json.loads(path.read_text(encoding="utf-8")).get("splits", {})
    found = splits.get("test", {}).get("metrics", {})
    # Of one class alone there is no AUROC.
    known = {name: metric["value"] for name, metric in found.items()}
    return {name: float(value) for name, value in known.items() if value is not None}


def _seconds(histories: list[Path]) -> float | None:
    """Seconds of all epochs, validation not counted; None without a history."""
    written = [path for path in histories if path.is_file()]
    total = 0.0
    for path in written:
        with path.open(newline="", encoding="utf-8") as file:
            total += sum(float(row["seconds"]) for row in csv.DictReader(file))
    return total if written else None


def paired(runs: Iterable[Run]) -> list[dict[str, Family]]:
    """For each architecture, test set and way of training: framework -> its seeds.

    Raises:
        ReportError: two of them are the same seed of the same model.
    """
    by_key: dict[tuple, dict[str, dict[int, Run]]] = {}
    for run in runs:
        key = (*linked(run.artifact), run.artifact["test"]["ids"], run.settings)
        seeds = by_key.setdefault(key, {}).setdefault(run.framework, {})
        twin = seeds.setdefault(run.artifact["seed"], run)
        if twin is not run:
            raise ReportError(
                f"{twin.path} and {run.path} are both seed {run.artifact['seed']} of the same "
                "model: give one of them."
            )
    return [
        {name: Family([seeds[s] for s in sorted(seeds)]) for name, seeds in families.items()}
        for families in by_key.values()
    ]


def linked(artifact: dict) -> tuple:
    """Equal for a run and what was exported of it, or of another seed of it."""
    backbones = tuple(sorted(artifact["backbones"].items()))
    spec = json.dumps(artifact.get("spec"), sort_keys=True)
    return (artifact["dataset"], artifact["variant"], backbones, spec)
