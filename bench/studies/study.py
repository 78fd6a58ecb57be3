"""A study as a list of steps, each a process: what is done is not done again. `conducting` takes
them."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.edge import artifact, elsewhere, files, results
from bench.edge.artifact import ArtifactError
from bench.edge.errors import BenchError
from bench.edge.results import ResultsError
from bench.studies import controls

VARIANTS = ["text", "image", "late", "inter", "early"]
PRECISIONS = ("fp16", "int8", "int8_static")
# What runs an artifact as it was exported.
RUNNERS = ("ort", "ort-cuda", "ort-tensorrt", "rtx", "openvino", "openvino-bf16")
ALONE = ("text", "image", "audio", "tabular")
INTERRUPTED = "Interrupted: the same command goes on from here."
KNOWN = (*ALONE, "late", "late_score", "inter", "early", "hybrid", "input")


class StudyError(BenchError):
    """A step failed; the message says which, why, and where its log is."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One process of the study.

    done: whether there is nothing to do; kind: for the estimate of what is left;
    fine: the exit codes after which the study goes on; command: or what makes it once the steps
    before are taken.
    """

    kind: str
    name: str
    command: list[str] | Callable[[], list[str]]
    log: Path
    done: Callable[[], bool]
    fine: tuple[int, ...] = (0,)


def steps(options, handed_on: list[str]) -> list[Step]:
    """All that a study does, in order; unimodal variants first, as others start from them."""
    place = options.workdir
    order = [v for v in ALONE if v in options.variants]
    order += [v for v in options.variants if v not in order]
    made = [(variant, seed) for seed in options.seeds for variant in order]
    flags = {_run(place, v, s): [f"--variant={v}", f"--seed={s}", *handed_on] for v, s in made}
    taught = _taught(options, order, handed_on) if options.teacher else {}
    planned = [check_step(place, {**flags, **_alone(taught)})]
    planned += [_train(place, run, given) for run, given in flags.items()]
    if options.teacher:
        check = check_step(place, taught, "taught")
        # Not sooner: they are checked against their teachers.
        planned.append(dataclasses.replace(check, command=functools.partial(list, check.command)))
        planned += [_train(place, run, given) for run, given in taught.items()]
        flags |= taught
        if options.controls:
            planned += _controls(place, taught)
    # Lengths are of sentences.
    without = [m for m in ALONE if m != "text"]
    planned += [_export(place, r, options, _seedless(r.name) not in without) for r in flags]
    folders = [_artifact(place, run) for run in flags]
    first = [f for f in folders if f.name.endswith(f"-s{options.seeds[0]}")]
    return [*planned, *_measures(place, first, options), _report(place, folders, options)]


def of_runs(options) -> list[Step]:
    """Export, measure and report runs that are there already.

    Their folders are called NAME-sSEED; of each name the first seed given is measured.

    Raises:
        StudyError: one is not a finished run, or two have the same name.
    """
    names = [run.name for run in options.runs]
    for run in options.runs:
        if not (run / "metrics.json").is_file():
            raise StudyError(f"{run} is not a finished run: give folders that training wrote.")
        if names.count(run.name) > 1:
            raise StudyError(f"--runs has two called {run.name}: rename one of the folders.")
    place = options.workdir
    artifacts = [_artifact(place, run) for run in options.runs]
    first = {_seedless(folder.name): folder for folder in artifacts[::-1]}
    measured = [folder for folder in artifacts if folder in first.values()]
    exports = [_export(place, run, options, _takes_text(run)) for run in options.runs]
    return [*exports, *_measures(place, measured, options), _report(place, artifacts, options)]


def _seedless(name: str) -> str:
    """NAME of NAME-sSEED; a name without a seed is another model by itself."""
    return re.sub(r"(?<=.)-s\d+$", "", name)


def _takes_text(run: Path) -> bool:
    """
    Raises:
        StudyError: it has no `config.json` that says so.
    """
    try:
        return "token_ids" in json.loads((run / "config.json").read_text())["inputs"]
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(f"{run / 'config.json'} is not there or damaged: train it anew.") from None


def students(options) -> list[str]:
    """The variants that learn from --teacher."""
    return [v for v in options.variants if v not in (*ALONE, options.teacher)]


def _taught(options, order: list[str], handed_on: list[str]) -> dict[Path, list[str]]:
    """Directory -> flags of the runs that learn from the teacher's, those of all seeds together."""
    place = options.workdir
    teachers = ",".join(str(_run(place, options.teacher, seed)) for seed in options.seeds)
    taught = [variant for variant in order if variant in students(options)]
    more = [*handed_on, *options.teaching, f"--teacher={teachers}"]
    return {
        place / "runs" / f"{v}-taught-s{s}": [f"--variant={v}", f"--seed={s}", *more]
        for s in options.seeds
        for v in taught
    }


def _alone(taught: dict[Path, list[str]]) -> dict[Path, list[str]]:
    """The taught runs without their teacher, to be checked before there is one."""
    return {
        run: [flag for flag in flags if not flag.startswith(controls.OF_TEACHER)]
        for run, flags in taught.items()
    }


def _controls(place: Path, taught: dict[Path, list[str]]) -> list[Step]:
    """Train the controls of each taught run, for the report alone."""
    return [
        dataclasses.replace(
            _train(place, folder, []),
            kind="control",
            command=functools.partial(_control, kind, given, run, folder),
            done=functools.partial(_needless, kind, run),
        )
        for run, given in taught.items()
        for kind, folder in controls.names(run).items()
    ]


def _control(kind: str, given: list[str], taught: Path, folder: Path) -> list[str]:
    flags = controls.flags(kind, given, taught)
    return python("fusion_keras.train", *flags, f"--run={folder}")


def _needless(kind: str, taught: Path) -> bool:
    # The model alone is it, and stands in the report.
    return kind == controls.UNTAUGHT and controls.is_alone(taught)


def python(module: str, *arguments: object) -> list[str]:
    """The command line of a module, on the Python that runs this one."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def _run(place: Path, variant: str, seed: int) -> Path:
    return place / "runs" / f"{variant}-s{seed}"


def _artifact(place: Path, run: Path) -> Path:
    return place / "artifacts" / run.name


def check_step(place: Path, runs: dict[Path, list[str]], name: str = "all") -> Step:
    """Plan all trainings that are not done before the first one starts.

    Args:
        runs: directory -> the flags of its training.
    """
    missing = [flags for run, flags in runs.items() if not (run / "metrics.json").is_file()]
    between = [flag for flags in missing for flag in ("--", *flags)][1:]
    log = place / "logs" / ("check.log" if name == "all" else f"check-{name}.log")
    return Step("check", name, python("fusion_keras.plan", *between), log, lambda: not missing)


def _train(place: Path, run: Path, flags: list[str]) -> Step:
    # Training itself takes a finished run as it is, and refuses one of another config.
    command = python("fusion_keras.train", *flags, f"--run={run}")
    return Step("train", run.name, command, place / "logs" / f"train-{run.name}.log", lambda: False)


def _export(place: Path, run: Path, options, takes_text: bool) -> Step:
    buckets = options.buckets if takes_text else []
    target, allowed = _artifact(place, run), options.allow_loss
    return export_step(place, run, target, options.precisions, buckets, allowed)


def export_step(
    place: Path,
    run: Path,
    target: Path,
    precisions: list[str],
    buckets: list[int],
    allow_loss: float | None = None,
) -> Step:
    """Export a run; done where the artifact is of this very model, at these precisions.

    allow_loss: points of test accuracy that a graph may lose; None for the export's own bar.
    """
    flags = [str(run), f"--out={target}", f"--precisions={','.join(precisions)}"]
    flags += [f"--buckets={','.join(map(str, buckets))}"] if buckets else []
    flags += [] if allow_loss is None else [f"--allow_loss={allow_loss:g}"]

    def done() -> bool:
        try:
            meta = artifact.read(target)
            asked = {"fp32", *precisions} == set(meta["models"])
            lengths = buckets if "token_ids" in meta["inputs"] else []
            asked = asked and set(meta["lengths"]) == {*lengths, *meta["lengths"][-1:]}
            asked = asked and meta["allow_loss"] == allow_loss
            return asked and meta["model_sha256"] == files.digest(run / "model.keras")
        except (ArtifactError, OSError, KeyError):
            return False

    log = place / "logs" / f"export-{run.name}.log"
    return Step("export", run.name, python("export", *flags), log, done)


def _measures(place: Path, folders: list[Path], options) -> list[Step]:
    precisions = ["fp32", *options.precisions]
    return [
        measure_step(
            *(place, name, folders, target, precisions, options.profile),
            [f"--device={device}", f"--ssh={options.ssh}"] if device else [],
            options.runners,
        )
        for name, device, target in _devices(options)
    ]


def _devices(options) -> list[tuple[str, str, Path]]:
    """Of each device its name, itself, and a file of results, so that what was measured on another
    is not done; of this machine "all" and ""."""
    if not options.device:
        return [("all", "", options.workdir / "results.json")]
    named = elsewhere.remote("connection").each(options.device)
    return [(n, device, options.workdir / f"results-{n}.json") for n, device in named.items()]


def measure_step(
    place: Path,
    name: str,
    folders: list[Path],
    target: Path,
    precisions: list[str],
    profile: str,
    more: Sequence[str] = (),
    runners: Sequence[str] = ("ort",),
) -> Step:
    """Measure artifacts in one comparison; `more`: further flags of `python -m bench`."""
    flags = [f"--precisions={','.join(precisions)}", f"--profile={profile}"]
    flags += [f"--runners={','.join(runners)}"]
    flags += [*more, f"--out={target}", "--replace"]

    def done() -> bool:
        try:
            measured = results.read(target)
            seals = {artifact.read(folder)["seal"] for folder in folders}
        except (ResultsError, ArtifactError):
            return False
        contenders = measured["contenders"]
        # One that was refused would be refused again; the report tells of it.
        complete = all(c["complete"] or c["error"] for c in contenders)
        complete = complete and any(c["complete"] for c in contenders)
        same = {c["artifact"]["seal"] for c in contenders} == seals
        same = same and {c["precision"] for c in contenders} == set(precisions)
        same = same and {c["runner"] for c in contenders} == set(runners)
        return complete and same and measured["method"]["profile"] == profile

    log = place / "logs" / ("measure.log" if name == "all" else f"measure-{name}.log")
    # 1: a contender was lost, the others are there.
    return Step("measure", name, python("bench", *folders, *flags), log, done, fine=(0, 1))


def _report(place: Path, folders: list[Path], options) -> Step:
    more = [f"--runs={place / 'runs'}"] if options.teacher else []
    measured = [target for *_, target in _devices(options)]
    return report_step(place, [*measured, *folders], options.budget_ms, more)


def report_step(
    place: Path, inputs: list[Path], budget: float | None, more: Sequence[str] = ()
) -> Step:
    """Report, always anew; `more`: further flags of `python -m bench.report`."""
    flags = [*inputs, f"--out={place / 'report'}", *more]
    flags += [f"--budget_ms={budget}"] if budget else []
    log = place / "logs" / "report.log"
    return Step("report", "all", python("bench.report", *flags), log, lambda: False)
