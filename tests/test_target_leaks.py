"""An input that is the label, or that says the same, is refused or named."""

import pytest

from fusion_keras.data.manifest import read_manifest
from fusion_keras.errors import UsageError


@pytest.fixture
def read(tmp_path):
    """read(cells, **settings) -> the notes of a table of 40 rows; cells: row -> column's cell."""

    def read(cell, **settings):
        lines = [f"say {row},{'ab'[row % 2]},{cell(row)}" for row in range(40)]
        path = tmp_path / "t.csv"
        path.write_text("\n".join(["text,label,more", *lines]), encoding="utf-8")
        return read_manifest(path, image_column="", **settings).notes

    return read


def test_the_label_as_an_input_is_refused(read):
    for settings in ({"text_column": "label"}, {"text_column": "text,label"}):
        with pytest.raises(UsageError, match="'label' both as label_column and as an input"):
            read(str, **settings)
    with pytest.raises(UsageError, match="'label' both as label_column"):
        read(str, categories=("label",))
    with pytest.raises(UsageError, match=r"'more' both as score_column.*score_column= for no"):
        read(str, numbers=("more",), score_column="more")


def test_a_column_that_gives_the_label_away_is_named(read):
    (note,) = read(lambda row: "NY"[row % 2], categories=("more",))
    assert note.startswith("t.csv: the column 'more', an input, gives the label away")
    assert "which of its 2 values it is tells it in 40 of 40 rows" in note
    assert read(lambda row: "NY"[row % 2], text_column="text,more") == (note,)
    (note,) = read(lambda row: row % 2 * 100 - row, numbers=("more",))
    assert "its ranges within the classes do not overlap" in note
    (note,) = read(lambda row: row if row % 2 else "", numbers=("more",))
    assert "whether it is there tells it in 40 of 40 rows" in note
    (note,) = read(lambda row: [2, 1, 2, 3][row % 4], numbers=("more",))
    assert "which of its 3 values it is" in note
    (note,) = read(lambda row: "NY"[row % 2], categories=("more",), label_kind="multi")[1:]
    assert "gives the label away" in note


def test_what_tells_much_and_not_all_is_an_input_like_others(read):
    assert read(lambda row: "NY"[row % 2] if row else "Y", categories=("more",)) == ()
    assert read(lambda row: row % 2 * 30 - row, numbers=("more",)) == ()
    assert read(lambda row: row if row % 2 or row < 4 else "", numbers=("more",)) == ()
    # Values of a row each tell it from all others, and nothing of a row to come.
    assert read(str, categories=("more",)) == ()
    # Nobody asks for the column.
    assert read(lambda row: "NY"[row % 2]) == ()
