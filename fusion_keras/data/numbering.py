"""How a row of a table is called: by the line where it begins, or by its number where a file has
no lines. Both are counted from 1; the name of the file tells which it is."""

from __future__ import annotations

# The ends of the names of files of columns, which have rows and no lines.
COLUMNAR = (".parquet", ".feather", ".arrow")


def unit(source: str) -> str:
    """ "row" or "line"."""
    return "row" if source.lower().endswith(COLUMNAR) else "line"


def numbered(source: str, number: int) -> str:
    """ "line 7"."""
    return f"{unit(source)} {number}"


def place(source: str, number: int) -> str:
    """ "label.csv line 7"."""
    return f"{source} {numbered(source, number)}"
