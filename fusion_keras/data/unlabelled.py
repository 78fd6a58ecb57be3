"""Rows without labels, from a table like the manifest's: what a teacher can be asked besides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusion_keras.data.leaks import sentence_keys
from fusion_keras.data.numbering import place, unit
from fusion_keras.data.paths import inside, is_file
from fusion_keras.data.records import Dataset, Records, SkipLog
from fusion_keras.data.table import Row, Table, read_table
from fusion_keras.data.text_columns import TextColumns
from fusion_keras.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """U rows without labels, in the order of their file.

    Attributes:
      records: modality -> those of the rows that have it.
      place: modality -> int64 [U], where a row stands in them; -1 where the row has it not.
      notes: sentences about rows that were left out.
    """

    records: Mapping[str, Records]
    place: Mapping[str, np.ndarray]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.place.values())))


def read_unlabelled(
    path: str | Path,
    taken: Sequence[str],
    text: TextColumns,
    files: Mapping[str, str],
    evaluated: Sequence[str],
    others: Sequence[str] = (),
    **table_options,
) -> Unlabelled:
    """Read a table of sentences, of files, or of both.

    Args:
      path: a table as `read_table` takes it; files in it are relative to its folder.
      taken: the modalities that are of use; the table has one at least.
      text: the columns of sentences, and what is a missing value.
      files: modality -> the column of its files, "" for none.
      evaluated: sentences that a run is chosen by and tested on. Rows with one of them are left
        out: a student shall not have seen what it is tested on.
      others: columns that say something of a row and are not read.
      table_options: see `read_table`.

    Raises:
      UsageError: the table cannot be read or has none of the columns, a file named in it is not
        there or lies outside its folder, or no row is left.
    """
    path = Path(path).expanduser()
    wanted = {"text": text.columns, **{m: (name,) for m, name in files.items() if name}}
    wanted = {m: names for m, names in wanted.items() if m in taken}
    read = {name for names in wanted.values() for name in names}
    broken = SkipLog(path.name, 0)
    table = read_table(path, broken, columns=read, **table_options)
    _check_whole(broken)
    present = {m: names[0] for m, names in wanted.items() if set(names) & set(table.columns)}
    if not present:
        columns = [name for names in wanted.values() for name in names]
        raise UsageError(
            f"got no column {' or '.join(map(repr, columns))} in {path} (columns: "
            f"{', '.join(table.columns)}), wanted sentences or files without labels; name the "
            "columns as the manifest's."
        )
    if "text" in present:
        table, present["text"] = text.joined(table)
    notes = list(table.notes)
    for modality, name in present.items():
        table.require(name, modality)
    if ignored := [name for name in others if name in table.columns]:
        notes.append(
            f"{path.name}: the columns {', '.join(ignored)} are not read: an unlabelled row has "
            "the numbers and categories of a training row"
        )
    table = dataclasses.replace(
        table, rows=[_plain(row, present, text, path) for row in table.rows]
    )
    rows = [row for row in table.rows if any(row.cells[name] for name in present.values())]
    texts = sentence_keys([row.cells[present["text"]] if "text" in present else "" for row in rows])
    known = set(sentence_keys(evaluated))
    kept = [row for row, key in zip(rows, texts, strict=True) if key is None or key not in known]
    if len(rows) < len(table.rows):
        notes.append(f"{len(table.rows) - len(rows)} empty rows of {path.name} were left out")
    if len(kept) < len(rows):
        notes.append(
            f"{len(rows) - len(kept)} rows of {path.name} were left out: their sentences are among "
            "those that this run is validated or tested on"
        )
    if not kept:
        raise UsageError(
            f"got no usable row in {path}, wanted at least one{'; ' if notes else ''}"
            f"{', '.join(notes)}; give another file."
        )
    records, place = {}, {}
    for modality, name in present.items():
        having = [i for i, row in enumerate(kept) if row.cells[name]]
        if not having:
            continue
        place[modality] = np.full(len(kept), -1, np.int64)
        place[modality][having] = np.arange(len(having))
        records[modality] = _records(table, modality, name, [kept[i] for i in having])
    return Unlabelled(records, place, tuple(notes))


def _check_whole(broken: SkipLog) -> None:
    """Raises UsageError where rows do not fit the columns."""
    if broken.entries:
        more = "; ..." if len(broken.entries) > 3 else ""
        raise UsageError(
            f"got {len(broken.entries)} unusable of {broken.total} unlabelled rows in "
            f"{broken.source} ({'; '.join(broken.entries[:3])}{more}), wanted none: put what has a "
            "separator in it into quotes, or leave these rows out."
        )


def _plain(row: Row, present: Mapping[str, str], text: TextColumns, path: Path) -> Row:
    """The row with "" where nothing, or a missing value, stands in a column that is read."""
    cells = dict(row.cells)
    for name in present.values():
        # A file that is called so is one.
        if text.is_empty(cells[name]) and not is_file(path.parent / (cells[name].strip() or " ")):
            cells[name] = ""
    return dataclasses.replace(row, cells=cells)


def _records(table: Table, modality: str, column: str, rows: list) -> Records:
    cells = [row.cells[column] for row in rows]
    origins = [place(table.path.name, row.line) for row in rows]
    if modality != "text":
        cells = [_file(table.path, *pair) for pair in zip(cells, origins, strict=True)]
    return Records(
        name=table.path.stem,
        ids=[f"{unit(table.path.name)}{row.line}" for row in rows],
        splits=None,
        raw={"text": [""] * len(rows), modality: cells},
        labels=np.full(len(rows), -1, np.int32),
        classes=(),
        origins=origins,
        skips=SkipLog(table.path.name, 1.0, total=len(rows)),
    )


def _file(table: Path, cell: str, where: str) -> Path:
    path = inside(table.parent, cell.strip(), where)
    if not is_file(path):
        raise UsageError(
            f"got no file {cell!r}, named in {where}, wanted one that is there; put it into "
            f"{table.parent}, or leave the row out."
        )
    return path


def evaluated_texts(dataset: Dataset) -> list[str]:
    """The sentences of the validation and test rows."""
    texts = dataset.raw["text"]
    return [texts[row] for split in ("valid", "test") for row in dataset.rows(split)]
