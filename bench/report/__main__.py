"""Turn measurements into a report: the accuracy/latency front, and what fits a budget.

    python -m bench.report results.json --budget-ms=15

An INPUT is a file that `python -m bench` wrote, a file of estimates, what
`python -m fusion_keras.robustness` wrote, a folder of such files, or an artifact (its accuracy
counts as a further seed of the same model). --runs adds the paper's tables 2 to 5 as published,
by the PyTorch reference and by us, from what training wrote. Writes
OUT.md and OUT.html, a page that needs no network. Numbers of machines whose fingerprints differ,
and of different test sets, stand apart; an estimate is called one wherever it appears.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bench.edge import results
from bench.edge.artifact import ArtifactError
from bench.report import runs
from bench.report.gather import ReportError, gather, points_of
from bench.report.page import page
from bench.report.sections import markdown, sections_of


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}.") from None


def budget_ms(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of milliseconds above 0")
    return value


def folders(text: str) -> list[Path]:
    """A comma-separated list of folders, each once, for argparse."""
    return [Path(part) for part in dict.fromkeys(text.split(",")) if part]


def report(options: argparse.Namespace) -> tuple[list[str], list[Path]]:
    """Read, count, write; returns the short answer and the two paths.

    Raises:
        ReportError, ArtifactError, results.ResultsError: see `gather`; or OUT cannot be written.
    """
    inputs = gather(options.input, runs=bool(options.runs))
    inputs.runs = runs.read_all(options.runs)
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
    parser.add_argument(
        "input", type=Path, nargs="*", help="results, estimates, robustness, or artifacts"
    )
    parser.add_argument(
        "--runs", type=folders, default=[], help="DIR,DIR: finished runs, or folders of them"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="OUT.md and OUT.html (default: report)"
    )
    parser.add_argument(
        "--budget-ms", type=budget_ms, default=15.0, help="what a p90 may take (default 15)"
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
