"""The Python of measurement: for notebooks and other programs.

    from bench.api import Predictor, measure, report

    results = measure(["artifacts/early", "artifacts/late"], precisions=["fp32", "int8"])
    results.timings[0].p90
    report([results], "report", budget_ms=15).answer
    Predictor("artifacts/early", precision="int8").predict(text="What a day!", image="face.jpg")

Folders and files are given as paths, or as what `export.api` and this module return. Nothing is
printed. A user error is a `BenchError`. In a program, `measure` belongs under
`if __name__ == "__main__":`, since each thing that is timed has a process of its own, which imports
the program's main module.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.edge import results as files_of_results
from bench.edge.contenders import contenders
from bench.edge.errors import BenchError, InputError
from bench.edge.measure import measure as measure_contenders
from bench.edge.method import Method
from bench.edge.predictor import Answer, Predictor
from bench.report.writing import write_report

__all__ = [
    "Answer",
    "BenchError",
    "InputError",
    "Predictor",
    "Ratio",
    "Report",
    "Results",
    "Timing",
    "measure",
    "report",
]


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one thing took; milliseconds, batch by batch.

    Attributes:
        name: short and distinct, "early int8".
        precision, runner, batch, threads: how it ran.
        p50, p90: the median, and the early-stopping estimate of the 90th percentile (MLPerf
            inference rules, appendix on early stopping); None where it failed or was cut short.
        p50_interval: of the median, 95 %.
        count: queries.
        peak_bytes: most memory of its process; None where the system does not tell.
        error: why it was not measured to its end; "" where it was.
    """

    name: str
    precision: str
    runner: str
    batch: int
    threads: int
    p50: float | None
    p90: float | None
    p50_interval: tuple[float, float] | None
    count: int
    peak_bytes: int | None
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How the times of two compare, turn by turn; see `bench.edge.latency.ratio`.

    Attributes:
        first, second: their names.
        ratio, low, high: the first over the second, with its interval; None where there are too
            few turns for one.
        verdict: of the first: "faster", "slower", "same" or "unclear".
    """

    first: str
    second: str
    ratio: float | None
    low: float | None
    high: float | None
    verdict: str


@dataclasses.dataclass(frozen=True)
class Results:
    """A measurement; a path, wherever one is wanted.

    Attributes:
        file: with every sample, the method and the machine; see `bench.edge.results`.
    """

    file: Path

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> Results:
        """Open what `measure`, or `python -m bench`, has written.

        Raises:
            BenchError: it is none.
        """
        found = cls(Path(file))
        _ = found.content
        return found

    def __fspath__(self) -> str:
        return os.fspath(self.file)

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """All that the file says."""
        return files_of_results.read(self.file)

    @property
    def timings(self) -> list[Timing]:
        """Of each thing that was timed, in the order in which they were asked for."""
        return [_timing(each) for each in self.content["contenders"]]

    @property
    def ratios(self) -> list[Ratio]:
        """Of each pair."""
        names = [each["name"] for each in self.content["contenders"]]
        return [
            Ratio(
                names[each["first"]],
                names[each["second"]],
                *(each[name] for name in ("ratio", "low", "high", "verdict")),
            )
            for each in self.content["ratios"]
        ]


def _timing(contender: dict[str, Any]) -> Timing:
    times = contender["latency"] or {}
    interval = times.get("p50_interval")
    return Timing(
        **{name: contender[name] for name in ("name", "precision", "runner", "batch", "threads")},
        p50=times.get("p50"),
        p90=times.get("p90"),
        p50_interval=None if interval is None else tuple(interval),
        count=times.get("count", 0),
        peak_bytes=contender["peak_bytes"],
        error=contender["error"] or "",
    )


def measure(
    artifacts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    precisions: Sequence[str] = ("fp32",),
    runners: Sequence[str] = ("ort",),
    batches: Sequence[int] = (1,),
    threads: Sequence[int] = (0,),
    profile: str = "quick",
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Results:
    """Measure how long artifacts take on this machine, side by side, in turns.

    Args:
        artifacts: folders; one that is there twice is measured twice.
        out: the file of results, which is replaced; None for `results/TIME.json`.
        precisions: "fp32", "fp16", "int8", "int8_static"; ["all"] for those that there are.
        runners: "ort", "openvino", ...; see `python -m bench --help`.
        batches: examples a query. threads: 0 leaves it to the engine.
        profile: "quick" (64 queries and 3 s each), "full" (1024 and 60 s) or "mlperf".
        seed: of the order of turns.
        say: told what is being done.

    Returns:
        The results, also of what failed.

    Raises:
        BenchError: an artifact cannot be read, or does not have what is asked for.
    """
    found = contenders(
        [Path(folder) for folder in artifacts],
        precisions=precisions,
        runners=runners,
        batches=batches,
        threads=threads,
    )
    file = files_of_results.dated() if out is None else Path(out)
    measure_contenders(found, Method(profile=profile, seed=seed), file, say=say)
    return Results(file)


@dataclasses.dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        answer: what fits the budget and how sure that is, in lines.
        page, text: the page, which needs no network, and the same as Markdown.
    """

    answer: list[str]
    page: Path
    text: Path


def report(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] = "report",
    *,
    budget_ms: float = 15.0,
    runs: Sequence[str | os.PathLike[str]] = (),
) -> Report:
    """The front of accuracy against latency, and what is best within a budget.

    Args:
        inputs: results; artifacts, whose accuracy counts as a further seed of the same model.
        out: the name of the page without its ending, or a folder.
        budget_ms: what a p90 may take.
        runs: finished runs, for tables of their accuracies.

    Raises:
        BenchError: one cannot be read, or there is nothing to report.
    """
    paths = [Path(path) for path in inputs]
    lead, (text, page) = write_report(
        paths, Path(out), runs=[Path(run) for run in runs], budget=budget_ms
    )
    return Report(lead, page, text)
