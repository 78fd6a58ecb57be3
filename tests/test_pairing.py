"""The set of faces and sentences that was measured, from a user's own copies."""

import csv
import random
import shutil

import numpy as np
import pytest

from fusion_keras.data.pairing import pair
from fusion_keras.errors import UsageError


@pytest.fixture(scope="module")
def measured(data_root):
    return data_root / "mosi_fer"


@pytest.fixture(scope="module")
def label_file(data_root):
    return data_root / "mosi" / "label.csv"


@pytest.fixture(scope="module")
def faces(measured, tmp_path_factory):
    """The faces under other names, in folders, in another order, among files that are none."""
    folder = tmp_path_factory.mktemp("fer2013")
    files = sorted((measured / "frames").iterdir())
    random.Random(0).shuffle(files)
    for number, file in enumerate(files):
        emotion = folder / ("train", "test")[number % 2] / f"emotion{number % 7}"
        emotion.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, emotion / f"{number}{('.jpg', '.JPEG')[number % 2]}")
    (folder / "readme.txt").write_text("faces")
    (folder / "train" / "other.jpg").write_bytes(b"no face that is wanted")
    return folder


def test_the_set_is_the_one_that_was_measured_byte_for_byte(faces, label_file, measured, tmp_path):
    paired = pair(faces, label_file, tmp_path / "new" / "mosi_fer")
    assert not paired.others
    assert paired.rows == 2199
    assert (paired.folder / "manifest.csv").read_bytes() == (measured / "manifest.csv").read_bytes()
    made = sorted(path.name for path in (paired.folder / "frames").iterdir())
    assert made == sorted(path.name for path in (measured / "frames").iterdir())
    for name in made:
        theirs = (measured / "frames" / name).read_bytes()
        assert (paired.folder / "frames" / name).read_bytes() == theirs
    assert [path.name for path in paired.folder.parent.iterdir()] == ["mosi_fer"]


def test_capital_letters_and_long_scores_are_the_same_sentences(faces, label_file, tmp_path):
    with label_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["text"] = row["text"].upper()
        row["label"] = repr(float(np.float32(row["label"])))
    other = tmp_path / "label.csv"
    write(other, rows[::-1])
    assert not pair(faces, other, tmp_path / "out").others


def test_another_version_of_the_sentences_is_told(faces, label_file, tmp_path):
    with label_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[7]["text"] += " indeed"
    other = tmp_path / "label.csv"
    write(other, rows)
    paired = pair(faces, other, tmp_path / "out")
    assert paired.others == (f"{rows[7]['video_id']}_{rows[7]['clip_id']}",)
    assert paired.rows == 2199


def test_faces_that_are_not_there_are_counted_and_nothing_is_written(faces, label_file, tmp_path):
    with pytest.raises(UsageError, match=r"without the faces of \d+ of 2199 clips .*training and"):
        pair(faces / "train", label_file, tmp_path / "out")
    with pytest.raises(UsageError, match="without the faces of 2199 of 2199 clips"):
        pair(tmp_path, label_file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_clips_that_are_not_there_are_counted(faces, label_file, tmp_path):
    lines = label_file.read_text().splitlines(keepends=True)
    other = tmp_path / "label.csv"
    other.write_text("".join(lines[:1] + lines[3:]))
    wanted = r"without 2 of the 2199 clips \(03bSnISJMiM_1, 03bSnISJMiM_2\)"
    with pytest.raises(UsageError, match=wanted):
        pair(faces, other, tmp_path / "out")


def test_no_folder_and_a_full_folder_are_refused(faces, label_file, tmp_path):
    with pytest.raises(UsageError, match="which is no folder"):
        pair(tmp_path / "none", label_file, tmp_path / "out")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("kept")
    with pytest.raises(UsageError, match="has something in it"):
        pair(faces, label_file, full)
    assert (full / "mine").read_text() == "kept"


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
