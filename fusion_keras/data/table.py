"""Reads a table of any format into rows of text cells, with true numbers of lines or rows.

Text is never repaired: what the file says is what the tokenizer sees. The one exception is
an unpaired surrogate, which JSON can spell and UTF-8 cannot; it becomes U+FFFD.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from fusion_keras.data.columnar import read_columnar
from fusion_keras.data.encodings import read_text
from fusion_keras.data.numbering import COLUMNAR, place
from fusion_keras.data.records import SPLITS, SkipLog
from fusion_keras.data.separated import Line, separated
from fusion_keras.errors import UsageError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")

# What pandas, spreadsheets, data bases and JSON write where there is nothing.
MISSING = ("nan", "<na>", "#n/a", "n/a", "none", "null")
# Those that may also be meant: no emotion, no garage.
PERHAPS_NAMES = ("n/a", "none", "null")

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


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row: `line` is where it begins in the file, or its number where that has no lines.

    nested: the columns whose cell is a JSON list or object; it stands in `cells` as JSON.
    """

    line: int
    cells: dict[str, str]
    nested: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in memory. A column that a JSON row lacks reads as the empty text.

    Attributes:
      columns: distinct names; a column without one is nobody's.
      repeated: those that more than one column has; nobody may ask for them.
      of_bytes: those that hold bytes; nobody may ask for them.
      notes: sentences about what could have been meant otherwise.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]
    repeated: frozenset[str] = frozenset()
    of_bytes: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def require(
        self,
        name: str,
        purpose: str,
        hint: str = "",
        *,
        setting: str = "",
        lists: bool = False,
        instead: str = "",
    ) -> str:
        """Gives `name` back, or raises UsageError that lists the columns found.

        It is one too that a row has a list or an object there, for one value is wanted; unless
        `lists` are taken. hint, instead: what else may be done about a column that is not there,
        about a list. setting: of `config.data.manifest`, that names the column.
        """
        if name in self.repeated:
            raise UsageError(
                f"got the column {name!r} twice in {self.path}, wanted distinct names; rename one."
            )
        if name not in self.columns:
            named = f" (--config.data.manifest.{setting})" if setting else ""
            raise UsageError(
                f"got no column {name!r} in {self.path} (columns: {', '.join(self.columns)}), "
                f"wanted one for the {purpose}{named}; {self._perhaps(name)}{hint}."
            )
        if name in self.of_bytes:
            raise UsageError(
                f"got bytes under {name!r} in {self.path.name}, wanted one {purpose} a row, as a "
                "text or a number; write the bytes into files and their names into the column, or "
                f"name another column{hint}{instead}."
            )
        for row in self.rows:
            if name in row.nested and not lists:
                raise UsageError(
                    f"got {shortened(row.cells[name])} under {name!r} in "
                    f"{place(self.path.name, row.line)}, wanted one {purpose}, no list or object; "
                    f"write one value a row, or name another column{hint}{instead}."
                )
        return name

    def _perhaps(self, name: str) -> str:
        """What to do where there is no column of this name."""
        alike = [c for c in self.columns if c.casefold() == name.strip().casefold()]
        if alike:
            return f"{alike[0]!r} is written otherwise: name it so"
        if len(self.columns) == 1:
            header = self.columns[0]
            sign = next((s for s in (";", "\t", "|", ",") if s in header), None)
            if sign:
                shown = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}[sign]
                rename = {"\t": ", so rename it to .tsv", ",": ", so rename it to .csv"}
                return (
                    f"its header looks like names with {shown} between: .csv is read with commas "
                    f"and .tsv with tabs{rename.get(sign, ', so write it with one of these')}"
                )
        return "name the right one"


def read_table(
    path: str | Path,
    skips: SkipLog,
    *,
    columns: Collection[str] | None = None,
    encoding: str = "",
    encoding_flag: str = "",
) -> Table:
    """Reads a whole table; rows of a wrong length go to `skips`, and its total is set.

    Cells are separated as the suffix says (.csv: comma, .tsv: tab), quoted as RFC 4180 does, in
    a .tsv where it shows that; .jsonl, .ndjson and .json hold one JSON object a line; .parquet,
    .feather and .arrow are files of columns (see `columnar.read_columnar`). Blank lines are passed
    over. Beyond the last named column nothing may stand, unless most rows have
    something there: a comma that nobody quoted has pushed a cell out of its column.

    Args:
      columns: those that are asked for, if it is known: of a file of columns no others are read.
      encoding, encoding_flag: see `encodings.read_text`; of files of text alone.

    Raises:
      UsageError: the file is missing or unreadable, is not of the encoding, holds a NUL byte,
        cannot be parsed, or has no rows.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    known = (*_SEPARATORS, *_JSON_LINES, *COLUMNAR)
    if suffix not in known:
        raise UsageError(
            f"got {path}, wanted a table whose name ends in "
            f"{', '.join(known)}; rename or convert it."
        )
    broken = []
    if suffix in COLUMNAR:
        table = _of_columns(path, columns)
    elif suffix in _JSON_LINES:
        table = _parse_json_lines(path, read_text(path, encoding, encoding_flag))
    else:
        text = read_text(path, encoding, encoding_flag)
        table, broken = _table_of(path, *separated(path, text, _SEPARATORS[suffix]))
    skips.total = len(table.rows) + len(broken)
    for line, reason in broken:
        skips.add(line, reason)
    if skips.total == 0:
        raise UsageError(f"got no rows in {path}, wanted at least one; check the file.")
    return table


def shortened(text: str, length: int = 40) -> str:
    """A cell as it is shown in a message."""
    return text if len(text) <= length else text[: length - 3] + "..."


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
            f"got the split {cell!r} in {where}, wanted one of {', '.join(SPLITS)}; fix it, or "
            "leave the split column out."
        )
    return split


def _table_of(path: Path, lines: list[Line], notes: tuple[str, ...]):
    """-> the table, and (line, reason) for each row of a wrong length; the first is the header."""
    header = [cell.strip() for cell in lines[0].cells] if lines else []
    lines = lines[1:]
    named = max((i for i, name in enumerate(header, start=1) if name), default=0)
    beyond = [any(cell.strip() for cell in line.cells[named:]) for line in lines]
    often = 2 * sum(beyond) > len(lines)
    rows, broken = [], []
    for line, over in zip(lines, beyond, strict=True):
        if len(line.cells) != len(header):
            reason = f"{len(line.cells)} cells under {len(header)} columns (unquoted separator?)"
            broken.append((line.begin, reason))
        elif over and not often:
            reason = f"a value beyond the last named column, {header[named - 1]!r}"
            broken.append((line.begin, f"{reason} (unquoted separator?)"))
        else:
            cells = zip(header, line.cells, strict=True)
            rows.append(Row(line.begin, {name: cell for name, cell in cells if name}))
        line.cells.clear()  # of many rows both would not fit
    counts = Counter(name for name in header if name)
    repeated = frozenset(name for name, count in counts.items() if count > 1)
    return Table(path, tuple(counts), rows, repeated, notes=notes), broken


def _of_columns(path: Path, wanted: Collection[str] | None) -> Table:
    names, of_bytes, found = read_columnar(path, wanted)
    counts = Counter(name for name in names if name)
    repeated = frozenset(name for name, count in counts.items() if count > 1)
    rows = [Row(n, cells, nested) for n, (cells, nested) in enumerate(found, start=1)]
    return Table(path, tuple(counts), rows, repeated, of_bytes)


class _Object(dict):
    """A JSON object, and the names in it that come more than once."""

    def __init__(self, pairs):
        pairs = [(name.strip(), value) for name, value in pairs]
        super().__init__(pairs)
        self.repeated = set()
        if len(self) < len(pairs):
            self.repeated = {n for n, count in Counter(n for n, _ in pairs).items() if count > 1}


def _parse_json_lines(path: Path, text: str) -> Table:
    columns: dict[str, None] = {}  # an ordered set
    found, repeated = [], set()
    for line, entry in enumerate(text.split("\n"), start=1):
        if not entry.strip():
            continue
        try:
            value = json.loads(entry, object_pairs_hook=_Object)
        except (json.JSONDecodeError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise UsageError(
                f"got line {line} of {path}, which is no JSON object, wanted one object a line "
                '({"text": ..., "image": ..., "label": ...}); write it so.'
            )
        nested = frozenset(name for name, cell in value.items() if isinstance(cell, list | dict))
        cells = {name: _json_cell(path, line, name, cell) for name, cell in value.items() if name}
        columns.update(dict.fromkeys(cells))
        repeated |= value.repeated
        found.append((line, cells, nested))
    names = tuple(columns)
    rows = [Row(n, {k: cells.get(k, "") for k in names}, nested) for n, cells, nested in found]
    return Table(path, names, rows, frozenset(repeated))


def _json_cell(path: Path, line: int, key: str, value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    # A nested value that the caller does not ask for does no harm.
    if not isinstance(value, str):
        return json.dumps(value)
    if "\0" in value:
        raise UsageError(
            f"got a NUL character under {key!r} in line {line} of {path}, wanted text; remove it."
        )
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
