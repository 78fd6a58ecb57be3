"""Reads a CSV, TSV or JSON-lines file into rows of text cells, with true line numbers.

Text is never repaired: what the file says is what the tokenizer sees. The one exception is
an unpaired surrogate, which JSON can spell and UTF-8 cannot; it becomes U+FFFD.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import json
import math
from pathlib import Path

from fusion_keras.data.records import SPLITS, SkipLog
from fusion_keras.errors import UsageError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")


_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "development": "valid",
    "test": "test",
    "testing": "test",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: `line` is where it begins in the file, counted from 1."""

    line: int
    cells: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in memory. A column that a JSON row lacks reads as the empty text."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def require(self, name: str, purpose: str, hint: str = "") -> str:
        """Gives `name` back, or raises UsageError that lists the columns found."""
        if name in self.columns:
            return name
        raise UsageError(
            f"got no column {name!r} in {self.path} (columns: {', '.join(self.columns)}), wanted "
            f"one for the {purpose}; do name the right one{hint}."
        )


def read_table(path: str | Path, skips: SkipLog) -> Table:
    """Reads a whole table; rows of a wrong length go to `skips`, and its total is set.

    Cells are separated as the suffix says (.csv: comma, .tsv: tab), quoted as RFC 4180 does;
    .jsonl, .ndjson and .json hold one JSON object a line. The encoding is UTF-8, with or
    without a byte-order mark. Blank lines are passed over.

    Raises:
      UsageError: the file is missing or unreadable, is not UTF-8, holds a NUL byte, cannot
        be parsed, or has no rows.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SEPARATORS and suffix not in _JSON_LINES:
        raise UsageError(
            f"got {path}, wanted a table whose name ends in "
            f"{', '.join([*_SEPARATORS, *_JSON_LINES])}; do rename or convert it."
        )
    text = _read_text(path)
    if suffix in _SEPARATORS:
        table, broken = _parse_separated(path, text, _SEPARATORS[suffix])
    else:
        table, broken = _parse_json_lines(path, text), []
    skips.total = len(table.rows) + len(broken)
    for line, reason in broken:
        skips.add(line, reason)
    if skips.total == 0:
        raise UsageError(f"got no rows in {path}, wanted at least one; do check the file.")
    return table


def parse_number(cell: str) -> float | None:
    """The finite number that a cell spells, or None."""
    try:
        number = float(cell.replace("_", "?"))  # Python would read 1_0 as 10
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def parse_split(cell: str, where: str) -> str:
    """One of records.SPLITS, or UsageError naming `where`; synonyms and any case are taken."""
    split = _SPLIT_NAMES.get(cell.strip().lower())
    if split is None:
        raise UsageError(
            f"got the split {cell!r} in {where}, wanted one of {', '.join(SPLITS)}; do mend it, or "
            "leave the split column out."
        )
    return split


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"got {path}, which does not exist; do check the path.") from None
    except OSError as error:
        raise UsageError(f"got {path}, which cannot be read: {error.strerror}.") from None
    try:
        text = content.decode("utf-8-sig")
        offset = content.find(b"\0")
        if offset < 0:
            return text
        advice = "remove the NUL byte, or copy the file anew if it is damaged"
    except UnicodeDecodeError as error:
        # The codec drops a byte-order mark before it counts; we count in the file.
        offset = error.start + (len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0)
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "UTF-16" if wide else "WINDOWS-1252"
        advice = f"convert the file, for example with `iconv -f {encoding} -t UTF-8 {path.name}`"
    line = content.count(b"\n", 0, offset) + 1
    raise UsageError(
        f"got byte 0x{content[offset]:02x} at offset {offset} (line {line}) of {path}, wanted "
        f"UTF-8 text; do {advice}."
    )


def _parse_separated(path: Path, text: str, separator: str):
    """-> the table, and (line, reason) for each row of a wrong length."""
    # strict: an unclosed quote would otherwise swallow the rest of the file in silence.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: tuple[str, ...] = ()
    rows, broken, begin = [], [], 1
    try:
        for cells in reader:
            line, begin = begin, reader.line_num + 1
            if not cells:
                continue
            if not columns:
                columns = _checked_header(path, cells)
            elif len(cells) != len(columns):
                broken.append(
                    (line, f"{len(cells)} cells under {len(columns)} columns (unquoted separator?)")
                )
            else:
                rows.append(Row(line, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise UsageError(
            f"got {error} in the row that begins at line {begin} of {path}, wanted every quote "
            "closed and quotes inside a quoted cell doubled; do mend that row."
        ) from None
    return Table(path, columns, rows), broken


def _checked_header(path: Path, cells: list[str]) -> tuple[str, ...]:
    columns = tuple(cell.strip() for cell in cells)
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise UsageError(
            f"got the column {twice[0]!r} twice in {path}, wanted distinct names; do rename one."
        )
    return columns


def _parse_json_lines(path: Path, text: str) -> Table:
    columns: dict[str, None] = {}  # an ordered set
    rows = []
    for line, entry in enumerate(text.split("\n"), start=1):
        if not entry.strip():
            continue
        try:
            value = json.loads(entry)
        except (json.JSONDecodeError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise UsageError(
                f"got line {line} of {path}, which is no JSON object, wanted one object a line "
                '({"text": ..., "image": ..., "label": ...}); do write it so.'
            )
        cells = {key.strip(): _json_cell(path, line, key, cell) for key, cell in value.items()}
        columns.update(dict.fromkeys(cells))
        rows.append((line, cells))
    names = tuple(columns)
    return Table(path, names, [Row(n, {k: c.get(k, "") for k in names}) for n, c in rows])


def _json_cell(path: Path, line: int, key: str, value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    # A nested value that the caller does not ask for does no harm; as text it never matches.
    if not isinstance(value, str):
        return json.dumps(value)
    if "\0" in value:
        raise UsageError(
            f"got a NUL character under {key!r} in line {line} of {path}, wanted text; "
            "do remove it."
        )
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
