"""What a run says at its end, and what a model is before it is trained."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusion_keras.fusion.architectures import of_values, of_variant
from fusion_keras.fusion.describe import Part
from fusion_keras.modalities import MODALITY
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import Run, damage, disk_errors
from fusion_keras.training.task import set_up_keras

console = Console()
SHOWN = (
    "accuracy", "acc2_nonneg", "acc2_nonzero", "weighted_f1", "macro_f1", "auroc", "ece",
    "acc7", "acc5", "mae", "pearson",
)  # fmt: skip
SHARES = ("accuracy", "acc2_nonneg", "acc2_nonzero", "weighted_f1", "macro_f1", "acc7", "acc5")


def closing_table(run: Run) -> None:
    """Print a finished run's metrics on validation and test, and what to do next."""
    with damage(run.folder):
        _closing_table(run, run.read_json("config.json"), run.read_json("metrics.json"))


def _closing_table(run: Run, description: dict, results: dict) -> None:
    data = description["dataset"]
    splits = results["splits"]
    table = Table(
        title=f"{description['variant']} on {data['name']}, seed {description['seed']}, "
        f"{description['parameters']:,} parameters",
        caption="95 % bootstrap intervals; majority is the largest class of each split",
    )
    table.add_column("metric")
    for split, found in splits.items():
        table.add_column(f"{split} (n = {found['count']})", justify="right")
    for name in SHOWN:
        # Some depend on what is in a split: whether its labels are the signs of its scores.
        if all(name in found["metrics"] for found in splits.values()):
            table.add_row(name, *(_cell(name, s["metrics"][name]) for s in splits.values()))
    table.add_section()
    majority = (s["metrics"]["majority"]["value"] for s in splits.values())
    table.add_row("majority", *(f"{100 * value:.1f} %" for value in majority))
    for note in data["notes"]:
        console.print(f"note: {note}", highlight=False)
    console.print(table)
    console.print(f"Run: {run.folder}", highlight=False, soft_wrap=True)
    following = of_values(description["spec"]).next_steps(description)
    console.print(f"Next: {following}", highlight=False, soft_wrap=True)


def _cell(name: str, values: dict) -> str:
    value, low, high = values["value"], values["low"], values["high"]
    if value is None:
        return "undefined"
    if name in SHARES:
        interval = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
        return f"{100 * value:.1f} %{interval}"
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{interval}"


def describe_config(config, folder: Path) -> None:
    """Print what a config would build, as a table, and draw it to a picture."""
    config = resolve(config)
    set_up_keras(config)
    architecture = of_variant(config.variant)
    spec, readers = architecture.spec(config), architecture.readers(config)
    taken = [MODALITY[m] for m in readers]
    # The size of some encoders comes of the training rows.
    encodings = architecture.data(config).encodings if any(m.learns for m in taken) else {}
    classes = len(config.data.manifest.classes) or 2
    graph = architecture.build(
        spec,
        architecture.presets(config, encodings),
        num_classes=classes,
        sequence_length=config.data.max_length,
        regression=config.regression,
    )
    parts = architecture.describe(spec, graph)
    named = [Path(config[m].preset).name for m in spec.modalities if m in readers]
    title = ": ".join([config.variant, " and ".join(_listed(named))] if named else [config.variant])
    assumed = f"; {classes} classes are assumed" if readers else ""
    console.print(_parts_table(parts, title, f"one example{assumed}"))
    picture = folder / config.name / f"{config.variant}.png"
    with disk_errors(picture):
        picture.parent.mkdir(parents=True, exist_ok=True)
        if architecture.draw(spec, config, parts, title, picture):
            console.print(f"Picture: {picture}", highlight=False, soft_wrap=True)
    console.print(
        "Next: train it with the same command without --describe",
        highlight=False,
        soft_wrap=True,
    )


def _listed(names: list[str]) -> list[str]:
    """All but the last with commas between, and the last."""
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else names


def _parts_table(parts: list[Part], title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption)
    for name in ("part", "takes", "gives"):
        table.add_column(name)
    for name in ("parameters", "MACs"):
        table.add_column(name, justify="right")
    for part in parts:
        if part.name == "all":
            table.add_section()
        macs = "" if part.macs is None else f"{part.macs:,}"
        table.add_row(part.name, part.takes, part.gives, f"{part.parameters:,}", macs)
    return table
