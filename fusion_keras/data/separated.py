"""Lines of a comma- or tab-separated file -> cells: what a quote means, and what it may swallow."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

from fusion_keras.errors import UsageError

# Python's csv module refuses cells of 128 KiB; this is the most that it can be told.
_LONGEST_CELL = 2**31 - 1
# Distinct cells that are looked for again.
_KNOWN = 1 << 16


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """Cells of one row, which begins at line `begin` and ends before `end`."""

    begin: int
    end: int
    cells: list[str]


def separated(path: Path, text: str, separator: str) -> tuple[list[Line], tuple[str, ...]]:
    """-> the lines that are not blank, and notes on quotes that may be meant otherwise.

    Commas are quoted as RFC 4180 does. Quotes in a tab-separated file are text unless it shows
    that it quotes: every cell that begins with one ends with one, and none runs over what is
    likely to be cells of rows.

    Raises:
      UsageError: a quote of a comma-separated file is not closed.
    """
    if separator == "\t":
        return _tab_separated(path, text)
    lines, problem = _quoted_lines(text, separator)
    if problem:
        raise UsageError(
            f"got {problem} of {path}, wanted every quote closed and quotes inside a quoted cell "
            "doubled; fix that row."
        )
    found = _swallowing(text, lines, separator)
    notes = _named(path, [line for line in found.likely if line.end - line.begin > 1])
    return lines, notes + _spaced(path, lines)


def _tab_separated(path: Path, text: str) -> tuple[list[Line], tuple[str, ...]]:
    """-> its rows, and a note where a quote begins a cell and is taken as text."""
    plain = _plain_lines(text, "\t")
    begun = [line.begin for line in plain if any(cell.startswith('"') for cell in line.cells)]
    if not begun:
        return plain, ()
    lines, problem = _quoted_lines(text, "\t")
    found = _Swallowing([], []) if problem else _swallowing(text, lines, "\t")
    if not problem and not found.likely:
        return lines, _named(path, found.possible)
    if found.likely:
        first, last = found.likely[0].begin, found.likely[0].end - 1
        problem = f"the one in line {first} would run to line {last}, over cells of rows"
    return plain, (
        f"{path.name}: {len(begun)} rows have a cell that begins with a quote, the first in line "
        f"{begun[0]}; quotes are read as text, for not all are closed as in a quoted table "
        f"({problem})",
    )


def _spaced(path: Path, lines: list[Line]) -> tuple[str, ...]:
    """A note on cells whose quotes stand behind a blank, and are text by that."""
    spaced = [
        line.begin
        for line in lines
        if any(
            c.startswith(" ") and len(p := c.strip()) > 1 and p[0] == p[-1] == '"'
            for c in line.cells
        )
    ]
    if not spaced:
        return ()
    return (
        f"{path.name}: {len(spaced)} rows have a blank between separator and quote, the first in "
        f"line {spaced[0]}; such quotes are part of the text: take the blanks out",
    )


def _named(path: Path, swallowed: list[Line]) -> tuple[str, ...]:
    """A note, where there are any."""
    if not swallowed:
        return ()
    first, last = swallowed[0].begin, swallowed[0].end - 1
    return (
        f"{path.name}: {len(swallowed)} quoted cells run over lines that look like rows of their "
        f"own, the first from line {first} to {last}; if its quote is text, quote the cell and "
        "double it",
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
    # A label, a split or an image is in many rows: one text of it is kept.
    known: dict[str, str] = {}
    try:
        for cells in reader:
            if cells:
                if len(known) < _KNOWN:
                    cells = [known.setdefault(cell, cell) for cell in cells]
                else:
                    cells = [known.get(cell, cell) for cell in cells]
                lines.append(Line(begin, reader.line_num + 1, cells))
            begin = reader.line_num + 1
    except csv.Error as error:
        return lines, f"{error} in the row that begins at line {begin}"
    finally:
        csv.field_size_limit(limit)
    return lines, ""


@dataclasses.dataclass(frozen=True)
class _Swallowing:
    """Rows whose lines, read without quotes, have as many cells as the header each.

    Attributes:
      possible: over several lines.
      likely: those of which in some column each line has a value that other rows have there, too
        (a label, a split), and those that have too few cells with quotes.
    """

    possible: list[Line]
    likely: list[Line]


def _swallowing(text: str, lines: list[Line], separator: str) -> _Swallowing:
    width = len(lines[0].cells) if lines else 0
    odd = [ln for ln in lines if ln.end - ln.begin > 1 or len(ln.cells) != width]
    if not odd or width < 2:
        return _Swallowing([], [])
    plain = {line.begin: line.cells for line in _plain_lines(text, separator)}
    single = [ln.cells for ln in lines[1:] if ln.end - ln.begin == 1 and len(ln.cells) == width]
    known = [set(cells) for cells in zip(*single, strict=True)] or [set()] * width
    possible, likely = [], []
    for line in odd:
        parts = [plain.get(number, []) for number in range(line.begin, line.end)]
        if any(len(cells) != width for cells in parts):
            continue
        if len(parts) > 1:
            possible.append(line)
        shared = any(all(cells[i] in known[i] for cells in parts) for i in range(width))
        if len(line.cells) != width or shared:
            likely.append(line)
    return _Swallowing(possible, likely)
