"""Parquet and Arrow tables are read as the CSV or JSON-lines file of the same content is."""

import csv
import dataclasses
import datetime
import decimal
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from fusion_keras.config import get_config
from fusion_keras.data.columnar import read_columnar
from fusion_keras.data.load import check_source, load_dataset
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.records import SkipLog
from fusion_keras.data.table import read_table
from fusion_keras.data.text_columns import TextColumns
from fusion_keras.data.unlabelled import read_unlabelled
from fusion_keras.errors import UsageError

FORMATS = ("set.parquet", "set.feather", "set.arrow")
# Column -> its type, and a value for each row. What a row lacks is None.
COLUMNS = {
    "id": (pa.string(), [f"r{n}" for n in range(12)]),
    "text": (
        pa.large_string(),
        [
            *(
                "good day",
                "schlechter Tag, ähnlich",
                "今天天气很好",
                'a "quoted"\nline',
                "e\u0301\u200d",
            ),
            *("\N{GRINNING FACE} 🇩🇪", None, "nan", " blanks ", "x" * 200_000, "fine, so", "1"),
        ],
    ),
    "image": (pa.string(), [f"{n % 3}.png" for n in range(11)] + ["gone.png"]),
    "label": (pa.int64(), [0, 1] * 6),
    "split": (
        pa.dictionary(pa.int8(), pa.string()),
        ["train"] * 6 + ["dev"] * 3 + ["Test"] * 3,
    ),
    "group": (pa.string(), [f"g{n // 2}" for n in range(12)]),
    "score": (pa.float64(), [0.1, -2.0, 1e-7, 3.25, 1e20, 0.0, 1.5, -0.75, 2.0, 4.0, 5.0, 6.0]),
    "age": (pa.int32(), [4, None, 7, 12, 40, None, 3, 8, 9, 22, 31, 5]),
    "weight": (pa.float32(), [0.1, None, 0.7, float("nan"), *map(float, range(8))]),
    "site": (pa.string(), ["north", None, "süd", "none"] * 3),
}


def table_of(columns: dict) -> pa.Table:
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})


def write(path: Path, table: pa.Table) -> Path:
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, path, chunksize=10_000)
    else:
        with pa.ipc.new_stream(path, table.schema) as file:
            file.write_table(table)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(b"")
    return tmp_path


def write_csv(path: Path, columns: dict) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(values for _, values in columns.values()), strict=True))
    return path


def as_lines(told: str) -> str:
    """What is said of a table of rows, as it is of a file with a header and a line a row, in which
    the fourth text has a line of its own."""

    def line(match) -> str:
        row = int(match[1])
        return f"line {row + 1 + (row > 4)}"

    return re.sub(r"\brow (\d+)", line, re.sub(r"set\.(parquet|feather|arrow)", "set.csv", told))


def same(found, expected) -> None:
    for field in (f.name for f in dataclasses.fields(expected)):
        one, other = getattr(found, field), getattr(expected, field)
        if field in ("notes", "origins"):
            assert [as_lines(told) for told in one] == list(other)
        elif field == "skips":
            assert [as_lines(told) for told in one.entries] == other.entries
            assert one.total == other.total
            assert {m: [*map(as_lines, told)] for m, told in one.lacking.items()} == other.lacking
        elif isinstance(other, np.ndarray):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        else:
            assert one == other, field


SETTINGS = {
    "plain": {},
    "numbers": {"numbers": ("age", "weight"), "categories": ("site",)},
    "several texts": {"text_column": "text,site", "text_names": True},
    "named classes": {"classes": ("0", "1")},
    "incomplete": {"keep_incomplete": True},
    "a label of several spellings": {"label_column": "site", "join_classes": True},
    "no image": {"image_column": ""},
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_records_are_those_of_the_csv(folder, name, settings):
    settings = {"max_skipped": 1.0, **settings}
    expected = read_manifest(write_csv(folder / "set.csv", COLUMNS), **settings)
    found = read_manifest(write(folder / name, table_of(COLUMNS)), **settings)
    same(found, expected)
    assert len(found) > 5


def test_rows_are_told_by_their_numbers(folder):
    records = read_manifest(write(folder / "set.parquet", table_of(COLUMNS)), max_skipped=1.0)
    assert records.origins[0] == "set.parquet row 1"
    assert records.skips.entries == [
        "set.parquet row 7: empty text",
        "set.parquet row 8: no text: 'nan'",
        "set.parquet row 12: no image file 'gone.png'",
    ]
    unnamed = write(folder / "set.parquet", table_of(COLUMNS).drop_columns(["id"]))
    assert read_manifest(unnamed, max_skipped=1.0).ids[-1] == "row11"


def changed(**columns) -> dict:
    return {name: columns.get(name, (kind, values)) for name, (kind, values) in COLUMNS.items()}


REFUSED = {
    "a label that is a real number": {"label": (pa.float64(), [0.5] * 12)},
    "an unknown split": {"split": (pa.string(), ["train"] * 4 + ["tset"] * 8)},
    "no score": {"score": (pa.float64(), [1.0, None] * 6)},
    "a path outside": {"image": (pa.string(), ["../x.png"] * 12)},
    "one class": {"label": (pa.int8(), [1] * 12)},
    "an id twice": {"id": (pa.int64(), [7] * 12)},
    "no text": {"text": (pa.null(), [None] * 12)},
    "too many unusable": {"group": (pa.string(), [None, "g"] * 6)},
}


@pytest.mark.parametrize("columns", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_refused_in_the_same_words(folder, columns):
    columns, told = changed(**columns), []
    columns["text"] = (columns["text"][0], [t and t.replace("\n", " ") for t in columns["text"][1]])
    for path in (
        write_csv(folder / "set.csv", columns),
        write(folder / "set.parquet", table_of(columns)),
    ):
        with pytest.raises(UsageError) as error:
            read_manifest(path, max_skipped=0.3)
        told.append(str(error.value))
    in_lines = re.sub(r"\brow (\d+)", lambda m: f"line {int(m[1]) + 1}", told[1])
    assert in_lines.replace("set.parquet", "set.csv") == told[0]


def test_a_missing_column_is_told_with_those_there_are(folder):
    path = write(folder / "set.parquet", table_of(COLUMNS))
    with pytest.raises(UsageError, match=r"no column 'Text' in .*columns: id, text, .*'text' is"):
        read_manifest(path, text_column="Text")


@pytest.mark.parametrize("values", [["a", "b"], ["ä", "\N{GRINNING FACE}"], [1, 2]])
def test_a_list_of_labels_is_read_as_in_json_lines(folder, values):
    labels = [values, [], values[:1], values[1:], None, values[::-1]] * 2
    kind = pa.list_(pa.array(values).type)
    columns = changed(label=(kind, labels), text=(pa.string(), [f"day {n}" for n in range(12)]))
    lines = (folder / "set.jsonl").open("w", encoding="utf-8")
    with lines:
        for row in zip(*(values for _, values in columns.values()), strict=True):
            lines.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")
    settings = {"label_kind": "multi", "max_skipped": 0.1}
    expected = read_manifest(folder / "set.jsonl", **settings)
    found = read_manifest(write(folder / "set.parquet", table_of(columns)), **settings)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.labels.sum() == 10
    assert found.classes == expected.classes
    told = [re.sub(r"\brow (\d+)", r"line \1", n).replace("parquet", "jsonl") for n in found.notes]
    assert told == list(expected.notes)
    with pytest.raises(UsageError, match=r"under 'label' in set.parquet row 1, wanted one label"):
        read_manifest(folder / "set.parquet")


BYTES = {
    "bytes": (pa.binary(), [b"\x89PNG"] * 12),
    "large": (pa.large_binary(), [b"\x89PNG"] * 12),
    "of one length": (pa.binary(4), [b"\x89PNG"] * 12),
    "views": (pa.binary_view(), [b"\x89PNG"] * 12),
    "in a list": (pa.list_(pa.binary()), [[b"\x89PNG"]] * 12),
    "dictionary": (pa.dictionary(pa.int8(), pa.binary()), [b"\x89PNG"] * 12),
    # As Hugging Face's datasets keep images.
    "beside a path": (
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        [{"bytes": b"\x89PNG", "path": None}] * 12,
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("image", BYTES.values(), ids=BYTES)
def test_bytes_are_refused_where_they_are_asked_for(folder, name, image):
    if name == "set.parquet" and image is BYTES["dictionary"]:
        image = BYTES["bytes"]
    path = write(folder / name, table_of(changed(image=image)))
    with pytest.raises(UsageError, match=rf"got bytes under 'image' in {name}, wanted one image"):
        read_manifest(path, max_skipped=1.0)
    assert len(read_manifest(path, image_column="", max_skipped=1.0)) == 10


VALUES = [
    (pa.bool_(), [True, None, False], ["true", "", "false"]),
    (pa.uint64(), [0, None, 2**64 - 1], ["0", "", "18446744073709551615"]),
    (pa.float64(), [1.0, None, 0.1], ["1.0", "", "0.1"]),
    (pa.float32(), [1.0, None, 0.1], ["1.0", "", "0.1"]),
    (pa.float16(), [np.float16(1), None, np.float16(0.1)], ["1.0", "", "0.1"]),
    (pa.float64(), [float("nan"), float("inf"), 1e300], ["nan", "inf", "1e+300"]),
    (pa.decimal128(6, 2), [decimal.Decimal("1.50"), None], ["1.50", ""]),
    (pa.date32(), [datetime.date(2020, 1, 2), None], ["2020-01-02", ""]),
    (pa.timestamp("s"), [datetime.datetime(2020, 1, 2, 3), None], ["2020-01-02 03:00:00", ""]),
    (pa.timestamp("ns"), [1, None], ["1970-01-01 00:00:00.000000001", ""]),
    (pa.time32("s"), [datetime.time(3, 4), None], ["03:04:00", ""]),
    (pa.duration("s"), [datetime.timedelta(seconds=65), None], ["0:01:05", ""]),
    (pa.string_view(), ["ä", None], ["ä", ""]),
    (pa.dictionary(pa.int32(), pa.string()), ["ä", None], ["ä", ""]),
    (pa.dictionary(pa.int32(), pa.int64()), [7, None], ["7", ""]),
    (pa.list_(pa.float64()), [[1.5, None], None, []], ["[1.5, null]", "", "[]"]),
    (pa.struct([("a", pa.date32())]), [{"a": datetime.date(2020, 1, 2)}], ['{"a": "2020-01-02"}']),
    (pa.null(), [None, None], ["", ""]),
]


@pytest.mark.parametrize(("kind", "values", "cells"), VALUES, ids=lambda value: str(value)[:30])
def test_a_value_is_the_cell_that_it_would_be(tmp_path, kind, values, cells):
    path = tmp_path / "set.arrow"
    write(path, pa.table({"x": pa.array(values, kind)}))
    _, of_bytes, rows = read_columnar(path)
    found = list(rows)
    assert [row["x"] for row, _ in found] == cells
    is_nested = pa.types.is_nested(kind)
    expected = [{"x"} if is_nested and value is not None else set() for value in values]
    assert [nested for _, nested in found] == expected
    assert not of_bytes


def test_names_are_without_blanks_and_distinct_where_they_are_asked_for(tmp_path):
    table = pa.table([["a", "b"], ["x", "y"], ["c", "d"], ["e", "f"]], [" text ", "x", "x", ""])
    for name in FORMATS:
        found = read_table(write(tmp_path / name, table), SkipLog(name))
        assert (found.columns, found.repeated) == (("text", "x"), {"x"})
        assert [row.cells["text"] for row in found.rows] == ["a", "b"]
        assert found.require("text", "text") == "text"
        with pytest.raises(UsageError, match="'x' twice"):
            found.require("x", "text")


@pytest.mark.parametrize("name", FORMATS)
def test_columns_that_are_not_wanted_are_not_read(tmp_path, name):
    path = write(tmp_path / name, table_of(COLUMNS))
    names, _, rows = read_columnar(path, {"site", "id", "no such"})
    assert names == list(COLUMNS)
    assert next(rows) == ({"id": "r0", "site": "north"}, frozenset())
    _, _, rows = read_columnar(path, ())
    assert list(rows) == [({}, frozenset())] * 12


@pytest.mark.parametrize("name", FORMATS)
def test_few_rows_are_in_memory_at_once(tmp_path, name):
    count = 60_000
    table = pa.table({"text": [f"{n:0200d}" for n in range(count)]})
    path = write(tmp_path / name, table)
    size = table.nbytes
    del table
    before = pa.total_allocated_bytes()
    most = 0
    _, _, rows = read_columnar(path)
    for n, (cells, _) in enumerate(rows):
        assert int(cells["text"]) == n
        if n % 1000 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert n == count - 1
    assert most < size / 2


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", [b"", b"text,label\n", b"PAR1" * 9, "cut"])
def test_a_damaged_file_is_told(tmp_path, name, content):
    path = tmp_path / name
    if content == "cut":
        write(path, table_of(COLUMNS))
        content = path.read_bytes()[:-200]
    path.write_bytes(content)
    kind = "a Parquet" if name == "set.parquet" else "an Arrow"
    with pytest.raises(
        UsageError, match=rf"got .*{name}, which cannot be read .*wanted {kind} file"
    ):
        read_manifest(path)


def test_a_damaged_page_is_told(tmp_path):
    path = write(tmp_path / "set.parquet", table_of(COLUMNS))
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"set.parquet, which cannot be read"):
        read_manifest(path)


def test_what_is_no_file_is_told(tmp_path):
    with pytest.raises(UsageError, match=r"none.parquet, which does not exist"):
        read_manifest(tmp_path / "none.parquet")
    (tmp_path / "parts.parquet").mkdir()
    with pytest.raises(UsageError, match=r"parts.parquet, which is a folder, wanted one file"):
        read_manifest(tmp_path / "parts.parquet")
    empty = write(tmp_path / "empty.parquet", table_of(COLUMNS).slice(0, 0))
    with pytest.raises(UsageError, match=r"got no rows in .*empty.parquet"):
        read_manifest(empty)


def test_a_nul_is_told_with_its_row(tmp_path):
    table = pa.table({"text": ["a"] * 9000 + ["b\0"], "label": [0, 1] * 4500 + [1]})
    path = write(tmp_path / "set.parquet", table)
    with pytest.raises(UsageError, match=r"NUL character under 'text' in .*set.parquet row 9001"):
        read_manifest(path, image_column="")


def test_without_pyarrow_it_is_said_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "set.parquet", table_of(COLUMNS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        UsageError, match=r"pyarrow.* is not installed: pip install -e '.\[parquet\]'"
    ):
        read_manifest(path)
    assert len(
        read_manifest(write_csv(tmp_path / "set.csv", COLUMNS), image_column="", max_skipped=1)
    )


def test_what_was_read_is_kept_and_the_fingerprint_is_that_of_the_csv(folder, monkeypatch):
    data = get_config().data
    data.source, data.cache_dir, data.max_skipped = "manifest", str(folder / "cache"), 1.0
    data.manifest.image_column = ""

    def fingerprint(path: Path) -> str:
        data.path = str(path)
        check_source(data, {})
        return load_dataset(data).fingerprint

    expected = fingerprint(write_csv(folder / "set.csv", COLUMNS))
    for name in FORMATS:
        path = write(folder / name, table_of(COLUMNS))
        assert fingerprint(path) == expected
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "pyarrow", None)
            assert fingerprint(path) == expected
        write(path, table_of(changed(label=(pa.int64(), [1, 0] * 6))))
        assert fingerprint(path) != expected


@pytest.mark.parametrize("name", FORMATS)
def test_unlabelled_rows_are_those_of_the_csv(folder, name):
    columns = {name: column for name, column in COLUMNS.items() if name in ("text", "image", "age")}
    columns["image"] = (pa.string(), [*columns["image"][1][:11], None])
    read = [
        read_unlabelled(
            path,
            ["text", "image"],
            TextColumns.of("text", missing=("nan",)),
            {"image": "image"},
            evaluated=["GOOD day"],
            others=["age"],
        )
        for path in (
            write_csv(folder / "set.csv", columns),
            write(folder / name, table_of(columns)),
        )
    ]
    expected, found = read
    assert [as_lines(note) for note in found.notes] == list(expected.notes)
    assert found.place.keys() == expected.place.keys() == {"text", "image"}
    for modality, records in expected.records.items():
        np.testing.assert_array_equal(found.place[modality], expected.place[modality])
        assert found.records[modality].raw[modality] == records.raw[modality]
        assert [as_lines(o) for o in found.records[modality].origins] == records.origins
