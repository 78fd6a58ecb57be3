"""Turn measurements into a report: the accuracy/latency front, and what fits a budget.

    python -m bench.report results.json --budget-ms=15

An INPUT is a file that `python -m bench` wrote, a file of estimates, a folder of such files, or
an artifact (its accuracy counts as a further seed of the same model). Writes OUT.md and
OUT.html, a page that needs no network. Numbers of machines whose fingerprints differ, and of
different test sets, stand apart; an estimate is called one wherever it appears.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench import latency, published, results
from bench.artifact import META, ArtifactError, described
from bench.artifact import read as read_artifact
from bench.front import (
    BASELINES,
    Model,
    Point,
    at,
    best_within,
    difference,
    grouped,
    majority,
    pool,
)
from bench.page import (
    Section,
    Table,
    front_chart,
    milliseconds,
    page,
    percent,
    seeds_of,
    stage_chart,
    sweep_chart,
)

ESTIMATE = "fusion_keras estimate 1"
VERDICTS = {
    "faster": "{} is faster than {}, by more than {margin:.0f} %",
    "slower": "{} is slower than {}, by more than {margin:.0f} %",
    "same": "{} takes as long as {}, within {margin:.0f} %",
    "unclear": "{} against {}: too noisy to tell, more rounds may",
}
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)


class ReportError(Exception):
    """No report can be made; the message says of what and what to do."""


@dataclass
class Inputs:
    """What was read: path -> content; artifacts are as `bench.artifact.described`."""

    measured: dict[str, dict] = field(default_factory=dict)
    estimates: dict[str, dict] = field(default_factory=dict)
    artifacts: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def gather(paths: list[Path]) -> Inputs:
    """Read every input once.

    Raises:
        ReportError, ArtifactError, results.ResultsError: one cannot be read, or two are the same.
    """
    inputs, seen = Inputs(), set()
    for path in paths:
        for file in _expanded(path):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                _add(inputs, file, optional=file != path)
    if not inputs.measured and not inputs.estimates:
        raise ReportError(
            "got no measurement and no estimate: give a file that `python -m bench` wrote."
        )
    return inputs


def _expanded(path: Path) -> list[Path]:
    if not path.is_dir() or (path / META).is_file():
        return [path]
    files = sorted(path.glob("*.json"))
    if not files:
        raise ReportError(
            f"{path} holds neither results (*.json) nor an artifact: give the folder or file that "
            "`python -m bench` wrote."
        )
    return files


def _add(inputs: Inputs, path: Path, optional: bool) -> None:
    if path.is_dir():
        meta = read_artifact(path)
        # The spec says how many attention blocks an early fusion has.
        inputs.artifacts[str(path)] = {**described(path, meta), "spec": meta.get("spec")}
        return
    content = _content(path)
    form = content.get("format") if isinstance(content, dict) else None
    if form not in (results.FORMAT, ESTIMATE) and optional and not _older(form):
        inputs.notes.append(f"{path} was passed over: it is neither results nor estimates.")
        return
    known = inputs.estimates if form == ESTIMATE else inputs.measured
    if form != ESTIMATE:
        content = results.read(path)
    for other, same in known.items():
        if same == content:
            raise ReportError(f"{other} and {path} are the same measurement: give one of them.")
    try:
        content = _whole(content) if form == results.FORMAT else content
        _check(content)
    except _BROKEN as error:
        raise ReportError(
            f"{path} is not laid out as {form!r} is ({type(error).__name__}: {error}): measure "
            "again, or take it out."
        ) from None
    known[str(path)] = content


def _content(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(
            f"{path} cannot be read ({error.strerror or error}): give a file that "
            "`python -m bench` wrote."
        ) from None
    except ValueError:
        raise ReportError(
            f"{path} is no JSON, perhaps cut short: copy it again, or measure again."
        ) from None


def _older(form) -> bool:
    return str(form).rsplit(" ", 1)[0] in {f.rsplit(" ", 1)[0] for f in (results.FORMAT, ESTIMATE)}


def _whole(content: dict) -> dict:
    """What is worked out at the end of a measurement, for one that was killed before it."""
    contenders = []
    for c in content["contenders"]:
        samples = [block["samples"] for block in c.get("blocks", [])]
        contenders.append({**c, "latency": c.get("latency") or latency.summary(samples or [[]])})
    blocks = [[block["samples"] for block in c.get("blocks", [])] for c in contenders]
    speed = content.get("machine_speed") or latency.drift(blocks)
    ended = {"ratios": content.get("ratios", []), "machine_speed": speed}
    return {**content, **ended, "contenders": contenders}


def _check(content: dict) -> None:
    """Touch all that is wanted later, so that what lacks it is named with its file."""
    entries = content["estimates" if content["format"] == ESTIMATE else "contenders"]
    running = [c for c in entries if not c.get("error")]
    for model in pool(c["artifact"] for c in running).values():
        _ = model.accuracy, model.backbones
    for c in running:
        _ = c["artifact"]["test"]["predicted"][c["precision"]]
    if content["format"] == ESTIMATE:
        for c in running:
            _ = milliseconds((c["milliseconds"], c["low"], c["high"])), content["device"]
        return
    for c in running:
        _ = [milliseconds(c["latency"][f"p{p}"]) for p in (50, 90, 99)], c["name"], c["runner"]
    for r in content["ratios"]:
        _ = entries[r["first"]]["name"], entries[r["second"]]["name"], r["rounds"]
        _ = VERDICTS[r["verdict"]], r["ratio"], r["low"], r["high"], 100 * r["margin"]
    _ = content["machine_speed"]["steady"], content["method"].get("profile")
    _ = content["fingerprint"].keys()


def points_of(inputs: Inputs, precisions: list[str]) -> tuple[list[Point], list[Model]]:
    """Every contender that ran and every estimate, named distinctly; and all models scored."""
    entries = [
        (path, content, entry)
        for path, content in (inputs.measured | inputs.estimates).items()
        for entry in content.get("contenders", content.get("estimates"))
        if not entry.get("error")
    ]
    models = pool([*inputs.artifacts.values(), *(entry["artifact"] for *_, entry in entries)])
    entries = [e for e in entries if not precisions or e[2]["precision"] in precisions]
    if precisions and not entries:
        raise ReportError(
            f"nothing was measured at {', '.join(precisions)}: leave out --precision."
        )
    stems = Counter(Path(path).stem for path in inputs.measured | inputs.estimates)
    names = Counter(_name(entry) for *_, entry in entries)
    points = []
    for path, content, entry in entries:
        estimate = content["format"] == ESTIMATE
        file = Path(path).stem if stems[Path(path).stem] == 1 else path
        name = _name(entry) + (f" ({file})" if names[_name(entry)] > 1 else "")
        model = models[entry["artifact"]["seal"], entry["precision"]]
        points.append(
            Point(
                name=name,
                file=path,
                machine=machine_key(content),
                model=model,
                precision=entry["precision"],
                runner=content["engine"] if estimate else entry["runner"],
                latency=entry if estimate else entry["latency"],
                estimate=estimate,
                contender=entry,
                batch=1 if estimate else entry.get("batch"),
                **{key: entry.get(key) for key in ("threads", "inputs", "hz")},
            )
        )
    return points, list(dict.fromkeys(models.values()))


def _name(entry: dict) -> str:
    if "name" in entry:
        return entry["name"]
    return f"{entry['artifact']['variant']} {entry['precision']} (estimate)"


def machine_key(content: dict) -> str:
    """Equal for what may be compared: equal fingerprints, or estimates of one device."""
    if content["format"] == ESTIMATE:
        return f"estimate {content['device']} {content['engine']} {content.get('assumed')}"
    return json.dumps(content["fingerprint"], sort_keys=True)


def machine_names(inputs: Inputs) -> dict[str, str]:
    """Machine key -> words; numbered where two are called alike."""
    words = {}
    for content in (inputs.measured | inputs.estimates).values():
        facts = content.get("fingerprint", {})
        said = [facts[key] for key in ("board", "gpu", "cpu", "power_mode") if facts.get(key)]
        said = ", ".join(dict.fromkeys(map(str, said)))
        if content["format"] == ESTIMATE:
            said = f"Estimate for {content['device']}, {content['engine']}"
        words.setdefault(machine_key(content), said or "a machine without a name")
    twice = Counter(words.values())
    return {
        key: f"{said} (machine {i})" if twice[said] > 1 else said
        for i, (key, said) in enumerate(words.items(), 1)
    }


def arenas(points: list[Point], machines: dict[str, str]) -> dict[str, list[Point]]:
    """Title -> the points that may be compared: one machine, one test set, one query at a time."""
    timed = [p for p in points if p.batch == 1 and at(p, "p50")]
    tests = dict.fromkeys((p.model.artifact["dataset"], _ids(p)) for p in timed)
    named = {}
    for (machine, ids), some in grouped(timed, lambda p: (p.machine, _ids(p))).items():
        dataset = some[0].model.artifact["dataset"]
        alike = [test for name, test in tests if name == dataset]
        which = f", test set {alike.index(ids) + 1} of {len(alike)}" if len(alike) > 1 else ""
        named[f"{machines[machine]}; {dataset}{which}"] = some
    return named


def _ids(point: Point) -> str:
    return point.model.artifact["test"]["ids"]


def answer(title: str, points: list[Point], budget: float) -> tuple[list[str], Table]:
    """Sentences and the comparison with the baselines, for a budget in milliseconds."""
    found = best_within(points, budget)
    chosen, said = found.chosen, []
    if chosen:
        said.append(
            f"{title}: within {budget:g} ms the most accurate is {chosen.name} "
            f"({chosen.model.artifact['variant']} at {chosen.precision}): "
            f"accuracy {percent(chosen.accuracy)} %, {_latency(chosen)}."
        )
        said.append(_gain(found) if found.cheaper else "It is the fastest on the front, too.")
    elif found.nearest:
        said.append(
            f"{title}: nothing fits {budget:g} ms. {found.nearest.name} comes nearest, "
            f"{_latency(found.nearest)}."
        )
    else:
        said.append(
            f"{title}: nothing has a p90, so nothing is known to fit {budget:g} ms: 64 samples at "
            "least are wanted, measure for longer."
        )
    unknown = [p.name for p in points if not at(p, "p90")]
    if unknown and len(unknown) < len(points):
        said.append(f"Left aside, with too few samples for a p90: {', '.join(unknown)}.")
    measured = {p.model.artifact["variant"] for p in points}
    missing = [baseline for baseline in BASELINES if baseline not in measured]
    if missing:
        said.append(f"Not measured here: {' only, '.join(missing)} only.")
    return said, _baselines(title, points, chosen or found.nearest)


def _baselines(title: str, points: list[Point], best: Point | None) -> Table:
    name, share = majority(points[0].model.artifact)
    rows = [[f"always {name}, the most frequent class", f"{100 * share:.1f}", "", "", ""]]
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


def _gain(found) -> str:
    gain, cheaper = found.gain, found.cheaper
    said = (
        f"Over the next faster one on the front, {cheaper.name} ({percent(cheaper.accuracy)} %, "
        f"{_latency(cheaper)}), it gains {percent(gain, '+')} points (95 % interval), and is "
        f"better in {100 * gain.above:.0f} % of resamples."
    )
    if gain.low > 0:
        return said
    return said + " That is not clear: the cheaper one may be just as good."


def _latency(point: Point) -> str:
    kind = "estimate" if point.estimate else "p90"
    return f"{kind} {milliseconds(at(point, 'p90'))} ms"


def contenders(points: list[Point], machines: dict[str, str]) -> Table:
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
            rows.append([*cells, _shown(p, "p50")])
    heads = ["contender", "machine", "precision", "accuracy, %", "minus fp32, points", "p50, ms"]
    return Table("Precisions of one artifact", heads, rows)


def parity(points: list[Point]) -> Table:
    rows = []
    for p in points:
        found = p.contender.get("parity")
        if found and found.get("max_abs") is not None:
            cells = [f"{found[key]:.3g}" for key in ("max_abs", "allowed")]
            cells.append("yes" if found["max_abs"] <= found["allowed"] else "NO")
            rows.append([p.name, *cells])
    heads = ["contender", "largest difference", "allowed", "within"]
    return Table("Outputs against the artifact's golden ones", heads, rows)


def fingerprints(inputs: Inputs) -> Table:
    facts = {path: dict(_flat(c["fingerprint"])) for path, c in inputs.measured.items()}
    rows = []
    for key in dict.fromkeys(key for found in facts.values() for key in found):
        cells = [found.get(key, "") for found in facts.values()]
        if any(cells):
            rows.append([key, "differs" if len(set(cells)) > 1 else "", *cells])
    return Table("What each file was measured on", ["fact", "", *facts], rows)


def _flat(facts: dict, under: str = ""):
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{under}{key}.")
        else:
            told = "" if value is None else json.dumps(value)
            yield f"{under}{key}", value if isinstance(value, str) else told


def failed(inputs: Inputs) -> Table:
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
    incomplete = [p.name for p in points if p.contender.get("complete") is False]
    if incomplete:
        said.append(f"Not complete, with fewer samples than planned: {', '.join(incomplete)}.")
    return said + _untimed(inputs, points, models) + _narrow(points)


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


def sections_of(
    inputs: Inputs, points: list[Point], models: list[Model], options: argparse.Namespace
) -> tuple[list[str], list[Section]]:
    """(the short answer, sections)."""
    machines, budget = machine_names(inputs), options.budget_ms
    held = arenas(points, machines)
    front, fits, lead = Section("Accuracy against latency"), Section(f"Within {budget:g} ms"), []
    if len(held) > 1:
        front.parts.append(
            "Unlike machines (their fingerprints differ, see Machines), unlike test sets and "
            "estimates stand apart: no chart and no ratio mixes them."
        )
    for title, some in held.items():
        front.parts.append(front_chart(some, title, budget))
        said, table = answer(title, some, budget)
        lead.append(" ".join(said[:2]))
        fits.parts += [*said, table]
    if not held:
        lead = ["Nothing ran to its end with one query at a time (batch 1)."]
    sweeps = [
        chart
        for machine, some in grouped(points, lambda p: p.machine).items()
        for by in ("batch", "threads")
        if (chart := sweep_chart(some, machines[machine], by))
    ]
    staged = grouped([p for p in points if _staged(p)], lambda p: p.machine)
    stages = [stage_chart(some, machines[machine]) for machine, some in staged.items()]
    paper = published.tables(models, points, machines)
    intro = (
        "Published numbers stand in columns of their own; the measured ones name their data, "
        "machine and model. Empty: not measured, or not published."
    )
    tail = [
        Section("The paper's tables", [intro, *paper]),
        Section("All contenders", [contenders(points, machines)]),
        Section("Ratios", [ratios(inputs, options.precision)]),
        Section("Precision ladder", [ladder(points, machines)]),
        Section("Batch and threads", sweeps),
        Section("Stages, from sentence and file to the answer", stages),
        Section("Parity", [parity(points)]),
        Section("Machines", [fingerprints(inputs)]),
        Section("What failed", [failed(inputs)]),
        Section("Notes", notes(inputs, points, models)),
    ]
    return lead, [s for s in (front, fits, *tail) if any(_filled(part) for part in s.parts)]


def _staged(point: Point) -> bool:
    return "inference" in (point.contender.get("stages") or {})


def _filled(part) -> bool:
    return bool(part.rows) if isinstance(part, Table) else True


def markdown(title: str, lead: list[str], sections: list[Section], pictures: str) -> str:
    """The same report as text; charts are named with the file that has them."""
    lines = [f"# {title}", "", *[f"{_marked(line)}\n" for line in lead]]
    for section in sections:
        lines += [f"## {_marked(section.title)}", ""]
        for part in section.parts:
            if isinstance(part, Table):
                lines += [f"**{_marked(part.title)}**", "", _markdown_row(part.heads)]
                lines.append("|" + "---|" * len(part.heads))
                lines += [_markdown_row(row) for row in part.rows]
            elif isinstance(part, str):
                lines.append(_marked(part))
            else:
                lines.append(f"Chart in {_marked(pictures)}: {_marked(part.title)}")
            lines.append("")
    return "\n".join(lines)


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(_marked(cell) for cell in cells) + " |"


def _marked(text: str) -> str:
    """Text that Markdown takes for text, also within a table."""
    text = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    for sign in "\\|*_`":
        text = text.replace(sign, f"\\{sign}")
    return text


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}.") from None


def _budget(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of milliseconds above 0")
    return value


def report(options: argparse.Namespace) -> tuple[list[str], list[Path]]:
    """Read, count, write; returns the short answer and the two paths.

    Raises:
        ReportError, ArtifactError, results.ResultsError: see `gather`; or OUT cannot be written.
    """
    inputs = gather(options.input)
    points, models = points_of(inputs, options.precision)
    lead, sections = sections_of(inputs, points, models, options)
    out = options.out / "report" if options.out.is_dir() else options.out
    texts, pages = (out.with_name(f"{out.name}.{end}") for end in ("md", "html"))
    title = "Accuracy and latency"
    whole = page(title, lead, sections)
    _write(texts, markdown(title, lead, sections, pages.name))
    _write(pages, whole)
    return lead, [texts, pages]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=Path, nargs="+", help="results, estimates, or artifacts")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="OUT.md and OUT.html (default: report)"
    )
    parser.add_argument(
        "--budget-ms", type=_budget, default=15.0, help="what a p90 may take (default 15)"
    )
    parser.add_argument(
        "--precision", action="append", default=[], help="only this one; may be given again"
    )
    options = parser.parse_args(arguments)
    try:
        lead, paths = report(options)
    except (ReportError, ArtifactError, results.ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(
            f"error: {error}: pip install plotly, or run the report on another machine: it needs "
            "only the results.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    print("\n".join(lead))
    print(f"\nReport: {paths[0]}\n        {paths[1]}\nNext: open {paths[1]} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
