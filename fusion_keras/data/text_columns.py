"""Several columns of a table joined into one text: early fusion of one modality at its input.

The device joins the same cells the same way (`bench/edge/inputs/text`), by what `described` says.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
from collections.abc import Sequence

from fusion_keras.data.numbering import place
from fusion_keras.data.table import Row, Table
from fusion_keras.errors import UsageError

JOIN = " | "


@dataclasses.dataclass(frozen=True)
class TextColumns:
    """What of a row is its text.

    Attributes:
      columns: in the order in which they are joined; none where the table has no text.
      join: what stands between the texts of two columns.
      names: whether each text has the name of its column before it, "title: Dune".
      missing: cells, case-folded, that count as empty.
    """

    columns: tuple[str, ...]
    join: str
    names: bool
    missing: frozenset[str]

    @classmethod
    def of(
        cls, written: str, join: str = JOIN, names: bool = False, missing: Sequence[str] = ()
    ) -> TextColumns:
        """What the settings of a manifest say.

        Args:
          written: names with commas between, in double quotes those that hold one, as in a CSV
            file; "" for none. Parentheses around them all keep a sweep from dividing them.
          join, names, missing: see the class.

        Raises:
          UsageError: a column is named twice, or a join is set and there is nothing to join.
        """
        columns = named_columns(written)
        twice = next((c for c in columns if columns.count(c) > 1), None)
        if twice:
            raise UsageError(
                f"config.data.manifest.text_column names {twice!r} twice: name each column once."
            )
        if join != JOIN and len(columns) < 2:
            named = f"one column, {written!r}" if columns else "none"
            raise UsageError(
                f"config.data.manifest.text_join is {join!r}, and text_column names {named}: leave "
                "it out, or name several with commas between."
            )
        return cls(columns, join, names, folded(missing))

    @classmethod
    def of_settings(cls, manifest) -> TextColumns:
        """What `config.data.manifest` says."""
        return cls.of(
            manifest.text_column, manifest.text_join, manifest.text_names, manifest.missing
        )

    @property
    def _plain(self) -> bool:
        return len(self.columns) == 1 and not self.names

    def described(self) -> dict:
        """For the device, as JSON types; empty where the text is a cell as it stands."""
        if self._plain:
            return {}
        return {
            "columns": list(self.columns),
            "join": self.join,
            "names": self.names,
            "missing": sorted(self.missing),
        }

    def text(self, cells: dict[str, str]) -> str:
        """A row's text; columns whose cell is empty or a missing value are left out."""
        if self._plain:
            return cells[self.columns[0]]
        given = ((column, cells[column].strip()) for column in self.columns)
        return self.join.join(
            f"{column}: {cell}" if self.names else cell
            for column, cell in given
            if not self.is_empty(cell)
        )

    def joined(self, table: Table) -> tuple[Table, str]:
        """(the table with the text in a column, its name); notes count cells that are left out.

        Raises:
          UsageError: a column is missing or holds a list.
        """
        quotes, none = ", and put one that holds a comma in double quotes", ', or "" for no text'
        hint = quotes if len(self.columns) > 1 else none
        for column in self.columns:
            table.require(column, "text", hint, setting="text_column")
        if not self.columns:
            return table, ""
        if self._plain:
            return table, self.columns[0]
        name = ", ".join(self.columns)
        rows = [
            dataclasses.replace(row, cells={**row.cells, name: self.text(row.cells)})
            for row in table.rows
        ]
        notes = filter(None, (self._left_out(column, table) for column in self.columns))
        columns = tuple(dict.fromkeys([*table.columns, name]))
        table = dataclasses.replace(table, columns=columns, rows=rows, notes=(*table.notes, *notes))
        return table, name

    def is_empty(self, cell: str) -> bool:
        """Whether a cell says nothing: it is empty, or a missing value."""
        return not cell.strip() or cell.strip().casefold() in self.missing

    def _left_out(self, column: str, table: Table) -> str:
        empty: list[Row] = [row for row in table.rows if self.is_empty(row.cells[column])]
        if not empty:
            return ""
        return (
            f"{column} is empty in {len(empty)} of {len(table.rows)} rows, the first "
            f"{place(table.path.name, empty[0].line)}: left out of their texts"
        )


def folded(missing: Sequence[str | float]) -> frozenset[str]:
    """What counts as empty, as cells are compared with it; a setting may have numbers among it."""
    return frozenset(str(word).strip().casefold() for word in missing)


def named_columns(written: str) -> tuple[str, ...]:
    """The names in a setting, as `TextColumns.of` takes them."""
    if not written.strip():
        return ()
    text = _unwrapped(written)
    if "," not in text and not text.lstrip().startswith('"'):
        return (text,)
    names = next(csv.reader([text], skipinitialspace=True), [])
    return tuple(filter(None, (name.strip() for name in names))) or (text,)


def _unwrapped(written: str) -> str:
    """Without the parentheses around several names; those of a name, "v (km/h)", are its own."""
    text = written.strip()
    opened = list(itertools.accumulate((c == "(") - (c == ")") for c in text))
    around = text.startswith("(") and opened.index(min(opened)) == len(text) - 1
    return text[1:-1] if around and min(opened) == 0 and "," in text else written
