"""Train one fusion variant: `python -m fusion_keras.train --variant=inter`."""

import logging
import sys
from pathlib import Path

from absl import flags

from fusion_keras import cli, huge_pages, terminal, training_flags
from fusion_keras.errors import UsageError

CONFIG = training_flags.define_for_entry()
WORKDIR = flags.DEFINE_string("workdir", "runs", "Runs go to WORKDIR/NAME/VARIANT[-taught]-sSEED.")
RUN = flags.DEFINE_string("run", None, "The run directory itself, instead of WORKDIR.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of the first process, or auto.")
PROCESSES = flags.DEFINE_integer("processes", None, "How many processes train together.")
PROCESS = flags.DEFINE_integer("process", None, "Which one this is, from 0.")
DESCRIBE = flags.DEFINE_bool("describe", False, "Show the architecture and stop.")

HELP = """Train one fusion variant; the result is a run directory.

  python -m fusion_keras.train --variant=inter
      trains intermediate fusion on the built-in demo: no download, under three minutes.
  python -m fusion_keras.train --variant=early --describe
      shows what would be built: junctions, shapes, parameters, multiplications.
  python -m fusion_keras.train --config=configs/manifest.py --config.data.path=my.csv
      trains on your own table of sentences, images and labels.
  python -m fusion_keras.train --config=configs/mosi.py --config.data.path=label.csv \\
      --config.data.mosi.raw_dir=Raw
      trains on CMU-MOSI as you hold it on disk.
  ... --config.fusion.modalities=text+image+audio
      joins the clips' sound, too, or that of a table's --config.data.manifest.audio_column.
  python -m fusion_keras.train --config=configs/digits_small.py --variant=clstm_initial \\
      --config.data.path=DIGITS
      trains a C-LSTM on written and spoken digits; python -m fusion_keras.digits repeats
      the whole study.
  ... --variant=early --recipe=distil --teacher=runs/demo/late-s0
      trains on what a finished run says of the training rows, of the same sentences with
      other images, and of --config.teacher.unlabelled=FILE, rows without labels.
  ... --framework=pytorch
      trains the PyTorch reference of the same command: the same initial weights, batches and
      recipe; dropout is drawn by PyTorch. Its run is a run like any other.

The same command resumes a run that was stopped, and leaves a finished one alone. With
--framework=pytorch a stopped one begins anew.

VARIANTS
  text, image,  one modality alone           early   joined after half of the encoder,
  audio, tabular                                     then attention blocks
  late          each alone, then a new head
  late_score    probabilities averaged       hybrid  early and late together
  inter         joined at three depths       input   joined before any feature
  clstm_initial, clstm_second, clstm_fc      digits: image and sound joined in the first
                                             layer, the second, the fully connected ones

FLAGS
  --variant=inter     which of these (also --config.variant)
  --recipe=best       best (ours), paper (Willis and Bakos 2025), distil (of a teacher's
                      student), demo, or digits
  --seed=0            another seed, another run directory
  --dtype=float32     or bfloat16
  --parents=A,B       finished runs of one modality each to start from; late fusion trains
                      them if they are not given, and recipe best those of images and sound
  --teacher=A,B       finished runs of any variant whose answers it learns from, their
                      probabilities averaged; see recipe distil and config.teacher below
  --config=FILE       an experiment from configs/, or your own
  --workdir=runs      runs go to WORKDIR/NAME/VARIANT-sSEED; with a teacher to VARIANT-taught-sSEED
  --run=DIR           the run directory itself
  --framework=keras   keras (on JAX), or pytorch, which needs fusion_keras[torch]
  --devices=1         how many GPUs share each batch (config.train.batch_size is the batch of
                      all), or all; the run is that of one, but for rounding
  --coordinator=HOST:PORT --processes=N --process=I
                      one training by N processes, each with its own GPUs, on one machine or
                      many that see the same files: type it N times, I from 0; or
                      --coordinator=auto under Slurm, Open MPI or Kubernetes
  --describe          show the architecture as a table, draw it to WORKDIR/NAME/VARIANT.png, or
                      to RUN.png, and stop
"""
ANEW = "Interrupted. The same command begins anew; parents that are complete are kept."


def main() -> None:
    config, framework = training_flags.config_of(CONFIG, flags.FLAGS), flags.FLAGS.framework
    # Imported here so that --help and a mistyped flag answer at once: the stack takes seconds.
    with cli.quiet_native_logs():
        # PyTorch before what brings TensorFlow.
        trainer = _pytorch() if framework == "pytorch" else None
        from fusion_keras.training import devices, experiment, processes, report

    if trainer and (flags.FLAGS.devices != "1" or COORDINATOR.value):
        raise UsageError(
            "The PyTorch reference trains on one device: leave out --devices and --coordinator."
        )
    if DESCRIBE.value:
        beside = Path(RUN.value or Path(WORKDIR.value) / config.name / config.variant)
        picture = beside.with_name(f"{beside.name}.png")
        terminal.print_results(*report.described(config, picture))
        return
    folder = Path(RUN.value) if RUN.value else run_folder(config)
    if folder.suffix == ".partial":
        raise UsageError(f"{folder}: a run directory may not end in .partial.")
    with processes.joined(COORDINATOR.value, PROCESSES.value, PROCESS.value):
        if not processes.is_first():
            terminal.show(logging.WARNING)
        devices.use(flags.FLAGS.devices)
        run = experiment.train(config, folder, trainer)
        if processes.is_first():
            terminal.print_results(*report.closing(run, training_flags.shared(sys.argv[1:])))


def _pytorch():
    try:
        from fusion_keras.reference.learn import PYTORCH
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        raise UsageError(
            f"--framework=pytorch needs {error.name}, which is not installed: "
            "pip install -e '.[torch]'."
        ) from None
    return PYTORCH


def interrupted() -> str:
    """What is said after Ctrl-C."""
    anew = flags.FLAGS.is_parsed() and flags.FLAGS.framework == "pytorch"
    return ANEW if anew else cli.INTERRUPTED


def run_folder(config) -> Path:
    """Where a run goes; a taught one beside itself untaught, as in a study."""
    taught = "-taught" if config.teacher.runs else ""
    return Path(WORKDIR.value) / config.name / f"{config.variant}{taught}-s{config.seed}"


if __name__ == "__main__":
    huge_pages.restart_with()
    cli.run(main, HELP, interrupted, settings=cli.settings_help)
