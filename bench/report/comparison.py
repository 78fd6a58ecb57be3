"""The paper's tables 2 to 5 in one: published, by the PyTorch reference, by us.

From run directories (`bench.report.runs`), measurements and artifacts; a cell that no file fills
is empty. CMU-MOSI has all its rows as soon as one was run; any other data set has tables of its
own, without published numbers.
"""

from __future__ import annotations

import math

import numpy as np

from bench.report import published
from bench.report.agreement import BLOCKS, MOSI, ROWS, Row, dataset_of, missed
from bench.report.front import Interval, Point, at, difference
from bench.report.page import Table, milliseconds, percent
from bench.report.runs import OURS, PYTORCH, Family, linked

NOTE = (
    "Accuracy: mean over the seeds ± their standard deviation. Intervals are 95 %: a percentile "
    "bootstrap that draws groups of test rows (the videos of CMU-MOSI) and seeds anew; with one "
    "seed nothing of the spread between trainings is in it. Ours - PyTorch is paired by seed and "
    "by test row; 'equivalent within' is the smallest margin that holds its whole interval, or, "
    "where both answer every row alike, 3 / the number of groups (the rule of three: Hanley and "
    "Lippman-Hand 1983)."
)
COSTS = (
    "Parameters: all that the trained model stores. MACs: of one example at its full length, "
    "counted on the exported graph. Training: mean over the seeds of the seconds of all epochs, "
    "validation not counted, + those of parents trained within the run, on the machine that "
    "trained. p50: batch 1, one query after the other."
)

Line = tuple[str, "Row | None", dict[str, Family]]


def parts(
    pairs: list[dict[str, Family]],
    points: list[Point],
    artifacts: list[dict],
    machines: dict[str, str],
) -> list:
    """Paragraphs and tables of the report's section, CMU-MOSI first.

    Args:
        pairs: as `bench.report.runs.paired` has them.
        points: whatever was timed; batch 1, one query after the other, no estimates.
        artifacts: as `bench.report.gather.Inputs` has them.
        machines: `Point.machine` -> what a column calls it.
    """
    timed = [p for p in points if not p.estimate and p.batch == 1 and not p.hz]
    held: dict[str, list[dict[str, Family]]] = {}
    for pair in pairs:
        held.setdefault(dataset_of(_any(pair).model), []).append(pair)
    parts: list = [NOTE, COSTS]
    for dataset, some in sorted(held.items(), key=lambda item: item[0] != MOSI):
        lines = _lines(some, empty=dataset == MOSI)
        parts.append(_accuracy_table(dataset, lines))
        parts.append(_cost_table(dataset, lines, timed, artifacts, machines))
    return parts


def _any(pair: dict[str, Family]) -> Family:
    return pair.get(OURS) or next(iter(pair.values()))


def _lines(pairs: list[dict[str, Family]], empty: bool) -> list[Line]:
    """The rows in the paper's order and what belongs to each, then what the paper has not."""
    lines: list[Line] = []
    left = list(pairs)
    for row in ROWS:
        mine = [pair for pair in left if row.takes(_any(pair).model)]
        left = [pair for pair in left if pair not in mine]
        lines += [(row.name, row, pair) for pair in mine or ([{}] if empty else [])]
    return lines + [(_other(_any(pair)), None, pair) for pair in left]


def _other(family: Family) -> str:
    """What is called a model that the paper has not."""
    blocks = published.attention_blocks(family.model)
    return family.model.artifact["variant"] + (f", {blocks} blocks" if blocks else "")


def _accuracy_table(dataset: str, lines: list[Line]) -> Table:
    heads = ["model", "backbones", "recipe", "test rows"]
    heads += [f"{published.ACCURACY}, tables 2 and 3, %"] if dataset == MOSI else []
    heads += ["PyTorch, %", "ours, %", "ours, 95 % interval"]
    heads += ["published within it"] if dataset == MOSI else []
    heads += ["ours - PyTorch, points", "equivalent within, points"]
    cells = []
    for name, row, pair in lines:
        ours = pair[OURS].model.accuracy if OURS in pair else None
        line = [name, *_known(pair)]
        line += [(row and row.accuracy) or ""] if dataset == MOSI else []
        line += [_spread(pair, PYTORCH), _spread(pair, OURS)]
        line.append(f"[{100 * ours.low:.1f}, {100 * ours.high:.1f}]" if ours else "")
        line += [_within(row, ours)] if dataset == MOSI else []
        cells.append([*line, *_against(pair)])
    by = "as published, by PyTorch and by us" if dataset == MOSI else "by PyTorch and by us"
    return Table(f"{dataset}: accuracy {by}", heads, cells)


def _within(row: Row | None, ours: Interval | None) -> str:
    if row is None or row.accuracy is None or ours is None:
        return ""
    away = missed(row, ours)
    return f"no, {away}" if away else "yes"


def _known(pair: dict[str, Family]) -> list[str]:
    """Backbones, recipe and number of test rows of what stands in a row."""
    if not pair:
        return [""] * 3
    family = _any(pair)
    rows = str(len(family.runs[0].correct))
    return [family.model.backbones, family.runs[0].recipe, rows]


def _spread(pair: dict[str, Family], framework: str) -> str:
    return spread(pair[framework]) if framework in pair else ""


def spread(family: Family) -> str:
    """Accuracy over the seeds: `84.2 ± 0.6 (3 seeds)`."""
    shares = [100 * run.correct.mean() for run in family.runs]
    around = f" ± {np.std(shares, ddof=1):.1f}" if len(shares) > 1 else ""
    return f"{np.mean(shares):.1f}{around} ({len(shares)} seed{'s' * (len(shares) > 1)})"


def _against(pair: dict[str, Family]) -> list[str]:
    """The paired difference, and the margin that holds its interval, rounded up."""
    if not {OURS, PYTORCH} <= pair.keys():
        return ["", ""]
    first, second = pair[OURS].model, pair[PYTORCH].model
    if not first.correct.keys() & second.correct.keys():
        return ["no seed in common", ""]
    gap = difference(first, second)
    margin = max(abs(gap.low), abs(gap.high))
    return [percent(gap, "+"), f"{math.ceil(1000 * margin - 1e-9) / 10:.1f}"]


def _cost_table(dataset: str, lines: list[Line], timed, artifacts, machines) -> Table:
    keys = [linked(_any(pair).model.artifact) if pair else None for _, _, pair in lines]
    within = [p for p in timed if linked(p.model.artifact) in keys]
    ways = list(dict.fromkeys(map(_way, within)))
    heads = ["model", "backbones"]
    heads += [f"{published.RUNTIME}, ms", f"{published.TENSORRT}, ms"] if dataset == MOSI else []
    heads += ["parameters, million", "MACs, million", "training, PyTorch, s", "training, ours, s"]
    heads += [f"p50, ms: {_said(way, machines)}" for way in ways]
    cells = []
    for (name, row, pair), key in zip(lines, keys, strict=True):
        mine = [p for p in within if linked(p.model.artifact) == key]
        line = [name, _known(pair)[0], *(_latencies(row) if dataset == MOSI else [])]
        line += [_parameters(pair), _macs(key, artifacts)]
        line += [_seconds(pair, framework) for framework in (PYTORCH, OURS)]
        for way in ways:
            values = [at(p, "p50") for p in mine if _way(p) == way]
            line.append("; ".join(milliseconds(value) for value in values if value))
        cells.append(line)
    return Table(f"{dataset}: what it costs", heads, cells)


def _way(point: Point) -> tuple:
    return (point.runner, point.precision, point.threads, point.machine)


def _said(way: tuple, machines: dict[str, str]) -> str:
    runner, precision, threads, machine = way
    many = f"{threads} threads, " if threads else ""
    return f"{runner}, {precision}, {many}{machines[machine]}"


def _latencies(row: Row | None) -> list[str]:
    """Tables 4 and 5 of a row: ONNX Runtime, which the paper has for MobileNetV2, and TensorRT."""
    if row is None or row.blocks not in (None, BLOCKS):
        return ["", ""]
    runtime = "" if row.vit else published.TABLE_4.get(row.paper)
    tensorrt = published.TABLE_5.get(row.paper, ("", ""))[bool(row.vit)]
    return [runtime or "", tensorrt or ""]


def _parameters(pair: dict[str, Family]) -> str:
    parameters = _any(pair).runs[0].parameters if pair else None
    return f"{parameters / 1e6:.2f}" if parameters else ""


def _macs(key: tuple | None, artifacts: list[dict]) -> str:
    macs = next((a["macs"] for a in artifacts if a.get("macs") and linked(a) == key), None)
    return f"{macs / 1e6:,.1f}" if macs else ""


def _seconds(pair: dict[str, Family], framework: str) -> str:
    if framework not in pair:
        return ""
    own, inside = zip(*(run.seconds for run in pair[framework].runs), strict=True)
    return " + ".join(_mean(some) for some in (own, inside) if any(s is not None for s in some))


def _mean(values) -> str:
    return f"{np.mean([value for value in values if value is not None]):.0f}"
