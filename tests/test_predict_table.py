"""`bench.predict` on many rows: a table, and lines of JSON as they come."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from bench.edge import json_lines, tables
from bench.edge.errors import BenchError
from bench.edge.predict import main as predict
from bench.edge.predictor import Answer, Predictor, _said
from bench.edge.scores import Truth, wilson
from fusion_keras.data.table import PERHAPS_NAMES
from fusion_keras.metrics import classification_metrics, label_metrics
from tests.support.tiny import HEADER, rows, write_manifest


@pytest.fixture(scope="module")
def predictor(tiny_artifact):
    return Predictor(tiny_artifact)


def read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, header, *lines):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def test_every_row_keeps_its_place_with_an_answer_or_the_reason(
    tiny_artifact, predictor, tmp_path, capsys
):
    def change(lines):
        del lines[8:]
        lines[1][1] = "gone.png"
        lines[2][0] = ""
        lines[3][1] = "None"
        lines[4][:2] = ["", "nan"]
        lines[5][1] = "../1.png"

    table = write_manifest(tmp_path / "data", change=change)
    lines = table.read_text().splitlines()
    lines[7] += ",one cell more"
    table.write_text("\n".join(lines) + "\n")
    (tmp_path / "1.png").write_bytes((tmp_path / "data" / "1.png").read_bytes())
    out = tmp_path / "answers.csv"
    assert predict([str(tiny_artifact), f"--table={table}", f"--out={out}"]) == 0
    printed = capsys.readouterr().out.splitlines()
    found = read(out)
    assert [row["id"] for row in found] == ["r0", "r1", "r2", "r3", "r4", "r5", "line8", "r7"]
    assert list(found[0]) == [
        *("id", "target", "predicted", "p_negative", "p_positive"),
        *("predicted_score", "milliseconds", "note", "error"),
    ]
    errors = [row["error"] for row in found]
    assert [bool(error) for error in errors] == [0, 1, 0, 0, 1, 1, 1, 0]
    for error, said in zip(
        [errors[i] for i in (1, 4, 5, 6)],
        [
            "gone.png is not there",
            "text or image is wanted",
            "leaves the table's folder",
            "8 cells",
        ],
        strict=True,
    ):
        assert said in error
    texts = [line[0] for line in rows(8)]
    image = tmp_path / "data" / "2.png"
    for row, given in (
        (found[0], {"text": texts[0], "image": tmp_path / "data" / "0.png"}),
        (found[2], {"image": image}),
        (found[3], {"text": texts[3]}),
    ):
        answer = predictor.predict(**given)
        assert row["error"] == ""
        assert row["predicted"] == answer.label
        for name, share in answer.probabilities.items():
            assert float(row[f"p_{name}"]) == pytest.approx(share, abs=1e-6)
    assert printed[0].startswith("4 of 8 rows answered in ")
    assert printed[1] == "4 could not be, as in"
    assert printed[2].strip().startswith("line 3: The image ")
    right = np.mean([row["predicted"] == row["target"] for row in found if not row["error"]])
    (accuracy,) = (line for line in printed if line.startswith("accuracy "))
    assert accuracy.startswith(f"accuracy {right:.4f} [")
    assert accuracy.endswith("of 4 rows")
    assert printed[-1] == f"Answers: {out}"


def test_a_file_of_answers_is_replaced_only_when_asked(tiny_artifact, tmp_path, capsys):
    table = write_manifest(tmp_path, change=lambda lines: lines.__delitem__(slice(2, None)))
    out = tmp_path / "answers.csv"
    out.write_text("mine")
    asked = [str(tiny_artifact), f"--table={table}", f"--out={out}"]
    assert predict(asked) == 2
    assert "is there: give --out another name, or --replace it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert predict([*asked, "--replace"]) == 0
    assert len(read(out)) == 2
    assert predict([str(tiny_artifact), f"--table={table}", f"--out={table}", "--replace"]) == 2
    assert "is the table itself" in capsys.readouterr().err
    assert len(read(table)) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--table=rows.csv"], "--table=rows.csv and --out=answers.csv go together"),
        (["--jsonl", "--text=a"], "one of them"),
        (["--table=rows.csv", "--out=a.csv", "--jsonl"], "one of them"),
    ],
)
def test_what_is_asked_in_two_ways_is_refused(tiny_artifact, flags, said, capsys):
    assert predict([str(tiny_artifact), *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"", "has no rows"),
        (b"text,image\n", "has no rows"),
        (b"sentence,picture\na,b\n", r"no column 'text' for text .*--text_column"),
        (b"text,text,image\na,b,c\n", "the column 'text' twice"),
        (b'text,image\n"a,b\n', "Close every quote"),
        (b"text,image\n\xff,b\n", "is not UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_is_a_sentence(predictor, tmp_path, content, said, monkeypatch):
    monkeypatch.setitem(predictor.meta, "may_lack", [])
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(tables.BenchError, match=said):
        tables.answer(predictor, path, tables.Columns(), print)
    with pytest.raises(tables.BenchError, match=r"is no \.csv"):
        tables.answer(predictor, tmp_path / "rows.tsv", tables.Columns(), print)


def test_columns_are_named_by_flags_and_a_modality_may_have_none(predictor, tmp_path):
    path = write(tmp_path / "rows.csv", ["key", "said", "is"], ["a", "a good day", "positive"])
    columns = tables.Columns(text="said", id="key", label="is")
    found = tables.answer(predictor, path, columns, print)
    (line,) = csv.DictReader(found.csv.splitlines())
    answer = predictor.predict(text="a good day")
    assert (line["id"], line["target"], line["predicted"]) == ("a", "positive", answer.label)
    assert found.notes == ("rows.csv has no column 'image': all answers lack image",)
    assert found.scored == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BenchError("the engine is lost.")])
def test_what_was_answered_is_kept_where_the_rest_is_not(
    predictor, tiny_artifact, tmp_path, monkeypatch, capsys, error
):
    table, out = write_manifest(tmp_path), tmp_path / "answers.csv"
    whole, asked = Predictor.predict_many, []

    def twice(self, examples):
        asked.append(examples)
        if len(asked) == 3:
            raise error
        return whole(self, examples)

    monkeypatch.setattr(Predictor, "predict_many", twice)
    done = predict([str(tiny_artifact), f"--table={table}", f"--out={out}"])
    assert done == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert f"hat was answered until then is in {out}" in capsys.readouterr().err
    errors = [row["error"] for row in read(out)]
    assert errors[:2] == ["", ""]
    assert set(errors[2:]) == {"not asked"}


def test_a_place_for_answers_is_tried_before_anything_is_asked(tiny_artifact, tmp_path, capsys):
    table = write_manifest(tmp_path)
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "answers.csv"
    assert predict([str(tiny_artifact), f"--table={table}", f"--out={out}"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_missing_is_what_the_artifact_says(tmp_path):
    cells = {"age": "-", "garage": "none", "title": "nan", "body": "-"}
    tabular = {"numbers": [{"name": "age"}], "categories": [{"name": "garage", "levels": ["none"]}]}
    spec = {
        "token_ids": {"columns": ["title", "body"], "missing": ["-"]},
        "tabular": {**tabular, "missing": ["-", "none"]},
    }
    meta = {"inputs": spec, "may_lack": ["tabular", "token_ids"]}
    columns = tables.Columns(missing=tables.MISSING)
    taken = tables._Taken.of(meta, columns, list(cells), tmp_path / "a.csv")
    assert set(taken.given(cells)) == {"text", "features"}
    assert taken.given({**cells, "garage": "-", "title": "-"}) == {}
    assert set(PERHAPS_NAMES) == tables.PERHAPS_LEVELS


def test_progress_tells_what_is_left(predictor, tmp_path, monkeypatch):
    table = write(tmp_path / "rows.csv", HEADER, *rows(8))
    write_manifest(tmp_path)
    monkeypatch.setattr(tables, "_SHOW_EVERY", 0)
    lines = []
    tables.answer(predictor, table, tables.Columns(), lines.append)
    assert lines[0].startswith("1 of 8 rows, 0:0")
    assert lines[-1] == ""


# --- Scores ---------------------------------------------------------------------------------------


class Rows(list):
    """Rows of a table, by the cell of their label."""

    def __init__(self, labels):
        super().__init__(tables.Row(i, {"label": label}) for i, label in enumerate(labels))


def answers(shares, several=False):
    names = [f"c{i}" for i in range(shares.shape[1])]
    return [
        Answer((), dict(zip(names, row.tolist(), strict=True)), {}, several=several)
        for row in shares
    ]


def test_scores_are_those_of_training():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(4), 50)
    labels = rng.integers(0, 3, 50)
    truth = Truth.of({"classes": ["c0", "c1", "c2", "c3"]}, tables.Columns(), ["label"])
    cells = [f" c{label} " for label in labels]
    found, count, notes = truth.scores(
        Rows([*cells, "other"]), answers(np.vstack([shares, shares[:1]]))
    )
    wanted = classification_metrics(shares, labels)
    assert count == 50
    assert notes[0].startswith("1 of 51 answered rows have a label that is none of")
    for name, value in found.items():
        assert value == pytest.approx(wanted[name])
    low, high = wilson(0.5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_scores_of_several_labels_are_those_of_training():
    rng = np.random.default_rng(0)
    shares = rng.uniform(size=(40, 3))
    labels = rng.integers(0, 2, (40, 3)).astype(np.uint8)
    meta = {"classes": ["c0", "c1", "c2"], "label_kind": "multi", "threshold": 0.5}
    truth = Truth.of(meta, tables.Columns(), ["label"])
    named = [[f"c{i}" for i in np.flatnonzero(row)] for row in labels]
    cells = [json.dumps(n) if i % 2 else "; ".join(n) for i, n in enumerate(named)]
    found, count, notes = truth.scores(Rows(cells), answers(shares, several=True))
    assert (count, notes) == (40, ())
    wanted = label_metrics(shares, labels)
    assert found.pop("subset accuracy") == pytest.approx(wanted["accuracy"])
    for name, value in found.items():
        assert value == pytest.approx(wanted[name])


def test_a_predicted_score_is_scored_where_the_table_has_one():
    outputs = {"logits": np.zeros((2, 2), np.float32), "score": np.full((2, 1), 1.25, np.float32)}
    said = _said({"classes": ["c0", "c1"]}, outputs)
    assert said["score"] == 1.25
    truth = Truth.of({"classes": ["c0", "c1"]}, tables.Columns(), ["score"])
    cells = [tables.Row(i, {"score": cell}) for i, cell in enumerate(("1.75", "1.5", "", "x"))]
    found, count, _ = truth.scores(cells, [Answer(**said, milliseconds={})] * 4)
    assert (found, count) == ({"mae": pytest.approx(0.375)}, 0)


# --- Lines of JSON --------------------------------------------------------------------------------


def test_each_line_has_an_answer_or_an_error_with_its_number(predictor):
    lines = [
        b'{"text": "a good day", "id": 7}\n',
        b"\n",
        b"no json\n",
        b'{"text": "a", "image": null}\n',
        b'{"id": "x", "image": "gone.png"}\n',
        b"[1]\n",
        b'\xff{"text": "a"}\n',
        b"[" * 100_000,
    ]
    found = list(json_lines.answers(predictor, lines))
    assert [answer["line"] for answer in found] == [1, 3, 4, 5, 6, 7, 8]
    first = predictor.predict(text="a good day")
    assert (found[0]["id"], found[0]["label"]) == (7, first.label)
    assert found[0]["probabilities"] == first.probabilities
    assert [("error" in answer) for answer in found] == [0, 1, 0, 1, 1, 1, 1]
    assert found[3]["id"] == "x"
    assert "gone.png is not there" in found[3]["error"]
    json.dumps(found)


def test_a_stream_is_answered_while_it_comes(tiny_artifact):
    command = [sys.executable, "-m", "bench.predict", str(tiny_artifact), "--jsonl"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        for number in (1, 2):
            process.stdin.write('{"text": "a good day"}\n')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] == number
        process.stdin.close()
        assert process.stderr.read() == "2 of 2 lines answered\n"
    assert process.returncode == 0
