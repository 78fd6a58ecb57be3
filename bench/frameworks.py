"""A training step and an inference of ours against PyTorch's, side by side.

    python -m bench.frameworks --variant=inter --text=minilm --size=96 --length=40
    python -m bench.frameworks --variant=clstm_initial

Keras on JAX, the PyTorch reference as it is, and the reference under torch.compile have the same
architecture, weights, batch and optimiser (AdamW of recipe `best`, Adam of recipe `digits`; what
each runs is in `bench.studies.steps`). Each lives in a process of its own; in every round each has
a turn, in random order, all others stopped, so that a machine that slows down slows all. A step is
forward, backward, update and the loss read back; an inference ends with the logits on the host.
All compute in the same precision: bfloat16 is Keras's mixed policy here and `torch.autocast`
there. Memory is what comes on top of the built model: the largest resident size during the turns
less that before the first call, or the accelerator's peak. For a workstation: this needs
fusion_keras[torch] and the repository's root.
"""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from bench.edge import files, flags, latency
from bench.edge.entry import Progress, ends
from bench.edge.machine import fingerprint
from bench.studies import frameworks
from bench.studies.frameworks import OURS


@ends("Interrupted. Nothing was written.")
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    samples, about = frameworks.measure(options, say=Progress())
    _print(samples, about, options)
    if options.out:
        content = {**vars(options), "machine": fingerprint(), "samples": samples, "about": about}
        files.write(options.out, json.dumps(content, indent=1, default=str))
        print(f"Samples: {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("bench.frameworks", __doc__, older={"json": "out"})
    add = parser.add_argument
    add("--variant", default="inter", help="which fusion, C-LSTMs too (inter)")
    add("--text", default="minilm", help="text preset (minilm)")
    add("--image", default="random:mobilenet_v2_1.0", help="image preset")
    small = "of a C-LSTM as in configs/digits_small.py"
    add("--size", type=flags.positive, help=f"pixels, width and height (96; {small})")
    add(
        "--length",
        type=flags.positive,
        help=f"tokens of a sentence, steps of the sound (40; {small})",
    )
    add("--units", type=flags.positive, help=f"of every layer ({small}; others have none)")
    add("--batch", type=flags.positive, default=32, help="examples (32)")
    add("--dropout", type=float, default=0.1, help="of the text encoder (0.1)")
    add(
        "--precision",
        choices=frameworks.PRECISIONS,
        default="tf32",
        help="of products and convolutions (tf32: float32 on CPUs, and what JAX takes on a GPU)",
    )
    add("--mode", choices=frameworks.MODES, default="step", help="what is timed (step)")
    add("--rounds", type=flags.positive, default=10, help="turns of each contender (10)")
    add("--turn", type=flags.positive, default=3, help="steps of a turn that count (3)")
    add(
        "--contenders",
        type=flags.some_of(frameworks.CONTENDERS),
        default=list(frameworks.CONTENDERS),
        help=f"default {','.join(frameworks.CONTENDERS)}",
    )
    add("--out", type=flags.file, help="also write the samples to this file")
    return parser


def _print(samples: dict, about: dict, options) -> None:
    print(
        f"{options.mode} of {options.variant}, batch {options.batch}, {options.precision}, "
        f"{options.rounds} rounds:"
    )
    inputs = next(iter(about.values()))["inputs"]
    print("  " + ", ".join(f"{name} {shape}" for name, shape in inputs.items()))
    for name, blocks in samples.items():
        flat = np.concatenate(blocks)
        megabytes = about[name]["memory"] / 1e6
        print(
            f"  {name:15} median {1e3 * np.median(flat):8.1f} ms, min {1e3 * flat.min():8.1f} ms, "
            f"memory {megabytes:6.0f} MB, first call {about[name]['first']:5.1f} s, "
            f"{about[name]['device']}, value {about[name]['value']:.5f}"
        )
    for name in samples:
        if name != OURS and OURS in samples:
            ratio = latency.ratio(samples[OURS], samples[name])
            bounds = "" if ratio["low"] is None else f" [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            least = np.concatenate(samples[OURS]).min() / np.concatenate(samples[name]).min()
            print(f"  {OURS} / {name}: {ratio['ratio']:.2f}{bounds}, of minima {least:.2f}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
