"""The steps of `bench.paper`: every training, export, measurement and the report."""

from __future__ import annotations

import itertools
from pathlib import Path

from bench.edge.files import digest
from bench.report.agreement import BLOCKS
from bench.studies.binding import only_of_training
from bench.studies.study import (
    Step,
    StudyError,
    check_step,
    export_step,
    measure_step,
    python,
    report_step,
)

VISION = ("mobilenet", "vit")
FRAMEWORKS = ("ours", "pytorch")
FUSED = ("late", "inter", "early")


def trainings(options) -> dict[str, list[str]]:
    """Name of every training of a seed -> its flags; the text model once, as it has no images."""
    flags = {"text": ["--variant=text", *_preset(options, options.visions[0])]}
    for vision in options.visions:
        preset = _preset(options, vision)
        for variant in ("image", *FUSED):
            flags[f"{variant}-{vision}"] = [f"--variant={variant}", *preset]
        for blocks in options.blocks:
            more = ["--variant=early", f"--config.fusion.blocks={blocks}"]
            flags[f"early-{vision}-{blocks}-blocks"] = [*more, *preset]
    return flags


def _preset(options, vision: str) -> list[str]:
    preset = getattr(options, vision)
    return [f"--config.image.preset={preset}"] if preset else []


def steps(options, handed_on: list[str]) -> list[Step]:
    """All that the command does, in order; seed by seed, so that an early look has all rows."""
    shared = [f"--config={options.config}", f"--recipe={options.recipe}"]
    shared += [f"--config.data.path={options.label}"]
    shared += [f"--config.data.mosi.raw_dir={options.raw_dir}"] if options.raw_dir else []
    place, runs = options.workdir, {}
    for seed, name, framework in itertools.product(
        options.seeds, trainings(options), options.frameworks
    ):
        flags = [*shared, *trainings(options)[name], *handed_on, f"--seed={seed}"]
        flags += ["--framework=pytorch"] if framework == "pytorch" else []
        runs[_run(place, framework, name, seed)] = framework, flags
    planned = [check_step(place, {run: flags for run, (_, flags) in runs.items()})]
    planned += [_train(place, framework, run, flags) for run, (framework, flags) in runs.items()]
    planned += _measurements(options) if "ours" in options.frameworks else []
    return [*planned, _report(options)]


def _train(place: Path, framework: str, run: Path, flags: list[str]) -> Step:
    command = python("fusion_keras.train", *flags, f"--run={run}")
    log = place / "logs" / f"{framework}-{run.name}.log"
    # A run is renamed to this when all of it is there, and `same_study` knows its settings.
    done = (run / "metrics.json").is_file
    return Step("train" if framework == "ours" else framework, run.name, command, log, done)


def _run(place: Path, framework: str, name: str, seed: int) -> Path:
    return place / ("runs" if framework == "ours" else framework) / f"{name}-s{seed}"


def _measurements(options) -> list[Step]:
    """Exports of the first seed, all of them measured in turns; with PyTorch, each beside it."""
    place, seed = options.workdir, options.seeds[0]
    runs = [_run(place, "ours", name, seed) for name in trainings(options)]
    folders = [place / "artifacts" / run.name for run in runs]
    planned = [
        export_step(place, run, folder, options.precisions, [])
        for run, folder in zip(runs, folders, strict=True)
    ]
    target, precisions = place / "results" / "here.json", ["fp32", *options.precisions]
    planned.append(measure_step(place, "all", folders, target, precisions, options.profile))
    if "pytorch" in options.frameworks:
        for run, folder in zip(runs, folders, strict=True):
            more, runners = [f"--run={run}"], ["ort", "torch"]
            target = place / "results" / f"torch-{run.name}.json"
            profile = options.profile
            step = (place, run.name, [folder], target, ["fp32"], profile, more, runners)
            planned.append(measure_step(*step))
    return planned


def _report(options) -> Step:
    place, ours = options.workdir, "ours" in options.frameworks
    inputs = [place / "results"] if ours else []
    if ours:
        inputs += [place / "artifacts" / f"{n}-s{options.seeds[0]}" for n in trainings(options)]
    runs = [place / ("runs" if name == "ours" else name) for name in options.frameworks]
    more = [f"--runs={','.join(map(str, runs))}"]
    return report_step(place, inputs, options.budget_ms, more)


def settings(options, handed_on: list[str]) -> list[str]:
    """What two runs of the command must share to be of one study."""
    presets = {vision: getattr(options, vision) for vision in VISION}
    shared = [f"--config={options.config}", f"--recipe={options.recipe}", *handed_on]
    shared += [f"--{name}={preset}" for name, preset in presets.items() if preset]
    return [*shared, f"label {digest(options.label)}"]


def check(options, handed_on: list[str]) -> None:
    """Find mistakes before hours of training.

    Raises:
        StudyError: a flag or file that is not there, or one that would undo another.
    """
    only_of_training(handed_on, ("--config.",))
    if not options.label.is_file():
        raise StudyError(f"{options.label} is no file: give MMSA's label.csv.")
    if not options.config.is_file():
        raise StudyError(
            f"--config={options.config} is no file: start from the repository's root, or give "
            "an experiment file."
        )
    # The second is what it was called before.
    named = ("--config.data.mosi.frames_dir=", "--config.data.frames_dir=")
    frames = any(flag.startswith(named) for flag in handed_on)
    if options.raw_dir is None and not frames:
        raise StudyError(
            "no images are given: wanted --raw_dir=DIR with <video_id>/<clip_id>.mp4, or "
            "--config.data.mosi.frames_dir=DIR with ready frames."
        )
    if options.raw_dir is not None and not options.raw_dir.is_dir():
        raise StudyError(f"--raw_dir={options.raw_dir} is no folder: give the one of the clips.")
    if BLOCKS in options.blocks:
        raise StudyError(f"--blocks has {BLOCKS}, which early has anyway: leave it out.")
    own = {"image.preset": "--mobilenet or --vit", "fusion.blocks": "--blocks"}
    for setting, flag in own.items():
        if any(given.startswith(f"--config.{setting}=") for given in handed_on):
            raise StudyError(f"--config.{setting} differs between the models: use {flag} for it.")
