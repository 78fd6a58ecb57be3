"""What a run says at its end, and what a model is before it is trained."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from fusion_keras.training.run import Run

console = Console()
SHOWN = (
    "accuracy", "acc2_nonneg", "acc2_nonzero", "weighted_f1", "macro_f1", "auroc", "ece",
    "acc7", "acc5", "mae", "pearson",
)  # fmt: skip
SHARES = ("accuracy", "acc2_nonneg", "acc2_nonzero", "weighted_f1", "macro_f1", "acc7", "acc5")


def closing_table(run: Run) -> None:
    """Print a finished run's metrics on validation and test, and what to do next."""
    description, results = run.read_json("config.json"), run.read_json("metrics.json")
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
        if name in splits["test"]["metrics"]:
            table.add_row(name, *(_cell(name, s["metrics"][name]) for s in splits.values()))
    table.add_section()
    majority = (s["metrics"]["majority"]["value"] for s in splits.values())
    table.add_row("majority", *(f"{100 * value:.1f} %" for value in majority))
    for note in data["notes"]:
        console.print(f"note: {note}", highlight=False)
    console.print(table)
    console.print(f"Run: {run.folder}", highlight=False, soft_wrap=True)
    console.print(
        "Next: compare variants and seeds with\n"
        "  python -m fusion_keras.sweep --variant=text,image,late,inter,early --seed=0,1,2",
        highlight=False,
        soft_wrap=True,
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
