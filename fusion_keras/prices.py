"""What each backbone costs on a machine: `python -m fusion_keras.prices`."""

from pathlib import Path

from absl import flags

from fusion_keras import cli, huge_pages, terminal
from fusion_keras.errors import UsageError

TEXTS = flags.DEFINE_list("texts", None, "Text backbones.")
IMAGES = flags.DEFINE_list("images", None, "Image backbones.")
LENGTH = flags.DEFINE_integer("length", 64, "Tokens of a sentence.", lower_bound=3)
SIZE = flags.DEFINE_integer("size", 224, "Edge of an image, pixels.", lower_bound=1)
DEVICE = flags.DEFINE_string("device", None, "Another machine, that measures: ssh://USER@HOST.")
SSH = flags.DEFINE_string("ssh", "ssh", "How to call OpenSSH.")
WORKDIR = flags.DEFINE_string("workdir", "runs/prices", "Where the table goes.")

HELP = """Measure backbones at a quarter, half, three quarters and the whole of their depth.

  python -m fusion_keras.prices
      every text and image backbone with a name, with random weights, at fp32 and int8: about half
      a minute for each line of the table, on an idle machine. What this machine has measured
      before is taken from the cache, whatever the --workdir; remove the cache's folder latency/
      (config.data.cache_dir, ~/.cache/fusion_keras) to measure anew.
  python -m fusion_keras.prices --texts=minilm,bert_base --images= --length=40

The price list that one reads before choosing: parameters and multiply-adds of one example, and the
median latency of the exported graph (the least beside it), by the bench's own method, with a head
of two classes.

FLAGS
  --texts=minilm,...      text backbones (all); empty for none
  --images=resnet_18,...  image backbones (all); empty for none
  --length=64             tokens of a sentence
  --size=224              edge of an image, pixels
  --device=ssh://USER@HOST[:PORT][/DIR]
                          another machine that measures, by OpenSSH; see python -m bench --help
  --ssh=ssh               how to call OpenSSH: --ssh='ssh -F FILE'
  --workdir=runs/prices   where prices.json and prices.md go; a folder for each machine
"""


def main() -> None:
    with cli.quiet_native_logs():
        import fusion_keras.modalities  # noqa: F401  (brings TensorFlow, with its lines)
        from fusion_keras.config import get_config
        from fusion_keras.searching import prices

    wanted = []
    for modality, asked in (("text", TEXTS.value), ("image", IMAGES.value)):
        known = prices.names(modality)
        for name in known if asked is None else filter(None, asked):
            if name not in known:
                raise UsageError(
                    f"--{modality}s has {name!r}; some of {', '.join(known)} are wanted."
                )
            wanted.append((modality, name))
    if not wanted:
        raise UsageError("--texts and --images are empty; at least one backbone is wanted.")
    config = get_config()
    config.data.demo.size = 100
    config.data.max_length, config.image.size = LENGTH.value, SIZE.value
    folder = Path(WORKDIR.value)
    there = (f"--device={DEVICE.value}", f"--ssh={SSH.value}") if DEVICE.value else ()
    with terminal.console().status("") as status:
        lines = prices.prices(wanted, config, folder, status.update, there)
    table = folder / "prices.md"
    table.write_text(prices.as_markdown(lines))
    terminal.print_results(prices.as_markdown(lines), f"Table: {table}")


if __name__ == "__main__":
    huge_pages.restart_with()
    older = {"text": "texts", "image": "images"}
    interrupted = "Interrupted. The same command goes on with the lines that are missing."
    cli.run(main, HELP, interrupted, progress_on_stdout=True, older=older)
