"""Export a trained run: `python -m export RUN --out=ARTIFACT`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, terminal
from fusion_keras.errors import UsageError

OUT = flags.DEFINE_string("out", None, "The artifact's folder.")
PRECISIONS = flags.DEFINE_list("precisions", ["fp16", "int8"], "Beside fp32.")
BATCH = flags.DEFINE_integer("batch", 1, "Examples at a time.")
DYNAMIC = flags.DEFINE_bool("dynamic", False, "Leave batch and length open.")
BUCKETS = flags.DEFINE_list("buckets", [], "Lengths that sentences are padded to.")
WITHOUT = flags.DEFINE_string("without", "", "A modality that will be missing.")
SAMPLES = flags.DEFINE_integer("samples", 64, "Validation rows of the parity ladder.")
ALLOW_LOSS = flags.DEFINE_float("allow_loss", None, "Points of test accuracy that may be lost.")

HELP = """Turn a trained run into an artifact that a device can run, proven equal.

  python -m export runs/demo/inter-s0 --out=artifacts/inter
      SavedModel, ONNX in float32, fp16 and int8, tokenizer, image preprocessing, and
      meta.json with what each step changed and the test metrics of each precision.
  python -m export runs/demo/inter-s0 --out=artifacts/inter --buckets=16,32
      leaves the length of sentences open, and names the lengths that the runner pads
      them to: short sentences, which most are, run faster.
  python -m export runs/demo/late-s0 --out=artifacts/late-no-image --without=image
      of a run with --config.fusion.stand_ins: the model for when there is no image, without
      that backbone; python -m bench shows what it saves beside the whole one.

Every step is compared with the one before it on real validation rows: Keras on JAX, Keras on
TensorFlow, SavedModel, ONNX, its precisions. A step that is too far off ends the export, and
what was exported before stays as it was. A lower precision may lose a point of test accuracy.
Where the rows are too few to show more, the size of its differences decides; a note says so.

FLAGS
  RUN                     a finished run
  --out=DIR               the artifact; an older one of that name is replaced in one step, with
                          the engines that were built of it
  --precisions=fp16,int8  beside fp32, which is always there: fp16, int8 (dynamic, for CPUs),
                          int8_static (calibrated on validation rows, for TensorRT); empty for none
  --batch=1               examples at a time
  --buckets=16,32         lengths in tokens, shorter than the run's own
  --dynamic               leave batch and length open
  --without=image         leave text, image or audio out; its learned stand-in answers for it
  --samples=64            validation rows of the parity ladder and of the calibration
  --allow_loss=POINTS     test accuracy that a graph may lose, instead of 1 point, and so many rows
                          in a hundred may change their class; stands in meta.json and reports
"""


def main(names: list[str]) -> None:
    run = cli.only(names, "run")
    try:
        from export import pipeline, report, request
    except ModuleNotFoundError as error:
        raise UsageError(
            f'{error}: pip install -e ".[export,cpu]", on a workstation with an NVIDIA GPU '
            '".[export,gpu]".'
        ) from None

    options = request.Request(
        run=Path(run) if run else None,
        out=Path(OUT.value) if OUT.value else None,
        precisions=tuple(dict.fromkeys(p for p in PRECISIONS.value if p not in ("", "fp32"))),
        batch=BATCH.value,
        dynamic=DYNAMIC.value,
        buckets=tuple(BUCKETS.value),
        samples=SAMPLES.value,
        without=WITHOUT.value,
        allow_loss=ALLOW_LOSS.value,
    )
    meta = pipeline.export(options)
    terminal.print_results(*report.report(options.out, meta))


if __name__ == "__main__":
    interrupted = "Interrupted. What was exported before is as it was."
    cli.run(main, HELP, interrupted, takes_names=True, progress_on_stdout=True, older={"run": ""})
