"""What a teacher gave: a taught model beside its teachers, itself alone, and two controls.

A taught training makes more passes over more rows, and its recipe may choose the epoch otherwise.
So it is compared with trainings that do the same without the teacher, and that smooth their labels
instead (Szegedy et al. 2016, arXiv 1512.00567, section 7). All are told apart by their settings.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.edge.files import digest
from bench.report.comparison import spread
from bench.report.front import difference
from bench.report.page import Table, percent
from bench.report.runs import OURS, Family, Run, linked

# How a run without a teacher stands to a taught one.
ALONE, WITHOUT, SMOOTHED = "alone", "without the teacher", "label smoothing"
NOTE = (
    "Passes × rows: as they were made; 'as long' is planned for as many rows or more, and patience "
    "may end it before. Accuracy: mean over the seeds ± their standard deviation; of several "
    "teachers, each by itself. Differences are paired by test row and by the seeds that both have; "
    "intervals are 95 %, groups of test rows and seeds drawn anew. AUROC and NLL: means over the "
    "seeds. `python -m bench.study --teacher=VARIANT --controls` trains all of it."
)
_SMOOTHING = "train.label_smoothing"
_LENGTH = {"train.epochs", "train.patience", _SMOOTHING}


def named(pairs: list[dict[str, Family]]) -> list[dict[str, Family]]:
    """The same, with names for controls, so that none stands in a row of its variant.

    Args:
        pairs: as `bench.report.runs.paired` has them.
    """
    taught = _taught(pairs)
    return [
        {name: replace(family, called=_control(family, taught)) for name, family in pair.items()}
        for pair in pairs
    ]


def parts(pairs: list[dict[str, Family]]) -> list:
    """Paragraphs and a table for each taught model of the report's section; none without any.

    Args:
        pairs: as `bench.report.runs.paired` has them.
    """
    taught = _taught(pairs)
    made: list = [NOTE] if taught else []
    for family, title in zip(taught, _titles(taught), strict=True):
        beside, missing = _beside(family, _ours(pairs))
        made.append(_table(title, family, beside))
        if missing:
            made.append(f"Not among the runs: {'; '.join(missing)}.")
    return made


def lead(pairs: list[dict[str, Family]]) -> list[str]:
    """A sentence for each taught model: what it reaches, and what it gained over which."""
    taught, said = _taught(pairs), []
    for family, title in zip(taught, _titles(taught), strict=True):
        beside, _ = _beside(family, _ours(pairs))
        gains = [f"against {name}: {_gain(family, other)}" for name, other in beside]
        against = f"; in points, paired, with 95 % intervals, {'; '.join(gains)}" if gains else ""
        said.append(f"{title}: accuracy {spread(family)} %{against}.")
    return said


def role(taught: Family, other: Family) -> str:
    """ALONE, WITHOUT or SMOOTHED; empty where the other one is taught, or another model."""
    if _teaching(other) or _student(taught) != _student(other):
        return ""
    mine, theirs = _settings(taught), _settings(other)
    changed = _changed([mine, theirs])
    student = theirs.get("recipe") == "distil"
    if not student and not changed <= _LENGTH:
        return ALONE
    if theirs.get(_SMOOTHING, 0) > mine.get(_SMOOTHING, 0):
        return SMOOTHED
    return WITHOUT if student or (changed and _as_long(taught, other)) else ALONE


def _control(family: Family, taught: list[Family]) -> str:
    """What a control is called; empty for what is none."""
    roles = {role(one, family) for one in taught} - {""}
    student = _settings(family).get("recipe") == "distil" and not _teaching(family)
    if not student and not roles & {WITHOUT, SMOOTHED}:
        return ""
    of = [one for one in taught if role(one, family)]
    name = f"{family.runs[0].artifact['variant']}, "
    name += "as long " * any(_as_long(one, family) for one in of) + WITHOUT
    smoothing = _settings(family).get(_SMOOTHING, 0)
    smoothed = SMOOTHED in roles if roles else smoothing
    return name + (f", {SMOOTHED} {smoothing:g}" if smoothed else "")


def _as_long(taught: Family, other: Family) -> bool:
    """Whether as many rows were planned, each as often as there are passes over it."""
    planned = [
        _settings(family).get("train.epochs", 0) * _rows(family.runs[0])
        for family in (taught, other)
    ]
    return 0 < planned[0] <= planned[1]


def _rows(run: Run) -> int:
    """Of a pass, those of the teacher among them; 0 where not said."""
    return run.rows + run.extra if run.rows else 0


def _ours(pairs: list[dict[str, Family]]) -> list[Family]:
    return [pair[OURS] for pair in pairs if OURS in pair]


def _taught(pairs: list[dict[str, Family]]) -> list[Family]:
    return [family for family in _ours(pairs) if _teaching(family)]


def _teaching(family: Family) -> dict:
    """Its settings of the teacher; empty where it has none."""
    return json.loads(family.runs[0].settings).get("teacher", {})


def _settings(family: Family) -> dict:
    """`train.epochs` and so on -> value, without those of the teacher."""
    settings = json.loads(family.runs[0].settings)
    settings.pop("teacher", None)
    return _flat(settings)


def _flat(settings: dict, under: str = "") -> dict:
    flat = {}
    for name, value in settings.items():
        inner = isinstance(value, dict)
        flat |= _flat(value, f"{under}{name}.") if inner else {under + name: value}
    return flat


def _changed(several: list[dict]) -> set[str]:
    """Names of the settings that are not the same in all."""
    names = {name for settings in several for name in settings}
    return {n for n in names if any(s.get(n) != several[0].get(n) for s in several)}


def _student(family: Family) -> tuple:
    """Equal for a model taught and untaught."""
    artifact = family.runs[0].artifact
    variant = artifact["variant"].removesuffix(" taught")
    return (*linked({**artifact, "variant": variant}), artifact["test"]["ids"])


def _titles(taught: list[Family]) -> list[str]:
    names = []
    for family in taught:
        teacher, artifact = _teaching(family), family.runs[0].artifact
        many = f"{teacher['runs']} teacher{'s' * (teacher['runs'] > 1)}"
        more = ", unlabelled rows" if teacher.get("unlabelled") else ""
        names.append(f"{artifact['dataset']}: {artifact['variant']}, {many}{more}")
    return _apart(names, [_settings(f) | _flat(_teaching(f), "teacher.") for f in taught])


def _beside(taught: Family, families: list[Family]) -> tuple[list[tuple[str, Family]], list[str]]:
    """(name -> what a taught model is compared with, in order; what of it is missing)."""
    teachers, missing = _teachers(taught, families)
    order = [ALONE, WITHOUT, SMOOTHED]
    others = [other for other in families if role(taught, other)]
    others.sort(key=lambda other: order.index(role(taught, other)))
    names = [f"the teacher, {family.runs[0].artifact['variant']}" for family in teachers]
    for other in others:
        alone = f"{other.runs[0].artifact['variant']}, {ALONE}"
        names.append(_control(other, [taught]) or alone)
    beside = [*teachers, *others]
    names = _apart(names, [_settings(family) for family in beside])
    return list(zip(names, beside, strict=True)), missing + _lacking(taught, others)


def _apart(names: list[str], ways: list[dict]) -> list[str]:
    """Names, with the first settings that differ where several are called alike."""
    twice, made = Counter(names), []
    for name, way in zip(names, ways, strict=True):
        alike = [w for n, w in zip(names, ways, strict=True) if n == name]
        changed = sorted(_changed(alike))[:3] if twice[name] > 1 else []
        made.append(name + "".join(f", {c}={way.get(c)}" for c in changed))
    return made


def _teachers(taught: Family, families: list[Family]) -> tuple[list[Family], list[str]]:
    """Families of the runs that taught, of these alone; and those that are not among all."""
    runs = [run for family in families for run in family.runs]
    places = {run.path.resolve(): run for run in runs}
    found, missing = [], []
    for path, sha256 in {p: s for run in taught.runs for p, s in run.teachers.items()}.items():
        # A folder that was moved since is known by its model, as one that was trained anew is.
        run = places.get(Path(path).resolve())
        if run is None or _digest(run.path / "model.keras") not in ("", sha256):
            run = _of_model(sha256, runs)
        found.append(run) if run else missing.append(f"the teacher {path}, to be added to --runs")
    mine = [Family([run for run in family.runs if run in found]) for family in families]
    return [family for family in mine if family.runs], missing


def _of_model(sha256: str, runs: list[Run]) -> Run | None:
    return next((run for run in runs if _digest(run.path / "model.keras") == sha256), None)


@functools.cache
def _digest(model: Path) -> str:
    return digest(model) if model.is_file() else ""


def _table(title: str, taught: Family, beside: list[tuple[str, Family]]) -> Table:
    heads = ["model", "recipe", "passes × rows", "test accuracy, %", "taught - it, points"]
    rows = [_row(name, family, _gain(taught, family)) for name, family in beside]
    rows.append(_row(taught.runs[0].artifact["variant"], taught, ""))
    return Table(title, [*heads, "test AUROC", "test NLL"], rows)


def _row(name: str, family: Family, gain: str) -> list[str]:
    run = family.runs[0]
    passes = [run.epochs for run in family.runs if run.epochs is not None]
    seen = f"{np.mean(passes):.3g} × {_rows(run):,}" if passes and run.rows else ""
    means = [_mean(family, metric) for metric in ("auroc", "nll")]
    return [name, run.recipe, seen, spread(family), gain, *means]


def _gain(taught: Family, other: Family) -> str:
    """The paired difference, and its seeds where they are not those of both."""
    first, second = taught.model, other.model
    if first.artifact["test"]["ids"] != second.artifact["test"]["ids"]:
        return "other test rows"
    both = first.correct.keys() & second.correct.keys()
    if not both:
        return "no seed in common"
    whole = both == first.correct.keys() == second.correct.keys()
    seeds = f" (seed{'s' * (len(both) > 1)} {', '.join(map(str, sorted(both)))})"
    return percent(difference(first, second), "+") + ("" if whole else seeds)


def _mean(family: Family, metric: str) -> str:
    values = [run.metrics[metric] for run in family.runs if metric in run.metrics]
    return f"{np.mean(values):.3f}" if len(values) == len(family.runs) else ""


def _lacking(taught: Family, others: list[Family]) -> list[str]:
    """What to train for the rows that are missing, by flags."""
    variant = taught.runs[0].artifact["variant"].removesuffix(" taught")
    roles = {role(taught, other) for other in others}
    settings, more = _settings(taught), " ".join(_longer(taught.runs[0]))
    way = "as the taught one without --teacher and --config.teacher" + (more and f", with {more}")
    # Alone it may be as long already.
    same = [o for o in others if role(taught, o) == ALONE and _settings(o) == settings]
    lacks = []
    if ALONE not in roles:
        lacks.append(f"{variant}, {ALONE} (--variant={variant} with an ordinary --recipe)")
    if WITHOUT not in roles and not any(_as_long(taught, other) for other in same):
        lacks.append(f"{variant}, as long {WITHOUT} ({way})")
        way = "the same"
    if SMOOTHED not in roles:
        more = f"--config.{_SMOOTHING}={settings.get(_SMOOTHING, 0) + 0.1:g}"
        lacks.append(f"{variant}, as long {WITHOUT}, {SMOOTHED} ({way} and {more})")
    return lacks


def _longer(run: Run) -> list[str]:
    """The flags that let an untaught run see as many rows, and be as patient with them."""
    train = json.loads(run.settings).get("train", {})
    times = _rows(run) / run.rows if run.rows else 1
    return [
        f"--config.train.{name}={math.ceil(train[name] * times)}"
        for name in ("epochs", "patience")
        if train.get(name) and times > 1
    ]
