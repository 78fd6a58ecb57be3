"""What a table's refusals and notes advise: the setting, column or spelling that is meant."""

import pytest

from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.splits import assign_splits
from fusion_keras.errors import UsageError
from tests.support.manifests import HEADER, ROWS


def test_what_may_stand_for_no_image_names_the_setting(write):
    path = write(
        "text,image,label", "a,images/0.png,x", "b,-,y", "c,gone.png,y", "d,images/1.png,y"
    )
    records = read_manifest(path, max_skipped=0.5)
    assert records.skips.entries == [
        "set.csv line 3: no image file '-' (if that is for none: --config.data.manifest.missing)",
        "set.csv line 4: no image file 'gone.png'",
    ]


def test_columns_that_are_written_otherwise_or_not_separated_are_told(write):
    path = write("Text,image,label", "a,images/0.png,x")
    with pytest.raises(UsageError, match=r"no column 'text' .*'Text' is written otherwise"):
        read_manifest(path)
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        path = write(sign.join(["text", "image", "label"]), sign.join(["a, b", "i.png", "x"]))
        with pytest.raises(UsageError, match=f"header looks like names with {name} between"):
            read_manifest(path)


def test_a_class_that_training_has_spelt_otherwise_names_what_joins_them(write):
    rows = [row[:-1] + ("pos" if row[-1] == "1" else "neg") for row in ROWS]
    path = write(HEADER, *rows[:3], rows[3].replace("neg", "Neg"))
    said = r"no train row of class Neg .*'Neg' and 'neg' look alike, and .*join_classes"
    with pytest.raises(UsageError, match=said):
        read_manifest(path)
    assert len(read_manifest(path, join_classes=True)) == 4


def test_an_absolute_path_may_lie_inside(write):
    path = write(HEADER, *ROWS)
    here = path.parent / "images" / "0.png"
    write(HEADER, ROWS[0].replace("images/0.png", str(here)), *ROWS[1:])
    assert read_manifest(path).raw["image"][0] == here.resolve()


def test_columns_of_default_names_can_be_left_out_and_the_error_says_so(write):
    table = "manifest."
    path = write(HEADER, ROWS[0], ROWS[1].replace("b,", "a,", 1), *ROWS[2:])
    with pytest.raises(UsageError, match=f"'a' twice .*--config.data.{table}id_column="):
        read_manifest(path)
    path = write(HEADER + ",group", *(row + "," for row in ROWS))
    with pytest.raises(UsageError, match=f"empty group .*{table}id_column= or group_column="):
        read_manifest(path)
    path = write(HEADER + ",score", *(row + ",low" for row in ROWS))
    with pytest.raises(UsageError, match=f"--config.data.{table}score_column="):
        read_manifest(path)


def test_packed_files_are_named(write):
    for magic, kind in ((b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "spreadsheet")):
        path = write(HEADER, *ROWS)
        path.write_bytes(magic + bytes(range(256)))
        with pytest.raises(UsageError, match=kind):
            read_manifest(path)


def test_quotes_behind_a_blank_are_noted(write):
    path = write("text, label", *(f'"t{i}", "{i % 2}x"' for i in range(4)))
    records = read_manifest(path, image_column="")
    (note,) = records.notes
    assert note.startswith("set.csv: 4 rows have a blank between separator and quote, the first in")
    assert records.classes == ('"0x"', '"1x"')


def test_numbers_dashes_and_placeholders_among_classes_are_noted(write):
    cells = ["1", "1.0", "01", "non-neg", "non\u2011neg", "don't", "don\u2019t", "NA", "?"]
    path = write("text,label", *(f"t{i},{cell}" for i, cell in enumerate(cells * 2)))
    records = read_manifest(path, image_column="")
    notes = " | ".join(records.notes)
    assert "7 classes differ only in case" in notes
    for name in ("NA", "?"):
        assert f"the class {name!r} (2 rows" in notes
    assert len(read_manifest(path, image_column="", join_classes=True).classes) == 5


def test_classes_with_commas_are_one_name_and_the_reason_says_how_to_write_several(write):
    path = write("text,label", "a,neg", "b,pos")
    with pytest.raises(UsageError, match=r"one name: write --config.*=\"\('neg', 'pos'\)\""):
        read_manifest(path, image_column="", classes=("neg,pos",))


def test_a_label_for_each_row_is_asked_about(write):
    path = write("text,label", *(f"t{i},{2000 + i}" for i in range(60)))
    records = read_manifest(path, image_column="")
    with pytest.raises(UsageError, match=r"got 60 classes in 60 rows.*is the label column one of"):
        assign_splits(records.labels, records.groups)
    splits = ["train"] * 40 + ["valid"] * 10 + ["test"] * 10
    rows = [f"t{i},{2000 + i},{split}" for i, split in enumerate(splits)]
    path = write("text,label,split", *rows)
    said = r"no train row of class 2040, 2041, 2042 and 17 more in .*60 classes in 60 rows"
    with pytest.raises(UsageError, match=said):
        read_manifest(path, image_column="")


def test_a_category_may_be_a_missing_value(write):
    path = write("text,label,site", "a,x,nan", "b,y,none", "c,x,s")
    records = read_manifest(path, image_column="", categories=("site",))
    assert [row["site"] for row in records.raw["tabular"]] == ["", "none", "s"]
