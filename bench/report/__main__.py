"""Turn measurements into a report: the accuracy/latency front, and what fits a budget.

    python -m bench.report results.json --budget_ms=15

An INPUT is a file that `python -m bench` wrote, a file of estimates, what
`python -m fusion_keras.robustness` wrote, a folder of such files, or an artifact (its accuracy
counts as a further seed of the same model). --runs adds what training wrote,
by the PyTorch reference and by us, and beside CMU-MOSI the paper's tables 2 to 5. Writes
OUT.md and OUT.html, a page that needs no network. Numbers of machines whose fingerprints differ,
and of different test sets, stand apart; an estimate is called one wherever it appears.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.edge import flags
from bench.edge.entry import ends
from bench.report.writing import write_report

INSTALL = "pip install plotly, or run the report on another machine: it needs only the results."


@ends(install=INSTALL)
def main(arguments: list[str]) -> int:
    parser = flags.parser("bench.report", __doc__, older={"precision": "precisions"})
    add = parser.add_argument
    add(
        "inputs",
        type=Path,
        nargs="*",
        metavar="INPUT",
        help="results, estimates, robustness, or artifacts",
    )
    runs_help = "DIR,DIR: finished runs, or folders of them"
    add("--runs", type=flags.folders, default=[], help=runs_help)
    add("--out", type=Path, default=Path("report"), help="OUT.md and OUT.html (default: report)")
    budget = "what a p90 may take (default 15)"
    add("--budget_ms", type=flags.milliseconds, default=15.0, help=budget)
    add("--precisions", type=flags.words, default=[], help="only these: fp32,int8 (all)")
    given = parser.parse_args(arguments)
    lead, paths = write_report(
        given.inputs,
        given.out,
        runs=given.runs,
        budget=given.budget_ms,
        precisions=given.precisions,
    )
    print("\n".join(lead))
    print(f"\nReport: {paths[0]}\n        {paths[1]}\nNext: open {paths[1]} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
