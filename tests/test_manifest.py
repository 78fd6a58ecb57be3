"""Reading tables: real ones wholly, and one clear sentence for each kind of broken one."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from fusion_keras.config import get_config
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.table import MISSING
from fusion_keras.errors import UsageError
from tests.support.manifests import HEADER, ROWS


def test_reads_every_field(write):
    records = read_manifest(write(HEADER + ",group,score", *(row + ",g,0.5" for row in ROWS)))
    assert records.name == "set"
    assert records.ids == ["a", "b", "c", "d"]
    assert records.splits == ["train", "train", "valid", "test"]
    assert records.raw["text"] == ["good day", "bad day", "fine", "awful"]
    assert [path.name for path in records.raw["image"]] == ["0.png", "1.png", "0.png", "1.png"]
    assert records.labels.dtype == np.int32
    assert records.labels.tolist() == [1, 0, 1, 0]
    assert records.classes == ("0", "1")
    assert records.scores.tolist() == [0.5] * 4
    assert records.groups == ["g"] * 4
    assert "1 groups are in more than one split: g" in records.notes[-1]


def test_optional_columns_may_be_absent(write):
    records = read_manifest(write("text,image,label", "x,images/0.png,b", "y,images/1.png,a"))
    assert records.ids == ["line2", "line3"]
    assert records.classes == ("a", "b")
    assert (records.splits, records.groups, records.scores) == (None, None, None)


def test_an_optional_column_can_be_left_out(write):
    records = read_manifest(write(HEADER, *ROWS), split_column="", id_column="", image_column="")
    assert (records.splits, records.raw.get("image"), records.ids[0]) == (None, None, "line2")


def test_a_table_needs_no_text(write):
    path = write("image,label", "images/0.png,b", "images/1.png,a")
    records = read_manifest(path, text_column="")
    assert records.raw["text"] == [None, None]
    assert [image.name for image in records.raw["image"]] == ["0.png", "1.png"]
    with pytest.raises(UsageError, match=r'no column .text. .* or "" for no text'):
        read_manifest(path)


def test_renamed_columns(write):
    path = write("satz,bild,klasse,teil", *(row.split(",", 1)[1] for row in ROWS), name="x.csv")
    path.write_text(path.read_text().replace("satz,bild,klasse,teil", "teil,satz,bild,klasse"))
    names = {"text": "satz", "image": "bild", "label": "klasse", "split": "teil"}
    records = read_manifest(path, **{f"{key}_column": name for key, name in names.items()})
    assert records.raw["text"][0] == "good day"
    assert records.splits[2] == "valid"


def test_tsv_and_json_lines_say_the_same_as_csv(write):
    expected = read_manifest(write(HEADER, *ROWS))
    tsv = read_manifest(write(*(r.replace(",", "\t") for r in (HEADER, *ROWS)), name="set.tsv"))
    keys = HEADER.split(",")
    entries = [dict(zip(keys, row.split(","), strict=True)) for row in ROWS]
    entries = [{**entry, "label": int(entry["label"])} for entry in entries]
    lines = read_manifest(write(*map(json.dumps, entries), name="set.jsonl"))
    for other in (tsv, lines):
        assert other.raw["text"] == expected.raw["text"]
        assert other.splits == expected.splits
        assert other.labels.tolist() == expected.labels.tolist()


def test_byte_order_mark_and_quoted_line_breaks(write):
    rows = ['a,train,"one\n\ntwo ""x""",images/0.png,1', ROWS[1], *ROWS[2:], "e,train,z,no.png,1"]
    records = read_manifest(write(HEADER, *rows, encoding="utf-8-sig"), max_skipped=0.5)
    assert records.raw["text"][0] == 'one\n\ntwo "x"'
    # The quoted breaks count as lines, so that an editor finds the row.
    assert records.origins[1] == "set.csv line 5"
    assert records.skips.entries == ["set.csv line 8: no image file 'no.png'"]


def test_dirty_texts_are_kept_as_they_are(write):
    texts = ["😀", "caf\u00c3\u00a9 \u0085 \u2028", " x "]
    rows = [f"{i},train,{text},images/0.png,{i % 2}" for i, text in enumerate(texts)]
    assert read_manifest(write(HEADER, *rows, *ROWS)).raw["text"][:3] == texts


def test_unpaired_surrogates_become_replacement_characters(write):
    good = {"text": "\ud83d\ude00", "label": "a"}
    lines = [json.dumps(good), '{"text": "x\\ud83d", "label": "b"}']
    records = read_manifest(write(*lines, name="x.jsonl"), image_column="")
    assert records.raw["text"] == ["\U0001f600", "x\ufffd"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.0", "0", "1"], ("0", "1")),
        (["positive", "negative", "neutral"], ("negative", "neutral", "positive")),
        (["Positive", "Negative", "Negative"], ("Negative", "Positive")),
        (["joy", "anger", "positive"], ("anger", "joy", "positive")),
    ],
)
def test_order_of_classes(write, labels, classes):
    records = read_manifest(write("text,label", *(f"t,{x}" for x in labels)), image_column="")
    assert records.classes == classes
    named = [classes[index] for index in records.labels]
    assert named == [label.removesuffix(".0") for label in labels]


def test_given_classes_name_integers_and_set_the_order(write):
    path = write(HEADER, *ROWS)
    named = read_manifest(path, classes=("negative", "non-negative"))
    assert (named.classes, named.labels.tolist()) == (("negative", "non-negative"), [1, 0, 1, 0])
    turned = read_manifest(path, classes=("1", "0"))
    assert turned.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x,train,,images/0.png,1", "empty text"),
        ("x,train,t,images/0.png,", "empty label"),
        ("x,train,t,images/0.png,NaN", "no label: 'NaN'"),
        ("x,train,t,images/9.png,1", "no image file 'images/9.png'"),
        ("x,train,t,images,1", "no image file 'images'"),
        (f"x,train,t,{'n' * 300}.png,1", "no image file"),
        ("x,train,t,,1", "no image file ''"),
        (",train,t,images/0.png,1", "empty id"),
        ("x,train,t, with a comma,images/0.png,1", "6 cells under 5 columns"),
        ("x,train", "2 cells under 5 columns"),
    ],
)
def test_an_unusable_row_is_skipped_within_the_limit(write, row, reason):
    path = write(HEADER, *ROWS, row)
    records = read_manifest(path, max_skipped=0.2)
    assert len(records) == 4
    (entry,) = records.skips.entries
    assert entry.startswith("set.csv line 6: ")
    assert reason in entry
    with pytest.raises(UsageError, match=r"got 1 unusable of 5 rows in set\.csv .*line 6"):
        read_manifest(path, max_skipped=0.19)


def test_a_label_outside_the_given_classes_is_skipped(write):
    path = write(HEADER, *ROWS, "x,train,t,images/0.png,7")
    records = read_manifest(path, classes=("0", "1"), max_skipped=0.2)
    assert (len(records), len(records.raw["image"])) == (4, 4)
    assert "line 6: label '7' is none of 0, 1" in records.skips.entries[0]


def test_the_default_limit_is_one_row_in_a_hundred(write):
    good = [f"r{i},train,t,images/0.png,{i % 2}" for i in range(195)]
    bad = "x,train,,images/0.png,1"
    assert len(read_manifest(write(HEADER, *ROWS, *good, bad))) == 199
    with pytest.raises(UsageError, match="got 3 unusable of 202 rows"):
        read_manifest(write(HEADER, *ROWS, *good, bad, bad, bad))


def _bad(*replacements, rows=ROWS, header=HEADER):
    """The good manifest with (row, from, to) replaced."""
    rows = list(rows)
    for row, old, new in replacements:
        rows[row] = rows[row].replace(old, new)
    return [header, *rows]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (_bad((0, "images/0", "../secret")), "line 2, wanted one that stays inside"),
        (_bad((0, "images/0", "images/../../secret")), "line 2, wanted one that stays inside"),
        (_bad((0, "images/0", "/etc/secret")), "line 2, wanted one that stays inside"),
        (_bad((0, "images/0", "C:\\secret")), "line 2, wanted one that stays inside"),
        (_bad((2, "dev", "holdout")), "got the split 'holdout' in set.csv line 4"),
        (_bad((2, "dev", "")), "got the split '' in set.csv line 4"),
        (_bad((3, "d,", "a,")), r"id 'a' twice \(set.csv line 2 and set.csv line 5\)"),
        (_bad((2, "dev", "test")), "got no valid rows in set.csv"),
        (_bad((1, ",0", ",1")), "got no train row of class 0"),
        (_bad((1, ",0", ",1"), (3, ",0", ",1")), r"fewer than two classes in set.csv \(1\)"),
        (_bad((0, ",1", ",0.25"), (1, ",0", ",-1.5")), "label '0.25' in set.csv line 2"),
        ([HEADER], "got no rows in"),
        ([""], "got no rows in"),
        ([HEADER, "a,train,,images/0.png,1"], "got 1 unusable of 1 rows"),
        (_bad(header="id,id,text,image,label"), "got the column 'id' twice"),
        (_bad(header="id,split,words,image,label"), r"no column 'text' .*id, split, words, image"),
        (_bad(header="id,split,text,picture,label"), "no column 'image' .*or \"\" for none"),
        (_bad(header="id,split,text,image,y"), "no column 'label'"),
        (_bad((1, "bad day", '"bad day')), "row that begins at line 3 of .*, wanted every quote"),
        (_bad((0, "good", "\0")), r"got byte 0x00 at offset \d+ \(line 2\)"),
    ],
)
def test_a_broken_manifest_ends_with_a_sentence(write, lines, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_manifest(write(*lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["", "n/a", "nan", "inf", "1_0"])
def test_a_score_that_is_no_number_ends_with_a_sentence(write, cell):
    rows = [row + ",1.5" for row in ROWS[:3]] + [ROWS[3] + f",{cell}"]
    path = write(HEADER + ",score", *rows)
    with pytest.raises(UsageError, match=f"got the score '{cell}' in set.csv line 5"):
        read_manifest(path)
    assert read_manifest(path, score_column="").scores is None


@pytest.mark.parametrize("option", ["split", "id", "group", "score"])
def test_a_named_optional_column_must_exist(write, option):
    with pytest.raises(UsageError, match=f"no column 'other' .* for the {option}"):
        read_manifest(write(HEADER, *ROWS), **{f"{option}_column": "other"})


def test_a_file_that_is_not_utf8_is_refused_with_the_place(write):
    path = write(HEADER, *_bad((1, "bad", "b\u00e4d"))[1:], encoding="latin-1")
    offset = path.read_bytes().index(b"\xe4")
    with pytest.raises(UsageError, match=rf"got byte 0xe4 at offset {offset} \(line 3\).*iconv"):
        read_manifest(path)
    with pytest.raises(UsageError, match=r"got byte 0xff at offset 0 \(line 1\).*iconv -f UTF-16"):
        read_manifest(write(HEADER, *ROWS, encoding="utf-16"))
    marked = write(HEADER, *ROWS, encoding="utf-8-sig")
    marked.write_bytes(marked.read_bytes() + b"\xe4")
    with pytest.raises(UsageError, match=rf"at offset {marked.stat().st_size - 1} \(line 6\)"):
        read_manifest(marked)


@pytest.mark.parametrize("line", ["[1, 2]", '{"text": ', "3", "[" * 100_000])
def test_json_lines_that_are_no_objects(write, line):
    with pytest.raises(UsageError, match=r"got line 2 of .* which is no JSON object"):
        read_manifest(write('{"text": "x", "label": 1}', line, name="x.jsonl"), image_column="")


def test_missing_file_folder_and_unknown_suffix(tmp_path, write):
    with pytest.raises(UsageError, match="does not exist"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        read_manifest(tmp_path / "folder.csv")
    with pytest.raises(UsageError, match="wanted a table whose name ends in"):
        read_manifest(write(HEADER, *ROWS, name="set.xlsx"))
    with pytest.raises(UsageError, match="got max_skipped=5"):
        read_manifest(write(HEADER, *ROWS), max_skipped=5)


def test_a_link_out_of_the_folder_is_refused(tmp_path, write):
    path = write(HEADER, *_bad((0, "images/0", "images/link"))[1:])
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    link = path.parent / "images" / "link.png"
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(UsageError, match="stays inside"):
        read_manifest(path, max_skipped=1.0)
    link.unlink()
    link.symlink_to(link)  # a loop
    with pytest.raises(UsageError, match="stays inside"):
        read_manifest(path, max_skipped=1.0)
    link.unlink()
    link.symlink_to(path.parent / "images" / "1.png")
    assert read_manifest(path).raw["image"][0].name == "1.png"


def test_select_keeps_the_fields_together(write):
    records = read_manifest(write(HEADER, *ROWS)).select([3, 0])
    assert (records.ids, records.labels.tolist()) == (["d", "a"], [0, 1])
    assert records.origins == ["set.csv line 5", "set.csv line 2"]
    assert len(records.raw["image"]) == len(records) == 2


def test_the_real_tweets_are_read_wholly(data_root):
    binary = read_manifest(data_root / "tweets" / "manifest.csv")
    assert binary.name == "tweets"
    assert Counter(binary.splits) == {"train": 2400, "valid": 300, "test": 300}
    assert (binary.skips.entries, binary.notes) == ([], ())
    assert 0.65 < binary.labels.mean() < 0.75
    three = read_manifest(data_root / "tweets" / "manifest.csv", label_column="sentiment")
    assert three.classes == ("negative", "neutral", "positive")
    assert np.array_equal(three.labels > 0, binary.labels > 0)


def test_the_constructed_faces_are_read_wholly(data_root):
    records = read_manifest(data_root / "mosi_fer" / "manifest.csv")
    assert Counter(records.splits) == {"train": 1284, "valid": 229, "test": 686}
    assert np.array_equal(records.scores >= 0, records.labels == 1)


def labelled(write, labels, **settings):
    """Rows of a text and a label each, in order."""
    path = write("text,label", *(f"t{i},{label}" for i, label in enumerate(labels)))
    return read_manifest(path, image_column="", **settings)


@pytest.mark.parametrize(
    ("labels", "classes", "values"),
    [
        (["01", "02", "03"], ("01", "02", "03"), [0, 1, 2]),
        (["1", "2", "3"], ("01", "02", "03"), [0, 1, 2]),
        (["0", "1", "2"], ("2", "1", "0"), [2, 1, 0]),
        (["2.0", "1", "2"], ("1", "2"), [1, 0, 1]),
        (["0.5", "1.5"], ("1.5", "0.5"), [1, 0]),
        (["1", "01", "2"], ("1", "01", "2"), [0, 1, 2]),
        (["0", "1", "2.0"], ("a", "b", "c"), [0, 1, 2]),
        (["nan", "a"], ("a", "nan"), [1, 0]),
    ],
)
def test_a_label_that_is_a_given_name_is_that_class(write, labels, classes, values):
    records = labelled(write, labels, classes=classes)
    assert (records.labels.tolist(), records.classes) == (values, classes)
    assert records.skips.entries == []


@pytest.mark.parametrize("labels", [["1", "2", "3"], ["1", "2", "1"], ["0", "1", "2", "3"]])
def test_numbers_that_are_no_indices_are_refused_with_both_readings(write, labels):
    with pytest.raises(UsageError) as caught:
        labelled(write, labels, classes=("negative", "neutral", "positive"), max_skipped=1.0)
    message = str(caught.value)
    assert f"got the labels {', '.join(sorted(set(labels)))} (" in message
    assert "counted from 0, " in message
    assert "1 is neutral, 2 is positive" in message
    assert "counted from 1, " in message
    assert "1 is negative, 2 is neutral" in message


def test_the_line_of_the_first_number_that_is_no_index_is_shown(write):
    with pytest.raises(UsageError, match=r"\('7' in set.csv line 4\).*8 is none; wanted names, or"):
        labelled(write, ["0", "1", "7", "8"], classes=("a", "b"))


ALIKE = {
    "case": ("Positive", "positive"),
    "no-break space": ("very\u00a0bad", "very bad"),
    "zero width": ("bad\u200b", "bad"),
    "combining": ("caf\u00e9", "cafe\u0301"),
    "variant": ("\u2764\ufe0f", "\u2764"),
    "spaces": ("very  bad", "very bad"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE.keys())
def test_classes_that_look_the_same_are_noted_and_joined_if_asked(write, one, other):
    labels = [one, "x", other, other, "x"]
    records = labelled(write, labels)
    assert len(records.classes) == 3
    (note,) = records.notes
    assert "2 classes differ only in case, in characters that are not seen" in note
    assert "(1 rows, first line 2)" in note
    assert "(2 rows, first line 4)" in note
    assert "data.manifest.join_classes" in note
    joined = labelled(write, labels, join_classes=True)
    assert set(joined.classes) == {other, "x"}
    assert [joined.classes[v] for v in joined.labels] == [other, "x", other, other, "x"]
    assert "1 spellings of classes are read as another" in joined.notes[0]
    given = labelled(write, labels, join_classes=True, classes=(one, "x"))
    assert given.labels.tolist() == [0, 1, 0, 0, 1]


def test_a_label_that_looks_like_a_given_class_is_told_of_joining(write):
    with pytest.raises(
        UsageError, match=r"line 3: .*looks like 'Bad' \(data.manifest.join_classes"
    ):
        labelled(write, ["Bad", "bad", "good"], classes=("Bad", "good"))
    with pytest.raises(UsageError, match=r"got the classes 'Bad' and 'bad' with join_classes"):
        labelled(write, ["Bad", "bad"], classes=("Bad", "bad"), join_classes=True)


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        (["a;b", "b;a", "a"], 2),
        (["fire|flood", "storm"], 1),
        (["comedy/drama", "drama", "comedy", "horror"], 1),
        (["['x']", "[]", "y"], 2),
        (["R&B/Soul", "Rock", "Hip-Hop"], 0),
        (["rock & roll", "pop"], 0),
        (["C++", "C"], 0),
    ],
)
def test_cells_that_look_like_several_labels_are_noted(write, labels, several):
    records = labelled(write, labels)
    count = f"{several} of {len(labels)} classes look like several labels"
    assert [count in note for note in records.notes] == [True] * bool(several)
    assert labelled(write, labels, classes=tuple(labels)).notes == ()


@pytest.mark.parametrize("label", [["a", "b"], {"a": 1}])
def test_a_list_of_labels_is_refused_with_its_line(write, label):
    rows = [{"text": "x", "label": "a"}, {"text": "y", "label": label}]
    with pytest.raises(UsageError, match=r"under 'label' in x.jsonl line 2, wanted one label"):
        read_manifest(write(*map(json.dumps, rows), name="x.jsonl"), image_column="")


def test_a_class_that_may_be_a_missing_value_is_noted(write):
    records = labelled(write, ["None", "joy", "None"])
    assert records.classes == ("None", "joy")
    assert "the class 'None' (2 rows, first line 2) may be a missing value" in records.notes[0]


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "NULL", "N/A", "<NA>", " null "])
def test_a_missing_value_is_no_text_and_no_file(write, cell):
    rows = [f"x,train,{cell},images/0.png,1", f"y,train,t,{cell},1"]
    records = read_manifest(write(HEADER, *ROWS, *rows), max_skipped=0.5)
    assert len(records) == 4
    assert records.skips.entries == [
        f"set.csv line 6: no text: {cell!r}",
        f"set.csv line 7: no image: {cell!r}",
    ]
    kept = read_manifest(write(HEADER, *ROWS, rows[0]), missing=())
    assert kept.raw["text"][-1] == cell


def test_what_is_missing_can_be_said(write):
    row = "x,train,-,images/0.png,1"
    assert read_manifest(write(HEADER, *ROWS, row)).raw["text"][-1] == "-"
    with pytest.raises(UsageError, match="line 6: no text: '-'"):
        read_manifest(write(HEADER, *ROWS, row), missing=("-",))


def test_an_image_that_is_called_like_a_missing_value_is_an_image(write):
    path = write(HEADER, *ROWS, "x,train,t,none,1")
    (path.parent / "none").write_bytes((path.parent / "images" / "0.png").read_bytes())
    assert read_manifest(path).raw["image"][-1].name == "none"


def test_nan_and_null_of_json_are_missing(write):
    lines = ['{"text": NaN, "label": 1}', '{"text": null, "label": 1}', '{"label": 1}']
    good = [json.dumps({"text": f"t{i}", "label": i % 2}) for i in range(4)]
    path = write(*good, *lines, name="x.jsonl")
    records = read_manifest(path, image_column="", max_skipped=0.5)
    assert [entry.split(": ", 1)[1] for entry in records.skips.entries] == [
        "no text: 'nan'",
        "empty text",
        "empty text",
    ]


def test_a_number_may_be_a_missing_value(write):
    path = write("text,label,age", "a,x,1", "b,y,NaN", "c,x,-999", "d,y,", "e,x,2")
    options = {"image_column": "", "numbers": ("age",), "missing": ("nan", -999)}
    records = read_manifest(path, **options)
    assert [row["age"] for row in records.raw["tabular"]] == ["1", "", "", "", "2"]


def test_classes_may_be_given_as_numbers(write):
    path = write("text,label", "a,0", "b,1", "c,1", "d,2", "e,0")
    records = read_manifest(path, image_column="", classes=(1, 0), max_skipped=0.5)
    assert (records.classes, records.labels.tolist()) == (("1", "0"), [1, 0, 0, 1])


def test_notes_of_the_table_are_the_records(write):
    rows = [f"t{i}\t{i % 2}" for i in range(9)]
    path = write("text\tlabel", *rows, '"t\t1', 'u"\t0', name="x.tsv")
    records = read_manifest(path, image_column="")
    assert len(records) == 11
    assert "quotes are read as text" in records.notes[0]


def test_another_encoding_is_read_where_it_is_stated(write):
    rows = [row.replace("good", "\u597d") for row in ROWS]
    path = write(HEADER, *rows, encoding="gbk")
    assert read_manifest(path, encoding="gb18030").raw["text"][0] == "\u597d day"
    with pytest.raises(UsageError, match=r"--config\.data\.manifest\.encoding="):
        read_manifest(path)


def test_the_setting_of_missing_values_is_what_other_sources_take():
    assert get_config().data.manifest.missing == MISSING


# Of each file: the settings, rows, what some note or the refusal says.
CASES = {
    "tsv_quotes.tsv": ({}, 203, "the first in line 52"),
    "labels_zero_padded.csv": ({"classes": ("01", "02", "03")}, 399, ""),
    "labels_one_based.csv": ({"classes": ("bad", "so", "good")}, None, "1 is bad, 2 is so"),
    "labels_case.csv": ({}, 300, "4 classes differ only in case"),
    "labels_list.jsonl": ({}, None, "line 1, wanted one label"),
    "text_nan.csv": ({}, None, "got 10 unusable of 200 rows"),
    "text_nan.jsonl": ({}, None, "got 10 unusable of 200 rows"),
    "text_list.jsonl": ({}, None, "line 1, wanted one text"),
    "trailing_commas.csv": ({}, 100, ""),
    "gbk.csv": ({}, None, "gb18030 (GBK: '\u6211\u5f88\u9ad8\u5174"),
    "long_cell.csv": ({}, 100, ""),
}


@pytest.mark.parametrize(("name", "right"), CASES.items())
def test_the_small_inputs_are_read_rightly(data_root, name, right):
    path = data_root.parent / "cases" / name
    if not path.is_file():
        pytest.skip(f"no small inputs at {path.parent}")
    settings, rows, said = right
    if rows is None:
        with pytest.raises(UsageError) as caught:
            read_manifest(path, image_column="", **settings)
        assert said in str(caught.value)
        return
    records = read_manifest(path, image_column="", **settings)
    assert len(records) == rows
    assert any(said in note for note in records.notes) if said else records.notes == ()
