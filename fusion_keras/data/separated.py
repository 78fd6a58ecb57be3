"""Lines of a comma- or tab-separated file -> cells: what a quote means, and what it may swallow."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

from fusion_keras.errors import UsageError

# Python's csv module refuses cells of 128 KiB; this is the most that it can be told.
_LONGEST_CELL = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Line:
    """Cells of one row, which begins at line `begin` and ends before `end`."""

    begin: int
    end: int
    cells: list[str]


def separated(path: Path, text: str, separator: str) -> tuple[list[Line], tuple[str, ...]]:
    """-> the lines that are not blank, and notes on quotes that may be meant otherwise.

    Commas are quoted as RFC 4180 does. Quotes in a tab-separated file are text unless it shows
    that it quotes: every cell that begins with one ends with one, and none runs over lines that
    are rows of their own.

    Raises:
      UsageError: a quote of a comma-separated file is not closed.
    """
    if separator == "\t":
        return _tab_separated(path, text)
    lines, problem = _quoted_lines(text, separator)
    if problem:
        raise UsageError(
            f"got {problem} of {path}, wanted every quote closed and quotes inside a quoted cell "
            "doubled; do mend that row."
        )
    swallowed = _swallowing(text, lines, separator, sure=False)
    if not swallowed:
        return lines, ()
    return lines, (
        f"{path.name}: {len(swallowed)} quoted cells run over lines that look like rows of their "
        f"own, the first from line {swallowed[0].begin} to {swallowed[0].end - 1}; if its quote is "
        "text, do quote the cell and double it",
    )


def _tab_separated(path: Path, text: str) -> tuple[list[Line], tuple[str, ...]]:
    """-> its rows, and a note where a quote begins a cell and is taken as text."""
    plain = _plain_lines(text, "\t")
    first = next((ln.begin for ln in plain if any(c.startswith('"') for c in ln.cells)), 0)
    if not first:
        return plain, ()
    quoted, problem = _quoted_lines(text, "\t")
    swallowed = [] if problem else _swallowing(text, quoted, "\t", sure=True)
    if not problem and not swallowed:
        return quoted, ()
    if swallowed:
        ends = swallowed[0].begin, swallowed[0].end - 1
        problem = f"the one in line {ends[0]} would run to line {ends[1]}, over rows"
    count = sum(any(cell.startswith('"') for cell in line.cells) for line in plain)
    return plain, (
        f"{path.name}: {count} rows have a cell that begins with a quote, the first in line "
        f"{first}; quotes are read as text, for not all are closed as in a quoted table "
        f"({problem})",
    )


def _plain_lines(text: str, separator: str) -> list[Line]:
    lines = io.StringIO(text, newline="")
    cells = (line.rstrip("\r\n").split(separator) for line in lines)
    numbered = enumerate(cells, start=1)
    return [Line(n, n + 1, found) for n, found in numbered if found != [""]]


def _quoted_lines(text: str, separator: str) -> tuple[list[Line], str]:
    """-> the rows, and what is wrong with the first of which the quotes are not closed, or ""."""
    # strict: an unclosed quote would otherwise swallow the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    limit = csv.field_size_limit(_LONGEST_CELL)
    lines, begin = [], 1
    try:
        for cells in reader:
            if cells:
                lines.append(Line(begin, reader.line_num + 1, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        return lines, f"{error} in the row that begins at line {begin}"
    finally:
        csv.field_size_limit(limit)
    return lines, ""


def _swallowing(text: str, lines: list[Line], separator: str, sure: bool) -> list[Line]:
    """Rows over several lines each of which, read without quotes, would have as many cells.

    Unless that is `sure` to make it a row, as tabs are, each must also have in some column a value
    that other rows have there, too: a label, a split.
    """
    several = [line for line in lines if line.end - line.begin > 1]
    if not several:
        return []
    plain = {line.begin: line.cells for line in _plain_lines(text, separator)}
    width = len(lines[0].cells)
    single = [line.cells for line in lines[1:] if line.end - line.begin == 1]
    known = [{cells[i] for cells in single if len(cells) == width} for i in range(width)]

    def of_rows(line: Line) -> bool:
        parts = [plain.get(number, []) for number in range(line.begin, line.end)]
        if any(len(cells) != width for cells in parts):
            return False
        return sure or any(all(cells[i] in known[i] for cells in parts) for i in range(width))

    return [line for line in several if width > 1 and of_rows(line)]
