"""How much trained runs lean on each modality: `python -m fusion_keras.reliance RUN`."""

import json
from pathlib import Path

from absl import flags

from fusion_keras import cli, terminal

JSON = flags.DEFINE_bool("json", False, "Print the figures as one JSON object.")
SPLIT = flags.DEFINE_string("split", "test", "train, valid or test.")
REPEATS = flags.DEFINE_integer("repeats", 10, "Shuffles of each modality.")
SEED = flags.DEFINE_integer("seed", 0, "Of the shuffles.")

HELP = """Measure how much a trained model leans on each modality.

  python -m fusion_keras.reliance runs/demo/inter-s0
      the accuracy when the sentences, or the images, are shuffled among the
      examples: a model that ignores the images loses nothing when they are shuffled.
  python -m fusion_keras.reliance A B C
      the mean over runs that differ only in the seed.

The data and the pretrained models must still be where they were when the run was trained.

FLAGS
  RUN ...             finished runs
  --split=test        train, valid or test
  --repeats=10        shuffles of each modality
  --seed=0            of the shuffles
  --json              print the figures as one JSON object
"""


def main(names: list[str]) -> None:
    # Imported here so that --help and a mistyped flag answer at once: the stack takes seconds.
    with cli.quiet_native_logs():
        from fusion_keras.studies import reliance
    folders = [Path(name) for name in names]
    results = reliance.measure(folders, SPLIT.value, REPEATS.value, SEED.value)
    if JSON.value:
        print(json.dumps({"split": SPLIT.value, "runs": names, **results}))
        return
    terminal.print_results(*reliance.report(results, folders, SPLIT.value, REPEATS.value))


if __name__ == "__main__":
    cli.run(main, HELP, takes_names=True, older={"runs": ""})
