"""Several text columns become one text, in training and on the device alike."""

import csv
import json

import numpy as np
import pytest

from bench.edge.errors import InputError
from bench.edge.inputs.text import Tokens, sentence
from fusion_keras.config import get_config
from fusion_keras.data.manifest import read_manifest
from fusion_keras.data.text_columns import JOIN, TextColumns
from fusion_keras.data.tokens import encode, load_tokenizer
from fusion_keras.errors import UsageError
from fusion_keras.fusion.architectures import FUSION
from fusion_keras.modalities.text import Text
from fusion_keras.training.run import completed
from tests.support.backbones import text_preset

HEADER = ("title", "body", "genre, sub", "label")
ROWS = [
    (" Dune", "Sand worms. ", "sci-fi", "1"),
    ("", 'A "quoted" one', "NaN", "0"),
    ("Emma", "", "None", "1"),
    ("nan", "null", "crime", "0"),
    ("A | B", "x", "y", "0"),
]
WRITTEN = 'title,body,"genre, sub"'


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "books.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *ROWS])
    return path


def read(table, **settings):
    settings = {"text_column": WRITTEN, "image_column": "", **settings}
    return read_manifest(table, **settings)


def test_texts_of_several_columns_are_joined_and_empty_cells_left_out(table):
    assert read(table).raw["text"] == [
        "Dune | Sand worms. | sci-fi",
        'A "quoted" one',
        "Emma",
        "crime",
        "A | B | x | y",
    ]
    assert read(table, text_names=True, text_join="; ").raw["text"][:3] == [
        "title: Dune; body: Sand worms.; genre, sub: sci-fi",
        'body: A "quoted" one',
        "title: Emma",
    ]
    # None is a genre where it is told not to be a missing value.
    assert read(table, missing=("nan",)).raw["text"][2] == "Emma | None"


def test_cells_that_are_left_out_are_counted_with_the_first(table):
    assert read(table).notes == (
        "title is empty in 2 of 5 rows, the first books.csv line 3: left out of their texts",
        "body is empty in 2 of 5 rows, the first books.csv line 4: left out of their texts",
        "genre, sub is empty in 2 of 5 rows, the first books.csv line 3: left out of their texts",
    )


def test_a_row_lacks_its_text_where_all_columns_are_empty(table):
    with table.open("a", encoding="utf-8") as file:
        file.write("n/a, ,None,1\n")
    records = read(table, max_skipped=0.2)
    assert (len(records), len(records.skips.entries)) == (5, 1)
    assert records.skips.entries[0] == "books.csv line 7: empty title, body, genre, sub"


def test_one_column_is_the_cell_as_it_stands(table):
    records = read(table, text_column="title", max_skipped=0.4)
    assert records.raw["text"] == [" Dune", "Emma", "A | B"]
    assert records.notes == ()
    named = read(table, text_column="title", text_names=True, max_skipped=0.4)
    assert named.raw["text"] == ["title: Dune", "title: Emma", "title: A | B"]


@pytest.mark.parametrize(
    ("written", "columns"),
    [
        ("text", ("text",)),
        ("a text (en)", ("a text (en)",)),
        ('5" wide', ('5" wide',)),
        ("title, body", ("title", "body")),
        ("(title,body)", ("title", "body")),
        ('"genre, sub"', ("genre, sub",)),
        ('"genre, sub", "say ""hi""",c', ("genre, sub", 'say "hi"', "c")),
    ],
)
def test_columns_are_named_as_a_line_of_csv_names_them(written, columns):
    assert TextColumns.of(written).columns == columns


def test_what_cannot_be_meant_is_refused(table):
    with pytest.raises(UsageError, match="names 'title' twice"):
        read(table, text_column="title,body,title")
    with pytest.raises(UsageError, match="text_join is '; ', and text_column names one"):
        read(table, text_column="title", text_join="; ")
    with pytest.raises(UsageError, match=r"no column 'genre' .*a comma in double quotes"):
        read(table, text_column="title,genre, sub")
    with pytest.raises(UsageError, match="text_join is '; ', and text_column names none"):
        read(table, text_column="", text_join="; ")


def test_the_settings_stand_in_the_config_as_here():
    manifest = get_config().data.manifest
    assert (manifest.text_join, manifest.text_names) == (JOIN, False)


# --- The device ---------------------------------------------------------------------------------


def described(**settings) -> dict:
    """What `config.json` and `meta.json` say of the text."""
    config = get_config()
    config.data.source = "manifest"
    config.data.manifest.update({"text_column": WRITTEN, **settings})
    return json.loads(json.dumps(Text().described(text_preset(), config)))


@pytest.mark.parametrize(
    "settings", [{}, {"text_names": True}, {"text_join": " [SEP] "}, {"missing": ("nan", "Crime")}]
)
def test_the_device_joins_as_training_does(table, tiny, tmp_path, settings):
    spec = described(**settings)
    texts = read(table, **settings).raw["text"]
    rows = [dict(zip(HEADER[:3], row, strict=False)) for row in ROWS]
    assert [sentence(row, spec) for row in rows] == texts
    # As a command line has them; a column that is left out is empty.
    written = [[f"{name}={cell}" for name, cell in row.items() if cell] for row in rows]
    assert [sentence(given, spec) for given in written] == texts
    assert [sentence(text, spec) for text in texts] == texts
    own = load_tokenizer(tiny.folder / "presets" / "text")
    (tmp_path / "tokenizer.json").write_text(own.tokenizer.to_str())
    tokens = Tokens(tmp_path, {"inputs": {"token_ids": spec}, "lengths": [24]})
    ids = np.concatenate([tokens(row) for row in rows])
    np.testing.assert_array_equal(ids, encode(texts, own, 24)[0])


def test_values_that_are_no_text_are_written_out():
    spec = described(text_column="name,price,note")
    assert sentence({"name": "Emma", "price": 12.5, "note": None}, spec) == "Emma | 12.5"


def test_one_column_leaves_no_trace_in_the_artifact():
    spec = described(text_column="title")
    assert spec == {"max_length": 26, "pad_id": 0}
    assert sentence(["a=b"], spec) == "a=b"
    with pytest.raises(InputError, match="--text came 2 times"):
        sentence(["a", "b"], spec)
    with pytest.raises(InputError, match="no column 'title'; it is one sentence"):
        sentence({"title": "Emma"}, spec)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["Emma"], "joined from title, body, genre, sub, and 'Emma' begins with none"),
        (["title=a", "title=b"], "a column twice"),
        ({"name": "Emma"}, "no column 'name'; it has title, body, genre, sub"),
    ],
)
def test_the_device_says_what_it_cannot_join(given, said):
    with pytest.raises(InputError, match=said):
        sentence(given, described())


def test_the_export_shows_how_to_ask():
    inputs = {"token_ids": described(text_column="title,body"), "image": {}}
    assert FUSION.ask(inputs) == '--text "title=..." --text "body=..." --image FILE'


def test_an_older_run_that_named_a_column_with_a_comma_is_read_so():
    for section in ({"manifest": {"text_column": "a, b"}}, {"text_column": "a, b"}):
        written = completed({"data": {"source": "manifest", **section}})
        assert TextColumns.of(written["data"]["manifest"]["text_column"]).columns == ("a, b",)
    plain = completed({"data": {"manifest": {"text_column": "text"}}})["data"]["manifest"]
    assert (plain["text_column"], plain["text_join"]) == ("text", " | ")
