"""Train every combination of some settings: `python -m fusion_keras.sweep --variant=a,b`."""

import itertools
import sys
from pathlib import Path

from absl import flags

from fusion_keras import cli, huge_pages, terminal
from fusion_keras.errors import UsageError

WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Where runs, logs and results go.")
BASELINE = flags.DEFINE_string("baseline", None, "The combination that others are compared with.")
JOBS = flags.DEFINE_string("jobs", "1", "Runs at a time, or auto.")

HELP = """Train the product of settings, one process each, and compare the results.

  python -m fusion_keras.sweep --variant=text,image,late,inter,early --seed=0,1,2
      fifteen runs; every flag of fusion_keras.train can be given, and a comma makes it
      an axis of the sweep.
  python -m fusion_keras.sweep --variant=early --config.fusion.blocks=2,4,6,8 --seed=0,1,2
      the ablation of Willis and Bakos 2025, table 3.

A comma inside brackets, parentheses or quotes does not split:
  --config.fusion.junctions='(4+4:linear,8+8:attention),(6+6:attention)'

The same command skips what is finished and resumes what was stopped. A run that fails
is named with its cause, and the sweep goes on. At the end: mean and spread over the
seeds, and paired differences on the test split (10,000 bootstrap resamples, by group
where the data has groups).

FLAGS
  --workdir=runs/sweep    where runs, logs and results.json go
  --baseline=text         which combination the others are compared with (the first)
  --jobs=1                runs at a time, which divide cores and GPUs; auto: one for each GPU, else
                          as many as cores and memory allow. Runs of one modality come first
  --quiet, --verbose      show results and errors alone, or every step
  all others              go to fusion_keras.train; see its --help (--framework=keras,pytorch
                          trains each run in both)
"""


def main(arguments: list[str]) -> None:
    axes = [_axis(argument) for argument in arguments]
    if not any(len(values) > 1 for _, values in axes):
        raise UsageError(
            "Nothing to sweep over: give at least one flag several values, for example "
            "--variant=early,inter --seed=0,1,2."
        )
    names = [name for name, _ in axes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--{twice} is given twice: give its values once, --{twice}=a,b.")
    with cli.quiet_native_logs():
        from fusion_keras.training import sweeping
    combinations = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(values for _, values in axes))
    ]
    swept = [name for name, values in axes if len(values) > 1]
    sweep = sweeping.sweep(combinations, swept, Path(WORKDIR.value), BASELINE.value, JOBS.value)
    terminal.print_results(*sweep.report())
    if sweep.failed:
        raise UsageError(f"{sweep.failed} of {len(combinations)} runs failed; see the table above.")


def _axis(argument: str) -> tuple[str, list[str]]:
    """`--name=a,b` -> (name, [a, b])."""
    name, equals, value = argument.lstrip("-").partition("=")
    if not argument.startswith("--") or not equals:
        raise UsageError(f"Could not understand {argument!r}: wanted --name=value or --name=a,b.")
    if name in ("run", "describe"):
        raise UsageError(f"--{name} is for a single run: use fusion_keras.train.")
    # These are lists already; one run takes the whole of it.
    return name, [value] if name in ("parents", "teacher") else split_values(value)


def split_values(value: str) -> list[str]:
    """Split at commas outside brackets and quotes: `(a,b),c` -> [`(a,b)`, `c`]."""
    parts, depth, quote = [""], 0, ""
    for character in value:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += (character in "([{") - (character in ")]}") if not quote else 0
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


if __name__ == "__main__":
    huge_pages.restart_with()
    own = ("--workdir=", "--baseline=", "--jobs=")
    alone = ("--help", "-h", "--quiet", "--verbose")
    passed = [a for a in sys.argv[1:] if not a.startswith(own) and a not in alone]
    sys.argv[1:] = [a for a in sys.argv[1:] if a not in passed]
    cli.run(lambda: main(passed), HELP, progress_on_stdout=True)
