"""What a run says at its end, and what a model is before it is trained."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusion_keras.data.modalities import MODALITIES
from fusion_keras.fusion import audio_visual
from fusion_keras.fusion.describe import count_macs, describe
from fusion_keras.fusion.draw import draw
from fusion_keras.fusion.graph import build
from fusion_keras.fusion.variants import AUDIO_VISUAL, make_spec
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import Run, damage, disk_errors
from fusion_keras.training.task import check_length, depths_of, load_presets, set_up_keras

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
    console.print(_next(description), highlight=False, soft_wrap=True)


def _next(description: dict) -> str:
    if audio_visual.is_clstm(description["spec"]):
        return (
            "Next: compare the three levels of fusion under noise with\n"
            "  python -m fusion_keras.digits --figure=1 --config.data.path="
            f"{description['config']['data']['path']}"
        )
    flags = "" if description["config"]["data"]["source"] == "demo" else " ..."
    return (
        "Next: compare variants and seeds with\n"
        f"  python -m fusion_keras.sweep --variant=text,image,late,inter,early --seed=0,1,2{flags}"
    )


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
    if config.variant in AUDIO_VISUAL:
        _describe_clstm(config)
        return
    text, image, audio = load_presets(config)
    check_length(config, text)
    depths = depths_of(text, image, audio)
    spec = make_spec(config.variant, config.fusion, depths)
    classes = len(config.data.manifest.classes) or 2
    graph = build(
        spec,
        text,
        image,
        audio,
        num_classes=classes,
        sequence_length=config.data.max_length,
        regression=config.regression,
    )
    parts = describe(spec, graph)
    # Both are named also where one is not taken; sound is new.
    named = [config.text.preset, config.image.preset]
    named += [config.audio.preset] if audio else []
    title = f"{config.variant}: {', '.join(named[:-1])} and {named[-1]}"
    table = Table(title=title, caption=f"one example; {classes} classes are assumed")
    for name in ("part", "takes", "gives"):
        table.add_column(name)
    for name in ("parameters", "MACs"):
        table.add_column(name, justify="right")
    for part in parts:
        if part.name == "all":
            table.add_section()
        table.add_row(part.name, part.takes, part.gives, f"{part.parameters:,}", f"{part.macs:,}")
    console.print(table)
    picture = folder / config.name / f"{config.variant}.png"
    with disk_errors(picture):
        picture.parent.mkdir(parents=True, exist_ok=True)
        draw(spec, {m: getattr(depths, m) for m in MODALITIES}, parts, title, picture)
    console.print(f"Picture: {picture}", highlight=False, soft_wrap=True)
    console.print(
        "Next: train it with the same command without --describe",
        highlight=False,
        soft_wrap=True,
    )


def _describe_clstm(config) -> None:
    """Print the layers of a C-LSTM."""
    model = audio_visual.build(audio_visual.spec_of(config.variant, config.clstm)).model
    table = Table(
        title=config.variant,
        caption=f"{model.count_params():,} parameters, {count_macs(model):,} MACs",
    )
    for name in ("layer", "gives"):
        table.add_column(name)
    table.add_column("parameters", justify="right")
    for layer in model.layers:
        gives = "x".join(str(size) for size in layer.output.shape[1:])
        table.add_row(layer.name, gives, f"{layer.count_params():,}")
    console.print(table)
    console.print("Next: train it with the same command without --describe", highlight=False)
