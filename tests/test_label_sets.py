"""Cells that hold several labels: what they are read as, and a sentence where they cannot."""

import json

import numpy as np
import pytest

from fusion_keras.config import get_config
from fusion_keras.data.load import load_dataset
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.odd_classes import class_notes
from fusion_keras.data.splits import assign_splits, halve
from fusion_keras.errors import UsageError

CELLS = ["b; a", "a;a;b", "c", "", "a;b;", "c;b"]


@pytest.fixture
def read(tmp_path):
    """read(cells, ...) -> records of a table with these label cells."""

    def read(cells, name="t.csv", kind="multi", **options):
        path = tmp_path / name
        if name.endswith(".jsonl"):
            lines = [json.dumps({"text": "x", "label": cell}) for cell in cells]
        else:
            lines = ["text,label", *('x,"' + c.replace('"', '""') + '"' for c in cells)]
        path.write_text("\n".join(lines) + "\n")
        return read_manifest(path, image_column="", label_kind=kind, **options)

    return read


def named(records) -> list[str]:
    classes = np.array(records.classes)
    return ["".join(classes[row == 1]) for row in records.labels]


@pytest.mark.parametrize("cells", [["[0, 1, 1]", "[1, 0, 0]"], ["1;0;1", "0;0;1"]])
def test_a_0_or_1_for_each_class_is_not_taken_for_names(read, cells):
    with pytest.raises(UsageError, match="line 2, which looks like a 0 or 1 for each class"):
        read(cells)
    for vectors in (["[0, 1]", "[1, 0]"], ["[0.0, 1.0, 1.0]", "[1.0, 0.0, 0.0]"]):
        with pytest.raises(UsageError, match="line 2, which looks like a 0 or 1 for each class"):
            read(vectors)
    # Numbers of classes are names.
    assert read(["0;1", "1", "0", ""]).classes == ("0", "1")


def test_cells_become_a_one_for_each_label(read):
    records = read(CELLS)
    assert records.classes == ("a", "b", "c")
    assert records.labels.dtype == np.uint8
    assert records.labels.tolist() == [
        [1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 1],
    ]  # fmt: skip
    (note,) = records.notes
    assert (
        "t.csv: the label cell of 1 rows is empty or a missing value (the first in line 5)" in note
    )


def test_lists_and_other_separators_say_the_same(read):
    expected = read(CELLS).labels.tolist()
    lists = [["b", "a"], ["a", "a", "b"], ["c"], None, ["a", "b"], ["c", "b"]]
    of_json = read(lists, name="t.jsonl")
    assert of_json.labels.tolist() == expected
    assert (
        "label cell of 1 rows is empty or a missing value (the first in line 4)" in of_json.notes[0]
    )
    lists[3] = []  # no label: nothing to note
    cells = read([json.dumps(cell) for cell in lists])
    assert (cells.labels.tolist(), cells.notes) == (expected, ())
    bars = read([cell.replace(";", " | ") for cell in CELLS], label_separator="|")
    assert bars.labels.tolist() == expected
    # A label may hold the separator of others where only lists are split.
    assert read(["a;b", '["a;b", "c"]'], label_separator="").classes == ("a;b", "c")


def test_numbers_given_classes_and_spellings(read):
    assert read(["2;10", "1.0", "10;2.0"]).classes == ("1", "2", "10")
    assert read([[1, 2], [2], [1]], name="n.jsonl").labels.tolist() == [[1, 1], [0, 1], [1, 0]]
    given = read(["c;a", "b"], classes=("c", "b", "a"))
    assert (given.classes, given.labels.tolist()) == (("c", "b", "a"), [[1, 0, 1], [0, 1, 0]])
    indices = read(["0;1", "1"], classes=("no", "yes"))
    assert named(indices) == ["noyes", "yes"]
    joined = read(["Fire;flood", "fire", "fire;Flood ", "flood"], join_classes=True)
    assert (joined.classes, named(joined)) == (
        ("fire", "flood"),
        ["fireflood", "fire", "fireflood", "flood"],
    )


def test_a_missing_value_is_no_label_and_none_may_be_one(read):
    records = read(["a;b", "NaN", "", "b", "none"])
    assert named(records) == ["ab", "", "", "b", "none"]
    said = "label cell of 2 rows is empty or a missing value (the first in line 3)"
    assert any(said in note for note in records.notes)
    assert any("the class 'none' (1 rows" in note for note in records.notes)


def test_labels_that_are_not_given_are_left_out_of_their_rows(read):
    records = read(["a;b", "a;z", "b", "y", "z;y"], classes=("a", "b"))
    assert named(records) == ["ab", "a", "b", "", ""]
    (note,) = (note for note in records.notes if "left out" in note)
    assert note.startswith("t.csv: 4 labels of 2 names that are none of the classes are left out")
    assert "'z' (first line 3); 'y' (first line 5)" in note


def test_a_label_that_may_be_a_given_one_costs_its_row(read):
    records = read(["a;b", "a;B", "b", *["a"] * 4], classes=("a", "b"), max_skipped=0.2)
    assert len(records) == 6
    (entry,) = records.skips.entries
    assert entry.startswith("t.csv line 3: label 'B' is none of a, b, but looks like 'b'")
    with pytest.raises(UsageError, match=r"line 2: label 'a\|b' .*label_separator"):
        read(["a|b", "a"], classes=("a", "b"))


@pytest.mark.parametrize(
    "cell", ["['a', 'b']", '["a"', '[["a"], "b"]', '["a", null]', '{"a": 1}', "[true]"]
)
def test_what_begins_as_a_list_and_is_none_is_refused(read, cell):
    with pytest.raises(UsageError, match=r"t\.csv line 3, wanted a JSON list of names or integers"):
        read(["a;b", cell])


def test_one_label_a_row_names_the_setting_that_takes_several(read):
    with pytest.raises(UsageError, match=r"t.jsonl line 2, .*--config.data.label_kind=multi"):
        read(["a", ["a", "b"]], name="t.jsonl", kind="single")
    records = read(["a;b", "b;a", "a"], kind="single")
    assert any("--config.data.label_kind=multi" in note for note in records.notes)
    with pytest.raises(UsageError, match=r"label 'a;b' is none of a, b, but several of them"):
        read(["a;b", "a", "b"], kind="single", classes=("a", "b"))


def test_a_separator_that_separates_nothing_is_noted(read):
    notes = read(["a|b", "b|a", "a", "b"]).notes
    assert any(
        "look like several labels in one cell" in n and "label_separator" in n for n in notes
    )
    assert any("no row has more than one label" in note for note in notes)
    with pytest.raises(UsageError, match=r"fewer than two classes .*label_kind=single"):
        read(["a", "a;a", ""])


def test_splits_keep_the_share_of_each_label_and_the_sizes():
    rng = np.random.default_rng(0)
    labels = (rng.random((1000, 4)) < (0.5, 0.2, 0.05, 0.02)).astype(np.uint8)
    for groups in (None, [f"g{row // 3}" for row in range(1000)]):
        splits = np.array(assign_splits(labels, groups, (0.7, 0.1, 0.2), 0))
        for split, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
            assert (splits == split).mean() == pytest.approx(share, abs=0.02)
            of_labels = labels[splits == split].sum(0) / labels.sum(0)
            np.testing.assert_allclose(of_labels, share, atol=0.06)
        assert groups is None or all(len(set(splits[i : i + 3])) == 1 for i in range(0, 999, 3))
    first, second = halve(labels, None, 0)
    assert abs(len(first) - len(second)) <= 2
    assert np.abs(labels[first].sum(0) - labels[second].sum(0)).max() <= 2


def test_rows_of_each_label_are_counted_in_each_split(tmp_path):
    def read(last):
        lines = [f"x,a;b,{split}" for split in ("train", "valid", "test") * 10]
        path = tmp_path / "split.csv"
        path.write_text("\n".join(["text,label,split", *lines, *last]) + "\n")
        return read_manifest(path, image_column="", label_kind="multi")

    records = read(["x,a;c,train", "x,c,test", "x,,test"])
    notes = [note for note in class_notes(records) if "the first in" in note]
    assert [note.split(" (")[1] for note in notes] == [
        "c 1, the first in split.csv line 32)", "c 1, the first in split.csv line 33)"
    ]  # fmt: skip
    assert "split.csv: 1 of 3 classes have fewer than 10 train rows" in notes[0]
    assert any("the valid split has no row of class c" in note for note in records.notes)
    common = class_notes(read([*["x,a,train"] * 12, "x,b,train"]))
    assert any("fewer than 10 train rows are without 1 of 2 labels" in n for n in common)
    assert any("to be learned (a 1)" in note for note in common)
    with pytest.raises(UsageError, match="got no train row of class c"):
        read(["x,c,test"])


def test_the_config_reaches_the_reader_and_the_kind_is_of_the_data(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("text,label\n" + "".join(f"x,{'a|b' if n % 3 else 'a'}\n" for n in range(90)))
    config = get_config()
    config.data.source, config.data.path = "manifest", str(path)
    config.data.manifest.image_column = ""
    single = load_dataset(config.data)
    assert (single.label_kind, single.classes) == ("single", ("a", "a|b"))
    config.data.label_kind, config.data.label_separator = "multi", "|"
    multi = load_dataset(config.data)
    assert (multi.label_kind, multi.classes, multi.labels.shape) == ("multi", ("a", "b"), (90, 2))
    assert multi.split_policy.startswith("seeded: stratified by label")
    assert single.fingerprint != multi.fingerprint
