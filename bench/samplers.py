"""Which sampler of a search finds the better front? Searches over a table, of many seeds.

    python -m fusion_keras.search --space=s.py --trials=1000 --finalists=0 --config.train.epochs=1
    python -m bench.samplers runs/search --space=s.py

The table is an ordinary search that has gone on until its space had no other points: a space of
some 200 models of a minute each. With one epoch no trial is stopped at a rung. Each sampler then
searches that space anew, its trials looked up, and so does `random`, with the same seeds; the named
variants are there from the beginning, as in every search. A front's hypervolume is given as a share
of the whole table's, and compared seed by seed after as many trials, and after as many seconds as
both have had. What a sampler itself thinks is not counted. For a workstation: this needs
fusion_keras[search] and the repository's root.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from bench.edge import files, flags
from bench.edge.entry import Progress, ends
from bench.edge.errors import BenchError
from bench.report.front import interval

_AGAINST = "random"
_SAMPLERS = ("tpe", "nsga2", "gp")


@ends("Interrupted. Nothing was written.", install="pip install -e '.[search,export,bench,cpu]'")
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    from fusion_keras import cli
    from fusion_keras.errors import UsageError

    with cli.quiet_native_logs():
        from fusion_keras.searching import tables  # with optuna, which takes a while
    try:
        return _compared(tables, options)
    except UsageError as error:
        raise BenchError(str(error)) from None


def _compared(tables, options) -> int:
    known = tables.table(options.search, options.space, options.budget_ms)
    print(f"{len(known.models)} models in {options.search}", flush=True)
    if known.stopped:
        print(f"note: {known.stopped} of them were stopped at a rung, and count as never found")
    if known.named:
        names = ", ".join(model.named for model in known.named)
        print(f"{names} alone: {_percent(known.share(known.named))} of what there is to be found")
    say, found = Progress(), {}
    for name in dict.fromkeys([_AGAINST, *options.samplers]):
        found[name] = []
        for seed in range(options.seeds):
            say(f"{name}: seed {seed + 1} of {options.seeds}")
            found[name].append(tables.searched(known, name, seed, options.trials))
    _print(found, options.trials)
    if options.out:
        content = {n: [dataclasses.asdict(one) for one in of_one] for n, of_one in found.items()}
        files.write(options.out, json.dumps(content, indent=1, default=np.ndarray.tolist) + "\n")
        print(f"Every search: {options.out}")
    return 0


def _print(found: dict[str, list], trials: int) -> None:
    counts = sorted({max(1, trials // 4), max(1, trials // 2), trials})
    heads = [f"after {count}" for count in counts]
    print(f"\n{'':8} {''.join(f'{head:>27}' for head in heads)}{'minutes':>10}")
    for name, searches in found.items():
        cells = []
        for count in counts:
            shares = _after(count, searches)
            low, middle, high = np.quantile(shares, (0.25, 0.5, 0.75))
            cells.append(f"{_percent(middle)} [{_percent(low)}, {_percent(high)}]")
        minutes = np.median([one.seconds[-1] for one in searches]) / 60
        print(f"{name:8} {''.join(f'{cell:>27}' for cell in cells)}{minutes:10.1f}")
    print("(share of the whole table's hypervolume: median and quartiles of the seeds)\n")
    for name in (n for n in found if n != _AGAINST):
        for count in counts:
            more = _after(count, found[name]) - _after(count, found[_AGAINST])
            print(f"{name} - {_AGAINST} after {count} trials: {_mean(more)}")
        pairs = list(zip(found[name], found[_AGAINST], strict=True))
        by_trials = _above([(ours.shares[-1], theirs.shares[-1]) for ours, theirs in pairs])
        both = [min(ours.seconds[-1], theirs.seconds[-1]) for ours, theirs in pairs]
        timed = [(o.at(end), t.at(end)) for (o, t), end in zip(pairs, both, strict=True)]
        print(
            f"{name} against {_AGAINST}, seed by seed: above it in {by_trials} after as many "
            f"trials, in {_above(timed)} after as many seconds"
        )
        if any(one.start for one in found[name]):
            named = _above([(one.shares[-1], one.start) for one in found[name]])
            print(f"{name} above the named variants alone in {named}")
    unknown = sum(one.unknown for searches in found.values() for one in searches)
    if unknown:
        print(f"note: {unknown} proposals were of models that the table lacks, and found nothing")


def _after(trials: int, searches: list) -> np.ndarray:
    """Share of each search, [seeds]."""
    return np.array([one.shares[min(trials, len(one.shares)) - 1] for one in searches])


def _mean(more: np.ndarray) -> str:
    """Of differences seed by seed, with what other seeds might have given."""
    found = interval(more[None], None)
    low, high = 100 * found.low, 100 * found.high
    return f"{100 * found.mean:+.1f} points [{low:+.1f}, {high:+.1f}] on average, 95 % by seed"


def _above(pairs: list[tuple[float, float]]) -> str:
    """How often the first is larger, of those that differ."""
    differ = [ours > theirs for ours, theirs in pairs if ours != theirs]
    same = len(pairs) - len(differ)
    return f"{sum(differ)} of {len(pairs)}" + (f" ({same} the same)" if same else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("bench.samplers", __doc__)
    add = parser.add_argument
    add("search", type=Path, metavar="DIR", help="the --workdir of a search that is done")
    add("--space", default="", help="the file that the search was given; left out, none was")
    add("--budget_ms", type=flags.milliseconds, help="of these searches (default: the table's)")
    add("--samplers", type=flags.some_of(_SAMPLERS), default=["tpe"], help="default: tpe")
    add("--seeds", type=flags.positive, default=20, help="searches of each (default 20)")
    add("--trials", type=flags.positive, default=40, help="of each search (default 40)")
    add("--out", type=flags.file, help="a .json file of every search")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
