"""The Python of training: for notebooks and other programs.

    from fusion_keras.api import Run, search, train

    run = train({"variant": "early", "data.path": "my.csv"}, out="runs/early")
    run.metrics["test"]["accuracy"]
    run.predict([{"text": "What a day!", "image": "face.jpg"}])

`export.api` makes artifacts of runs, `bench.api` measures those. Nothing is printed: what goes on
is logged to the logger "fusion_keras", and `show_progress()` shows it, with bars. A user
error is a `UsageError`. In a program, `search` belongs under `if __name__ == "__main__":`, since it
starts processes that import the program's main module.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import os
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from ml_collections import ConfigDict

from fusion_keras import cli, terminal
from fusion_keras.config import copied, get_config
from fusion_keras.errors import UsageError
from fusion_keras.setting_names import meant, settings

if TYPE_CHECKING:
    import keras

    from fusion_keras.searching.outcome import Outcome
    from fusion_keras.training.task import Task

__all__ = [
    "Found",
    "Metric",
    "Prediction",
    "Run",
    "UsageError",
    "configure",
    "search",
    "show_progress",
    "train",
]

# What the settings of a training are given as: names -> values, or a whole config.
Settings: TypeAlias = Mapping[str, object] | ConfigDict


@functools.cache
def _import_stack() -> None:
    """Import what trains, which takes seconds, without TensorFlow's start-up lines."""
    with cli.quiet_native_logs():
        import fusion_keras.modalities  # noqa: F401


def show_progress() -> None:
    """Show what is logged, and bars, on stderr, as the commands do."""
    terminal.show()


_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a tuple or a list",
}


def configure(
    changes: Mapping[str, object] | None = None,
    *,
    config: str | os.PathLike[str] | ConfigDict | None = None,
) -> ConfigDict:
    """A config: an experiment's, with some settings changed.

    Args:
        changes: dotted name -> value, as `--config.NAME=VALUE` takes them: {"variant": "early",
            "data.path": "my.csv", "train.epochs": 5}. "teacher" and "parents" are lists of runs.
        config: a file with `get_config()`, as `configs/small.py`; a config; None for the defaults,
            which are the built-in demo's.

    Raises:
        UsageError: a setting that there is not, or a value of another kind.
    """
    made = _base(config)
    known = [name for name, _ in settings(made)]
    for name, value in (changes or {}).items():
        name = "teacher.runs" if name == "teacher" else name
        if name not in known:
            raise UsageError(f"{name!r} is no setting.{meant(name, known, prefix='')}")
        try:
            made.update_from_flattened_dict({name: _plain(value)})
        except (TypeError, ValueError):
            section, _, field = name.rpartition(".")
            of = made
            for part in filter(None, section.split(".")):
                of = of[part]
            kind = _KINDS.get(of.get_type(field), "another kind")
            raise UsageError(f"got {value!r} for {name}, wanted {kind}.") from None
    return made


def _base(config: str | os.PathLike[str] | ConfigDict | None) -> ConfigDict:
    if config is None:
        return get_config()
    if isinstance(config, ConfigDict):
        return copied(config)
    try:
        return runpy.run_path(os.fspath(config))["get_config"]()
    except (OSError, KeyError, SyntaxError) as error:
        raise UsageError(
            f"{os.fspath(config)} is no experiment ({type(error).__name__}: {error}): a Python "
            "file with a function get_config() is wanted."
        ) from None


def _plain(value: object) -> object:
    """A value as the config holds it: paths are strings, lists are tuples."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(v) for v in value)
    return value


def train(settings: Settings | None = None, *, out: str | os.PathLike[str]) -> Run:
    """Train a run; go on with one that was stopped; leave a finished one alone.

    Args:
        settings: what `configure` takes, or what it gives.
        out: the run directory.

    Returns:
        The finished run.

    Raises:
        UsageError: settings, data, presets or memory are the user's to change; or the directory
            holds a run with other settings.
    """
    config = settings if isinstance(settings, ConfigDict) else configure(settings)
    _import_stack()
    from fusion_keras.training import experiment

    return Run(experiment.train(config, Path(out)).folder)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a split.

    Attributes:
        value: shares in [0, 1], not percent; nan where the split does not define it.
        low, high: of its 95 % bootstrap interval, resampled by group where rows have groups
            (Efron and Tibshirani 1993, chapters 8 and 13).
    """

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run says of an example.

    Attributes:
        labels: the most probable class; of a run with several labels a row, all above one half.
        probabilities: class -> probability; of several labels each for itself.
        score: where the run predicts one.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    score: float | None = None

    @property
    def label(self) -> str:
        """The label; of several, with commas between."""
        return ", ".join(self.labels)


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run; a path, wherever one is wanted.

    Attributes:
        folder: its directory.
    """

    folder: Path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """Open a run that `train`, or `python -m fusion_keras.train`, has finished.

        Raises:
            UsageError: there is none.
        """
        run = cls(Path(folder))
        if not (run.folder / "metrics.json").is_file():
            raise UsageError(f"{run.folder} is not a finished run: give the directory of one.")
        return run

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """All of `config.json`: settings, spec, classes, inputs, versions."""
        return self._read("config.json")

    @property
    def variant(self) -> str:
        """Which fusion."""
        return str(self.description["variant"])

    @property
    def seed(self) -> int:
        """Of weights, order of the data, dropout and augmentation."""
        return int(self.description["seed"])

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.description["classes"])

    @property
    def parameters(self) -> int:
        """Of the model."""
        return int(self.description["parameters"])

    @property
    def config(self) -> ConfigDict:
        """The config that it was trained with, its recipe filled in."""
        from fusion_keras.training.restored import config_of

        return config_of(self.folder)

    @property
    def spec(self) -> Any:
        """Of its architecture: a `fusion.spec.FusionSpec`, or a C-LSTM's."""
        from fusion_keras.fusion.architectures import of_values

        values = self.description["spec"]
        return of_values(values).from_dict(values)

    @property
    def metrics(self) -> dict[str, dict[str, Metric]]:
        """ "valid" and "test" -> metric -> its value, as training has measured them."""
        splits = self._read("metrics.json")["splits"]
        return {split: _metrics(scored) for split, scored in splits.items()}

    @property
    def history(self) -> list[dict[str, float]]:
        """A line an epoch: "epoch", "loss", "valid_nll", ..."""
        from fusion_keras.training.run import corrupt_run_errors

        file = self.folder / "history.csv"
        with corrupt_run_errors(self.folder), file.open(newline="", encoding="utf-8") as lines:
            return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(lines)]

    @functools.cached_property
    def model(self) -> keras.Model:
        """The trained model: inputs by name, a dict with "logits" [B, C] out."""
        _import_stack()
        from fusion_keras.training.restored import load_model

        return load_model(self.folder)

    @functools.cached_property
    def _task(self) -> Task:
        _import_stack()
        from fusion_keras.training.restored import restore

        return restore(self.folder)

    def evaluate(self, split: str = "test") -> dict[str, Metric]:
        """Ask the model about a split of its data, which must be there as it was.

        Args:
            split: "train", "valid" or "test".

        Returns:
            Metric -> its value.

        Raises:
            UsageError: no such split, or data that have changed.
        """
        from fusion_keras.training.evaluate import predict, split_metrics

        task = self._task
        if split not in task.rows:
            raise UsageError(f"got the split {split!r}, wanted one of {', '.join(task.rows)}.")
        rows = task.rows[split]
        outputs = predict(task.graph.model, task.arrays, rows)
        return _metrics(split_metrics(outputs, task.dataset, rows))

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """Ask the model about examples that are in no data set.

        Args:
            rows: of each its modalities: "text", a sentence; "image", a file, its bytes, an
                image of Pillow, or uint8 [H, W, 3]; "audio", a file, or float32 [n], 16,000 a
                second, in [-1, 1]; "tabular", column -> value. What is left out is missing, which
                the run must have learned.

        Returns:
            Of each row.

        Raises:
            UsageError: a row that lacks what the run needs, or has what cannot be read.
        """
        from fusion_keras.label_sums import THRESHOLD
        from fusion_keras.training import asking
        from fusion_keras.training.evaluate import probabilities

        if not rows:
            return []
        several = self.description.get("label_kind") == "multi"
        outputs = asking.outputs(self.model, self.config, self.description, rows)
        probs = probabilities(outputs["logits"], "multi" if several else "single")
        found = []
        for i, row in enumerate(probs):
            chosen = np.flatnonzero(row > THRESHOLD) if several else [int(row.argmax())]
            score = float(outputs["score"][i, 0]) if "score" in outputs else None
            labels = tuple(self.classes[c] for c in chosen)
            found.append(
                Prediction(labels, dict(zip(self.classes, map(float, row), strict=True)), score)
            )
        return found

    def _read(self, name: str) -> dict[str, Any]:
        from fusion_keras.training.run import read_json

        return read_json(self.folder / name)


def _metrics(scored: dict[str, Any]) -> dict[str, Metric]:
    def number(value: float | None) -> float:
        return math.nan if value is None else value  # JSON has no nan

    return {
        name: Metric(number(of["value"]), number(of.get("low")), number(of.get("high")))
        for name, of in scored["metrics"].items()
    }


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        folder: of the search.
        trials: every model that was tried, in order; see `searching.outcome.Outcome`.
        front: those that no other dominates, each with a precision, the fastest first.
        runs: of the finalists on new seeds, beside the named variants.
        answer: what the proof says of the budget, in sentences; empty without one.
    """

    folder: Path
    trials: list[Outcome]
    front: list[tuple[Outcome, str]]
    runs: list[Run]
    answer: list[str]

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"


def search(
    settings: Settings | None = None,
    *,
    out: str | os.PathLike[str],
    budget_ms: float | None = None,
    space: str | os.PathLike[str] | None = None,
    trials: int = 40,
    finalists: int = 3,
    seeds: int = 3,
    jobs: int | str = 1,
    precisions: Sequence[str] | None = None,
    sampler: str = "tpe",
    teacher: str = "",
    device: str | None = None,
    ssh: str = "ssh",
    runner: str | None = None,
) -> Found:
    """Search for the best fused models within a latency budget, or go on.

    Args:
        settings: as `train` takes them; what all models share.
        out: where all of it goes.
        budget_ms: p90 at the fastest precision, milliseconds; None for the whole front.
        space: a file that says what may vary; None for every depth of the backbones at hand.
        trials: models to try; named variants that the space does not hold are tried all the same.
        finalists, seeds: models that are proven on new seeds, and on how many; 0 for none.
        jobs: models at a time, or "auto".
        precisions: what is measured and scored; None for those of the runner.
        sampler: "tpe", "nsga2", "random" or "gp".
        teacher: a variant that is trained first, and from which the models of the space learn.
        device: another machine that measures, ssh://USER@HOST[:PORT][/DIR]; None for this one.
        ssh: how to call OpenSSH.
        runner: what runs the models that are measured: "ort", "ort-cuda", "ort-tensorrt" or
            "openvino"; None is "ort".

    Raises:
        UsageError: see the module.
    """
    _import_stack()
    from fusion_keras.searching import asked, outcome, proof, report, study

    config = settings if isinstance(settings, ConfigDict) else configure(settings)
    request = asked.request(
        config,
        folder=Path(out),
        space=None if space is None else os.fspath(space),
        count=trials,
        budget=budget_ms,
        precisions=precisions,
        sampler=sampler,
        storage="",
        named=None,
        teacher=teacher,
        finalists=finalists,
        seeds=seeds,
        side_by_side=str(jobs),
        device=device,
        ssh=ssh,
        runner=runner,
    )
    progress = report.Progress(request)
    with progress:
        study.search(request, progress.outcomes, progress.say, progress.ended)
    outcomes = progress.outcomes
    chosen = proof.finalists(outcomes, finalists, request.limits)
    report.closing(request, outcomes, chosen)
    front = outcome.pareto(outcomes, request.limits)
    if not chosen:
        return Found(request.folder, outcomes, front, [], [])
    with progress:
        answer = proof.prove(request, chosen, seeds, progress.say)
    folders = sorted((request.folder / "runs").iterdir())
    runs = [Run(folder) for folder in folders if (folder / "metrics.json").is_file()]
    return Found(request.folder, outcomes, front, runs, answer)
