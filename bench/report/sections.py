"""What the page and the Markdown hold, in order; the short answer; the Markdown itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.report import comparison, published, robustness, tables, taught
from bench.report.agreement import MOSI, dataset_of
from bench.report.charts import front_chart, stage_chart, sweep_chart
from bench.report.front import (
    BASELINES,
    OTHER_ARITHMETIC,
    Answer,
    Model,
    Point,
    at,
    best_within,
    grouped,
)
from bench.report.gather import ESTIMATE, Inputs, machine_key
from bench.report.page import Chart, Section, Table, milliseconds, percent
from bench.report.runs import paired

PAPER = (
    "Published numbers stand in columns of their own; the measured ones name their data, "
    "machine and model. Empty: not measured, or not published."
)


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
    plain = [p for p in points if not p.is_paced and p.runner != OTHER_ARITHMETIC]
    timed = [p for p in plain if p.batch == 1 and at(p, "p50")]
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
    answer = best_within(points, budget)
    chosen, said = answer.chosen, []
    if chosen:
        said.append(
            f"{title}: within {budget:g} ms the most accurate is {chosen.name} "
            f"({chosen.model.artifact['variant']} at {chosen.precision}): "
            f"accuracy {percent(chosen.accuracy)} %, {_latency(chosen)}."
        )
        said.append(_gain(answer) if answer.cheaper else "It is the fastest on the front, too.")
    elif answer.nearest:
        said.append(
            f"{title}: nothing fits {budget:g} ms. {answer.nearest.name} comes nearest, "
            f"{_latency(answer.nearest)}."
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
    taken = {m for p in points for m in p.model.artifact["backbones"]}
    missing = [b for b in BASELINES if b not in measured and (b in taken or b in ("text", "image"))]
    if missing:
        said.append(f"Not measured here: {' only, '.join(missing)} only.")
    return said, tables.baselines(title, points, chosen or answer.nearest)


def _gain(answer: Answer) -> str:
    gain, cheaper = answer.gain, answer.cheaper
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


def sections_of(
    inputs: Inputs,
    points: list[Point],
    models: list[Model],
    *,
    budget: float,
    precisions: Sequence[str],
) -> tuple[list[str], list[Section]]:
    """(the short answer, sections)."""
    machines = machine_names(inputs)
    lead, first = _fronts(arenas(points, machines), budget)
    if not points and inputs.robust:
        lead = robustness.lead(inputs.robust)
    pairs = taught.named(paired(inputs.runs))
    if not points and taught.lead(pairs):
        lead = taught.lead(pairs)
    sections = [
        *first,
        Section("What the teacher gave", taught.parts(pairs)),
        Section("Published, PyTorch and ours", _compared(inputs, pairs, points, machines)),
        Section("The paper's tables", _papers(models, points, machines)),
        Section("All contenders", [tables.contenders(points, machines)]),
        Section("Ratios", [tables.ratios(inputs, precisions)]),
        Section("Precision ladder", [tables.ladder(points, machines)]),
        Section("Batch and threads", _sweeps(points, machines)),
        Section("Robustness", robustness.parts(inputs.robust)),
        Section("Stages, from sentence and file to the answer", _stages(points, machines)),
        Section("Parity", [tables.parity(points)]),
        Section("Machines", [tables.fingerprints(inputs)]),
        Section("What failed", [tables.failed(inputs)]),
        Section("Notes", tables.notes(inputs, points, models)),
    ]
    return lead, [s for s in sections if any(_filled(part) for part in s.parts)]


def _papers(models: list[Model], points: list[Point], machines: dict[str, str]) -> list:
    """Beside its data or its engine; beside a user's own on a CPU they would tell nothing."""
    its_data = any(dataset_of(model) == MOSI for model in models)
    if not its_data and not any(published.by_tensorrt(point) for point in points):
        return []
    return [PAPER, *published.tables(models, points, machines)]


def _compared(inputs: Inputs, pairs: list, points: list[Point], machines: dict[str, str]) -> list:
    artifacts = list(inputs.artifacts.values())
    return comparison.parts(pairs, points, artifacts, machines) if pairs else []


def _fronts(held: dict[str, list[Point]], budget: float) -> tuple[list[str], list[Section]]:
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
    return lead, [front, fits]


def _sweeps(points: list[Point], machines: dict[str, str]) -> list[Chart]:
    return [
        chart
        for machine, some in grouped(points, lambda p: p.machine).items()
        for by in ("batch", "threads")
        if (chart := sweep_chart(some, machines[machine], by))
    ]


def _stages(points: list[Point], machines: dict[str, str]) -> list[Chart]:
    staged = [p for p in points if "inference" in (p.contender.get("stages") or {})]
    by_machine = grouped(staged, lambda p: p.machine)
    return [stage_chart(some, machines[machine]) for machine, some in by_machine.items()]


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
