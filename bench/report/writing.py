"""A report, from the files that it is made of to the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.edge import files
from bench.report import runs as trained
from bench.report.gather import gather, points_of
from bench.report.page import page
from bench.report.sections import markdown, sections_of


def write_report(
    inputs: Sequence[Path],
    out: Path,
    *,
    runs: Sequence[Path] = (),
    budget: float = 15.0,
    precisions: Sequence[str] = (),
) -> tuple[list[str], list[Path]]:
    """Read, count, write.

    Args:
        inputs: results, estimates, robustness, folders of them, or artifacts.
        out: a file's name, without its ending, or a folder.
        runs: finished runs, or folders of them.
        budget: what a p90 may take, milliseconds.
        precisions: these alone; none for all.

    Returns:
        The short answer, a line each, and the paths of the text and of the page.

    Raises:
        BenchError: see `gather`; or the files cannot be written.
    """
    read = gather(list(inputs), runs=bool(runs))
    read.runs = trained.read_all(runs)
    points, models = points_of(read, list(precisions))
    lead, sections = sections_of(read, points, models, budget=budget, precisions=precisions)
    out = out / "report" if out.is_dir() else out
    text, drawn = (out.with_name(f"{out.name}.{end}") for end in ("md", "html"))
    title = "Accuracy and latency"
    whole = page(title, lead, sections)
    files.write(text, markdown(title, lead, sections, drawn.name))
    files.write(drawn, whole)
    return lead, [text, drawn]
