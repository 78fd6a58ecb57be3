"""One training run from config to complete run directory."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

import fusion_keras.fusion.graph  # noqa: F401  (registers the layers of saved models)
from fusion_keras.data.incomplete import each_kind_first
from fusion_keras.data.modalities import TAP_OF
from fusion_keras.data.pipeline import steps_per_epoch
from fusion_keras.data.records import Dataset
from fusion_keras.errors import UsageError
from fusion_keras.files import digest, digest_if_there, disk_errors, whole
from fusion_keras.fusion.architectures import of_variant
from fusion_keras.modalities import MODALITY
from fusion_keras.training import (
    adopted,
    auxiliary,
    loop,
    parents,
    processes,
    teachers,
    teaching,
)
from fusion_keras.training.evaluate import (
    pattern_metrics,
    predict,
    prediction_rows,
    split_metrics,
    unshared_metrics,
)
from fusion_keras.training.plan import Plan, make_plan
from fusion_keras.training.provenance import provenance
from fusion_keras.training.recipes import resolve
from fusion_keras.training.restored import load_model
from fusion_keras.training.run import Run, as_json, corrupt_run_errors, teachers_models
from fusion_keras.training.task import Task, prepare

GOLDEN_ROWS = 8
_log = logging.getLogger(__name__)

# Rows int [n] -> output name -> float32 [n, ...].
Predict = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Framework:
    """What trains a task's model in place; all around it is the same for each.

    Attributes:
        name: as the run says it.
        fit: trains, writes the history; gives the best epoch, counted from 1, and predictions.
    """

    name: str
    fit: Callable[[Run, Task], tuple[int, Predict]]


def train(config, folder: Path, framework: Framework | None = None) -> Run:
    """Train a run, or go on with it, or leave it alone if it is complete.

    Args:
        config: the config as given; the recipe fills what is open.
        folder: the run directory.
        framework: what trains; None is Keras on JAX.

    Returns:
        The complete run.

    Raises:
        UsageError: whatever the user can fix; also that the complete run has other settings.
    """
    framework = framework or KERAS
    run, resolved = Run(folder, framework.name), resolve(config)
    run.check_together(resolved)
    # Whatever became of its parents or presets.
    if is_done(run, resolved):
        return run
    return carry_out(make_plan(config, framework.name), folder, framework)


def carry_out(
    plan: Plan, folder: Path, framework: Framework, dataset: Dataset | None = None
) -> Run:
    """Train what is planned; see `train`.

    Whatever is written last, `metrics.json`, is written once: a process that was killed
    between that and the renaming has only the renaming left to do.

    Args:
        dataset: the plan's data, where they have been read already.
    """
    run = Run(folder, framework.name)
    if is_done(run, plan.config):
        return run
    with run.open(plan.config):
        if (run.partial / "metrics.json").exists():
            run.finish()
            return run
        task = begin(plan, run, framework, dataset)
        learned = framework.fit(run, task)
        if processes.is_first():
            write_results(run, task, *learned)
        run.finish()
    return run


def begin(
    plan: Plan, run: Run, framework: Framework | None = None, dataset: Dataset | None = None
) -> Task:
    """All that comes before a training: its parents, its teachers' answers, `config.json`.

    Args:
        plan: of the training.
        run: opened.
        framework: what trains; None is Keras on JAX.
        dataset: the plan's data, where they have been read already.

    Returns:
        What is to be trained, as it starts.
    """
    folders, dataset = _parents(plan, run, framework or KERAS, dataset)
    if plan.teachers and dataset is None:
        dataset = plan.architecture.data(plan.config)
    lesson = teaching.prepare(plan, dataset)
    task = prepare(plan, dataset)
    # Before anything is written down: a refused setting can be fixed in the same folder.
    steps_per_epoch(len(task.rows["train"]), plan.config.train.batch_size)
    learned_from = _of_lesson(plan, lesson)
    if kept := {m: f for m, f in folders.items() if run.partial not in f.parents}:
        learned_from["parents_sha256"] = {m: digest(f / "model.keras") for m, f in kept.items()}
    run.check_learned_from(learned_from)
    describe(run, task, folders, **learned_from)
    _adopt(task, folders)
    return teaching.taught(task, lesson) if lesson else task


def _of_lesson(plan: Plan, lesson: teaching.Lesson | None) -> dict:
    """What `config.json` says of the teachers."""
    if lesson is None and plan.config.recipe == "distil":
        return {"notes": ["recipe distil without --teacher: as long a training, by labels alone"]}
    if lesson is None:
        return {}
    asked = {"extra_rows": len(lesson.extra), "notes": list(lesson.notes)}
    asked["asked_sha256"] = lesson.sha256
    asked["taught_by"] = sorted(teachers.described(folder) for folder in plan.teachers)
    if plan.config.teacher.unlabelled:
        asked["unlabelled_sha256"] = digest_if_there(plan.config.teacher.unlabelled)
    return {"teachers": {str(folder): model for folder, model in plan.teachers.items()}, **asked}


def is_done(run: Run, resolved) -> bool:
    """Whether a run is complete; `resolved`: the config, filled by its recipe.

    Raises:
        UsageError: it was trained with other settings or on other rows.
    """
    if run.complete:
        run.check_finished(resolved)
        _check_learned_from(run, resolved)
    return run.complete


def _check_learned_from(run: Run, config) -> None:
    """Check that a finished run learned from the tables and teachers as they are now, if they still
    are there.

    Raises:
        UsageError: their rows, or a teacher, have changed.
    """
    with corrupt_run_errors(run.folder):
        described = run.read_json("config.json")
        before = dict(
            zip(teachers_models(config), described.get("teachers", {}).values(), strict=False)
        )
        before[config.data.path] = described["dataset"]["table_sha256"]
        before[config.teacher.unlabelled] = described.get("unlabelled_sha256", "")
    for file, sha256 in before.items():
        now = digest_if_there(file)
        if sha256 and now and sha256 != now:
            raise UsageError(
                f"{file} has changed since {run.folder} was trained: to learn from what is there "
                "now, give another --run, --workdir or --config.name."
            )


def _parents(
    plan: Plan, run: Run, framework: Framework, dataset: Dataset | None
) -> tuple[dict[str, Path], Dataset | None]:
    """Modality -> complete parent run: named, found beside this run, or trained inside it; and
    the plan's data, if they had to be read."""
    folders = {}
    for modality, parent in plan.parents.items():
        if isinstance(parent, Path):
            folders[modality] = parent
            continue
        # What the run itself lacks is found out before hours are spent on its parents.
        dataset = plan.architecture.data(plan.config) if dataset is None else dataset
        target = run.partial / "parents" / modality
        # What a head has begun to learn behind must stay what it learns behind.
        own = (target / "metrics.json").is_file()
        finished = None if own else parents.beside(parent.config, run)
        # It may end while several processes look for it.
        found = processes.agreed(str(finished or ""))
        finished = Path(found) if found else None
        if finished and parents.has_rows(finished, modality, dataset):
            _log.info("The parent of %s is there already: %s", plan.config.variant, finished)
        else:
            epochs = parent.config.train.epochs
            said = "First the parent of %s: %s, %d epochs (config.parent.epochs)"
            _log.info(said, plan.config.variant, modality, epochs)
            finished = carry_out(parent, target, framework, dataset.of_one(modality)).folder
        folders[modality] = finished
    return folders, dataset


def _adopt(task: Task, folders: dict[str, Path]) -> None:
    # The runs that --parents names may be of more modalities than this one takes.
    for modality in (m for m in folders if m in task.spec.modalities):
        parents.check_rows(folders[modality], modality, task.dataset)
        model = load_model(folders[modality])
        with corrupt_run_errors(folders[modality]):
            adopted.adopt(task, model, modality)


def fit(
    run: Run, task: Task, goes_on: Callable[[list[dict]], bool] = lambda history: True
) -> tuple[int, Predict]:
    """Train on JAX, or go on; see `loop.fit`.

    Returns:
        The best epoch so far, counted from 1, or 0 where nothing trains; and predictions with its
        weights.
    """
    outputs = functools.partial(predict, task.graph.model, task.arrays)
    if not task.spec.frozen:
        return loop.fit(run, lesson_of(task), task.config, goes_on), outputs
    if not task.graph.fusion.trainable_variables:
        return 0, outputs
    _log.info("Running the frozen parts once over the data.")
    fusion = task.graph.fusion
    # Of its own, over the same layers: what is compiled takes its optimiser along when the
    # model around it is saved.
    head = keras.Model({x.name: x for x in fusion.inputs}, fusion.output, name="head")
    arrays, rows = adopted.features(task)
    # They are augmented already; what is withheld behind a stand-in is drawn anew each time.
    withheld = task.augmentation if task.spec.stand_ins else None
    lesson = loop.Lesson(head, arrays, rows, task.dataset, withheld)
    return loop.fit(run, lesson, task.config, goes_on), outputs


def lesson_of(task: Task) -> loop.Lesson:
    """The whole model, with what only teaching needs, on the data as they are."""
    model, teacher = task.graph.model, task.config.teacher
    if teacher.heads or teacher.taps:
        taps = {m: task.arrays[n] for m, n in TAP_OF.items() if n in task.arrays}
        widths = {m: x.shape[1] - 1 for m, x in taps.items()}
        classes = len(task.dataset.classes) if teacher.heads else 0
        model = auxiliary.with_outputs(task.graph, task.spec, classes, widths)
    return loop.Lesson(model, task.arrays, task.rows, task.dataset, task.augmentation)


KERAS = Framework("keras", fit)


def describe(run: Run, task: Task, folders: dict[str, Path], **more) -> None:
    """Write down what is trained on what, before it begins; `more` joins `config.json`."""
    dataset, config = task.dataset, task.config
    architecture = of_variant(config.variant)
    run.check_data(dataset.fingerprint)
    if processes.agreed(dataset.fingerprint) != dataset.fingerprint:
        raise UsageError(
            f"This process reads other data than the first one ({dataset.name}): each must see the "
            "same files under the same paths."
        )
    counts = {split: len(rows) for split, rows in task.rows.items()}
    description = {
        "config": as_json(config),
        "framework": run.framework,
        # How artifacts and reports call it.
        "variant": config.variant + (" taught" if config.teacher.runs else ""),
        "seed": config.seed,
        "parents": {m: str(f) for m, f in folders.items() if run.partial not in f.parents},
        "spec": architecture.to_dict(task.spec),
        "classes": list(dataset.classes),
        "label_kind": dataset.label_kind,
        "dataset": {
            "name": dataset.name,
            "counts": counts,
            "lacking": _lacking(task),
            "fingerprint": dataset.fingerprint,
            "table_sha256": digest_if_there(config.data.path),
            "split_policy": dataset.split_policy,
            "notes": list(dataset.notes),
        },
        "inputs": architecture.inputs(task.spec, task.presets, config),
        "parameters": task.graph.model.count_params(),
        "provenance": provenance(run.framework),
        **more,
    }
    run.write_rows("splits.csv", _split_rows(dataset))
    for modality, preset in task.presets.items():
        for name, content in MODALITY[modality].files_of(preset).items():
            run.write_bytes(name, content)
    run.write_json("config.json", description)


def _lacking(task: Task) -> dict[str, dict[str, int]]:
    """Modality -> split -> how many rows of it lack that, of those that some row lacks."""
    return {
        modality: {split: int((~there[rows]).sum()) for split, rows in task.rows.items()}
        for modality, there in task.dataset.present.items()
    }


def _split_rows(dataset: Dataset) -> Iterator[tuple]:
    yield ("id", "split", *MODALITY)
    contents = [modality.contents(dataset) for modality in MODALITY.values()]
    yield from zip(dataset.ids, dataset.splits, *contents, strict=True)


def write_results(run: Run, task: Task, best_epoch: int, predict: Predict) -> None:
    """Evaluate validation and test, the test split for the first and only time."""
    model, dataset = task.graph.model, task.dataset
    rows = {split: task.rows[split] for split in ("valid", "test")}
    outputs = {split: predict(rows[split]) for split in rows}
    results = {split: split_metrics(outputs[split], dataset, rows[split]) for split in rows}
    for split in rows:
        results[split] |= unshared_metrics(outputs[split], dataset, rows[split])
        results[split] |= pattern_metrics(outputs[split], dataset, rows[split])
    golden_rows = each_kind_first(rows["valid"], dataset)[:GOLDEN_ROWS]
    places = [int(np.flatnonzero(rows["valid"] == row)[0]) for row in golden_rows]
    names = [x.name for x in model.inputs]
    golden = {f"input_{n}": np.asarray(task.arrays[n][golden_rows]) for n in names}
    golden.update({f"output_{n}": x[places] for n, x in outputs["valid"].items()})
    run.write_npz("golden.npz", golden)
    run.write_rows("predictions.csv", prediction_rows(dataset, outputs, rows))
    save_model(run.partial / "model.keras", model)
    run.write_json("metrics.json", {"best_epoch": best_epoch, "splits": results})


def save_model(target: Path, model: keras.Model) -> None:
    """Write a model without the optimiser it was compiled with: for inference and export."""
    bare = keras.Model({x.name: x for x in model.inputs}, model.output, name=model.name)
    with disk_errors(target), whole(target) as partial:
        bare.save(partial)
