"""Runs of a sweep, one process each, and what they say together."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fusion_keras.errors import UsageError
from fusion_keras.metrics import paired_bootstrap
from fusion_keras.training import planning
from fusion_keras.training.run import damage, disk_errors, read_json

console = Console()
SEEDS = ("seed", "config.seed")


@dataclass
class Member:
    """One run of a sweep."""

    settings: dict[str, str]
    label: str
    group: str
    folder: Path
    status: str = "waiting"
    seconds: float = 0.0
    note: str = ""
    metrics: dict = field(default_factory=dict)

    @property
    def flags(self) -> list[str]:
        """What `fusion_keras.train` is given, but for the directory."""
        return [f"--{name}={value}" for name, value in self.settings.items()]

    @property
    def log(self) -> Path:
        return self.folder.with_name(self.folder.name + ".log")


def sweep(
    combinations: list[dict[str, str]], swept: list[str], workdir: Path, baseline: str | None
) -> int:
    """Train every combination and print the comparison.

    Args:
        combinations: flag name -> value, for each run.
        swept: the flags that have several values; they name the runs.
        workdir: where runs and logs go.
        baseline: label of the group that others are compared with; None for the first.

    Returns:
        How many runs failed.
    """
    members = [_member(settings, swept, workdir) for settings in combinations]
    for i, member in enumerate(members):
        same = next((m for m in members[:i] if m.folder == member.folder), None)
        if same:
            raise UsageError(
                f"The combinations {same.label!r} and {member.label!r} would share the directory "
                f"{member.folder}: leave one of them out."
            )
    groups = list(dict.fromkeys(m.group for m in members))
    if baseline is not None and baseline not in groups:
        raise UsageError(
            f"No combination is called {baseline!r}; one of {', '.join(groups)} is wanted."
        )
    planning.check_all({m.folder: (m.label, m.flags) for m in members})
    with disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    with Live(_progress_table(members), console=console, refresh_per_second=2) as live:
        for member in members:
            _train(member, lambda: live.update(_progress_table(members)))
    _report(members, groups, baseline or groups[0], workdir)
    return sum(m.status == "failed" for m in members)


def _member(settings: dict[str, str], swept: list[str], workdir: Path) -> Member:
    """Name a run after its swept settings, and its group after all but the seed."""

    def join(names):
        parts = [
            settings[n]
            if n in ("variant", "config.variant")
            else f"{n.split('.')[-1]}={settings[n]}"
            for n in names
        ]
        return " ".join(parts)

    group = join(n for n in swept if n not in SEEDS) or settings.get("variant", "all")
    label = join(swept)
    folder = workdir / re.sub(r"[^\w.+=-]+", "_", label.replace("seed=", "s"))
    return Member(settings, label, group, folder)


def _train(member: Member, refresh) -> None:
    command = [sys.executable, "-m", "fusion_keras.train", f"--run={member.folder}", *member.flags]
    member.status, started = "running", time.perf_counter()
    refresh()
    with disk_errors(member.log), member.log.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.5)
                member.seconds = time.perf_counter() - started
                member.note = _last_line(member.log)
                refresh()
        finally:
            # Interrupted: the run keeps its checkpoint, and the child must not go on alone.
            process.terminate()
            process.wait()
    if process.returncode == 0:
        member.status, member.note = "done", ""
        with damage(member.folder):
            found = read_json(member.folder / "metrics.json")["splits"]["test"]["metrics"]
        member.metrics = found
    else:
        member.status, member.note = "failed", _last_line(member.log)
    refresh()


def _last_line(log: Path) -> str:
    """The newest line of a log; of a progress bar, its newest state."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = re.split(r"[\r\n]+", file.read().decode("utf-8", "replace"))
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _progress_table(members: list[Member]) -> Table:
    table = Table("run", "state", "time", "test accuracy", "note", title="sweep")
    waiting = 0
    for member in members:
        if member.status == "waiting":
            waiting += 1
            continue
        accuracy = member.metrics.get("accuracy", {}).get("value")
        shown = "" if accuracy is None else f"{100 * accuracy:.1f} %"
        table.add_row(
            member.label, member.status, f"{member.seconds:.0f} s", shown, member.note[:100]
        )
    if waiting:
        ran = [m.seconds for m in members if m.status == "done" and m.seconds > 20]
        left = f", about {np.mean(ran) * waiting / 60:.0f} min" if ran else ""
        table.caption = f"{waiting} waiting{left}"
    return table


def _report(members: list[Member], groups: list[str], baseline: str, workdir: Path) -> None:
    """Mean and spread per group, and the paired difference to the baseline."""
    done = {g: [m for m in members if m.group == g and m.status == "done"] for g in groups}
    table = Table(
        "",
        "runs",
        "test accuracy",
        "spread",
        f"against {baseline}",
        "p",
        title="test split, mean over runs",
        caption="spread: standard deviation; differences: paired, 95 % bootstrap interval",
    )
    results = {}
    for group, runs in done.items():
        if not runs:
            table.add_row(group, "0", "", "", "", "")
            continue
        values = np.array([m.metrics["accuracy"]["value"] for m in runs])
        entry = {
            "runs": len(runs),
            "mean": values.mean(),
            "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
        }
        difference = _difference(runs, done[baseline]) if group != baseline else None
        entry["difference"] = difference
        results[group] = entry
        table.add_row(group, str(len(runs)), f"{100 * entry['mean']:.1f} %", *_cells(entry))
    console.print(table)
    if results:  # or what an earlier sweep has found stays
        temporary = workdir / ".results.json.new"
        with disk_errors(workdir / "results.json"):
            temporary.write_text(json.dumps(results, indent=2) + "\n")
            temporary.replace(workdir / "results.json")
    console.print(f"Runs, logs and results.json: {workdir}", highlight=False, soft_wrap=True)
    console.print(
        f"Next: look at one of them with\n  tensorboard --logdir={workdir}",
        highlight=False,
        soft_wrap=True,
    )


def _cells(entry: dict) -> tuple[str, str, str]:
    spread = "" if entry["spread"] is None else f"{100 * entry['spread']:.1f}"
    if entry["difference"] is None:
        return spread, "", ""
    d = entry["difference"]
    shown = f"{100 * d['difference']:+.1f}"
    if d["low"] is None:
        return spread, shown, ""
    return spread, f"{shown} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]", f"{d['p_value']:.3f}"


def _difference(runs: list[Member], others: list[Member]) -> dict | None:
    """The paired difference of two groups, seed by seed; None where the examples differ."""
    ours, theirs = ({_seed(m): m for m in side} for side in (runs, others))
    seeds = sorted(set(ours) & set(theirs))
    if not seeds:
        return None
    tables = [(_predictions(ours[s]), _predictions(theirs[s])) for s in seeds]
    example = {i: row[1:] for i, row in tables[0][0].items()}
    if any({i: row[1:] for i, row in t.items()} != example for pair in tables for t in pair):
        return None
    correct = [np.array([[t[side][i][0] for i in example] for t in tables]) for side in (0, 1)]
    groups = [group for group, *_ in example.values()]
    found = paired_bootstrap(*correct, groups=groups if any(groups) else None)
    # JSON has no nan: with a single group there is no interval.
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _seed(member: Member) -> str:
    return next((member.settings[n] for n in SEEDS if n in member.settings), "0")


def _predictions(member: Member) -> dict[str, tuple[bool, str, str, str]]:
    """id -> (predicted correctly, group, target, digest of its text), for the test split."""
    with damage(member.folder):
        texts = {row["id"]: row["text"] for row in _rows(member.folder / "splits.csv")}
        return {
            r["id"]: (r["predicted"] == r["target"], r["group"], r["target"], texts[r["id"]])
            for r in _rows(member.folder / "predictions.csv")
            if r["split"] == "test"
        }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
