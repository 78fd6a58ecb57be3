"""Answers from another machine are those of this one: a real sshd on loopback."""

import csv
import io
import json
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from bench.edge import artifact
from bench.edge.predict import main
from tests.support.sshd import needs_sshd
from tests.support.tiny import rows, write_manifest

pytestmark = [needs_sshd, pytest.mark.slow]


def read(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tolerance(folder) -> float:
    """What the artifact declares of fp32."""
    (rung,) = (r for r in artifact.read(folder)["ladder"] if r["name"] == "fp32")
    return rung["tolerance"]["relative"]


def assert_same(ours: dict, theirs: dict, near: float) -> None:
    """Two rows of answers, but for the time that they took."""
    assert list(ours) == list(theirs)
    for name in ours:
        if name.startswith(("p_", "predicted_score")) and ours[name]:
            assert float(theirs[name]) == pytest.approx(float(ours[name]), abs=near)
        elif name != "milliseconds":
            assert theirs[name] == ours[name]


@pytest.fixture
def table(tmp_path):
    """Rows with a mistake of each kind."""

    def change(lines):
        del lines[8:]
        lines[1][1] = "gone, long ago.png"
        lines[2][0] = ""
        lines[3][1] = "None"
        lines[4][:2] = ["", "nan"]
        lines[5][1] = "../1.png"
        lines[6][1] = "text.png"

    made = write_manifest(tmp_path / "our data", change=change)
    (made.parent / "text.png").write_text("no picture")
    lines = made.read_text().splitlines()
    lines[8] += ",one cell more"
    made.write_text("\n".join(lines) + "\n")
    (tmp_path / "1.png").write_bytes((made.parent / "0.png").read_bytes())
    return made


def test_a_table_is_answered_as_here_and_its_pictures_travel(
    device, tiny_artifact, table, tmp_path, capsys
):
    flags = [str(tiny_artifact), f"--table={table}"]
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    assert main([*flags, f"--out={here}"]) == 0
    said = capsys.readouterr().out
    assert main([*flags, f"--out={there}", *device.flags]) == 0
    also_said = capsys.readouterr().out
    assert f"Answers: {there}" in also_said
    assert "8 rows answered in" in also_said
    # Line by line the same, the mistakes too, with our names of the files.
    assert [line for line in said.splitlines() if line.startswith("  line ")] == [
        line for line in also_said.splitlines() if line.startswith("  line ")
    ]
    ours, theirs = read(here), read(there)
    assert len(ours) == len(theirs) == 8
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other, tolerance(tiny_artifact))
    assert str(table.parent / "gone, long ago.png") in theirs[1]["error"]
    assert str(table.parent / "text.png") in theirs[6]["error"]
    # Nothing outside of the table's folder went there, and the second time nothing goes but
    # what has changed.
    travelled = {path.name for path in (device.home / "inputs").rglob("*.*")}
    assert travelled == {"manifest.csv", "0.png", "2.png", "text.png"}
    (table.parent / "2.png").write_bytes((table.parent / "0.png").read_bytes())
    assert main([*flags, f"--out={there}", "--replace", *device.flags]) == 0
    assert "Copied to 127.0.0.1: 1 files" in capsys.readouterr().out


def test_one_example_and_lines_of_json_are_answered_as_here(
    device, tiny_artifact, tmp_path, capsys, monkeypatch
):
    folder = write_manifest(tmp_path / "data").parent
    texts = [line[0] for line in rows(4)]
    one = [str(tiny_artifact), "--text", f'- "{texts[0]}"', f"--image={folder / '0.png'}"]
    assert main(one) == 0
    here = capsys.readouterr().out.splitlines()
    assert main([*one, *device.flags]) == 0
    there = capsys.readouterr().out.splitlines()[1:]  # without the line on what was copied
    assert [line for line in here if " ms " not in line] == [
        line for line in there if " ms " not in line
    ]
    assert main([str(tiny_artifact), f"--image={folder}", *device.flags]) == 2
    assert f"The image {folder} is a folder" in capsys.readouterr().err

    monkeypatch.chdir(folder)
    asked = [{"text": text, "image": f"{row}.png", "id": row} for row, text in enumerate(texts)]
    asked += [{"text": "so", "image": "gone.png"}, {"image": 3}, ["no row"]]
    lines = "\n".join([*map(json.dumps, asked), "no JSON", "", '{"text": "the last"}']).encode()
    answers = []
    for flags in ([], device.flags):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
        assert main([str(tiny_artifact), "--jsonl", *flags]) == 0
        printed = capsys.readouterr().out.splitlines()
        answers.append([json.loads(line) for line in printed if line.startswith("{")])
    near = tolerance(tiny_artifact)
    assert len(answers[0]) == len(answers[1]) == len(asked) + 2
    for ours, theirs in zip(*answers, strict=True):
        for found in (ours, theirs):
            found.pop("milliseconds", None)
        assert theirs.pop("probabilities", {}) == pytest.approx(
            ours.pop("probabilities", {}), abs=near
        )
        assert theirs.pop("score", 0.0) == pytest.approx(ours.pop("score", 0.0), abs=near)
        assert theirs == ours


def test_a_table_outlives_the_connection(device, tiny_artifact, tmp_path, capsys):
    table = write_manifest(tmp_path / "data")
    out = tmp_path / "answers.csv"
    flags = [str(tiny_artifact), f"--table={table}", f"--out={out}", *device.flags]

    def cut() -> None:
        while not list((device.home / "jobs").glob("*/pid")):
            time.sleep(0.02)
        device.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    assert main(flags) == 2
    cutter.join()
    assert "it goes on there" in capsys.readouterr().err
    assert not out.exists()
    assert main(flags) == 0
    assert "Going on with the prediction that began" in capsys.readouterr().out
    assert len(read(out)) == 72
