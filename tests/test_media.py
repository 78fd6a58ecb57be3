"""Many files of one kind become the rows of one array, once; what cannot be used is told."""

import logging
import time

import numpy as np
import pytest

from fusion_keras.data.cache import content_key
from fusion_keras.data.media import BadFile, decoded, digests, in_threads
from fusion_keras.data.records import SkipLog


def lengths(folder, paths, skips=None):
    """A file's count of bytes, twice; an empty one is bad."""

    def decode(path):
        if not (count := path.stat().st_size):
            raise BadFile("nothing in it")
        return np.full(2, count)

    method = ("lengths", 1)
    return decoded(
        "file", paths, decode, method=method, row=(2,), dtype=np.int32, folder=folder, skips=skips
    )


def test_the_key_is_of_the_method_and_the_files_content(tmp_path):
    paths = [tmp_path / str(n) for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes(n))
    cache = tmp_path / "cache"
    for _ in range(2):
        skips = SkipLog("x.csv", 0.5, total=3)
        array, usable = lengths(cache, paths, skips)
        assert array.tolist() == [[0, 0], [1, 1], [2, 2]]
        assert usable.tolist() == [False, True, True]
        assert skips.entries == [f"x.csv: file {paths[0]}: nothing in it"]
    # Entries of earlier versions are found by it.
    key = content_key("lengths", 1, digests(paths))
    assert {path.stem for path in cache.iterdir()} == {key}


def test_results_come_in_order_and_progress_is_no_output(capsys, caplog):
    # As an entry without --quiet.
    caplog.set_level(logging.INFO, "fusion_keras")

    def slow_first(n):
        time.sleep(0.02 if n % 64 == 0 else 0)
        return n

    pieces = list(in_threads(slow_first, range(130), "counting"))
    assert [n for piece in pieces for n in piece] == list(range(130))
    assert [len(piece) for piece in pieces] == [64, 64, 2]
    few = list(in_threads(slow_first, range(50), "counting a few"))
    assert few == [list(range(50))]
    said = capsys.readouterr()
    assert said.out == ""
    assert "counting" in said.err
    assert "a few" not in said.err


def test_an_error_of_the_work_ends_it():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda n: 1 / n, range(3), "dividing"))
