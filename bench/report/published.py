"""Published numbers, and what was measured in columns of their own beside them.

Source: Willis and Bakos 2025, "Exploring Fusion Strategies for Multimodal Vision-Language
Systems", arXiv 2511.21889, section 4. (M): fused with MobileNetV2 1.4; (V): with ViT-B/16.
Accuracies in percent, latencies in milliseconds, all as printed; the paper says neither which
percentile nor which precision.
"""

from __future__ import annotations

from collections.abc import Iterable

from bench.report.front import Model, Point, at
from bench.report.page import Table, milliseconds, percent

PAPER = "published (arXiv 2511.21889)"
ACCURACY = f"{PAPER}, CMU-MOSI"
# Sections 4.2.1: the device, ONNX Runtime without and with TensorRT.
RUNTIME = f"{PAPER}, Jetson AGX Orin, ONNX Runtime"
TENSORRT = f"{PAPER}, Jetson AGX Orin, TensorRT"

# The paper's name -> our variant and, of one modality, whether its image backbone is a ViT.
ROWS = {
    "MobileNetV2": ("image", False),
    "ViT": ("image", True),
    "BERT": ("text", None),
    "Late Fusion": ("late", None),
    "Inter. Fusion": ("inter", None),
    "Early Fusion": ("early", None),
}
TABLE_2 = {
    "MobileNetV2": ("43.22", None),
    "ViT": (None, "50.17"),
    "BERT": ("80.20", None),
    "Late Fusion": ("84.25", "83.62"),
    "Inter. Fusion": ("72.40", "69.90"),
    "Early Fusion": ("67.89", "66.59"),
}
TABLE_3 = {2: "62.37", 4: "67.89", 6: "61.38", 8: "69.09"}
TABLE_4 = {
    "Late Fusion": "21.6",
    "BERT": "18.6",
    "Inter. Fusion": "13.5",
    "Early Fusion": "11.4",
    "MobileNetV2": "3.0",
}
# The unimodal ones stand in the text below table 4.
TABLE_5 = {
    "Late Fusion": ("13.6909", "18.7897"),
    "Inter. Fusion": ("9.42474", "13.1855"),
    "Early Fusion": ("7.32538", "10.951"),
    "MobileNetV2": ("0.98", None),
    "ViT": (None, "6.23"),
}


def tables(models: Iterable[Model], points: Iterable[Point], machines: dict[str, str]) -> list:
    """The paper's tables 2 to 5, each a `bench.report.page.Table`.

    Args:
        models: whatever was scored; fp32 is shown.
        points: whatever was timed; batch 1, one query after the other, no estimates.
        machines: `Point.machine` -> what a column calls it.
    """
    scored = [m for m in dict.fromkeys(models) if m.precision == "fp32" and not takes_more(m)]
    timed = [p for p in points if not (p.estimate or p.hz or takes_more(p.model)) and p.batch == 1]
    tensorrt = [p for p in timed if by_tensorrt(p)]
    runtime = [p for p in timed if p.runner.startswith("ort") and p not in tensorrt]
    return [
        _accuracies(scored),
        _blocks(scored),
        _latencies(
            "Table 4: latency, ms, ONNX Runtime without TensorRT",
            [f"{RUNTIME}, (M)"],
            {name: (value,) for name, value in TABLE_4.items()},
            runtime,
            machines,
        ),
        _latencies(
            "Table 5: latency, ms, with TensorRT (the last two rows: its text)",
            [f"{TENSORRT}, (M)", f"{TENSORRT}, (V)"],
            TABLE_5,
            tensorrt,
            machines,
        ),
    ]


def takes_more(model: Model) -> bool:
    """Whether a model takes more than text and images, which no published one does."""
    return not model.artifact["backbones"].keys() <= {"text", "image"}


def _accuracies(models: list[Model]) -> Table:
    columns = _columns(models)
    heads = ["model", "our variant", f"{ACCURACY}, (M), %", f"{ACCURACY}, (V), %"]
    heads += [f"measured, {_head(column)}, fp32, %" for column in columns]
    rows = []
    for name, published in TABLE_2.items():
        cells = [_accuracy(m for m in models if _belongs(m, name, column)) for column in columns]
        rows.append([name, ROWS[name][0], *_printed(published), *cells])
    return Table("Table 2: accuracy", heads, rows)


def _blocks(models: list[Model]) -> Table:
    models = [model for model in models if attention_blocks(model)]
    columns = _columns(models)
    heads = ["attention blocks, early fusion", f"{ACCURACY}, (M), %"]
    heads += [f"measured, {_head(column)}, fp32, %" for column in columns]
    rows = [
        [str(blocks), published]
        + [
            _accuracy(m for m in models if attention_blocks(m) == blocks and _pair(m) == column)
            for column in columns
        ]
        for blocks, published in TABLE_3.items()
    ]
    return Table("Table 3: number of attention blocks", heads, rows)


def _latencies(title: str, published: list[str], numbers: dict, points, machines) -> Table:
    """Columns: machine, backbones, precision, runner and threads."""
    columns = []
    for column in _columns([p.model for p in points]):
        fused = None not in column[2:]
        within = [p for p in points if any(_belongs(p.model, name, column) for name in numbers)]
        ways = [_way(p) for p in within if not fused or _pair(p.model) == column]
        columns += [(column, way) for way in dict.fromkeys(ways)]
    heads = ["model", "our variant", *published]
    for column, (machine, *how, threads) in columns:
        said = ", ".join([machines[machine], _head(column), *how])
        heads.append(f"measured, {said}{f', {threads} threads' if threads else ''}, p50")
    rows = []
    for name, values in numbers.items():
        cells = []
        for column, way in columns:
            matching = [p for p in points if _way(p) == way and _belongs(p.model, name, column)]
            cells.append("; ".join(milliseconds(at(p, "p50")) for p in matching if at(p, "p50")))
        rows.append([name, ROWS[name][0], *_printed(values), *cells])
    return Table(title, heads, rows)


def attention_blocks(model: Model) -> int | None:
    """Blocks of an early fusion's one attention junction; None where that is not told."""
    junctions = (model.artifact.get("spec") or {}).get("junctions", [])
    early = model.artifact["variant"] == ROWS["Early Fusion"][0]
    if not early or len(junctions) != 1 or junctions[0].get("join") != "attention":
        return None
    return junctions[0].get("blocks")


def _way(point: Point) -> tuple:
    return (point.machine, point.precision, point.runner, point.threads)


def _pair(model: Model) -> tuple:
    artifact = model.artifact
    backbones = artifact["backbones"]
    test = artifact["test"]["ids"]
    return (artifact["dataset"], test, backbones.get("text"), backbones.get("image"))


def _columns(models: list[Model]) -> list[tuple]:
    """(data set, test rows, text backbone, image backbone) of all that was fused, in order.

    A single modality gets a column of its own only where no fused model has its backbone.
    """
    pairs = list(dict.fromkeys(_pair(model) for model in models))
    fused = [pair for pair in pairs if None not in pair[2:]]
    alone = [p for p in pairs if p not in fused and not any(_covers(f, p) for f in fused)]
    return fused + alone


def _covers(column: tuple, pair: tuple) -> bool:
    same = column[:2] == pair[:2]
    return same and all(b in (None, a) for a, b in zip(column[2:], pair[2:], strict=True))


def _belongs(model: Model, name: str, column: tuple) -> bool:
    variant, vit = ROWS[name]
    if model.artifact["variant"] != variant or not _covers(column, _pair(model)):
        return False
    return vit is None or vit == is_vit(_pair(model)[3])


def is_vit(preset: str | None) -> bool:
    """Whether an image preset, or the folder that it is, is a vision transformer by its name."""
    return "vit" in (preset or "").rstrip("/").rsplit("/", 1)[-1].lower()


def _head(column: tuple) -> str:
    dataset, _, *backbones = column
    return ", ".join([dataset, " + ".join(name for name in backbones if name)])


def _accuracy(models: Iterable[Model]) -> str:
    return "; ".join(percent(model.accuracy) for model in models)


def _printed(values: tuple) -> list[str]:
    return [value or "" for value in values]


def by_tensorrt(point: Point) -> bool:
    """Whether TensorRT ran it, by itself or within ONNX Runtime."""
    used = [point.runner, *(point.contender.get("providers") or [])]
    return any("tensorrt" in str(name).lower() for name in used)
