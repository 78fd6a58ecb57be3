"""Reading what a report is made of: results, estimates and artifacts, and the points in them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.edge import latency, results
from bench.edge.artifact import META, described
from bench.edge.artifact import read as read_artifact
from bench.edge.errors import BenchError
from bench.report import robustness
from bench.report.front import Model, Point, pool
from bench.report.page import milliseconds

ESTIMATE = "fusion_keras estimate 1"
VERDICTS = {
    "faster": "{} is faster than {}, by more than {margin:.0f} %",
    "slower": "{} is slower than {}, by more than {margin:.0f} %",
    "same": "{} takes as long as {}, within {margin:.0f} %",
    "unclear": "{} against {}: too noisy to tell, more rounds may",
}
_PRODUCTS = ("Conv", "MatMul", "Gemm")
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)


class ReportError(BenchError):
    """No report can be made; the message says of what and what to do."""


@dataclass
class Inputs:
    """What was read: path -> content.

    Artifacts are as `bench.edge.artifact.described`, and macs: the multiply-adds of one example at
    its full length. robust: what `python -m fusion_keras.robustness` wrote. runs: what
    `bench.report.runs.read` read.
    """

    measured: dict[str, dict] = field(default_factory=dict)
    estimates: dict[str, dict] = field(default_factory=dict)
    artifacts: dict[str, dict] = field(default_factory=dict)
    robust: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    runs: list = field(default_factory=list)


def gather(paths: list[Path], runs: bool = False) -> Inputs:
    """Read every input once; `runs`: there are runs to report, with nothing else if need be.

    Raises:
        ReportError, ArtifactError, results.ResultsError: one cannot be read, or two are the same.
    """
    inputs, seen = Inputs(), set()
    for path in paths:
        for file in _expanded(path):
            if file.resolve() not in seen:
                seen.add(file.resolve())
                _add(inputs, file, optional=file != path)
    if not inputs.measured and not inputs.estimates and not inputs.robust and not runs:
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
        artifact = {**described(path, meta), "macs": _macs(meta.get("costs", []))}
        if not artifact["test"]["labels"]:
            raise ReportError(f"{path / 'test.csv'} has no rows: export the run again.")
        inputs.artifacts[str(path)] = artifact
        return
    content = _content(path)
    form = content.get("format") if isinstance(content, dict) else None
    held = {ESTIMATE: inputs.estimates, robustness.FORMAT: inputs.robust}
    if form not in (results.FORMAT, *held) and optional:
        inputs.notes.append(
            f"{path} was passed over: it is neither {results.FORMAT!r} nor {ESTIMATE!r}."
        )
        return
    known = held.get(form, inputs.measured)
    if form not in held:
        content = results.read(path)
    for other, same in known.items():
        if same == content:
            raise ReportError(f"{other} and {path} are the same measurement: give one of them.")
    try:
        content = _whole(content) if form == results.FORMAT else content
        robustness.check(content) if form == robustness.FORMAT else _check(content)
    except _BROKEN as error:
        raise ReportError(
            f"{path} is not laid out as {form!r} is ({type(error).__name__}: {error}): measure "
            "again, or take it out."
        ) from None
    known[str(path)] = content


def _macs(costs: list[dict]) -> int:
    """Multiply-adds of convolutions and products, as `export/cost.py` counts them."""
    return sum(row["flops"] for row in costs if row["operator"] in _PRODUCTS) // 2


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
        _ = [c["parity"][key] for key in ("relative", "allowed", "cosine") if c.get("parity")]
    for r in content["ratios"]:
        _ = 100 * r["confidence"]
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
            f"nothing was measured at {', '.join(precisions)}: leave out --precisions."
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
    return f"{Path(entry['artifact']['path']).name} {entry['precision']} (estimate)"


def machine_key(content: dict) -> str:
    """Equal for what may be compared: equal fingerprints, or estimates of one device."""
    if content["format"] == ESTIMATE:
        return f"estimate {content['device']} {content['engine']} {content.get('assumed')}"
    return json.dumps(content["fingerprint"], sort_keys=True)
