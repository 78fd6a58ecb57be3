"""Train every combination of some settings: `python -m fusion_keras.sweep --variant=a,b`."""

import itertools
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from fusion_keras import cli, cluster, huge_pages, terminal
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError

WORKDIR = flags.DEFINE_string("workdir", "runs/sweep", "Where runs, logs and results go.")
BASELINE = flags.DEFINE_string("baseline", None, "The combination that others are compared with.")
DRY = flags.DEFINE_bool("dry_run", False, "Say what would be trained, and stop.")
JOBS = flags.DEFINE_string("jobs", "1", "Runs at a time, or auto.")
RAY = flags.DEFINE_string("ray", None, "A Ray cluster: HOST:PORT of its head, or auto.")
CPUS = flags.DEFINE_integer("num_cpus", None, "Of a node, that a run takes.")
GPUS = flags.DEFINE_float("num_gpus", None, "Of a node, that a run takes.")
MEMORY = flags.DEFINE_float("memory_gb", None, "Of a node, that a run takes.")

HELP = """Train the product of settings, one process each, and compare the results.

  python -m fusion_keras.sweep --variant=text,image,late,inter,early --seed=0,1,2
      fifteen runs; every flag of fusion_keras.train can be given, and a comma makes it
      an axis of the sweep.
  python -m fusion_keras.sweep --variant=early --config.fusion.blocks=2,4,6,8 --seed=0,1,2
      the ablation of Willis and Bakos 2025, table 3.

A comma inside brackets, parentheses or quotes does not split, nor does one of a setting that is a
list itself, as --config.tabular.numbers=age,pulse; several lists stand in parentheses:
  --config.fusion.junctions='(4+4:linear,8+8:attention),(6+6:attention)'
  --config.tabular.numbers='(age),(age,pulse)'

The same command skips what is finished and resumes what was stopped. A run that fails
is named with its cause, and the sweep goes on. At the end: mean and spread over the
seeds, and paired differences on the test split (10,000 bootstrap resamples, by group
where the data has groups).

FLAGS
  --workdir=runs/sweep    where runs, logs and results.json go
  --baseline=text         which combination the others are compared with (the first)
  --jobs=1                runs at a time, which divide cores and GPUs; auto: one for each GPU, else
                          as many as cores and memory allow. Runs of one modality come first
  --ray=ADDRESS           train on the nodes of a Ray cluster (pip install -e '.[ray]'): HOST:PORT
                          of its head, or auto for the one that this machine belongs to, else one
                          of this machine alone. A run whose node dies goes on elsewhere
  --num_cpus=4 --num_gpus=1 --memory_gb=8
                          what a run takes of its node; without them 4 CPUs, one GPU where there
                          are any, and 8 GB, or what the largest node has of it
  --dry_run               say which runs are left, and stop
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
    combinations = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(values for _, values in axes))
    ]
    swept = [name for name, values in axes if len(values) > 1]
    needs = (CPUS.value, GPUS.value, MEMORY.value)
    with cluster.asked(RAY.value, needs, JOBS.value, Path(WORKDIR.value)) as nodes:
        # Imported here, because a cluster of this machine alone is made by forks, which JAX's
        # threads would not survive.
        with cli.quiet_native_logs():
            from fusion_keras.training import sweeping
        members = sweeping.planned(combinations, swept, Path(WORKDIR.value), BASELINE.value)
        if DRY.value:
            print("\n".join(sweeping.described(members)))
            return
        sweep = sweeping.sweep(members, Path(WORKDIR.value), BASELINE.value, JOBS.value, nodes)
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
    # One run takes the whole of a list; of several lists each stands in parentheses.
    whole = name in _PATHS or (_is_list(name) and not value.startswith(("(", "[")))
    return name, [value] if whole else split_values(value)


_PATHS = ("parents", "teacher")
# Texts of names with commas between.
_NAMES = ("config.tabular.numbers", "config.tabular.categories")


def _is_list(name: str) -> bool:
    """Whether a setting is a list, of which a comma is part."""
    if name in _NAMES:
        return True
    settings = get_config()
    section, _, field = name.removeprefix("config.").rpartition(".")
    for part in filter(None, section.split(".")):
        settings = settings.get(part, {})
    if not isinstance(settings, ConfigDict) or field not in settings:
        return False  # which the runs say
    return settings.get_type(field) is tuple


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
    own = (
        "--workdir=",
        "--baseline=",
        "--jobs=",
        "--ray=",
        "--num_cpus=",
        "--num_gpus=",
        "--memory_gb=",
    )
    alone = ("--help", "-h", "--help_settings", "--version", "--quiet", "--verbose", "--dry_run")
    sys.argv[1:] = cli.spelled(sys.argv[1:])
    passed = [a for a in sys.argv[1:] if not a.startswith(own) and a not in alone]
    sys.argv[1:] = [a for a in sys.argv[1:] if a not in passed]
    cli.run(lambda: main(passed), HELP, progress_on_stdout=True, settings=cli.settings_help)
