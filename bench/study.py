"""Train, export, measure and report in one go: `python -m bench.study --config=configs/small.py`.

Every variant and seed is trained (`python -m fusion_keras.train`), exported (`python -m export`),
measured in one comparison (`python -m bench`, the first seed of each variant) and reported
(`python -m bench.report`). What is done is not done again: a study that was stopped goes on
with the same command. Flags of the training, --config.… and --recipe, are handed on to it.

With --teacher=late each joint variant is trained once more, taught by the late runs of all seeds,
and stands in the report beside itself untaught; the seeds are those of the study from then on.
--controls trains each of them twice more without the teacher, so that the report can tell its part.

--runs=A,B,... leaves the training out: finished runs are exported, measured and reported.

--device=ssh://USER@HOST[:PORT][/DIR] measures there (`python -m bench --help` tells how) and does
all else here, on several devices (--device=ssh://A,ssh://B) one after the other. That they can be
reached and have what they need is seen before the first training.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from bench.edge import elsewhere
from bench.edge.entry import ends
from bench.edge.flags import milliseconds, numbers, parser, paths, points, some_of
from bench.edge.method import PROFILES
from bench.studies import binding, conducting, study
from bench.studies.conducting import add_growth
from bench.studies.study import KNOWN, PRECISIONS, RUNNERS, VARIANTS


@ends(study.INTERRUPTED)
def main(arguments: list[str]) -> int:
    options, handed_on = _parser().parse_known_args(arguments)
    # It is there in any case.
    options.precisions = [name for name in options.precisions if name != "fp32"]

    def plan() -> list[study.Step]:
        if options.device:
            elsewhere.remote("session").check(options.device, options.ssh, options.runners)
        if options.runs:
            given = ("teacher", "teaching", "controls")
            unread = [*handed_on, *(f"--{name}" for name in given if getattr(options, name))]
            if unread:
                raise study.StudyError(
                    f"{unread[0]} is given with --runs, which are trained already: leave it out."
                )
            # What is exported and measured tells by itself of which runs it is.
            return study.of_runs(options)
        binding.only_of_training(handed_on, ("--config", "--recipe"))
        if options.teacher and options.teacher not in options.variants:
            raise study.StudyError(
                f"--teacher is {options.teacher}, which is not among --variants: add it."
            )
        if options.teacher and not study.students(options):
            raise study.StudyError(
                f"--teacher is {options.teacher}, and --variants has no other joint one that could "
                "learn from it: add inter or early, or leave --teacher out."
            )
        if options.teaching and not options.teacher:
            raise study.StudyError("--teaching is given, and no --teacher: name a variant.")
        if options.controls and not options.teacher:
            raise study.StudyError("--controls is given, and no --teacher: name a variant.")
        binding.only_of_training(options.teaching, ("--config", "--recipe"))
        _check_names(options.teaching)
        if options.teacher and "--config.data.label_kind=multi" in handed_on:
            raise study.StudyError(
                "--teacher is given, and rows have several labels (label_kind=multi), which no "
                "teacher can answer with: leave --teacher out."
            )
        taught = []
        if options.teacher:
            # Another seed would be another teacher, of models that have learned from these.
            seeds = ",".join(map(str, options.seeds))
            taught = [f"--teacher={options.teacher}", f"--seeds={seeds}", *options.teaching]
        binding.same_study(options.workdir, handed_on, taught, keep=not options.dry_run)
        return study.steps(options, handed_on)

    print(conducting.conduct(options, plan))
    return 0


def _check_names(teaching: list[str]) -> None:
    """Raises StudyError for a setting that there is none of, and for a file that is not there."""
    # Of what stands outside the bench, so that the bench can be had without it.
    from fusion_keras.errors import UsageError
    from fusion_keras.setting_names import check_names

    try:
        check_names(teaching)
    except UsageError as error:
        raise study.StudyError(f"--teaching: {error}") from None
    for flag in teaching:
        name, _, path = flag.partition("=")
        if name == "--config.teacher.unlabelled" and path and not Path(path).is_file():
            raise study.StudyError(f"--teaching names {path}, which is no file: check the path.")


def _parser() -> argparse.ArgumentParser:
    made = parser("bench.study", __doc__)
    add = made.add_argument
    add(
        "--variants",
        type=some_of(KNOWN),
        default=VARIANTS,
        help=f"default: {','.join(VARIANTS)}",
    )
    add(
        "--runs",
        type=paths,
        default=[],
        help="finished runs, instead of variants and seeds: NAME-s0,NAME-s1,...",
    )
    add("--seeds", type=numbers(0), default=[0], help="0,1,2 (default 0)")
    add(
        "--precisions",
        type=some_of((*PRECISIONS, "fp32")),
        default=["int8"],
        help="besides fp32 (int8)",
    )
    add("--allow_loss", type=points, help="test accuracy that a graph may lose, in points")
    add("--buckets", type=numbers(3), default=[], help="lengths that sentences are padded to")
    add("--profile", choices=PROFILES, default="quick", help="of the measurement (default quick)")
    add(
        "--runners",
        type=some_of(RUNNERS),
        default=["ort"],
        help=f"what is measured: {', '.join(RUNNERS)} (default ort)",
    )
    add("--budget_ms", type=milliseconds, help="the latency that the report shall answer for")
    add("--teacher", choices=KNOWN, help="the variant whose runs teach the joint ones")
    add(
        "--teaching",
        type=shlex.split,
        default=[],
        help='further flags of the taught trainings, "--recipe=distil --config.teacher.pairs=4"',
    )
    add(
        "--controls",
        action="store_true",
        help="train each taught model twice more, over as many rows without its teacher, the "
        "second time with label smoothing; each takes about as long as the taught training, and "
        "is neither exported nor measured",
    )
    add_growth(made)
    add("--dry_run", action="store_true", help="say what would be done, and stop")
    elsewhere.add_flags(made)
    add("--workdir", type=Path, default=Path("study"), help="where all of it goes (default study)")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
