"""What became of an export, to be printed."""

from __future__ import annotations

from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from fusion_keras.fusion.architectures import of_values


def report(out: Path, meta: dict) -> list[RenderableType]:
    """What became of an export, and what to do next.

    Args:
        out: the artifact.
        meta: its description.
    """
    notes = [f"note: {note}" for note in meta["notes"]]
    said = [*_compiled(meta), *notes]
    return [_ladder_table(meta), *said, f"Artifact: {out}", _next(out, meta)]


def _compiled(meta: dict) -> list[str]:
    """What NVIDIA's compiler said, where it is installed."""
    compiled = meta["compiled"]
    if not compiled:
        return []
    first = next(iter(compiled.values()))
    each = ", ".join(f"{n} ({x['bytes'] / 1e6:.0f} MB)" for n, x in compiled.items())
    seconds = sum(x["seconds"] for x in compiled.values())
    return [f"{first['compiler']} compiles for {first['target']}: {each}, in {seconds:.1f} s"]


def _next(out: Path, meta: dict) -> str:
    flags = of_values(meta["spec"]).ask(meta["inputs"])
    if not flags:
        return f"Next: measure it with\n  python -m bench {out}"
    return f"Next: ask it with\n  python -m bench.predict {out} {flags}"


def _ladder_table(meta: dict) -> Table:
    by = "" if meta["allow_loss"] is None else f" (--allow_loss={meta['allow_loss']:g})"
    measure = "subset accuracy" if meta["label_kind"] == "multi" else "accuracy"
    table = Table(
        title=f"{meta['variant']} on {meta['dataset']['name']}: parity, found / allowed",
        caption=f"{measure} on test, its change in points / the loss allowed{by}, [95 % interval]",
    )
    for column in ("graph", "against", "relative", "cosine", "flips", "accuracy", "change"):
        table.add_column(column, justify="left" if column in ("graph", "against") else "right")
    for rung in meta["ladder"]:
        tolerance, model = rung["tolerance"], meta["models"].get(rung["name"])
        cells = [
            f"{rung['relative']:.0e} / {tolerance['relative']:.0e}",
            f"{rung['cosine']:.4f} / {tolerance['cosine']:.3g}",
            f"{rung['flips']} / {rung['may_flip']}",
        ]
        if model:
            cells += [f"{100 * model['metrics']['accuracy']:.1f} %", _change(model)]
        table.add_row(rung["name"], rung["reference"], *cells)
    return table


def _change(model: dict) -> str:
    """Two lines, the interval below, for a terminal of 100 columns."""
    change = f"{100 * model['accuracy_change']:+.1f} / {100 * model['allowed_loss']:.1f}"
    ends = [f"{100 * end:+.1f}" for end in model["change_interval"] or ()]
    return f"{change}\n[{', '.join(ends)}]" if ends else change
