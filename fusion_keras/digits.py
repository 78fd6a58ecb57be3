"""The figures of the audio-visual digit study: `python -m fusion_keras.digits --figure=1`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, huge_pages, terminal
from fusion_keras.errors import UsageError

CONFIG = cli.define_config(Path("configs/digits_small.py"))
FIGURE = flags.DEFINE_integer("figure", None, "Which of the paper's figures.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "A training of each regime for each.")
WORKDIR = flags.DEFINE_string("workdir", "runs", "Everything goes to WORKDIR/NAME.")
RATIOS = {
    name: flags.DEFINE_list(name, None, "Signal-to-noise ratios.")
    for name in ("train_audio", "train_image", "test_audio", "test_image")
}
DRY = flags.DEFINE_bool("dry_run", False, "Say what would be trained, and stop.")
EXAMPLE = flags.DEFINE_integer("example", None, "Which test pair.")

HELP = """Repeat a figure of Barnum, Talukder and Yue 2020 (arXiv 2011.07191): images and sound
of digits, fused in the first layer, the second, or the fully connected ones, under noise.

  python -m fusion_keras.digits --figure=1 --config.data.path=DIGITS
      trains the three levels of fusion at audio SNR 0.5 and image SNR 0.25, tests each on
      a grid of 10 x 10 ratios, and draws accuracies and their differences.
  python -m fusion_keras.digits --figure=1 --config.data.path=DIGITS --seeds=0,1,2 \\
      --config=configs/digits.py
      the same at the paper's size, three seeds: for a GPU.

DIGITS holds mnist/*.gz and fsdd/recordings/*.wav. Runs, answers and figures go to
WORKDIR/NAME. The same command goes on where it was stopped; what another figure has trained
or tested is not done again. Each figure is a PNG, which says what was run, and a CSV.

FIGURES
  1            three levels of fusion over the grid, and their differences
  2            16 regimes of noise in training, each over the grid
  3, 4         image alone, sound alone: the other input is zero in training and test
  6            one test pair at each ratio; trains nothing
  7 to 10      as 1, trained at audio / image SNR 1 / 0.5, 2 / 0.25, 1 / 0.25, 1 / 0.125
  11 to 16     what the last layer says after every step of sound, one test pair each

FLAGS
  --figure=1              which of these
  --seeds=0               a training of each regime for each; accuracies are their mean
  --train_audio=2,1,0.5,0.25      figures 2 and 4; ratios are powers, orig adds no noise
  --train_image=1,0.5,0.25,0.125  figures 2 and 3
  --test_audio=orig,4,2,1,0.5,0.25,0.125,0.0625,0.03125,0     the grid; fewer are faster
  --test_image=...        likewise
  --example=0             figures 6 and 11 to 16: which test pair
  --config=configs/digits_small.py    the experiment; configs/digits.py is the paper's size
  --workdir=runs          everything goes to WORKDIR/NAME
  --dry_run               say what would be trained, and stop

SMALLER BUDGETS, as --config.*: data.digits.train_pairs, data.digits.test_pairs, train.epochs,
clstm.units.
"""


def main() -> None:
    if FIGURE.value is None:
        raise UsageError("--figure=N is wanted; --help lists them.")
    config = cli.read_config(CONFIG)
    ratios = {name: _ratios(name, flag.value) for name, flag in RATIOS.items() if flag.value}
    # Imported here so that --help and a mistyped flag answer at once: the stack takes seconds.
    with cli.quiet_native_logs():
        from fusion_keras.studies.digits import figures
    study = figures.Study(
        config, Path(WORKDIR.value), _seeds(SEEDS.value), example=EXAMPLE.value, **ratios
    )
    if DRY.value:
        print("\n".join(figures.planned(FIGURE.value, study)))
        return
    picture = figures.make(FIGURE.value, study)
    terminal.print_results(*figures.report(FIGURE.value, picture))


def _seeds(values: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in values)
    except ValueError:
        raise UsageError(f"--seeds is {','.join(values)}; whole numbers are wanted.") from None


def _ratios(name: str, values: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float("inf" if value == "orig" else value) for value in values)
    except ValueError:
        raise UsageError(
            f"--{name} is {','.join(values)}; ratios of 0 or more are wanted, orig for no noise."
        ) from None


if __name__ == "__main__":
    huge_pages.restart_with()
    cli.run(
        main,
        HELP,
        "Interrupted. The same command goes on: what was trained and tested is kept.",
        settings=cli.settings_help,
    )
