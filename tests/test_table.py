"""Tables of cells: what quotes swallow, columns that are nobody's, long cells, other encodings."""

import json

import pytest

from fusion_keras.data.encodings import fitting_encodings, read_text
from fusion_keras.data.records import SkipLog
from fusion_keras.data.table import read_table
from fusion_keras.errors import UsageError

PLAIN = [f"day {i}\t{'pos' if i % 2 else 'neg'}" for i in range(40)]
SENTENCES = {
    "gb18030": "我很高兴，今天天气很好",
    "cp932": "今日はとても良い天気ですね、うれしいです",
    "big5": "今天天氣很好我很高興",
    "cp949": "오늘 날씨가 아주 좋습니다",
    "cp1251": "Привет как дела сегодня очень хорошо",
    "cp1250": "Zażółć gęślą jaźń dzisiaj jest piękny dzień",
    "cp1252": "Das ist ein schöner Tag für Mädchen und Jungen",
}


@pytest.fixture
def read(tmp_path):
    """read(name, text) -> the table and what was skipped."""

    def read(name, text, encoding="utf-8", stated=""):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        skips = SkipLog(name, 1.0)
        table = read_table(path, skips, encoding=stated, encoding_flag="--encoding")
        return table, skips.entries

    return read


def texts(table):
    return [row.cells["text"] for row in table.rows]


def tsv(*rows):
    return "\n".join(["text\tlabel", *PLAIN, *rows, *PLAIN]) + "\n"


def test_a_quote_in_a_tsv_swallows_no_rows(read):
    table, skipped = read("x.tsv", tsv('"Love this\tpos', "so so\tneg", 'what a day"\tneg'))
    assert len(table.rows) == 83
    assert texts(table)[40:43] == ['"Love this', "so so", 'what a day"']
    assert [row.line for row in table.rows[40:43]] == [42, 43, 44]
    assert not skipped
    (note,) = table.notes
    assert note.startswith("x.tsv: 1 rows have a cell that begins with a quote, the first in line")
    assert "line 42 would run to line 44, over cells of rows" in note


@pytest.mark.parametrize("text", ['"Love" is all', '"never closed'])
def test_quotes_that_are_not_well_formed_are_text_in_a_tsv(read, text):
    table, skipped = read("x.tsv", tsv(f"{text}\tpos"))
    assert (texts(table)[40], len(table.rows), skipped) == (text, 81, [])
    assert "line 42" in table.notes[0]


def test_a_tsv_that_quotes_is_read_as_one(read):
    table, _ = read("x.tsv", tsv('"two\ttabs\t""and"" \n a break"\tpos', '"one"\tneg'))
    assert texts(table)[40:42] == ['two\ttabs\t"and" \n a break', "one"]
    assert [row.line for row in table.rows[40:43]] == [42, 44, 45]
    assert table.notes == ()


def test_a_quoted_cell_of_a_tsv_that_may_be_rows_is_named(read):
    """Nothing tells more than the number of cells: it is read as quoted."""
    rows = [f"day {i}\t{i / 10}" for i in range(20)]
    text = "\n".join(["text\tscore", *rows, '"one\t7.1', 'two"\t7.2'])
    table, _ = read("x.tsv", text)
    assert texts(table)[20:] == ["one\t7.1\ntwo"]
    assert "1 quoted cells run over lines that look like rows" in table.notes[0]
    assert "from line 22 to 23" in table.notes[0]


def test_a_quote_in_a_tsv_swallows_no_cell(read):
    table, skipped = read("x.tsv", tsv('"so\tpos"'))
    assert (texts(table)[40], table.rows[40].cells["label"]) == ('"so', 'pos"')
    assert (len(table.rows), skipped) == (81, [])


def test_quotes_inside_cells_of_a_tsv_are_text(read):
    table, _ = read("x.tsv", tsv('he said "no"\tneg'))
    assert (texts(table)[40], table.notes) == ('he said "no"', ())


def test_a_quoted_cell_of_a_csv_that_looks_like_rows_is_named(read):
    rows = [line.replace("\t", ",") for line in PLAIN]
    glued = ['"Love this,pos', "so so,neg", 'what a day",neg']
    table, _ = read("x.csv", "\n".join(["text,label", *rows, *glued, *rows]))
    assert len(table.rows) == 81
    assert "1 quoted cells run over lines that look like rows" in table.notes[0]
    assert "from line 42 to 44" in table.notes[0]
    poem = ['"Roses, red', 'violets, blue",pos']
    assert read("x.csv", "\n".join(["text,label", *rows, *poem]))[0].notes == ()


def test_columns_without_a_name_are_nobodys(read):
    table, skipped = read("x.csv", ",text,label,,\n0,a,b,,\n1,c,d,,\n2,e,f,,\n")
    assert (table.columns, texts(table), skipped) == (("text", "label"), ["a", "c", "e"], [])
    with pytest.raises(UsageError, match=r"no column '' .*columns: text, label\)"):
        table.require("", "text")


def test_a_value_beyond_the_last_named_column_is_a_pushed_row(read):
    table, skipped = read("x.csv", "text,label,,\na,b,,\nwell, yes,b,\nc,d,,\n")
    assert texts(table) == ["a", "c"]
    assert skipped == [
        "x.csv line 3: a value beyond the last named column, 'label' (unquoted separator?)"
    ]
    table, skipped = read("x.csv", "text,label,\na,b,1\nc,d,2\ne,f,\n")
    assert (texts(table), skipped) == (["a", "c", "e"], [])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", "text,n,n,label\na,1,2,b\n"),
        ("x.jsonl", '{"text": "a", "n": 1, " n": 2, "label": "b"}\n'),
    ],
)
def test_repeated_names_end_the_read_only_where_they_are_asked_for(read, name, text):
    table, _ = read(name, text)
    assert table.require("text", "text") == "text"
    assert texts(table) == ["a"]
    with pytest.raises(UsageError, match=r"got the column 'n' twice in .*; rename one"):
        table.require("n", "number")


def test_a_long_cell_is_read(read):
    table, _ = read("x.csv", f"text,blob\na,{'x' * 200_000}\n")
    assert len(table.rows[0].cells["blob"]) == 200_000
    table, _ = read("x.tsv", f'text\tblob\na\t"{"x" * 200_000}"\n')
    assert len(table.rows[0].cells["blob"]) == 200_000


@pytest.mark.parametrize("value", [["a", 1], {"a": 1}])
def test_a_list_or_object_is_refused_where_one_value_is_wanted(read, value):
    rows = [{"text": "a", "tags": []}, {"text": value, "tags": ["x"]}]
    table, _ = read("x.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match=r"under 'text' in x.jsonl line 2, wanted one text"):
        table.require("text", "text")


@pytest.mark.parametrize(("encoding", "sentence"), SENTENCES.items())
def test_the_advice_names_what_the_bytes_fit_and_how_it_reads(read, encoding, sentence):
    text = "text,label\n" + "".join(f"{sentence} {i},{i % 2}\n" for i in range(20))
    with pytest.raises(UsageError) as caught:
        read("x.csv", text, encoding)
    message = str(caught.value)
    assert f"{encoding} (" in message
    strange = next(i for i, letter in enumerate(sentence) if not letter.isascii())
    assert sentence[strange : strange + 5] in message
    assert "--encoding=" in message
    assert "iconv" in message
    assert encoding == "cp1252" or "cp1252" not in message
    table, _ = read("x.csv", text, encoding, stated=encoding)
    assert texts(table)[3] == f"{sentence} 3"


def test_utf_16_is_known_by_its_mark_or_its_zeros(read):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        with pytest.raises(UsageError, match=f"--encoding={encoding}"):
            read("x.csv", "text,label\nday,a\n", encoding)
        assert texts(read("x.csv", "text,label\nday,a\n", encoding, encoding)[0]) == ["day"]


def test_a_stated_encoding_that_is_wrong_is_told(read):
    with pytest.raises(UsageError, match="its bytes are UTF-8: leave --encoding out"):
        read("x.csv", "text,label\ncaf\u00e9,a\n", stated="ascii")
    for unknown in ("latin-99", "zip", "\0"):
        with pytest.raises(UsageError, match="wanted one that Python knows"):
            read("x.csv", "text,label\na,b\n", stated=unknown)


def test_what_no_usual_encoding_has_is_called_damaged(tmp_path):
    content = bytes(range(128, 256)) * 3
    assert fitting_encodings(content) == []
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UsageError, match="fit no usual encoding"):
        read_text(tmp_path / "x.csv")
