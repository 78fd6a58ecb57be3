"""How much trained runs lean on each modality: `python -m fusion_keras.reliance --runs=A,B`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, terminal

RUNS = flags.DEFINE_list("runs", [], "Directories of finished runs.")
SPLIT = flags.DEFINE_string("split", "test", "train, valid or test.")
REPEATS = flags.DEFINE_integer("repeats", 10, "Shuffles of each modality.")
SEED = flags.DEFINE_integer("seed", 0, "Of the shuffles.")

HELP = """Measure how much a trained model leans on each modality.

  python -m fusion_keras.reliance --runs=runs/demo/inter-s0
      the accuracy when the sentences, or the images, are shuffled among the
      examples: a model that ignores the images loses nothing when they are shuffled.
  python -m fusion_keras.reliance --runs=A,B,C
      the mean over runs that differ only in the seed.

The data and the pretrained models must still be where they were when the run was trained.

FLAGS
  --runs=A,B      directories of finished runs
  --split=test    train, valid or test
  --repeats=10    shuffles of each modality
  --seed=0        of the shuffles
  --quiet, --verbose  show results and errors alone, or every step
"""


def main() -> None:
    # Imported here so that --help and a mistyped flag answer at once: the stack takes seconds.
    with cli.quiet_native_logs():
        from fusion_keras.studies import reliance
    folders = [Path(run) for run in RUNS.value]
    results = reliance.measure(folders, SPLIT.value, REPEATS.value, SEED.value)
    terminal.print_results(*reliance.report(results, folders, SPLIT.value, REPEATS.value))


if __name__ == "__main__":
    cli.run(main, HELP, progress_on_stdout=True)
