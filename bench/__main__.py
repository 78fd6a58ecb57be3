"""Measure how long exported models take: `python -m bench ARTIFACT [ARTIFACT ...]`.

Every ARTIFACT at every precision on every runner, and for every one of --batches, --threads,
--inputs and --hz, is a contender. Each runs in a process of its own, is checked against the
artifact's golden outputs, warmed up, and then timed in rounds: all contenders take turns, in an
order drawn anew for each round. So a machine that slows down slows all of them, and ratios hold.

Profiles: quick (64 queries and 3 s each), full (1024 and 60 s), mlperf (1024 and 600 s; its rules
for a single stream, which alone make no MLPerf result). Name an artifact twice to see how far
two measurements of the same thing lie apart here.

On another machine, from this one, by OpenSSH with your own keys:

    python -m bench ARTIFACT --device=ssh://USER@HOST[:PORT][/DIR]

copies what the bench needs and the artifacts to DIR there (in the home folder, default
fusion_keras_bench; //DIR is from the root), only what changed, runs the same command there with
the Python of DIR/.venv or python3, and brings the results back. If the connection is lost, the
measurement goes on there: the same command finds it again. Ctrl-C ends it there, too.
--device=ssh://A,ssh://B --out=OUT.json measures on several at the same time, each in its own file,
OUT-A.json and OUT-B.json: no ratio is of two machines.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from bench.edge import elsewhere, flags, results
from bench.edge.contenders import contenders
from bench.edge.entry import Progress, ends, tell
from bench.edge.errors import BenchError
from bench.edge.measure import measure
from bench.edge.method import PROFILES, Contender, Method
from bench.edge.runners import engines

VERDICTS = {
    "faster": "is faster than",
    "slower": "is slower than",
    "same": "takes as long as",
    "unclear": "too noisy to tell from",
}


@ends()
def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    wanted = _contenders(options)
    target = options.out or results.dated()
    there = elsewhere.Wanted("bench", "measurement", options.runners, options.artifacts)
    if options.device and "," in options.device:
        if not options.out:
            raise BenchError(
                "Several devices want --out=OUT.json, for OUT-<device>.json of each: give it."
            )
        if options.json:
            raise BenchError("--json is of one measurement, --device names several: leave one out.")
        return elsewhere.remote("several").measure(there, options, wanted, target)
    if target.exists() and not options.replace:
        raise BenchError(f"{target} is there: give --out another name, or --replace it.")
    if options.device:
        return elsewhere.run(dataclasses.replace(there, writes={"out": target}), options)
    method = Method(
        options.profile, options.seed, options.margin, options.confidence, options.timeout
    )
    _announce(wanted, method)
    try:
        measured = measure(wanted, method, target, say=Progress())
    except KeyboardInterrupt:
        kept = f" What was measured is kept in {target}." if target.exists() else ""
        raise KeyboardInterrupt(f"Interrupted.{kept}") from None
    if options.json:
        print(json.dumps(_summary(measured, target)))
    else:
        _print(measured)
        print(f"Results: {target}")
        if any(c["latency"]["count"] for c in measured["contenders"]):
            print(f"Next: see them with\n  python -m bench.report {target}")
    return 0 if all(c["complete"] for c in measured["contenders"]) else 1


def _parser() -> argparse.ArgumentParser:
    older = {"precision": "precisions", "runner": "runners", "batch": "batches"}
    parser = flags.parser("bench", __doc__, json="what was measured", older=older)
    add = parser.add_argument
    add("artifacts", nargs="+", type=Path, metavar="ARTIFACT", help="what `python -m export` wrote")
    add(
        "--precisions", type=flags.words, default=["fp32"], help="fp32,fp16,int8,int8_static or all"
    )
    add(
        "--runners",
        type=flags.words,
        default=["ort"],
        help=", ".join(engines.RUNNERS) + " (default ort)",
    )
    add("--profile", choices=PROFILES, default="quick", help="default: quick")
    add("--batches", type=flags.numbers(1), default=[1], help="examples a query: 1,8 (default 1)")
    add("--threads", type=flags.numbers(0), default=[0], help="0 (default) leaves it to the engine")
    add(
        "--inputs",
        type=flags.words,
        default=["data"],
        help="data (default): the data set's own sentence lengths; padded: all of the greatest",
    )
    add(
        "--hz",
        type=flags.rates,
        default=[0.0],
        help="queries a second that arrive; 0: back to back",
    )
    elsewhere.add_flags(parser)
    add("--run", type=Path, help="the run, for keras, torch and torch-compiled")
    add("--allow_fallback", action="store_true", help="let an engine leave operators to another")
    add("--out", type=flags.file, help="file of results (default: results/<now>.json)")
    add("--replace", action="store_true", help="replace the file of results that is there")
    add("--margin", type=flags.share, default=0.03, help="what counts as the same (default 0.03)")
    add(
        "--confidence",
        type=flags.share,
        default=0.99,
        help="of the ratios' intervals (default 0.99)",
    )
    add("--seed", type=int, default=0, help="of the order within rounds, and of the inputs")
    add(
        "--timeout",
        type=flags.seconds,
        default=600.0,
        help="seconds of silence that end a contender",
    )
    add("--slow_by", type=flags.share, help=argparse.SUPPRESS)
    return parser


def _contenders(options) -> list[Contender]:
    """What was asked for.

    Raises:
        ArtifactError: something of it cannot be measured.
    """
    found = contenders(
        options.artifacts,
        precisions=options.precisions,
        runners=options.runners,
        batches=options.batches,
        threads=options.threads,
        inputs=options.inputs,
        rates=options.hz,
        run=options.run,
        allow_fallback=options.allow_fallback,
    )
    if options.slow_by:  # a check of the method: the last one gets a delay
        found[-1] = dataclasses.replace(found[-1], slow_by=options.slow_by)
    return found


def _announce(contenders: list[Contender], method: Method) -> None:
    amount = method.amount
    count = len(contenders)
    tell(
        f"{count} contender{'s' * (count > 1)}, profile {method.profile}: each at least "
        f"{amount.queries} queries and {amount.seconds:g} s; at least "
        f"{amount.seconds * count / 60:.1f} minutes in all, and their warm-ups"
    )
    if slow := sum(c.precision == "int8_static" and c.runner == "ort" for c in contenders):
        note = (
            f"note: {slow} of them int8_static on ort, whose CPU code fuses none of it: several "
            "times float32's time; it is for --runners=openvino and TensorRT, and int8 is for ort"
        )
        print(note, file=sys.stderr, flush=True)


def _print(measured: dict) -> None:
    contenders = measured["contenders"]
    width = max(len(c["name"]) for c in contenders)
    print(f"{'':{width}}  {'p50':>9} {'p90':>9} {'min':>9}  ms   queries  first   load    memory")
    for c in contenders:
        print(f"{c['name']:{width}}  {_row(c)}")
    print("p90 as MLPerf's early stopping estimates it; first inference and load in s")
    # Of many contenders, against the first alone; the file and the report have all pairs.
    shown = [r for r in measured["ratios"] if len(contenders) <= 3 or r["first"] == 0]
    for ratio in shown:
        first, second = (contenders[ratio[which]]["name"] for which in ("first", "second"))
        if ratio["low"] is not None:
            print(
                f"{first} {VERDICTS[ratio['verdict']]} {second}: {ratio['ratio']:.3f} of its time, "
                f"{100 * ratio['confidence']:g} % [{ratio['low']:.3f}, {ratio['high']:.3f}]"
            )
    for note in _notes(measured):
        print(f"note: {note}")


def _summary(measured: dict, target: Path) -> dict:
    """What `_print` shows, times in milliseconds; the file of results has the samples, too."""
    names = [c["name"] for c in measured["contenders"]]
    kept = ("name", "precision", "runner", "batch", "latency", "seconds", "peak_bytes")
    kept += ("complete", "error")
    return {
        "results": str(target),
        "contenders": [{name: c[name] for name in kept} for c in measured["contenders"]],
        "ratios": [
            {**ratio, "first": names[ratio["first"]], "second": names[ratio["second"]]}
            for ratio in measured["ratios"]
        ],
        "notes": _notes(measured),
    }


def _notes(measured: dict) -> list[str]:
    """What speaks against the figures."""
    found = []
    if measured["moment"]["before"]["busy"]:
        found.append(f"as it began: {measured['moment']['before']['busy']}")
    if not measured["machine_speed"]["steady"]:
        found.append(measured["machine_speed"]["sentence"])
    return found + [said for c in measured["contenders"] if (said := results.outpaced(c))]


def _row(c: dict) -> str:
    if c["latency"]["count"] == 0:
        return f"not measured: {c['error']}"
    times = [c["latency"][n] for n in ("p50", "p90", "min")]
    cells = [f"{'-':>9}" if t is None else f"{t:9.2f}" for t in times]
    seconds, peak = c["seconds"], c["peak_bytes"]
    memory = f"{peak / 1e6:6.0f} MB" if peak else ""
    said = f"{seconds['first_inference']:6.3f} {seconds['load']:6.2f}  {memory}"
    failed = f"  {c['error']}" if c["error"] else ""
    return f"{' '.join(cells)}     {c['latency']['count']:8} {said}{failed}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
