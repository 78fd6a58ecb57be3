"""From raw CMU-MOSI to the tables 2 to 5 of Willis and Bakos 2025 (arXiv 2511.21889):

    python -m bench.paper label.csv --raw_dir=Raw --workdir=paper

Trains every model of the paper with every seed: text once, and for each vision model image, late,
inter, early, and early with 2, 6 and 8 attention blocks; with --frameworks=ours,pytorch the
PyTorch reference of each, too. Exports the first seed of each, measures those here, and reports
published, PyTorch and ours side by side, with paired differences. What is done is not done again:
the same command goes on where it was stopped, and takes up results of other machines that were
put into WORKDIR/results. Flags of the training, --config.…, are handed on to it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.edge.entry import ends
from bench.edge.flags import milliseconds, numbers, parser, some_of
from bench.edge.method import PROFILES
from bench.studies import binding, conducting, paper, study
from bench.studies.conducting import add_growth
from bench.studies.paper import FRAMEWORKS, VISION
from bench.studies.study import PRECISIONS

DEVICE = """
Measured on this machine. For the Jetson AGX Orin:
  1. python -m bench.pack to_orin, and copy to_orin/bench and {place}/artifacts to it, into one
     folder;
  2. there, as docs/orin.md has it:
     python3 -m bench artifacts/* --runners=ort-cuda --precisions=fp32 --profile=full \\
         --out=results/orin.json
  3. copy results/orin.json into {place}/results and give this command again: only the report is
     made anew, with the Orin's columns in it."""


@ends(study.INTERRUPTED)
def main(arguments: list[str]) -> int:
    options, handed_on = _parser().parse_known_args(arguments)

    def plan() -> list[study.Step]:
        paper.check(options, handed_on)
        settings = paper.settings(options, handed_on)
        binding.same_study(options.workdir, settings, keep=not options.dry_run)
        return paper.steps(options, handed_on)

    print(conducting.conduct(options, plan))
    if "ours" in options.frameworks and not options.dry_run:
        print(DEVICE.format(place=options.workdir))
    return 0


def _parser() -> argparse.ArgumentParser:
    older = {"label": "", "framework": "frameworks", "vision": "visions"}
    made = parser("bench.paper", __doc__, older=older)
    add = made.add_argument
    add("label", type=Path, metavar="LABEL.csv", help="MMSA's")
    add("--raw_dir", type=Path, help="the clips, <video_id>/<clip_id>.mp4")
    add_growth(made)
    add("--dry_run", action="store_true", help="say what would be done, and stop")
    add("--workdir", type=Path, default=Path("paper"), help="where all of it goes (default paper)")
    add("--seeds", type=numbers(0), default=[0, 1, 2, 3, 4], help="default 0,1,2,3,4")
    add("--recipe", default="paper", help="how to train: paper (default) or best")
    add("--visions", type=some_of(VISION), default=list(VISION), help="default mobilenet,vit")
    add("--frameworks", type=some_of(FRAMEWORKS), default=["ours"], help="ours,pytorch (ours)")
    add("--blocks", type=numbers(1), default=[2, 6, 8], help="of table 3, beside 4 (2,6,8)")
    add("--config", type=Path, default=Path("configs/mosi.py"), help="default configs/mosi.py")
    add("--mobilenet", metavar="PRESET", help="or a directory; default: what the config has")
    add("--vit", metavar="PRESET", default="vit_base", help="or a directory (default vit_base)")
    add("--precisions", type=some_of(PRECISIONS), default=["fp16"], help="besides fp32 (fp16)")
    add("--profile", choices=PROFILES, default="quick", help="of the measurement (default quick)")
    add("--budget_ms", type=milliseconds, help="the latency that the report shall answer for")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
