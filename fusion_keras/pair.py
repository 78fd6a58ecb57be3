"""Pair FER2013 and CMU-MOSI as in the results: `python -m fusion_keras.pair FACES LABEL.csv`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli
from fusion_keras.errors import UsageError

OUT = flags.DEFINE_string("out", "mosi_fer", "The folder to write.")

HELP = """Pair your copies of FER2013 and CMU-MOSI as docs/results has them.

  python -m fusion_keras.pair fer2013 label.csv --out=mosi_fer
      writes mosi_fer/manifest.csv and mosi_fer/frames, the very rows that were measured: each
      of the 2199 transcripts with a face, found by its sha256 in fer2013 and the folders below.

FACES is FER2013 as JPEG files, training and test part; LABEL.csv is MMSA's file of CMU-MOSI. The
pairing is constructed: three faces in four have the emotion of the sentence's sign. What is
trained on it has no CMU-MOSI results.

FLAGS
  FACES LABEL.csv    what to pair
  --out=mosi_fer     a folder that does not exist yet
"""


def main(names: list[str]) -> None:
    if len(names) != 2:
        raise UsageError(
            f"got {' '.join(names) or 'nothing'}, wanted the folder of faces and the label file "
            "(--help has an example)."
        )
    if not OUT.value:
        raise UsageError("got no folder to write, wanted --out=FOLDER, one that does not exist.")
    # Imported here so that --help and a mistyped flag answer at once.
    from fusion_keras.data.pairing import pair

    paired = pair(Path(names[0]), Path(names[1]), Path(OUT.value))
    print(f"Pairs: {paired.folder}, {paired.rows} rows")
    if not paired.others:
        print("The rows and the faces are, byte for byte, those that were measured.")
    else:
        print(
            f"note: the faces are those that were measured; the sentence, score or split of "
            f"{len(paired.others)} rows is not (the first is {paired.others[0]}): your label file "
            "is another version"
        )
    print("Next: compare the variants, in the repository, with")
    print(
        "  python -m fusion_keras.sweep --config=configs/small.py --variant=text,late,inter,early "
        f"--config.data.path={paired.folder.resolve()}/manifest.csv"
    )


if __name__ == "__main__":
    cli.run(main, HELP, "Interrupted. Nothing was written.", takes_names=True)
