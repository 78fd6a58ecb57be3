"""Check trainings without starting them: `python -m fusion_keras.plan FLAGS [-- FLAGS ...]`."""

import itertools
import sys

from fusion_keras import cli
from fusion_keras.errors import UsageError

HELP = """Say what trainings would do, and all that is wrong with them, in seconds.

  python -m fusion_keras.plan --variant=inter --config=configs/manifest.py \\
      --config.data.path=my.csv
      reads the settings, the presets' descriptions and the table; decodes and loads nothing.
  python -m fusion_keras.plan --variant=text -- --variant=late --recipe=paper
      several trainings, with -- between them.

Ends with exit code 2 if one of the trainings could not be done.

FLAGS
  all                 of fusion_keras.train, see its --help, but where a run goes and which process
                      trains it: --workdir, --run, --describe, --coordinator, --processes, --process
"""


def main(arguments: list[str]) -> None:
    divided = itertools.groupby(arguments, lambda argument: argument == "--")
    groups = [list(flags) for between, flags in divided if not between] or [[]]
    with cli.quiet_native_logs():
        from fusion_keras.training import planning

    wrong = []
    for flags in groups:
        try:
            print(planning.described(planning.plan_of_flags(flags)), flush=True)
        except UsageError as error:
            if len(groups) == 1:
                raise
            wrong.append(f"{' '.join(flags)}: {error}")
            print(wrong[-1], file=sys.stderr, flush=True)
    if wrong:
        raise UsageError(f"{len(wrong)} of {len(groups)} could not be trained: {wrong[0]}")
    print("Next: train each with python -m fusion_keras.train and the same flags")


if __name__ == "__main__":
    alone = ("--help", "-h", "--help_settings", "--version", "--quiet", "--verbose")
    passed = [a for a in sys.argv[1:] if a not in alone]
    sys.argv[1:] = [a for a in sys.argv[1:] if a not in passed]
    cli.run(lambda: main(passed), HELP, settings=cli.settings_help)
