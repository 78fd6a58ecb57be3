"""Can this machine tell 10 % apart? `python -m bench.repeatability ARTIFACT`.

Measures an artifact against itself, --times times each: as it is; with one of both slowed down by
--planted; and both again with a busy process started on one core half-way. A wrong verdict is
never fine. None is fine where it was disturbed, and in one of three cases where it was not: the
first must come out as the same and the second as slower. With the defaults twelve measurements
of two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.edge import artifact, files, flags, repeatability
from bench.edge.entry import Progress, ends
from bench.edge.method import PROFILES, Contender, Method, check


@ends()
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    meta = artifact.read(options.artifact)
    plain = Contender("as it is", options.artifact, meta, options.precision)
    check(plain)
    print(f"{'':28} ratio  interval          verdict", flush=True)
    ratios = []
    for name, ratio in repeatability.repeated(
        plain,
        Method(options.profile),
        options.out,
        times=options.times,
        planted=options.planted,
        say=Progress(),
    ):
        ratios.append(ratio)
        _print(name, ratio)
    wrong = sum(repeatability.wrong(ratio["verdict"], ratio["planted"]) for ratio in ratios)
    alike, slowed = (repeatability.verdicts(ratios, planted) for planted in (False, True))
    print(
        f"undisturbed, a verdict in {alike} of {options.times} alike and {slowed} of "
        f"{options.times} slowed; wrong ones in all: {wrong}"
    )
    files.write(options.out / "summary.json", json.dumps(ratios, indent=1) + "\n")
    print(f"Samples: {options.out}\nNext: measure what you came for, python -m bench ARTIFACT ...")
    return 1 if wrong or 3 * min(alike, slowed) < 2 * options.times else 0


def _print(name: str, ratio: dict) -> None:
    interval = f"[{ratio['low']:.3f}, {ratio['high']:.3f}]" if ratio["low"] else ""
    moody = "" if ratio["steady"] else "; the machine changed its speed"
    print(f"{name:28} {ratio['ratio']:.3f}  {interval:16}  {ratio['verdict']}{moody}", flush=True)


def _planted(text: str) -> float:
    value = flags.share(text)
    if value < 0.06:
        raise argparse.ArgumentTypeError("below 0.06 it is too near to the 3 % that are the same")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("bench.repeatability", __doc__)
    add = parser.add_argument
    add("artifact", type=Path, help="what `python -m export` wrote")
    add("--precision", default="fp32", help="default: fp32")
    add("--profile", choices=PROFILES, default="full", help="default: full")
    add("--times", type=flags.positive, default=3, help="of each (default 3)")
    add("--planted", type=_planted, default=0.1, help="slower by this share (default 0.1)")
    add("--out", type=Path, default=Path("results/repeatability"), help="folder of the samples")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
