"""Files of the bench: whole or not at all, a log's last line; and what a model's logits say."""

import hashlib

import numpy as np
import pytest

from bench.edge.errors import BenchError
from bench.edge.files import digest, last_line, write
from bench.edge.outputs import softmax


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "new" / "file"
    for content in ("text ä", b"bytes", memoryview(b"a view")):
        write(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [p.name for p in path.parent.iterdir()] == ["file"]
    assert digest(path) == hashlib.sha256(b"a view").hexdigest()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"file/inner cannot be written: File exists\."):
        write(tmp_path / "file" / "inner", "")


@pytest.mark.parametrize(
    ("text", "start", "line"),
    [
        ("one\ntwo\n\n", "", "two"),
        ("epoch 1\repoch 2\r", "", "epoch 2"),
        ("error: no such run.\nbye\n", "error: ", "error: no such run."),
        ("bye\n", "error: ", "bye"),
        ("", "", ""),
        ("x" * (1 << 20) + "\nlast\n", "", "last"),
    ],
)
def test_the_last_line_of_a_log_says_something(tmp_path, text, start, line):
    (tmp_path / "log").write_text(text, newline="")
    assert last_line(tmp_path / "log", start) == line


def test_probabilities_of_great_logits_are_finite():
    shares = softmax(np.float32([[0, np.log(3)], [1e4, 1e4]]))
    np.testing.assert_allclose(shares, [[0.25, 0.75], [0.5, 0.5]])
    assert shares.dtype == np.float64
