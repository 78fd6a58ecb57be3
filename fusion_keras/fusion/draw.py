"""A fusion architecture as a picture: ladders of layers and where they are joined."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.fusion.describe import Part
from fusion_keras.fusion.spec import LAST, FusionSpec, format_junction

# Of the modalities, in their order.
_PALETTE = ("#3b6ea8", "#b8642d", "#7a5195", "#2a8a8a", "#a0522d", "#777733")
_COLOURS = dict(zip(MODALITIES, _PALETTE, strict=False)) | {
    "junction": "#5b8c5a",
    "head": "#444444",
}
# The first modality stands left of the junctions, the others right of them.
_LEFT, _JUNCTION, _RIGHT, _STEP = 0.0, 3.0, 6.0, 2.6


def draw(spec: FusionSpec, tops: dict[str, int], parts: list[Part], title: str, path: Path) -> None:
    """Draw the backbones' layers, solid as far as they are built, and the junctions.

    Args:
        spec: the architecture.
        tops: modality -> the greatest depth of its whole backbone.
        parts: from `describe`, for the numbers beside each part.
        title: above the picture.
        path: a .png or .svg file.
    """
    height = max(tops.values()) + 3
    others = [m for m in spec.modalities if m != MODALITIES[0]]
    places = {MODALITIES[0]: _LEFT} | {m: _RIGHT + _STEP * i for i, m in enumerate(others)}
    right = _RIGHT + 1.6 + _STEP * max(len(others) - 1, 0)
    figure = Figure(figsize=(right + 1.4, 0.42 * height + 1.2))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9))
    axes.set_title(title)
    axes.set_xlim(-1.6, right)
    axes.set_ylim(-1.4, height + 0.6)
    axes.axis("off")
    numbers = {p.name.split(",")[0].split(":")[0]: p for p in parts}
    for modality in spec.modalities:
        _ladder(axes, spec, modality, places[modality], tops[modality], numbers[modality])
    heads = []
    for i, junction in enumerate(spec.junctions):
        levels = [_level(d, tops[m]) for m, d in junction.depths.items()]
        y = sum(levels) / len(levels)
        y = max([y, *(h + 1.3 for h in heads)])
        heads.append(y)
        label = f"{format_junction(junction)}\n{_numbers(numbers[f'junction {i}'])}"
        _box(axes, _JUNCTION, y, label, _COLOURS["junction"], width=2.6, height=0.95)
        for modality, depth in junction.depths.items():
            toward = 1 if places[modality] < _JUNCTION else -1
            x = places[modality] + 0.95 * toward
            end = _JUNCTION - 1.3 * toward
            _arrow(axes, (x, _level(depth, tops[modality])), (end, y), _COLOURS[modality])
    top = height - 0.2
    _box(axes, _JUNCTION, top, f"head\n{_numbers(numbers['head'])}", _COLOURS["head"], 2.6, 0.95)
    for y in heads:
        _arrow(axes, (_JUNCTION + 0.2, y + 0.48), (_JUNCTION + 0.2, top - 0.48), "#888888")
    figure.savefig(path, dpi=110)


def _level(depth, top: int) -> float:
    return top + 1.0 if depth == LAST else float(depth)


def _ladder(axes, spec, modality, x, top, part):
    deepest = max(_level(d, top) for d in spec.depths(modality))
    tapped = {_level(d, top) for d in spec.depths(modality)}
    names = {0: "embedding" if modality == "text" else "stem", top + 1: "own pooling"}
    for level in range(top + 2):
        built = level <= deepest
        colour = _COLOURS[modality] if built else "#dddddd"
        label = names.get(level, f"layer {level}")
        _box(axes, x, level, label, colour, bold=level in tapped)
    axes.text(x, -1.0, f"{modality}\n{_numbers(part)}", ha="center", va="center", fontsize=8)


def _numbers(part: Part) -> str:
    return f"{part.parameters / 1e6:.2f} M parameters, {part.macs / 1e6:.1f} M MACs"


def _box(axes, x, y, label, colour, width=1.8, height=0.72, bold=False):
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle="round,pad=0.02",
            facecolor=colour,
            edgecolor="black" if bold else colour,
            linewidth=1.6 if bold else 0.5,
        )
    )
    shade = "#999999" if colour == "#dddddd" else "white"
    weight = "bold" if bold else "normal"
    axes.text(x, y, label, ha="center", va="center", color=shade, fontsize=7, fontweight=weight)


def _arrow(axes, start, end, colour):
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4}, zorder=0
    )
