"""The report's tables, and the notes below them."""

from __future__ import annotations

import json

from bench.edge.results import outpaced
from bench.report.front import (
    BASELINES,
    OTHER_ARITHMETIC,
    Model,
    Point,
    at,
    difference,
    grouped,
    majority,
)
from bench.report.gather import VERDICTS, Inputs
from bench.report.page import Table, milliseconds, percent, seeds_of


def baselines(title: str, points: list[Point], best: Point | None) -> Table:
    """The most frequent class and each modality alone, and what `best` gains over them."""
    name, share = majority(points[0].model.artifact)
    several = points[0].model.artifact.get("label_kind") == "multi"
    of_what = "the most frequent set of labels" if several else "the most frequent class"
    rows = [[f"always {name}, {of_what}", f"{100 * share:.1f}", "", "", ""]]
    alone = [p for p in points if p.model.artifact["variant"] in BASELINES]
    for point in alone:
        gain = difference(best.model, point.model) if best and best is not point else None
        against = [percent(gain, "+"), f"{100 * gain.above:.0f}"] if gain else ["", ""]
        called = f"{point.model.artifact['variant']} only: {point.name}"
        rows.append([called, *_row(point), *against])
    if best and best not in alone:
        rows.append([best.name, *_row(best), "", ""])
    who = best.name if best else "the best"
    heads = ["baseline", "accuracy, %", "p90, ms", f"{who} minus it, points"]
    return Table(f"Baselines, {title}", [*heads, "better in % of resamples"], rows)


def _row(point: Point) -> list[str]:
    return [percent(point.accuracy), _shown(point, "p90")]


def contenders(points: list[Point], machines: dict[str, str]) -> Table:
    """A row for each point; machines: `Point.machine` -> what it is called."""
    heads = ["contender", "machine", "accuracy, %", "p50, ms", "p90, ms", "p99, ms", "samples"]
    heads += ["load, s", "first inference, s", "peak, MiB", "energy of one, mJ"]
    heads += ["variant", "backbones", "seeds", "precision", "runner", "batch", "threads"]
    heads += ["inputs", "hz", "data"]
    rows = [
        [p.name, machines[p.machine], percent(p.accuracy), *_timed(p)]
        + [p.model.artifact["variant"], p.model.backbones, seeds_of(p), p.precision, p.runner]
        + [str(value or "") for value in (p.batch, p.threads, p.inputs, p.hz)]
        + [p.model.artifact["dataset"]]
        for p in points
    ]
    return Table("Every contender", heads, rows)


def _timed(point: Point) -> list[str]:
    if point.estimate:
        return [_shown(point, "p50"), *[""] * 7]
    seconds = point.contender.get("seconds") or {}
    energy = (point.contender.get("power") or {}).get("joules_per_inference")
    peak = point.contender.get("peak_bytes")
    return [
        *(_shown(point, percentile) for percentile in ("p50", "p90")),
        milliseconds(point.latency.get("p99")),
        str(point.latency.get("count", "")),
        *(f"{seconds[k]:.2f}" if seconds.get(k) else "" for k in ("load", "first_inference")),
        f"{peak / 2**20:.0f}" if peak else "",
        milliseconds(1000 * energy) if energy else "",
    ]


def _shown(point: Point, percentile: str) -> str:
    return milliseconds(at(point, percentile)) + (" (estimate)" if point.estimate else "")


def ratios(inputs: Inputs, precisions: list[str]) -> Table:
    """Only what one file measured in alternation; no other two latencies are divided."""
    rows = []
    for path, content in inputs.measured.items():
        for r in content["ratios"]:
            pair = [content["contenders"][r[side]] for side in ("first", "second")]
            if precisions and not all(c["precision"] in precisions for c in pair):
                continue
            names = [c["name"] for c in pair]
            said = VERDICTS[r["verdict"]].format(*names, margin=100 * r["margin"])
            around = [r["ratio"], r["low"], r["high"]]
            if None in around:
                around = f"{r['ratio']:.3f}" if r["ratio"] else ""
            else:
                around = "{:.3f} [{:.3f}, {:.3f}]".format(*around)
            rows.append(
                [*names, around, f"{100 * r['confidence']:g}", str(r["rounds"]), said, path]
            )
    heads = ["first", "second", "first / second", "confidence, %", "rounds", "verdict", "file"]
    return Table("Time of the first over that of the second, in alternating rounds", heads, rows)


def ladder(points: list[Point], machines: dict[str, str]) -> Table:
    """Precisions of one artifact run the same way; accuracy against its fp32, row by row."""

    def same(p):
        way = (p.machine, p.file, p.runner, p.batch, p.threads, str(p.inputs), p.hz)
        return (p.contender["artifact"]["seal"], *way)

    rows = []
    for some in grouped(points, same).values():
        full = next((p for p in some if p.precision == "fp32"), None)
        for p in some if len({p.precision for p in some}) > 1 else []:
            change = full is not None and p is not full
            change = percent(difference(p.model, full.model), "+") if change else ""
            cells = [p.name, machines[p.machine], p.precision, percent(p.accuracy), change]
            rows.append([*cells, _loss(p), _shown(p, "p50")])
    heads = ["contender", "machine", "precision", "accuracy, %", "minus fp32, points"]
    return Table("Precisions of one artifact", [*heads, "may lose, points", "p50, ms"], rows)


def _loss(point: Point) -> str:
    """What the export allowed a precision to lose, and whose word that was."""
    artifact = point.model.artifact
    allowed = artifact["models"][point.precision].get("allowed_loss")
    by = "" if artifact.get("allow_loss") is None else " (--allow_loss)"
    return "" if allowed is None else f"{100 * allowed:.1f}{by}"


def parity(points: list[Point]) -> Table:
    """How far outputs lie from the golden ones, where that was looked at."""
    rows = []
    for p in points:
        difference = p.contender.get("parity")
        if difference:
            cells = [
                f"{difference['relative']:.3g}",
                f"{difference['allowed']:.3g}",
                f"{difference['cosine']:.6f}",
            ]
            rows.append([p.name, *cells])
    heads = ["contender", "largest difference, share of the largest", "allowed", "cosine"]
    return Table("Outputs against the artifact's golden ones", heads, rows)


def fingerprints(inputs: Inputs) -> Table:
    """A column for each file of measurements; what no file knows is left out."""
    facts = {path: dict(_flat(c["fingerprint"])) for path, c in inputs.measured.items()}
    rows = []
    for key in dict.fromkeys(key for of_file in facts.values() for key in of_file):
        cells = [of_file.get(key, "") for of_file in facts.values()]
        if any(cells):
            rows.append([key, "differs" if len(set(cells)) > 1 else "", *cells])
    return Table("What each file was measured on", ["fact", "", *facts], rows)


def _flat(facts: dict, under: str = ""):
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{under}{key}.")
        else:
            shown = "" if value is None else json.dumps(value)
            yield f"{under}{key}", value if isinstance(value, str) else shown


def failed(inputs: Inputs) -> Table:
    """Contenders that ended with an error, and which."""
    rows = [
        [str(c.get("name")), str(c["error"]), path]
        for path, content in inputs.measured.items()
        for c in content["contenders"]
        if c.get("error")
    ]
    return Table("Contenders that did not get to their end", ["contender", "why", "file"], rows)


def notes(inputs: Inputs, points: list[Point], models: list[Model]) -> list[str]:
    """What a reader should hold against the numbers."""
    said = list(inputs.notes)
    for path, content in inputs.measured.items():
        profile, speed = content["method"].get("profile"), content["machine_speed"]
        # Files of before 2026-11 do not say it.
        busy = content.get("moment", {}).get("before", {}).get("busy")
        if busy:
            said.append(f"{path}: as it began: {busy}")
        if profile == "quick":
            said.append(f"{path}: profile quick, too few samples for more than a first look.")
        if profile == "mlperf":
            said.append(f"{path}: profile mlperf follows MLPerf's rules: not an MLPerf result.")
        if not speed["steady"]:
            said.append(f"{path}: {speed.get('sentence') or 'the machine was not steady'}.")
    for path, content in inputs.estimates.items():
        said.append(
            f"{path}: estimates for {content['device']}, nothing was measured there. Assumed: "
            f"{content.get('assumed')}. How far off: {content.get('error')}."
        )
    for point in points:
        skipped = (point.contender.get("stages") or {}).get("skipped")
        if skipped:
            said.append(f"{point.name}: stages were not timed: {skipped}")
    said += [f"{told}." for p in points if (told := outpaced(p.contender))]
    if aside := [p.name for p in points if p.is_paced]:
        said.append(f"Paced or slowed down, so in no chart and no budget: {', '.join(aside)}.")
    if rounded := [p.name for p in points if p.runner == OTHER_ARITHMETIC]:
        said.append(
            f"Accuracy is that of float32, and not known in bfloat16, so on no front and in no "
            f"budget: {', '.join(rounded)}."
        )
    incomplete = [p.name for p in points if p.contender.get("complete") is False]
    if incomplete:
        said.append(f"Not complete, with fewer samples than planned: {', '.join(incomplete)}.")
    own = _exported(models) + _untimed(inputs, points, models) + _narrow(points)
    return said + _subsets(inputs, models) + own


def _subsets(inputs: Inputs, models: list[Model]) -> list[str]:
    every = [*(m.artifact for m in models), *(run.artifact for run in inputs.runs)]
    several = {a["dataset"] for a in every if a.get("label_kind") == "multi"}
    if not several:
        return []
    return [
        f"Several labels a row: {', '.join(sorted(several))}. Accuracy is subset accuracy, the "
        "share of rows whose every label is decided rightly."
    ]


def _exported(models: list[Model]) -> list[str]:
    """What the exports noted of their parity."""
    artifacts = {m.artifact["path"]: m.artifact for m in models}
    return [f"{path}: {n}" for path, of in artifacts.items() for n in of.get("notes", [])]


def _untimed(inputs: Inputs, points: list[Point], models: list[Model]) -> list[str]:
    given = {artifact["path"] for artifact in inputs.artifacts.values()}
    timed = {id(p.model) for p in points}
    return [
        f"{m.artifact['variant']} {m.precision}, {m.backbones}, {m.artifact['dataset']}: accuracy "
        f"{percent(m.accuracy)} %, no latency is given."
        for m in models
        if m.artifact["path"] in given and id(m) not in timed
    ]


def _narrow(points: list[Point]) -> list[str]:
    """Where accuracy intervals leave something out."""
    said = []
    single = [p.name for p in points if len(p.model.correct) == 1]
    if single:
        said.append(
            "One seed only, so the interval lacks the spread between trainings: "
            f"{', '.join(single)}."
        )
    few = {p.model.artifact["dataset"] for p in points if p.model.units < 20}
    if few:
        said.append(
            "Fewer than 20 independent test rows or groups, so that accuracy intervals come out "
            f"too narrow: {', '.join(sorted(few))}."
        )
    return said
