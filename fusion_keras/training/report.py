"""What a run says at its end, and what a model is before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from fusion_keras.files import disk_errors
from fusion_keras.fusion.architectures import of_values, of_variant
from fusion_keras.fusion.describe import Part
from fusion_keras.modalities import MODALITY
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import Run, corrupt_run_errors
from fusion_keras.training.task import set_up_keras

SHOWN = (
    "accuracy", "acc2_nonneg", "acc2_nonzero", "weighted_f1", "macro_f1", "auroc", "ece",
    "acc7", "acc5", "mae", "pearson",
)  # fmt: skip
SHARES = (
    *("accuracy", "acc2_nonneg", "acc2_nonzero", "weighted_f1", "macro_f1", "acc7", "acc5"),
    *("hamming_loss", "micro_f1", "precision", "recall", "f1"),
)
# Of several labels a row: of all together, and of each.
SHOWN_OF_LABELS = ("accuracy", "hamming_loss", "micro_f1", "macro_f1", "macro_auroc", "macro_ap")
SHOWN_OF_EACH = ("precision", "recall", "f1", "auroc", "ap")
LABELS_SHOWN = 30


def closing(run: Run, given: Sequence[str] = ()) -> list[RenderableType]:
    """A finished run's metrics on validation and test, and what to do next.

    Args:
        given: the flags of its training that others, which it is compared with, share.
    """
    with corrupt_run_errors(run.folder):
        description, results = run.read_json("config.json"), run.read_json("metrics.json")
        several = description.get("label_kind") == "multi"
        of_each = [_labels_table(results)] if several else []
        return [
            *(f"note: {note}" for note in description["dataset"]["notes"]),
            *(f"note: {note}" for note in description.get("notes", [])),
            _metrics_table(description, results),
            *of_each,
            *_unshared_lines(results["splits"]),
            *_patterns_table(results["splits"], several),
            f"Run: {run.folder}",
            f"Next: {of_values(description['spec']).next_steps(description, given)}",
        ]


def _metrics_table(description: dict, results: dict) -> Table:
    splits, several = results["splits"], description.get("label_kind") == "multi"
    largest = "most frequent set of labels" if several else "largest class"
    table = Table(
        title=f"{description['variant']} on {description['dataset']['name']}, "
        f"seed {description['seed']}, {description['parameters']:,} parameters",
        caption=f"95 % bootstrap intervals; majority is the {largest} of each split",
    )
    table.add_column("metric")
    for split, scored in splits.items():
        table.add_column(f"{split} (n = {scored['count']})", justify="right")
    for name in SHOWN_OF_LABELS if several else SHOWN:
        # Some depend on what is in a split: whether its labels are the signs of its scores.
        if all(name in s["metrics"] for s in splits.values()):
            shown = "subset accuracy" if several and name == "accuracy" else name
            table.add_row(shown, *(_cell(name, s["metrics"][name]) for s in splits.values()))
    table.add_section()
    majority = (s["metrics"]["majority"]["value"] for s in splits.values())
    table.add_row("majority", *(f"{100 * value:.1f} %" for value in majority))
    return table


def _labels_table(results: dict) -> Table:
    """Of each label of the test split, the most frequent first."""
    test = results["splits"]["test"]
    labels = sorted(test["labels"].items(), key=lambda item: -item[1]["count"])
    caption = f"a label is given where its probability is above {test['threshold']:g}; the other "
    caption += "intervals are in metrics.json"
    if len(labels) > LABELS_SHOWN:
        caption += f", and {len(labels) - LABELS_SHOWN} labels more"
    table = Table(title="test, label by label", caption=caption)
    table.add_column("label")
    for name in ("rows", *SHOWN_OF_EACH):
        table.add_column(name, justify="right")
    for label, scored in labels[:LABELS_SHOWN]:
        # A row is to fit on a screen.
        narrow = {n: v if n == "f1" else {**v, "low": None} for n, v in scored["metrics"].items()}
        cells = (_cell(name, narrow[name]) for name in SHOWN_OF_EACH)
        table.add_row(label, str(scored["count"]), *cells)
    return table


def _patterns_table(splits: dict, several: bool) -> list[Table]:
    """Accuracy by what rows lack; nothing where all are complete."""
    names = [name for scored in splits.values() for name in scored.get("patterns", {})]
    if not names:
        return []
    table = Table("rows", title=f"{'subset ' if several else ''}accuracy by what rows lack")
    for split in splits:
        table.add_column(split, justify="right")
    for name in dict.fromkeys(names):
        scored = [s.get("patterns", {}).get(name) for s in splits.values()]
        cells = (
            f"{_cell('accuracy', s['metrics']['accuracy'])}, n = {s['count']}" if s else "no row"
            for s in scored
        )
        table.add_row(name, *cells)
    return [table]


def _cell(name: str, values: dict) -> str:
    value, low, high = values["value"], values["low"], values["high"]
    if value is None:
        return "undefined"
    if name in SHARES:
        interval = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
        return f"{100 * value:.1f} %{interval}"
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{interval}"


def _unshared_lines(splits: dict) -> list[str]:
    """What validation and test come to without what another split has, too."""
    lines = []
    for split, scored in splits.items():
        if "unshared" not in scored:
            continue
        others, count = scored["unshared"], scored["count"]
        shared = ", ".join(f"{modality} {n}" for modality, n in others["shared"].items())
        line = f"{split}: {count - others['count']} of {count} rows share content with another "
        line += f"split ({shared})"
        if others["count"]:
            name = next(n for n in SHOWN if n in scored["metrics"] and n in others["metrics"])
            of_all, of_others = (_cell(name, s["metrics"][name]) for s in (scored, others))
            line += f"; {name} of all {of_all}, of the {others['count']} others {of_others}"
        lines.append(line)
    return lines


def described(config, picture: Path) -> list[RenderableType]:
    """What a config would build, as a table; draws it to a picture, a .png file, too."""
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
    of_what = "labels" if config.data.label_kind == "multi" else "classes"
    assumed = f"; {classes} {of_what} are assumed" if readers else ""
    results = [_parts_table(parts, title, f"one example{assumed}")]
    with disk_errors(picture):
        picture.parent.mkdir(parents=True, exist_ok=True)
        if architecture.draw(spec, config, parts, title, picture):
            results.append(f"Picture: {picture}")
    return [*results, "Next: train it with the same command without --describe"]


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
