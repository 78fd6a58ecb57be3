"""Runs of a sweep, one process each, and what they say together."""

from __future__ import annotations

import csv
import json
import logging
import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from fusion_keras import cluster, jobs, terminal, training_flags
from fusion_keras.data.modalities import MODALITIES
from fusion_keras.errors import UsageError
from fusion_keras.files import disk_errors, last_line, write
from fusion_keras.metrics import paired_bootstrap
from fusion_keras.training import experiment, planning
from fusion_keras.training.recipes import resolve
from fusion_keras.training.run import Run, corrupt_run_errors, read_json

SEEDS = ("seed", "config.seed")
_log = logging.getLogger(__name__)


@dataclass
class Member:
    """One run of a sweep."""

    settings: dict[str, str]
    label: str
    group: str
    folder: Path
    status: str = "waiting"
    began: float = 0.0
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


@dataclass(frozen=True)
class Sweep:
    """What became of a sweep.

    Attributes:
        members: its runs.
        baseline: label of the group that others are compared with.
        workdir: where runs, logs and results.json are.
        groups: label -> runs, mean and spread of the test accuracy, and the paired difference to
            the baseline; None without a finished run.
    """

    members: list[Member]
    baseline: str
    workdir: Path
    groups: dict[str, dict | None]

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(m.status == "failed" for m in self.members)

    def report(self) -> list[RenderableType]:
        """Tables of the runs and of the groups, and what to do next."""
        return [
            _progress_table(self.members),
            _groups_table(self.groups, self.baseline, _measure(self.members)),
            f"Runs, logs and results.json: {self.workdir}",
            f"Next: look at one of them with\n  tensorboard --logdir={self.workdir}",
        ]


def planned(
    combinations: list[dict[str, str]], swept: list[str], workdir: Path, baseline: str | None
) -> list[Member]:
    """The runs of a sweep, checked before any is trained.

    Args:
        combinations: flag name -> value, for each run.
        swept: the flags that have several values; they name the runs.
        workdir: where runs and logs go.
        baseline: label of the group that others are compared with; None for the first.

    Raises:
        UsageError: combinations that cannot be.
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
    return members


def described(members: list[Member]) -> list[str]:
    """The runs, a line each, and how many of them are left."""
    left = [member for member in members if not _left_alone(member)]
    lines = []
    for member in members:
        state = {"waiting": "", "done": ": done before"}.get(member.status, f": {member.note}")
        lines.append(f"{member.label}{state}")
    return [*lines, f"{len(left)} of {len(members)} runs are left; none was begun."]


def sweep(
    members: list[Member],
    workdir: Path,
    baseline: str | None,
    side_by_side: str = "1",
    nodes: cluster.Cluster | None = None,
) -> Sweep:
    """Train the runs of `planned`, compare them, and write results.json.

    Args:
        members: the runs.
        workdir: where runs and logs go.
        baseline: label of the group that others are compared with; None for the first.
        side_by_side: how many runs at a time, or "auto"; see `jobs.count_of`.
        nodes: the cluster that trains them, instead.
    """
    with disk_errors(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    if nodes:
        _log.info("%s", nodes.described())
        places = nodes.slots(len(members))
    else:
        places = jobs.shares(jobs.count_of(side_by_side, len(members)))
    # Transient: the table as it is in the end is a result.
    table = Live(
        _progress_table(members), console=terminal.console(), refresh_per_second=2, transient=True
    )
    with table:
        try:
            for wave in _waves(members, len(places)):
                _train(wave, places, lambda: table.update(_progress_table(members)))
        except BaseException:
            table.transient = False
            # In a file rich ends without a new line.
            table.update(Group(_progress_table(members), ""))
            raise
    groups = list(dict.fromkeys(m.group for m in members))
    baseline = baseline or groups[0]
    results = _results(members, groups, baseline)
    finished = {group: entry for group, entry in results.items() if entry}
    if finished:  # or what an earlier sweep has found stays
        write(workdir / "results.json", (json.dumps(finished, indent=2) + "\n").encode())
    return Sweep(members, baseline, workdir, results)


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


def _waves(members: list[Member], side_by_side: int) -> list[list[Member]]:
    """What may be trained side by side, in order: runs of one modality before those that find their
    parents among them."""
    if side_by_side == 1:
        return [members]
    alone = [m for m in members if _variant(m) in MODALITIES]
    return [alone, [m for m in members if m not in alone]]


def _variant(member: Member) -> str:
    return member.settings.get("variant", member.settings.get("config.variant", ""))


def _train(members: list[Member], places: Sequence[jobs.Share | cluster.Cluster], refresh) -> None:
    """Train them, as many at a time as there are places."""
    waiting, running, free = list(members), [], list(places)
    try:
        while waiting or running:
            while waiting and free:
                member = waiting.pop(0)
                if not _left_alone(member):
                    place = free.pop(0)
                    running.append((_started(member, place), member, place))
            refresh()
            time.sleep(0.5 / len(places))
            for process, member, place in list(running):
                code = process.poll()
                _look_at(member, process)
                if code is not None:
                    running.remove((process, member, place))
                    free.append(place)
                    _ended(member, code)
    finally:
        # Interrupted: runs keep their checkpoints, and children must not go on alone.
        for process, *_ in running:
            process.terminate()
        for process, *_ in running:
            process.wait()
    refresh()


def _left_alone(member: Member) -> bool:
    """Whether there is nothing to train: it is finished, or in the way of what was asked for."""
    config, framework = training_flags.parse(member.flags)
    try:
        done = experiment.is_done(Run(member.folder, framework), resolve(config))
        if done:
            _ended(member, 0)
        return done
    except UsageError as error:
        member.status, member.note = "failed", str(error)
        return True


def _started(member: Member, place: jobs.Share | cluster.Cluster) -> jobs.Process | cluster.Task:
    command = [sys.executable, "-m", "fusion_keras.train", f"--run={member.folder}", *member.flags]
    if _log.isEnabledFor(logging.DEBUG):
        command.append("--verbose")  # into its log
    _log.debug("%s", " ".join(command))
    with disk_errors(member.log):
        return place.start(command, member.log)


def _look_at(member: Member, process: jobs.Process | cluster.Task) -> None:
    if process.where is None:
        return  # no node has begun it
    if member.status == "waiting":
        member.status, member.began = "running", time.perf_counter()
    member.seconds = time.perf_counter() - member.began
    member.note = ": ".join(filter(None, (process.where, last_line(member.log))))


def _ended(member: Member, code: int) -> None:
    if code:
        member.status = "failed"
        return
    member.status, member.note = "done", ""
    with corrupt_run_errors(member.folder):
        member.metrics = read_json(member.folder / "metrics.json")["splits"]["test"]["metrics"]


def _progress_table(members: list[Member]) -> Table:
    table = Table("run", "state", "time", _measure(members), "note", title="sweep")
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
        beside = max(1, sum(m.status == "running" for m in members))
        left = f", about {np.mean(ran) * waiting / beside / 60:.0f} min" if ran else ""
        table.caption = f"{waiting} waiting{left}"
    return table


def _results(members: list[Member], groups: list[str], baseline: str) -> dict[str, dict | None]:
    """As `Sweep.groups`."""
    done = {g: [m for m in members if m.group == g and m.status == "done"] for g in groups}
    results = {}
    for group, runs in done.items():
        if not runs:
            results[group] = None
            continue
        values = np.array([m.metrics["accuracy"]["value"] for m in runs])
        results[group] = {
            "runs": len(runs),
            "mean": values.mean(),
            "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
            "difference": _difference(runs, done[baseline]) if group != baseline else None,
        }
    return results


def _measure(members: list[Member]) -> str:
    """What `accuracy` is of these runs: of several labels a row all must be right."""
    several = any("hamming_loss" in m.metrics for m in members)
    return "test subset accuracy" if several else "test accuracy"


def _groups_table(groups: dict[str, dict | None], baseline: str, measure: str) -> Table:
    table = Table(
        "",
        "runs",
        measure,
        "spread",
        f"against {baseline}",
        "p",
        title="test split, mean over runs",
        caption="spread: standard deviation; differences: paired, 95 % bootstrap interval",
    )
    for group, entry in groups.items():
        if entry is None:
            table.add_row(group, "0", "", "", "", "")
        else:
            accuracy = f"{100 * entry['mean']:.1f} %"
            table.add_row(group, str(entry["runs"]), accuracy, *_cells(entry))
    return table


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
    difference = paired_bootstrap(*correct, groups=groups if any(groups) else None)
    # JSON has no nan: with a single group there is no interval.
    return {name: None if math.isnan(value) else value for name, value in difference.items()}


def _seed(member: Member) -> str:
    return next((member.settings[n] for n in SEEDS if n in member.settings), "0")


def _predictions(member: Member) -> dict[str, tuple[bool, str, str, str]]:
    """id -> (predicted correctly, group, target, digest of its text), for the test split."""
    with corrupt_run_errors(member.folder):
        texts = {row["id"]: row["text"] for row in _rows(member.folder / "splits.csv")}
        return {
            r["id"]: (r["predicted"] == r["target"], r["group"], r["target"], texts[r["id"]])
            for r in _rows(member.folder / "predictions.csv")
            if r["split"] == "test"
        }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
