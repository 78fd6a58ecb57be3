"""Train, export, measure and report in one go: `python -m bench.study --config=configs/small.py`.

Every variant and seed is trained (`python -m fusion_keras.train`), exported (`python -m export`),
measured in one comparison (`python -m bench`, the first seed of each variant) and reported
(`python -m bench.report`). What is done is not done again: a study that was stopped goes on
with the same command. Flags of the training, --config.… and --recipe, are handed on to it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import artifact, results
from bench.__main__ import numbers, words
from bench.artifact import ArtifactError
from bench.method import PROFILES
from bench.report.__main__ import budget_ms
from bench.results import ResultsError

VARIANTS = ["text", "image", "late", "inter", "early"]
PRECISIONS = ("fp16", "int8", "int8_static")
ALONE = ("text", "image", "audio")
LATER = ("tf2onnx", "onnxscript", "onnxruntime", "plotly")
KNOWN = (*ALONE, "late", "late_score", "inter", "early", "hybrid", "input")


class StudyError(Exception):
    """A step failed; the message says which, why, and where its log is."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One process of the study.

    done: whether there is nothing to do; kind: for the estimate of what is left;
    fine: the exit codes after which the study goes on.
    """

    kind: str
    name: str
    command: list[str]
    log: Path
    done: Callable[[], bool]
    fine: tuple[int, ...] = (0,)


def steps(options, handed_on: list[str]) -> list[Step]:
    """All that a study does, in order; unimodal variants first, as others start from them."""
    place = options.workdir
    order = [v for v in ALONE if v in options.variants]
    order += [v for v in options.variants if v not in order]
    made = [(variant, seed) for seed in options.seeds for variant in order]
    found = [_train(place, variant, seed, handed_on) for variant, seed in made]
    found += [_export(place, variant, seed, options) for variant, seed in made]
    folders = [_artifact(place, v, s) for v, s in made]
    return [
        *found,
        _measure(place, folders[: len(order)], options),
        _report(place, folders, options),
    ]


def python(module: str, *arguments: object) -> list[str]:
    """The command line of a module, on the Python that runs this one."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def _run(place: Path, variant: str, seed: int) -> Path:
    return place / "runs" / f"{variant}-s{seed}"


def _artifact(place: Path, variant: str, seed: int) -> Path:
    return place / "artifacts" / f"{variant}-s{seed}"


def _train(place: Path, variant: str, seed: int, handed_on: list[str]) -> Step:
    run = _run(place, variant, seed)
    flags = [f"--variant={variant}", f"--seed={seed}", f"--run={run}", *handed_on]
    # Training itself takes a finished run as it is, and refuses one of another config.
    command = python("fusion_keras.train", *flags)
    return Step("train", run.name, command, place / "logs" / f"train-{run.name}.log", lambda: False)


def _export(place: Path, variant: str, seed: int, options) -> Step:
    buckets = options.buckets if variant not in ("image", "audio") else []
    run, target = _run(place, variant, seed), _artifact(place, variant, seed)
    return export_step(place, run, target, options.precisions, buckets)


def export_step(
    place: Path, run: Path, target: Path, precisions: list[str], buckets: list[int]
) -> Step:
    """Export a run; done where the artifact is of this very model, at these precisions."""
    flags = [f"--run={run}", f"--out={target}", f"--precisions={','.join(precisions)}"]
    flags += [f"--buckets={','.join(map(str, buckets))}"] if buckets else []

    def done() -> bool:
        try:
            meta = artifact.read(target)
            asked = {"fp32", *precisions} == set(meta["models"])
            lengths = buckets if "token_ids" in meta["inputs"] else []
            asked = asked and set(meta["lengths"]) == {*lengths, *meta["lengths"][-1:]}
            return asked and meta["model_sha256"] == artifact.digest(run / "model.keras")
        except (ArtifactError, OSError, KeyError):
            return False

    log = place / "logs" / f"export-{run.name}.log"
    return Step("export", run.name, python("export", *flags), log, done)


def _measure(place: Path, folders: list[Path], options) -> Step:
    precisions = ["fp32", *options.precisions]
    target = place / "results.json"
    return measure_step(place, "all", folders, target, precisions, options.profile)


def measure_step(
    place: Path,
    name: str,
    folders: list[Path],
    target: Path,
    precisions: list[str],
    profile: str,
    more: Sequence[str] = (),
) -> Step:
    """Measure artifacts in one comparison; `more`: further flags of `python -m bench`."""
    flags = [f"--precision={','.join(precisions)}", f"--profile={profile}"]
    flags += [*more, f"--out={target}", "--replace"]

    def done() -> bool:
        try:
            found = results.read(target)
            seals = {artifact.read(folder)["seal"] for folder in folders}
        except (ResultsError, ArtifactError):
            return False
        contenders = found["contenders"]
        # One that was refused would be refused again; the report tells of it.
        complete = all(c["complete"] or c["error"] for c in contenders)
        complete = complete and any(c["complete"] for c in contenders)
        same = {c["artifact"]["seal"] for c in contenders} == seals
        same = same and {c["precision"] for c in contenders} == set(precisions)
        return complete and same and found["method"]["profile"] == profile

    log = place / "logs" / ("measure.log" if name == "all" else f"measure-{name}.log")
    # 1: a contender was lost, the others are there.
    return Step("measure", name, python("bench", *folders, *flags), log, done, fine=(0, 1))


def _report(place: Path, folders: list[Path], options) -> Step:
    return report_step(place, [place / "results.json", *folders], options.budget_ms)


def report_step(
    place: Path, inputs: list[Path], budget: float | None, more: Sequence[str] = ()
) -> Step:
    """Report, always anew; `more`: further flags of `python -m bench.report`."""
    flags = [*inputs, f"--out={place / 'report'}", *more]
    flags += [f"--budget-ms={budget}"] if budget else []
    log = place / "logs" / "report.log"
    return Step("report", "all", python("bench.report", *flags), log, lambda: False)


def study(planned: list[Step], say: Callable[[str], None]) -> None:
    """Take every step that is not done.

    say: told where the study stands, in a line that the next one may replace.

    Raises:
        StudyError: one failed.
    """
    start, spent = time.monotonic(), {}
    for number, step in enumerate(planned, 1):
        where = f"[{number}/{len(planned)}] {step.kind} {step.name}"
        if step.done():
            print(f"{where}: done before", flush=True)
            continue
        began = time.monotonic()
        _take(step, lambda line, where=where: say(f"{where}, {_clock(start)} gone: {line}"))
        seconds = time.monotonic() - began
        spent.setdefault(step.kind, []).append(seconds)
        left = _left(planned[number:], spent)
        print(f"{where}: {seconds:.0f} s{left}", flush=True)


def _take(step: Step, say: Callable[[str], None]) -> None:
    step.log.parent.mkdir(parents=True, exist_ok=True)
    with step.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(step.command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                say(_last_line(step.log))
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode not in step.fine:
        said = _last_line(step.log, "error: ")
        raise StudyError(
            f"{step.kind} {step.name} failed ({said.removeprefix('error: ')}); all it said is in "
            f"{step.log}. The same command goes on from here."
        )


def _last_line(path: Path, start: str = "") -> str:
    """The last line of a log that says something; preferably one with this start."""
    lines = [
        x for x in path.read_text(encoding="utf-8", errors="replace").splitlines() if x.strip()
    ]
    wanted = [line for line in lines if line.startswith(start)]
    return (wanted or lines or [""])[-1].strip()


def _left(planned: list[Step], spent: dict[str, list[float]]) -> str:
    """An estimate where each kind that is left has been met before."""
    known = [s.kind for s in planned if s.kind in spent]
    if not known:
        return ""
    seconds = sum(sum(spent[kind]) / len(spent[kind]) for kind in known)
    more = "" if len(known) == len(planned) else f" and {len(planned) - len(known)} other steps"
    return f"; about {seconds / 60:.0f} min{more} left"


def _clock(start: float) -> str:
    seconds = int(time.monotonic() - start)
    return f"{seconds // 60}:{seconds % 60:02}"


def main(arguments: list[str]) -> int:
    options, handed_on = _parser().parse_known_args(arguments)

    def plan() -> list[Step]:
        only_of_training(handed_on, ("--config", "--recipe"))
        same_study(options.workdir, handed_on)
        return steps(options, handed_on)

    return conduct(options.workdir, plan)


def conduct(place: Path, plan: Callable[[], list[Step]]) -> int:
    """Plan a study, take its steps, show what the report said; returns the exit code."""
    for polite in (signal.SIGTERM, signal.SIGHUP):  # the step that runs ends with us
        signal.signal(polite, _interrupt)
    try:
        all_installed()
        study(plan(), _say)
    except (StudyError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the same command goes on from here.", file=sys.stderr)
        return 130
    print((place / "logs" / "report.log").read_text(encoding="utf-8").strip())
    return 0


def all_installed() -> None:
    """Check for what only the later steps import: they would miss it after the training.

    Raises:
        StudyError: names the packages that are not installed.
    """
    missing = [name for name in LATER if importlib.util.find_spec(name) is None]
    if missing:
        raise StudyError(
            f'{", ".join(missing)} not installed: pip install -e ".[export,bench,cpu]", on a '
            'workstation with an NVIDIA GPU ".[export,bench,gpu]".'
        )


def only_of_training(handed_on: list[str], known: tuple[str, ...]) -> None:
    """Check that what is handed on are flags that training has.

    Raises:
        StudyError: names the first that is not.
    """
    for flag in handed_on:
        if not flag.startswith(known):
            raise StudyError(f"{flag} is no flag of the study or of the training.")


def same_study(place: Path, handed_on: list[str]) -> None:
    """Keep two studies out of one folder.

    Raises:
        StudyError: the folder holds one with other settings of the training.
    """
    file = place / "study.json"
    try:
        before = json.loads(file.read_text()) if file.is_file() else handed_on
    except ValueError:
        raise StudyError(f"{file} is damaged: remove it, or give --workdir another name.") from None
    if before != handed_on:
        raise StudyError(
            f"{place} holds a study with the flags {before}, got {handed_on}: give --workdir "
            "another name."
        )
    place.mkdir(parents=True, exist_ok=True)
    partial = file.with_name("study.json.partial")
    partial.write_text(json.dumps(handed_on) + "\n")
    partial.replace(file)


def _interrupt(number, frame) -> None:
    raise KeyboardInterrupt


def _say(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:100]}", end="", file=sys.stderr, flush=True)


def some_of(known: Sequence[str]):
    """A list of known words, for argparse."""

    def read(text: str) -> list[str]:
        for word in words(text):
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return words(text)

    return read


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--variants", type=some_of(KNOWN), default=VARIANTS, help=f"default: {','.join(VARIANTS)}")
    add("--seeds", type=numbers(0), default=[0], help="0,1,2 (default 0)")
    add("--precisions", type=some_of(PRECISIONS), default=["int8"], help="besides fp32 (int8)")
    add("--buckets", type=numbers(3), default=[], help="lengths that sentences are padded to")
    add("--profile", choices=PROFILES, default="quick", help="of the measurement (default quick)")
    add("--budget-ms", type=budget_ms, help="the latency that the report shall answer for")
    add("--workdir", type=Path, default=Path("study"), help="where all of it goes (default study)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
