"""Files of fusion_keras: whole or as they were, told apart by a hash, a log's last line."""

import hashlib
import os
import re

import pytest

from fusion_keras.errors import UsageError
from fusion_keras.files import UNFINISHED, digest, disk_errors, last_line, whole, write


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    # What a killed process left.
    (tmp_path / ".new.file").write_bytes(b"half of something longer")
    for content in (b"first", b"second"):
        write(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file"]
    assert digest(path) == hashlib.sha256(b"second").hexdigest()


def _interrupted(path, contested):
    with whole(path, contested=contested) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("contested", [False, True])
def test_what_ends_with_an_error_leaves_the_file_as_it_was(tmp_path, contested):
    path = tmp_path / "file.keras"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path, contested)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file.keras"]


def test_each_of_several_writers_has_a_file_of_its_own(tmp_path):
    path = tmp_path / "file.npy"
    with whole(path, contested=True) as slow:
        slow.write_bytes(b"slow")
        with whole(path, contested=True) as fast:
            fast.write_bytes(b"fast")
        assert path.read_bytes() == b"fast"
        assert slow.suffix == UNFINISHED
    assert path.read_bytes() == b"slow"


def test_a_partial_file_has_the_suffix_that_libraries_look_at(tmp_path):
    with whole(tmp_path / "model.keras") as partial:
        assert partial.suffix == ".keras"
        partial.touch()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    sentence = f"Could not write {tmp_path}/file/inner: Not a directory. Free some space or"
    with pytest.raises(UsageError, match=re.escape(sentence)):
        write(tmp_path / "file" / "inner", b"")


def test_an_error_without_a_number_is_told_too(tmp_path):
    with pytest.raises(UsageError, match=r"file: odd\. Free"), disk_errors(tmp_path / "file"):
        raise OSError("odd")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo\n\n", "two"),
        ("epoch 1\repoch 2\r", "epoch 2"),
        ("", ""),
        ("x" * (1 << 20) + "\n last \n", "last"),
    ],
)
def test_the_last_line_of_a_log_says_something(tmp_path, text, line):
    (tmp_path / "log").write_text(text, newline="")
    assert last_line(tmp_path / "log") == line
