"""From raw CMU-MOSI to the tables 2 to 5 of Willis and Bakos 2025 (arXiv 2511.21889):

    python -m bench.paper --label=label.csv --raw_dir=Raw --workdir=paper

Trains every model of the paper with every seed: text once, and for each vision model image, late,
inter, early, and early with 2, 6 and 8 attention blocks; with --framework=ours,pytorch the
PyTorch reference of each, too. Exports the first seed of each, measures those here, and reports
published, PyTorch and ours side by side, with paired differences. What is done is not done again:
the same command goes on where it was stopped, and takes up results of other machines that were
put into WORKDIR/results. Flags of the training, --config.…, are handed on to it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import artifact
from bench.__main__ import numbers
from bench.method import PROFILES
from bench.report.__main__ import budget_ms
from bench.report.agreement import BLOCKS
from bench.study import (
    PRECISIONS,
    Step,
    StudyError,
    conduct,
    export_step,
    measure_step,
    only_of_training,
    python,
    report_step,
    same_study,
    some_of,
)

VISION = ("mobilenet", "vit")
FRAMEWORKS = ("ours", "pytorch")
ENTRY = {"ours": "fusion_keras.train", "pytorch": "fusion_keras.reference.train"}
FUSED = ("late", "inter", "early")

DEVICE = """
Measured on this machine. For the Jetson AGX Orin:
  1. copy bench/ and {place}/artifacts to it, into one folder;
  2. there, as README's "On the Orin" has it:
     python3 -m bench artifacts/* --runner=ort-cuda --precision=fp32 --profile=full \\
         --out=results/orin.json
  3. copy results/orin.json into {place}/results and give this command again: only the report is
     made anew, with the Orin's columns in it."""


def trainings(options) -> dict[str, list[str]]:
    """Name of every training of a seed -> its flags; the text model once, as it has no images."""
    found = {"text": ["--variant=text", *_preset(options, options.vision[0])]}
    for vision in options.vision:
        preset = _preset(options, vision)
        for variant in ("image", *FUSED):
            found[f"{variant}-{vision}"] = [f"--variant={variant}", *preset]
        for blocks in options.blocks:
            more = ["--variant=early", f"--config.fusion.blocks={blocks}"]
            found[f"early-{vision}-{blocks}-blocks"] = [*more, *preset]
    return found


def _preset(options, vision: str) -> list[str]:
    preset = getattr(options, vision)
    return [f"--config.image.preset={preset}"] if preset else []


def steps(options, handed_on: list[str]) -> list[Step]:
    """All that the command does, in order; seed by seed, so that an early look has all rows."""
    shared = [f"--config={options.config}", f"--recipe={options.recipe}"]
    shared += [f"--config.data.path={options.label}"]
    shared += [f"--config.data.mosi.raw_dir={options.raw_dir}"] if options.raw_dir else []
    found = [
        _train(options.workdir, framework, name, seed, [*shared, *flags, *handed_on])
        for seed in options.seeds
        for name, flags in trainings(options).items()
        for framework in options.framework
    ]
    found += _measurements(options) if "ours" in options.framework else []
    return [*found, _report(options)]


def _train(place: Path, framework: str, name: str, seed: int, flags: list[str]) -> Step:
    run = _run(place, framework, name, seed)
    command = python(ENTRY[framework], *flags, f"--seed={seed}", f"--run={run}")
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
    found = [
        export_step(place, run, folder, options.precisions, [])
        for run, folder in zip(runs, folders, strict=True)
    ]
    target, precisions = place / "results" / "here.json", ["fp32", *options.precisions]
    found.append(measure_step(place, "all", folders, target, precisions, options.profile))
    if "pytorch" in options.framework:
        for run, folder in zip(runs, folders, strict=True):
            more = ["--runner=ort,torch", f"--run={run}"]
            target = place / "results" / f"torch-{run.name}.json"
            profile = options.profile
            found.append(measure_step(place, run.name, [folder], target, ["fp32"], profile, more))
    return found


def _report(options) -> Step:
    place, ours = options.workdir, "ours" in options.framework
    inputs = [place / "results"] if ours else []
    if ours:
        inputs += [place / "artifacts" / f"{n}-s{options.seeds[0]}" for n in trainings(options)]
    runs = [place / ("runs" if name == "ours" else name) for name in options.framework]
    more = [f"--runs={','.join(map(str, runs))}"]
    return report_step(place, inputs, options.budget_ms, more)


def main(arguments: list[str]) -> int:
    options, handed_on = _parser().parse_known_args(arguments)

    def plan() -> list[Step]:
        check(options, handed_on)
        presets = {vision: getattr(options, vision) for vision in VISION}
        settings = [f"--config={options.config}", f"--recipe={options.recipe}", *handed_on]
        settings += [f"--{name}={preset}" for name, preset in presets.items() if preset]
        same_study(options.workdir, [*settings, f"label {artifact.digest(options.label)}"])
        return steps(options, handed_on)

    code = conduct(options.workdir, plan)
    if code == 0 and "ours" in options.framework:
        print(DEVICE.format(place=options.workdir))
    return code


def check(options, handed_on: list[str]) -> None:
    """Find mistakes before hours of training.

    Raises:
        StudyError: a flag or file that is not there, or one that would undo another.
    """
    only_of_training(handed_on, ("--config.",))
    if not options.label.is_file():
        raise StudyError(f"--label={options.label} is no file: give MMSA's label.csv.")
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
    entry = Path(*ENTRY["pytorch"].split(".")).with_suffix(".py")
    if "pytorch" in options.framework and not entry.is_file():
        raise StudyError(f"{entry} is not here: start from the repository's root.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--label", type=Path, required=True, help="MMSA's label.csv")
    add("--raw_dir", type=Path, help="the clips, <video_id>/<clip_id>.mp4")
    add("--workdir", type=Path, default=Path("paper"), help="where all of it goes (default paper)")
    add("--seeds", type=numbers(0), default=[0, 1, 2, 3, 4], help="default 0,1,2,3,4")
    add("--recipe", default="paper", help="how to train: paper (default) or best")
    add("--vision", type=some_of(VISION), default=list(VISION), help="default mobilenet,vit")
    add("--framework", type=some_of(FRAMEWORKS), default=["ours"], help="ours,pytorch (ours)")
    add("--blocks", type=numbers(1), default=[2, 6, 8], help="of table 3, beside 4 (2,6,8)")
    add("--config", type=Path, default=Path("configs/mosi.py"), help="default configs/mosi.py")
    add("--mobilenet", metavar="PRESET", help="or a directory; default: what the config has")
    add("--vit", metavar="PRESET", default="vit_base", help="or a directory (default vit_base)")
    add("--precisions", type=some_of(PRECISIONS), default=["fp16"], help="besides fp32 (fp16)")
    add("--profile", choices=PROFILES, default="quick", help="of the measurement (default quick)")
    add("--budget-ms", type=budget_ms, help="the latency that the report shall answer for")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
