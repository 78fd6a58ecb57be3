"""The report's charts, drawn in the browser by plotly.js."""

from __future__ import annotations

import html

from bench.report.front import Point, at, axis_of, grouped, majority, pareto
from bench.report.page import Chart, milliseconds, percent, seeds_of

# Okabe and Ito, "Color Universal Design" (jfly.uni-koeln.de/color): told apart by all eyes;
# without its yellow and black, which one of the two backgrounds would swallow.
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]
_SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star"]
_GREY, _RIM = "#888", "#555"


def front_chart(points: list[Point], title: str, budget: float) -> Chart:
    """Accuracy against latency, with error bars on both axes and the Pareto front."""
    axis = axis_of(points)
    points = [point for point in points if at(point, axis)]
    line = pareto(points, axis)
    traces = [
        {
            "name": "Pareto front (estimate)" if points[0].estimate else "Pareto front",
            "mode": "lines",
            "x": [at(point, axis)[0] for point in line],
            "y": [100 * point.accuracy.mean for point in line],
            "line": {"shape": "hv", "color": _GREY, "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
        }
    ]
    # A taught model has the colour of the same one untaught, and a rim and a dot in its mark.
    variants = list(dict.fromkeys(_untaught(p.model.artifact["variant"]) for p in points))
    precisions = list(dict.fromkeys(p.precision for p in points))
    for (variant, precision), some in grouped(
        points, lambda p: (p.model.artifact["variant"], p.precision)
    ).items():
        colour = _COLOURS[variants.index(_untaught(variant)) % len(_COLOURS)]
        symbol = _SYMBOLS[precisions.index(precision) % len(_SYMBOLS)]
        symbol += "-open" if some[0].estimate else ""
        symbol += "-dot" if variant != _untaught(variant) else ""
        traces.append(_marks(some, axis, f"{variant} {precision}", colour, symbol))
    _, share = majority(points[0].model.artifact)
    shapes = [
        _line(x0=0, x1=1, xref="paper", y0=100 * share, y1=100 * share, text="most frequent class"),
        _line(x0=budget, x1=budget, y0=0, y1=1, yref="paper", text=f"budget {budget:g} ms"),
    ]
    said = "estimate" if points[0].estimate else f"{axis} latency"
    shapes[1]["label"] |= {"textangle": 0, "xanchor": "right"}
    layout = {**axes(f"{said}, ms", "test accuracy, %"), "shapes": shapes}
    layout["xaxis"]["rangemode"] = "tozero"
    return Chart(title, traces, layout)


def _untaught(variant: str) -> str:
    return variant.removesuffix(" taught")


def _marks(points: list[Point], axis: str, name: str, colour: str, symbol: str) -> dict:
    hollow = points[0].estimate
    x = [at(point, axis) for point in points]
    y = [(p.accuracy.mean, p.accuracy.low, p.accuracy.high) for p in points]
    return {
        "name": plain(name + (" (estimate)" if hollow else "")),
        "mode": "markers",
        "x": [value for value, _, _ in x],
        "y": [100 * value for value, _, _ in y],
        "error_x": _bars(x, 1),
        "error_y": _bars(y, 100),
        "marker": {
            "color": colour,
            "symbol": symbol,
            "size": 11,
            "line": {"color": _RIM, "width": 2 * symbol.endswith("-dot")},
        },
        "text": [_hover(point) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _bars(values: list[tuple], scale: float) -> dict:
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * (high - value) for value, _, high in values],
        "arrayminus": [scale * (value - low) for value, low, _ in values],
        "thickness": 1,
        "width": 3,
    }


def _hover(point: Point) -> str:
    lines = [point.name, f"variant {point.model.artifact['variant']}, {point.precision}"]
    lines += [point.model.backbones, f"runner {point.runner}"]
    if point.estimate:
        lines.append(f"estimate, nothing measured: {milliseconds(at(point, 'p50'))} ms")
    else:
        lines += [f"{p} {milliseconds(at(point, p)) or 'not known'} ms" for p in ("p50", "p90")]
        lines.append(f"{point.latency.get('count')} samples")
    lines.append(f"accuracy {percent(point.accuracy)} %, seeds {seeds_of(point)}")
    return "<br>".join(plain(line) for line in lines)


def sweep_chart(points: list[Point], title: str, by: str) -> Chart | None:
    """p50 latency and throughput against `by` ("batch" or "threads"); None if that never differs.

    points: of one machine.
    """

    def rest(point):
        ways = (point.batch, point.threads, point.precision, point.runner, point.hz)
        where = 0 if by == "batch" else 1
        same = [way for i, way in enumerate(ways) if i != where]
        return (id(point.model), str(point.inputs), *same)

    measured = [
        p for p in points if not (p.estimate or p.is_paced) and getattr(p, by) and at(p, "p50")
    ]
    traces = []
    for some in grouped(measured, rest).values():
        if len({getattr(point, by) for point in some}) > 1:
            traces += _swept(some, by, _COLOURS[len(traces) // 2 % len(_COLOURS)])
    if not traces:
        return None
    layout = axes(by, "p50 latency, ms")
    layout["yaxis"]["rangemode"] = "tozero"
    right = {"overlaying": "y", "side": "right", "rangemode": "tozero", "showgrid": False}
    layout["yaxis2"] = {"title": {"text": "examples per second (dashed)"}, **right}
    layout["xaxis"] |= {"type": "log", "tickvals": sorted({x for t in traces for x in t["x"]})}
    return Chart(f"Latency and throughput against {by}, {title}", traces, layout)


def _swept(points: list[Point], by: str, colour: str) -> list[dict]:
    """The two lines of one model: milliseconds, and examples per second."""
    points = sorted(points, key=lambda point: getattr(point, by))
    y = [at(point, "p50") for point in points]
    rates = [1000 * (point.batch or 1) / point.latency["mean"] for point in points]
    model = points[0].model
    name = plain(f"{model.artifact['variant']} {model.precision}, {model.backbones}")
    line = {"mode": "lines+markers", "x": [getattr(point, by) for point in points]}
    solid, dashed = {"color": colour}, {"color": colour, "dash": "dash"}
    return [
        {**line, "line": solid, "name": f"{name}, ms"}
        | {"y": [value for value, _, _ in y], "error_y": _bars(y, 1)},
        {**line, "line": dashed, "name": f"{name}, per second", "y": rates, "yaxis": "y2"},
    ]


def stage_chart(points: list[Point], title: str) -> Chart:
    """p50 of tokens, image and inference, one bar a contender."""
    names = [plain(point.name) for point in points]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": stage,
            "y": names,
            "x": [((p.contender["stages"].get(stage)) or {}).get("p50") for p in points],
            "marker": {"color": colour},
            "hovertemplate": f"{stage} %{{x:.3g}} ms<extra></extra>",
        }
        for stage, colour in zip(("tokens", "image", "inference", "sound"), _COLOURS, strict=False)
    ]
    layout = axes("p50, ms", "")
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True}
    return Chart(title, traces, {**layout, "barmode": "stack", "height": 220 + 36 * len(points)})


def axes(x: str, y: str) -> dict:
    """A layout with two titles."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _line(text: str, **ends) -> dict:
    label = {"text": plain(text), "textposition": "end", "font": {"size": 11, "color": _GREY}}
    return {"type": "line", "line": {"color": _GREY, "width": 1}, "label": label, **ends}


def coloured(number: int) -> tuple[str, str]:
    """The colour of a curve, and a faint one for its band."""
    colour = _COLOURS[number % len(_COLOURS)]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return colour, f"rgba({red},{green},{blue},0.13)"


def plain(text: str) -> str:
    """Text for plotly, which takes tags and entities in it for markup."""
    return html.escape(str(text), quote=False)
