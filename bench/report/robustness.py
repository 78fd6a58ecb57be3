"""The report's section on robustness: accuracy over damaged inputs, as
`python -m fusion_keras.robustness` measured it."""

from __future__ import annotations

from bench.report.charts import axes, coloured, plain
from bench.report.page import Chart, Table

FORMAT = "fusion_keras robustness 1"

NOTE = (
    "Inputs of one split, damaged more and more; intervals are 95 %, a bootstrap over groups "
    "of rows. Relative robustness is the area below the curve, strengths equally spaced from 0 to "
    "1; effective robustness the sum over the strengths of the accuracy minus that of the "
    "reference, moved to the same clean accuracy: above 0, less is lost than by the reference "
    "(MultiBench: Liang et al. 2021, arXiv 2107.07502)."
)
_LISTS = ("strengths", "levels", "accuracy", "low", "high", "drop", "drop_low", "drop_high")


def check(content: dict) -> None:
    """Touch all that is wanted later.

    Raises:
        KeyError, TypeError, ValueError: what lacks something, or was not measured to its end.
    """
    _ = _said(content), content["reference"] + ""
    if not content["curves"]:
        raise ValueError("it has no curves")
    for curve in content["curves"]:
        if len({len(curve[name]) for name in _LISTS}) != 1:
            raise ValueError(
                f"the lists of {curve['name']}, {curve['corruption']} differ in length"
            )
        _ = _row(curve), _traces(curve, 0)


def _said(content: dict) -> str:
    settings, rows = content["settings"], content["rows"]
    groups = f" in {rows['groups']} groups" if rows["groups"] else ""
    return (
        f"{settings['dataset']}, {settings['split']}: {rows['count']} rows{groups}, "
        f"draws of random damage: {settings['repeats']}; always {rows['majority'][0]} would be "
        f"right in {100 * rows['majority'][1]:.1f} %. Effective robustness is against "
        f"{content['reference']}."
    )


def parts(files: dict[str, dict]) -> list:
    """Paragraphs, a chart for each corruption and a table; path -> content."""
    parts: list = [NOTE] if files else []
    for path, content in files.items():
        parts.append(f"{path}: {_said(content)}")
        held: dict[str, list[dict]] = {}
        for curve in content["curves"]:
            held.setdefault(curve["corruption"], []).append(curve)
        parts += [_chart(name, curves, content) for name, curves in held.items()]
        parts.append(_table(content))
    return parts


def lead(files: dict[str, dict]) -> list[str]:
    """What the report says first where there is nothing else."""
    names = dict.fromkeys(curve["name"] for f in files.values() for curve in f["curves"])
    kinds = dict.fromkeys(curve["corruption"] for f in files.values() for curve in f["curves"])
    return [f"Robustness of {', '.join(names)} to {', '.join(kinds)}. No latency is given."]


def _chart(name: str, curves: list[dict], content: dict) -> Chart:
    traces = [trace for i, curve in enumerate(curves) for trace in _traces(curve, i)]
    layout = axes("", "accuracy, %") | {"height": 360}
    layout["xaxis"] |= {"type": "category"}
    share = 100 * content["rows"]["majority"][1]
    line = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": share, "y1": share}
    layout["shapes"] = [{**line, "line": {"color": "#888", "width": 1, "dash": "dot"}}]
    dataset = content["settings"]["dataset"]
    return Chart(f"{name}, {dataset}", traces, layout)


def _traces(curve: dict, number: int) -> list[dict]:
    """The band, if there is one, and the curve."""
    colour, faint = coloured(number)
    x = [plain(level) for level in curve["levels"]]
    edge = {"mode": "lines", "x": x, "line": {"width": 0, "color": colour}}
    edge |= {"hoverinfo": "skip", "showlegend": False, "legendgroup": curve["name"]}
    band = []
    if None not in (*curve["low"], *curve["high"]):
        low, high = ([100 * value for value in curve[end]] for end in ("low", "high"))
        band = [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": faint}]
    return [
        *band,
        {
            "name": plain(curve["name"]),
            "legendgroup": curve["name"],
            "mode": "lines+markers",
            "x": x,
            "y": [100 * value for value in curve["accuracy"]],
            "line": {"color": colour},
            "text": [_hover(curve, i) for i in range(len(x))],
            "hovertemplate": "%{text}<extra></extra>",
        },
    ]


def _hover(curve: dict, i: int) -> str:
    lines = [curve["name"], f"{curve['corruption']} {curve['levels'][i]}"]
    lines.append(f"accuracy {_interval(*(curve[n][i] for n in ('accuracy', 'low', 'high')))} %")
    drop = _interval(*(curve[n][i] for n in ("drop", "drop_low", "drop_high")))
    return "<br>".join(plain(line) for line in [*lines, f"{drop} points below clean"])


def _table(content: dict) -> Table:
    heads = ["model", "seeds", "corruption", "clean, %", "strongest", "accuracy there, %"]
    heads += ["clean minus it, points", "relative", "effective"]
    rows = [_row(curve) for curve in content["curves"]]
    return Table(f"Robustness, {content['settings']['dataset']}", heads, rows)


def _row(curve: dict) -> list[str]:
    def last(*names):
        return _interval(*(curve[name][-1] for name in names))

    return [
        curve["name"],
        ", ".join(map(str, curve["seeds"])),
        curve["corruption"],
        _interval(*(curve[name][0] for name in ("accuracy", "low", "high"))),
        curve["levels"][-1],
        last("accuracy", "low", "high"),
        last("drop", "drop_low", "drop_high"),
        f"{curve['relative']:.3f}",
        f"{curve['effective']:+.3f}",
    ]


def _interval(value: float, low: float | None, high: float | None) -> str:
    around = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{around}"
