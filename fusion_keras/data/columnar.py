"""Parquet and Arrow files -> the cells that a JSON-lines file of the same content would have."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from fusion_keras.data.numbering import place
from fusion_keras.errors import UsageError

# Rows that are made at once, and distinct cells of a column that are looked for again.
_AT_ONCE = 8192
_KNOWN = 1 << 16

# The cells of a row, and the names of those that are a list or a structure, written as JSON.
Cells = tuple[dict[str, str], frozenset[str]]


def read_columnar(
    path: Path, wanted: Collection[str] | None = None
) -> tuple[list[str], frozenset[str], Iterator[Cells]]:
    """Opens a Parquet file, or one of Arrow's file or stream format (Feather), as its name says.

    Numbers are written as Python and pandas write them, true and false as JSON does, dates as ISO
    8601 with a blank; what is null is an empty cell. Few rows are in memory beside their cells.

    Args:
      wanted: the columns whose cells are made; None is all.

    Returns:
      (the names of all columns, without blanks around them;
       those that hold bytes, by themselves or inside of lists and structures, and have no cells;
       the rows)

    Raises:
      UsageError: there is no such file, it cannot be read, or pyarrow is missing; as the rows are
        taken, also that one holds a NUL character.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            f"got {path}, and pyarrow, which reads such files, is not installed: pip install -e "
            "'.[parquet]', or write the table as CSV."
        ) from None
    if not path.is_file():
        told = "is a folder, wanted one file" if path.is_dir() else "does not exist"
        raise UsageError(f"got {path}, which {told}; check the path.")
    with _errors(path):
        if path.suffix.lower() == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            schema = file.schema_arrow
        else:
            file, schema = None, _opened(path).schema
    of_bytes = frozenset(field.name.strip() for field in schema if _holds_bytes(field.type))
    read = [
        number
        for number, name in enumerate(schema.names)
        if name.strip() and name.strip() not in of_bytes
        if wanted is None or name.strip() in wanted
    ]
    if file is not None:
        batches = file.iter_batches(_AT_ONCE, columns=[schema.names[i] for i in read])
    else:
        batches = _batches(_opened(path, read))
    names = [name.strip() for name in schema.names]
    return names, of_bytes, _rows(path, batches, {names[i] for i in read})


@contextlib.contextmanager
def _errors(path: Path):
    """Turns what pyarrow raises into a sentence."""
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError) as error:
        kind = "a Parquet" if path.suffix.lower() == ".parquet" else "an Arrow"
        why = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise UsageError(
            f"got {path}, which cannot be read ({why}), wanted {kind} file; write it anew, or "
            "as CSV."
        ) from None


def _opened(path: Path, read: list[int] | None = None):
    """A reader of Arrow's file format, or of its stream format.

    Args:
      read: the numbers of the columns that are read; None is all.
    """
    from pyarrow import ArrowInvalid, ipc, memory_map

    options = ipc.IpcReadOptions(included_fields=read)
    try:
        return ipc.open_file(memory_map(str(path)), options=options)
    except ArrowInvalid:
        return ipc.open_stream(memory_map(str(path)), options=options)


def _batches(reader) -> Iterator:
    count = getattr(reader, "num_record_batches", None)
    batches = reader if count is None else map(reader.get_batch, range(count))
    for batch in batches:
        for start in range(0, batch.num_rows, _AT_ONCE):
            yield batch.slice(start, _AT_ONCE)


def _rows(path: Path, batches: Iterator, wanted: Collection[str]) -> Iterator[Cells]:
    known: dict[str, dict[str, str]] = {}
    same: dict[frozenset[str], frozenset[str]] = {}  # one for all rows: each is 200 bytes
    begin = 1
    with _errors(path):
        for batch in batches:
            columns, nested = {}, {}
            for name, values in zip(batch.schema.names, batch.columns, strict=True):
                if (name := name.strip()) in wanted:
                    cells = columns[name] = _texts(values, known.setdefault(name, {}))
                    _refuse_nul(path, name, cells, begin)
                    if _is_nested(values.type):
                        nested[name] = values.is_valid().to_pylist()
            for n in range(batch.num_rows):
                row = {name: cells[n] for name, cells in columns.items()}
                there = frozenset(name for name, valid in nested.items() if valid[n])
                yield row, same.setdefault(there, there)
            begin += batch.num_rows


def _texts(values, known: dict[str, str]) -> list[str]:
    """The cells of a column's values; one text of each that is in many rows."""
    from pyarrow import BaseExtensionType, string, types

    if isinstance(values.type, BaseExtensionType):
        values = values.storage
    kind = values.type
    if types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if types.is_temporal(kind) and not types.is_duration(kind):
        values = values.cast(string())  # nanoseconds, too, which Python has not
    elif types.is_float16(kind) or types.is_float32(kind):
        # 0.1 of a float32 is 0.1, and no 0.10000000149011612.
        numbers = values.to_numpy(zero_copy_only=False)
        valid = values.is_valid().to_pylist()
        return [str(x) if there else "" for x, there in zip(numbers, valid, strict=True)]
    write = _writer(kind)
    cells = ["" if value is None else write(value) for value in values.to_pylist()]
    if len(known) < _KNOWN:
        return [known.setdefault(cell, cell) for cell in cells]
    return [known.get(cell, cell) for cell in cells]


def _writer(kind):
    from pyarrow import types

    if _is_nested(kind):
        return lambda value: json.dumps(value, default=str)
    if types.is_boolean(kind):
        return lambda value: str(value).lower()
    return str


def _is_nested(kind) -> bool:
    from pyarrow import types

    return types.is_nested(getattr(kind, "storage_type", kind))


def _holds_bytes(kind) -> bool:
    from pyarrow import types

    kind = getattr(kind, "storage_type", kind)
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if types.is_nested(kind):
        return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _refuse_nul(path: Path, name: str, cells: list[str], begin: int) -> None:
    row = next((n for n, cell in enumerate(cells, start=begin) if "\0" in cell), None)
    if row is not None:
        raise UsageError(
            f"got a NUL character under {name!r} in {place(str(path), row)}, wanted text; remove "
            "it."
        )
