"""Accuracy over damaged inputs: `python -m fusion_keras.robustness RUN_OR_ARTIFACT ...`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, terminal

RUNS = flags.DEFINE_list("runs", [], "Runs that the artifacts were exported from.")
OUT = flags.DEFINE_string("out", "robustness.json", "The results; .csv and .png lie beside it.")
PRECISIONS = flags.DEFINE_list("precisions", ["fp32"], "Precisions of artifacts.")
CORRUPTIONS = flags.DEFINE_list("corruptions", [], "Names; none for all.")
STRENGTHS = flags.DEFINE_list("strengths", [], "NAME:STRENGTH:STRENGTH, ...")
REPEATS = flags.DEFINE_integer("repeats", 3, "Draws of a random corruption.")
SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")
SPLIT = flags.DEFINE_string("split", "test", "train, valid or test.")
REFERENCE = flags.DEFINE_string("reference", "", "Curve that effective robustness is against.")

HELP = """Measure how a model's accuracy falls as its inputs get worse.

  python -m fusion_keras.robustness runs/demo/late-s0 runs/demo/inter-s0
      both models over all corruptions: a table here, and robustness.json, .csv and .png.
      Runs that differ only in the seed are averaged; others are compared.
  python -m fusion_keras.robustness artifacts/inter --runs=runs/demo/inter-s0 --precisions=fp32,int8
      an exported model, int8 beside float, by ONNX Runtime on the CPU; the data are its run's.
  python -m fusion_keras.robustness RUN --corruptions=image_noise --strengths=image_noise:0.1:1
      one corruption at strengths of your own: SNRs of 10 dB and 0 dB.
  python -m bench.report robustness.json
      the same curves in the report, beside latencies if there are any.

What is finished stays in the file: the same command goes on after an interruption, and one that
names more models, corruptions or strengths computes only those.

CORRUPTIONS and what their strength is; 0 would change nothing
{corruptions}

NUMBERS (MultiBench, Liang et al. 2021, arXiv 2107.07502)
  relative    area below the curve, strengths equally spaced from 0 to 1: high is good
  effective   sum over the strengths of accuracy minus that of the reference, which is first moved
              to the same clean accuracy: above 0 the model loses less than the reference does
  Intervals are 95 %, a bootstrap over the groups of the split (speakers, videos) or its rows.

FLAGS
  --runs=A,B         runs that artifacts were exported from, where they are not given already
  --out=FILE.json    results (robustness.json); FILE.csv and FILE.png lie beside it
  --precisions=fp32  of artifacts: fp32, fp16, int8, int8_static, several with commas
  --corruptions=...  names with commas; none for all that the models can suffer
  --strengths=...    NAME:STRENGTH:STRENGTH, several with commas
  --repeats=3        draws of each random corruption
  --seed=0           of the draws
  --split=test       train, valid or test: choose a model on valid
  --reference=NAME   the curve that effective robustness is against (late, or else the first)
"""


def _help() -> str:
    from fusion_keras.data.corrupt import CORRUPTIONS as known

    lines = [f"  {name:<16} {kind.does}" for name, kind in known.items()]
    return HELP.replace("{corruptions}", "\n".join(lines))


def main(models: list[str]) -> None:
    # Imported here so that --help and a mistyped flag answer at once: the stack takes seconds.
    with cli.quiet_native_logs():
        from fusion_keras.studies.robustness import report, study
    options = study.Options(
        models=tuple(map(Path, models)),
        runs=tuple(map(Path, RUNS.value)),
        out=Path(OUT.value),
        precisions=tuple(PRECISIONS.value),
        corruptions=tuple(CORRUPTIONS.value),
        strengths=tuple(STRENGTHS.value),
        repeats=REPEATS.value,
        seed=SEED.value,
        split=SPLIT.value,
        reference=REFERENCE.value,
    )
    content = study.measure(options)
    terminal.print_results(*report.results(content, options.out))


if __name__ == "__main__":
    stopped = "Interrupted. The same command goes on from the last finished cell."
    cli.run(
        main,
        _help(),
        stopped,
        takes_names=True,
        progress_on_stdout=True,
        older={"run": "runs", "precision": "precisions"},
    )
