"""Train the PyTorch reference: `python -m fusion_keras.reference.train`, with the flags of ours."""

from fusion_keras import cli
from fusion_keras import train as ours

HELP = """Train the PyTorch reference of a fusion variant; the result is a run directory.

  python -m fusion_keras.reference.train --variant=inter
      the command of `python -m fusion_keras.train`, trained by PyTorch: the same initial
      weights, the same batches in the same order, the same recipe. Dropout is drawn by
      PyTorch. A run is `model.keras` here too, so all that takes a run takes this one.

It needs fusion_keras[test]. A run that is stopped begins anew.

"""


def main() -> None:
    with cli.quiet_native_logs():
        from fusion_keras.reference.learn import PYTORCH
    ours.main(PYTORCH)


if __name__ == "__main__":
    _, _, flags = ours.HELP.partition("VARIANTS")
    said = "Interrupted. The same command begins anew; parents that are complete are kept."
    cli.run(main, HELP + "VARIANTS" + flags + cli.settings_help(), said)
