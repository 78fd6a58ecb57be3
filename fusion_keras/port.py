"""Carry weights to PyTorch and back: `python -m fusion_keras.port RUN --out=FILE`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, terminal
from fusion_keras.config import get_config
from fusion_keras.errors import UsageError

CONFIG = cli.define_config()
WEIGHTS = flags.DEFINE_string("weights", None, "A state dict of the PyTorch reference.")
CLASSIFIER = flags.DEFINE_string("classifier", None, "A Hugging Face classifier.")
VARIANT = flags.DEFINE_string("variant", None, "What the classifier reads: text or image.")
OUT = flags.DEFINE_string("out", None, "Where to write.")

HELP = """Carry weights between our runs and PyTorch, as safetensors.

  python -m fusion_keras.port runs/demo/inter-s0 --out=inter.safetensors
      a run's weights as a PyTorch state dict. In Python, with fusion_keras[torch]:
          from fusion_keras.reference.build import of_run
          model = of_run("runs/demo/inter-s0", "inter.safetensors")   # a torch.nn.Module
  python -m fusion_keras.port runs/demo/inter-s0 --weights=inter.safetensors \\
      --out=runs/demo/inter-torch
      the way back: a run like the first, with these weights, evaluated anew.
  python -m fusion_keras.port --classifier=my_bert --variant=text --out=runs/my/text \\
      --config=configs/manifest.py --config.data.path=my.csv
      a fine-tuned classifier of Hugging Face as a run, on your table (BERT, ALBERT, ViT, DeiT,
      MobileNetV2, ResNet, ConvNeXt, EfficientNet; the other families' heads have a layer more):
      a parent for late fusion (--parents), if none of the rows it learned from is in test.

FLAGS
  RUN                a finished run, whose weights go, or whose settings the new run has
  --weights=FILE     .safetensors with the names that RUN --out=FILE writes
  --classifier=DIR   config.json, model.safetensors and a tokenizer or preprocessor
  --variant=text     what the classifier reads: text or image
  --out=PATH         the file, or the new run directory
"""


def main(names: list[str]) -> None:
    config = cli.read_config(CONFIG)
    given = cli.only(names, "run")
    if not OUT.value or bool(CLASSIFIER.value) == bool(given):
        raise UsageError("--out and a RUN or --classifier are wanted (--help has examples).")
    if CLASSIFIER.value and WEIGHTS.value:
        raise UsageError("--weights goes with a RUN: a classifier brings its own weights.")
    if given and (VARIANT.value or config.to_dict() != get_config().to_dict()):
        raise UsageError(
            "--variant and --config... go with --classifier: a RUN has settings of its own."
        )
    if VARIANT.value:
        config.variant = VARIANT.value
    out = Path(OUT.value)
    # Imported here so that --help and a mistyped flag answer at once: the stack takes seconds.
    with cli.quiet_native_logs():
        from fusion_keras.training import porting, report
    if given and not WEIGHTS.value:
        count = porting.to_pytorch(Path(given), out)
        print(f"Weights: {out}, {count} tensors")
        print(f"Next: fusion_keras.reference.build.of_run({given!r}, {OUT.value!r})")
        return
    if given:
        run = porting.from_pytorch(Path(given), Path(WEIGHTS.value), out)
    else:
        run = porting.from_classifier(config, Path(CLASSIFIER.value), out)
    terminal.print_results(*report.closing(run))


if __name__ == "__main__":
    cli.run(
        main,
        HELP,
        "Interrupted. Nothing was written.",
        takes_names=True,
        older={"run": ""},
        settings=cli.settings_help,
    )
