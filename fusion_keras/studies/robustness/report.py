"""Robustness curves as a table on the terminal, a CSV file and a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from fusion_keras import files

# Okabe and Ito, "Color Universal Design" (jfly.uni-koeln.de/color): told apart by all eyes.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"
_COLUMNS = 3
_PER_LEVEL = ("accuracy", "low", "high", "drop", "drop_low", "drop_high")


def write(content: dict, out: Path) -> None:
    """Write OUT.csv and OUT.png.

    Args:
        content: what `study.measure` returns.
        out: its JSON file.
    """
    files.write(out.with_suffix(".csv"), table_csv(content["curves"]).encode())
    picture = io.BytesIO()
    draw(content).savefig(picture, format="png", dpi=110)
    files.write(out.with_suffix(".png"), picture.getvalue())


def results(content: dict, out: Path) -> list[RenderableType]:
    """Tables of the curves, where the files are, and what to do next; takes what `write` does."""
    return [
        *(_table(corruption) for corruption in _by_corruption(content)),
        "Accuracy from clean to the strongest; last drop: clean minus that, 95 % interval; rel., "
        f"eff.: relative and effective robustness (MultiBench), against {content['reference']}.",
        f"Results: {out}\n         {out.with_suffix('.csv')}\n         {out.with_suffix('.png')}",
        f"Next: put it into the report with\n  python -m bench.report {out}",
    ]


def _by_corruption(content: dict) -> list[list[dict]]:
    curves: dict[str, list[dict]] = {}
    for curve in content["curves"]:
        curves.setdefault(curve["corruption"], []).append(curve)
    return list(curves.values())


# ---- Terminal and CSV ------------------------------------------------------------------------


def _table(curves: list[dict]) -> Table:
    """Of one corruption; whole percents, so that a long curve fits on a line."""
    name, levels = curves[0]["corruption"], curves[0]["levels"]
    table = Table(title=f"{name}: {', '.join(levels)}", box=SIMPLE_HEAD, title_justify="left")
    table.add_column("model", overflow="fold")
    for head in ("accuracy, %", "last drop, points", "rel.", "eff."):
        table.add_column(head, justify="right", no_wrap=True)
    for curve in curves:
        seeds = f" ({len(curve['seeds'])} seeds)" if len(curve["seeds"]) > 1 else ""
        table.add_row(
            curve["name"] + seeds,
            " ".join(f"{100 * a:.0f}" for a in curve["accuracy"]),
            _interval(*(curve[n][-1] for n in ("drop", "drop_low", "drop_high"))),
            f"{curve['relative']:.3f}",
            f"{curve['effective']:+.3f}",
        )
    return table


def _interval(value: float, low: float | None, high: float | None) -> str:
    around = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{around}"


def table_csv(curves: list[dict]) -> str:
    """A line for each curve and strength; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("model", "seeds", "modality", "corruption", "strength", "level")
    writer.writerow([*head, *_PER_LEVEL, "relative", "effective"])
    for curve in curves:
        seeds = " ".join(map(str, curve["seeds"]))
        for i, strength in enumerate(curve["strengths"]):
            numbers = [curve[n][i] for n in _PER_LEVEL]
            numbers += [curve["relative"], curve["effective"]]
            cells = ["" if number is None else f"{number:.6g}" for number in numbers]
            place = (curve["modality"], curve["corruption"], f"{strength:g}", curve["levels"][i])
            writer.writerow([curve["name"], seeds, *place, *cells])
    return text.getvalue()


# ---- Picture ---------------------------------------------------------------------------------


def draw(content: dict) -> Figure:
    """A panel for each corruption, a curve with its 95 % band for each model."""
    panels = _by_corruption(content)
    columns = min(_COLUMNS, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * lines + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    name, majority = content["rows"]["majority"]
    for axes, curves in zip(grid, panels, strict=False):
        _panel(axes, curves)
        axes.axhline(100 * majority, color="#888888", linewidth=1, linestyle=":")
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[::columns]:
        axes.set_ylabel("accuracy, %")
    settings, rows = content["settings"], content["rows"]
    groups = f" in {rows['groups']} groups" if rows["groups"] else ""
    figure.suptitle(
        f"{settings['dataset']}, {settings['split']}, {rows['count']} rows{groups}; "
        f"draws: {settings['repeats']}; bands 95 %; dotted: always {name}"
    )
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
    return figure


def _panel(axes, curves: list[dict]) -> None:
    places = range(len(curves[0]["levels"]))
    for i, curve in enumerate(curves):
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        y = [100 * a for a in curve["accuracy"]]
        axes.plot(places, y, color=colour, marker=marker, markersize=4, label=curve["name"])
        if None not in curve["low"]:
            low, high = ([100 * a for a in curve[end]] for end in ("low", "high"))
            axes.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set_title(curves[0]["corruption"], fontsize=10)
    axes.set_xticks(places, curves[0]["levels"], fontsize=8, rotation=20)
    axes.grid(alpha=0.3)
